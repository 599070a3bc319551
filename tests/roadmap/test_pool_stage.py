"""The pool stage and the preview: sources of every kind, filters, what is counted, and what is refused in words."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gradus.cli.main import app
from gradus.core.errors import ConfigError
from gradus.data.pool import read_pool
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

ANSWER = "An answer of more than forty characters, number {}, with nothing wrong in it."


def write_chats(folder: Path, count: int = 6) -> None:
    rows = [{"instruction": f"q{i}", "output": ANSWER.format(i)} for i in range(count)]
    rows += [{"instruction": "short", "output": "No."}, {"instruction": "empty", "output": ""}]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def pool_table(folder: Path, settings: str) -> Path:
    file = folder / "pools.toml"
    file.write_text(f'[[stage]]\nname = "talk"\nkind = "pool"\nvalidation_fraction = 0.0\n{settings}')
    return file


def test_a_folder_of_files_of_all_kinds_becomes_one_pool(tmp_path: Path) -> None:
    (tmp_path / "in" / "possible_answer").mkdir(parents=True)
    write_chats(tmp_path / "in")
    (tmp_path / "in" / "SOURCE.md").write_text("not a record")
    pq.write_table(pa.table({"prompt": ["p"], "completion": [ANSWER]}), tmp_path / "in" / "more.parquet")
    question = {"id": "q", "question": [[{"role": "user", "content": "a"}]], "function": [{"name": "f"}]}
    (tmp_path / "in" / "calls.json").write_text(json.dumps([question]))
    (tmp_path / "in" / "possible_answer" / "calls.json").write_text(
        json.dumps({"id": "q", "ground_truth": [{"f": {}}]})
    )
    settings = 'sources = [{ path = "in" }]\nfilters = ["length"]\ncalls_may_end = true\n'
    file = pool_table(tmp_path, settings)
    first = load_roadmap(file)
    pool = walk(first, tmp_path, QuietProgress()).artifacts["talk"]
    counts = pool.results["counts"]
    assert counts["train"]["by_source"] == {"chats.jsonl": 6, "more.parquet": 1}
    assert counts["dropped_by_source"] == {
        "calls.json": {"too_short": 1},
        "chats.jsonl": {"no_answer": 1, "too_short": 1},
    }
    assert {c.source for c in read_pool(pool.path, "train")} == {"chats.jsonl", "more.parquet"}
    # The answers of another file are part of what the pool is made of.
    (tmp_path / "in" / "possible_answer" / "calls.json").write_text(
        json.dumps({"id": "q", "ground_truth": [{"g": {}}]})
    )
    assert load_roadmap(file).stages[0].fingerprint != first.stages[0].fingerprint


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ('sources = [{ path = "chats.jsonl", kind = "hubs" }]', 'expected one of files, hub, preset, found "hubs"'),
        (
            'sources = [{ path = "chats.jsonl", max_row = 3 }]',
            'unknown key "sources[0].max_row"; did you mean "max_rows"?',
        ),
        ('sources = [{ path = "chat.jsonl" }]', 'did you mean "chats.jsonl"?'),
        ('sources = [{ kind = "preset", name = "smoltak" }]', 'no ready set of conversations "smoltak"; did you mean'),
        ('sources = [{ kind = "preset", name = "orca-pairs" }]', '"orca-pairs" holds preference pairs'),
        ('sources = [{ path = "chats.jsonl", shape = "sharegtp" }]', 'no shape "sharegtp"; did you mean "sharegpt"?'),
        ('sources = [{ path = "chats.jsonl" }]\nfilters = ["html"]', 'did you mean "html_tag"?'),
        ('sources = [{ path = "chats.jsonl" }]\nfilters = ["nowhere:f"]', 'filter "nowhere:f": no module "nowhere"'),
        ("sources = []", "at least 1 entries"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(tmp_path: Path, settings: str, problem: str) -> None:
    write_chats(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_roadmap(pool_table(tmp_path, settings))
    assert problem in str(caught.value)
    assert "pools.toml:" in str(caught.value)


def preview(*words: str) -> str:
    done = CliRunner().invoke(app, ["data", "preview", *words])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def test_the_preview_reads_files_and_pools_and_writes_nothing(tmp_path: Path) -> None:
    write_chats(tmp_path)
    chats = str(tmp_path / "chats.jsonl")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = json.loads(preview(chats, "--filter", "length", "--json"))
    assert (found["read"], found["sound"], found["kept"], found["unsound"]) == (8, 7, 6, {"no_answer": 1})
    text = preview(chats, "-n", "1")
    assert "8 rows, 7 sound conversations (the rest: 1 no_answer)" in text
    assert "length" in text
    assert "3 characters of answers, fewer than 40" in text
    assert json.loads(preview(chats, "--max-rows", "2", "--json"))["read"] == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    walk(load_roadmap(pool_table(tmp_path, 'sources = [{ path = "chats.jsonl" }]')), tmp_path, QuietProgress())
    assert json.loads(preview("pools/talk", "--home", str(tmp_path), "--json"))["sound"] == 7
