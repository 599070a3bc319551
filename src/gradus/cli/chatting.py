"""`gradus chat`: one question, lines from a pipe, or a conversation on a terminal with slash commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.cli.screen import PlainScreen, Screen, terminal_screen
from gradus.conversation.constraint import Constraint
from gradus.core.errors import ConfigError, GradusError, did_you_mean
from gradus.core.files import write_atomic
from gradus.roadmap.models import resolve_model

if TYPE_CHECKING:
    from gradus.conversation.messages import Message
    from gradus.engine.engine import Engine
    from gradus.engine.turn import Request
    from gradus.tools.toolbox import ToolBox

REGENERATE_TEMPERATURE = 0.7


@dataclass(frozen=True)
class ChatOptions:
    """Switches of a conversation. think: None lets the model decide. tools: names, "all" or "off"."""

    think: bool | None = None
    tools: str = "all"
    system: str | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    seed: int = 0
    max_tokens: int = 512
    constrain: Constraint | None = None


class ChatSession:
    """A conversation with an engine: its messages so far and its switches."""

    def __init__(self, engine: Engine, options: ChatOptions) -> None:
        """Errors: ConfigError for an unknown tool."""
        self.engine = engine
        self.options = options
        self.messages: list[Message] = []
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

    def ask(self, text: str) -> Generator[Any, None, None]:
        """Answer the user's message as engine events; the turn joins the conversation when it is whole."""
        from gradus.conversation.messages import Message

        yield from self._answer(Message("user", text), self.options.temperature)

    def regenerate(self) -> Generator[Any, None, None]:
        """Answer the last user message again, by another draw. Errors: ConfigError where there is none."""
        last = max((i for i, m in enumerate(self.messages) if m.role == "user"), default=None)
        if last is None:
            raise ConfigError("nothing to regenerate yet")
        question = self.messages[last]
        kept, self.messages = self.messages, self.messages[:last]
        done = False
        try:
            # The likeliest answer would come out the same again.
            yield from self._answer(question, self.options.temperature or REGENERATE_TEMPERATURE)
            done = True
        finally:
            if not done:
                self.messages = kept

    def _answer(self, question: Message, temperature: float) -> Generator[Any, None, None]:
        from gradus.engine.turn import Done

        self._turns += 1
        request = self._request(question, temperature)
        for event in self.engine.stream(request):
            if isinstance(event, Done):
                self.messages += [question, *event.reply.turn.messages]
            yield event

    def _request(self, question: Message, temperature: float) -> Request:
        from gradus.conversation.messages import Conversation, Message
        from gradus.core.settings import load_settings
        from gradus.engine.sampling import Sampling
        from gradus.engine.turn import Request

        o = self.options
        system = (Message("system", o.system),) if o.system else ()
        return Request(
            Conversation((*system, *self.messages, question)),
            think=o.think,
            tools=self.tool_names(),
            sampling=load_settings(
                Sampling,
                {
                    "temperature": temperature,
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

    def save(self, path: Path) -> None:
        """Write the conversation as one JSON line that `pool` stages and suites can read."""
        from gradus.conversation.messages import Conversation, Message

        system = (Message("system", self.options.system),) if self.options.system else ()
        row = Conversation((*system, *self.messages), self.engine.toolbox.schemas(self.tool_names())).to_json()
        write_atomic(path, json.dumps(row, ensure_ascii=False) + "\n")


def start_chat(
    model: str, home: Path, options: ChatOptions, question: str | None, toolbox: ToolBox | None = None
) -> None:
    """Answer one question and end, or hold a conversation until the input does."""
    found = resolve_model(model, home)
    from gradus.engine.load import load_engine

    session = ChatSession(load_engine(found.folder, toolbox=toolbox, tokenizer_folder=found.tokenizer), options)
    on_terminal = sys.stdin.isatty()
    screen = terminal_screen() if sys.stdout.isatty() else PlainScreen(sys.stdout)
    if question is not None:
        show(session.ask(question), screen)
    elif on_terminal:
        screen.note(f"{found.label}. /help lists commands, /quit or Ctrl-D ends.")
        converse(session, screen, _typed_lines(screen))
    else:
        converse(session, screen, (line.rstrip("\n") for line in sys.stdin))


def converse(session: ChatSession, screen: Screen, lines: Iterable[str]) -> None:
    """Every line is a message or a slash command; errors are shown and the conversation goes on."""
    for line in lines:
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                if not run_command(session, screen, line):
                    return
            else:
                show(session.ask(line), screen)
        except KeyboardInterrupt:
            screen.end()
            screen.note("(stopped; this turn is forgotten)")
        except GradusError as error:
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


def _typed_lines(screen: Screen) -> Iterator[str]:
    """Lines from the keyboard, with editing and history where the system has readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    while True:
        try:
            line = input(screen.prompt)
        except (EOFError, KeyboardInterrupt):
            screen.note("")
            return
        yield line


# Slash commands


def run_command(session: ChatSession, screen: Screen, line: str) -> bool:
    """Run one slash command; False where it ends the conversation. Errors: ConfigError."""
    name, _, argument = line[1:].partition(" ")
    if name in {"quit", "exit", "q"}:
        return False
    command = COMMANDS.get(name)
    if command is None:
        raise ConfigError(f"no command /{name}{did_you_mean(name, COMMANDS) or '; /help lists them'}")
    command(session, screen, argument.strip())
    return True


def _help(session: ChatSession, screen: Screen, argument: str) -> None:
    screen.note(
        "/think on|off|auto    think before answering (auto: the model decides)\n"
        "/tools NAMES|all|off  tools the model may call\n"
        "/temperature X        0 always takes the likeliest token\n"
        "/system TEXT          a system message; empty removes it\n"
        "/regenerate           answer the last message again\n"
        "/clear                forget the conversation\n"
        "/save FILE            write the conversation as JSON\n"
        "/quit                 end"
    )


def _think(session: ChatSession, screen: Screen, argument: str) -> None:
    choices: dict[str, bool | None] = {"on": True, "off": False, "auto": None}
    if argument not in choices:
        raise ConfigError(f'/think takes on, off or auto, found "{argument}"')
    session.options = replace(session.options, think=choices[argument])
    screen.note(f"thinking: {argument}")


def _tools(session: ChatSession, screen: Screen, argument: str) -> None:
    if argument:
        before = session.options
        session.options = replace(before, tools=argument)
        try:
            session.tool_names()
        except ConfigError:
            session.options = before
            raise
    screen.note(f"tools: {', '.join(session.tool_names()) or 'none'}")


def _temperature(session: ChatSession, screen: Screen, argument: str) -> None:
    try:
        value = float(argument)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f'/temperature takes a number from 0, found "{argument}"')
    session.options = replace(session.options, temperature=value)
    screen.note(f"temperature: {value:g}")


def _system(session: ChatSession, screen: Screen, argument: str) -> None:
    session.options = replace(session.options, system=argument or None)
    screen.note("system message set" if argument else "system message removed")


def _clear(session: ChatSession, screen: Screen, argument: str) -> None:
    session.messages = []
    screen.note("the conversation is forgotten")


def _regenerate(session: ChatSession, screen: Screen, argument: str) -> None:
    if session.options.temperature == 0 and session.messages:
        screen.note(f"(temperature 0 would answer the same; this once {REGENERATE_TEMPERATURE})")
    show(session.regenerate(), screen)


def _save(session: ChatSession, screen: Screen, argument: str) -> None:
    if not argument:
        raise ConfigError("/save takes a file name")
    path = Path(argument).expanduser()
    try:
        session.save(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
    screen.note(f"saved to {path}")


COMMANDS: dict[str, Callable[[ChatSession, Screen, str], None]] = {
    "help": _help,
    "think": _think,
    "tools": _tools,
    "temperature": _temperature,
    "system": _system,
    "clear": _clear,
    "regenerate": _regenerate,
    "save": _save,
}
