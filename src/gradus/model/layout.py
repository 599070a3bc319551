"""Documents of many lengths as few groups of one length each, so that attention runs over whole batches.

A document is filled up at its end to the next of a few lengths. Under a causal mask no token sees what follows
it, so the filled-up places change nothing; they only cost a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradus.model.batch import Documents, to_device

_STEPS_PER_OCTAVE = 8  # lengths to fill up to: at most 1/8 longer than the document, and few of them
_SMALLEST_STEP = 16


@dataclass(frozen=True)
class LengthGroup:
    """Documents that are filled up to one length.

    spread: (documents x length,) int64, the token at each place, a filled-up place repeating its document's first
    token; None where the batch is this one group as it stands.
    """

    length: int
    spread: Tensor | None


@dataclass(frozen=True)
class DocumentLayout:
    """All documents of a batch in groups.

    gather: (N,) int64, the place of each token when the groups' places follow one another; None where there is
    nothing to move.
    """

    groups: list[LengthGroup]
    gather: Tensor | None


def document_layout(documents: Documents) -> DocumentLayout:
    """The layout for these documents, worked out once per batch."""
    found: DocumentLayout | None = documents.cache.get("layout")
    if found is None:
        found = documents.cache["layout"] = _build(documents)
    return found


def _filled_length(length: int) -> int:
    step = max(_SMALLEST_STEP, 1 << max(0, length.bit_length() - _STEPS_PER_OCTAVE.bit_length()))
    return -(-length // step) * step


def _build(documents: Documents) -> DocumentLayout:
    lengths = documents.lengths
    device = documents.positions.device
    if len(set(lengths)) == 1:
        return DocumentLayout([LengthGroup(lengths[0], None)], None)
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(_filled_length(length), []).append(index)
    groups = []
    gather = torch.empty(documents.bounds[-1], dtype=torch.int64)
    place = 0
    for filled in sorted(by_length):
        members = torch.tensor(by_length[filled])
        starts = torch.tensor(documents.bounds)[members]
        sizes = torch.tensor(lengths)[members]
        column = torch.arange(filled)
        inside = column[None, :] < sizes[:, None]  # (B, T)
        tokens = starts[:, None] + torch.where(inside, column[None, :], 0)
        places = place + torch.arange(tokens.numel()).view_as(tokens)
        gather[tokens[inside]] = places[inside]
        groups.append(LengthGroup(filled, to_device(tokens.flatten(), device)))
        place += tokens.numel()
    return DocumentLayout(groups, to_device(gather, device))
