"""Tools by name, opened for as long as they are used: calculator, web_search, fetch, python, and mcp:SERVER.

Only what needs nothing is there without being named: the calculator, and web_search where there is something to search.
What reaches the network, runs code or starts programs is switched on by its name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.files import expand_path
from gradus.core.settings import Settings, load_settings
from gradus.tools.fetch import FETCH, fetch_tool
from gradus.tools.mcp_client import McpServerSettings, mcp_tools
from gradus.tools.python_tool import PYTHON, Runtime, python_tool
from gradus.tools.search_index import SearchIndex
from gradus.tools.search_services import SearchServiceSettings, search_service
from gradus.tools.toolbox import TOOLS, Budget, Tool, ToolBox
from gradus.tools.web_search import WEB_SEARCH, Search, search_in, web_search_tool

MCP = "mcp:"
NAMES = (CALCULATOR.name, WEB_SEARCH.name, FETCH.name, PYTHON.name)


class ToolSettings(Settings):
    """What the tools need, as a file of tools has it.

    index: what web_search looks in, made by gradus index; web_search: the service that it asks instead. python: what
    runs code. mcp: servers by name. max_calls, max_characters: in one conversation, of all tools and their results.
    """

    index: str | None = None
    web_search: SearchServiceSettings | None = None
    python: Runtime = "monty"
    mcp: dict[str, McpServerSettings] = Field(default_factory=dict)
    max_calls: int = Field(default=Budget.calls, ge=1)
    max_characters: int = Field(default=Budget.characters, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> ToolSettings:
        if self.index is not None and self.web_search is not None:
            raise ValueError("web_search looks in an index or asks a service; give one of index and web_search")
        for name in self.mcp:
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or "__" in name:
                raise ValueError(f'mcp: "{name}" is no name of a server; use letters, digits and hyphens')
        return self


def read_tool_settings(file: Path) -> ToolSettings:
    """The settings in a TOML file. Errors: ConfigError."""
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    return load_settings(ToolSettings, table, str(file))


@contextmanager
def open_toolbox(names: Sequence[str] | None, settings: ToolSettings, folder: Path) -> Iterator[ToolBox]:
    """These tools and no others; None for those that need not be named. folder: where relative paths start.

    Errors: ConfigError for a name that is none or lacks its settings; what the tools raise that cannot be opened.
    """
    searches = settings.index is not None or settings.web_search is not None
    if names is None:
        names = (CALCULATOR.name, WEB_SEARCH.name) if searches else (CALCULATOR.name,)
    for name in names:
        _check_name(name, settings)
    tools: dict[str, Tool] = {}
    with ExitStack() as stack:
        for name in names:
            if name == WEB_SEARCH.name:
                tools[name] = web_search_tool(_search(settings, folder))
            elif name == FETCH.name:
                tools[name] = fetch_tool()
            elif name == PYTHON.name:
                tools[name] = stack.enter_context(python_tool(settings.python))
            elif not name.startswith(MCP):
                tools[name] = TOOLS[name]
        servers = {key: settings.mcp[key] for key in (name.removeprefix(MCP) for name in names if name.startswith(MCP))}
        tools |= stack.enter_context(mcp_tools(servers, folder))
        yield ToolBox(tools, Budget(settings.max_calls, settings.max_characters))


def _check_name(name: str, settings: ToolSettings) -> None:
    """Errors: ConfigError."""
    server = name.removeprefix(MCP)
    if server != name:
        if server not in settings.mcp:
            known = ", ".join(settings.mcp) or "none"
            raise ConfigError(
                f'no MCP server "{server}"{did_you_mean(server, settings.mcp)}; the file of tools has {known}: '
                f"write its command or url below [mcp.{server or 'NAME'}] and give the file with --tools-file"
            )
    elif name not in NAMES:
        hint = did_you_mean(name, NAMES) or f"; there are {', '.join(NAMES)} and mcp:SERVER"
        raise ConfigError(f'no tool "{name}"{hint}')
    elif name == WEB_SEARCH.name and settings.index is None and settings.web_search is None:
        raise ConfigError(
            "web_search needs something to search: an index of your documents with --index (see gradus index), or a "
            "service below [web_search] in a file given with --tools-file"
        )


def _search(settings: ToolSettings, folder: Path) -> Search:
    if settings.web_search is not None:
        return search_service(settings.web_search, folder)
    assert settings.index is not None
    return search_in(SearchIndex(expand_path(settings.index, folder)))
