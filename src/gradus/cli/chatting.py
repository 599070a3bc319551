"""`gradus chat`: one question, lines from a pipe, or a conversation on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.cli.screen import PlainScreen, Screen, terminal_screen
from gradus.conversation.constraint import Constraint
from gradus.core.errors import ConfigError, GradusError, did_you_mean
from gradus.core.files import write_atomic
from gradus.core.run_record import walked_runs
from gradus.model.precision import Backend, DecodePrecision

if TYPE_CHECKING:
    from gradus.cli.partial_turn import ChatEngine
    from gradus.conversation.messages import Conversation, Message
    from gradus.engine.turn import Request
    from gradus.tools.toolbox import ToolBox

REGENERATE_TEMPERATURE = 0.7


@dataclass(frozen=True)
class ChatOptions:
    """Switches of a conversation. think: None lets the model decide. tools: names, "all" or "off". temperature: None
    leaves it to a service behind --url."""

    think: bool | None = None
    tools: str = "all"
    system: str | None = None
    temperature: float | None = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    seed: int = 0
    max_tokens: int = 512
    constrain: Constraint | None = None


@dataclass(frozen=True)
class ChatModel:
    """What is talked to, and what the user is told of it in a line."""

    engine: ChatEngine
    label: str


@dataclass(frozen=True)
class TurnStats:
    """How the last reply went. first_seconds: until its first piece; num_tokens: None where it was stopped."""

    seconds: float
    first_seconds: float
    num_tokens: int | None
    num_prompt_tokens: int

    def text(self) -> str:
        """One line; the speed is that of what came behind the first piece."""
        if self.num_tokens is None:
            return f"stopped after {self.seconds:.1f} s; first piece after {self.first_seconds:.2f} s"
        speed = (self.num_tokens - 1) / max(self.seconds - self.first_seconds, 1e-9) if self.num_tokens > 1 else 0.0
        return (
            f"{self.num_tokens:,} tokens in {self.seconds:.1f} s ({speed:,.1f} tokens/s) behind a prompt of "
            f"{self.num_prompt_tokens:,}; first piece after {self.first_seconds:.2f} s"
        )


class ChatSession:
    """A conversation with an engine: its messages so far and its switches."""

    def __init__(
        self, engine: ChatEngine, options: ChatOptions, load: Callable[[str], ChatModel] | None = None
    ) -> None:
        """load: brings another model by its name. Errors: ConfigError for an unknown tool."""
        self.engine = engine
        self.options = options
        self.load = load
        self.messages: list[Message] = []
        self.stats: TurnStats | None = None
        self.is_over = False
        self._turns = 0
        self.tool_names()

    def tool_names(self) -> tuple[str, ...]:
        """The tools declared to the model."""
        known = tuple(self.engine.toolbox.names)
        if self.options.tools == "off":
            return ()
        if self.options.tools == "all":
            return known
        names = tuple(name.strip() for name in self.options.tools.split(",") if name.strip())
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                raise ConfigError(f'no tool "{name}"{hint}')
        return names

    def questions(self) -> list[int]:
        """Places of the user's messages."""
        return [place for place, message in enumerate(self.messages) if message.role == "user"]

    def ask(self, text: str) -> Generator[Any, None, None]:
        """Answer the user's message as engine events; what was said joins the conversation, whole or stopped."""
        from gradus.conversation.messages import Message

        yield from self._answer(Message("user", _typed(text)), self.messages, self.options.temperature)

    def ask_again(self, number: int, text: str) -> Generator[Any, None, None]:
        """Go back to before the user's message of that number, from 1, and ask `text` in its place."""
        from gradus.conversation.messages import Message

        before = self.messages[: self.questions()[number - 1]]
        yield from self._answer(Message("user", _typed(text)), before, self.options.temperature)

    def regenerate(self) -> Generator[Any, None, None]:
        """Answer the last user message again, by another draw. Errors: ConfigError where there is none."""
        places = self.questions()
        if not places:
            raise ConfigError("nothing to regenerate yet")
        # The likeliest answer would come out the same again.
        temperature = self.options.temperature
        if temperature == 0:
            temperature = REGENERATE_TEMPERATURE
        yield from self._answer(self.messages[places[-1]], self.messages[: places[-1]], temperature)

    def _answer(
        self, question: Message, before: list[Message], temperature: float | None
    ) -> Generator[Any, None, None]:
        from gradus.cli.partial_turn import PartialTurn
        from gradus.engine.turn import Done

        self._turns += 1
        partial, reply = PartialTurn(), None
        began = time.perf_counter()
        first = None
        events = self.engine.stream(self._request([*before, question], temperature))
        try:
            for event in events:
                first = first or time.perf_counter() - began
                partial.take(event)
                if isinstance(event, Done):
                    reply = event.reply
                yield event
        finally:
            if isinstance(events, Generator):
                events.close()
            # Calls that were not run are no part of it: no model takes a message behind calls without results.
            is_whole = reply is not None and reply.finish_reason != "calls"
            said = reply.turn.messages if reply is not None and is_whole else partial.messages()
            if said:
                self.messages = [*before, question, *said]
            if first is not None:
                tokens, prompt = (None, 0) if reply is None else (reply.num_tokens, reply.num_prompt_tokens)
                self.stats = TurnStats(time.perf_counter() - began, first, tokens, prompt)

    def _request(self, messages: list[Message], temperature: float | None) -> Request:
        from gradus.core.settings import load_settings
        from gradus.engine.sampling import Sampling
        from gradus.engine.turn import Request

        o = self.options
        return Request(
            self._conversation(messages),
            think=o.think,
            tools=self.tool_names(),
            sampling=load_settings(
                Sampling,
                {
                    **({} if temperature is None else {"temperature": temperature}),
                    "top_k": o.top_k,
                    "top_p": o.top_p,
                    "min_p": o.min_p,
                    "repetition_penalty": o.repetition_penalty,
                    "seed": o.seed + self._turns,
                },
                "sampling",
            ),
            max_tokens=o.max_tokens,
            stop=o.stop,
            think_budget=o.think_budget,
            constrain=o.constrain,
        )

    def _conversation(self, messages: list[Message]) -> Conversation:
        from gradus.conversation.messages import Conversation, Message

        system = (Message("system", self.options.system),) if self.options.system else ()
        return Conversation((*system, *messages), self.engine.toolbox.schemas(self.tool_names()))

    def save(self, path: Path) -> None:
        """Write the conversation as one JSON line that `pool` stages and suites can read."""
        write_atomic(path, json.dumps(self._conversation(self.messages).to_json(), ensure_ascii=False) + "\n")


def _typed(text: str) -> str:
    """What the user said. Errors: ConfigError for bytes that are not UTF-8, as Python has them."""
    wrong = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
    if wrong is None:
        return text
    byte = f" (byte 0x{ord(wrong) - 0xDC00:02x})" if "\udc80" <= wrong <= "\udcff" else ""
    raise ConfigError(f"what was typed or sent is not UTF-8 text{byte}; set the terminal or the file to UTF-8")


def start_chat(
    load: Callable[[str], ChatModel], name: str, options: ChatOptions, question: str | None, *, history: Path | None
) -> None:
    """Answer one question and end, or hold a conversation until the input does.

    load: brings a model by its name. history: a file of what was typed before; None for none.
    """
    model = load(name)
    session = ChatSession(model.engine, options, load)
    screen = terminal_screen() if sys.stdout.isatty() else PlainScreen(sys.stdout)
    if question is not None:
        show(session.ask(question), screen)
    elif sys.stdin.isatty():
        from gradus.cli.keyboard import typed_messages
        from gradus.cli.slash_commands import completions

        screen.note(f"{model.label}. /help lists commands, /quit or Ctrl-D ends.")
        converse(session, screen, typed_messages(screen, history, lambda line: completions(session, line)))
    else:
        if isinstance(sys.stdin, io.TextIOWrapper):
            # A line that is no UTF-8 is refused by itself, and the others are answered.
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        converse(session, screen, (line.rstrip("\n") for line in sys.stdin))


def unnamed_model(question: Sequence[str], home: Path) -> ConfigError:
    """What to say where no model was named: which there are, and which was probably meant."""
    known = walked_runs(home)
    if question and question[0].partition("/")[0].partition("@")[0] in known:
        meant = f"; did you mean gradus chat --model {question[0]}?"
    else:
        meant = f"; there are {', '.join(known)}" if known else "; none was made here yet: gradus run FILE makes one"
    return ConfigError(f"say which model: gradus chat --model NAME{meant}")


def local_loader(
    home: Path, toolbox: ToolBox, precision: DecodePrecision | None, backend: Backend | None
) -> Callable[[str], ChatModel]:
    """Loads models of this machine by their names."""

    def load(name: str) -> ChatModel:
        from gradus.cli.backend import find_model, open_engine

        found = find_model(name, home)
        engine, weights = open_engine(found, home, backend=backend, precision=precision, usual="auto", toolbox=toolbox)
        size = f"{engine.num_parameters / 1e6:,.1f} M parameters in {weights}, context {engine.context:,}"
        return ChatModel(engine, f"{found.label}: {size}")

    return load


def converse(session: ChatSession, screen: Screen, lines: Iterable[str]) -> None:
    """Every line is a message or a slash command; errors are shown and the conversation goes on."""
    from gradus.cli.slash_commands import run_command

    for line in lines:
        if not line.strip():
            continue
        before = session.messages
        try:
            if line.startswith("/"):
                if not run_command(session, screen, line):
                    return
            else:
                show(session.ask(line), screen)
        except KeyboardInterrupt:
            screen.end()
            kept = "what was said is kept" if session.messages is not before else "nothing was said yet"
            screen.note(f"(stopped; {kept})")
        except GradusError as error:
            screen.end()
            screen.note(str(error))


def show(events: Generator[Any, None, None], screen: Screen) -> None:
    """Bring a turn's events to the screen as they come."""
    from gradus.conversation.formats.wire import CallReady, Problem, TextDelta, ThinkDelta
    from gradus.engine.turn import Done, ToolResult

    with contextlib.closing(events):
        for event in events:
            if isinstance(event, ThinkDelta):
                screen.think(event.text)
            elif isinstance(event, TextDelta):
                screen.text(event.text)
            elif isinstance(event, CallReady):
                screen.call(event.call.name, event.call.arguments)
            elif isinstance(event, ToolResult):
                screen.result(event.message.content)
            elif isinstance(event, Problem):
                screen.problem(event.text)
            elif isinstance(event, Done):
                screen.end()
                if event.reply.finish_reason == "length":
                    screen.note("(cut off: the reply reached its length limit)")
                elif event.reply.finish_reason == "calls":
                    screen.note("(ended in a tool call that could not be run)")
