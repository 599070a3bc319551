"""Which documents a longer context is learned from: those that are long, whole, and a share of others beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradus.core.errors import DataError
from gradus.data.pack import PackPlan, pack_plan
from gradus.data.spans import Int64


@dataclass(frozen=True)
class LongRows:
    """A plan of rows, and what it is made of. long_tokens: of the documents that count as long."""

    plan: PackPlan
    least_tokens: int
    long_documents: int
    long_tokens: int

    def statistics(self) -> dict[str, Any]:
        """Counts for an artifact's results; long_fraction is the share of the tokens that was reached."""
        return {
            **self.plan.statistics(),
            "least_document_tokens": self.least_tokens,
            "long_documents": self.long_documents,
            "long_tokens": self.long_tokens,
            "long_fraction": self.long_tokens / self.plan.num_tokens,
        }


def long_rows(lengths: Int64, row_length: int, *, least_tokens: int, long_fraction: float, seed: int) -> LongRows:
    """Every document of at least `least_tokens` once, and of shorter ones as many as make up the rest of the tokens.

    lengths: (documents,) tokens. A document that fits into a row is never cut; a longer one gives full rows, each from
    one document, and a rest. Where there are too few short documents the share of long ones is higher. Errors:
    DataError where no document is long enough.
    """
    is_long = lengths >= least_tokens
    chosen = np.flatnonzero(is_long)
    if not len(chosen):
        raise DataError(
            f"no document has {least_tokens:,} tokens, the longest of {len(lengths):,} has "
            f"{int(lengths.max(initial=0)):,}; lower least_document_tokens, or give longer documents"
        )
    long_tokens = int(lengths[chosen].sum())
    short = np.random.default_rng(seed).permutation(np.flatnonzero(~is_long))
    room = long_tokens * (1 - long_fraction) / long_fraction
    short = short[: int(np.searchsorted(np.cumsum(lengths[short]), room, side="right"))]
    documents = np.sort(np.concatenate([chosen, short]))
    return LongRows(pack_plan(lengths, row_length, documents=documents), least_tokens, len(chosen), long_tokens)
