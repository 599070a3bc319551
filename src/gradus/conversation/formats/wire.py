"""What every format speaks in: rendered rows, parsed replies, and the events of a reply in the making."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.constraint import Constraint
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A conversation as tokens. ids: (T,) int32; mask: (T,) bool, True where the model is trained."""

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Parsed:
    """An assistant message read back from generated ids.

    problems: what was malformed, in order; stopped: whether a stop token ended it.
    """

    message: Message
    problems: tuple[str, ...]
    stopped: bool


@dataclass(frozen=True, slots=True)
class ThinkDelta:
    """More thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallReady:
    """A complete and well-formed tool call."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Problem:
    """Something malformed; generation goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop token; nothing after it belongs to the message."""

    token_id: int


Event = ThinkDelta | TextDelta | CallReady | Problem | Stop


class StreamParser(Protocol):
    """Reads generated ids one at a time."""

    @property
    def in_think(self) -> bool:
        """Whether a think block is open."""
        ...

    def push(self, token_id: int) -> list[Event]: ...

    def finish(self) -> list[Event]:
        """What is still held back, when generation ends without a stop token."""
        ...


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may come next: all ids of text or none of them, but for some; and these ids besides.

    grammar: what a grammar of calls or of answers allows, too; `ends`: ids that may come where what it reads is whole.
    What `besides` has among them begins something else, and the grammar anew behind it.
    """

    text: bool
    besides: tuple[int, ...]
    but: tuple[int, ...] = ()
    grammar: Literal["call", "answer"] | None = None
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What a segment, which goes from the end of a prompt or of tool results to a stop token, is held to.

    think: as given to `render_prompt`. tools: whether any may be called. opens: no tool result stands before it.
    must_call: behind its thinking come calls and nothing else. formatted: its text is what a grammar of answers allows.
    """

    think: bool | None
    tools: bool
    opens: bool
    must_call: bool = False
    formatted: bool = False

    @property
    def is_bound(self) -> bool:
        """Whether not every text may be written."""
        return self.must_call or self.formatted


class Rules(Protocol):
    """The state of what the assistant is writing, of which follows what may come next."""

    def push(self, token: int) -> None: ...

    def allowed(self) -> Allowed: ...


class Format(Protocol):
    """The one renderer of a wire format: training rows and inference prompts come from the same functions."""

    name: str
    tokenizer: Tokenizer
    chat_template: str
    stop_ids: tuple[int, ...]

    def render(self, conversation: Conversation) -> Rendered: ...

    def render_many(self, conversations: Iterable[Conversation]) -> list[Rendered]: ...

    def render_prompt(self, conversation: Conversation, think: bool | None = None) -> NDArray[np.int32]: ...

    def tool_result_ids(self, results: Message | Sequence[Message]) -> NDArray[np.int32]: ...

    def parse(self, ids: Iterable[int], think: bool | None = None, first_call: int = 1) -> Parsed: ...

    def stream_parser(self, think: bool | None = None, first_call: int = 1) -> StreamParser: ...

    def think_end_ids(self) -> list[int]:
        """What closes a think block whatever stands in it."""
        ...

    def rules(self, constraint: Constraint, held: Held) -> Rules: ...

    def call_frame(self, name: str) -> tuple[str, str]: ...
