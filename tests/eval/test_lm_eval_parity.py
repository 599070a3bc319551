"""Our numbers against lm-eval's own transformers backend, item by item, on a model that a seed makes anew.

golden/lm_eval.json is what lm_eval_peer.py wrote where lm-eval is installed, on the same local files.
"""

import json
import os
from pathlib import Path

import pytest
from seeded_bundle import write_seeded_bundle

from gradus.engine.load import load_engine
from gradus.eval.benchmarks import BenchmarkSettings, asked_of
from gradus.eval.task_result import TaskResult
from gradus.eval.task_run import answers_of
from gradus.eval.tasks import TASKS, asked, task_items_of

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = json.loads((Path(__file__).parent / "golden/lm_eval.json").read_text(encoding="utf-8"))
DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared/data"))
SUBJECT = "us_foreign_policy"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeded")
    write_seeded_bundle(folder)
    return load_engine(folder)


def chosen_items(task, bundle, count):
    """The items that the peer asked too: of MMLU one subject, of WikiText the shortest articles."""
    if task == "wikitext2":
        ((_, wanted, items),) = asked_of(task, bundle.form, BenchmarkSettings(DATA), bundle.model.config.context)
        return wanted, sorted(items, key=lambda item: item.lengths[1])[:count]
    texts = task_items_of(task, DATA)
    chosen = [pair for pair in texts if not task.startswith("mmlu") or SUBJECT in pair[0]][:count]
    return TASKS[task].measures, asked(chosen, bundle.tokenizer)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs real data: set GRADUS_DATA")
@pytest.mark.parametrize("task", sorted(GOLDEN["tasks"]))
def test_every_item_is_scored_as_lm_eval_scores_it(task, bundle):
    golden = GOLDEN["tasks"][task]
    wanted, items = chosen_items(task, bundle, len(golden["items"]))
    answers = answers_of(bundle.model, items)
    result = TaskResult(task, "seeded", wanted, tuple(items), tuple(answers), "")
    for told, entry in zip(answers, golden["items"], strict=True):
        logp = [sum(answer.logp for answer in told)] if wanted == ("document_perplexity",) else [a.logp for a in told]
        assert logp == pytest.approx(entry["logp"], rel=2e-5, abs=2e-4)
    for measure, right in result.verdicts().items():
        assert list(right.values()) == [entry[measure] for entry in golden["items"]]
    values = {measure: found["value"] for measure, found in result.measures().items()}
    assert golden["results"].keys() <= values.keys()
    assert {k: values[k] for k in golden["results"]} == pytest.approx(golden["results"], rel=1e-4)


def test_a_parity_of_few_tasks_would_show_little():
    assert len(GOLDEN["tasks"]) >= 9
