"""The explicit table of stage kinds: which file makes which kind of work, imported only when used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

KINDS = {
    "corpus": "gradus.roadmap.stages.corpus",
    "tokenizer": "gradus.roadmap.stages.tokenizer",
    "tokenize": "gradus.roadmap.stages.tokenize",
    "synthesize": "gradus.roadmap.stages.synthesize",
    "distill": "gradus.roadmap.stages.distill",
    "pool": "gradus.roadmap.stages.pool",
    "import": "gradus.roadmap.stages.import_model",
    "pretrain": "gradus.roadmap.stages.pretrain",
    "midtrain": "gradus.roadmap.stages.midtrain",
    "experts": "gradus.roadmap.stages.experts",
    "extend": "gradus.roadmap.stages.extend",
    "sft": "gradus.roadmap.stages.sft",
    "pairs": "gradus.roadmap.stages.pairs",
    "preferences": "gradus.roadmap.stages.preferences",
    "distill_pairs": "gradus.roadmap.stages.distill_pairs",
    "dpo": "gradus.roadmap.stages.dpo",
    "grpo": "gradus.roadmap.stages.grpo",
    "eval": "gradus.roadmap.stages.eval",
    "export": "gradus.roadmap.stages.export",
}


def stage_module(kind: str) -> ModuleType:
    """The file of a stage kind; see stage.py for the names in it. KeyError for an unknown kind."""
    return import_module(KINDS[kind])
