"""Running the server: models loaded, a socket bound, replies in the making finished when it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn

from gradus.core.errors import ConfigError
from gradus.serve.app import State, build_app
from gradus.serve.connections import BoundedProtocol
from gradus.serve.control import Control
from gradus.serve.deployments import ModelSource
from gradus.serve.keys import Accounts
from gradus.serve.limits import Meters
from gradus.serve.metrics import Metrics
from gradus.serve.models import Load, ModelTable, check_answers
from gradus.serve.settings import ServeSettings

log = logging.getLogger("gradus.serve")

_THREADS = 64
_MOST_CONNECTIONS = 2048
_SAVE_SECONDS = 5.0
_LAST_SECONDS = 10.0  # for what a client still has to be told when its reply is cut off


def bind(host: str, port: int, accounts: Accounts) -> socket.socket:
    """The socket to listen at. Errors: ConfigError, also for an open address without keys."""
    if not accounts.are_needed and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could reach this server, and it has no keys; make one first: "
            "gradus serve keys add NAME"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another program listens there, maybe a server of gradus" if taken else str(error)
        raise ConfigError(f"cannot listen at {host} port {port}: {why}; choose another with --port") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_state(
    sources: Sequence[ModelSource],
    load: Load,
    settings: ServeSettings,
    accounts: Accounts,
    usage: Path | None,
) -> State:
    """Load all models. Errors: GradusError of the first that cannot be served."""
    models = ModelTable([load(source) for source in sources], load, settings)
    return State(settings, models, accounts, Meters(usage), Metrics(models))


def check_models(state: State) -> None:
    """Have every model answer once, and end. Errors: GradusError of the first that does not."""

    async def check() -> None:
        for model in state.models:
            await check_answers(model)
        await state.models.close()

    asyncio.run(check())


def run_server(state: State, control: Control, listening: socket.socket, say: Callable[[str], None]) -> None:
    """Answer until SIGTERM or Ctrl-C; then finish the replies in the making."""
    with _signals_taken():
        Server(state, say, control).run([listening])


class Server(uvicorn.Server):
    """Answers from `run` on until `should_exit`; then replies in the making are finished."""

    def __init__(self, state: State, say: Callable[[str], None], control: Control | None = None) -> None:
        """control: by which others of this machine change what is served."""
        config = uvicorn.Config(
            build_app(state),
            log_config=None,
            # Given, since what else is installed would choose others: only h11 bounds headers.
            http=BoundedProtocol,
            ws="none",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=int(state.settings.drain_seconds + _LAST_SECONDS),
            h11_max_incomplete_event_size=64 * 2**10,
            limit_concurrency=_MOST_CONNECTIONS,
        )
        super().__init__(config)
        self._state, self._say, self._control = state, say, control
        self.loop: asyncio.AbstractEventLoop | None = None
        self._saving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(_THREADS, "gradus-serve"))
        for model in self._state.models:
            await check_answers(model)
        await super().startup(sockets)
        if self._control is not None:
            await self._control.start()
        self._saving = asyncio.create_task(self._save_usage())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._say("ending: replies in the making are finished, new requests are refused")
        if self._control is not None:
            self._control.stop()
        closing = asyncio.create_task(self._state.models.close())
        await super().shutdown(sockets)
        await closing
        self._state.searching.shutdown(wait=False, cancel_futures=True)
        if self._saving is not None:
            self._saving.cancel()
        self._state.meters.save()

    async def _save_usage(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            try:
                self._state.meters.save()
            except OSError as error:
                log.warning("what was used today cannot be kept: %s", error)


@contextlib.contextmanager
def _signals_taken() -> Iterator[None]:
    """uvicorn sends itself the signal that ended it once more afterwards; that one has nothing left to do."""

    def nothing(number: int, frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
