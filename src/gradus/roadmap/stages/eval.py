"""Stage `eval`: probe suites and the artifact audit on a model of an earlier stage, and bits per byte of a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.files import expand_path, write_atomic
from gradus.core.home import MODEL_FOLDER
from gradus.core.settings import Problem
from gradus.model.config import ModelConfig
from gradus.model.cost import forward_flops_per_token
from gradus.roadmap.decoding import ANSWER_TOKENS, decoding_estimate
from gradus.roadmap.place import Place
from gradus.roadmap.progress import Task
from gradus.roadmap.sources import file_sources
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings
from gradus.roadmap.training import MODEL_KINDS

if TYPE_CHECKING:
    from gradus.engine.engine import Engine

VERSION = 1
MAKES = "eval"
INPUTS = (
    Input("from", MODEL_KINDS),
    Input("tokens", ("tokens",), required=False),
    Input("prompts", ("pool",), required=False),
)
PROBES = "probes"
AUDIT = "audit"
SMOKE_PROBES = 22


class Settings(StageSettings):
    """suites: probe files by the name that measures go by: measure "probes.<name>.total" or "probes.<name>.<category>".

    at_most: probes of each suite, evenly spread; all if None. temperature: 0 takes the likeliest token, above it
    answers are drawn with the stage's seed.
    audit_samples: answers that are looked through for artifacts where a pool of `prompts` is named: measures
    "audit.clean", "audit.any" and by kind. They are drawn at audit_temperature, to its held-back questions if it has
    any.
    """

    suites: dict[str, str] = Field(default_factory=dict)
    max_tokens: int = Field(default=256, ge=1)
    at_most: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    audit_samples: int = Field(default=100, ge=1)
    audit_temperature: float = Field(default=0.7, ge=0.0)

    def smoke(self) -> Self:
        """A few probes of each suite."""
        return self.model_copy(update={"at_most": SMOKE_PROBES, "max_tokens": 64, "audit_samples": SMOKE_PROBES})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """The suites' files, read once to report what is wrong with them before the walk."""
    from gradus.conversation.probes import load_suite
    from gradus.core.errors import ConfigError

    found = file_sources(((("suites", name), path) for name, path in settings.suites.items()), roadmap_dir)
    problems = []
    for name, path in settings.suites.items():
        try:
            load_suite(expand_path(path, roadmap_dir))
        except ConfigError as error:
            problems.append(Problem(("suites", name), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time for the tokens that are sampled, and for a pass over the held-back text where it is asked for."""
    probes = sum(_num_probes(expand_path(path, stage.directory), settings.at_most) for path in settings.suites.values())
    answers = probes + (settings.audit_samples if inputs.one("prompts") else 0)
    tokens = answers * min(ANSWER_TOKENS, settings.max_tokens)
    parent = inputs.one("from").get("model")
    if parent is None:
        return Estimate(tokens=tokens, notes=("the model is not known yet",))
    config = ModelConfig(**parent)
    estimate = decoding_estimate(config, tokens, device, {})
    held_back = float(inputs.one("tokens").get("validation_tokens", 0))
    passed = held_back * forward_flops_per_token(config, config.context / 4)
    return replace(estimate, seconds=(estimate.seconds or 0.0) + passed / device.training("pretrain", config.width)[0])


def _num_probes(path: Path, at_most: int | None) -> int:
    from gradus.conversation.probes import load_suite

    number = len(load_suite(path).probes)
    return number if at_most is None else min(number, at_most)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Ask every probe of every suite; one results file each, measures in the results."""
    from gradus.conversation.probes import load_suite
    from gradus.engine.load import load_engine
    from gradus.engine.sampling import Sampling
    from gradus.eval.probes import ProbeSettings, run_suite

    settings: Settings = stage.settings
    parent = inputs["from"]
    engine = load_engine(parent.path / MODEL_FOLDER)
    sampling = Sampling(temperature=settings.temperature, seed=stage.seed)
    results: dict[str, Any] = {}
    (place.work / PROBES).mkdir(exist_ok=True)
    for name, path in settings.suites.items():
        suite = load_suite(expand_path(path, place.roadmap_dir))
        if settings.at_most is not None:
            step = max(1, len(suite.probes) // settings.at_most)
            suite = replace(suite, probes=suite.probes[::step][: settings.at_most])
        with place.progress.task(f"probes: {name}", len(suite.probes), "probes") as task:
            found = run_suite(
                engine,
                suite,
                ProbeSettings(sampling=sampling, max_tokens=settings.max_tokens),
                model=parent.manifest.name,
                on_progress=_shown(task),
            )
        text = json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n"
        write_atomic(place.work / PROBES / f"{name}.json", text)
        results.setdefault(PROBES, {})[name] = found.measures()
        results.setdefault("seconds", {})[name] = round(found.seconds, 2)
        results["tokens"] = results.get("tokens", 0) + found.num_tokens
    if "tokens" in inputs:
        results |= _bits_per_byte(engine, inputs["tokens"])
    if "prompts" in inputs:
        results[AUDIT] = _audited(engine, inputs["prompts"], stage, place)
    return place.commit(results)


def _audited(engine: Engine, pool: Artifact, stage: Stage, place: Place) -> dict[str, Any]:
    """Measures of the artifact audit; every answer is in audit.json."""
    from gradus.data.pool import read_pool
    from gradus.engine.sampling import Sampling
    from gradus.eval.audit import audit, questions

    settings: Settings = stage.settings
    prompts = questions(read_pool(pool.path, "validation"), settings.audit_samples)
    prompts = prompts or questions(read_pool(pool.path, "train"), settings.audit_samples)
    sampling = Sampling(temperature=settings.audit_temperature, seed=stage.seed)
    with place.progress.task("audit", settings.audit_samples, "answers") as task:
        found = audit(
            engine,
            prompts,
            settings.audit_samples,
            sampling,
            model=stage.name,
            max_tokens=settings.max_tokens,
            on_progress=_shown(task),
        )
    write_atomic(place.work / f"{AUDIT}.json", json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    return found.measures()


def _shown(task: Task) -> Callable[[int, int], None]:
    def show(done: int, _: int) -> None:
        task.update(done)

    return show


def _bits_per_byte(engine: Any, tokens: Artifact) -> dict[str, Any]:
    """Over the whole validation side, in all and by source."""
    from gradus.data.shards import TokenStore
    from gradus.eval.bpb import BitsPerByte, bits_per_byte_by_source

    store = TokenStore(tokens.path, "validation")
    found = bits_per_byte_by_source(engine.model, store, engine.tokenizer.token_bytes)
    whole = sum(found.values(), start=BitsPerByte())
    return {"bpb": whole.measure(), "by_source": {name: {"bpb": part.measure()} for name, part in found.items()}}
