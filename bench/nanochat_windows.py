"""Held-out windows and bits per byte, one definition for both sides of the nanochat comparison (numpy only).

Every token of every validation document is scored exactly once, in rows of at most `context` inputs. A
document is the sequence `start t1 t2 ... tn`, where `start` is the document-start token. Two layouts are
made, since the two projects train on different ones; both are reported and each model's figure is its
better one:

- `stream`: row k reads positions k*context .. and predicts the next ones, so a row after the first of its
  document begins with the last token of the row before it.
- `start`: every row begins with the document-start token (as nanochat trains), so its first prediction has
  no context.

Bits per byte = sum of nats over scored tokens / (ln 2 * sum of their bytes). Special tokens have 0 bytes and
are never scored. Documents are whole: a document's bytes are all counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

IGNORE = -1


@dataclass(frozen=True)
class Windows:
    """Rows of token ids: `inputs` and `targets` are (rows, context); a target of -1 is padding."""

    inputs: np.ndarray
    targets: np.ndarray


def windows(documents: Sequence[np.ndarray], start: int, context: int, layout: str) -> Windows:
    """Cut documents (ids without the start token) into rows of the given layout."""
    if layout not in ("stream", "start"):
        raise ValueError(f'layout is "{layout}"; expected "stream" or "start"')
    inputs: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for ids in documents:
        for low in range(0, len(ids), context):
            wanted = np.asarray(ids[low : low + context], dtype=np.int64)
            first = start if layout == "start" or low == 0 else int(ids[low - 1])
            row_in = np.full(context, start, dtype=np.int64)
            row_out = np.full(context, IGNORE, dtype=np.int64)
            row_in[0] = first
            row_in[1 : len(wanted)] = wanted[:-1]
            row_out[: len(wanted)] = wanted
            inputs.append(row_in)
            targets.append(row_out)
    return Windows(np.stack(inputs), np.stack(targets))


def bits_per_byte(nats: float, targets: np.ndarray, token_bytes: np.ndarray) -> float:
    """Bits per byte of rows whose scored targets (not -1, not special) cost `nats` in all."""
    return nats / (math.log(2) * scored_bytes(targets, token_bytes))


def scored_bytes(targets: np.ndarray, token_bytes: np.ndarray) -> int:
    """Bytes of the scored targets."""
    return int(token_bytes[targets[targets >= 0]].sum())


def split_documents(tokens: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """Documents of a token stream `start d1 start d2 ...`, each without its start token."""
    bounds = [*starts.tolist(), len(tokens)]
    return [tokens[low + 1 : high] for low, high in pairwise(bounds)]
