"""The hermes format: ChatML roles, <think>, <tool_call> and <tool_response>, every marker one control token.

    <|im_start|>system
    You are Ada.<tools>{"name":"calculator","description":"...","parameters":{...}}</tools><|im_end|>
    <|im_start|>user
    What is 17 * 45?<|im_end|>
    <|im_start|>assistant
    <think>
    17 * 45 needs the calculator.
    </think>

    <tool_call>
    {"name": "calculator", "arguments": {"expression": "17 * 45"}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    765
    </tool_response><|im_end|>
    <|im_start|>assistant
    17 * 45 = 765.<|im_end|>

Source: Nous Hermes function calling and the Qwen3 chat template, whose output side vLLM (qwen3 reasoning
parser, hermes tool parser) and llama.cpp read. Ours departs on the input side: a short system message, one
line a tool and no fixed instructions (a small model pays for each token), all thinking kept in later turns
so that rendering is prefix-preserving, and thinking only where a turn opens.

Rules. Text between two control tokens is encoded as one run with control tokens disabled. Trained:
thinking, text, calls and <|im_end|> of assistant messages. Not trained: headers, an empty think block (it
is forced, by think=False), everything else. Assistant text and thinking are rendered without surrounding
white space, so that the generation prompt is always a prefix of the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.hermes_parser import HermesParser, parse_ids
from gradus.conversation.formats.hermes_rules import HermesRules, Words
from gradus.conversation.formats.hermes_template import HERMES_TEMPLATE
from gradus.conversation.formats.wire import Held, Parsed, Rendered
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.core.errors import DataError
from gradus.tokenizer import specials
from gradus.tokenizer.tokenizer import Tokenizer

# A row before encoding: text runs to encode, or ids that are fixed, each with whether it is trained.
_Plan = list[tuple[str | list[int], bool]]

# By which vLLM reads this format. Its parser takes a reply for thinking until thinking ends, so that one without any
# would have no content: whether it thinks is not left to the model.
VLLM_FLAGS = (
    *("--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--default-chat-template-kwargs", '{"enable_thinking": false}'),
)

_MAX_KNOWN_TOOLS = 256
_ROWS_A_BATCH = 128  # larger batches are slower: their pieces keep the garbage collector busy
_ENCODE_CALL = json.JSONEncoder(ensure_ascii=False).encode
_ENCODE_SCHEMA = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def text_runs(conversation: Conversation) -> Iterator[str]:
    """The text between control tokens as this format writes it, for a tokenizer to learn from."""
    messages = conversation.messages
    if conversation.tools:
        yield "system\n"
        yield "\n".join(schema_text(tool) for tool in conversation.tools)
    for message in messages:
        if message.role == "assistant":
            yield "assistant\n"
            if message.reasoning_content:
                yield f"\n{message.reasoning_content}\n"
            if message.content:
                yield message.content
            yield from (f"\n{call_text(call)}\n" for call in message.tool_calls)
        elif message.role == "tool":
            yield f"\n{message.content}\n"
        else:
            yield f"{message.role}\n{message.content}"


class HermesFormat:
    """Renders conversations to ids and masks, and reads generated ids back."""

    name = "hermes"
    chat_template = HERMES_TEMPLATE

    def __init__(self, tokenizer: Tokenizer) -> None:
        """DataError where the tokenizer lacks one of the control tokens."""
        self.tokenizer = tokenizer
        start, end = tokenizer.special(specials.IM_START), tokenizer.special(specials.IM_END)
        think, think_end = tokenizer.special(specials.THINK), tokenizer.special(specials.THINK_END)
        self.stop_ids: tuple[int, ...] = (end, tokenizer.special(specials.END_OF_TEXT))
        self._start, self._end = [start], [end]
        self._think, self._think_end = [think], [think_end]
        self._call = [tokenizer.special(specials.TOOL_CALL)]
        self._call_end = [tokenizer.special(specials.TOOL_CALL_END)]
        self._result = [tokenizer.special(specials.TOOL_RESPONSE)]
        self._result_end = [tokenizer.special(specials.TOOL_RESPONSE_END)]
        self._tools, self._tools_end = (
            [tokenizer.special(specials.TOOLS)],
            [tokenizer.special(specials.TOOLS_END)],
        )
        # Fixed runs. One that ends a line may be encoded apart from text behind it that does not start with
        # white space: no split pattern joins them.
        newline, blank_line = tokenizer.encode("\n"), tokenizer.encode("\n\n")
        self._newline, self._blank_line = newline, blank_line
        self._close = [end, *newline]
        self._open_assistant = [start, *tokenizer.encode("assistant\n")]
        self._open_results = [start, *tokenizer.encode("user\n")]
        self._no_thinking = [think, *blank_line, think_end, *blank_line]
        self._open_thinking = [think, *newline]
        self._known_tools: dict[tuple[int, ...], tuple[tuple[ToolSchema, ...], list[int]]] = {}

    # --- rendering

    def render(self, conversation: Conversation) -> Rendered:
        """A training row: (T,) ids and (T,) mask, headers and all."""
        return self.render_many([conversation])[0]

    def render_many(self, conversations: Iterable[Conversation]) -> list[Rendered]:
        """As `render`, with the text of many conversations encoded in one batch."""
        rows: list[Rendered] = []
        waiting = iter(conversations)
        while batch := list(islice(waiting, _ROWS_A_BATCH)):
            rows += self._encode([self._conversation(conversation) for conversation in batch])
        return rows

    def render_prompt(self, conversation: Conversation, think: bool | None = None) -> NDArray[np.int32]:
        """(T,) ids up to the place where the assistant goes on; the last message is a user's or a tool's.

        think: True opens a think block, False writes an empty one, None leaves it to the model. After a tool
        result the turn goes on and no block is written.
        """
        if not conversation.messages or conversation.messages[-1].role not in ("user", "tool"):
            raise DataError("a prompt must end with a user message or a tool result")
        plan = self._conversation(conversation)
        plan.append((self._open_assistant, False))
        if conversation.messages[-1].role == "user" and think is not None:
            plan.append((self._open_thinking if think else self._no_thinking, False))
        return self._encode([plan])[0].ids

    def tool_result_ids(self, results: Message | Sequence[Message]) -> NDArray[np.int32]:
        """(T,) ids that follow the <|im_end|> of a message with calls.

        They hold the results of all its calls, in order, and the header with which the assistant goes on.
        """
        messages = [results] if isinstance(results, Message) else list(results)
        if not messages or any(message.role != "tool" for message in messages):
            raise DataError("tool_result_ids takes tool messages, at least one")
        plan: _Plan = [(self._newline, False)]
        for index, message in enumerate(messages):
            self._tool(plan, message, index == 0, index == len(messages) - 1)
        plan.append((self._open_assistant, False))
        return self._encode([plan])[0].ids

    def _conversation(self, conversation: Conversation) -> _Plan:
        plan: _Plan = []
        messages = conversation.messages
        if conversation.tools or (messages and messages[0].role == "system"):
            self._opening(plan, messages, conversation.tools)
        previous, last = "", len(messages) - 1
        for index, message in enumerate(messages):
            role = message.role
            if role == "assistant":
                self._assistant(plan, message, conversation.think is False and previous != "tool")
            elif role == "tool":
                closes = index == last or messages[index + 1].role != "tool"
                self._tool(plan, message, previous != "tool", closes)
            elif role == "user" or index > 0:
                plan += [(self._start, False), (f"{role}\n{message.content}", False), (self._close, False)]
            previous = role
        return plan

    def _opening(self, plan: _Plan, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> None:
        """The system message and the declared tools; absent where there is neither."""
        text = messages[0].content if messages and messages[0].role == "system" else ""
        plan += [(self._start, False), (f"system\n{text}", False)]
        if tools:
            plan += [(self._tools, False), (self._tool_ids(tools), False), (self._tools_end, False)]
        plan.append((self._close, False))

    def _tool_ids(self, tools: Sequence[ToolSchema]) -> list[int]:
        """Ids of the declared tools, remembered: few sets of tools recur in many conversations."""
        key = tuple(map(id, tools))
        known = self._known_tools.get(key)
        if known is None:
            if len(self._known_tools) >= _MAX_KNOWN_TOOLS:
                self._known_tools.clear()
            ids = self.tokenizer.encode("\n".join(schema_text(tool) for tool in tools))
            # The tools are kept beside their ids, so that no other object can take over their identities.
            known = self._known_tools[key] = (tuple(tools), ids)
        return known[1]

    def _assistant(self, plan: _Plan, message: Message, no_thinking: bool) -> None:
        trained = message.train
        plan.append((self._open_assistant, False))
        content = message.content.strip()
        thinking = message.reasoning_content
        thinking = thinking.strip() if thinking is not None else "" if no_thinking else None
        ending = "\n" if message.tool_calls else ""
        text = content + ending if content else ""
        if thinking:
            plan += [(self._think, trained), (f"\n{thinking}\n", trained), (self._think_end, trained)]
            text = "\n\n" + text
        elif thinking is not None:
            plan.append((self._no_thinking, False))
        if text:
            plan.append((text, trained))
        for index, call in enumerate(message.tool_calls):
            if index:
                plan.append((self._newline, trained))
            plan += [(self._call, trained), (f"\n{call_text(call)}\n", trained), (self._call_end, trained)]
        plan += [(self._end, trained), (self._newline, False)]

    def _tool(self, plan: _Plan, message: Message, opens: bool, closes: bool) -> None:
        """One result; several in a row share one user segment."""
        plan.append((self._open_results if opens else self._newline, False))
        plan += [(self._result, False), (f"\n{message.content}\n", False), (self._result_end, False)]
        if closes:
            plan.append((self._close, False))

    def _encode(self, plans: Sequence[_Plan]) -> list[Rendered]:
        """Plans to ids and masks, through one batch of texts."""
        texts = [piece for plan in plans for piece, _ in plan if isinstance(piece, str)]
        encoded = iter(self.tokenizer.encode_lists(texts))
        rows = []
        for plan in plans:
            runs = [next(encoded) if isinstance(piece, str) else piece for piece, _ in plan]
            lengths = [len(run) for run in runs]
            ids = np.fromiter(chain.from_iterable(runs), dtype=np.int32, count=sum(lengths))
            mask = np.repeat(np.array([trained for _, trained in plan], dtype=np.bool_), lengths)
            rows.append(Rendered(ids, mask))
        return rows

    # --- reading

    def parse(self, ids: Iterable[int], think: bool | None = None, first_call: int = 1) -> Parsed:
        """The assistant message behind generated ids (from the end of the prompt on).

        think: as given to `render_prompt` (None after a tool result, where no block is written);
        first_call: number of the first call's id, so that ids stay unique in a conversation.
        """
        return parse_ids(self.stream_parser(think, first_call), ids, think)

    def stream_parser(self, think: bool | None = None, first_call: int = 1) -> HermesParser:
        """A parser that is fed ids one at a time and hands out events."""
        return HermesParser(self.tokenizer, self.stop_ids, think is True, first_call)

    # --- steering

    def think_end_ids(self) -> list[int]:
        """What closes a think block whatever stands in it, as between thinking and an answer."""
        return [*self._newline, *self._think_end, *self._blank_line]

    def rules(self, constraint: Constraint, held: Held) -> HermesRules:
        """What may be written in a segment."""
        return HermesRules(self._words, self.stop_ids[0], constraint, held, self._blank_line)

    def call_frame(self, name: str) -> tuple[str, str]:
        """What stands before and behind the arguments of a call of that tool, between the markers."""
        arguments = "{}"
        text = f"\n{call_text(ToolCall('', name, {}))}\n"
        place = text.rindex(arguments)
        return text[:place], text[place + len(arguments) :]

    @cached_property
    def _words(self) -> Words:
        return Words(self.tokenizer)


def call_text(call: ToolCall) -> str:
    """A call as the model writes it."""
    return _ENCODE_CALL({"name": call.name, "arguments": call.arguments})


def schema_text(tool: ToolSchema) -> str:
    """A tool as the model is told of it: one line, no spaces, no empty description."""
    row = tool.to_json()
    if not tool.description:
        del row["description"]
    return _ENCODE_SCHEMA(row)
