"""The options --tools, --tools-file and --index of commands that talk: tools by name, opened while they talk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradus.core.errors import ConfigError

if TYPE_CHECKING:
    from gradus.tools.toolbox import ToolBox

Tools = Annotated[
    str,
    typer.Option("--tools", help='calculator, web_search, fetch, python, mcp:SERVER, with commas; "all", "off".'),
]
ToolsFile = Annotated[
    Path | None, typer.Option("--tools-file", help="Settings of the tools: search service, MCP servers (TOML).")
]
IndexFile = Annotated[
    Path | None, typer.Option("--index", help="What web_search looks in, made by gradus index; without, no search.")
]


@contextmanager
def opened_tools(names: str, index: Path | None, file: Path | None) -> Iterator[ToolBox]:
    """The tools of a command's options.

    names: with commas; "all" and "off" for those that need not be named, whether they are declared or not.
    """
    from gradus.tools.opening import ToolSettings, open_toolbox, read_tool_settings

    settings = ToolSettings() if file is None else read_tool_settings(file)
    if index is not None:
        if settings.index is not None or settings.web_search is not None:
            raise ConfigError(f"--index {index}: {file} says already what web_search looks in; leave one out")
        # As it was typed, and not from where the file of tools lies.
        settings = settings.model_copy(update={"index": str(index.absolute())})
    chosen = None if names in {"all", "off"} else [name.strip() for name in names.split(",") if name.strip()]
    with open_toolbox(chosen, settings, Path() if file is None else file.parent) as toolbox:
        yield toolbox


def declared(names: str) -> str:
    """Which of the opened tools a chat declares: "all" of them, since only those named were opened, or "off"."""
    return "off" if names == "off" else "all"
