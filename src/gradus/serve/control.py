"""How `gradus deploy` talks to a running server: a socket in the home that only its owner can open.

HOME/.servers/PORT.sock    one line of JSON asks, lines of JSON answer: {"say": ...} on the way, at last {"done": {...}}
                           or {"error": ...}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gradus.core.errors import ConfigError, GradusError
from gradus.core.home import SOCKETS
from gradus.serve.deployments import Deployment, Deployments, ModelSource
from gradus.serve.models import ModelTable

log = logging.getLogger("gradus.serve")

_LINE_BYTES = 1 << 16
_MOST_ADDRESS_BYTES = 100  # systems take 104 or 108

Resolve = Callable[[str, str], ModelSource]
"""(name, reference) to what that reference means now."""


class Control:
    """The server's side."""

    def __init__(
        self,
        models: ModelTable,
        given: Mapping[str, str],
        deployments: Deployments,
        resolve: Resolve,
        home: Path,
        port: int,
    ) -> None:
        """given: what the server was told to serve under each name."""
        self._models, self._given, self._deployments, self._resolve = models, given, deployments, resolve
        self._path = home / SOCKETS / f"{port}.sock"

    async def start(self) -> None:
        # Who cannot enter the folder cannot connect.
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)  # of a server that was killed: nobody else listens at this port
        with _address(self._path) as at:
            self._server = await asyncio.start_unix_server(self._serve, at, limit=_LINE_BYTES)

    def stop(self) -> None:
        self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(row: dict[str, Any]) -> None:
            writer.write(json.dumps(row).encode() + b"\n")

        try:
            asked = json.loads(await reader.readline())
            tell({"done": await self._answer(asked, lambda text: tell({"say": text}))})
        except GradusError as error:
            tell({"error": str(error)})
        except (ValueError, KeyError, TypeError) as error:
            tell({"error": f"not understood ({error}); is this server of another version?"})
        except Exception as error:
            log.exception("a command failed")
            tell({"error": f"internal error: {type(error).__name__}: {error}"})
        finally:
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

    async def _answer(self, asked: dict[str, str], say: Callable[[str], None]) -> dict[str, Any]:
        if asked["do"] == "models":
            return {"models": [model.source.to_json() for model in self._models]}
        name = asked["name"]
        now = self._models.find(name).source
        if asked["do"] == "rollback":
            known = self._deployments.find(name)
            if known is None or known.before is None or known.now.folder != now.folder:
                raise ConfigError(f'"{name}": there is nothing to go back to; {now.label} is the first that is served')
            source = known.before
        elif asked["do"] == "deploy":
            source = self._resolve(name, asked["reference"])
        else:
            raise ValueError(f"no command {asked['do']!r}")
        if source.folder == now.folder:
            raise ConfigError(f'"{name}" is {now.label} already ({now.folder})')
        say(f"loading {source.label}, while {now.label} serves on")
        before = await self._models.swap(source, say)
        log.info("%s: %s in place of %s", name, source.label, before.label)
        # Before the record: a server that ends now starts with what it was told, and not with what did not answer.
        self._deployments.record(name, Deployment(self._given[name], source, before))
        return {"name": name, "now": source.to_json(), "before": before.to_json()}


# The other side


def running_servers(home: Path) -> dict[int, Path]:
    """The sockets of a home's running servers, by port."""
    found = {}
    for path in sorted((home / SOCKETS).glob("*.sock")):
        if not (path.stem.isascii() and path.stem.isdigit()):
            continue  # of another program
        with contextlib.suppress(OSError):  # a server that was killed leaves its socket behind
            _connected(path).close()
            found[int(path.stem)] = path
    return found


def ask_server(path: Path, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a server answers, line by line; an {"error"} ends it as GradusError."""
    with _connected(path) as connection:
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if "error" in row:
                    raise GradusError(row["error"])
                yield row
                if "done" in row:
                    return
    raise GradusError("the server ended before it had done this; what it serves is as it was")


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _address(path) as at:
            connection.connect(at)
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A socket's path, by way of a link to its folder where it is longer than addresses may be."""
    if len(os.fsencode(path)) <= _MOST_ADDRESS_BYTES:
        yield str(path)
        return
    is_short = len(os.fsencode(tempfile.gettempdir())) <= _MOST_ADDRESS_BYTES // 2
    with tempfile.TemporaryDirectory(dir=None if is_short else "/tmp") as short:  # noqa: S108 (of our own in it)
        link = Path(short) / "home"
        link.symlink_to(path.parent.resolve())
        yield str(link / path.name)
