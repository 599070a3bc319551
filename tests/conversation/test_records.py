"""Importing records: each shape by hand, damaged files, and the real files row by row."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall
from gradus.conversation.records import Imported, Quarantined, import_records
from gradus.conversation.validate import violations
from gradus.core.errors import DataError


def _import(folder: Path, *rows: Any, **options: Any) -> list[Imported]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return list(import_records(path, **options))


def _user(text: str) -> Message:
    return Message("user", text)


def _says(text: str, thinking: str | None = None) -> Message:
    return Message("assistant", text, thinking)


def test_a_row_nested_too_deep_is_handed_back_and_the_next_is_read(tmp_path: Path) -> None:
    sound = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    tools: Any = []
    for _ in range(700):
        tools = [tools]
    deep, after = _import(tmp_path, sound | {"tools": tools}, sound)
    assert isinstance(deep, Quarantined)
    assert (deep.line, deep.reason) == (1, "nested too deep")
    assert isinstance(after, Conversation)


PLAIN: list[tuple[str, dict[str, Any], tuple[Message, ...]]] = [
    (
        "messages",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        (_user("a"), _says("b")),
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
        (Message("system", "s"), _user("a"), _says("b")),
    ),
    ("instruction", {"instruction": "a", "input": "x", "output": "b"}, (_user("a\n\nx"), _says("b"))),
    ("instruction without input", {"instruction": "a", "input": "", "output": "b"}, (_user("a"), _says("b"))),
    ("no input in words", {"instruction": "a", "input": "<noinput>", "output": "b"}, (_user("a"), _says("b"))),
    (
        "tagged thinking",
        {"instruction": "a", "response": "<Thought>\nhm\n</Thought>\n<Output>\nb\n</Output>"},
        (_user("a"), _says("b", "hm")),
    ),
    ("reasoning", {"question": "a", "reasoning": "hm", "answer": "b"}, (_user("a"), _says("b", "hm"))),
    ("question", {"question": "a", "answer": "b"}, (_user("a"), _says("b"))),
    ("prompt", {"prompt": "a", "completion": "b"}, (_user("a"), _says("b"))),
    (
        "alpaca frame",
        {
            "prompt": "Below is an instruction that describes a task.\n\n### Instruction:\na\n\n### Input:\nx"
            "\n\n### Response:",
            "answer": "b",
        },
        (_user("a\n\nx"), _says("b")),
    ),
    (
        "tool use by parts",
        {
            "user_message": "a",
            "tool_calls": [{"name": "f", "arguments": {"x": 1}}],
            "tool_results": [{"result": {"y": 2}}],
            "assistant_response": "b",
            "reasoning": "hm",
        },
        (
            _user("a"),
            Message("assistant", "", "hm", (ToolCall("call_1", "f", {"x": 1}),)),
            Message("tool", '{"y": 2}', tool_call_id="call_1"),
            _says("b"),
        ),
    ),
    (
        "nanochat parts",
        {
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "It is "},
                        {"type": "python", "text": "2+2"},
                        {"type": "python_output", "text": "4"},
                        {"type": "text", "text": "4."},
                    ],
                },
            ]
        },
        (
            _user("a"),
            Message("assistant", "It is ", None, (ToolCall("call_1", "calculator", {"expression": "2+2"}),)),
            Message("tool", "4", tool_call_id="call_1"),
            _says("4."),
        ),
    ),
    (
        "oasst tree",
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "a",
                "role": "prompter",
                "replies": [
                    {"text": "worse", "role": "assistant", "rank": 1, "replies": []},
                    {
                        "text": "b",
                        "role": "assistant",
                        "rank": 0,
                        "replies": [
                            {"text": "bad", "role": "prompter", "deleted": True},
                            {"text": "unanswered", "role": "prompter"},
                        ],
                    },
                ],
            },
        },
        (_user("a"), _says("b")),
    ),
]


@pytest.mark.parametrize(("row", "messages"), [p[1:] for p in PLAIN], ids=[p[0] for p in PLAIN])
def test_a_shape_becomes_messages(tmp_path: Path, row: dict[str, Any], messages: tuple[Message, ...]):
    (found,) = _import(tmp_path, row, source="test")
    assert isinstance(found, Conversation)
    assert found.messages == messages
    assert found.source == "test"
    assert found.id == ("t" if "message_tree_id" in row else "rows-1")


def test_function_calls_of_sharegpt_are_calls_and_results(tmp_path: Path):
    row = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": "y"}}'},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "b"},
        ],
        "tools": json.dumps([{"name": "f", "parameters": {"type": "dict", "properties": {"x": {"type": "str"}}}}]),
    }
    (found,) = _import(tmp_path, row)
    assert isinstance(found, Conversation)
    assert found.messages[1].tool_calls == (ToolCall("call_1", "f", {"x": "y"}),)
    assert found.messages[2] == Message("tool", "r", tool_call_id="call_1")
    assert found.tools[0].parameters == {"type": "object", "properties": {"x": {"type": "string"}}}
    assert violations(found) == []


MARKED = {
    "question": "How much?",
    "answer": "She has 16-3 = <<16-3=13>>13 eggs.\nShe makes 13*2 = $<<13*2=26.00>>26.00 a day.\n#### 26",
}


def test_calculator_marks_become_calls_between_text(tmp_path: Path):
    (found,) = _import(tmp_path, MARKED)
    assert isinstance(found, Conversation)
    assert found.messages == (
        _user("How much?"),
        Message("assistant", "She has 16-3 =", None, (ToolCall("call_1", "calculator", {"expression": "16-3"}),)),
        Message("tool", "13", tool_call_id="call_1"),
        Message(
            "assistant",
            "13 eggs.\nShe makes 13*2 = $",
            None,
            (ToolCall("call_2", "calculator", {"expression": "13*2"}),),
        ),
        Message("tool", "26.00", tool_call_id="call_2"),
        _says("26.00 a day.\nThe answer is 26."),
    )
    assert violations(found) == []


def test_marks_are_recomputed_by_the_tool_in_use(tmp_path: Path):
    def run(call: ToolCall) -> Message:
        results = {"16-3": "13", "13*2": "26", "2+2": "4"}
        return Message("tool", results[call.arguments["expression"]], tool_call_id=call.id)

    wrong = {"question": "a", "answer": "2+2 = <<2+2=5>>5\n#### 5"}
    right, refused = _import(tmp_path, MARKED, wrong, run_tool=run)
    assert isinstance(right, Conversation)
    assert right.messages[4].content == "26"
    assert right.messages[5].content == "26 a day.\nThe answer is 26."
    assert isinstance(refused, Quarantined)
    assert refused.reason == "a calculator mark is wrong: <<2+2=5>> but 2+2 is 4"


def test_one_instruction_with_several_instances_becomes_several_rows(tmp_path: Path):
    instances = [{"input": "x", "output": "1"}, {"input": "", "output": "2"}]
    found = _import(tmp_path, {"id": "s", "instruction": "a", "instances": instances})
    assert [(f.id, f.messages[0].content) for f in found if isinstance(f, Conversation)] == [
        ("s-0", "a\n\nx"),
        ("s-1", "a"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "good", "rejected": "bad"},
        {"instruction": "a", "input": "", "output": "x", "chosen": "good", "rejected": "bad"},
        {
            "prompt": [{"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "prompt": "a",
            "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "good"}],
            "rejected": {"role": "assistant", "content": "bad"},
        },
        {
            "conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {
            "prompt": {"messages": [{"role": "user", "content": "a"}]},
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
    ],
)
def test_preferences_become_pairs(tmp_path: Path, row: dict[str, Any]):
    (found,) = _import(tmp_path, row)
    assert isinstance(found, Pair)
    assert found.prompt.messages == (_user("a"),)
    assert (found.chosen, found.rejected) == ((_says("good"),), (_says("bad"),))


def test_linked_messages_become_their_best_paths(tmp_path: Path):
    def node(name: str, parent: str | None, role: str) -> dict[str, Any]:
        return {"user_message_id": name, "parent_message_id": parent, "text": name, "role": role}

    found = _import(
        tmp_path,
        node("q1", None, "prompter"),
        node("q2", None, "prompter"),
        node("a1", "q1", "assistant"),
        node("other", "q1", "assistant"),
        node("q3", "a1", "prompter"),
        node("a3", "q3", "assistant"),
    )
    first, second = found
    assert isinstance(first, Conversation)
    assert [m.content for m in first.messages] == ["q1", "a1", "q3", "a3"]
    assert second == Quarantined(str(tmp_path / "rows.jsonl"), 2, "the tree holds no answer", source="rows.jsonl")


def test_messages_whose_parent_is_missing_are_counted_by_the_beginning_of_what_is_left(tmp_path: Path):
    def node(name: str, parent: str | None, role: str) -> dict[str, Any]:
        return {"message_id": name, "parent_id": parent, "text": name, "role": role}

    whole, *left = _import(
        tmp_path,
        node("a2", "gone", "assistant"),
        node("q1", None, "prompter"),
        node("a1", "q1", "assistant"),
        node("q3", "a2", "prompter"),  # hangs on the first row
        node("b2", "gone", "assistant"),
        node("c2", "lost", "prompter"),
    )
    assert isinstance(whole, Conversation)
    assert [(row.line, row.kind, row.reason) for row in left if isinstance(row, Quarantined)] == [
        (1, "missing_parent", "message a2 answers gone, which is not there"),
        (5, "missing_parent", "message b2 answers gone, which is not there"),
        (6, "missing_parent", "message c2 answers lost, which is not there"),
    ]


_ASKED = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": 1, "b": 2}, "unknown shape: keys a, b"),
        ({"messages": [{"role": "user", "content": "x"}]}, "an answer is missing or empty"),
        ({"instruction": " ", "output": "x"}, "a user message is missing or empty"),
        ({"instruction": "a", "output": ""}, "an answer is missing or empty"),
        ({"instruction": ["a"], "output": "b"}, "expected text, found list"),
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "chosen and rejected are the same"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": False},
            "labelled as an undesirable answer (label: false)",
        ),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "conversations[0].from: unknown speaker 'alien'"),
        ({"user_message": "a", "tool_calls": [{}], "assistant_response": "b"}, "tool_calls and tool_results: "),
        ({"messages": "x"}, "messages: expected a list"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]},
            "messages[0].tool_calls[0]: expected an object",
        ),
        (
            {"id": "a", "question": [[_ASKED]], "function": [], "ground_truth": ["f"]},
            "ground_truth: expected an object",
        ),
        (
            {"id": "a", "question": [[_ASKED]], "function": [], "ground_truth": [{"f": 1}]},
            "ground_truth.f: expected an",
        ),
        ({"id": "a", "question": [None], "function": [], "ground_truth": [{"f": {}}]}, "question[0]: expected a list"),
        (
            {"dialogue_id": "a", "turns": [{"speaker": "SYSTEM", "frames": [{"service_call": {"parameters": {}}}]}]},
            "turns[0].service_call: expected the name of a tool",
        ),
        # Half of an emoji, which no file of text can hold.
        ({"instruction": "a", "output": "cut \ud83d"}, "row: not plain JSON"),
        ({"\ud83d": 1}, r"unknown shape: keys \ud83d"),
    ],
)
def test_a_row_that_cannot_be_used_is_quarantined(tmp_path: Path, row: dict[str, Any], reason: str):
    good = {"instruction": "a", "output": "b"}
    found = _import(tmp_path, good, row, good)
    assert [type(f) for f in found] == [Conversation, Quarantined, Conversation]
    bad = found[1]
    assert isinstance(bad, Quarantined)
    assert (bad.file, bad.line) == (str(tmp_path / "rows.jsonl"), 2)
    assert bad.reason.startswith(reason)


GOOD = '{"instruction": "a", "output": "b"}'


def test_damaged_lines_are_quarantined_and_the_rest_is_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b'\n{"x": "\xff"}\n\n{"a":\n[1]\n' + GOOD.encode())
    found = list(import_records(path))
    assert [f.line for f in found if isinstance(f, Quarantined)] == [2, 4, 5]
    assert sum(isinstance(f, Conversation) for f in found) == 2


def test_a_cut_list_gives_its_whole_rows(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(f"[\n  {GOOD},\n  {GOOD},\n  " + GOOD[:20])
    found = list(import_records(path))
    assert [type(f) for f in found] == [Conversation, Conversation, Quarantined]
    assert isinstance(found[2], Quarantined)
    assert found[2].line == 4
    path.write_text(f"[\n  {GOOD}\n")
    assert list(import_records(path))[1] == Quarantined(
        str(path), 3, "the list is not closed: the file is cut short", source="rows.json"
    )
    path.write_text(f"[{GOOD}\n {GOOD}]")
    assert list(import_records(path))[1] == Quarantined(
        str(path), 2, "expected , or ] after this row; the rest is not read", source="rows.json"
    )
    path.write_text(GOOD)
    assert len(list(import_records(path))) == 1


def test_compressed_files_are_read_and_damage_is_reported(tmp_path: Path):
    packed = gzip.compress((GOOD + "\n").encode() * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    assert len(list(import_records(tmp_path / "a.jsonl.gz"))) == 3
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-6])
    last = list(import_records(tmp_path / "a.jsonl.gz"))[-1]
    assert isinstance(last, Quarantined)
    assert last.reason.startswith("compressed data is damaged or cut short")
    (tmp_path / "b.json.zst").write_bytes(zstandard.compress(f"[{GOOD}]".encode()))
    assert len(list(import_records(tmp_path / "b.json.zst"))) == 1
    (tmp_path / "b.jsonl.zst").write_bytes(b"not zstd")
    assert [type(f) for f in import_records(tmp_path / "b.jsonl.zst")] == [Quarantined]


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        next(iter(import_records(tmp_path / "absent.jsonl")))


@pytest.mark.parametrize(
    ("name", "kind", "count", "sound"),
    [
        ("instruct_small/rasbt_instruction-data.json", Conversation, 1100, 1100),
        ("instruct_small/dolly_151.jsonl", Conversation, 151, 151),
        ("instruct_small/gpteacher_roleplay.json.gz", Conversation, 3146, 3146),
        ("instruct_small/self_instruct_seed_tasks.jsonl", Conversation, 175, 175),
        ("instruct_small/self_instruct_user_oriented.jsonl", Conversation, 252, 252),
        ("multiturn/fastchat_dummy_conversation.json", Conversation, 500, 500),
        ("multiturn/oasst_en_100_tree.jsonl.gz", Conversation, 100, 100),
        ("multiturn/oasst_realistic_seed_data.json", Conversation, 74, 72),
        ("tool_calls/glaive_toolcall_en_demo.json", Conversation, 300, 299),
        ("tool_calls/reason_tool_use_demo_50.jsonl", Conversation, 50, 18),
        ("preference/dpo_en_demo.json", Pair, 300, 0),
        ("gsm8k/test.jsonl", Conversation, 660, 660),
    ],
)
def test_real_files_are_read(real_file: Callable[[str], Path], name: str, kind: type, count: int, sound: int):
    found = list(import_records(real_file(name)))
    kinds = Counter(type(item) for item in found)
    assert kinds[kind] == count
    assert sum(isinstance(f, Conversation) and not violations(f) for f in found) == sound
    names = [item.id for item in found if not isinstance(item, Quarantined)]
    assert len(set(names)) == len(names)


def test_files_in_other_shapes_are_quarantined_row_by_row(real_file: Callable[[str], Path]):
    found = list(import_records(real_file("multiturn/mt_bench_question.jsonl")))
    assert {type(item) for item in found} == {Quarantined}
    assert len(found) == 80
