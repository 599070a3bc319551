"""The server's paths: what each answers, who may ask, and how a reply ends when something goes wrong in the middle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from gradus.core.errors import ConfigError, GradusError
from gradus.core.secrets import redacted
from gradus.engine.service import QueueFullError, ServiceClosedError
from gradus.serve.answering import Answers, ClientGoneError, CutOffError, answers_of, while_connected
from gradus.serve.asked import Asked
from gradus.serve.body import read_json
from gradus.serve.chat import ChatWriter
from gradus.serve.completions import CompletionWriter, read_completion
from gradus.serve.errors import SERVER, ApiError, bad_request, busy, error_response, from_engine, unavailable
from gradus.serve.guard import Guard
from gradus.serve.keys import Account, Accounts
from gradus.serve.limits import Meters
from gradus.serve.metrics import Metrics
from gradus.serve.models import ModelTable, ServedModel
from gradus.serve.responses import ResponseWriter
from gradus.serve.responses_request import read_response
from gradus.serve.searching import MOST_SEARCHES, may_search, read_chat
from gradus.serve.settings import ServeSettings
from gradus.serve.tally import Tally
from gradus.serve.tokenize import tokenize
from gradus.serve.writing import KEEP_ALIVE, Writer

_PAGE = Path(__file__).parent / "page"

log = logging.getLogger("gradus.serve")

_BODY_SECONDS = 60.0  # in which a request has to be there
_STALL_SECONDS = 60.0  # after which a client that takes nothing is given up
_QUEUE_SECONDS = 1.0  # after which a slot may be free
ANYBODY = Account(name="anybody", sha256="0" * 64, sees_all=True)


@dataclass
class State:
    """What the paths share."""

    settings: ServeSettings
    models: ModelTable
    accounts: Accounts
    meters: Meters
    metrics: Metrics
    # Of their own: a search service that does not answer holds up who searches, and nobody else.
    searching: Executor = field(default_factory=lambda: ThreadPoolExecutor(MOST_SEARCHES, "gradus-search"))

    @property
    def needs_key(self) -> bool:
        """Whether who has no key is refused. Errors: ApiError while the accounts cannot be read: then all are."""
        try:
            return self.accounts.are_needed
        except ConfigError as error:
            log.error("%s", error)
            raise unavailable("the accounts of this server cannot be read") from None

    def account_of(self, headers: Mapping[str, str]) -> Account:
        """Whose request it is. Errors: ApiError 401."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if not self.needs_key:
            return ANYBODY
        if scheme.lower() == "bearer" and (account := self.accounts.find(key.strip())) is not None:
            return account
        wrong = "that key is not known here" if key else "no key was sent"
        raise ApiError(401, f"{wrong}; send one as Authorization: Bearer KEY", code="invalid_api_key")


@dataclass(frozen=True)
class Api:
    """One way of asking: how its body is read, and how its answers are written."""

    read: Callable[[Mapping[str, Any], ServedModel, ServeSettings], Asked]
    writer: Callable[[Asked, ServedModel, Tally], Writer]


APIS: dict[str, Api] = {
    "/chat/completions": Api(read_chat, ChatWriter),
    "/completions": Api(read_completion, CompletionWriter),
    "/responses": Api(read_response, ResponseWriter),
}


class Generation:
    """A path whose answers the engine makes."""

    def __init__(self, api: Api, state: State) -> None:
        self._api, self._state = api, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Errors: ApiError while nothing was sent yet."""
        state, tally = self._state, Tally()
        request = Request(scope, receive)
        account = state.account_of(request.headers)
        with state.meters.admitted(account) as meter:
            # In a thread: a large body takes its time to be read and encoded, and others wait for the loop.
            body = await asyncio.to_thread(read_json, await read_body(request, state.settings))
            model = state.models.find(model_name(body))
            gone = False
            try:
                async with self._answers(body, tally, account) as (model, asked, answers):
                    writer = self._api.writer(asked, model, tally)
                    if asked.stream:
                        await while_connected(receive, self._stream(answers, writer, send))
                    else:
                        response = JSONResponse(await while_connected(receive, self._whole(answers, writer)))
                        await response(scope, receive, send)
            except ClientGoneError:
                gone = True
            finally:
                told = (scope["path"], account.name, model.source.name, tally.num_prompt_tokens, tally.num_tokens)
                seconds = time.monotonic() - tally.begun
                log.info("%s %s %s %d+%d tokens %.2f s%s", *told, seconds, " (the client left)" if gone else "")
                meter.charge(tally.num_prompt_tokens + tally.num_tokens)
                state.metrics.answered(account.name, model.source.name, tally)

    @asynccontextmanager
    async def _answers(
        self, body: Mapping[str, Any], tally: Tally, account: Account
    ) -> AsyncIterator[tuple[ServedModel, Asked, Answers]]:
        """The answers to a body in the making. Errors: ApiError."""
        async with AsyncExitStack() as stack:
            while True:
                model = self._state.models.find(model_name(body))
                try:
                    pool = self._state.searching if may_search(body) else None
                    read = partial(self._api.read, body, model, self._state.settings)
                    asked = await asyncio.get_running_loop().run_in_executor(pool, read)
                    tally.num_each = asked.num_each
                    # By its key: who gets a name that was another's finds nothing of theirs.
                    opening = answers_of(model.service, asked.requests, tally, account.sha256)
                    answers = await stack.enter_async_context(opening)
                    break
                except ServiceClosedError as error:
                    # Another may have taken its place since it was found.
                    if self._state.models.find(model_name(body)) is model:
                        raise unavailable(str(error), _QUEUE_SECONDS) from None
                except QueueFullError as error:
                    raise busy(str(error), _QUEUE_SECONDS, "queue_full") from None
                except GradusError as error:
                    raise from_engine(error) from None
            yield model, asked, answers

    async def _whole(self, answers: Answers, writer: Writer) -> dict[str, Any]:
        while not answers.are_whole:
            heard = await self._next(answers)
            if heard is not None:
                for _ in writer.take(*heard):
                    pass
        return writer.whole()

    async def _stream(self, answers: Answers, writer: Writer, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            # A proxy that collects a reply before it hands it on would make a stream none.
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for frame in self._frames(answers, writer):
            try:
                async with asyncio.timeout(_STALL_SECONDS):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            except TimeoutError:
                raise ClientGoneError from None
        await send({"type": "http.response.body", "body": b""})

    async def _frames(self, answers: Answers, writer: Writer) -> AsyncIterator[bytes]:
        for frame in writer.opening():
            yield frame
        try:
            while not answers.are_whole:
                heard = await self._next(answers)
                for frame in (KEEP_ALIVE,) if heard is None else writer.take(*heard):
                    yield frame
        except ApiError as error:
            for frame in writer.failed(error):
                yield frame
            return
        for frame in writer.closing():
            yield frame

    async def _next(self, answers: Answers) -> Any:
        """The next event. Errors: ApiError."""
        try:
            return await answers.next(self._state.settings.keep_alive_seconds)
        except CutOffError as error:
            raise unavailable(str(error), _QUEUE_SECONDS) from None
        except GradusError as error:
            # It was taken, so that it is not the request that is wrong.
            raise ApiError(500, str(error), kind=SERVER) from None
        except Exception as error:
            # A bug of ours or the machine's trouble, met in the engine's thread: told shortly, logged whole.
            log.exception("an answer failed")
            raise ApiError(500, f"the answer failed: {type(error).__name__}", kind=SERVER) from error


def model_name(body: Mapping[str, Any]) -> str:
    """Which model a body asks for. Errors: ApiError."""
    name = body.get("model")
    if not isinstance(name, str):
        raise bad_request('"model": expected the name of a served model; /v1/models lists them', "model")
    return name


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """The body, of JSON by its content type. Errors: ApiError."""
    # Another type could be sent by any web page, without the browser asking us first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the body as Content-Type: application/json")
    most = settings.max_body_bytes
    pieces, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise ApiError(413, f"the body holds more than {most:,} bytes, the most that are taken")
                pieces.append(piece)
    except TimeoutError:
        raise ApiError(408, f"the body was not there after {_BODY_SECONDS:g} s") from None
    return b"".join(pieces)


class _Page(StaticFiles):
    """The chat page's files. Its own policy stands in it; only who may frame it can be said in a header alone."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        response = super().file_response(*given, **more)
        response.headers["Cache-Control"] = "no-cache"  # asked for again each time, and mostly not sent again
        response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def build_app(state: State) -> Starlette:
    """The application over served models."""

    async def health(request: Request) -> Response:
        if broken := [model.source.name for model in state.models if model.service.is_broken]:
            return JSONResponse({"status": "broken", "models": broken}, 503)
        return JSONResponse({"status": "ok", "models": len(list(state.models))})

    async def list_models(request: Request) -> Response:
        state.account_of(request.headers)
        return JSONResponse(state.models.to_json())

    async def one_model(request: Request) -> Response:
        state.account_of(request.headers)
        return JSONResponse(state.models.entry(request.path_params["name"]))

    async def count_tokens(request: Request) -> Response:
        with state.meters.admitted(state.account_of(request.headers)):
            body = await asyncio.to_thread(read_json, await read_body(request, state.settings))
            model = state.models.find(model_name(body))
            try:
                return JSONResponse(await asyncio.to_thread(tokenize, body, model, state.settings))
            except GradusError as error:
                raise from_engine(error) from None

    async def metrics(request: Request) -> Response:
        account = state.account_of(request.headers)
        told = state.metrics.text(None if account.sees_all else account.name)
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def config(request: Request) -> Response:
        facts = {"title": state.settings.title, "needs_key": state.needs_key, "models_url": "/v1"}
        return JSONResponse(facts, headers={"Cache-Control": "no-store"})

    api = [
        Route("/models", list_models),
        Route("/models/{name:path}", one_model),
        *(Route(path, Generation(api, state), methods=["POST"]) for path, api in APIS.items()),
    ]
    routes = [
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/tokenize", count_tokens, methods=["POST"]),
        Route("/config.json", config),
        Mount("/v1", routes=api),
        Mount("/", GZipMiddleware(_Page(directory=_PAGE, html=True))),
    ]
    handlers: dict[Any, Any] = {
        ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _gone, Exception: _bug,
    }  # fmt: skip
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, state=state)])


async def _api_error(request: Request, error: ApiError) -> Response:
    return error_response(error)


async def _http_error(request: Request, error: HTTPException) -> Response:
    words = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not possible here"}
    return error_response(ApiError(error.status_code, words.get(error.status_code, error.detail)))


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def _bug(request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, f"internal error: {redacted(type(error).__name__)}", kind=SERVER))
