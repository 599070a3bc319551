"""`gradus compare`: two files of results, and what is said where they cannot be compared."""

import json
import re
from pathlib import Path

import pytest

from gradus.cli.comparing import compare
from gradus.core.errors import ArtifactError, DataError
from gradus.core.statistics import proportion
from gradus.eval.result import ItemResult, SampleResult, SuiteResult


def write_tasks(path: Path, right: list[int], **more: object) -> str:
    measure = proportion(sum(right), len(right)) | {"items": {str(i): v for i, v in enumerate(right)}}
    path.write_text(json.dumps({"model": "m", "measures": {"piqa": {"acc": measure}} | more}))
    return str(path)


def write_suite(path: Path, right: list[int]) -> str:
    items = [{"id": str(i), "category": "sums" if i % 2 else "talk", "passed": bool(v)} for i, v in enumerate(right)]
    whole = proportion(sum(right), len(right))
    path.write_text(json.dumps({"suite": "fresh", "total": whole, "categories": {"sums": whole}, "items": items}))
    return str(path)


def test_the_table_says_better_worse_or_not_resolved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_tasks(tmp_path / "a.json", [1, 0] * 30, extra={"value": 1.0})
    second = write_tasks(tmp_path / "b.json", [1, 1] * 20 + [1, 0] * 10)
    compare(first, second, tmp_path, as_json=False)
    out = capsys.readouterr().out
    assert "tasks.piqa.acc" in out
    assert re.search(r"better +<0\.001", out)
    assert "20 won, 0 lost of 60 shared items" in out
    assert f"only in {first}: tasks.extra" in out
    compare(second, first, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["measures"][0]["verdict"] == "worse"


def test_suites_are_compared_by_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_suite(tmp_path / f"{n}.json", [n, 1, 0, 1]) for n in (0, 1))
    compare(first, second, tmp_path, as_json=True)
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert [(m["measure"], m["verdict"], m["text"]) for m in measures] == [
        ("probes.fresh.total", "not resolved", "1 won, 0 lost of 4 shared items"),
        ("probes.fresh.sums", "not resolved", "0 won, 0 lost of 2 shared items"),
    ]


def written_runs(path: Path, passed: dict[tuple[str, str], int]) -> str:
    """Runs by (model, variant) of a suite of ten probes, three samples each, of which the first so many pass."""

    def sampled(good: int) -> tuple[SampleResult, ...]:
        return tuple(SampleResult((() if n < good else ("no",)), "", "", (), "stop", 1) for n in range(3))

    runs = [
        SuiteResult("fresh", model, tuple(ItemResult(f"p{n}", "a", sampled(good)) for n in range(10)), variant=variant)
        for (model, variant), good in passed.items()
    ]
    path.write_text(json.dumps({"suite": "fresh", "runs": [run.to_json() for run in runs]}))
    return str(path)


def test_files_of_several_runs_are_compared_run_by_run_and_samples_by_their_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = written_runs(tmp_path / "a.json", {("mine/base", ""): 0, ("mine/chat", ""): 2})
    others = written_runs(tmp_path / "b#.json", {("other/base", ""): 1, ("other/extra", ""): 2})
    compare(stages, others, tmp_path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    told = {m["measure"]: (m["verdict"], m["text"]) for m in found["measures"]}
    assert told == {
        # A third of the samples passes, which is the majority of none: only the pass rate shows it.
        "probes.fresh.base.total": ("not resolved", "0 won, 0 lost of 10 shared items"),
        "probes.fresh.base.a": ("not resolved", "0 won, 0 lost of 10 shared items"),
        "probes.fresh.base.pass_rate.total": ("better", "10 won, 0 lost of 10 shared items"),
        "probes.fresh.base.pass_rate.a": ("better", "10 won, 0 lost of 10 shared items"),
        "probes.fresh.base.loops.replies": ("not resolved", "no shared items and no standard errors"),
    }
    assert "probes.fresh.chat.total" in found["only_first"]
    for first, second in (("base", "chat"), ("1", "2")):
        compare(f"{stages}#{first}", f"{stages}#{second}", tmp_path, as_json=True)
        (total, *_) = json.loads(capsys.readouterr().out)["measures"]
        assert (total["measure"], total["verdict"]) == ("probes.fresh.total", "better")
    variants = written_runs(tmp_path / "c.json", {("m", "as written"): 3, ("m", "without tools"): 1})
    compare(variants, variants, tmp_path, as_json=False)
    assert "probes.fresh.without tools.pass_rate.total" in capsys.readouterr().out
    both = written_runs(tmp_path / "d.json", {("r/s", "as written"): 3, ("r/t", "as written"): 1})
    compare(f"{both}#t, as written", both + "#1", tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["measures"][0]["verdict"] == "better"
    for name, message in {
        f"{stages}#bsae": r'no run "bsae"; did you mean "base"\?; there are 1 \(base\), 2 \(chat\)',
        f"{stages}#3": 'no run "3"; there are 1',
        write_suite(tmp_path / "s.json", [1]) + "#1": 'holds one run; leave "#1" out',
        write_tasks(tmp_path / "t.json", [1]) + "#1": "holds no runs of a probe suite",
    }.items():
        with pytest.raises(DataError, match=message):
            compare(name, stages, tmp_path, as_json=False)
    # As of two exported files that lie in different folders.
    same = json.loads(Path(stages).read_text())
    same["runs"] = [run | {"model": "toy-F32.gguf"} for run in same["runs"]]
    (tmp_path / "same.json").write_text(json.dumps(same))
    for name in ("", "#toy-F32.gguf"):
        with pytest.raises(DataError, match=r"several runs have the same name; choose one by its number.*1 \(toy-F32"):
            compare(f"{tmp_path}/same.json{name}", stages, tmp_path, as_json=False)
    compare(f"{tmp_path}/same.json#1", f"{tmp_path}/same.json#2", tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["measures"][0]["verdict"] == "better"
    with pytest.raises(DataError, match="of a file with several runs name one, as in FILE#RUN"):
        compare(str(tmp_path / "s.json"), stages, tmp_path, as_json=False)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    tasks, suite = write_tasks(tmp_path / "a.json", [1]), write_suite(tmp_path / "b.json", [1])
    with pytest.raises(DataError, match=r"share no measure: tasks\.piqa\.acc against probes\.fresh\.total"):
        compare(tasks, suite, tmp_path, as_json=False)
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(DataError, match=r"c\.json: no evaluation; give a file that gradus eval wrote with --json"):
        compare(tasks, str(tmp_path / "c.json"), tmp_path, as_json=False)
    with pytest.raises(ArtifactError, match='no eval "nobody"'):
        compare(tasks, "nobody", tmp_path, as_json=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"measures": {"a": {"value": "x"}}}', """"tasks.a" holds 'x', expected a number"""),
        ('{"measures": {"a": {"value": 1, "items": {"q": NaN}}}}', '"tasks.a" holds nan, expected a number'),
        ('{"suite": "s", "items": [{"id": 1}], "total": {"value": 1}, "categories": {}}', "not as gradus eval probes"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_file_that_only_looks_like_an_evaluation_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=told):
        compare(str(tmp_path / "a.json"), str(tmp_path / "a.json"), tmp_path, as_json=False)
