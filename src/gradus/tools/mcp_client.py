"""Tools of other programs by the Model Context Protocol: servers that are started here, or that have an address.

The package mcp speaks the protocol; here its tools become tools like our own. Each is called SERVER__TOOL, its schema
must be a valid JSON schema, arguments are held to it before they are sent, and what comes back is data of bounded
length. All servers live on one event loop in a thread of its own, each in a task that opens and closes it.
Source: modelcontextprotocol.io, specification 2025-11-25 and later.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from pydantic import Field, field_validator, model_validator

from gradus.conversation.messages import ToolSchema
from gradus.conversation.validate import schema_fault
from gradus.core.errors import ConfigError, MissingPackageError, ToolError
from gradus.core.files import expand_path
from gradus.core.secrets import read_secret, redacted, without_read_secrets
from gradus.core.settings import Settings
from gradus.core.terminal import harmless
from gradus.tools.deadline import Deadline
from gradus.tools.endpoint_settings import check_key_is_safe, checked_address, checked_variable
from gradus.tools.toolbox import TIMEOUT_SECONDS, Tool

if TYPE_CHECKING:
    from mcp import Client

MOST_CHARACTERS = 6000  # of a result
_MOST_DESCRIPTION = 1000
_MOST_TOOLS = 128  # of one server that are used
_MOST_OFFERED = 2000  # that are looked through for those
_MOST_NAME = 64
_LOOK_SECONDS = 0.05  # between two looks whether a call is cancelled
_END_SECONDS = 10.0


class McpServerSettings(Settings):
    """A server that is started (command, args, env, variables, folder) or one that is there (url).

    env: set for the server besides PATH and the like; variables: names of variables of ours that it is given, which is
    the way for its keys. key_variable, key_file: the key that is sent to a url, as a bearer. tools: of the server's,
    all where None. timeout_seconds: of a call; start_seconds: until it answers at first.
    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    variables: tuple[str, ...] = ()
    folder: str | None = None
    url: str | None = None
    key_variable: str | None = None
    key_file: str | None = None
    tools: tuple[str, ...] | None = None
    timeout_seconds: float = Field(default=TIMEOUT_SECONDS, gt=0.0)
    start_seconds: float = Field(default=30.0, gt=0.0)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        return None if url is None else checked_address(url, "https://example.org/mcp")

    @field_validator("key_variable")
    @classmethod
    def _names_no_key(cls, name: str | None) -> str | None:
        return checked_variable(name)

    @model_validator(mode="after")
    def _fits_together(self) -> McpServerSettings:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command, of a server to start, or url, of one that is there")
        if self.url is not None and (self.args or self.env or self.variables or self.folder):
            raise ValueError("args, env, variables and folder are for a server that is started by command")
        if self.command is not None and (self.key_variable or self.key_file):
            raise ValueError("keys of a server that is started go into variables")
        if self.key_variable is not None and self.key_file is not None:
            raise ValueError("give either key_variable or key_file")
        if self.url is not None and (self.key_variable or self.key_file):
            check_key_is_safe(self.url)
        return self


@contextmanager
def mcp_tools(servers: Mapping[str, McpServerSettings], folder: Path) -> Iterator[dict[str, Tool]]:
    """The tools of these servers by name, as long as the context lasts. folder: where relative paths start.

    Errors: MissingPackageError without the package mcp; ConfigError for a server that does not start or answer, lacks
    a tool that was asked for, or has one that cannot be used.
    """
    if not servers:
        yield {}
        return
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise MissingPackageError("mcp", "tools") from None
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mcp", daemon=True)
    thread.start()
    stop = asyncio.Event()
    opened: list[tuple[Future[None], _Server]] = []
    try:
        for name, settings in servers.items():
            server = _Server(name, settings, loop, Future())
            opened.append((asyncio.run_coroutine_threadsafe(_serve(server, folder, stop), loop), server))
        found: dict[str, Tool] = {}
        for task, server in opened:
            for name, tool in server.wait_for_tools(task).items():
                if name in found:
                    raise ConfigError(f'mcp: two tools are called "{name}"; name one of the servers otherwise')
                found[name] = tool
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(_end([server for _, server in opened], stop), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_END_SECONDS)
        if not thread.is_alive():
            loop.close()


@dataclass
class _Server:
    """tools: done when the server is ready, or with what went wrong. client: while it is. task: what serves it."""

    name: str
    settings: McpServerSettings
    loop: asyncio.AbstractEventLoop
    tools: Future[dict[str, Tool]]
    client: Client | None = None
    task: asyncio.Task[None] | None = None

    def wait_for_tools(self, task: Future[None]) -> dict[str, Tool]:
        """Its tools. Errors: ConfigError; what ended the task, where that is a fault of ours."""
        either: list[Future[Any]] = [self.tools, task]
        wait(either, return_when=FIRST_COMPLETED)
        if not self.tools.done():
            task.result()
        return self.tools.result()


async def _serve(server: _Server, folder: Path, stop: asyncio.Event) -> None:
    """Open a server, tell its tools, keep it open until it is no longer needed, and close it: all in one task."""
    told = False
    server.task = asyncio.current_task()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(server.settings.start_seconds):
                    client = await stack.enter_async_context(await _client(server.settings, folder, log, stack))
                    found = await _listed(server, client)
                told, server.client = True, client
                server.tools.set_result(found)
                await stop.wait()
        except ConfigError as error:
            server.tools.set_exception(error)
        except _faults() as error:
            if not told:
                server.tools.set_exception(ConfigError(_not_started(server, error, log)))
        finally:
            server.client = None


async def _end(servers: Sequence[_Server], stop: asyncio.Event) -> None:
    """Close all servers; what goes wrong in closing concerns nobody any more.

    One that is not ready yet is given up at once, one that does not close after a while: a task that is cancelled ends
    the program that it has started, a loop that is merely stopped leaves it behind.
    """
    stop.set()
    open_tasks = {server.task for server in servers if server.task is not None}
    for server in servers:
        if server.task is not None and not server.tools.done():
            server.task.cancel()
    for _ in range(2):
        if open_tasks:
            _, open_tasks = await asyncio.wait(open_tasks, timeout=_END_SECONDS)
        for task in open_tasks:
            task.cancel()


def _faults() -> tuple[type[Exception], ...]:
    """What is raised where the other side is not there, goes away, or sends what it must not."""
    import anyio
    import httpx2
    from mcp import MCPError

    gone = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
    return (MCPError, httpx2.HTTPError, *gone, OSError, TimeoutError, ValueError, RuntimeError, ExceptionGroup)


async def _client(settings: McpServerSettings, folder: Path, log: IO[str], stack: AsyncExitStack) -> Client:
    """A client that is not connected yet."""
    from mcp import Client, StdioServerParameters, stdio_client

    if settings.command is not None:
        given = {name: value for name in settings.variables if (value := read_secret(name, None)) is not None}
        parameters = StdioServerParameters(
            command=settings.command,
            args=list(settings.args),
            env={**settings.env, **given},
            cwd=expand_path(settings.folder, folder) if settings.folder else None,
        )
        return Client(stdio_client(parameters, errlog=cast("TextIO", log)))
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    key = read_secret(settings.key_variable, expand_path(settings.key_file, folder) if settings.key_file else None)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    # A server may be silent for long on its stream of notices; calls have limits of their own.
    timeout = httpx2.Timeout(settings.start_seconds, read=None)
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
    assert settings.url is not None
    return Client(streamable_http_client(settings.url, http_client=http))


def _not_started(server: _Server, error: BaseException, log: IO[str]) -> str:
    """Why a server is of no use, with the end of what it wrote."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        reason = f"no such program: {server.settings.command}"
    elif isinstance(error, TimeoutError):
        reason = f"no answer within {server.settings.start_seconds:g} s"
    else:
        reason = str(error) or type(error).__name__
    log.seek(0)
    lines = [line for line in log.read()[-4000:].splitlines() if line.strip()]
    wrote = f'; it wrote: "{lines[-1].strip()[:300]}"' if lines else ""
    return redacted(harmless(f'mcp server "{server.name}" cannot be used: {reason}{wrote}'))


# Its tools


async def _listed(server: _Server, client: Client) -> dict[str, Tool]:
    """The tools that a server offers, as far as they are wanted. Errors: ConfigError."""
    found: dict[str, Tool] = {}
    cursor: str | None = None
    wanted, offered = server.settings.tools, []
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            offered.append(tool.name)
            if wanted is None or tool.name in wanted:
                schema = _schema(server.name, tool.name, tool.description or "", tool.input_schema)
                if schema.name in found:
                    raise ConfigError(f'mcp server "{server.name}": two tools are called "{schema.name}"')
                found[schema.name] = _tool(server, tool.name, schema)
        cursor = page.next_cursor
        if not cursor or len(found) > _MOST_TOOLS or len(offered) > _MOST_OFFERED:
            break
    missing = [name for name in wanted or () if name not in offered]
    if missing:
        known = harmless(", ".join(offered[:20])) or "none"
        raise ConfigError(f'mcp server "{server.name}" has no tool "{missing[0]}"; it has {known}')
    if len(found) > _MOST_TOOLS:
        raise ConfigError(f'mcp server "{server.name}" has more than {_MOST_TOOLS} tools; name those to use in "tools"')
    return found


def _schema(server: str, name: str, description: str, parameters: dict[str, Any]) -> ToolSchema:
    full = f"{server}__{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
    if len(full) > _MOST_NAME:
        raise ConfigError(f'mcp: the name "{full}" is longer than {_MOST_NAME} characters; name the server shorter')
    schema = ToolSchema(full, harmless(description)[:_MOST_DESCRIPTION], parameters)
    fault = schema_fault(parameters) or ("its type is not object" if parameters.get("type") != "object" else None)
    if fault is not None:
        raise ConfigError(f'mcp server "{server}": the schema of "{harmless(name)}" is none ({harmless(fault)[:200]})')
    return schema


def _tool(server: _Server, name: str, schema: ToolSchema) -> Tool:
    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        from mcp import MCPError

        client = server.client
        if client is None:
            raise ToolError(f"the server {server.name} is gone")
        call = client.call_tool(name, dict(arguments), read_timeout_seconds=deadline.seconds_left())
        future = asyncio.run_coroutine_threadsafe(call, server.loop)
        try:
            result = _awaited(future, deadline)
        except MCPError as error:
            raise ToolError(_bounded(redacted(f"{server.name}: {error}"))) from None
        except _faults() as error:
            raise ToolError(f"the server {server.name} did not answer ({type(error).__name__})") from None
        text = _text(result.content, result.structured_content)
        if result.is_error:
            raise ToolError(_bounded(text) or "the tool failed and said nothing")
        return _bounded(text)

    return Tool(schema, answer, server.settings.timeout_seconds)


def _awaited(future: Future[Any], deadline: Deadline) -> Any:
    """What the call gives; it is cancelled, at the server too, when its time is over or nobody waits."""
    while True:
        try:
            return future.result(min(_LOOK_SECONDS, deadline.seconds_left()))
        except TimeoutError:
            if future.done():
                raise ToolError("no answer in time") from None
        except ToolError:
            future.cancel()
            raise


def _text(content: Any, structured: Any) -> str:
    """What a result says: its texts, and a word for what is no text."""
    parts = []
    for block in content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource" and hasattr(block.resource, "text"):
            parts.append(block.resource.text)
        elif block.type == "resource_link":
            parts.append(f"[resource: {block.uri}]")
        else:
            parts.append(f"[{block.type}]")
    if not parts and structured is not None:
        parts.append(json.dumps(structured, ensure_ascii=False))
    # A server that is given a key of ours may show it, in an error for one.
    return without_read_secrets(harmless("\n".join(parts)))


def _bounded(text: str) -> str:
    """The text, or JSON with its beginning where it is too long: what was cut is never taken for the whole."""
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = len(text) - MOST_CHARACTERS
    return json.dumps({"text": text[:MOST_CHARACTERS], "characters_left_out": left_out}, ensure_ascii=False)
