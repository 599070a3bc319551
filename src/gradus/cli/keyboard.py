"""What is typed in a chat: lines with editing and completion, texts of several lines, a history kept between chats.

The history is a file of our own, a line an entry, that only its owner can read, in the user's state folder
(XDG Base Directory Specification). Each entry is on the disk as soon as it is typed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gradus.core.files import user_folder

if TYPE_CHECKING:
    from gradus.cli.screen import Screen

Complete = Callable[[str], list[str] | None]
"""Whole lines that a line may go on as; None for the names of files."""

BLOCK = '"""'
_MOST_ENTRIES = 1000
_MORE = "… "


def history_file() -> Path | None:
    """Where what is typed is kept; None where this user has no folder for it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "gradus" / "chat_history"
    home = user_folder()
    return None if home is None else home / ".local" / "state" / "gradus" / "chat_history"


def typed_messages(screen: Screen, history: Path | None, complete: Complete) -> Iterator[str]:
    """Messages from the keyboard, until Ctrl-D. history: a file to read and to go on with; None for none."""
    readline = _readline()
    if readline is not None:
        _bind_completion(readline, complete)
        if history is not None:
            try:
                _read_history(readline, history)
            except OSError as error:
                screen.note(f"(what you type is not kept: {history}: {error.strerror})")
                history = None
    while True:
        try:
            message = _typed_message(screen.prompt, history)
        except KeyboardInterrupt:
            screen.note("\n(Ctrl-D or /quit ends)")
            continue
        except EOFError:
            screen.note("")
            return
        yield message


def edited(prompt: str, text: str) -> str:
    """The text as the user has changed it; '' where it was given up or there is no line editing."""
    readline = _readline()
    if readline is None:
        return ""
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        return ""
    finally:
        readline.set_startup_hook(None)


def _typed_message(prompt: str, history: Path | None) -> str:
    """One message: a line, lines that end in a backslash and the one behind them, or all between two marks."""
    line = _typed_line(prompt, history)
    if line.lstrip().startswith(BLOCK):
        lines = [line.lstrip().removeprefix(BLOCK)]
        while BLOCK not in lines[-1]:
            lines.append(_typed_line(_MORE, history))
        return "\n".join([*lines[:-1], lines[-1].partition(BLOCK)[0]]).strip("\n")
    lines = [line]
    while lines[-1].endswith("\\") and not lines[0].startswith("/"):
        lines[-1] = lines[-1][:-1]
        lines.append(_typed_line(_MORE, history))
    return "\n".join(lines)


def _typed_line(prompt: str, history: Path | None) -> str:
    line = input(prompt)
    if history is not None and line.strip():
        # A disk that is full must not end the conversation.
        with contextlib.suppress(OSError):
            _append(history, line)
    return line


def _readline() -> ModuleType | None:
    """Line editing, where this Python has it."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _bind_completion(readline: ModuleType, complete: Complete) -> None:
    """Tab completes commands and what follows them; the names of files where `complete` says so."""
    found: list[str] = []

    def completer(text: str, state: int) -> str | None:
        nonlocal found
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            begin = readline.get_begidx()
            lines = complete(line) if line.startswith("/") else []
            found = _files(text) if lines is None else [whole[begin:] for whole in lines if whole.startswith(line)]
        return found[state] if state < len(found) else None

    readline.set_completer(completer)
    readline.set_completer_delims(" ,")
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def _files(begin: str) -> list[str]:
    """Paths that begin so, folders with a slash behind them."""
    path = Path(begin).expanduser()
    folder, name = (path, "") if begin.endswith("/") or begin in ("", "~") else (path.parent, path.name)
    shown = begin[: len(begin) - len(name)] if name else begin
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.name.startswith(name))
    except OSError:
        return []
    return [f"{shown}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries]


def _read_history(readline: ModuleType, path: Path) -> None:
    """Bring the entries of a file back; it is made where it is not there, and nobody else may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries = [line for line in lines if line.strip() and "\0" not in line]
    if len(entries) > _MOST_ENTRIES:
        entries = entries[-_MOST_ENTRIES:]
        shorter = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        _append(shorter, "\n".join(entries))
        os.replace(shorter, path)
    for entry in entries:
        readline.add_history(entry)


def _append(path: Path, line: str) -> None:
    """Add a line, in one write, so that chats beside this one do not mix theirs with it."""
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, (line + "\n").encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
