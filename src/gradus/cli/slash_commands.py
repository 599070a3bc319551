"""Slash commands of a chat: a table of what each is called, takes, says of itself, and does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.cli.chatting import REGENERATE_TEMPERATURE, ChatSession, show
from gradus.core.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from gradus.cli.screen import Screen

_THINK: dict[str, bool | None] = {"on": True, "off": False, "auto": None}
_OTHER_NAMES = {"exit": "quit", "q": "quit"}
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Command:
    """takes: its argument as shown in /help. choices: what may complete the argument; None for a file's name."""

    run: Callable[[ChatSession, Screen, str], None]
    takes: str
    about: str
    choices: Callable[[ChatSession], Sequence[str]] | None = lambda session: ()


def run_command(session: ChatSession, screen: Screen, line: str) -> bool:
    """Run one slash command; False where it ends the conversation. Errors: ConfigError."""
    name, _, argument = line[1:].partition(" ")
    command = COMMANDS.get(_OTHER_NAMES.get(name, name))
    if command is None:
        raise ConfigError(f"no command /{name}{did_you_mean(name, COMMANDS) or '; /help lists them'}")
    command.run(session, screen, argument.strip())
    return not session.is_over


def completions(session: ChatSession, line: str) -> list[str] | None:
    """What a line that begins so may go on as, whole lines; None where it goes on as a file's name."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        return [
            f"/{known}" + (" " if command.takes else "")
            for known, command in COMMANDS.items()
            if known.startswith(name)
        ]
    command = COMMANDS.get(name)
    if command is None:
        return []
    if command.choices is None:
        return None
    begin, comma, last = argument.rpartition(",")
    return [f"/{name} {begin}{comma}{choice}" for choice in command.choices(session) if choice.startswith(last)]


def _help(session: ChatSession, screen: Screen, argument: str) -> None:
    screen.rows([(f"/{name} {command.takes}".rstrip(), command.about) for name, command in COMMANDS.items()])
    screen.note(
        'A line that ends in \\ goes on in the next; """ begins and ends a text of several lines. Ctrl-C stops a reply.'
    )


def _think(session: ChatSession, screen: Screen, argument: str) -> None:
    if argument not in _THINK:
        raise ConfigError(f'/think takes on, off or auto, found "{argument}"')
    session.options = replace(session.options, think=_THINK[argument])
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


def _history(session: ChatSession, screen: Screen, argument: str) -> None:
    number, rows = 0, []
    for message in session.messages:
        number += message.role == "user"
        text = " ".join((message.content or ", ".join(call.name for call in message.tool_calls)).split())
        who = f"{number} user" if message.role == "user" else message.role
        rows.append((who, text[:_SHOWN_CHARACTERS] + "…" * (len(text) > _SHOWN_CHARACTERS)))
    if rows:
        screen.rows(rows)
    else:
        screen.note("nothing was said yet")


def _edit(session: ChatSession, screen: Screen, argument: str) -> None:
    """The number may be left out; without a text the old one comes back to be changed, where there is a keyboard."""
    first, _, rest = argument.partition(" ")
    places = session.questions()
    number = int(first) if first.isdecimal() else len(places)
    text = (rest if first.isdecimal() else argument).strip()
    if not places:
        raise ConfigError("nothing to edit yet")
    if not 1 <= number <= len(places):
        raise ConfigError(f"/edit takes the number of one of your messages, 1 to {len(places)}, found {number}")
    text = text or screen.ask(session.messages[places[number - 1]].content)
    if not text.strip():
        raise ConfigError("/edit: nothing to ask; the conversation stays as it was")
    show(session.ask_again(number, text), screen)


def _model(session: ChatSession, screen: Screen, argument: str) -> None:
    if not argument or session.load is None:
        raise ConfigError("/model takes a name: a roadmap, ROADMAP/STAGE or a folder; of a remote model its name there")
    found = session.load(argument)
    session.engine = found.engine
    screen.note(f"{found.label}. The conversation goes on.")


def _stats(session: ChatSession, screen: Screen, argument: str) -> None:
    screen.note(session.stats.text() if session.stats is not None else "no reply yet")


def _save(session: ChatSession, screen: Screen, argument: str) -> None:
    if not argument:
        raise ConfigError("/save takes a file name")
    path = Path(argument).expanduser()
    try:
        session.save(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
    screen.note(f"saved to {path}")


def _load(session: ChatSession, screen: Screen, argument: str) -> None:
    from gradus.conversation.messages import Conversation

    if not argument:
        raise ConfigError("/load takes a file name")
    path = Path(argument).expanduser()
    try:
        # Not splitlines: JSON may hold U+2028 and its like inside a string.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        rows = [json.loads(line) for line in lines]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no conversation as /save writes it ({error})") from None
    if len(rows) != 1:
        raise ConfigError(f"{path}: expected one conversation in one line, found {len(rows)}")
    try:
        messages = list(Conversation.from_json(rows[0]).messages)
    except DataError as error:
        raise ConfigError(f"{path}: no conversation as /save writes it ({error})") from None
    begins_with_system = bool(messages) and messages[0].role == "system"
    session.options = replace(session.options, system=messages[0].content if begins_with_system else None)
    session.messages = messages[begins_with_system:]
    _history(session, screen, "")


def _quit(session: ChatSession, screen: Screen, argument: str) -> None:
    session.is_over = True


COMMANDS: dict[str, Command] = {
    "help": Command(_help, "", "list the commands"),
    "think": Command(
        _think, "on|off|auto", "think before answering (auto: the model decides)", lambda session: tuple(_THINK)
    ),
    "tools": Command(
        _tools,
        "NAMES|all|off",
        "tools the model may call",
        lambda session: ("all", "off", *session.engine.toolbox.names),
    ),
    "temperature": Command(_temperature, "X", "0 always takes the likeliest token"),
    "system": Command(_system, "TEXT", "a system message; empty removes it"),
    "regenerate": Command(_regenerate, "", "answer the last message again"),
    "edit": Command(_edit, "[N] [TEXT]", "ask your Nth message (the last) anew, forgetting what came after"),
    "history": Command(_history, "", "the conversation so far, your messages numbered"),
    "clear": Command(_clear, "", "forget the conversation"),
    "model": Command(_model, "NAME", "go on with another stage or model"),
    "stats": Command(_stats, "", "tokens and speed of the last reply"),
    "save": Command(_save, "FILE", "write the conversation as JSON", None),
    "load": Command(_load, "FILE", "go on with a conversation that was saved", None),
    "quit": Command(_quit, "", "end"),
}
