"""Writes the parts of the documentation that are read off the code: commands.md, and tables in other pages.

Run `python docs/generate.py` after a change of a command or a setting; a test compares. Settings come from the
settings classes themselves, commands from their own --help.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo
from typer.main import get_command
from typer.testing import CliRunner

from gradus.cli.main import app
from gradus.conversation.record_shapes import SHAPES
from gradus.core.gate import Gate
from gradus.core.quantity import Quantity, format_count
from gradus.core.settings import Settings
from gradus.data.conversation_presets import CONVERSATION_PRESETS
from gradus.data.presets import PRESETS
from gradus.model.config import model_config
from gradus.model.cost import parameters
from gradus.model.presets import PRESETS as MODEL_PRESETS
from gradus.release.settings import PushSettings
from gradus.roadmap.kinds import KINDS, stage_module
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.schema import RoadmapHead
from gradus.roadmap.tracking import TrackSettings

DIAL_DEPTHS, SPEEDRUN_DEPTHS, DIAL_VOCABULARY = (4, 8, 12, 16, 20, 24, 26, 32), (12, 24, 32), 32_768
FOLDER = Path(__file__).parent
BEGIN, END = "<!-- generated: {} -->", "<!-- end of generated: {} -->"


def main() -> None:
    """Write every page."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Each page with generated parts, as it should be."""
    roadmap = FOLDER / "roadmap.md"
    text = roadmap.read_text(encoding="utf-8")
    for name, lines in {"head": _head(), "stages": _stages()}.items():
        text = _replaced(text, name, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)))
    datasets = FOLDER / "datasets.md"
    presets = _replaced(datasets.read_text(encoding="utf-8"), "presets", "\n".join(_presets()))
    models = FOLDER / "models.md"
    shapes = _replaced(models.read_text(encoding="utf-8"), "models", "\n".join(_models()))
    conversations = FOLDER / "conversations.md"
    talk = conversations.read_text(encoding="utf-8")
    for name, lines in {"conversation presets": _conversation_presets(), "shapes": _record_shapes()}.items():
        talk = _replaced(talk, name, "\n".join(lines))
    return {
        FOLDER / "commands.md": _commands(),
        roadmap: text,
        datasets: presets,
        models: shapes,
        conversations: talk,
    }


def _replaced(text: str, name: str, part: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    if pattern.search(text) is None:
        raise SystemExit(f"no part between {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{part.strip()}\n\n{end}", text)


# Presets


def _presets() -> Iterator[str]:
    yield from ("| name | what | documents | tokens | licence |", "| --- | --- | --- | --- | --- |")
    for name, preset in PRESETS.items():
        documents = format_count(preset.documents) if preset.documents else "-"
        counter = f" ({preset.tokenizer})" if preset.tokenizer else ""
        tokens = f"{format_count(preset.tokens)}{counter}" if preset.tokens else "-"
        what = f"[{preset.title}]({preset.homepage})" + (f". {preset.notes}" if preset.notes else "")
        yield f"| `{name}` | {what} | {documents} | {tokens} | {preset.licence} |"


def _conversation_presets() -> Iterator[str]:
    yield from ("| name | what | makes | rows | licence |", "| --- | --- | --- | --- | --- |")
    for name, preset in CONVERSATION_PRESETS.items():
        rows = f"{preset.rows:,}" if preset.rows else "-"
        what = f"[{preset.title}]({preset.homepage})" + (f". {preset.notes}" if preset.notes else "")
        yield f"| `{name}` | {what} | {preset.makes} | {rows} | {preset.licence} |"


def _record_shapes() -> Iterator[str]:
    yield from ("| layout | keys of a row |", "| --- | --- |")
    for shape in SHAPES:
        yield f"| `{shape.name}` | {', '.join(f'`{key}`' for key in shape.keys)} |"


# Models


def _models() -> Iterator[str]:
    yield from ("| name | family | layers x width | parameters | a token passes through | at vocabulary | notes |",)
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for depth in DIAL_DEPTHS:
        yield _model_row(f"d{depth}", f"d{depth}", DIAL_VOCABULARY, 2048, "dial")
    for depth in SPEEDRUN_DEPTHS:
        spec = {"preset": f"d{depth}", "family": "speedrun"}
        yield _model_row(f"d{depth}", spec, DIAL_VOCABULARY, 2048, "dial, as nanochat")
    for name, preset in MODEL_PRESETS.items():
        notes = f"{preset.source}; {preset.notes}" if preset.notes else preset.source
        yield _model_row(name, name, preset.vocab_size, preset.context, notes)


def _model_row(name: str, spec: str | dict[str, Any], vocabulary: int, context: int, notes: str) -> str:
    config = model_config(spec, vocabulary, context)
    count = parameters(config)
    shape = f"{config.depth} x {config.width}"
    if config.num_experts is not None:
        shape += f", {config.num_experts} experts"
    return f"| `{name}` | {config.family} | {shape} | {count.total:,} | {count.active:,} | {vocabulary:,} | {notes} |"


# Commands


def _commands() -> str:
    parts = ["# Commands", "", "What `--help` prints, written here by `docs/generate.py`."]
    for words in ((), *_command_names()):
        shown = CliRunner(env={"COLUMNS": "96", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
            app, [*words, "--help"], prog_name="gradus", color=False
        )
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts += ["", f"## gradus {' '.join(words)}".rstrip(), "", "```text", text, "```"]
    return "\n".join(parts) + "\n"


def _command_names(group: Any = None, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = []
    shown: Any = group or get_command(app)
    for name in shown.list_commands(typer.Context(shown)):
        command = shown.commands[name]
        names.append((*before, name))
        names += _command_names(command, (*before, name)) if hasattr(command, "commands") else []
    return names


# Settings


def _head() -> Iterator[str]:
    yield from _table(RoadmapHead)
    yield from _section("#### MachineSettings", MachineSettings)
    yield from _section("#### PushSettings", PushSettings)
    yield from _section("#### TrackSettings", TrackSettings)


def _stages() -> Iterator[str]:
    nested: dict[str, type[Settings]] = {}
    for kind in KINDS:
        module = stage_module(kind)
        yield from ("", f"### {kind}", "", _stage_sentence(str(module.__doc__)), "")
        for given in module.INPUTS:
            need = "required" if given.required else "optional"
            many = "a list of names" if given.many else "the name"
            yield f"- `{given.key}`: {need}, {many} of an earlier stage that makes: {', '.join(given.kinds)}"
        yield ""
        yield from _table(module.Settings)
        nested |= {table.__name__: table for table in _tables_in(module.Settings)}
    nested["Gate"] = Gate
    for name, table in _closed(nested).items():
        yield from _section(f"#### {name}", table)


def _section(heading: str, cls: type[Settings]) -> Iterator[str]:
    yield from ("", heading, "")
    yield from _table(cls)


def _stage_sentence(doc: str) -> str:
    first = doc.strip().split("\n\n")[0]
    sentence = " ".join(re.sub(r"^Stage `\w+`: ", "", first).split())
    return sentence[0].upper() + sentence[1:]


def _table(cls: type[Settings]) -> Iterator[str]:
    """What the class's docstring says in general, then its keys with what the docstring says of each."""
    general, meanings = _meanings(cls)
    if general:
        yield from (general, "")
    if not cls.model_fields:
        return
    yield from ("| key | value | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in cls.model_fields.items():
        meaning = meanings.get(name, "").replace("|", "\\|")
        yield f"| `{field.alias or name}` | {_type_text(field.annotation)} | {_default(field)} | {meaning} |"


def _meanings(cls: type[Settings]) -> tuple[str, dict[str, str]]:
    """("general words", {key: meaning}) from docstrings of the form "general. key: meaning. key, key: meaning."."""
    general, meanings = "", {}
    names = "|".join(map(re.escape, cls.model_fields))
    key = re.compile(rf"(?:^|(?<=[.;\n] )|(?<=\n))((?:{names})(?:(?:, | and )(?:{names}))*): ")
    for base in reversed(cls.__mro__):
        if not issubclass(base, Settings) or base.__module__ == Settings.__module__ or "__doc__" not in vars(base):
            continue
        doc = re.sub(r"\n(?!\n)", " ", inspect.cleandoc(base.__doc__ or "").replace("\n\n", "\n")).strip()
        parts = key.split(doc)
        if cls is base:
            general = parts[0].strip()
        for keys, meaning in zip(parts[1::2], parts[2::2], strict=True):
            for name in re.split(r", | and ", keys):
                meanings[name] = " ".join(meaning.split()).rstrip(".;")
    return general, meanings


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Settings):
        changed = value.model_dump(exclude_defaults=True)
        return f"`{_toml(changed)}`" if changed else "its own"
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str | Quantity) else f"{value:_}" if isinstance(value, int) else str(value)


def _type_text(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is Literal:
        return " or ".join(f'`"{choice}"`' for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(a) for a in arguments if a is not type(None))
    if origin in (tuple, list):
        return f"list of {_type_text(arguments[0])}"
    if origin is dict:
        return f"table of {_type_text(arguments[1])} by name"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return f"table [{annotation.__name__}](#{annotation.__name__.lower()})"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
    return plain.get(
        annotation, "quantity" if annotation is Quantity else str(getattr(annotation, "__name__", annotation))
    )


def _tables_in(cls: type[Settings]) -> Iterator[type[Settings]]:
    """Settings classes that a settings class refers to, at any depth of its annotations."""
    waiting: list[Any] = [field.annotation for field in cls.model_fields.values()]
    while waiting:
        at = waiting.pop(0)
        if isinstance(at, type) and issubclass(at, Settings):
            yield at
        waiting += typing.get_args(at)


def _closed(tables: dict[str, type[Settings]]) -> dict[str, type[Settings]]:
    """The tables with the tables inside them."""
    found = dict(tables)
    for table in list(tables.values()):
        found |= {inner.__name__: inner for inner in _tables_in(table)}
    return found


if __name__ == "__main__":
    main()
