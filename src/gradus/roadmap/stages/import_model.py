"""Stage `import`: a model that was trained elsewhere, as one that later stages can start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.files import expand_path
from gradus.core.settings import Problem
from gradus.data.hub_models import HUB_NAME, commit_of
from gradus.roadmap.place import Place
from gradus.roadmap.sources import file_sources, pinned_take
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

VERSION = 1
MAKES = "import"
INPUTS: tuple[Input, ...] = ()
TOKENIZER_FOLDER = "tokenizer"

_TAKE = re.compile(rf"folder:(?P<folder>.+)|{HUB_NAME}")
# What a model folder is made of; nothing else is looked at.
_PATTERNS = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "model_??????.pt", "meta_??????.json",  # of nanochat
)  # fmt: skip
_BYTES_PER_SECOND = 2e8


class Settings(StageSettings):
    """take: "folder:PATH" of a model of transformers (Qwen3ForCausalLM, LlamaForCausalLM, Qwen3MoeForCausalLM,
    Dots1ForCausalLM, ApertusForCausalLM or MellumForCausalLM, safetensors and tokenizer.json) or of
    nanochat (model_NNNNNN.pt, meta_NNNNNN.json and a tokenizer.json), or "hub:owner/name@revision"; a branch, or no
    revision, means the commit that it has at the first walk. trained: whether it continues text ("base") or answers
    ("chat"); pretraining goes on from a base model
    only.
    """

    take: str
    trained: Literal["base", "chat"] = "base"

    @field_validator("take")
    @classmethod
    def _take_has_a_known_form(cls, take: str) -> str:
        if _TAKE.fullmatch(take) is None:
            raise ValueError(f'expected "folder:PATH" or "hub:owner/name@revision", found "{take}"')
        return take


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """The files of a folder."""
    folder = _folder(settings.take, roadmap_dir)
    if folder is None:
        return {}
    if not folder.is_dir():
        raise SourceError([Problem(("take",), f"no such folder: {folder}")])
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    if not files:
        raise SourceError([Problem(("take",), f"{folder}: no model there (no config.json, no *.safetensors)")])
    found = file_sources([(("take",), str(path)) for path in files], roadmap_dir)
    # By the author's words: where the folder lies on this machine is no part of what is taken.
    return {f"{settings.take}/{path.name}": found[str(path)] for path in files}


def pinned(settings: Settings, before: Mapping[str, str]) -> dict[str, str]:
    """The commit of a Hub name that is none by itself."""
    return pinned_take(settings.take, before)


def _folder(take: str, roadmap_dir: Path) -> Path | None:
    found = _TAKE.fullmatch(take)
    assert found is not None
    return expand_path(found["folder"], roadmap_dir) if found["folder"] is not None else None


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time and memory by the size of the weights, where their folder is on this machine."""
    folder, facts = _folder(settings.take, stage.directory), {"trained": settings.trained}
    if folder is None:
        return Estimate(facts=facts, notes=("the model is not known before it is downloaded",))
    size = sum(path.stat().st_size for pattern in ("*.safetensors", "model_??????.pt") for path in folder.glob(pattern))
    return Estimate(seconds=5 + size / _BYTES_PER_SECOND, memory_bytes=3.5e8 + 3 * size, facts=facts)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read config, weights and tokenizer; save them as every stage leaves a model, with the tokenizer beside."""
    import torch

    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.model.cost import parameters
    from gradus.release.nanochat_model import nanochat_steps, read_nanochat_model, refuse_pickled_tokenizer
    from gradus.release.transformers_model import read_transformers_model
    from gradus.roadmap.session import Session
    from gradus.roadmap.training import save_final_model
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.tokenizer.specials import SPECIAL_TOKENS
    from gradus.train.parallel import World

    settings: Settings = stage.settings
    folder = _folder(settings.take, place.roadmap_dir) or _downloaded(settings.take, stage, place)
    is_nanochat = bool(nanochat_steps(folder))
    if is_nanochat:
        refuse_pickled_tokenizer(folder)
    before = load_tokenizer(folder)
    tokenizer = before.extended(SPECIAL_TOKENS)
    if is_nanochat:
        model = read_nanochat_model(folder, before.vocab_size, tokenizer.vocab_size)
    else:
        model = read_transformers_model(folder, tokenizer.vocab_size)
    template = HermesFormat(tokenizer).chat_template
    save_final_model(place, Session(World(), torch.device("cpu"), place.machine), model, tokenizer, template)
    beside = place.work / TOKENIZER_FOLDER
    beside.mkdir(exist_ok=True)
    tokenizer.save(beside, chat_template=template)
    results: dict[str, Any] = {
        "model": model.config.model_dump(mode="json"),
        "parameters": parameters(model.config).total,
        "vocab_size": tokenizer.vocab_size,
        "digest": tokenizer.digest,
        "added_tokens": sorted(set(tokenizer.special_tokens) - set(before.special_tokens)),
        "trained": settings.trained,
    }
    return place.commit(results)


def _downloaded(take: str, stage: Stage, place: Place) -> Path:
    """The files of a Hub repository at its commit, through the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from gradus.core.secrets import redacted
    from gradus.data.hub import hub_endpoint, hub_token

    repo, commit = commit_of(take, stage.sources)
    place.progress.line(f"  {repo} at commit {commit}")
    try:
        return Path(
            snapshot_download(
                repo,
                revision=commit,
                allow_patterns=list(_PATTERNS),
                token=hub_token() or False,
                endpoint=hub_endpoint(),
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"{take}: cannot be downloaded: {redacted(str(error).splitlines()[0])}") from error
