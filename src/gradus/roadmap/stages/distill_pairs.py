"""Stage `distill_pairs`: preference pairs whose chosen side a teacher writes, for prompts of a pool."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import BudgetError, DataError
from gradus.core.files import write_atomic
from gradus.core.home import ANSWERS
from gradus.core.settings import KeyPath
from gradus.core.temperature import DrawingTemperature
from gradus.model.config import ModelConfig
from gradus.roadmap.decoding import ANSWER_TOKENS, decoding_estimate
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.remote_model import (
    REJECTED,
    asked_info,
    asked_results,
    asking_note,
    asking_seconds,
    documents_index,
    read_sources,
)
from gradus.roadmap.session import decoding_device
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings
from gradus.tools.endpoint_settings import EndpointSettings

if TYPE_CHECKING:
    from gradus.conversation.checks import AssistantTurn
    from gradus.engine.turn import Reply
    from gradus.posttrain.prompts import PairPrompt
    from gradus.posttrain.synthesis.contrast import Contrast
    from gradus.tools.endpoint import Endpoint
    from gradus.tools.toolbox import ToolBox

VERSION = 1
MAKES = "pairs"
INPUTS = (
    Input("prompts", ("pool",)),
    Input("from", ("sft", "dpo", "import"), required=False),
)
SMOKE_PROMPTS = 12
_CHECKED_TOGETHER = 1024
# Of a pair, as it usually is, for plans.
_REQUESTS, _INPUT_TOKENS, _OUTPUT_TOKENS = 1.5, 600.0, 300.0
_SPOILED_REQUESTS, _SPOILED_INPUT_TOKENS, _SPOILED_OUTPUT_TOKENS = 1.0, 500.0, 200.0


class Settings(StageSettings):
    """teacher: the model that writes the chosen side; without `from` the rejected side too, made worse on purpose.

    num_prompts: conversations of the pool whose last question is asked. disjoint_from: probe suites; a prompt that has
    one of their probes in it is left out. documents: what web_search looks in, where prompts declare it. tries: of a
    chosen answer that is rejected. temperature, max_tokens: of the model's own answers.
    """

    teacher: EndpointSettings
    num_prompts: int = Field(default=500, ge=1)
    disjoint_from: tuple[str, ...] = ()
    documents: str | None = None
    tries: int = Field(default=2, ge=1, le=8)
    temperature: DrawingTemperature = 0.7
    max_tokens: int = Field(default=512, ge=1)

    def smoke(self) -> Self:
        """A few prompts; they are paid for all the same."""
        return self.model_copy(update={"num_prompts": min(self.num_prompts, SMOKE_PROMPTS), "max_tokens": 64})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Probe suites and documents."""
    files: list[tuple[KeyPath, str]] = [(("disjoint_from", i), p) for i, p in enumerate(settings.disjoint_from)]
    found, problems = read_sources(files, settings.documents, roadmap_dir)
    if problems:
        raise SourceError(problems)
    return found


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Requests, tokens and money of usual pairs, and time for the model's own answers where there is one."""
    requests, input_tokens, output_tokens = _needs(stage)
    facts = {"pairs": settings.num_prompts}
    parent = inputs.one("from").get("model")
    sampling = Estimate(facts=facts)
    if parent is not None:
        sampling = decoding_estimate(ModelConfig(**parent), settings.num_prompts * ANSWER_TOKENS, device, facts)
    return replace(
        sampling,
        seconds=(sampling.seconds or 0.0) + asking_seconds(settings.teacher, requests, output_tokens),
        fees=settings.teacher.price(input_tokens, output_tokens) or 0.0,
        notes=(asking_note(settings.teacher, requests, input_tokens, output_tokens),),
    )


def _needs(stage: Stage) -> tuple[float, float, float]:
    """(requests, tokens in, tokens out) of usual pairs."""
    pairs, spoils = stage.settings.num_prompts, not stage.references.get("from")
    return (
        pairs * (_REQUESTS + spoils * _SPOILED_REQUESTS),
        pairs * (_INPUT_TOKENS + spoils * _SPOILED_INPUT_TOKENS),
        pairs * (_OUTPUT_TOKENS + spoils * _SPOILED_OUTPUT_TOKENS),
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Choose prompts, let the model answer, let the teacher answer better, judge, write."""
    from gradus.data.pool import write_pairs
    from gradus.posttrain.synthesis.synthesize import rejected_lines
    from gradus.tools.answers import Answers
    from gradus.tools.endpoint import Endpoint

    settings: Settings = stage.settings
    place.progress.line(f"  {asking_note(settings.teacher, *_needs(stage))}")
    with Answers(place.home / ANSWERS) as answers:
        # Made first: without its key nothing else need begin.
        endpoint = Endpoint(settings.teacher, answers, stage.fingerprint, folder=place.roadmap_dir)
        toolbox = _toolbox(settings, place)
        prompts, skipped = _prompts(settings, inputs, toolbox, place)
        own = _own_answers(stage, inputs, prompts, toolbox, place) if "from" in inputs else None
        try:
            result = asyncio.run(_ask(endpoint, toolbox, prompts, own, settings, place))
        except BudgetError as error:
            raise BudgetError(f"stopped at the budget: {error}") from None
        spent = answers.spent(stage.fingerprint)
    write_atomic(place.work / REJECTED, "".join(rejected_lines(result.rejected)))
    skipped += result.skipped
    if not result.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
        raise DataError(f"no prompt gave a pair ({reasons}); see {place.work / REJECTED}")
    listed = ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common())
    place.progress.line(f"  {len(result.pairs):,} pairs; prompts without one: {listed or 'none'}")
    counts = write_pairs(place.work, result.pairs, validation_fraction=0.0)
    rejected = Counter(one.reason for one in result.rejected)
    return place.commit(
        {"pairs": len(result.pairs), "rejected_side_fails": {"value": result.failed / len(result.pairs),
                                                             "n": len(result.pairs)}}
        | asked_results(endpoint, spent)
        | {"skipped": dict(skipped.most_common()), "rejected": dict(rejected.most_common()), "counts": counts}
    )  # fmt: skip


def _toolbox(settings: Settings, place: Place) -> ToolBox:
    from gradus.tools.toolbox import ToolBox
    from gradus.tools.web_search import search_in, search_toolbox

    return (
        ToolBox()
        if settings.documents is None
        else search_toolbox(search_in(documents_index(settings.documents, place)))
    )


def _prompts(
    settings: Settings, inputs: Inputs, toolbox: ToolBox, place: Place
) -> tuple[list[PairPrompt], Counter[str]]:
    """Prompts evenly spread over the pool's training side, so that every kind of row is asked; why others are not.

    The pool is read twice, since it may be larger than memory.
    """
    from gradus.data.pool import answered_rows
    from gradus.eval.tasks import evenly_spread
    from gradus.posttrain.prompts import prompt_from_conversation
    from gradus.posttrain.synthesis.disjoint import probe_check, probes_in
    from gradus.posttrain.synthesis.synthesize import question_text

    pool, probes = inputs["prompts"].path, probe_check(settings.disjoint_from, place.roadmap_dir)
    skipped: Counter[str] = Counter()
    fitting = array("Q")  # numbers of rows
    rows = enumerate(answered_rows(pool, "train"))
    while batch := list(islice(rows, _CHECKED_TOGETHER)):
        held = probes_in([question_text(row) for _, row in batch], probes)
        for (number, row), probe in zip(batch, held, strict=True):
            called = {call.name for message in row.messages for call in message.tool_calls}
            if probe:
                skipped["in_probe_suite"] += 1
            elif not called <= set(toolbox.names):
                skipped["foreign_tool"] += 1
            else:
                fitting.append(number)
    chosen = {fitting[place] for place in evenly_spread(len(fitting), settings.num_prompts)}
    rows = enumerate(answered_rows(pool, "train"))
    return [prompt_from_conversation(row) for number, row in rows if number in chosen], skipped


def _own_answers(
    stage: Stage, inputs: Inputs, prompts: list[PairPrompt], toolbox: ToolBox, place: Place
) -> list[AssistantTurn]:
    """The current model's turn for each prompt; one that does not fit into its context is none."""
    from gradus.conversation.checks import AssistantTurn
    from gradus.engine.load import load_engine
    from gradus.engine.turn import PromptTooLongError
    from gradus.posttrain.pairs import PairSettings, sample_request

    settings: Settings = stage.settings
    parent = input_model(stage, inputs)
    device = decoding_device(place)
    engine = load_engine(parent.folder, tokenizer_folder=parent.tokenizer, device=device, toolbox=toolbox)
    asked = PairSettings(samples=1, temperature=settings.temperature, seed=stage.seed, max_tokens=settings.max_tokens)
    turns = [AssistantTurn((), "prompt_too_long")] * len(prompts)
    requests = {}
    for number, prompt in enumerate(prompts):
        request = sample_request(prompt, asked, number, 0)
        try:
            engine.check(request)
        except PromptTooLongError:
            continue
        requests[number] = request
    done = 0
    with place.progress.task("sampling answers", len(requests), "answers") as task:

        def count(index: int, reply: Reply) -> None:
            nonlocal done
            done += 1
            task.update(done)

        replies = engine.generate(list(requests.values()), count)
    for number, reply in zip(requests, replies, strict=True):
        turns[number] = reply.turn
    return turns


async def _ask(
    endpoint: Endpoint,
    toolbox: ToolBox,
    prompts: list[PairPrompt],
    own: list[AssistantTurn] | None,
    settings: Settings,
    place: Place,
) -> Contrast:
    from gradus.posttrain.synthesis.contrast import contrast

    began = time.monotonic()
    with place.progress.task(f"pairs by {settings.teacher.model}", len(prompts), "prompts") as task:

        def watch(done: int, rejected: int) -> None:
            task.update(done, info=asked_info(endpoint, rejected, time.monotonic() - began))

        async with endpoint:
            return await contrast(endpoint, toolbox, prompts, own, settings.tries, watch)
