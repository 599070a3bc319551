"""Warnings before fine-tuning: habits that never meet, conversations that do not fit, batches larger than before."""

import json

import pytest
from small_stages import PROSE, base_of, tokens_of, write_lines

from gradus.core.errors import ConfigError
from gradus.data.lengths import length_statistics
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.preflight import larger_batch, long_conversations, separate_habits
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


def pool(thinking: int, calls: int, both: int) -> dict:
    side = {"with_thinking": thinking, "with_calls": calls, "with_thinking_and_calls": both}
    return {"counts": {"train": side}}


def test_thinking_and_calls_that_never_share_a_turn_are_told():
    (warning,) = separate_habits({"think": pool(900, 0, 0), "tools": pool(0, 1200, 0)})
    assert warning.startswith("900 conversations think and 1,200 call tools, and in none do both share a turn")
    assert separate_habits({"think": pool(900, 0, 0), "joint": pool(5, 5, 3)}) == []
    assert separate_habits({"think": pool(900, 0, 0)}) == []
    assert separate_habits({"tools": pool(0, 10, 0)}) == []
    assert separate_habits({"unknown yet": {}}) == []


def test_conversations_longer_than_the_context_are_told_by_their_99th_percentile():
    lengths = length_statistics([10] * 97 + [600] * 3)
    (warning,) = long_conversations(lengths, 512, "drop")
    assert "the 99th percentile of the conversations is 600 tokens (the longest 600)" in warning
    assert 'length_policy = "drop"' in warning
    assert long_conversations(lengths, 600, "drop") == []
    assert long_conversations(length_statistics([10] * 199 + [600]), 512, "drop") == []
    assert long_conversations(length_statistics([]), 512, "drop") == []


def test_a_batch_larger_than_the_parents_is_told():
    parent, model = {"micro_rows": 8, "context": 512}, {"context": 512}
    (warning,) = larger_batch(8, 2048, parent, model)
    assert "16,384 tokens in one forward pass, more than the 4,096" in warning
    assert "micro_rows = 2 is no larger" in warning
    assert larger_batch(2, 2048, parent, model) == []
    assert larger_batch(1, 8192, parent, model) == []  # no setting makes a row shorter
    assert larger_batch(8, 256, {"micro_rows": 8, "row_length": 256, "context": 512}, model) == []
    assert larger_batch(8, 2048, {"take": "folder:x"}, {"context": 64}) == []


ROADMAP = (
    PROSE
    + """
[[stage]]
name = "calls"
kind = "pool"
sources = [{ path = "calls.jsonl" }]
validation_fraction = 0.2

[[stage]]
name = "thoughts"
kind = "pool"
sources = [{ path = "thoughts.jsonl" }]
validation_fraction = 0.2
"""
    + tokens_of(280)
    + base_of(2, context=256, batch_tokens=512)
    + """\
micro_rows = 1

[[stage]]
name = "chat"
kind = "sft"
from = "base"
mixture = [{ source = "calls", weight = 1 }, { source = "thoughts", weight = 3 }]
mixture_size = "12_000 tokens"
batch_tokens = 2048
micro_rows = 2
"""
)


class Lines(QuietProgress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def home(tmp_path):
    write_lines(tmp_path, 200)
    tool = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    calls = [
        {
            "user_message": f"q{i}",
            "tool_calls": [{"name": "f", "arguments": {}}],
            "tool_results": ["1"],
            "assistant_response": "one",
            "tools": [tool],
        }
        for i in range(40)
    ]
    thoughts = [{"question": f"t{i}", "reasoning": "hm", "answer": "so" + " so" * 400 * (i > 37)} for i in range(40)]
    for name, rows in (("calls", calls), ("thoughts", thoughts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mix.toml").write_text(ROADMAP)
    return tmp_path


def test_a_walk_says_its_mixture_and_its_warnings_before_the_first_step(home):
    progress = Lines()
    chat = walk(load_roadmap(home / "mix.toml"), home, progress).artifacts["chat"]
    shares = {share["source"]: share for share in chat.results["mixture"]}
    assert shares["thoughts"]["token_fraction"] == pytest.approx(0.75, abs=0.02)
    assert sum(share["tokens"] for share in shares.values()) == pytest.approx(12_000, rel=0.02)
    told = "\n".join(progress.lines)
    for part in (
        "thoughts: ",
        "in none do both share a turn",
        "the 99th percentile of the conversations is",
        "micro_rows = 2 rows of 256 tokens are 512 tokens in one forward pass, more than the 256",
        'mixture: "thoughts" is repeated',
    ):
        assert part in told
    roadmap = load_roadmap(home / "mix.toml")
    plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, home), home / "artifacts")
    notes = "\n".join(plan.stages[-1].estimate.notes)
    assert "about thoughts: " in notes
    assert "in none do both share a turn" in notes


def test_a_mixture_that_does_not_go_together_is_refused_with_its_line(home):
    text = (home / "mix.toml").read_text().replace('{ source = "calls", weight = 1 }', '{ source = "calls" }')
    (home / "mix.toml").write_text(text)
    with pytest.raises(ConfigError, match="some sources have a weight and some have none"):
        load_roadmap(home / "mix.toml")
