"""CORE: published scores from published accuracies, prompts by hand, and the bundle's files."""

import json
import os
from pathlib import Path

import pytest

from gradus.core.errors import DataError
from gradus.core.statistics import clustered_standard_error
from gradus.eval.asked import Likelihood
from gradus.eval.core_metric import CORE_TASKS, core_asked, core_file, core_measures, core_scores
from gradus.eval.task_result import TaskResult
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs real data: set GRADUS_DATA")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on a mat. why? because it can.\n"] * 3, vocab_size=285)


@needs_data
def test_published_scores_follow_from_published_accuracies() -> None:
    published = json.loads((DATA / "golden/dclm_core_results.json").read_text())
    assert len(published) >= 5
    for entry in published:
        found = core_scores(entry["acc"])
        assert found["v1"] == pytest.approx(entry["Core_v1"], abs=1e-6)
        assert found["v2"] == pytest.approx(entry["Core_v2"], abs=1e-6)


@needs_data
def test_every_task_has_a_file_in_a_bundle_whose_rows_become_questions(tokenizer: Tokenizer) -> None:
    from gradus.data.benchmarks import json_rows

    for name in CORE_TASKS:
        rows = [row for _, row in json_rows(core_file(name, DATA / "core_bundle"))]
        (item, *_) = core_asked(name, rows, tokenizer, limit=2)
        assert len(item.question) in {1, len(item.choices)}
        assert all(one.context[0] == tokenizer.special(END_OF_TEXT) for one in item.question)


def test_choices_are_told_from_where_they_first_differ(tokenizer: Tokenizer) -> None:
    rows = [{"query": f"Question: why {n}?", "choices": ["it sat", "it can"], "gold": 1} for n in range(12)]
    items = core_asked("arc_easy", rows, tokenizer)
    assert sorted(item.id for item in items) == sorted(str(n + 1) for n in range(12))
    item = items[3]
    first, second = (tokenizer.decode([*one.context, *one.tokens][1:]) for one in item.question)
    *shots, asked = first.split("\n\n")
    assert asked == f"Question: why {int(item.id) - 1}?\nAnswer: it sat"
    assert second.endswith("\nAnswer: it can")
    # Ten others with their right answers, each once, never the question itself.
    assert all(shot.endswith("?\nAnswer: it can") for shot in shots)
    assert len(set(shots)) == 10
    assert asked.removesuffix("sat") + "can" not in shots
    assert item.question[0].context == item.question[1].context
    assert item.question[0].tokens[0] != item.question[1].tokens[0]


def test_a_schema_tells_what_both_contexts_end_with(tokenizer: Tokenizer) -> None:
    row = {"context_options": ["the cat", "the mat"], "continuation": "sat.", "gold": 0}
    (item,) = core_asked("winograd", [row], tokenizer)
    assert item.question[0].tokens == item.question[1].tokens
    assert tokenizer.decode(item.question[0].tokens).endswith(" sat.")
    assert len(item.question[0].context) >= 2


def test_what_a_language_task_continues_has_no_space_at_its_end(tokenizer: Tokenizer) -> None:
    rows = [{"context": " why? ", "continuation": "because"}, {"context": "a", "continuation": "b"}]
    (item,) = (item for item in core_asked("squad", rows, tokenizer) if item.id == "1")
    assert tokenizer.decode(item.question[0].context[1:]) == "a b\n\nwhy?"
    assert tokenizer.decode(item.question[0].tokens) == " because"


def test_a_bundle_without_a_task_and_a_row_of_another_shape_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "eval_data/world").mkdir(parents=True)
    file = tmp_path / "eval_data/world/jeopardy_all.jsonl"
    file.write_text("")
    assert core_file("jeopardy", tmp_path) == file
    with pytest.raises(DataError, match=r'"squad": expected one file squad\.jsonl or squad\.jsonl\.gz .* found none'):
        core_file("squad", tmp_path)
    with pytest.raises(DataError, match="is no folder; give the folder of the evaluation bundle"):
        core_file("squad", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r'"squad", row 1: not a row of a bundle \(KeyError'):
        core_asked("squad", [{"question": "?"}], tokenizer)


def test_the_error_of_core_is_that_of_its_items() -> None:
    def result(name: str) -> TaskResult:
        from gradus.eval.asked import Asked, Continuation

        one = Continuation([1], [2])
        items = [Asked(str(n), "", ("x",), (one,), (1,), 0, cluster=f"passage {n // 2}" if name == "squad" else "")
                 for n in range(4)]  # fmt: skip
        answers = tuple((Likelihood(-1.0, n < 2, 1),) for n in range(4))
        return TaskResult(name, "m", ("acc_greedy",), tuple(items), answers, "")

    found = core_measures({name: result(name) for name in CORE_TASKS})
    assert found["v1"]["value"] == pytest.approx(core_scores(dict.fromkeys(CORE_TASKS, 0.5))["v1"])
    # Both right ones are of one passage, so the four count as two: residuals +1 and -1.
    assert found["squad"]["acc"]["standard_error"] == pytest.approx(2**0.5 / 4)
    assert found["squad"]["acc"]["clusters"] == 2
    errors = [0.25 / (1 - task.v1) for task in CORE_TASKS.values()]
    errors[list(CORE_TASKS).index("squad")] = 2**0.5 / 4
    assert found["v1"]["standard_error"] == pytest.approx(sum(e * e for e in errors) ** 0.5 / 22)


def test_values_in_clusters_of_one_have_the_plain_error() -> None:
    assert clustered_standard_error([1, 0, 0, 1], [1, 2, 3, 4]) == pytest.approx(0.25)
    assert clustered_standard_error([1, 1, 0, 0], ["a", "a", "b", "b"]) == pytest.approx(2**0.5 / 4)
    assert clustered_standard_error([1], ["a"]) == 0.0
