"""Pools: valid rows once, questions on one side only, everything left out counted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall, ToolSchema
from gradus.conversation.records import Quarantined
from gradus.core.errors import DataError
from gradus.data.pool import question_of, read_pairs, read_pool, write_pairs, write_pool

CALCULATOR = ToolSchema(
    "calculator",
    "arithmetic",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)


def chat(question: str, answer: str = "An answer.", source: str = "s") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), source=source)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    call = ToolCall("call_1", "calculator", {"expression": "2 * 3"})
    rows = [
        Conversation(
            (
                Message("system", "Be brief."),
                Message("user", "2 times 3? ü"),
                Message("assistant", reasoning_content="Multiply.", tool_calls=(call,)),
                Message("tool", "6", tool_call_id="call_1"),
                Message("assistant", "6."),
            ),
            tools=(CALCULATOR,),
            source="arithmetic",
            id="a-1",
            think=True,
        ),
        chat("hello"),
    ]
    counts = write_pool(tmp_path, rows, 0)
    assert list(read_pool(tmp_path, "train")) == rows
    assert list(read_pool(tmp_path, "validation")) == []
    assert counts["train"]["with_thinking"] == counts["train"]["with_calls"] == 1
    assert counts["train"]["messages"] == 7
    assert counts["train"]["by_source"] == {"arithmetic": 1, "s": 1}
    assert json.loads((tmp_path / "pool.json").read_text()) == counts


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    def rows() -> Iterator[Conversation | Quarantined]:
        yield chat("one")
        yield Quarantined("x.jsonl", 7, "not a line of JSON (half)")
        yield chat("one", source="another")
        yield chat("two", answer="  ")
        yield Conversation((Message("assistant", "first"), Message("user", "?")), id="bad")
        yield chat("one", answer="Another answer.")

    counts = write_pool(tmp_path, rows(), 0)
    assert (counts["read"], counts["kept"]) == (6, 2)
    assert counts["dropped"] == {"duplicate": 1, "empty_answer": 1, "order": 1, "unreadable": 1}
    assert counts["train"]["different_questions"] == 1
    drops = json.loads((tmp_path / "drops.json").read_text())
    assert drops["by_source"]["another"] == {"duplicate": 1}
    assert drops["samples"]["unreadable"][0]["place"] == "x.jsonl:7"
    assert drops["samples"]["order"][0]["place"] == "bad"


def test_one_question_is_on_one_side_whatever_its_answers(tmp_path: Path) -> None:
    rows = [chat(f"Question  {i}?", f"answer {j}") for i in range(100) for j in range(3)]
    rows += [chat(f"question {i}?\n", "said otherwise") for i in range(100)]
    counts = write_pool(tmp_path / "one", rows, 0.2)
    sides = {s: {question_of(c) for c in read_pool(tmp_path / "one", s)} for s in ("train", "validation")}
    assert not sides["train"] & sides["validation"]
    assert counts["kept"] == 400
    assert 5 <= len(sides["validation"]) <= 40
    write_pool(tmp_path / "two", [*rows[::-1], chat("unrelated")], 0.2)
    assert {question_of(c) for c in read_pool(tmp_path / "two", "validation")} >= sides["validation"]


def test_pairs_come_back_and_broken_ones_are_counted(tmp_path: Path) -> None:
    prompt = Conversation((Message("user", "Hi?"),))
    good, bad = (Message("assistant", "Hello."),), (Message("assistant", ""),)
    pairs = [
        Pair(prompt, good, bad, source="p", id="1"),
        Pair(prompt, bad, good),
        Pair(prompt, good, good),
        Pair(Conversation((Message("user", "Hi?"), *good)), good, bad),
        Pair(prompt, good, ()),
        Pair(prompt, good, bad),
    ]
    counts = write_pairs(tmp_path, pairs, 0)
    assert list(read_pairs(tmp_path, "train")) == pairs[:1]
    assert counts["dropped"] == {
        "duplicate": 1,
        "empty_answer": 1,
        "no_answer": 1,
        "order": 1,
        "same_answers": 1,
    }


def test_empty_sides_are_refused_with_what_would_help(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds out none of 2 rows; set it above 0\.\d+ for at least one"):
        write_pool(tmp_path, [chat("a"), chat("b")], 1e-9)
    with pytest.raises(DataError, match=r"no usable row: 1 read, dropped 1 empty_answer \(first: row 1"):
        write_pool(tmp_path, [chat("a", "")], 0)


def test_a_missing_or_damaged_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pool here \(train\.jsonl is missing\)"):
        list(read_pool(tmp_path, "train"))
    write_pool(tmp_path, [chat("a"), chat("b")], 0)
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"train\.jsonl:2: damaged pool row"):
        list(read_pool(tmp_path, "train"))
