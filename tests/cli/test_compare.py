"""`gradus compare`: two files of results, and what is said where they cannot be compared."""

import json
import re
from pathlib import Path

import pytest

from gradus.cli.comparing import compare
from gradus.core.errors import ArtifactError, DataError
from gradus.core.statistics import proportion


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
