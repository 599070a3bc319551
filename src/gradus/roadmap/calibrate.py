"""`gradus plan --calibrate`: a short run of a roadmap's own stages, whose measured rates go into HOME/devices.toml.

The roadmap is walked in a folder of its own with few documents, few conversations and few steps, but with its models,
batches, filters and processes, so that the rates are those of the work that is planned. What was measured stands in one
block at the end of the file; the rest of the file is the user's and stays as it is.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.core.devices import CPU, DEVICES_FILE, Rate, known_devices
from gradus.core.errors import ConfigError
from gradus.core.files import write_atomic
from gradus.core.home import ARTIFACTS
from gradus.core.machine import bf16_instructions, gpu_names, processor_name
from gradus.core.quantity import format_seconds
from gradus.data.hub_models import commit_of
from gradus.data.sources import SyntheticSource
from gradus.model.config import ModelConfig
from gradus.model.cost import flops_per_token, forward_flops_per_token
from gradus.roadmap.device_limits import UNMEASURED
from gradus.roadmap.plan import Plan, PlannedStage, choose_device, own_device, plan_roadmap
from gradus.roadmap.progress import Progress, QuietProgress
from gradus.roadmap.schema import Roadmap, load_roadmap
from gradus.roadmap.stage import Device
from gradus.roadmap.stages.corpus import judging

_TRAINING_SECONDS = 12.0  # of steps, for each kind of training stage
_MOST_STEPS, _LEAST_STEPS = 12, 3
_CORPUS_BYTES = 12_000_000
_CONVERSATIONS = 6_000
_POOL_ROWS = 3_000
_ANSWERS, _ANSWER_TOKENS = 64, 32
_PRODUCT_SIZE, _PRODUCT_SECONDS = 2048, 0.4

_TRAINS = ("pretrain", "sft")
_DATA_WORK = {
    "corpus": ("corpus", "corpus/synthetic"),
    "tokenizer": ("tokenizer", "tokenizer/pools"),
    "tokenize": ("tokenize",),
    "synthesize": ("synthesize",),
    "pool": ("pool",),
}
_BEGIN = "# Measured by `gradus plan --calibrate`"
_END = "# End of what was measured."
_BLOCK = re.compile(rf"\n*{re.escape(_BEGIN)}.*?{re.escape(_END)}\n", re.S)


def calibrate(roadmap: Roadmap, home: Path, progress: Progress) -> dict[str, Rate]:
    """Measure, write, and return the rates by kind of work. Errors: ConfigError where the device is in no table."""
    from gradus.roadmap.run import walk

    if roadmap.machine.device in UNMEASURED:
        raise ConfigError(
            f'[machine] device = "{roadmap.machine.device}" is in no table of devices, and its rates would be taken '
            "for those of the processor; calibrate with machine.device=cpu"
        )
    name = own_device(roadmap.machine, home)
    if name == CPU and roadmap.machine.device != "cpu" and gpu_names():
        raise ConfigError(f'"{gpu_names()[0]}" is in no table of devices; add it to {home / DEVICES_FILE} first')
    device = choose_device(name, roadmap.machine, home)
    small = _small(roadmap, plan_roadmap(roadmap, device, home / ARTIFACTS))
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".calibration-", dir=home))
    except OSError as error:
        raise ConfigError(f"{home}: {error.strerror}; choose another folder with --home") from error
    try:
        # Home's own table counts in the predictions that are compared with.
        if (home / DEVICES_FILE).is_file():
            shutil.copy(home / DEVICES_FILE, folder / DEVICES_FILE)
        progress.line("measuring this machine by a short run:")
        planned = plan_roadmap(small, device, folder / ARTIFACTS)
        for item in planned.stages:
            progress.line(f"  {item.stage.name}: about {format_seconds(item.estimate.seconds or 0.0)}")
        made = walk(small, folder, QuietProgress()).artifacts
        rates = dict(_measured(planned, made, device))
        model = next((made[s.name] for s in reversed(small.stages) if s.kind in _TRAINS), None)
        if model is not None:
            rates["decode"] = _decoding_rate(model, device)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peaks = _processor_peaks(device.cores) if name == CPU else {}
    write_rates(home, name, rates, peaks)
    return rates


def _small(roadmap: Roadmap, plan: Plan) -> Roadmap:
    """The same roadmap with little to do: one stage of each kind that is measured, and what these are made from."""
    wanted: dict[str, PlannedStage] = {}
    by_name = {item.stage.name: item for item in plan.stages}
    usable: dict[str, set[str]] = {}
    for item in plan.stages:
        stage = item.stage
        if stage.kind in (*_DATA_WORK, *_TRAINS) and all(parent in usable for parent in stage.parents):
            usable[stage.name] = {stage.name}.union(*(usable[parent] for parent in stage.parents))
    for kind in (*_DATA_WORK, *_TRAINS):
        first = next((name for name in usable if by_name[name].stage.kind == kind), None)
        wanted |= {name: by_name[name] for name in usable.get(first or "", ())}
    if not wanted:
        raise ConfigError(f"{roadmap.path}: it has no stage of a kind that is measured: {', '.join(_DATA_WORK)}, "
                          f"{', '.join(_TRAINS)}")  # fmt: skip
    changes = [f"name={roadmap.name}-calibration"]
    for name, item in wanted.items():
        changes += [f"{name}.gate=[]", *(f"{name}.{change}" for change in _less(item, plan.device))]
    for stage in roadmap.stages:
        take = getattr(stage.settings, "take", None)
        if take is not None and take in stage.sources:
            # The commit that is known, which a home of its own would have to ask for again.
            changes.append(f"{stage.name}.take=hub:{'@'.join(commit_of(take, stage.sources))}")
    loaded = load_roadmap(roadmap.path, [*roadmap.overrides, *changes], roadmap.smoke)
    return replace(loaded, stages=tuple(stage for stage in loaded.stages if stage.name in wanted))


def _less(item: PlannedStage, device: Device) -> Iterator[str]:
    """The settings with which a stage takes some seconds."""
    settings = item.stage.settings
    if item.stage.kind == "corpus":
        for number, source in enumerate(settings.sources):
            if isinstance(source, SyntheticSource):
                yield f"sources.{number}.documents={min(source.documents, _CORPUS_BYTES // 1000)}"
            elif source.limit is None or source.limit.unit != "documents":
                yield f"sources.{number}.limit={_CORPUS_BYTES // len(settings.sources)} bytes"
    elif item.stage.kind == "synthesize":
        yield f"conversations={min(settings.conversations, _CONVERSATIONS)}"
    elif item.stage.kind == "pool":
        for number, source in enumerate(settings.sources):
            yield f"sources.{number}.max_rows={min(source.max_rows or _POOL_ROWS, _POOL_ROWS)}"
    elif item.stage.kind in _TRAINS:
        yield from _few_steps(item, device)


def _few_steps(item: PlannedStage, device: Device) -> Iterator[str]:
    """Steps for some seconds by the plan, with the author's batch where three of it fit into the time."""
    settings, config = item.stage.settings, ModelConfig(**item.estimate.facts["model"])
    row = getattr(settings, "context", None) or getattr(settings, "row_length", None) or config.context
    rate = device.training(item.stage.kind, config.width)[0]
    tokens = _TRAINING_SECONDS * rate / flops_per_token(config, row / 4)
    batch = settings.batch_tokens
    if tokens < _LEAST_STEPS * batch:
        least = row * device.processes
        batch = max(least, int(tokens / _LEAST_STEPS) // least * least)
    steps = int(min(_MOST_STEPS, max(_LEAST_STEPS, tokens // batch)))
    yield f"batch_tokens={batch}"
    yield "log_every=1"
    yield f"save_every={steps}"
    yield f"evaluate_every={steps}"
    if item.stage.kind == "pretrain":
        yield f"horizon={steps} steps"
        yield f"evaluate_tokens={row}"
        yield "samples=[]"
    else:
        yield f"steps_at_most={steps}"


def _measured(plan: Plan, made: dict[str, Artifact], device: Device) -> Iterator[tuple[str, Rate]]:
    """The rate of each kind that was run; of several stages of a kind the last."""
    for item in plan.stages:
        artifact = made[item.stage.name]
        if item.stage.kind in _TRAINS:
            yield item.stage.kind, _training_rate(artifact, device)
            continue
        assert item.estimate.seconds is not None
        assert device.host is not None
        # Both parts of the prediction are wrong by the same factor, for all that one run can tell.
        factor = artifact.manifest.seconds / item.estimate.seconds
        names = set(_DATA_WORK[item.stage.kind])
        if item.stage.kind == "corpus":
            names |= set(judging(item.stage, device))
        for work in sorted(names):
            before = device.host.rates[work]
            yield work, Rate(per_second=before.per_second / factor, overhead_seconds=before.overhead_seconds * factor)


def _training_rate(artifact: Artifact, device: Device) -> Rate:
    results, config = artifact.results, ModelConfig(**artifact.results["model"])
    flops = results["flops"] / results["tokens"] * results["tokens_per_second"]
    besides = artifact.manifest.seconds - results["tokens"] / results["tokens_per_second"]
    if "counts" in results:
        besides -= device.seconds("render", results["counts"]["documents"])
    return Rate(per_second=flops / device.count, overhead_seconds=round(max(0.0, besides), 2), width=config.width)


def _decoding_rate(model: Artifact, device: Device) -> Rate:
    """FLOPs a second while a model that has hardly learned anything answers: it seldom ends early."""
    import time

    from gradus.conversation.messages import Conversation, Message
    from gradus.engine.load import load_engine
    from gradus.engine.turn import Request

    begin = time.perf_counter()
    engine = load_engine(model.path / "model", device="cpu" if device.name == CPU else "cuda")
    besides = time.perf_counter() - begin
    questions = [Conversation((Message("user", f"What is {n}?"),)) for n in range(_ANSWERS)]
    asked = [Request(question, max_tokens=_ANSWER_TOKENS) for question in questions]
    engine.generate(asked[:2])
    begin = time.perf_counter()
    tokens = sum(reply.num_tokens for reply in engine.generate(asked))
    flops = tokens * forward_flops_per_token(engine.model.config, 2 * _ANSWER_TOKENS)
    return Rate(per_second=flops / (time.perf_counter() - begin) / device.count, overhead_seconds=round(besides + 1, 2))


def _processor_peaks(cores: int) -> dict[str, float]:
    """FLOPs a second and core that products of large matrices reach, by format: what MFU is a share of.

    bf16 only where the processor has it: without, one product takes half a minute.
    """
    import time

    import torch

    formats = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if bf16_instructions() else {})
    found = {}
    for name, dtype in formats.items():
        a = torch.ones(_PRODUCT_SIZE, _PRODUCT_SIZE, dtype=dtype)
        best, end = float("inf"), time.perf_counter() + _PRODUCT_SECONDS
        while time.perf_counter() < end:
            begin = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - begin)
        found[name] = 2 * _PRODUCT_SIZE**3 / best / min(cores, torch.get_num_threads())
    return found


def write_rates(home: Path, name: str, rates: dict[str, Rate], peaks: dict[str, float]) -> Path:
    """Put the rates into the block at the end of `home`/devices.toml, beside what it held of other kinds.

    Errors: ConfigError where the rest of the file states the same, and would win or clash.
    """
    path = home / DEVICES_FILE
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    block = _BLOCK.search(text)
    tables: dict[str, Any] = tomllib.loads(block[0]) if block else {}
    table = tables.setdefault(name, {})
    table.setdefault("rates", {}).update({k: r.model_dump(exclude_none=True) for k, r in rates.items()})
    if peaks:
        table["peak_flops"] = peaks
    on = gpu_names()[0] if name != CPU else processor_name()
    lines = [f"{_BEGIN} on {datetime.now(UTC):%Y-%m-%d}: {on}. It is written anew each time; delete it to go back."]
    for device, entry in tables.items():
        lines += _table_lines(device, entry)
    whole = _BLOCK.sub("\n", text).rstrip() + "\n\n" + "\n".join([*lines, _END]) + "\n"
    try:
        tomllib.loads(whole)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: the measured rates cannot stand beside what you wrote there ({error}); take your own "
            f"[{name}.rates] or peak_flops out"
        ) from None
    write_atomic(path, whole.lstrip())
    known_devices(home)
    return path


def _table_lines(device: str, entry: dict[str, Any]) -> Iterator[str]:
    """Tables of full names: they mean the same behind whatever the file says before."""
    if "peak_flops" in entry:
        yield f"[{device}.peak_flops]"
        yield from (f"{form} = {peak:.4g}" for form, peak in entry["peak_flops"].items())
    for kind, rate in entry["rates"].items():
        yield f'[{device}.rates."{kind}"]'
        yield from (f"{key} = {value:.5g}" for key, value in rate.items())
