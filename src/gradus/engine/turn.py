"""One assistant turn as it is generated: segments of sampled tokens, calls answered between them.

The model speaks until its stop token. Where what it said holds tool calls, they are run and their results
are queued as forced tokens, after which it speaks on; otherwise the turn is over. The wire format does all
writing and reading; this file only decides what happens next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
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
from gradus.conversation.messages import Conversation, JsonObject, Message, ToolCall
from gradus.core.errors import ConfigError, DataError
from gradus.engine.constraint import ConstrainedSegment, Constraints, Mask, tools_to_call
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import GREEDY, Sampling
from gradus.engine.stop_strings import StopStrings
from gradus.tools.running import RunningCalls
from gradus.tools.toolbox import ToolBox

_RESULT_TOKENS = 48  # of a usual tool result with its headers

FinishReason = Literal["stop", "length", "calls", "cancelled"]


class PromptTooLongError(DataError):
    """The conversation leaves no room to answer in the model's context; prompts are never trimmed."""


def check_prompt_length(num_tokens: int, context: int, num_tools: int = 0) -> None:
    """PromptTooLongError where a prompt of so many tokens leaves no position to answer at.

    num_tools: that are described in it, which takes more of a small context than a short question does.
    """
    if num_tokens >= context:
        described = f" with the descriptions of {num_tools} tools" if num_tools > 1 else ""
        described = " with the description of a tool" if num_tools == 1 else described
        raise PromptTooLongError(
            f"the prompt holds {num_tokens:,} tokens{described} and the model's context is {context:,}; "
            f"shorten the conversation{', offer fewer tools' if num_tools else ''} or start a new one"
        )


@dataclass(frozen=True)
class Request:
    """A conversation to answer.

    think: True opens a think block, False an empty one, None follows the conversation's own switch and, where
    that is None too, leaves it to the model. tools: names declared to the model and run when called; None
    keeps what the conversation declares. max_tokens: sampled tokens in the whole turn, tool results not
    counted. max_calls: tool calls run at most. constrain: "calls", tool calls cannot be malformed; "turn", nor can the
    turn be against the invariants of thinking with tools; None, the model may write anything. What max_tokens cuts
    short stays cut. stop: strings at which the answer ends; they are not part of it, and those in thinking or calls
    do not count. think_budget: sampled tokens of thinking after which it is closed. logprobs: how many likeliest
    tokens to tell with the log-probability of each sampled one; None for neither.

    answer_schema: a JSON schema; what is said, thinking apart, is one JSON value that satisfies it, and comes when
    max_calls is spent at the latest. callable_tools: names of declared tools that may be called; None for all.
    must_call: the turn begins with a call, behind its thinking. These three imply constrain = "calls". single_call: a
    message holds one call at most.
    """

    conversation: Conversation
    think: bool | None = None
    tools: tuple[str, ...] | None = None
    sampling: Sampling = GREEDY
    max_tokens: int = 512
    max_calls: int = 4
    constrain: Constraint | None = None
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    logprobs: int | None = None
    answer_schema: JsonObject | None = None
    callable_tools: tuple[str, ...] | None = None
    must_call: bool = False
    single_call: bool = False

    @property
    def held_to(self) -> Constraint | None:
        """By which constraint it is decoded, asked for or implied."""
        is_bound = self.must_call or self.answer_schema is not None or self.callable_tools is not None
        return self.constrain or ("calls" if is_bound else None)

    def __post_init__(self) -> None:
        if not all(self.stop):
            raise ConfigError("stop: an empty string would end every answer before it begins; leave it out")
        for name, number in (("think_budget", self.think_budget), ("logprobs", self.logprobs)):
            if number is not None and number < 0:
                raise ConfigError(f"{name}: expected a number from 0, found {number}")


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    turn: its messages (assistant, tool, ..., assistant), what was malformed, and how it ended: "stop", by the
    model or a stop string; "length", by max_tokens or the context; "calls", in calls that were not run, being beyond
    max_calls or for tools that are not here; "cancelled". num_tokens: sampled ones. prompt_ids, ids: the tokens that
    were read and those that followed, stop tokens and tool results among them; sampled: which of `ids` the model chose.
    logprobs: of each of those, where they were asked for.
    """

    turn: AssistantTurn
    num_tokens: int
    num_prompt_tokens: int
    prompt_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    sampled: tuple[bool, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()

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
        on_results: Callable[[], None] | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        """listen: keep events for `take_events`. constraints: needed where the request asks for one.

        on_results: called from some thread as soon as calls that were waited for have their results; where it is None,
        `waits` blocks until they have. PromptTooLongError where the prompt fills the context.
        """
        conversation = request.conversation
        self.think = conversation.think if request.think is None else request.think
        tools = conversation.tools if request.tools is None else toolbox.schemas(request.tools)
        self.tools = tuple(tools)
        self.callable_tools = tools_to_call(self.tools, request.callable_tools, must_call=request.must_call)
        self.runnable = {tool.name for tool in tools} & set(toolbox.names)
        self.sampling = request.sampling
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = 0
        self.num_cached_tokens = 0
        prompt = form.render_prompt(replace(conversation, tools=tools, think=self.think), self.think)
        self.prompt_ids: Sequence[int] = prompt.tolist()
        check_prompt_length(len(self.prompt_ids), context, len(self.tools))
        self._request, self._form, self._toolbox = request, form, toolbox
        self._opens = conversation.messages[-1].role == "user"
        self._stop_ids = frozenset(form.stop_ids)
        self._segment: list[int] = []
        self._ids: list[int] = []  # all that followed the prompt
        self._sampled: list[bool] = []
        self._messages: list[Message] = []
        self._problems: list[str] = []
        self._num_calls = 0
        self._running: RunningCalls | None = None
        self._on_results = on_results
        self._first_call = 1 + sum(len(message.tool_calls) for message in conversation.messages)
        self.finish_reason: FinishReason = "length"
        self._events: list[StreamEvent] = []
        self._listens = listen
        self.num_logprobs = request.logprobs
        self._logprobs: list[TokenLogprobs] = []
        self._stop = StopStrings(request.stop)
        self._num_thought, self._num_ready = 0, 0  # tokens of thinking; calls in this segment
        self._parser: StreamParser | None = self._new_parser()
        self._constraints = constraints
        self._constraint = self._new_constraint()
        self._close_spent_thinking()

    @property
    def most_tokens(self) -> int:
        """About how many positions prompt, output and results may take together."""
        request = self._request
        return len(self.prompt_ids) + request.max_tokens + _RESULT_TOKENS * request.max_calls

    def allowed(self) -> Mask | None:
        """(V,) bool: the tokens that may be sampled next; None where all may."""
        return None if self._constraint is None else self._constraint.allowed()

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        """Take a sampled token."""
        self.num_sampled += 1
        if logprobs is not None:
            self._logprobs.append(logprobs)
        self._num_thought += self._parser is not None and self._parser.in_think
        self._take(token, sampled=True)
        if self._stop.found:
            self._finish("stop")
        elif token in self._stop_ids:
            self._end_segment(token)
        elif self._num_ready and self._num_ready == self._most_calls():
            self._force([stop := self._form.stop_ids[0]])
            self._end_segment(stop)
        elif self.num_sampled >= self._request.max_tokens:
            self._finish("length")
        else:
            self._close_spent_thinking()

    def cancel(self) -> None:
        """Nobody waits for the rest: finish now, with what there is."""
        if not self.finished:
            self.forced.clear()
            self._finish("cancelled")

    def _take(self, token: int, *, sampled: bool) -> None:
        """A token of the assistant's own, sampled or forced."""
        self._segment.append(token)
        self._ids.append(token)
        self._sampled.append(sampled)
        if self._constraint is not None:
            self._constraint.push(token)
        if self._parser is not None:
            self._hear(self._parser.push(token))

    def _close_spent_thinking(self) -> None:
        """Force the end of thinking where its budget is spent."""
        budget = self._request.think_budget
        if budget is not None and self._parser is not None and self._parser.in_think and self._num_thought >= budget:
            self._force(self._form.think_end_ids())

    def _force(self, tokens: Sequence[int]) -> None:
        """Tokens of the assistant's own that are not left to the model."""
        self.forced.extend(tokens)
        for token in tokens:
            self._take(token, sampled=False)

    def _most_calls(self) -> int | None:
        """How many calls this segment may hold; None for any number."""
        left = self._request.max_calls - self._num_calls if self._must_answer else None
        return 1 if self._request.single_call else left

    @property
    def _must_answer(self) -> bool:
        """Whether an answer has to come behind the calls; where nobody runs them, they end the turn."""
        return self._request.answer_schema is not None and self._request.max_calls > 0

    def run_out(self) -> None:
        """The context is full."""
        self.forced.clear()
        self._finish("length")

    def reply(self) -> Reply:
        """What came of it, once finished."""
        assert self.finished
        turn = AssistantTurn(tuple(self._messages), self.finish_reason, tuple(self._problems))
        prompt, ids, sampled = tuple(self.prompt_ids), tuple(self._ids), tuple(self._sampled)
        return Reply(turn, self.num_sampled, len(prompt), prompt, ids, sampled, tuple(self._logprobs))

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
        self._running = self._toolbox.start(calls, self._conversation_so_far(), self._on_results)
        if self._running.done:
            self._take_results()

    def waits(self) -> bool:
        """Whether calls are under way; where they are not any more, their results are read next."""
        if self._running is None:
            return False
        if self._on_results is None:
            self._running.wait()
        if self._running.done:
            self._take_results()
        return self._running is not None

    def _conversation_so_far(self) -> tuple[Message, ...]:
        return (*self._request.conversation.messages, *self._messages)

    def _take_results(self) -> None:
        """Have the results of the calls read, and a new segment begin behind them."""
        assert self._running is not None
        results = self._running.results()
        self._running = None
        self._messages += results
        result_ids = self._form.tool_result_ids(results).tolist()
        self.forced.extend(result_ids)
        self._ids += result_ids
        self._sampled += [False] * len(result_ids)
        self._release()
        self._tell([ToolResult(result) for result in results])
        self._parser = self._new_parser()
        self._constraint = self._new_constraint()

    def _read_segment(self) -> tuple[ToolCall, ...]:
        """Read the tokens of this segment into a message. Returns its calls."""
        parsed = self._form.parse(self._segment, self._segment_think, self._first_call + self._num_calls)
        self._segment, self._num_ready = [], 0
        message = parsed.message
        if self._stop.found:
            message = replace(message, content=StopStrings(self._request.stop).push(message.content))
        self._messages.append(message)
        self._problems += parsed.problems
        return parsed.message.tool_calls

    def _finish(self, reason: FinishReason) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
        if self._segment:
            if self._parser is not None:
                self._hear(self._parser.finish())
            self._read_segment()
        self._release()
        self.finish_reason = reason
        self.finished = True
        self._tell([Done(self.reply())])

    @property
    def _segment_think(self) -> bool | None:
        """The think switch of the segment's prompt, which only the segment that opens the turn has."""
        return self.think if self._opens and not self._messages else None

    def _new_constraint(self) -> ConstrainedSegment | None:
        request = self._request
        if request.held_to is None:
            return None
        assert self._constraints is not None
        is_first = not self._messages
        return self._constraints.segment(
            request.held_to,
            () if self._must_answer and self._num_calls >= request.max_calls else self.callable_tools,
            think=self._segment_think,
            opens=self._opens and is_first,
            must_call=request.must_call and is_first,
            answer=request.answer_schema,
        )

    def _new_parser(self) -> StreamParser | None:
        """A parser where anybody needs to know what is written before the segment ends."""
        request = self._request
        is_heard = self._listens or request.stop or request.think_budget is not None
        if not (is_heard or request.single_call or self._must_answer):
            return None
        return self._form.stream_parser(self._segment_think, self._first_call + self._num_calls)

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, TextDelta) and self._request.stop:
                text = self._stop.push(event.text)
                self._tell([TextDelta(text)] if text else [])
            elif isinstance(event, (ThinkDelta, TextDelta, CallReady, Problem)):
                self._num_ready += isinstance(event, CallReady)
                self._release()
                self._tell([event])

    def _release(self) -> None:
        """Text that was held back, now that none follows it."""
        text = self._stop.finish()
        self._tell([TextDelta(text)] if text else [])

    def _tell(self, events: Sequence[StreamEvent]) -> None:
        if self._listens:
            self._events += events
