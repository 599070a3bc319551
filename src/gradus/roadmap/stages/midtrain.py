"""Stage `midtrain`: documents and rendered conversations in one plan of rows, by share of the tokens; loss on all.

Conversations are rendered as they will be in fine-tuning and appended, as sources of their own, to the token shards,
which keep their files. Rows then hold one source each and come by weight (data/row_mixture.py), so that a step's rows
are a function of its number as in pretraining.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import Settings as Table
from gradus.model.config import ModelConfig
from gradus.roadmap.lineage import context_problem, fine_tuned_problem, refuse_warm
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.stages.pretrain import TextSettings, text_estimate, train_on
from gradus.roadmap.training import MODEL_KINDS
from gradus.roadmap.watched_tasks import WatchSettings, check_watch, watched_tokens

if TYPE_CHECKING:
    from gradus.conversation.formats.wire import Format
    from gradus.conversation.messages import Conversation
    from gradus.data.shards import TokenStore

VERSION = 1
MAKES = "midtrain"
INPUTS = (
    Input("from", MODEL_KINDS),
    Input("tokens", ("tokens",)),
    Input("mixture[].source", ("pool",)),
)
PARALLEL = True
MIXED_FOLDER = "mixed"
_BATCH_CONVERSATIONS = 512


class PoolShare(Table):
    """One pool of the mixture. weight: its share among the pools; by the tokens they have if none has one."""

    source: str
    weight: float | None = Field(default=None, gt=0)


class Settings(TextSettings):
    """mixture: pools of conversations, each with a weight among them or none with one.

    conversations_fraction: share of the tokens that are conversations; the rest are documents, whose sources share by
    `weights`. allow_fine_tuned: begin from a model that has learned to answer. watch: benchmarks at evaluations.
    """

    mixture: tuple[PoolShare, ...] = Field(min_length=1)
    conversations_fraction: float = Field(default=0.3, gt=0, lt=1)
    allow_fine_tuned: bool = False
    watch: WatchSettings | None = Field(default=None, exclude=True)

    def smoke(self) -> Self:
        """As of text, and a few items watched."""
        watch = None if self.watch is None else self.watch.smoke()
        return super().smoke().model_copy(update={"watch": watch})

    @model_validator(mode="after")
    def _pools_are_named_once_and_weighed_alike(self) -> Settings:
        names = [entry.source for entry in self.mixture]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ValueError(f'mixture: source "{repeated[0]}" is listed twice; give it once with its weight')
        if len({entry.weight is None for entry in self.mixture}) > 1:
            raise ValueError("mixture: some pools have a weight and some have none; give all of them one, or none")
        return self


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages; what is watched is looked for and is no part of the identity."""
    check_watch(settings.watch, settings.evaluate_every, roadmap_dir)
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """As a pretraining stage. Errors: ConfigError for a parent that is not allowed."""
    parent, tokens = inputs.one("from"), inputs.one("tokens")
    if problem := fine_tuned_problem(parent, settings.allow_fine_tuned):
        raise ConfigError(problem)
    refuse_warm(settings.optimizer, parent)
    if "model" not in parent:
        return Estimate(notes=("the model is not known yet",))
    config = ModelConfig(**parent["model"])
    if problem := context_problem(config, settings.context):
        raise ConfigError(problem)
    talked = sum(float(inputs.named(entry.source).get("tokens", 0.0)) for entry in settings.mixture)
    both = {**tokens, "tokens": float(tokens.get("tokens", 0.0)) + talked}
    watched = watched_tokens(settings.watch, settings.evaluate_every, stage.directory)
    return text_estimate(config, settings, both, device, stage.kind, watched)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Render the pools, append them to the shards, train on both by their shares."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.tokenizer.loading import load_tokenizer

    form = HermesFormat(load_tokenizer(inputs["tokens"].path / "tokenizer"))
    store = _mixed_store(stage, inputs, place, form)
    return train_on(stage, inputs, place, store, _weights(stage.settings, store), watch=stage.settings.watch)


def _mixed_store(stage: Stage, inputs: Inputs, place: Place, form: Format) -> TokenStore:
    """The token shards with one more generation: every conversation as a document, its pool its source."""
    from gradus.data.shards import TokenStore
    from gradus.data.token_writer import TokenWriter, adopt_set

    settings: Settings = stage.settings
    documents = TokenStore(inputs["tokens"].path, "train", settings.generation)
    if documents.generation != documents.num_generations:
        raise ConfigError(
            f"generation: midtraining appends to the newest generation of the shards, {documents.num_generations}; "
            "name a tokenize stage that ends at the one you mean"
        )
    folder = place.scratch / f"{MIXED_FOLDER}-{place.rank}"
    # Made again where it was interrupted: it takes seconds, and is the same.
    shutil.rmtree(folder, ignore_errors=True)
    adopt_set(inputs["tokens"].path, folder, "train")
    writer = TokenWriter(folder, "train", "stream", form.tokenizer, separator=documents.separator, append=True)
    token_bytes = form.tokenizer.token_bytes
    for name in [entry.source for entry in settings.mixture]:
        if name in documents.sources:
            raise DataError(f'a source of the documents is called "{name}" as a pool is; rename the pool\'s stage')
        total = inputs.named(name).results.get("conversations")
        with place.progress.task(f"rendering {name}", total, "rows") as task:
            for batch in _batches(inputs.named(name).path):
                ids = [rendered.ids for rendered in form.render_many(batch)]
                writer.add(ids, [name] * len(ids), [int(token_bytes[row].sum()) for row in ids])
                task.update(advance=len(ids))
    writer.close()
    return TokenStore(folder, "train")


def _batches(pool: Path) -> Iterator[list[Conversation]]:
    from itertools import islice

    from gradus.data.pool import read_pool

    waiting = iter(read_pool(pool, "train"))
    while batch := list(islice(waiting, _BATCH_CONVERSATIONS)):
        yield batch


def _weights(settings: Settings, store: TokenStore) -> dict[str, float]:
    """Each source's share of the tokens."""
    tokens = {name: float(counts["tokens"]) for name, counts in store.counts["by_source"].items()}
    talk = {entry.source: entry.weight or tokens[entry.source] for entry in settings.mixture}
    text = settings.weights or {name: size for name, size in tokens.items() if name not in talk}
    fraction = settings.conversations_fraction
    return _shares(text, 1 - fraction) | _shares(talk, fraction)


def _shares(weights: Mapping[str, float], fraction: float) -> dict[str, float]:
    whole = sum(weights.values())
    return {name: weight / whole * fraction for name, weight in weights.items()}
