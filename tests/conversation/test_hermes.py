"""The hermes format: its exact text, its mask, its prompts, and that text stays text."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.formats.table import conversation_format
from gradus.conversation.messages import Conversation, Message, ToolSchema
from gradus.core.errors import ConfigError, DataError
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

# Written by hand from the definition; › and ‹ enclose what is trained.
WIRE = """\
<|im_start|>system
You are Ada.<tools>{"name":"calculator","description":"Evaluate arithmetic.","parameters":{"type":"object",\
"properties":{"expression":{"type":"string"}},"required":["expression"]}}
{"name":"search","parameters":{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}}}}\
</tools><|im_end|>
<|im_start|>user
What is 17 * 45, and 2 + 2?<|im_end|>
<|im_start|>assistant
›<think>
Two sums.
Use the tool.
</think>

One moment.
<tool_call>
{"name": "calculator", "arguments": {"expression": "17 * 45"}}
</tool_call>
<tool_call>
{"name": "calculator", "arguments": {"expression": "2 + 2"}}
</tool_call><|im_end|>‹
<|im_start|>user
<tool_response>
765
</tool_response>
<tool_response>
4
</tool_response><|im_end|>
<|im_start|>assistant
›765 and 4.<|im_end|>‹
<|im_start|>user

 Thanks! <|im_end|>
<|im_start|>assistant
<think>

</think>

›You are welcome.<|im_end|>‹
<|im_start|>user
And 9 / 3?<|im_end|>
<|im_start|>assistant
›<tool_call>
{"name": "calculator", "arguments": {"expression": "9 / 3"}}
</tool_call><|im_end|>‹
<|im_start|>user
<tool_response>
3
</tool_response><|im_end|>
<|im_start|>assistant
›3.<|im_end|>‹
<|im_start|>user
Say nothing new.<|im_end|>
<|im_start|>assistant
Nothing new.<|im_end|>
"""


def _shown(format: HermesFormat, conversation: Conversation) -> str:
    """The rendered text with › and ‹ around trained runs."""
    rendered = format.render(conversation)
    edges = np.flatnonzero(np.diff(rendered.mask.astype(int), prepend=0, append=0))
    text, last = "", 0
    for number, edge in enumerate(edges):
        text += format.tokenizer.decode(rendered.ids[last:edge]) + "›‹"[number % 2]
        last = edge
    return text + format.tokenizer.decode(rendered.ids[last:])


def test_a_conversation_renders_as_written_down(hermes: HermesFormat, full: Conversation):
    assert _shown(hermes, full) == WIRE


def test_thinking_switched_off_opens_each_turn_with_an_empty_block(hermes: HermesFormat, calculator: ToolSchema):
    call = Conversation(
        (
            Message("user", "hi"),
            Message("assistant", "Hello."),
            Message("user", "bye"),
            Message("assistant", "Bye."),
        ),
        think=False,
    )
    empty = "<think>\n\n</think>\n\n"
    assert _shown(hermes, call) == (
        f"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n{empty}›Hello.<|im_end|>‹\n"
        f"<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n{empty}›Bye.<|im_end|>‹\n"
    )
    asked = replace(call, messages=call.messages[:1])
    assert hermes.tokenizer.decode(hermes.render_prompt(asked, think=False)).endswith(f"assistant\n{empty}")


def test_no_thinking_block_is_forced_after_a_tool_result(hermes: HermesFormat, full: Conversation):
    part = replace(full, messages=full.messages[:5])
    for think in (None, True, False):
        prompt = hermes.render_prompt(part, think)
        assert hermes.tokenizer.decode(prompt).endswith("</tool_response><|im_end|>\n<|im_start|>assistant\n")
    rendered = hermes.tokenizer.decode(hermes.render(replace(full, think=False)).ids)
    assert "assistant\n765 and 4." in rendered


def test_the_prompt_ends_as_the_thinking_switch_says(hermes: HermesFormat):
    asked = Conversation((Message("user", "hi"),))
    start = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    for think, ending in ((None, ""), (True, "<think>\n"), (False, "<think>\n\n</think>\n\n")):
        assert hermes.tokenizer.decode(hermes.render_prompt(asked, think)) == start + ending


def test_a_prompt_must_ask_something(hermes: HermesFormat):
    with pytest.raises(DataError, match="a prompt must end with a user message or a tool result"):
        hermes.render_prompt(Conversation((Message("user", "hi"), Message("assistant", "yes"))))
    with pytest.raises(DataError, match="takes tool messages, at least one"):
        hermes.tool_result_ids(Message("user", "x"))
    with pytest.raises(DataError, match="takes tool messages, at least one"):
        hermes.tool_result_ids([])


def test_ids_appended_after_calls_continue_the_row(hermes: HermesFormat, full: Conversation):
    row = hermes.render(full).ids
    for before, results in ((3, full.messages[3:5]), (10, full.messages[10:11])):
        so_far = hermes.render(replace(full, messages=full.messages[:before])).ids
        # Generation stops at <|im_end|>, before the line end that closes the message.
        generated = so_far[:-1]
        assert generated[-1] == hermes.stop_ids[0]
        joined = np.concatenate([generated, hermes.tool_result_ids(results)])
        assert np.array_equal(joined, row[: len(joined)])
        after = replace(full, messages=full.messages[: before + len(results)])
        assert np.array_equal(joined, hermes.render_prompt(after))
    one = hermes.tool_result_ids(full.messages[10])
    assert np.array_equal(one, hermes.tool_result_ids(full.messages[10:11]))


def test_rendering_many_equals_rendering_each(hermes: HermesFormat, full: Conversation):
    rows = [replace(full, messages=full.messages[:n]) for n in range(1, len(full.messages) + 1)] * 30
    for conversation, together in zip(rows, hermes.render_many(iter(rows)), strict=True):
        alone = hermes.render(conversation)
        assert np.array_equal(alone.ids, together.ids)
        assert np.array_equal(alone.mask, together.mask)
        assert together.ids.dtype == np.int32
        assert together.mask.dtype == np.bool_
    assert hermes.render_many([]) == []


HOSTILE = st.lists(
    st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<|im_", "end|>", "\n"]), st.text(max_size=5)), max_size=6
).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(HOSTILE, min_size=6, max_size=6))
def test_no_text_from_anyone_becomes_a_control_token(hermes: HermesFormat, full: Conversation, texts: list[str]):
    """Hostile text in every place leaves the control ids exactly those of a harmless conversation."""
    controls = set(hermes.tokenizer.special_tokens.values())

    def filled(system: str, user: str, thinking: str, answer: str, expression: str, result: str) -> list[int]:
        call = replace(full.messages[2].tool_calls[0], arguments={"expression": expression})
        tool = ToolSchema("calculator", system, {"type": "object", "title": user})
        conversation = Conversation(
            (
                Message("system", system),
                Message("user", user),
                Message("assistant", answer, thinking, (call,)),
                Message("tool", result, tool_call_id=call.id),
                Message("assistant", "x" + answer),
            ),
            (tool,),
        )
        ids = hermes.render(conversation).ids.tolist()
        shown = hermes.tokenizer.decode(ids)
        assert all(text in shown for text in (system, user, thinking.strip(), result))
        return [i for i in ids if i in controls]

    harmless = ["s", "u", "t" if texts[2].strip() else "", "a", "e", "r"]
    assert filled(*texts) == filled(*harmless)


def test_outside_readers_find_thinking_and_calls_in_the_decoded_text(hermes: HermesFormat, full: Conversation):
    """What vLLM's qwen3 reasoning parser and hermes tool parser do with text decoded without special tokens."""
    prompt = hermes.render_prompt(replace(full, messages=full.messages[:2]))
    row = hermes.render(replace(full, messages=full.messages[:3]))
    text = hermes.tokenizer.decode(row.ids[len(prompt) :], skip_special=True)
    thinking, _, rest = text.partition("<think>")[2].partition("</think>")
    assert thinking.strip() == "Two sums.\nUse the tool."
    calls = [json.loads(found) for found in re.findall(r"<tool_call>(.*?)</tool_call>", rest, re.DOTALL)]
    assert calls == [
        {"name": "calculator", "arguments": {"expression": "17 * 45"}},
        {"name": "calculator", "arguments": {"expression": "2 + 2"}},
    ]
    assert rest[: rest.find("<tool_call>")].strip() == "One moment."


def test_a_tokenizer_without_the_control_tokens_is_refused():
    plain = train_tokenizer(["some text"], 258, special_tokens=["<|endoftext|>", "<|im_end|>"])
    with pytest.raises(DataError, match=r'no control token "<\|im_start\|>"'):
        HermesFormat(plain)


def test_formats_are_found_by_name(tokenizer: Tokenizer):
    assert conversation_format("hermes", tokenizer).name == "hermes"
    with pytest.raises(ConfigError) as error:
        conversation_format("herms", tokenizer)
    assert str(error.value) == ('unknown conversation format "herms"; known are hermes; did you mean "hermes"?')
