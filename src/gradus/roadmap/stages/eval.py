"""Stage `eval`: benchmarks, probe suites and the artifact audit on an earlier model, bits per byte of a corpus."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from gradus.conversation.constraint import Constraint
from gradus.conversation.probes import SUITES, Probe, Suite, load_suite, suite_path
from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest, file_digest
from gradus.core.home import ANSWERS
from gradus.core.settings import Problem
from gradus.core.temperature import Temperature
from gradus.data.benchmarks import benchmarks_folder
from gradus.eval.benchmarks import (
    BenchmarkSettings,
    check_tasks,
    files_of,
    num_answers,
    num_characters,
    num_items,
    tasks_meant,
)
from gradus.eval.core_bundle import bundle_at
from gradus.eval.generative import check_services
from gradus.eval.judging import JudgeModel
from gradus.eval.mt_bench import MT_BENCH
from gradus.eval.tasks import evenly_spread_over
from gradus.model.config import ModelConfig
from gradus.model.cost import forward_flops_per_token
from gradus.roadmap.asking import Asking, ask_documents, ask_for_audit, ask_suite, ask_tasks, measure_bits
from gradus.roadmap.decoding import ANSWER_TOKENS, decoding_estimate
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.remote_model import asking_note, asking_seconds
from gradus.roadmap.session import training_session
from gradus.roadmap.sources import file_sources, suite_digest
from gradus.roadmap.stage import COUNTED, Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings
from gradus.roadmap.training import MODEL_KINDS
from gradus.tools.endpoint_settings import EndpointSettings

if TYPE_CHECKING:
    from gradus.eval.probes import ProbeSettings
    from gradus.eval.results import Result

VERSION = 2
MAKES = "eval"
INPUTS = (
    Input("from", MODEL_KINDS),
    Input("tokens", ("tokens",), required=False),
    Input("prompts", ("pool",), required=False),
    Input("corpus", ("corpus",), required=False),
)
PARALLEL = True
PROBES = "probes"
TASKS = "tasks"
PERPLEXITY = "perplexity"
AUDIT = "audit"
SMOKE_PROBES = 22
CHARACTERS_PER_TOKEN = 4.0  # of English, about
# Of one judgement, for plans.
_JUDGED_TOKENS, _JUDGEMENT_TOKENS = 1500, 250


class Settings(StageSettings):
    """suites: probe files by the name that measures go by: measure "probes.<name>.total" or "probes.<name>.<category>";
    "starter" is the suite that comes with gradus.
    samples: answers to each probe, drawn at `temperature`, which must then be above 0: measure
    "probes.<name>.pass_rate.total"; None asks as often as each probe says.
    tasks: benchmarks by name, measures "tasks.<name>.acc" and others. benchmarks: the folder of evaluation sets, None
    for that in GRADUS_BENCHMARKS; core_bundle: the folder or archive of CORE's bundle, or
    "hub:OWNER/NAME"; None for core_bundle in it. bos: begin
    every text of a task with the end-of-text token, as documents in training; None of the published scores has it.
    With a corpus as input the items of tasks that stand in it are counted, and the score without them is given.
    perplexity_documents: so many held-back documents of each source of that corpus, evenly spread, whose perplexity is
    measured by word, byte and token: measures "perplexity.<source>.word_perplexity" and others.
    task_samples: answers to each item of tasks whose answers are written, drawn at task_temperature (0 takes the
    likeliest token) and of at most task_tokens. task_tools: tools that those answers may call. task_think: whether
    answers of tasks in chat format think first, None as the model likes. task_shots: worked examples before their
    items, each a turn of the conversation, or all in one message where task_multiturn is false.
    judge: the service that rates answers, for mt_bench and for checks of the kind "judge"; it costs what it costs.
    at_most: probes of each suite and items of each task, evenly spread; all if None. subset_seed: which items of tasks
    these are is drawn, one from each stretch of a set. temperature: 0 takes the likeliest
    token, above it answers are drawn with the stage's seed. constrain: what answers are held to (see
    docs/constrained-calls.md); None measures the model alone.
    audit_samples: answers that are looked through for artifacts where a pool of `prompts` is named: measures
    "audit.clean", "audit.any" and by kind. They are drawn at audit_temperature, to its held-back questions if it has
    any.
    """

    suites: dict[str, str] = Field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    benchmarks: str | None = None
    core_bundle: str | None = None
    bos: bool = False
    task_samples: int = Field(default=1, ge=1)
    task_temperature: Temperature = 0.0
    task_tokens: int = Field(default=512, ge=1)
    task_tools: tuple[str, ...] = ()
    task_think: bool | None = None
    task_shots: int = Field(default=0, ge=0)
    task_multiturn: bool = True
    judge: EndpointSettings | None = None
    perplexity_documents: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=256, ge=1)
    at_most: int | None = Field(default=None, ge=1)
    subset_seed: int | None = Field(default=None, ge=0)
    temperature: Temperature = 0.0
    samples: int | None = Field(default=None, ge=1)
    constrain: Constraint | None = None
    audit_samples: int = Field(default=100, ge=1)
    audit_temperature: Temperature = 0.7

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples is not None and self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 are all the same at temperature = 0; set a temperature, such as 0.7")
        return self

    def smoke(self) -> Self:
        """A few probes of each suite and items of each task."""
        return self.model_copy(
            update={"at_most": SMOKE_PROBES, "max_tokens": 64, "task_tokens": 64, "audit_samples": SMOKE_PROBES}
        )


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """The files of suites and tasks; suites are read once to report what is wrong with them before the walk."""
    from gradus.core.errors import MissingPackageError
    from gradus.eval.judging import check_judge

    written = [(("suites", name), path) for name, path in settings.suites.items() if path not in SUITES]
    found = file_sources(written, roadmap_dir)
    problems = []
    if settings.constrain is not None and find_spec("llguidance") is None:
        problems.append(Problem(("constrain",), str(MissingPackageError("llguidance", "engine"))))
    for name, path in settings.suites.items():
        try:
            found[path] = suite_digest(path, roadmap_dir)
            check_judge(load_suite(suite_path(path, roadmap_dir)), settings.judge)
        except ConfigError as error:
            problems.append(Problem(("suites", name), str(error)))
    if settings.tasks:
        try:
            asked = benchmark_settings(settings, roadmap_dir)
        except ConfigError as error:
            raise SourceError([*problems, Problem(("task_samples",), str(error))]) from error
        for name in settings.tasks:
            try:
                check_tasks([name], asked)
                check_services(tasks_meant([name]))
                found[f"task {name}"] = digest([file_digest(path) for path in files_of(name, asked)])
            except (ConfigError, DataError, MissingPackageError) as error:
                problems.append(Problem(("tasks",), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def benchmark_settings(settings: Settings, roadmap_dir: Path, place: Place | None = None) -> BenchmarkSettings:
    """Where the tasks' files lie and how they are asked. Errors: ConfigError for samples that would be the same.

    place: where they are asked, None to plan it.
    """
    folder = benchmarks_folder(settings.benchmarks, roadmap_dir)
    return BenchmarkSettings(
        folder,
        bundle_at(settings.core_bundle, roadmap_dir),
        settings.at_most,
        settings.bos,
        subset_seed=settings.subset_seed,
        samples=settings.task_samples,
        temperature=settings.task_temperature,
        seed=place.seed if place is not None else 0,
        max_tokens=settings.task_tokens,
        tools=settings.task_tools,
        think=settings.task_think,
        shots=settings.task_shots,
        multiturn=settings.task_multiturn,
        judge=_judge(settings, roadmap_dir, place),
    )


def _judge(settings: Settings, roadmap_dir: Path, place: Place | None) -> JudgeModel | None:
    """Who rates answers. The requests in flight are shared by the processes, of which each has at least one."""
    if settings.judge is None:
        return None
    if place is None:
        return JudgeModel(settings.judge, Path(ANSWERS), "", roadmap_dir)
    share = max(1, settings.judge.concurrency // place.world_size)
    judge = settings.judge.model_copy(update={"concurrency": share})
    return JudgeModel(judge, place.home / ANSWERS, place.stage.fingerprint, roadmap_dir)


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time for the tokens that are sampled, and for a pass over tasks and, where it is asked for, held-back text."""
    probes = sum(_num_probes(path, stage.directory, settings) for path in settings.suites.values())
    answers = probes + (settings.audit_samples if inputs.one("prompts") else 0)
    tokens = answers * min(ANSWER_TOKENS, settings.max_tokens)
    asked = benchmark_settings(settings, stage.directory)
    written = sum(num_answers(name, asked) for name in settings.tasks)
    tokens += written * min(ANSWER_TOKENS, settings.task_tokens)
    counted = _counted(settings, asked, stage, audited=bool(inputs.one("prompts")))
    parent = inputs.one("from").get("model")
    if parent is None:
        unknown = Estimate(tokens=tokens, facts={COUNTED: counted}, notes=("the model is not known yet",))
        return _with_judge(unknown, settings, asked, stage)
    config = ModelConfig(**parent)
    estimate = _with_judge(decoding_estimate(config, tokens, device, {COUNTED: counted}), settings, asked, stage)
    read = float(inputs.one("tokens").get("validation_tokens", 0)) + _task_tokens(settings, stage)
    passed = read * forward_flops_per_token(config, config.context / 4)
    return replace(estimate, seconds=(estimate.seconds or 0.0) + passed / device.training("pretrain", config.width)[0])


def _counted(settings: Settings, asked: BenchmarkSettings, stage: Stage, audited: bool) -> dict[str, int]:
    """How many items each measure will count, where that is known before."""
    found = {}
    for name, path in settings.suites.items():
        probes = _asked_probes(load_suite(suite_path(path, stage.directory)), settings.at_most).probes
        found[f"{PROBES}.{name}.total"] = len(probes)
        found |= {f"{PROBES}.{name}.{c}": n for c, n in Counter(probe.category for probe in probes).items()}
    for name in settings.tasks:
        found |= {f"{TASKS}.{task}": n for task, n in num_items(name, asked).items()}
    return found | ({AUDIT: settings.audit_samples} if audited else {})


def _asked_probes(suite: Suite, at_most: int | None) -> Suite:
    """A suite with so many of its probes, of each category its share."""
    chosen = evenly_spread_over([probe.category for probe in suite.probes], at_most)
    return replace(suite, probes=tuple(suite.probes[number] for number in chosen))


def _with_judge(estimate: Estimate, settings: Settings, asked: BenchmarkSettings, stage: Stage) -> Estimate:
    """The time and money of judgements on top of what answers take."""
    if settings.judge is None:
        return estimate
    requests = num_answers(MT_BENCH, asked) if MT_BENCH in settings.tasks else 0
    for path in settings.suites.values():
        suite = _asked_probes(load_suite(suite_path(path, stage.directory)), settings.at_most)
        requests += sum(_num_samples(probe, settings) * len(probe.judgements) for probe in suite.probes)
    shown, said = requests * _JUDGED_TOKENS, requests * _JUDGEMENT_TOKENS
    return replace(
        estimate,
        seconds=(estimate.seconds or 0.0) + asking_seconds(settings.judge, requests, said),
        fees=(estimate.fees or 0.0) + (settings.judge.price(shown, said) or 0.0),
        notes=(*estimate.notes, asking_note(settings.judge, requests, shown, said)),
    )


def _num_probes(text: str, directory: Path, settings: Settings) -> int:
    """Answers that a suite asks for."""
    probes = _asked_probes(load_suite(suite_path(text, directory)), settings.at_most).probes
    return sum(_num_samples(probe, settings) for probe in probes)


def _num_samples(probe: Probe, settings: Settings) -> int:
    """Answers to a probe, as `run_suite` has them."""
    return settings.samples or probe.samples if settings.temperature else 1


def _task_tokens(settings: Settings, stage: Stage) -> float:
    """About how many tokens the tasks have a model read."""
    asked = benchmark_settings(settings, stage.directory)
    return sum(num_characters(name, asked) for name in settings.tasks) / CHARACTERS_PER_TOKEN


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Ask every item of every task and every probe of every suite; one results file each, measures in the results.

    Several processes share all of it, each item asked by one of them; the first writes what came of it.
    """
    settings: Settings = stage.settings
    if settings.perplexity_documents is not None and "corpus" not in inputs:
        raise ConfigError('perplexity_documents: no corpus is named; set corpus = "STAGE" to take documents from')
    asked = benchmark_settings(settings, place.roadmap_dir, place)
    if "corpus" in inputs and settings.tasks:
        from gradus.eval.contamination import check_contamination

        check_contamination(settings.tasks, asked)
    results: dict[str, Any] = {}
    with training_session(place) as session:
        asking = Asking.load(input_model(stage, inputs), inputs["from"], place, session)
        tasks = ask_tasks(asking, settings.tasks, asked)
        if settings.perplexity_documents is not None:
            results[PERPLEXITY] = ask_documents(asking, inputs["corpus"], settings.perplexity_documents)
        suites = {}
        for name, path in settings.suites.items():
            suite = _asked_probes(load_suite(suite_path(path, place.roadmap_dir)), settings.at_most)
            suites[name] = ask_suite(asking, name, suite, _probe_settings(settings, place))
        bits = measure_bits(asking, inputs["tokens"]) if "tokens" in inputs else {}
        audited = None
        if "prompts" in inputs:
            audited = ask_for_audit(
                asking, inputs["prompts"], settings.audit_samples, settings.audit_temperature, settings.max_tokens
            )
    if place.rank == 0:
        for name, found in suites.items():
            results.setdefault(PROBES, {})[name] = found.measures()
            results.setdefault("seconds", {})[name] = round(found.seconds, 2)
            results["tokens"] = results.get("tokens", 0) + found.num_tokens
            _write(place.work / PROBES / f"{name}.json", found.to_json())
        results |= bits
        if audited is not None:
            results[AUDIT] = audited.measures()
            _write(place.work / f"{AUDIT}.json", audited.to_json())
        if tasks:
            results[TASKS] = _task_measures(settings, tasks, inputs, place)
        if settings.judge is not None:
            results |= _paid(settings.judge, place)
    return place.commit(results)


def _probe_settings(settings: Settings, place: Place) -> ProbeSettings:
    from gradus.engine.sampling import Sampling
    from gradus.eval.probes import ProbeSettings

    return ProbeSettings(
        settings.samples,
        Sampling(temperature=settings.temperature, seed=place.seed),
        max_tokens=settings.max_tokens,
        constrain=settings.constrain,
        judge=_judge(settings, place.roadmap_dir, place),
    )


def _paid(judge: EndpointSettings, place: Place) -> dict[str, Any]:
    """What the judge was asked and what that cost."""
    from gradus.tools.answers import Answers

    with Answers(place.home / ANSWERS) as answers:
        spent = answers.spent(place.stage.fingerprint)
    return {"fees": spent.money, "judge": {"model": judge.model, "requests": spent.requests}}


def _task_measures(settings: Settings, results: dict[str, Result], inputs: Inputs, place: Place) -> dict[str, Any]:
    """Measures by task; a file of items for each, those that stand in the corpus marked."""
    from gradus.data.corpus import read_corpus
    from gradus.eval.contamination import with_contamination
    from gradus.eval.task_run import gathered

    if "corpus" in inputs:
        texts = (document.text for document in read_corpus(inputs["corpus"].path, "train"))
        results = with_contamination(results, benchmark_settings(settings, place.roadmap_dir), texts)
    for name, found in results.items():
        _write(place.work / TASKS / f"{name}.json", found.to_json())
    return gathered(results)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
