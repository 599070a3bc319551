"""Benchmarks while a model trains: a small drawn subset at its evaluations, in the log, the report and the ledger.

Watching changes no weight and is no part of a stage's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from gradus.core.comparison import named_measures
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import Problem, Settings
from gradus.data.benchmarks import benchmarks_folder
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of, num_characters
from gradus.eval.core_bundle import bundle_at
from gradus.roadmap.place import Place
from gradus.roadmap.stage import SourceError

if TYPE_CHECKING:
    from gradus.conversation.formats.wire import Format
    from gradus.model.transformer import Transformer
    from gradus.roadmap.session import Session

CHARACTERS_PER_TOKEN = 4.0  # of English, about
_SMOKE_ITEMS = 4


class WatchSettings(Settings):
    """tasks: benchmarks by name, as of an eval stage but those with a judge. at_most: items of each, drawn with
    subset_seed, one from each stretch of a set. every: steps between two looks, of which evaluate_every has to be a
    divisor; None looks at every evaluation. The last step is always looked at. benchmarks, core_bundle, bos: as of an
    eval stage. max_tokens: of an answer that is written.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    at_most: int = Field(default=100, ge=1)
    subset_seed: int = Field(default=0, ge=0)
    every: int | None = Field(default=None, ge=1)
    benchmarks: str | None = None
    core_bundle: str | None = None
    bos: bool = False
    max_tokens: int = Field(default=128, ge=1)

    def smoke(self) -> Self:
        """A few items at every evaluation."""
        return self.model_copy(update={"at_most": min(self.at_most, _SMOKE_ITEMS), "every": None, "max_tokens": 16})


@dataclass(frozen=True)
class Watch:
    """What is looked at. every: steps, None for every evaluation; look: measures by their dotted names."""

    every: int | None
    look: Callable[[], Mapping[str, Mapping[str, Any]]]

    def is_due(self, step: int, steps: int) -> bool:
        """At an evaluation after so many of all steps."""
        return self.every is None or step % self.every == 0 or step == steps


def check_watch(settings: WatchSettings | None, evaluate_every: int, roadmap_dir: Path) -> None:
    """Errors: SourceError for unknown tasks, missing files, or steps at which nothing is evaluated."""
    if settings is None:
        return
    problems = []
    if settings.every is not None and settings.every % evaluate_every:
        problems.append(
            Problem(("watch", "every"), f"every = {settings.every} is no multiple of evaluate_every = {evaluate_every}")
        )
    asked = _benchmarks(settings, roadmap_dir)
    for name in settings.tasks:
        try:
            check_tasks([name], asked)
            files_of(name, asked)
        except (ConfigError, DataError) as error:
            problems.append(Problem(("watch", "tasks"), str(error)))
    if problems:
        raise SourceError(problems)


def watched_tokens(settings: WatchSettings | None, evaluate_every: int, roadmap_dir: Path) -> float:
    """About how many tokens are read for each evaluation, for plans."""
    if settings is None:
        return 0.0
    asked = _benchmarks(settings, roadmap_dir)
    share = evaluate_every / (settings.every or evaluate_every)
    return share * sum(num_characters(name, asked) for name in settings.tasks) / CHARACTERS_PER_TOKEN


def watch_of(
    settings: WatchSettings | None, model: Transformer, form: Format, place: Place, session: Session
) -> Watch | None:
    """Looking at a model that trains; all processes look together and share the items."""
    if settings is None:
        return None
    from gradus.engine.engine import Engine
    from gradus.eval.task_run import gathered, run_tasks
    from gradus.tools.toolbox import ToolBox
    from gradus.train.sharding import whole_weights

    asked = _benchmarks(settings, place.roadmap_dir)
    engine = Engine(model, form.tokenizer, form, ToolBox())

    def look() -> Mapping[str, Mapping[str, Any]]:
        with whole_weights(model, session.world) as engine.decoder:
            found = gathered(dict(run_tasks(engine, settings.tasks, asked, world=session.world)))
        # Of CORE and of a group the figures that stand for all of it, where there are such.
        shown = {name: {k: m for k, m in inner.items() if "value" in m} or inner for name, inner in found.items()}
        return {f"tasks.{name}": measure for name, measure in named_measures(shown).items()}

    return Watch(settings.every, look)


def _benchmarks(settings: WatchSettings, roadmap_dir: Path) -> BenchmarkSettings:
    return BenchmarkSettings(
        benchmarks_folder(settings.benchmarks, roadmap_dir),
        bundle_at(settings.core_bundle, roadmap_dir),
        settings.at_most,
        settings.bos,
        max_tokens=settings.max_tokens,
        subset_seed=settings.subset_seed,
    )
