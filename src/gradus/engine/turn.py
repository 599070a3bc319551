"""One assistant turn as it is generated: segments of sampled tokens, calls answered between them.

The model speaks until its stop token. Where what it said holds tool calls, they are run and their results
are queued as forced tokens, after which it speaks on; otherwise the turn is over. The wire format does all
writing and reading; this file only decides what happens next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.wire import (
    CallReady,
    Event,
    Format,
    Problem,
    StreamParser,
    TextDelta,
    ThinkDelta,
)
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.core.errors import DataError
from gradus.engine.constraint import ConstrainedSegment, Constraints, Mask
from gradus.engine.sampling import GREEDY, Sampling
from gradus.tools.toolbox import ToolBox

_RESULT_TOKENS = 48  # of a usual tool result with its headers

FinishReason = Literal["stop", "length", "calls"]


class PromptTooLongError(DataError):
    """The conversation leaves no room to answer in the model's context; prompts are never trimmed."""


@dataclass(frozen=True)
class Request:
    """A conversation to answer.

    think: True opens a think block, False an empty one, None follows the conversation's own switch and, where
    that is None too, leaves it to the model. tools: names declared to the model and run when called; None
    keeps what the conversation declares. max_tokens: sampled tokens in the whole turn, tool results not
    counted. max_calls: tool calls run at most. constrain: "calls", tool calls cannot be malformed; "turn", nor can the
    turn be against the invariants of thinking with tools; None, the model may write anything. What max_tokens cuts
    short stays cut.
    """

    conversation: Conversation
    think: bool | None = None
    tools: tuple[str, ...] | None = None
    sampling: Sampling = GREEDY
    max_tokens: int = 512
    max_calls: int = 4
    constrain: Constraint | None = None


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    turn: its messages (assistant, tool, ..., assistant), what was malformed, and how it ended: "stop", by the
    model; "length", by max_tokens or the context; "calls", in calls that were not run, being beyond max_calls
    or for tools that are not here. num_tokens: sampled ones.
    """

    turn: AssistantTurn
    num_tokens: int
    num_prompt_tokens: int

    @property
    def finish_reason(self) -> str:
        return self.turn.finish_reason


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call was answered."""

    message: Message


@dataclass(frozen=True, slots=True)
class Done:
    """The turn is over."""

    reply: Reply


StreamEvent = ThinkDelta | TextDelta | CallReady | Problem | ToolResult | Done


class Turn:
    """The state of one turn; a TokenStream for the batch."""

    def __init__(
        self,
        request: Request,
        form: Format,
        toolbox: ToolBox,
        context: int,
        *,
        listen: bool = False,
        constraints: Constraints | None = None,
    ) -> None:
        """listen: keep events for `take_events`. constraints: needed where the request asks for one.

        PromptTooLongError where the prompt fills the context.
        """
        conversation = request.conversation
        self.think = conversation.think if request.think is None else request.think
        tools = conversation.tools if request.tools is None else toolbox.schemas(request.tools)
        self.tools = tuple(tools)
        self.runnable = {tool.name for tool in tools} & set(toolbox.names)
        self.sampling = request.sampling
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = 0
        prompt = form.render_prompt(replace(conversation, tools=tools, think=self.think), self.think)
        self.prompt_ids: Sequence[int] = prompt.tolist()
        if len(self.prompt_ids) >= context:
            raise PromptTooLongError(
                f"the prompt holds {len(self.prompt_ids):,} tokens and the model's context is {context:,}; "
                "shorten the conversation or start a new one"
            )
        self._request, self._form, self._toolbox = request, form, toolbox
        self._opens = conversation.messages[-1].role == "user"
        self._stop_ids = frozenset(form.stop_ids)
        self._segment: list[int] = []
        self._messages: list[Message] = []
        self._problems: list[str] = []
        self._num_calls = 0
        self._first_call = 1 + sum(len(message.tool_calls) for message in conversation.messages)
        self._finish_reason: FinishReason = "length"
        self._events: list[StreamEvent] = []
        self._parser: StreamParser | None = self._new_parser() if listen else None
        self._constraints = constraints
        self._constraint = self._new_constraint()

    @property
    def most_tokens(self) -> int:
        """About how many positions prompt, output and results may take together."""
        request = self._request
        return len(self.prompt_ids) + request.max_tokens + _RESULT_TOKENS * request.max_calls

    def allowed(self) -> Mask | None:
        """(V,) bool: the tokens that may be sampled next; None where all may."""
        return None if self._constraint is None else self._constraint.allowed()

    def push(self, token: int) -> None:
        """Take a sampled token."""
        self._segment.append(token)
        if self._constraint is not None:
            self._constraint.push(token)
        self.num_sampled += 1
        if self._parser is not None:
            self._hear(self._parser.push(token))
        if token in self._stop_ids:
            self._end_segment(token)
        elif self.num_sampled >= self._request.max_tokens:
            self._finish("length")

    def run_out(self) -> None:
        """The context is full."""
        self.forced.clear()
        self._finish("length")

    def reply(self) -> Reply:
        """What came of it, once finished."""
        assert self.finished
        turn = AssistantTurn(tuple(self._messages), self._finish_reason, tuple(self._problems))
        return Reply(turn, self.num_sampled, len(self.prompt_ids))

    def take_events(self) -> list[StreamEvent]:
        """Events since the last call, where the turn listens."""
        events, self._events = self._events, []
        return events

    def _end_segment(self, stop: int) -> None:
        """The model stopped: answer its calls, or end the turn."""
        calls = self._read_segment()
        if not calls:
            self._finish("stop")
            return
        num_calls = self._num_calls + len(calls)
        known = all(call.name in self.runnable for call in calls)
        # Results follow the format's first stop token; after another the model would read what it never saw.
        if not known or num_calls > self._request.max_calls or stop != self._form.stop_ids[0]:
            self._finish("calls")
            return
        if self.num_sampled >= self._request.max_tokens:
            self._finish("length")
            return
        self._num_calls = num_calls
        results = [self._toolbox.run(call) for call in calls]
        self._messages += results
        self.forced.extend(self._form.tool_result_ids(results).tolist())
        if self._parser is not None:
            self._events += [ToolResult(result) for result in results]
            self._parser = self._new_parser()
        self._constraint = self._new_constraint()

    def _read_segment(self) -> tuple[ToolCall, ...]:
        """Read the tokens of this segment into a message. Returns its calls."""
        parsed = self._form.parse(self._segment, self._segment_think, self._first_call + self._num_calls)
        self._segment = []
        self._messages.append(parsed.message)
        self._problems += parsed.problems
        return parsed.message.tool_calls

    def _finish(self, reason: FinishReason) -> None:
        if self._segment:
            if self._parser is not None:
                self._hear(self._parser.finish())
            self._read_segment()
        self._finish_reason = reason
        self.finished = True
        if self._parser is not None:
            self._events.append(Done(self.reply()))

    @property
    def _segment_think(self) -> bool | None:
        """The think switch of the segment's prompt, which only the segment that opens the turn has."""
        return self.think if self._opens and not self._messages else None

    def _new_constraint(self) -> ConstrainedSegment | None:
        constraint = self._request.constrain
        if constraint is None:
            return None
        assert self._constraints is not None
        opens = self._opens and not self._messages
        return self._constraints.segment(constraint, self.tools, think=self._segment_think, opens=opens)

    def _new_parser(self) -> StreamParser:
        return self._form.stream_parser(self._segment_think, self._first_call + self._num_calls)

    def _hear(self, events: Sequence[Event]) -> None:
        heard = (ThinkDelta, TextDelta, CallReady, Problem)
        self._events += [event for event in events if isinstance(event, heard)]
