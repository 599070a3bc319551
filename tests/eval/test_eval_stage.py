"""Benchmarks as a stage of a roadmap: measures, gates, items in a corpus; from the command line."""

import json
import math
from pathlib import Path

import pytest
from seeded_bundle import write_seeded_bundle
from small_stages import PROSE

from gradus.cli.evaluating import evaluate_tasks
from gradus.core.comparison import compare_measures, named_measures
from gradus.core.errors import ConfigError, GateFailedError, GradusError
from gradus.core.gate import find_measure
from gradus.eval.benchmarks import BUNDLE, CORE, BenchmarkSettings
from gradus.eval.contamination import check_contamination
from gradus.eval.core_metric import CORE_TASKS
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_data import report_data
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

pytestmark = pytest.mark.usefixtures("one_thread")

ROADMAP = (
    """
name = "small"

[machine]
threads = 1

"""
    + PROSE
    + """\
decontaminate = []

[[stage]]
name = "model"
kind = "import"
take = "folder:model"

[[stage]]
name = "look"
kind = "eval"
from = "model"
corpus = "prose"
tasks = ["arc_easy", "lambada_openai"]
benchmarks = "sets"
"""
)
QUESTION = "In which of the four seasons of a year do the leaves of an old oak number {} turn to red and brown?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_seeded_bundle(tmp_path / "model")
    rows = [
        {"id": f"q{n}", "question": QUESTION.format("abcdefgh"[n] * 3), "choices": ["autumn", "spring"], "gold": n % 2}
        for n in range(8)
    ]
    passages = [{"context": f"He had {n} cats and not one dog, and each of the {n} was his", "continuation": "cat"}
                for n in range(5)]  # fmt: skip
    for name, found in {
        "arc/arc_easy_test": rows,
        "arc/arc_easy_val": rows[:0],
        "lambada/lambada_openai": passages,
    }.items():
        file = tmp_path / f"sets/{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in found))
    lines = [f"Line {n}: the cat number {n * 7} sat on mat {n % 13}." for n in range(200)]
    # Two of the questions stand in the text, one of them with other words around it.
    lines += [rows[2]["question"], f"They asked: {rows[5]['question']} Nobody knew."]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return tmp_path


def load(folder: Path, more: str = ""):  # type: ignore[no-untyped-def]
    (folder / "small.toml").write_text(ROADMAP + more)
    return load_roadmap(folder / "small.toml")


def test_scores_stand_beside_what_is_in_the_corpus(folder: Path) -> None:
    one = walk(load(folder), folder / "one", QuietProgress()).artifacts["look"]
    acc = find_measure(one.results, "tasks.arc_easy.acc")
    assert (acc["n"], acc["contaminated"], acc["clean"]["n"]) == (8, 2, 6)
    assert acc["clean"]["successes"] == sum(v for k, v in acc["items"].items() if k not in {"q2", "q5"})
    written = json.loads((one.path / "tasks/arc_easy.json").read_text())
    assert [item["id"] for item in written["items"] if item["contaminated"]] == ["q2", "q5"]
    assert find_measure(one.results, "tasks.lambada_openai.perplexity")["n"] == 5
    lines = [json.loads(line) for line in (folder / "one/runs/small/ledger.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line.get("measure") == "tasks.arc_easy.acc"]
    assert "items" not in line
    assert line["standard_error"] > 0


def test_the_report_shows_tasks_with_their_items(folder: Path) -> None:
    result = walk(load(folder), folder / "home", QuietProgress())
    (entry,) = report_data(result.run_dir)["abilities"]
    assert [suite["name"] for suite in entry["suites"]] == ["arc_easy", "lambada_openai"]
    suite = entry["suites"][0]
    measured = result.artifacts["look"].results["tasks"]["arc_easy"]
    assert suite["total"]["successes"] == measured["acc"]["successes"]
    assert [category["name"] for category in suite["categories"]] == ["acc_norm"]
    item = suite["items"][0]
    assert item["messages"][0]["content"] == f"Question: {QUESTION.format('aaa')}\nAnswer:"
    assert (item["answer"] == "autumn") == item["passed"]
    assert item["reasons"] == ([] if item["passed"] else ["right is: autumn"])
    assert result.report is not None
    assert "arc_easy" in result.report.read_text()


def test_perplexity_of_held_back_documents_is_told_by_source(folder: Path) -> None:
    more = "perplexity_documents = 5\n"
    held = load(folder, more=more.replace("5", "500"))
    whole = walk(held, folder / "home", QuietProgress()).artifacts["look"].results["perplexity"]
    some = walk(load(folder, more=more), folder / "home", QuietProgress()).artifacts["look"].results["perplexity"]
    (source,) = whole
    found, few = whole[source], some[source]
    assert len(few["byte_perplexity"]["items"]) == 5 <= len(found["byte_perplexity"]["items"])
    assert found["bits_per_byte"]["value"] == pytest.approx(math.log2(found["byte_perplexity"]["value"]))
    assert found["word_perplexity"]["n"] < found["token_perplexity"]["n"]
    # A model of random weights knows nothing: a token costs about the logarithm of the vocabulary.
    assert math.log(found["token_perplexity"]["value"]) == pytest.approx(math.log(400), abs=2)
    with pytest.raises(GradusError, match="perplexity_documents: no corpus is named"):
        walk(
            load(folder, more=f'\n[[stage]]\nname = "b"\nkind = "eval"\nfrom = "model"\n{more}'),
            folder / "b",
            QuietProgress(),
        )


def test_a_gate_can_be_on_a_task(folder: Path) -> None:
    gate = '\n[[stage.gate]]\nmeasure = "tasks.lambada_openai.perplexity"\nat_most = 2.0\n'
    with pytest.raises(GateFailedError, match=r"tasks\.lambada_openai\.perplexity = .* is above 2"):
        walk(load(folder, more=gate), folder / "home", QuietProgress())


def test_written_answers_are_shown_compared_and_gated(folder: Path) -> None:
    questions = [" ".join(f"{letter}{n}" for n in range(12)) for letter in "abcdefgh"]
    questions[2] = QUESTION.format("ccc")
    file = folder / "sets/gsm8k/test.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps({"question": q, "answer": f"#### {n}"}) + "\n" for n, q in enumerate(questions)))
    stage = """
[[stage]]
name = "write"
kind = "eval"
from = "model"
corpus = "prose"
tasks = ["gsm8k"]
benchmarks = "sets"
task_tokens = 8
task_samples = 2
task_temperature = 1.0

[[stage.gate]]
measure = "tasks.gsm8k.acc"
at_least = 0.0
"""
    result = walk(load(folder, more=stage), folder / "one", QuietProgress())
    one = result.artifacts["write"]
    acc = find_measure(one.results, "tasks.gsm8k.acc")
    assert (acc["n"], acc["contaminated"], acc["clean"]["n"]) == (8, 1, 7)
    written = json.loads((one.path / "tasks/gsm8k.json").read_text())["items"]
    assert [len(item["answers"]) for item in written] == [2] * 8
    assert any(item["answers"][0]["answer"] != item["answers"][1]["answer"] for item in written)
    suites = [suite for entry in report_data(result.run_dir)["abilities"] for suite in entry["suites"]]
    (item, *_) = next(suite["items"] for suite in suites if suite["name"] == "gsm8k")
    assert item["messages"][0]["content"].startswith(f"{questions[0]}\n\nWork it out step by step.")
    assert item["answer"] == written[0]["answers"][0]["answer"]
    assert item["reasons"] == written[0]["answers"][0]["reasons"]
    compared = compare_measures(*(named_measures(one.results["tasks"]) for _ in range(2)))
    assert [(found.measure, found.verdict) for found in compared] == [
        ("gsm8k.acc", "not resolved"), ("gsm8k.acc_last", "not resolved")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="2 samples of each item at temperature 0 would all be the same"):
        load(folder, more=stage.replace("task_temperature = 1.0", ""))


def test_a_task_that_is_unknown_or_has_no_files_stops_before_the_walk(folder: Path) -> None:
    with pytest.raises(ConfigError) as found:
        load(folder, more='\n[[stage]]\nname = "b"\nkind = "eval"\nfrom = "model"\nbenchmarks = "sets"\n'
             'tasks = ["arc_eazy", "piqa"]\n')  # fmt: skip
    assert 'unknown task "arc_eazy"; did you mean "arc_easy"' in found.value.problems[0]
    assert "no file piqa/valid.jsonl (or .gz)" in found.value.problems[1]


def test_the_command_writes_its_result_and_goes_on_after_an_interruption(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradus.eval import task_run

    walk(load(folder), folder, QuietProgress())
    settings = BenchmarkSettings(folder / "sets", limit=4)
    out = folder / "out.json"
    tasks = ["lambada_openai", "arc_easy"]
    plain, calls = task_run.likelihoods, []

    def second_fails(*arguments, **options):  # type: ignore[no-untyped-def]
        calls.append(len(arguments[1]) - len(options["done"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*arguments, **options)

    monkeypatch.setattr(task_run, "likelihoods", second_fails)
    with pytest.raises(BaseException):  # noqa: B017
        evaluate_tasks(str(folder / "model"), tasks, folder, settings, None, out)
    assert not out.exists()
    evaluate_tasks(str(folder / "model"), tasks, folder, settings, "small/prose", out)
    assert calls == [4, 4, 0, 4]
    text = capsys.readouterr().out
    assert "in the corpus" in text
    assert "arc_easy.acc" in text
    record = json.loads(out.read_text())
    assert [item["id"] for item in record["tasks"]["arc_easy"]["items"]] == ["q0", "q2", "q4", "q6"]
    assert record["measures"]["arc_easy"]["acc"]["contaminated"] == 1
    assert not list(folder.glob(".out*"))
    # What is looked up afterwards is missed before anything is asked.
    (folder / "sets/arc/arc_easy_val.jsonl").unlink()
    with pytest.raises(GradusError, match="arc_easy_val"):
        evaluate_tasks(str(folder / "model"), tasks, folder, settings, "small/prose", None)
    assert len(calls) == 4


def test_items_of_a_bundle_that_is_not_the_folders_are_not_looked_for(tmp_path: Path) -> None:
    task = f"{CORE}.{next(iter(CORE_TASKS))}"
    check_contamination([task], BenchmarkSettings(tmp_path, bundle=tmp_path / "elsewhere"))
    with pytest.raises(GradusError, match="core_"):
        check_contamination([task], BenchmarkSettings(tmp_path))
    with pytest.raises(GradusError, match="core_"):
        check_contamination([task], BenchmarkSettings(tmp_path, bundle=tmp_path / BUNDLE))
