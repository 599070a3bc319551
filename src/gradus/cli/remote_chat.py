"""A remote model behind an OpenAI-compatible API as something to chat with; its calls of our tools run here."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gradus.cli.chatting import ChatModel
from gradus.conversation.checks import AssistantTurn
from gradus.conversation.formats.wire import CallReady
from gradus.conversation.messages import Message
from gradus.core.errors import ConfigError
from gradus.core.settings import load_settings
from gradus.engine.turn import Done, Reply, Request, StreamEvent, ToolResult
from gradus.tools.endpoint import ChatAnswer, ChatRequest
from gradus.tools.endpoint_settings import EndpointSettings
from gradus.tools.endpoint_stream import Piece, stream_chat
from gradus.tools.toolbox import ToolBox


class RemoteEngine:
    """Answers requests as an engine does: pieces as events, tools run between them."""

    def __init__(self, settings: EndpointSettings, toolbox: ToolBox, sends_seed: bool) -> None:
        self.settings = settings
        self.toolbox = toolbox
        self._sends_seed = sends_seed

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request as typed events, `Done` last; close it to stop.

        Errors: EndpointError where there is no answer; ConfigError for what the API knows nothing of.
        """
        settings = self._settings_of(request)
        messages = list(request.conversation.messages)
        said: list[Message] = []
        tools = self.toolbox.schemas(request.tools or ())
        sampling = request.sampling
        temperature = sampling.temperature if "temperature" in sampling.model_fields_set else None
        num_calls = num_tokens = num_prompt = 0
        while True:
            asked = ChatRequest((*messages, *said), tools, temperature=temperature)
            answer = None
            for piece in _pieces(settings, asked):
                if isinstance(piece, ChatAnswer):
                    answer = piece
                else:
                    yield piece
            assert answer is not None
            said.append(answer.message)
            num_tokens += answer.usage.output_tokens
            num_prompt = num_prompt or answer.usage.input_tokens
            calls = answer.message.tool_calls
            num_calls += len(calls)
            for call in calls:
                yield CallReady(call)
            if not calls or num_calls > request.max_calls:
                break
            running = self.toolbox.start(calls, asked.messages)
            try:
                results = running.results()
            finally:
                running.cancel()  # of what goes on where somebody has stopped waiting
            said += results
            for result in results:
                yield ToolResult(result)
        reason = "calls" if calls else {"length": "length"}.get(answer.finish_reason, "stop")
        yield Done(Reply(AssistantTurn(tuple(said), reason), num_tokens, num_prompt))

    def _settings_of(self, request: Request) -> EndpointSettings:
        """The endpoint's settings with what this request asks for."""
        sampling = request.sampling
        unknown = {
            "top_k": sampling.top_k is not None,
            "min_p": sampling.min_p is not None,
            "repetition_penalty": sampling.repetition_penalty != 1.0,
            "think_budget": request.think_budget is not None,
            "constrain": request.constrain is not None,
            "answer_schema": request.answer_schema is not None,
            "callable_tools": request.callable_tools is not None,
            "must_call": request.must_call,
            "single_call": request.single_call,
        }
        if any(unknown.values()):
            named = ", ".join(name for name, is_asked in unknown.items() if is_asked)
            raise ConfigError(f"{named}: not part of the API of remote models; leave it out")
        extra: dict[str, Any] = {}
        if sampling.top_p is not None:
            extra["top_p"] = sampling.top_p
        if self._sends_seed:
            extra["seed"] = sampling.seed
        if request.stop:
            extra["stop"] = list(request.stop)
        if request.think is not None:
            extra["chat_template_kwargs"] = {"enable_thinking": request.think}  # as vLLM, SGLang and llama.cpp take it
        return self.settings.model_copy(update={"max_tokens": request.max_tokens, "extra": extra})


def remote_loader(
    url: str, toolbox: ToolBox, key_variable: str | None, key_file: Path | None, *, sends_seed: bool = False
) -> Callable[[str], ChatModel]:
    """Brings models of a service by their names there. Errors: ConfigError for an address or a key that is none."""

    def load(name: str) -> ChatModel:
        table = {"base_url": url, "model": name, "key_variable": key_variable}
        table["key_file"] = str(key_file.expanduser()) if key_file is not None else None
        settings = load_settings(EndpointSettings, table, "--url")
        return ChatModel(RemoteEngine(settings, toolbox, sends_seed), f"{name} at {settings.base_url}")

    return load


def _pieces(settings: EndpointSettings, request: ChatRequest) -> Iterator[Piece]:
    """What the service says, as it comes; closing ends the connection.

    The connection is read in a thread of its own: Ctrl-C in the midst of its event loop would leave it half closed.
    """
    found: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()

    async def read() -> None:
        async with contextlib.aclosing(stream_chat(settings, request)) as pieces:
            async for piece in pieces:
                found.put(piece)

    loop = asyncio.new_event_loop()
    reading = loop.create_task(read())

    def work() -> None:
        loop.run_until_complete(asyncio.wait([reading]))
        loop.run_until_complete(loop.shutdown_asyncgens())
        found.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := found.get()) is not None:
            yield piece
        reading.result()
    finally:
        loop.call_soon_threadsafe(reading.cancel)
        thread.join()
        if not reading.cancelled():
            reading.exception()  # of a turn that was closed before its end, nobody else asks
        loop.close()
