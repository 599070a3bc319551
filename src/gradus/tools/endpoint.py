"""The one client of remote models: chat completions of any OpenAI-compatible API, many in flight, paid for once.

Used by synthesis with a teacher. An answer comes from the file of answers where the same request was asked before.
Else it is asked for: attempts that fail by the network, by the server (408, 409, 5xx) or by a body that is none are
repeated with exponential backoff and equal jitter (Brooker 2015); a rate limit (429) makes all requests wait as long as
Retry-After says. A request that the service refuses fails alone; a wrong key, model or address stops everything.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx2

from gradus.conversation.messages import Message, ToolSchema, messages_from_json
from gradus.core.errors import BudgetError, DataError, EndpointError, did_you_mean
from gradus.core.files import expand_path
from gradus.core.fingerprint import canonical_json, digest
from gradus.core.secrets import read_secret, redacted
from gradus.tools.answers import Answers
from gradus.tools.endpoint_replies import (
    Refused,
    Repeat,
    Stop,
    Usage,
    estimated_usage,
    judge_status,
    most_input_tokens,
    read_completion,
    wire_message,
)
from gradus.tools.endpoint_settings import EndpointSettings

MAX_BODY_BYTES = 1 << 24
_FIRST_DELAY_SECONDS = 0.5
_MOST_DELAY_SECONDS = 60.0
_CONNECT_SECONDS = 20.0
# Refusals before anything was answered mean that the requests as such are wrong.
_REFUSALS_AT_START = 5
# Then it is the service that fails, and not a request.
_GIVEN_UP_IN_A_ROW = 3


@dataclass(frozen=True)
class ChatRequest:
    """Messages up to the one to answer, and the tools that may be called.

    draw: another number asks for another answer to the same messages. temperature: in place of the settings'.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    draw: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class ChatAnswer:
    """message: text, thinking and calls. finish_reason: "stop", "length", "tool_calls", ... reused: it cost nothing."""

    message: Message
    finish_reason: str
    usage: Usage
    reused: bool = False


@dataclass
class Traffic:
    """What happened since this process began. faults: attempts that failed, by reason."""

    answered: int = 0
    reused: int = 0
    usage: Usage = field(default_factory=Usage)
    faults: Counter[str] = field(default_factory=Counter)


class RequestRefusedError(EndpointError):
    """The service answers all but this request, or this one failed in each of its attempts."""


class Endpoint:
    """A remote model; an async context manager. payer: in whose name its answers are paid for."""

    def __init__(self, settings: EndpointSettings, answers: Answers, payer: str, *, folder: Path | None = None) -> None:
        """folder: where a relative key_file starts. Errors: ConfigError for a key that is not there."""
        self.settings = settings
        self.traffic = Traffic()
        self.spent = answers.spent(payer).money
        self._answers, self._payer = answers, payer
        self._key = endpoint_key(settings, folder)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._same: dict[str, asyncio.Lock] = {}
        self._paid = asyncio.Condition()
        self._open_payments = 0
        self._open_at = 0.0  # the loop's clock: nothing is sent before
        self._faulty_since: float | None = None
        self._limited_rounds = self._given_up = 0
        self._jitter = random.Random()

    async def __aenter__(self) -> Self:
        self._http = http_client(self.settings, self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """The answer to a request.

        Errors: RequestRefusedError where this request alone has none; BudgetError where it could cost more than is
        left; EndpointError where the service cannot be used.
        """
        body = request_body(self.settings, request)
        key = digest([self.settings.base_url, body, request.draw])
        # Two of the same at once are paid for once.
        try:
            async with self._same.setdefault(key, asyncio.Lock()):
                found = self._answers.find(key)
                if found is not None:
                    self.traffic.reused += 1
                    return answer_of(found, Usage(**found["usage"]), reused=True)
                async with self._slots:
                    found = await self._ask(key, canonical_json(body))
        finally:
            self._same.pop(key, None)
        return answer_of(found, Usage(**found["usage"]))

    # One request: attempts

    async def _ask(self, key: str, content: bytes) -> dict[str, Any]:
        """Attempts until there is an answer, which is kept before it is given."""
        failed = 0
        while True:
            await self._wait_until_open()
            payment = await self._reserve(key, content)
            try:
                reply = await self._attempt(content)
                found = read_completion(reply, self.settings)
            except Repeat as error:
                self._forget(payment, error.is_paid)
                fault = error
            except Refused as error:
                self._forget(payment, is_paid=False)
                self._refuse(error)
            except Stop as error:
                self._forget(payment, error.is_paid)
                raise EndpointError(f"{self.settings.base_url}: {error}{await self._model_hint(error)}") from None
            else:
                self._settle(payment, found, content)
                return found
            finally:
                await self._close_payment()
            failed += not fault.is_rate_limit
            await self._after_fault(fault, failed)

    async def _attempt(self, content: bytes) -> bytes:
        """The body of a good reply. Raises Repeat, Refused or Stop."""
        url = f"{self.settings.base_url}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.settings.timeout_seconds),
                self._http.stream("POST", url, content=content) as response,
            ):
                reply = await bounded_body(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise Repeat("no_connection", is_paid=False, detail=str(error)) from None
        except (TimeoutError, httpx2.TimeoutException):
            raise Repeat("timeout", is_paid=True) from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Repeat("connection_lost", is_paid=True, detail=str(error)) from None
        text = redacted(reply[:2000].decode("utf-8", "replace"))
        judge_status(response.status_code, response.headers, text)
        return reply

    async def _after_fault(self, fault: Repeat, failed: int) -> None:
        """Wait as long as a fault asks for. Raises where the request or the whole service is given up."""
        now = asyncio.get_running_loop().time()
        self.traffic.faults[fault.reason] += 1
        if self._faulty_since is None:
            self._faulty_since = now
        quiet = now - self._faulty_since
        wait = fault.retry_after
        if quiet + (wait or 0.0) > self.settings.patience_seconds:
            asked = f"; it asks to wait {wait:,.0f} s" if wait is not None else ""
            raise EndpointError(
                f"{self.settings.base_url}: no answer for {quiet:,.0f} s (last: {fault.text}){asked}; what was "
                "answered is kept: run the same command again later, or raise patience_seconds"
            )
        if failed >= self.settings.max_attempts:
            self._given_up += 1
            if self._given_up >= _GIVEN_UP_IN_A_ROW:
                raise EndpointError(
                    f"{self.settings.base_url}: no answer to {self._given_up} requests one after the other, each in "
                    f"{failed} attempts (last: {fault.text}); what was answered is kept: run the same command again"
                )
            raise RequestRefusedError(f"no answer in {failed} attempts (last: {fault.text})")
        if not fault.is_rate_limit:
            await asyncio.sleep(wait if wait is not None else self._backoff(failed))
        elif now >= self._open_at or wait is not None:
            # All requests that were on their way are told the same; together they are one round.
            self._limited_rounds += now >= self._open_at
            # "0" tells nothing; all requests at once, again and again, would be no waiting.
            pause = wait or self._backoff(self._limited_rounds)
            self._open_at = max(self._open_at, now + pause)

    def _backoff(self, rounds: int) -> float:
        most = min(_MOST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(rounds - 1, 16))
        return float(most * (0.5 + 0.5 * self._jitter.random()))

    async def _wait_until_open(self) -> None:
        """While a rate limit lasts nothing is sent; afterwards requests do not all come at once."""
        clock = asyncio.get_running_loop().time
        while (left := self._open_at - clock()) > 0:
            await asyncio.sleep(left + self._jitter.random() * min(1.0, left))

    def _refuse(self, error: Refused) -> NoReturn:
        self.traffic.faults["refused"] += 1
        if not self.traffic.answered and self.traffic.faults["refused"] >= _REFUSALS_AT_START:
            raise EndpointError(f"{self.settings.base_url}: refuses every request: {error}")
        raise RequestRefusedError(f"refused by the service: {error}")

    async def _model_hint(self, error: Stop) -> str:
        """The nearest name that the service has, where a wrong one may be the reason."""
        names = await self.models() if error.asks_for_models else []
        return did_you_mean(self.settings.model, names) or (f"; it has {', '.join(names[:8])}" if names else "")

    async def models(self) -> list[str]:
        """Names of the service's models; empty where it does not tell."""
        return await listed_models(self._http, self.settings)

    # Money

    async def _reserve(self, key: str, content: bytes) -> _Payment:
        """Open the payment of a request, as soon as it fits into what may still be spent."""
        most = self.settings.price(most_input_tokens(content), self.settings.max_tokens) or 0.0
        budget = self.settings.budget
        async with self._paid:
            # The file counts what other processes spend too: several may share an evaluation and its judge.
            while (number := self._answers.open_payment(self._payer, key, most, budget)) is None:
                if not self._open_payments:
                    spent = self._answers.spent(self._payer).money
                    raise BudgetError(
                        f"{spent:,.4f} of the budget of {budget:,.4f} are spent, and the next request may cost "
                        f"{most:,.4f}; all answers are kept: raise budget and run the same command again"
                    )
                # Requests on their way are counted at the most that they can cost; most cost less.
                await self._paid.wait()
            self._open_payments += 1
            self.spent += most
            return _Payment(number, most)

    async def _close_payment(self) -> None:
        self._open_payments -= 1
        async with self._paid:
            self._paid.notify_all()

    def _settle(self, payment: _Payment, found: dict[str, Any], content: bytes) -> None:
        usage = Usage(**found["usage"]) if found["usage"] else estimated_usage(content, found)
        found["usage"] = usage.to_json()
        money = self.settings.price(usage.input_tokens, usage.output_tokens, usage.cached_tokens) or 0.0
        self._answers.settle(payment.number, found, (usage.input_tokens, usage.output_tokens), money)
        self.spent += money - payment.most
        self.traffic.answered += 1
        self.traffic.usage += usage
        self._faulty_since, self._limited_rounds, self._given_up = None, 0, 0

    def _forget(self, payment: _Payment, is_paid: bool) -> None:
        """A failed attempt: what may have been charged all the same stays written down at the most it can be."""
        if not is_paid:
            self._answers.cancel(payment.number)
            self.spent -= payment.most


@dataclass(frozen=True, slots=True)
class _Payment:
    """number: in the file of answers. most: money that the request can cost."""

    number: int
    most: float


def endpoint_key(settings: EndpointSettings, folder: Path | None = None) -> str | None:
    """The key of an endpoint, None where it has none. folder: where a relative key_file starts. Errors: ConfigError."""
    file = expand_path(settings.key_file, folder or Path()) if settings.key_file else None
    return read_secret(settings.key_variable, file)


def http_client(settings: EndpointSettings, key: str | None) -> httpx2.AsyncClient:
    """What requests of an endpoint are sent with; an async context manager."""
    headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "gradus"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(settings.timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
        limits=httpx2.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
    )


def request_body(settings: EndpointSettings, request: ChatRequest) -> dict[str, Any]:
    """A request as the API takes it."""
    body: dict[str, Any] = {**settings.extra, "model": settings.model}
    body["messages"] = [wire_message(message) for message in request.messages]
    body[settings.limit_key] = settings.max_tokens
    temperature = settings.temperature if request.temperature is None else request.temperature
    if temperature is not None:
        body["temperature"] = temperature
    if request.tools:
        body["tools"] = [{"type": "function", "function": tool.to_json()} for tool in request.tools]
    return body


async def listed_models(http: httpx2.AsyncClient, settings: EndpointSettings) -> list[str]:
    """Names of the service's models; empty where it does not tell."""
    try:
        async with (
            asyncio.timeout(_CONNECT_SECONDS),
            http.stream("GET", f"{settings.base_url}/models") as response,
        ):
            listed = json.loads(await bounded_body(response))
        return [redacted(str(entry["id"])) for entry in listed["data"]]
    except (httpx2.HTTPError, TimeoutError, Repeat, ValueError, KeyError, TypeError, RecursionError):
        return []


async def bounded_body(response: httpx2.Response) -> bytes:
    """The body. Raises Repeat for one that is too large."""
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise Repeat("body_too_large", is_paid=True)
        pieces.append(piece)
    return b"".join(pieces)


def answer_of(found: dict[str, Any], usage: Usage, *, reused: bool = False) -> ChatAnswer:
    """What `read_completion` gave, as a message. Errors: RequestRefusedError where its calls cannot be read."""
    try:
        (message,) = messages_from_json([found["message"]], "answer")
    except DataError as error:
        raise RequestRefusedError(f"the answer cannot be read ({error})") from None
    return ChatAnswer(message, found["finish_reason"], usage, reused)
