"""Mixtures of pools: how often each document comes in one pass, and who gets what share of the tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gradus.conversation.messages import Conversation
from gradus.core.errors import DataError, did_you_mean
from gradus.core.quantity import Quantity, format_count
from gradus.core.settings import Settings
from gradus.data.permutation import permutation_keys, permute
from gradus.data.shards import TokenStore

# Up to four epochs repeated text is nearly as good as new (Muennighoff et al. 2023, figure 5); past that, a
# source is worth a warning where it is also a large part of the tokens.
MANY_EPOCHS = 4.0
LARGE_FRACTION = 0.2


WeighedBy = Literal["tokens", "rows"]


class MixtureEntry(Settings):
    """One source of a mixture.

    source: a pool's name. epochs: how often each conversation comes; 2.5 is twice, and half of them a third time.
    weight: instead of epochs, its share beside the others' weights. max_rows, max_tokens: at most so many different
    conversations, or conversations of so many tokens, chosen by the seed before they repeat.
    """

    source: str
    epochs: float = Field(default=1.0, gt=0)
    weight: float | None = Field(default=None, gt=0)
    max_rows: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _weight_stands_alone(self) -> MixtureEntry:
        if self.weight is not None and "epochs" in self.model_fields_set:
            raise ValueError(f'"{self.source}" has epochs and a weight; give one of them: weights decide the epochs')
        return self


def check_mixture(entries: Sequence[MixtureEntry], size: Quantity | None, weighed_by: WeighedBy) -> None:
    """For settings classes. Errors: ValueError where entries or the size do not go together."""
    names = [entry.source for entry in entries]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f'mixture: source "{repeated[0]}" is listed twice; give it once with its epochs')
    if len({entry.weight is None for entry in entries}) > 1:
        raise ValueError("mixture: some sources have a weight and some have none; give all of them one, or none")
    if size is None:
        return
    if entries[0].weight is None:
        raise ValueError("mixture_size: it needs a weight for every source; without weights, epochs decide the size")
    unit = "tokens" if weighed_by == "tokens" else "documents"
    if size.unit != unit:
        raise ValueError(
            f'mixture_size: weighed by {weighed_by} it counts {unit}, such as "20_000 {unit}"; found {size}'
        )


@dataclass(frozen=True)
class MixtureShare:
    """What a source became: different documents, rows with repeats, tokens with repeats and their share."""

    source: str
    documents: int
    rows: int
    epochs: float
    tokens: int
    token_fraction: float

    def __str__(self) -> str:
        return (
            f"{self.source}: {format_count(self.rows)} conversations ({format_count(self.documents)} different, "
            f"{self.epochs:.3g} epochs), {format_count(self.tokens)} tokens, {self.token_fraction:.1%}"
        )


def labelled(conversations: Iterable[Conversation], source: str) -> Iterator[Conversation]:
    """The conversations with their source replaced, so that a store of several pools can tell them apart."""
    for conversation in conversations:
        yield replace(conversation, source=source)


def mixture_epochs(
    entries: Sequence[MixtureEntry], available: Sequence[float], size: float | None = None
) -> list[float]:
    """How often each source is seen in one pass over the mixture.

    available: what each has after its caps, in the unit of the weights; size: of the mixture in that unit. Without a
    size, a mixture by weights is as large as it can be with no source seen more than once.
    """
    weights = [entry.weight for entry in entries if entry.weight is not None]
    if not weights:
        return [entry.epochs for entry in entries]
    shares = [weight / sum(weights) for weight in weights]
    whole = size or min(has / share for has, share in zip(available, shares, strict=True))
    return [whole * share / has for has, share in zip(available, shares, strict=True)]


def mixture_documents(
    store: TokenStore,
    entries: Sequence[MixtureEntry],
    seed: int,
    size: Quantity | None = None,
    weighed_by: WeighedBy = "tokens",
) -> tuple[NDArray[np.int64], list[MixtureShare]]:
    """Which documents of the store to pack, with repeats, for one pass over the mixture; and the shares.

    A document belongs to the entry whose source is its label. Hand the documents to `pack_plan`. The choice
    depends on seed, source and the number of its documents. Errors: DataError for a source without documents.
    """
    different = [_documents_of(store, entry, seed) for entry in entries]
    by_tokens = weighed_by == "tokens"
    available = [float(store.lengths[d].sum() if by_tokens else len(d)) for d in different]
    epochs = mixture_epochs(entries, available, size.value if size is not None else None)
    chosen = [
        _repeated(documents, store.lengths, times, by_tokens and entry.weight is not None)
        for documents, times, entry in zip(different, epochs, entries, strict=True)
    ]
    tokens = [int(store.lengths[documents].sum()) for documents in chosen]
    total = sum(tokens)
    shares = [
        MixtureShare(
            source=entry.source,
            documents=len(np.unique(documents)),
            rows=len(documents),
            epochs=times,
            tokens=part,
            token_fraction=part / total,
        )
        for entry, documents, part, times in zip(entries, chosen, tokens, epochs, strict=True)
    ]
    return np.concatenate(chosen), shares


def _documents_of(store: TokenStore, entry: MixtureEntry, seed: int) -> NDArray[np.int64]:
    """The different documents of a source within its caps, in an order drawn from the seed."""
    if entry.source not in store.sources:
        known = ", ".join(store.sources) or "none"
        raise DataError(
            f'mixture: source "{entry.source}" has no documents (sources with documents: {known})'
            f"{did_you_mean(entry.source, store.sources)}"
        )
    documents = np.flatnonzero(store.source_index == store.sources.index(entry.source))
    order = permute(np.arange(len(documents)), len(documents), permutation_keys("mixture", seed, entry.source))
    documents = documents[order][: entry.max_rows]
    if entry.max_tokens is not None:
        within = int(np.searchsorted(np.cumsum(store.lengths[documents]), entry.max_tokens, side="right"))
        documents = documents[: max(1, within)]
    return documents


def _repeated(
    documents: NDArray[np.int64], lengths: NDArray[np.int64], epochs: float, by_tokens: bool
) -> NDArray[np.int64]:
    """Whole passes over the documents, and the first of them up to the fraction that is left.

    by_tokens: the fraction is one of their tokens, so that a share in tokens is met to within half a document.
    """
    whole = int(epochs)
    if by_tokens:
        ends = np.cumsum(lengths[documents])
        rest = int(np.searchsorted(ends - lengths[documents] / 2, (epochs - whole) * float(ends[-1])))
    else:
        rest = round((epochs - whole) * len(documents))
    # At least one row, however small the share that was asked for.
    rest = max(rest, int(whole == 0))
    return np.concatenate([np.tile(documents, whole), documents[:rest]])


def expected_shares(
    entries: Sequence[MixtureEntry],
    known: Mapping[str, tuple[float, float]],
    size: Quantity | None = None,
    weighed_by: WeighedBy = "tokens",
) -> list[MixtureShare]:
    """The shares as a plan expects them; known: rows and tokens a row of each source, both above 0."""
    rows, sizes = [], [known[entry.source][1] for entry in entries]
    for entry, size_each in zip(entries, sizes, strict=True):
        most = known[entry.source][0]
        by_tokens = most if entry.max_tokens is None else entry.max_tokens / size_each
        rows.append(max(1.0, min(most, entry.max_rows or most, by_tokens)))
    in_tokens = [n * size_each for n, size_each in zip(rows, sizes, strict=True)]
    available = in_tokens if weighed_by == "tokens" else rows
    epochs = mixture_epochs(entries, available, size.value if size is not None else None)
    tokens = [part * times for part, times in zip(in_tokens, epochs, strict=True)]
    return [
        MixtureShare(entry.source, round(n * min(1.0, times)), round(n * times), times, round(part), part / sum(tokens))
        for entry, n, times, part in zip(entries, rows, epochs, tokens, strict=True)
    ]


def validation_documents(store: TokenStore, shares: Sequence[MixtureShare], most_tokens: int) -> NDArray[np.int64]:
    """Documents of the validation side: all of them, or as many tokens of each source as its share of the mixture.

    Each source that has any gives at least one document, from the start.
    """
    if store.num_tokens <= most_tokens:
        return np.arange(len(store.lengths))
    chosen = []
    for share in shares:
        if share.source in store.sources:
            documents = np.flatnonzero(store.source_index == store.sources.index(share.source))
            within = int((np.cumsum(store.lengths[documents]) <= share.token_fraction * most_tokens).sum())
            chosen.append(documents[: max(1, within)])
    return np.concatenate(chosen)


def mixture_warnings(shares: Sequence[MixtureShare], passes: float = 1.0) -> list[str]:
    """A line for each source that is repeated so often, at so large a share, that it may do harm.

    passes: how often the whole mixture is seen, which repeats every source.
    """
    return [
        f'mixture: "{share.source}" is repeated {share.epochs * passes:.3g} times and is {share.token_fraction:.0%} of '
        f"the tokens; more than {MANY_EPOCHS:g} repeats of a large share tend to be learned by heart: "
        "use fewer epochs or more different rows"
        for share in shares
        if share.epochs * passes > MANY_EPOCHS and share.token_fraction > LARGE_FRACTION
    ]
