"""Probe suites from files, and every problem in them at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradus.conversation.messages import Message, ToolSchema
from gradus.conversation.probes import load_suite
from gradus.core.errors import ConfigError

TIP = {
    "id": "tip-45",
    "category": "percent",
    "messages": [{"role": "user", "content": "calculate a 17% tip on $45"}],
    "think": True,
    "tools": ["calculator"],
    "samples": 1,
    "checks": [
        {"kind": "calls", "tool": "calculator"},
        {"kind": "answer_number", "value": 7.65, "tolerance": 0.005},
        {"kind": "think_closed"},
    ],
}
FOLLOW = {"id": "f", "turns": ["What is 2 + 3?", "now double it"], "checks": [{"kind": "answer_number", "value": 10}]}


def _written(folder: Path, *rows: object, name: str = "suite.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_suite_is_read_from_json_lines(tmp_path: Path, calculator: ToolSchema):
    suite = load_suite(_written(tmp_path, TIP, "", FOLLOW))
    assert (suite.name, suite.categories) == ("suite", ("percent", "all"))
    tip, follow = suite.probes
    assert (tip.think, tip.tools, tip.samples, len(tip.checks)) == (True, ("calculator",), 1, 3)
    prompt = tip.first_prompt((calculator,))
    assert prompt.messages == (Message("user", "calculate a 17% tip on $45"),)
    assert (prompt.tools, prompt.think, prompt.id) == ((calculator,), True, "tip-45")
    assert follow.first_prompt().messages == (Message("user", "What is 2 + 3?"),)
    assert follow.later_turns == ("now double it",)
    assert tip.later_turns == ()


def test_a_suite_is_read_from_toml_and_means_the_same(tmp_path: Path):
    text = """
    [[probe]]
    id = "tip-45"
    category = "percent"
    messages = [{ role = "user", content = "calculate a 17% tip on $45" }]
    think = true
    tools = ["calculator"]
    checks = [
      { kind = "calls", tool = "calculator" },
      { kind = "answer_number", value = 7.65, tolerance = 0.005 },
      { kind = "think_closed" },
    ]
    """
    suite = load_suite(_written(tmp_path, text, name="suite.toml"))
    assert suite == load_suite(_written(tmp_path, TIP))


def test_earlier_turns_may_be_given(tmp_path: Path):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    (probe,) = load_suite(_written(tmp_path, {**TIP, "messages": messages})).probes
    assert [m.content for m in probe.first_prompt().messages] == ["a", "b", "c"]


def test_every_problem_is_reported_with_its_line(tmp_path: Path):
    path = _written(
        tmp_path,
        {**TIP, "chekcs": []},
        "{not json",
        TIP,
        {**FOLLOW, "id": "tip-45"},
        {"id": "n", "checks": [{"kind": "stops"}]},
        {"id": "m", "messages": [{"role": "assistant", "content": "x"}], "checks": [{"kind": "stops"}]},
        {"id": "t", "turns": ["a", " "], "checks": []},
        "[1]",
    )
    with pytest.raises(ConfigError) as error:
        load_suite(path)
    problems = error.value.problems
    assert problems[0] == f'{path}:1: unknown key "chekcs"; did you mean "checks"?'
    assert problems[1].startswith(f"{path}:2: not a line of JSON (")
    assert problems[2] == f'{path}:4: id "tip-45" is used on line 3 too'
    assert problems[3] == f"{path}:5: give either messages or turns"
    assert problems[4] == f'{path}:6: "messages": the last message must be the user\'s, found assistant'
    assert problems[5].startswith(f'{path}:7: "checks":')
    assert problems[6] == f"{path}:8: expected an object {{...}}"


def test_problems_of_toml_have_lines_too(tmp_path: Path):
    text = '[[probe]]\nid = "a"\nturns = ["x"]\nchecks = [{ kind = "stops" }]\n\n[[probe]]\nid = "b"\nturns = []\n'
    path = _written(tmp_path, text + 'checks = [{ kind = "stops" }]\n', name="s.toml")
    with pytest.raises(ConfigError, match=r"s\.toml:6: turns must hold user messages, none of them empty"):
        load_suite(path)
    path.write_text("probe = 1")
    with pytest.raises(ConfigError, match=r"expected only \[\[probe\]\] tables"):
        load_suite(path)
    path.write_text("= 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load_suite(path)


def test_files_without_probes_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such probe file"):
        load_suite(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="holds no probe"):
        load_suite(_written(tmp_path))
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_suite(path)


def test_the_digest_follows_what_is_asked(tmp_path: Path):
    one = load_suite(_written(tmp_path, TIP, name="a.jsonl"))
    other = load_suite(_written(tmp_path, {**TIP, "think": False}, name="b.jsonl"))
    assert one.digest == load_suite(_written(tmp_path, TIP, name="c.jsonl")).digest
    assert one.digest != other.digest
