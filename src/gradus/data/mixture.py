"""Mixtures of pools: how often each document comes in one pass, and who gets what share of the tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.conversation.messages import Conversation
from gradus.core.errors import DataError, did_you_mean
from gradus.core.settings import Settings
from gradus.data.permutation import permutation_keys, permute
from gradus.data.shards import TokenStore

# Up to four epochs repeated text is nearly as good as new (Muennighoff et al. 2023, figure 5); past that, a
# source is worth a warning where it is also a large part of the tokens.
MANY_EPOCHS = 4.0
LARGE_FRACTION = 0.2


class MixtureEntry(Settings):
    """One source of a mixture.

    source: a pool's name, or "files:PATTERN". epochs: how often each document comes; 2.5 is twice, and half
    of the documents a third time. max_rows: at most so many different documents, chosen by the seed.
    """

    source: str
    epochs: float = Field(default=1.0, gt=0)
    max_rows: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class MixtureShare:
    """What a source became: different documents, rows with repeats, tokens with repeats and their share."""

    source: str
    documents: int
    rows: int
    epochs: float
    tokens: int
    token_fraction: float


def labelled(conversations: Iterable[Conversation], source: str) -> Iterator[Conversation]:
    """The conversations with their source replaced, so that a store of several pools can tell them apart."""
    for conversation in conversations:
        yield replace(conversation, source=source)


def mixture_documents(
    store: TokenStore, entries: Sequence[MixtureEntry], seed: int
) -> tuple[NDArray[np.int64], list[MixtureShare]]:
    """Which documents of the store to pack, with repeats, for one pass over the mixture; and the shares.

    A document belongs to the entry whose source is its label. Hand the documents to `pack_plan`. The choice
    depends on seed, source and the number of its documents. Errors: DataError for a source without documents.
    """
    names = [entry.source for entry in entries]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f'mixture: source "{repeated[0]}" is listed twice; give it once with its epochs')
    chosen = [_documents_of(store, entry, seed) for entry in entries]
    tokens = [int(store.lengths[documents].sum()) for documents in chosen]
    total = sum(tokens)
    shares = [
        MixtureShare(
            source=entry.source,
            documents=len(np.unique(documents)),
            rows=len(documents),
            epochs=entry.epochs,
            tokens=size,
            token_fraction=size / total,
        )
        for entry, documents, size in zip(entries, chosen, tokens, strict=True)
    ]
    return np.concatenate(chosen), shares


def _documents_of(store: TokenStore, entry: MixtureEntry, seed: int) -> NDArray[np.int64]:
    if entry.source not in store.sources:
        known = ", ".join(store.sources) or "none"
        raise DataError(
            f'mixture: source "{entry.source}" has no documents (sources with documents: {known})'
            f"{did_you_mean(entry.source, store.sources)}"
        )
    documents = np.flatnonzero(store.source_index == store.sources.index(entry.source))
    order = permute(np.arange(len(documents)), len(documents), permutation_keys("mixture", seed, entry.source))
    documents = documents[order][: entry.max_rows]
    whole = int(entry.epochs)
    # At least one row, however small the share that was asked for.
    rest = max(round((entry.epochs - whole) * len(documents)), int(whole == 0))
    return np.concatenate([np.tile(documents, whole), documents[:rest]])


def mixture_warnings(shares: Sequence[MixtureShare]) -> list[str]:
    """A line for each source that is repeated so often, at so large a share, that it may do harm."""
    return [
        f'mixture: "{share.source}" is repeated {share.epochs:g} times and is {share.token_fraction:.0%} of '
        f"the tokens; more than {MANY_EPOCHS:g} repeats of a large share tend to be learned by heart: "
        "use fewer epochs or more different rows"
        for share in shares
        if share.epochs > MANY_EPOCHS and share.token_fraction > LARGE_FRACTION
    ]
