"""The models that are served, by name: loaded, checked, replaced by others while requests go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar

from gradus.conversation.constraint import Constraint
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import GradusError, did_you_mean
from gradus.engine.engine import Engine
from gradus.engine.service import EngineService
from gradus.engine.turn import Done, Request
from gradus.serve.answering import answers_of
from gradus.serve.deployments import ModelSource
from gradus.serve.errors import ApiError
from gradus.serve.settings import ServeSettings
from gradus.serve.tally import Tally

Result = TypeVar("Result")
CHECK_SECONDS = 120.0
_CHECK_TOKENS = 8


@dataclass(frozen=True)
class ServedModel:
    """A model that answers. created: when it was loaded, in seconds of the epoch."""

    source: ModelSource
    engine: Engine
    service: EngineService
    constrain: Constraint | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def system_fingerprint(self) -> str:
        """What answers, for a client that wants to see when that changes."""
        return f"fp_{self.source.fingerprint[:12] or self.created}"

    @property
    def thinks(self) -> bool:
        """Whether it has been taught to: what was only pretrained continues text."""
        return self.source.kind not in ("pretrain", "midtrain", "extend")

    def to_json(self, is_default: bool) -> dict[str, Any]:
        """An entry of /v1/models."""
        source = self.source
        return {
            "id": source.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gradus",
            "gradus": {
                "stage": source.stage,
                "kind": source.kind,
                "label": source.label,
                "fingerprint": source.fingerprint,
                "context": self.engine.context,
                "tools": list(self.engine.toolbox.names),
                "thinks": self.thinks,
                "default": is_default,
            },
        }


Load = Callable[[ModelSource], ServedModel]


class ModelTable:
    """Served models in the order they were named; the first is the default."""

    def __init__(self, models: Sequence[ServedModel], load: Load, settings: ServeSettings) -> None:
        """load: brings a model up, in a thread."""
        self._models = {model.source.name: model for model in models}
        self._load = load
        self._settings = settings
        self._swapping = asyncio.Lock()
        self._ending = asyncio.Event()

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model of that name. Errors: ApiError 404 with the nearest name."""
        model = self._models.get(name)
        if model is None:
            hint = did_you_mean(name, self._models) or f"; there are {', '.join(self._models)}"
            raise ApiError(404, f'no model "{name[:80]}" is served{hint}', param="model", code="model_not_found")
        return model

    def to_json(self) -> dict[str, Any]:
        """The body of /v1/models."""
        return {"object": "list", "data": [model.to_json(place == 0) for place, model in enumerate(self)]}

    def entry(self, name: str) -> dict[str, Any]:
        """The body of /v1/models/NAME. Errors: ApiError 404."""
        return self.find(name).to_json(name == next(iter(self._models)))

    async def swap(self, source: ModelSource, say: Callable[[str], None]) -> ModelSource:
        """Serve another model under a name from now on. Returns what was served until now.

        The new one is loaded and has to answer before anything changes; then the old one ends its replies. Errors:
        GradusError, after which the old one serves on.
        """
        async with self._swapping:
            old = self.find(source.name)
            new = await self._unless_ending(self._loaded(source))
            try:
                await self._unless_ending(check_answers(new))
            except BaseException:
                await asyncio.to_thread(new.service.close)
                raise
            self._models[source.name] = new
            live = old.service.stats().num_live
            say(f"{source.label} answers and is served" + (f"; {live} replies of the old one end" if live else ""))
            await asyncio.to_thread(old.service.close, self._settings.drain_seconds)
            return old.source

    async def close(self) -> None:
        """End all replies, those in the making within the time that the settings give them; a swap is given up."""
        self._ending.set()
        seconds = self._settings.drain_seconds
        await asyncio.gather(*(asyncio.to_thread(model.service.close, seconds) for model in self))

    async def _loaded(self, source: ModelSource) -> ServedModel:
        """The model of a source, from a thread that a process which ends does not wait for."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[ServedModel] = loop.create_future()

        def deliver(model: ServedModel | None, error: BaseException | None) -> None:
            if arrived.cancelled():
                if model is not None:
                    model.service.close()
            elif model is not None:
                arrived.set_result(model)
            else:
                arrived.set_exception(error or RuntimeError("nothing was loaded"))

        def load() -> None:
            model, problem = None, None
            try:
                model = self._load(source)
            except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                problem = error
            try:
                loop.call_soon_threadsafe(deliver, model, problem)
            except RuntimeError:  # the loop has ended, and with it who asked
                if model is not None:
                    model.service.close()

        threading.Thread(target=load, name="gradus-load", daemon=True).start()
        return await arrived

    async def _unless_ending(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What a step of a swap gives. Errors: GradusError where the server is to end meanwhile."""
        step, ending = asyncio.ensure_future(work), asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({step, ending}, return_when=asyncio.FIRST_COMPLETED)
            if self._ending.is_set():
                raise GradusError("the server is ending; nothing was deployed")
            return step.result()
        finally:
            step.cancel()
            ending.cancel()


async def check_answers(model: ServedModel) -> None:
    """GradusError where a model does not answer a short question with at least one token in time."""
    request = Request(Conversation((Message("user", "Hello"),)), max_tokens=_CHECK_TOKENS, logprobs=0)
    label = model.source.label
    try:
        async with asyncio.timeout(CHECK_SECONDS), answers_of(model.service, [request], Tally()) as answers:
            while not answers.are_whole:
                heard = await answers.next(CHECK_SECONDS)
                if heard is not None and isinstance(heard[1], Done):
                    told = heard[1].reply.logprobs
                    if not told or not all(isfinite(one.logprob) for one in told):
                        raise GradusError(f"{label}: the model loads, and its probabilities are no numbers")
    except TimeoutError:
        raise GradusError(f"{label}: the model loads, and does not answer within {CHECK_SECONDS:g} s") from None
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise GradusError(f"{label}: the model loads, and fails at a check: {error}") from error
