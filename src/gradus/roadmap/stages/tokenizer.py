"""Stage `tokenizer`: a byte-level BPE learned from corpora and pools, or taken from a folder or the Hub."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.files import expand_path
from gradus.core.settings import Problem
from gradus.data.hub_models import HUB_NAME, commit_of
from gradus.roadmap.place import Place
from gradus.roadmap.sources import file_sources, pinned_take
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

if TYPE_CHECKING:
    from gradus.tokenizer.tokenizer import Tokenizer

VERSION = 1
MAKES = "tokenizer"
INPUTS = (
    Input("corpus", ("corpus",), required=False),
    Input("corpora", ("corpus",), many=True, required=False),
    Input("pools", ("pool",), many=True, required=False),
)
FOLDER = "tokenizer"

_TAKE = re.compile(rf"folder:(?P<folder>.+)|{HUB_NAME}")


class Settings(StageSettings):
    """vocab_size: ids in all, bytes and control tokens included. pattern: how text is cut before merging.

    take: "folder:PATH" or "hub:owner/name@revision", an existing tokenizer instead of training one. A branch, or no
    revision, means the commit that it has at the first walk.
    megabytes: text to learn from at most, taken evenly from the start of each input.
    """

    vocab_size: int | None = Field(default=None, ge=256)
    pattern: str = "qwen2"
    take: str | None = None
    megabytes: float = Field(default=200.0, gt=0)

    @field_validator("take")
    @classmethod
    def _take_has_a_known_form(cls, take: str | None) -> str | None:
        if take is not None and _TAKE.fullmatch(take) is None:
            raise ValueError(f'expected "folder:PATH" or "hub:owner/name@revision", found "{take}"')
        return take

    @field_validator("pattern")
    @classmethod
    def _pattern_is_known(cls, pattern: str) -> str:
        from gradus.tokenizer.patterns import split_pattern

        try:
            split_pattern(pattern)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("tokenizer: ")) from None
        return pattern

    def smoke(self) -> Self:
        """A small vocabulary, which little text can fill."""
        return self.model_copy(update={"vocab_size": min(self.vocab_size or 512, 512)})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """The tokenizer.json of a folder."""
    match = _TAKE.fullmatch(settings.take or "")
    if match is None or match["folder"] is None:
        return {}
    folder = expand_path(match["folder"], roadmap_dir)
    if not (folder / "tokenizer.json").is_file():
        raise SourceError([Problem(("take",), f"{folder}: no tokenizer.json there")])
    file = str(folder / "tokenizer.json")
    # By the author's words: where the folder lies on this machine is no part of what is taken.
    return {f"{settings.take}/tokenizer.json": file_sources([(("take",), file)], roadmap_dir)[file]}


def pinned(settings: Settings, before: Mapping[str, str]) -> dict[str, str]:
    """The commit of a Hub name that is none by itself."""
    return pinned_take(settings.take or "", before)


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time grows with the text read; the vocabulary is known where it is trained."""
    corpora = (*inputs.many("corpus"), *inputs.many("corpora"))
    size = min(sum(float(facts.get("bytes", 0)) for facts in corpora), settings.megabytes * 1e6)
    rows = sum(float(facts.get("conversations", 0)) for facts in inputs.many("pools"))
    vocab_size = settings.vocab_size or 32_000
    facts: dict[str, Any] = {"bytes_per_token": _usual_bytes_per_token(vocab_size)}
    if settings.vocab_size is not None:
        facts["vocab_size"] = vocab_size
    seconds = device.overhead_seconds("tokenizer")
    if settings.take is None:
        seconds += device.seconds("tokenizer", size) + device.seconds("tokenizer/pools", rows)
    return Estimate(seconds=seconds, memory_bytes=1.5e8 + 8 * size + 2000 * rows, facts=facts)


def _usual_bytes_per_token(vocab_size: int) -> float:
    """About what English text gives: 1.9 at 1,024 ids, 3.2 at 8,192, 4.2 at 32,768."""
    return max(1.0, 1.0 + 0.45 * (math.log2(vocab_size) - 8))


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Train or load, save in the Hub's layout with the chat template, and measure bytes per token."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.tokenizer.training import train_tokenizer

    settings: Settings = stage.settings
    texts = list(_texts(settings, inputs))
    if settings.take is not None:
        tokenizer = _taken(settings.take, stage, place)
    else:
        if settings.vocab_size is None:
            raise ConfigError('missing key "vocab_size" (or take an existing tokenizer: take = "folder:PATH")')
        if not texts:
            raise ConfigError('a tokenizer learns from text: give corpus = "...", corpora or pools')
        with place.progress.task("merges", settings.vocab_size, "ids") as task:
            tokenizer = train_tokenizer(iter(texts), settings.vocab_size, settings.pattern)
            task.update(tokenizer.vocab_size)
    folder = place.work / FOLDER
    folder.mkdir(exist_ok=True)
    tokenizer.save(folder, chat_template=HermesFormat(tokenizer).chat_template)
    results: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "digest": tokenizer.digest}
    sample = texts[:: max(1, len(texts) // 2000)]
    if sample:
        size = sum(len(text.encode("utf-8")) for text in sample)
        results["bytes_per_token"] = round(size / sum(len(ids) for ids in tokenizer.encode_batch(sample)), 4)
    return place.commit(results)


def _taken(take: str, stage: Stage, place: Place) -> Tokenizer:
    """An existing tokenizer, with the control tokens it lacks appended."""
    from gradus.tokenizer.loading import load_tokenizer, load_tokenizer_from_hub
    from gradus.tokenizer.specials import SPECIAL_TOKENS

    match = _TAKE.fullmatch(take)
    assert match is not None
    if match["folder"] is not None:
        return load_tokenizer(expand_path(match["folder"], place.roadmap_dir), SPECIAL_TOKENS)
    repo, commit = commit_of(take, stage.sources)
    place.progress.line(f"  {repo} at commit {commit}")
    return load_tokenizer_from_hub(repo, commit, SPECIAL_TOKENS)


def _texts(settings: Settings, inputs: Inputs) -> Iterator[str]:
    """Texts to learn from, each input up to its share of `megabytes`."""
    from gradus.conversation.formats.hermes import text_runs
    from gradus.data.corpus import read_corpus

    corpora = (*inputs.many("corpus"), *inputs.many("corpora"))
    pools = inputs.many("pools")
    share = settings.megabytes * 1e6 / max(1, len(corpora) + len(pools))
    for artifact in corpora:
        yield from _up_to(share, (d.text for d in read_corpus(artifact.path, "train")))
    for artifact in pools:
        from gradus.data.pool import read_pool

        conversations = read_pool(artifact.path, "train")
        yield from _up_to(share, (text for c in conversations for text in text_runs(c)))


def _up_to(size: float, texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        if size <= 0:
            return
        size -= len(text.encode("utf-8"))
        yield text
