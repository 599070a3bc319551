"""Asking the model of an eval stage: benchmarks, documents, probes, the audit, bits per byte.

All processes of the stage ask together, each its share, and each gets all results. What is done is kept in the stage's
scratch folder, where a walk that is started again finds it, with however many processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.conversation.probes import Suite
from gradus.core.artifact import Artifact
from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.eval.benchmarks import BenchmarkSettings
from gradus.eval.tasks import evenly_spread
from gradus.roadmap.models import ModelReference
from gradus.roadmap.place import Place
from gradus.roadmap.progress import Task

if TYPE_CHECKING:
    from gradus.engine.engine import Engine
    from gradus.eval.audit import AuditResult
    from gradus.eval.probes import ProbeSettings
    from gradus.eval.result import SuiteResult
    from gradus.eval.results import Result
    from gradus.roadmap.session import Session
    from gradus.train.parallel import World


@dataclass(frozen=True)
class Asking:
    """The model that is asked, where, and among which processes. identity: of the model, for what is kept of it."""

    engine: Engine
    label: str
    identity: str
    place: Place
    world: World

    @staticmethod
    def load(model: ModelReference, stage: Artifact, place: Place, session: Session) -> Asking:
        """A model of a stage's artifact on this process's device."""
        from gradus.engine.load import load_engine

        engine = load_engine(model.folder, tokenizer_folder=model.tokenizer, device=session.decoding_device)
        return Asking(engine, model.label, f"{stage.fingerprint} {model.label}", place, session.world)

    def journals(self, name: str) -> Path:
        """The folder in which what is done survives an interruption."""
        return self.place.scratch / name


def ask_tasks(asking: Asking, names: Sequence[str], settings: BenchmarkSettings) -> dict[str, Result]:
    """Results by task."""
    if not names:
        return {}
    from gradus.eval.task_run import run_tasks

    with asking.place.progress.task("tasks", None, "items") as task:
        found = run_tasks(
            asking.engine,
            names,
            settings,
            label=asking.label,
            identity=asking.identity,
            journals=asking.journals("tasks"),
            world=asking.world,
            on_progress=lambda name, done, total: task.update(done, total=total, info=name),
        )
        return dict(found)


def ask_documents(asking: Asking, corpus: Artifact, at_most: int) -> dict[str, Any]:
    """Perplexity by source of so many held-back documents of each, evenly spread."""
    from gradus.data.corpus import read_corpus
    from gradus.eval.journal import Journal
    from gradus.eval.perplexity import asked_documents, perplexity_measures
    from gradus.eval.task_run import answers_of, questions_digest

    counts = Counter(document.source for document in read_corpus(corpus.path, "validation"))
    chosen = {source: set(evenly_spread(count, at_most)) for source, count in counts.items()}
    taken: dict[str, list[tuple[str, str, str]]] = {source: [] for source in counts}
    passed: Counter[str] = Counter()
    for document in read_corpus(corpus.path, "validation"):
        if passed[document.source] in chosen[document.source]:
            taken[document.source].append((document.id, document.text, document.text))
        passed[document.source] += 1
    folder = asking.journals("perplexity")
    found = {}
    for number, (source, documents) in enumerate(taken.items()):
        items = asked_documents(documents, asking.engine.tokenizer, asking.engine.model.config.context)
        with asking.place.progress.task(f"perplexity: {source}", len(items), "documents") as task:
            answers = answers_of(
                asking.engine.model,
                items,
                journal=Journal(folder / str(number), digest([asking.identity, questions_digest(items)])),
                world=asking.world,
                on_progress=_shown(task),
            )
        found[source] = perplexity_measures(items, answers)
    return found


def ask_suite(asking: Asking, name: str, suite: Suite, settings: ProbeSettings) -> SuiteResult:
    """A probe suite. name: of its measures."""
    from gradus.eval.probes import run_suite

    with asking.place.progress.task(f"probes: {name}", None, "answers") as task:
        return run_suite(
            asking.engine,
            suite,
            settings,
            model=asking.label,
            identity=asking.identity,
            journals=asking.journals("probes") / name,
            world=asking.world,
            on_progress=_shown(task),
        )


def ask_for_audit(asking: Asking, pool: Artifact, num_samples: int, temperature: float, max_tokens: int) -> AuditResult:
    """The artifact audit, of answers to a pool's held-back questions, if it has any."""
    from gradus.data.pool import read_pool
    from gradus.engine.sampling import Sampling
    from gradus.eval.audit import audit, questions

    place = asking.place
    prompts = questions(partial(read_pool, pool.path, "validation"), num_samples)
    prompts = prompts or questions(partial(read_pool, pool.path, "train"), num_samples)
    with place.progress.task("audit", None, "answers") as task:
        return audit(
            asking.engine,
            prompts,
            num_samples,
            Sampling(temperature=temperature, seed=place.seed),
            model=place.stage.name,
            max_tokens=max_tokens,
            identity=asking.identity,
            journals=asking.journals("audit"),
            world=asking.world,
            on_progress=_shown(task),
        )


def measure_bits(asking: Asking, tokens: Artifact) -> dict[str, Any]:
    """Bits per byte over the whole validation side, in all and by source. Errors: DataError where it is empty."""
    from gradus.data.shards import TokenStore
    from gradus.eval.bpb import bits_by_document
    from gradus.eval.journal import Journal

    engine = asking.engine
    with asking.place.progress.task("bits per byte", None, "batches") as task:
        found = bits_by_document(
            engine.model,
            TokenStore(tokens.path, "validation"),
            engine.tokenizer.token_bytes,
            journal=Journal(asking.journals("bpb"), digest([asking.identity, tokens.fingerprint])),
            world=asking.world,
            on_progress=_shown(task),
        )
    if not found:
        raise DataError("bits per byte: there is no text to measure on; the validation side is empty")
    first, *others = found.values()
    whole = sum(others, start=first)
    return {"bpb": whole.measure(), "by_source": {name: {"bpb": part.measure()} for name, part in found.items()}}


def _shown(task: Task) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        task.update(done, total=total)

    return show
