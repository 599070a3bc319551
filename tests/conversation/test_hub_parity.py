"""Ids and mask against transformers' apply_chat_template, over made-up and real conversations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.conversation.records import import_records
from gradus.tokenizer.specials import SPECIAL_TOKENS

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def hub(hermes: HermesFormat, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("hub")
    hermes.tokenizer.save(folder, hermes.chat_template)
    return transformers.AutoTokenizer.from_pretrained(folder)


def _arguments(conversation: Conversation) -> dict[str, Any]:
    switches = {} if conversation.think is None else {"enable_thinking": conversation.think}
    return {
        "conversation": [message.to_json() for message in conversation.messages],
        "tools": [tool.to_json() for tool in conversation.tools] or None,
        "return_dict": True,
        **switches,
    }


def _spells_control(found: object) -> bool:
    # Hypothesis finds these names in the source and tries them.
    return any(name in str(found) for name in SPECIAL_TOKENS)


def _assert_same(hermes: HermesFormat, hub: Any, conversation: Conversation) -> None:
    ours = hermes.render(conversation)
    if _spells_control([tool.to_json() for tool in conversation.tools]):
        # In schemas the template cannot tell text from control tokens at all: only the text can be compared.
        theirs = hub.apply_chat_template(**_arguments(conversation), tokenize=False)
        assert hermes.tokenizer.decode(ours.ids.tolist()) == theirs
        return
    if _spells_control(conversation.to_json()):
        # The template cannot tell text from control tokens unless asked to, and then gives no mask.
        theirs = hub.apply_chat_template(**_arguments(conversation), sanitize_control_tokens=True)
        assert ours.ids.tolist() == theirs["input_ids"]
        return
    theirs = hub.apply_chat_template(**_arguments(conversation), return_assistant_tokens_mask=True)
    assert ours.ids.tolist() == theirs["input_ids"]
    assert ours.mask.astype(int).tolist() == theirs["assistant_masks"]


TEXT = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from(list("ab1 \n\t'.,!\"{}\u00a0\u2003\x1cé中🙂\r")), max_size=12),
)
WORDS = TEXT.map(lambda text: "x" + text)
CALLS = st.lists(
    st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.lists(TEXT, max_size=2), max_size=2), max_size=2
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages = [Message("system", draw(TEXT))] if draw(st.booleans()) else []
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(TEXT)))
        thinking = draw(st.none() | TEXT)
        for arguments in draw(st.lists(CALLS, max_size=2)):
            calls = tuple(ToolCall(f"c{number + i}", draw(WORDS), a) for i, a in enumerate(arguments))
            number += len(calls)
            if calls:
                messages.append(Message("assistant", draw(TEXT), thinking, calls, train=draw(st.booleans())))
                messages += [Message("tool", draw(TEXT), tool_call_id=c.id) for c in calls]
                thinking = None
        messages.append(Message("assistant", draw(TEXT), thinking, train=draw(st.booleans())))
    tool = st.builds(ToolSchema, WORDS, TEXT, st.dictionaries(TEXT, TEXT | st.dictionaries(TEXT, TEXT), max_size=2))
    return Conversation(
        tuple(messages), tuple(draw(st.lists(tool, max_size=2))), think=draw(st.sampled_from([None, True, False]))
    )


@settings(max_examples=250, deadline=None)
@given(conversation=conversations())
def test_ids_and_mask_are_those_of_the_chat_template(hermes: HermesFormat, hub: Any, conversation: Conversation):
    _assert_same(hermes, hub, conversation)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(), marker=st.sampled_from(SPECIAL_TOKENS))
def test_hostile_text_has_the_ids_of_a_sanitized_template(
    hermes: HermesFormat, hub: Any, conversation: Conversation, marker: str
):
    messages = [replace(m, content=f"{marker}{m.content}{marker}") for m in conversation.messages]
    _assert_same(hermes, hub, replace(conversation, messages=tuple(messages)))


@settings(max_examples=60, deadline=None)
@given(conversation=conversations())
def test_prompts_are_those_of_the_chat_template(hermes: HermesFormat, hub: Any, conversation: Conversation):
    assume(not _spells_control(conversation.to_json()))
    for length, message in enumerate(conversation.messages, start=1):
        if message.role not in ("user", "tool"):
            continue
        following = conversation.messages[length : length + 1]
        if message.role == "tool" and following and following[0].role == "tool":
            continue
        asked = replace(conversation, messages=conversation.messages[:length])
        for think in (None, False) if conversation.think is not False else (False,):
            switches = {"enable_thinking": False} if think is False else {"force_thinking": think is True}
            if think is False and conversation.think is not False:
                asked = replace(asked, think=False)
            theirs = hub.apply_chat_template(**{**_arguments(asked), **switches}, add_generation_prompt=True)
            assert hermes.render_prompt(asked, think).tolist() == theirs["input_ids"]


def test_forced_thinking_is_in_the_template(hermes: HermesFormat, hub: Any):
    asked = Conversation((Message("user", "hi"),))
    theirs = hub.apply_chat_template(**_arguments(asked), add_generation_prompt=True, force_thinking=True)
    assert hermes.render_prompt(asked, True).tolist() == theirs["input_ids"]


def test_openai_nested_calls_and_tools_render_alike(hermes: HermesFormat, hub: Any, full: Conversation):
    """Servers hand the template OpenAI's nesting, with arguments as an object."""
    arguments = _arguments(full)
    for message in arguments["conversation"]:
        for call in message.get("tool_calls", ()):
            call["function"] = {"name": call.pop("name"), "arguments": call.pop("arguments")}
    arguments["tools"] = [{"type": "function", "function": tool} for tool in arguments["tools"]]
    assert hermes.render(full).ids.tolist() == hub.apply_chat_template(**arguments)["input_ids"]


@pytest.mark.parametrize(
    "name",
    [
        "multiturn/fastchat_dummy_conversation.json",
        "multiturn/oasst_en_100_tree.jsonl.gz",
        "instruct_small/rasbt_instruction-data.json",
        "instruct_small/self_instruct_seed_tasks.jsonl",
        "instruct_small/dolly_151.jsonl",
        "tool_calls/glaive_toolcall_en_demo.json",
        "tool_calls/reason_tool_use_demo_50.jsonl",
        "gsm8k/test.jsonl",
    ],
)
def test_real_rows_render_as_the_template_does(
    hermes: HermesFormat, hub: Any, real_file: Callable[[str], Path], name: str
):
    rows = [row for row in import_records(real_file(name)) if isinstance(row, Conversation)]
    step = max(1, len(rows) // 40)
    assert len(rows[::step]) >= 30
    for conversation in rows[::step]:
        _assert_same(hermes, hub, conversation)
