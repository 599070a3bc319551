"""What `[machine] device = "xla"` and "mps" cannot do, refused by name before anything runs. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gradus.core.errors import ConfigError
from gradus.core.settings import KeyPath
from gradus.model.config import ModelConfig, model_config

if TYPE_CHECKING:
    from gradus.roadmap.place import MachineSettings

UNMEASURED = {"mps": "GPU of a Mac", "xla": "TPU"}
"""Devices that no table has, and what they are called: times are a processor's."""

_TRAINED_ELSEWHERE = frozenset({"extend", "experts", "dpo", "grpo"})
_ANY_VOCABULARY = 8192  # whether a model can be trained does not depend on it


def machine_problems(machine: MachineSettings) -> Iterator[tuple[KeyPath, str]]:
    """What of `[machine]` does not go with its device, by key."""
    m = machine
    if m.device == "mps":
        if m.processes > 1:
            yield ("processes",), f'device = "mps" is one GPU and one process; found {m.processes}, leave it out'
        if m.compile is True:
            yield ("compile",), 'device = "mps" compiles nothing; leave it out'
    if m.device != "xla":
        return
    if m.processes > 1:
        yield ("processes",), f'device = "xla" is one process that drives all chips; found {m.processes}, leave it out'
    for key, is_asked in {
        "parallel": m.parallel != "replicate",
        "offload": m.offload,
        "compile": m.compile is True,  # XLA compiles whole steps by itself
        "activation_checkpointing": m.activation_checkpointing != "none",
        "profile": m.profile is not None,
    }.items():
        if is_asked:
            yield (key,), f'device = "xla" has no "{key}" yet; leave it out'
    if m.precision == "fp16":
        yield ("precision",), 'device = "xla" computes in "bf16" or "fp32"; found "fp16"'


def stage_problems(machine: MachineSettings, kind: str, settings: Any) -> Iterator[tuple[KeyPath, str]]:
    """What of a stage does not go with the device, by key."""
    if machine.device == "mps":
        yield from _optimizer_problems("mps", settings, ("muon", "adamw", "adafactor"))
    if machine.device != "xla":
        return
    if kind in _TRAINED_ELSEWHERE:
        yield (
            ("kind",),
            f'[machine] device = "xla" trains stages of the kinds pretrain, midtrain and sft, not "{kind}"; put such '
            'stages into a roadmap of their own with device = "cpu" or "cuda" and the same name, which takes over what '
            "was made here",
        )
        return
    yield from _optimizer_problems("xla", settings, ("muon", "adamw"))
    if getattr(settings, "lora", None) is not None:
        yield ("lora",), '[machine] device = "xla" trains whole weights; leave lora out'
    if kind == "pretrain":
        try:
            config = model_config(settings.model, _ANY_VOCABULARY, settings.context)
        except ConfigError:
            return  # the plan tells what is wrong with it
        if problem := model_problem(config):
            yield ("model",), f'[machine] device = "xla": {problem}'


def _optimizer_problems(device: str, settings: Any, known: Sequence[str]) -> Iterator[tuple[KeyPath, str]]:
    optimizer = getattr(settings, "optimizer", None)
    for key in ("matrix", "rest") if optimizer is not None else ():
        if (found := getattr(optimizer, key)) not in known:
            named = " or ".join(f'"{kind}"' for kind in known if kind != "muon" or key == "matrix")
            yield ("optimizer", key), f'[machine] device = "{device}" has no "{found}"; choose {named}'


def model_problem(config: ModelConfig) -> str:
    """Why a model cannot be trained on XLA, '' where it can: some layers have shapes that every batch changes."""
    if config.num_experts is not None:
        return "experts (num_experts) sort tokens into groups of other sizes in every batch; take a dense model"
    if config.spectral_length is not None:
        return "spectral gates (spectral_length) go by the lengths of a batch's documents; take a model without them"
    return ""
