"""Stage `export`: a model as other programs load it, proved to be the same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.model.config import ModelConfig
from gradus.model.cost import parameters
from gradus.model.reach import reach
from gradus.release.k_quants import k_quants_note
from gradus.release.settings import ExportSettings
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

VERSION = 1
MAKES = "export"
INPUTS = (
    Input("from", ("pretrain", "midtrain", "extend", "sft", "dpo", "grpo", "import")),
    Input("evaluations", ("eval",), many=True, required=False),
)
_OVERHEAD_SECONDS = 15  # other programs start
_BYTES_PER_PARAMETER = 16  # ours, theirs, and what is written, in fp32
_TOKENS_READ = 20  # times the row: both sides, and the beginnings that they go on with


class Settings(ExportSettings, StageSettings):
    __doc__ = ExportSettings.__doc__

    def smoke(self) -> Self:
        """A few beginnings."""
        return self.model_copy(update={"prompts": min(self.prompts, 6)})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time and memory by the size of the model. Errors: ConfigError for a form that this model has not."""
    model = inputs.one("from").get("model")
    if model is None:
        return Estimate(seconds=_OVERHEAD_SECONDS, notes=("the model is not known yet",))
    config = ModelConfig(**model)
    reached = reach(config)
    if settings.wants_gguf and not reached.has_gguf:
        raise ConfigError(
            f"llama.cpp and Ollama do not run this model ({reached.llamacpp.removeprefix('no: ')}); leave "
            '"gguf" and "ollama" out of formats'
        )
    note = k_quants_note(config, settings.gguf_types) if settings.wants_gguf else None
    count = parameters(config).total
    flops = 2.0 * count * min(settings.check_tokens, config.context * 9 / 8) * _TOKENS_READ
    return Estimate(
        seconds=_OVERHEAD_SECONDS + flops / device.flops_per_second,
        memory_bytes=1e9 + _BYTES_PER_PARAMETER * count,
        facts={"parameters": count},
        notes=() if note is None else (note,),
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Write, have other programs read it, compare; the artifact is the folder itself."""
    from gradus.release.export import export_model
    from gradus.roadmap.provenance import origin_of

    settings: Settings = stage.settings
    parent = input_model(stage, inputs)
    origin = origin_of(inputs["from"], place.home, parent.label, inputs.many("evaluations"))
    checkpoint = stage.references["from"][0].checkpoint
    if checkpoint not in (None, "latest"):
        # Results are those of the finished model.
        origin = replace(origin, results=())
    results = export_model(
        parent.folder, parent.tokenizer, settings, origin, place.work, lambda text: place.progress.line(f"  {text}")
    )
    return place.commit(results)
