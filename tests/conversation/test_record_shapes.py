"""Shapes of the sets that are known by name: reasoning, tools, dialogues, golden calls and preferences, by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall
from gradus.conversation.record_shapes import SHAPE_NAMES, SHAPES, convert_row
from gradus.conversation.record_values import RowError, answer_of
from gradus.conversation.records import Quarantined, _rows, import_records, imported_rows
from gradus.conversation.validate import violations


def _only(row: dict[str, Any], shape: str | None = None) -> Any:
    (found,) = convert_row(row, shape=shape)
    return found


def _user(text: str) -> Message:
    return Message("user", text)


def _says(text: str, thinking: str | None = None) -> Message:
    return Message("assistant", text, thinking)


THINKING = [
    ("<think>\nhm\n</think>\n\nb", "hm", "b"),
    ("hm</think>b", "hm", "b"),  # templates of DeepSeek R1 open it themselves
    ("<think></think>b", "", "b"),
    (
        "<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nb\n\n<|end_of_solution|>",
        "hm",
        "b",
    ),
    ("<Thought>\nhm\n</Thought>\n<Output>\nb\n</Output>", "hm", "b"),
    ("I use <think> tags", None, "I use <think> tags"),
    (" b ", None, " b "),
]


@pytest.mark.parametrize(("text", "thinking", "answer"), THINKING)
def test_tagged_thinking_is_set_apart(text: str, thinking: str | None, answer: str):
    assert answer_of(text) == _says(answer, thinking)


@pytest.mark.parametrize("text", ["<think>hm", "<|begin_of_thought|>hm <|end_of_solution|>"])
def test_thinking_that_is_never_closed_is_refused_by_its_own_reason(text: str):
    with pytest.raises(RowError) as caught:
        answer_of(text)
    assert caught.value.reason == "unclosed_thinking"


def test_a_system_message_that_asks_for_the_tags_goes_with_them():
    asks = "Use <|begin_of_thought|> {thought} <|end_of_thought|> and then a solution."
    tagged = "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>"

    def messages(system: str, answer: str) -> tuple[Message, ...]:
        turns = [{"from": "user", "value": "a"}, {"from": "assistant", "value": answer}]
        return _only({"system": system, "conversations": turns}).messages

    assert messages(asks, tagged) == (_user("a"), _says("b", "hm"))
    assert messages("Be kind.", tagged)[0] == Message("system", "Be kind.")
    assert messages(asks, "b")[0].role == "system"


ANSWERED: list[tuple[dict[str, Any], str | None, Message]] = [
    ({"problem": "a", "solution": "b"}, None, _says("b")),
    ({"question": "a", "solution": "b", "answer": "5"}, None, _says("b")),
    ({"question": "a", "solution": "long", "answer": "5"}, "long_solution", _says("The answer is 5.", "long")),
    (
        {"question": "a", "solution": "long\n**Final Answer** x\nmore\n\n**Final Answer**\n\\boxed{5}", "answer": "5"},
        "long_solution",
        _says("**Final Answer**\n\\boxed{5}", "long\n**Final Answer** x\nmore"),
    ),
    ({"problem": "a", "generated_solution": "<think>hm</think>b", "expected_answer": "b"}, None, _says("b", "hm")),
    ({"problem": "a", "message_thinking": "hm", "message_content": "b"}, None, _says("b", "hm")),
    ({"problem": "a", "deepseek_reasoning": "hm", "deepseek_solution": "b"}, None, _says("b", "hm")),
    ({"problem": "a", "answer": 7}, None, _says("7")),
    ({"system_prompt": "", "question": "a", "response": "b"}, None, _says("b")),
]


@pytest.mark.parametrize(("row", "shape", "answer"), ANSWERED)
def test_questions_with_answers_of_every_layout(row: dict[str, Any], shape: str | None, answer: Message):
    assert _only(row, shape).messages == (_user("a"), answer)


def test_choices_stand_under_the_question_and_the_letter_ends_the_answer():
    row = {
        "question": "How much?",
        "options": ["A)$203", "B)$202"],
        "rationale": "Add them.\nSo the answer is B.",
        "correct": "B",
    }
    assert _only(row).messages == (_user("How much?\n\nA) $203\nB) $202"), _says("Add them.\n\nThe answer is B."))


def test_a_glaive_text_becomes_tools_calls_and_results():
    row = {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
        '{"name": "rate", "parameters": {"type": "object", "properties": {"c": {"type": "string"}}}}'
        '\n\n{"name": "news", "parameters": {"type": "object", "properties": {}}}',
        "chat": "USER: It's the rate?\n\n\nASSISTANT: <functioncall> "
        '{"name": "rate", "arguments": \'{"c": "king\\\'s"}\'} <|endoftext|>\n\n\n'
        'FUNCTION RESPONSE: {"rate": 2}\n\n\nASSISTANT: It is 2. <|endoftext|>\n\n\n',
    }
    found = _only(row)
    assert found.messages == (
        _user("It's the rate?"),
        Message("assistant", "", None, (ToolCall("call_1", "rate", {"c": "king's"}),)),
        Message("tool", '{"rate": 2}', tool_call_id="call_1"),
        _says("It is 2."),
    )
    assert [tool.name for tool in found.tools] == ["rate", "news"]
    assert violations(found) == []
    without = {**row, "system": "SYSTEM: You are kind.", "chat": "USER: a\n\n\nASSISTANT: b <|endoftext|>"}
    assert _only(without).messages == (Message("system", "You are kind."), _user("a"), _says("b"))


def test_a_schema_guided_dialogue_calls_before_it_speaks():
    row = {
        "dialogue_id": "d",
        "turns": [
            {"speaker": "USER", "utterance": "a", "frames": []},
            {
                "speaker": "SYSTEM",
                "utterance": "b",
                "frames": [
                    {"service_call": {"method": "Find", "parameters": {"n": "2"}}, "service_results": [{"x": 1}]}
                ],
            },
            {"speaker": "USER", "utterance": "thanks", "frames": []},
        ],
    }
    found = _only(row)
    assert found.messages == (
        _user("a"),
        Message("assistant", tool_calls=(ToolCall("call_1", "Find", {"n": "2"}),)),
        Message("tool", '[{"x": 1}]', tool_call_id="call_1"),
        _says("b"),
    )
    assert found.tools[0].parameters == {
        "type": "object",
        "properties": {"n": {"type": "string"}},
        "required": ["n"],
    }
    assert violations(found) == []


def test_calls_of_taskmaster_follow_the_utterance_that_gave_rise_to_them():
    def note(name: str, value: str) -> dict[str, str]:
        return {"name": name, "value": value}

    notes = [
        note("api_call", "menu"),
        note("request", '{"q": "x"}'),
        note("api_response", "menu"),
        note("response", "r"),
    ]
    row = {
        "conversation_id": "d",
        "utterances": [
            {"speaker": "user", "text": "a", "annotations": [*notes, note("api_call", "pay"), note("response", "ok")]},
            {"speaker": "assistant", "text": "b", "annotations": []},
        ],
    }
    found = _only(row)
    assert [(m.role, m.content, [c.name for c in m.tool_calls]) for m in found.messages] == [
        ("user", "a", []),
        ("assistant", "", ["menu"]),
        ("tool", "r", []),
        ("assistant", "", ["pay"]),
        ("tool", "ok", []),
        ("assistant", "b", []),
    ]
    assert violations(found) == []


def test_golden_calls_end_a_conversation():
    row = {
        "query": "a",
        "tools": json.dumps([{"name": "f", "description": "", "parameters": {"x": {"type": "int"}}}]),
        "answers": json.dumps([{"name": "f", "arguments": {"x": 1}}]),
    }
    found = _only(row)
    assert found.messages[-1].tool_calls == (ToolCall("call_1", "f", {"x": 1}),)
    assert found.tools[0].parameters["properties"] == {"x": {"type": "integer"}}
    assert [v.reason for v in violations(found)] == ["unfinished"]


def test_accepted_values_of_bfcl_become_arguments_and_optional_ones_are_left_out():
    row = {
        "id": "q",
        "question": [[{"role": "user", "content": "a"}]],
        "function": [{"name": "f", "parameters": {"type": "dict", "properties": {"x": {"type": "HashMap"}}}}],
        "ground_truth": [{"f": {"x": [{"in": ["m", "metres"], "out": ["", 1]}], "unit": ["u", ""], "l": [[1, 2]]}}],
    }
    found = _only(row)
    assert found.messages[-1].tool_calls == (ToolCall("call_1", "f", {"x": {"in": "m"}, "l": [1, 2]}),)
    assert found.tools[0].parameters["properties"]["x"] == {"type": "object"}


def test_golden_answers_are_read_from_the_file_beside_the_questions(tmp_path: Path):
    question = {"id": "q", "question": [[{"role": "user", "content": "a"}]], "function": [{"name": "f"}]}
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "set.json").write_text(json.dumps(question) + "\n" + json.dumps({**question, "id": "other"}))
    (tmp_path / "possible_answer" / "set.json").write_text(json.dumps({"id": "q", "ground_truth": [{"f": {}}]}))
    first, second = import_records(tmp_path / "set.json")
    assert isinstance(first, Conversation)
    assert isinstance(second, Quarantined)
    assert (second.kind, second.reason) == (
        "no_answer",
        "there is no golden call; the right reply may be to make none",
    )


PREFERENCES = [
    {"question": "a", "chosen": "good", "rejected": "bad", "system": ""},
    {"input": "a", "chosen": "good", "rejected": "bad"},
    {
        "prompt": "the last question alone",
        "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "good"}],
        "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bad"}],
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "good"}],
    },
    {"chosen": "\n\nHuman: a\n\nAssistant: good", "rejected": "\n\nHuman: a\n\nAssistant: bad"},
    {
        "question": "a",
        "ground_truth": "1",
        "6b": {"is_correct": False, "solution": "b<<1+1=2>>ad"},
        "175b_verification": {"is_correct": True, "solution": "good"},
    },
]


@pytest.mark.parametrize("row", PREFERENCES)
def test_pairs_of_every_layout(row: dict[str, Any]):
    found = _only(row)
    assert isinstance(found, Pair)
    assert (found.prompt.messages, found.chosen, found.rejected) == ((_user("a"),), (_says("good"),), (_says("bad"),))


def test_a_pair_of_conversations_shares_its_earlier_turns():
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    sides = [[*before, {"role": "assistant", "content": answer}] for answer in ("good", "bad")]
    found = _only({"chosen": sides[0], "rejected": sides[1]})
    assert found.prompt.messages == (_user("a"), _says("b"), _user("c"))
    with pytest.raises(RowError, match="do not begin with the same messages"):
        _only({"chosen": sides[0], "rejected": sides[1][1:]})


def test_a_named_shape_says_which_keys_it_misses():
    with pytest.raises(RowError) as caught:
        _only({"question": "a", "answer": "b"}, shape="long_solution")
    assert caught.value.reason == "other_shape"
    assert str(caught.value) == "shape long_solution wants solution; keys question, answer"


def test_columns_that_a_row_leaves_empty_do_not_count():
    row = {"messages": None, "instruction": "a", "output": "b", "chosen": None, "rejected": None}
    assert _only(row).messages == (_user("a"), _says("b"))


def test_names_of_shapes_are_different_and_earlier_ones_do_not_hide_later_ones():
    assert len(set(SHAPE_NAMES)) == len(SHAPE_NAMES)
    hidden = [
        later.name
        for index, later in enumerate(SHAPES)
        if any(set(earlier.keys) <= set(later.keys) for earlier in SHAPES[:index])
    ]
    assert hidden == ["long_solution"]  # LIMO's, which is asked for by name


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_list_is_read_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    monkeypatch.setattr("gradus.conversation.records._PIECE_BYTES", size)
    rows = [{"instruction": f"ä{i}", "output": "[1, {}]\n" * (i % 5 + 1)} for i in range(40)]
    (tmp_path / "a.json").write_text("\n " + json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    found = list(import_records(tmp_path / "a.json"))
    assert [f.messages[0].content for f in found if isinstance(f, Conversation)] == [f"ä{i}" for i in range(40)]
    (tmp_path / "a.json").write_bytes(json.dumps(rows).encode()[:-9] + b"\xff\xff")
    last = list(import_records(tmp_path / "a.json"))[-1]
    assert isinstance(last, Quarantined)
    assert last.reason.startswith("not UTF-8 text")


def test_every_member_of_a_zstandard_file_is_read(tmp_path: Path):
    import zstandard

    line = b'{"instruction": "a", "output": "b"}\n'
    packed = zstandard.compress(line) + zstandard.compress(line * 2)
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert len(list(import_records(tmp_path / "a.jsonl.zst"))) == 3
    (tmp_path / "a.jsonl.zst").write_bytes(packed[:-4])
    assert isinstance(list(import_records(tmp_path / "a.jsonl.zst"))[-1], Quarantined)


@pytest.mark.parametrize(
    ("name", "conversations", "pairs", "reasons"),
    [
        ("multiturn/sgd_test_dialogues_001.json.gz", 128, 0, {}),
        ("tool_calls/taskmaster4_data_07.json.gz", 209, 0, {"unreadable": 1}),
        ("tool_calls/toolalpaca_eval_real.json", 92, 0, {"no_results": 20, "bad_call": 2}),
        ("reasoning/rasbt_sample_ollama_outputs.json", 5, 0, {}),
        ("preference/kto_en_demo.json", 150, 0, {"undesirable_answer": 150}),
        ("preference/rasbt_instruction-data-with-preference.json", 0, 1094, {"same_answers": 6}),
        ("gsm8k/example_model_solutions.jsonl.gz", 0, 572, {"no_wrong_answer": 88}),
        ("gsm8k/test.jsonl", 660, 0, {}),
        ("aqua/dev.json", 117, 0, {}),
        ("bfcl/BFCL_v4_simple_python.json.gz", 400, 0, {}),
        ("bfcl/BFCL_v4_multi_turn_base.json.gz", 0, 0, {"no_results": 200}),
        ("multiturn/mt_bench_reference_answer_gpt-4.jsonl", 0, 0, {"no_question": 30}),
    ],
)
def test_real_files_of_every_shape(
    real_file: Callable[[str], Path], name: str, conversations: int, pairs: int, reasons: dict[str, int]
):
    found = list(import_records(real_file(name)))
    kinds = Counter(type(item) for item in found)
    assert (kinds[Conversation], kinds[Pair]) == (conversations, pairs)
    assert Counter(item.kind for item in found if isinstance(item, Quarantined)) == reasons
    unsound = [v for item in found if isinstance(item, Conversation) for v in violations(item)[:1]]
    # Calls without results end a conversation; golden calls are not all sound by their own declarations.
    allowed = {"unfinished", "bad_arguments", "unknown_tool"} if "bfcl" in name or "alpaca" in name else set()
    assert {v.reason for v in unsound} <= allowed


JUNK: tuple[Any, ...] = (
    None, True, 0, 1.5, "", "x", "{}", "[1]", [], [None], ["a"], {}, {"a": 1}, [[]], [{}], "\ud800", "<think>", "null",
    [{"role": "user"}],
)  # fmt: skip
FILES = (
    "tool_calls/glaive_toolcall_en_demo.json", "tool_calls/reason_tool_use_demo_50.jsonl",
    "tool_calls/taskmaster4_data_07.json.gz", "tool_calls/toolalpaca_eval_real.json",
    "multiturn/sgd_dev_dialogues_007.json.gz", "multiturn/oasst_en_100_tree.jsonl.gz",
    "multiturn/oasst_realistic_seed_data.json", "preference/dpo_en_demo.json", "aqua/dev.json", "gsm8k/test.jsonl",
    "bfcl/BFCL_v4_parallel_multiple.json.gz", "bfcl/BFCL_v4_multi_turn_base.json.gz",
    "gsm8k/example_model_solutions.jsonl.gz", "reasoning/rasbt_sample_ollama_outputs.json",
)  # fmt: skip


def _damaged(value: Any, chance: float, rng: random.Random) -> Any:
    """The value with parts of it, at any depth, gone or turned into something else."""
    if rng.random() < chance:
        return rng.choice(JUNK)
    if isinstance(value, dict):
        return {key: _damaged(part, chance, rng) for key, part in value.items() if rng.random() > chance / 2}
    return [_damaged(part, chance, rng) for part in value] if isinstance(value, list) else value


def test_damage_at_any_depth_is_quarantined_and_never_a_crash(real_file: Callable[[str], Path]):
    rng = random.Random(7)
    whole = [row for _, row in chain.from_iterable(islice(_rows(real_file(name)), 8) for name in FILES)]
    whole += [row for row, _, _ in ANSWERED] + PREFERENCES
    kinds: Counter[str] = Counter()
    for _ in range(6000):
        row = _damaged(rng.choice(whole), rng.choice((0.03, 0.1, 0.3)), rng)
        shape = rng.choice((None, None, rng.choice(SHAPE_NAMES)))
        if isinstance(row, dict):
            kinds.update(type(item).__name__ for item in imported_rows([(1, row)], "f.json", "f", shape=shape))
    assert set(kinds) == {"Conversation", "Pair", "Quarantined"}
    assert min(kinds.values()) > 50
