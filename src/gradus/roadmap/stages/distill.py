"""Stage `distill`: conversations written by a teacher behind an OpenAI-compatible API, judged, as a pool."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import BudgetError, DataError, did_you_mean
from gradus.core.files import expand_path, write_atomic
from gradus.core.home import ANSWERS
from gradus.core.settings import KeyPath, Problem
from gradus.posttrain.synthesis.config import MOST_PERSONA_CHARACTERS, TASK_NEEDS
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
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings
from gradus.tools.endpoint_settings import EndpointSettings

if TYPE_CHECKING:
    from gradus.data.decontaminate import Decontaminator
    from gradus.posttrain.synthesis.material import Material
    from gradus.posttrain.synthesis.synthesize import SynthesisResult
    from gradus.posttrain.synthesis.tasks import Forecast
    from gradus.tools.endpoint import Endpoint

VERSION = 1
MAKES = "pool"
INPUTS: tuple[Input, ...] = ()

SMOKE_ROWS = 12
_TOKENS_EACH = 320.0  # of a usual row, for plans


class Settings(StageSettings):
    """teacher: the model that writes. tasks: rows of each task; see docs/teacher.md for what they are.

    documents: a folder, file or pattern of texts to ask about and to search in. persona: a file that says in words who
    the assistant is. disjoint_from: probe suites; a question that has one of their probes in it is left out.
    tries: of a row that is rejected. tools_fraction: of the rows without a call, those that declare the tools all the
    same. validation_fraction: share of questions held back by their hash.
    """

    teacher: EndpointSettings
    tasks: dict[str, int] = Field(min_length=1)
    documents: str | None = None
    persona: str | None = None
    disjoint_from: tuple[str, ...] = ()
    tries: int = Field(default=2, ge=1, le=8)
    tools_fraction: float = Field(default=0.5, ge=0.0, le=1.0)
    validation_fraction: float = Field(default=0.05, ge=0.0, le=0.5)

    @field_validator("tasks")
    @classmethod
    def _tasks_are_known(cls, tasks: dict[str, int]) -> dict[str, int]:
        for name, rows in tasks.items():
            if name not in TASK_NEEDS:
                hint = did_you_mean(name, TASK_NEEDS) or f"; tasks are {', '.join(TASK_NEEDS)}"
                raise ValueError(f'unknown task "{name}"{hint}')
            if rows < 1:
                raise ValueError(f"{name}: expected at least 1 row, found {rows}")
        return tasks

    @model_validator(mode="after")
    def _tasks_have_what_they_need(self) -> Self:
        for name in self.tasks:
            need = TASK_NEEDS[name]
            if need is not None and getattr(self, need) is None:
                raise ValueError(f'task "{name}" needs "{need}"')
        return self

    def smoke(self) -> Self:
        """A few rows of each task; they are paid for all the same."""
        few = {name: min(rows, SMOKE_ROWS) for name, rows in self.tasks.items()}
        held_back = max(self.validation_fraction, 0.25) if self.validation_fraction else 0.0
        return self.model_copy(update={"tasks": few, "validation_fraction": held_back})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Documents, persona sheet and probe suites."""
    files: list[tuple[KeyPath, str]] = [(("disjoint_from", i), p) for i, p in enumerate(settings.disjoint_from)]
    if settings.persona is not None:
        files.append((("persona",), settings.persona))
    found, problems = read_sources(files, settings.documents, roadmap_dir)
    if settings.persona is not None and not problems:
        try:
            persona_text(settings, roadmap_dir)
        except DataError as error:
            problems.append(Problem(("persona",), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def persona_text(settings: Settings, roadmap_dir: Path) -> str:
    """The persona sheet, '' where there is none. Errors: DataError for one that is no text, empty, or a book."""
    if settings.persona is None:
        return ""
    path = expand_path(settings.persona, roadmap_dir)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (UnicodeDecodeError, IsADirectoryError):
        raise DataError(f"{path}: expected a text file") from None
    if not 0 < len(text) <= MOST_PERSONA_CHARACTERS:
        raise DataError(f"{path}: expected 1 to {MOST_PERSONA_CHARACTERS:,} characters, found {len(text):,}")
    return text


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Requests, tokens and money by briefs that are drawn as for the real rows; time by an assumed speed."""
    needs = _forecast(stage)
    facts: dict[str, Any] = {
        "conversations": round(needs.rows * (1 - settings.validation_fraction)),
        "tokens_per_conversation": _TOKENS_EACH,
    }
    return Estimate(
        seconds=asking_seconds(settings.teacher, needs.requests, needs.output_tokens),
        memory_bytes=1.5e8 + needs.rows * 6000,
        fees=needs.money or 0.0,
        facts=facts,
        notes=(_note(stage),),
    )


def _forecast(stage: Stage) -> Forecast:
    from gradus.posttrain.synthesis.tasks import forecast

    settings: Settings = stage.settings
    return forecast(settings.tasks, stage.seed, settings.teacher, persona_text(settings, stage.directory))


def _note(stage: Stage) -> str:
    needs = _forecast(stage)
    return asking_note(stage.settings.teacher, needs.requests, needs.input_tokens, needs.output_tokens)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Ask, judge, keep what was rejected with its reason, divide, write; results tell what it took."""
    from gradus.data.pool import write_pool
    from gradus.posttrain.synthesis.disjoint import probe_check
    from gradus.posttrain.synthesis.synthesize import rejected_lines
    from gradus.roadmap.stages.synthesize import pool_results
    from gradus.tools.answers import Answers
    from gradus.tools.endpoint import Endpoint

    settings: Settings = stage.settings
    place.progress.line(f"  {_note(stage)}")
    with Answers(place.home / ANSWERS) as answers:
        endpoint = Endpoint(settings.teacher, answers, stage.fingerprint, folder=place.roadmap_dir)
        try:
            result = asyncio.run(
                _ask(
                    endpoint,
                    _material(settings, place),
                    probe_check(settings.disjoint_from, place.roadmap_dir),
                    stage,
                    place,
                )
            )
        except BudgetError as error:
            raise BudgetError(f"stopped at the budget: {error}") from None
        spent = answers.spent(stage.fingerprint)
    write_atomic(place.work / REJECTED, "".join(rejected_lines(result.rejected)))
    if not result.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.rejected_by_reason.items())
        raise DataError(f"no row of the teacher was taken ({reasons}); see {place.work / REJECTED}")
    place.progress.line(f"  {_taken(result)}")
    counts = write_pool(place.work, result.rows, settings.validation_fraction)
    return place.commit(
        pool_results(counts)
        | asked_results(endpoint, spent)
        | {
            "rejected": result.rejected_by_reason,
            "rows_by_task": result.rows_by_task,
            "attempted_by_task": dict(result.attempted),
            "uniqueness": _uniqueness(result),
        }
    )


def _material(settings: Settings, place: Place) -> Material:
    """What rows are drawn from. Errors: DataError."""
    from gradus.posttrain.synthesis.material import Material
    from gradus.tools.web_search import search_in, search_toolbox

    persona = persona_text(settings, place.roadmap_dir)
    if settings.documents is None:
        return Material(persona=persona)
    index = documents_index(settings.documents, place)
    return Material(search_toolbox(search_in(index)), index, index.num_passages(), persona)


async def _ask(
    endpoint: Endpoint, material: Material, probes: Decontaminator | None, stage: Stage, place: Place
) -> SynthesisResult:
    from gradus.posttrain.synthesis.synthesize import SynthesisSettings, synthesize

    settings: Settings = stage.settings
    # In the order of the table: that of the roadmap is no part of the stage's identity.
    counts = {name: settings.tasks[name] for name in TASK_NEEDS if name in settings.tasks}
    asked = SynthesisSettings(counts, stage.seed, settings.tries, settings.tools_fraction)
    began = time.monotonic()
    with place.progress.task(f"rows by {settings.teacher.model}", sum(settings.tasks.values()), "rows") as task:

        def watch(result: SynthesisResult) -> None:
            task.update(len(result.rows), info=asked_info(endpoint, len(result.rejected), time.monotonic() - began))

        async with endpoint:
            return await synthesize(endpoint, material, asked, probes, watch)


def _taken(result: SynthesisResult) -> str:
    """What was taken and what was not, in words."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.rejected_by_reason.items())
    return f"{len(result.rows):,} rows taken; tries rejected: {reasons or 'none'}"


def _uniqueness(result: SynthesisResult) -> dict[str, Any]:
    from gradus.data.synthetic.uniqueness import uniqueness

    found = uniqueness(result.rows)
    return {"questions": found.questions, "conversations": found.conversations, "by_task": found.by_category}
