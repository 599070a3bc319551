"""Choosing the next token of every row at once: greedy, temperature, top-k, top-p, min-p, repetition penalty.

Each request draws from a random stream of its own: draw number i of seed s is a hash of (s, i), SplitMix64
(Steele, Lea and Flood 2014). No generator state exists, so what a request draws does not depend on who shares
its batch, on when it joined, or on a stop and restart. A token is chosen by inverting the cumulative
distribution at that one uniform number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gradus.core.settings import Settings
from gradus.core.temperature import Temperature
from gradus.model.batch import to_device
from gradus.model.mps import is_mps

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Sampling(Settings):
    """How one request chooses its tokens. Temperature 0 is argmax, whatever top-k, top-p and min-p say."""

    temperature: Temperature = 0.0
    top_k: int | None = Field(default=None, ge=1)
    """Only the k most likely tokens; None: all."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Only the smallest set of most likely tokens that holds this probability; None: all."""
    min_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Only tokens at least so likely as this share of the likeliest; None: all. Source: Nguyen et al. 2024."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100.0)
    """Divides positive logits of tokens in prompt and reply, and multiplies negative ones. Source: CTRL, Keskar et al.
    2019, section 4.1."""
    seed: int = Field(default=0, ge=0, lt=2**64)


GREEDY = Sampling()


@dataclass(frozen=True)
class SamplingBatch:
    """The sampling choices of B rows as columns, built when the batch changes and used at every step.

    Which arithmetic a row gets depends on its own settings alone, never on those of the rest.
    """

    whole: SampledRows | None
    """Rows that draw from the whole vocabulary."""
    limited: SampledRows | None
    """Rows limited by top-k, top-p or min-p, which need a sort."""


@dataclass(frozen=True)
class SampledRows:
    """Columns of the S rows of one group."""

    rows: Tensor
    """(S,) int64: their places in the batch."""
    places: NDArray[np.int64]
    """The same on the host."""
    temperature: Tensor
    """(S, 1) float32, above 0."""
    top_k: Tensor
    """(S, 1) int64; the vocabulary size where unlimited."""
    top_p: Tensor
    """(S, 1) float64; 2 where unlimited, above any sum of probabilities."""
    min_p: Tensor
    """(S, 1) float64; 0 where unlimited."""
    seeds: NDArray[np.uint64]
    """(S,)."""


def sampling_batch(rows: Sequence[Sampling], vocab_size: int, device: torch.device) -> SamplingBatch:
    """Columns of the given rows' settings, where rows of logits on `device` are drawn from."""
    device = _drawn_on(device)
    whole = [i for i, row in enumerate(rows) if row.temperature > 0 and not _is_limited(row)]
    limited = [i for i, row in enumerate(rows) if row.temperature > 0 and _is_limited(row)]
    return SamplingBatch(
        whole=_columns(rows, whole, vocab_size, device) if whole else None,
        limited=_columns(rows, limited, vocab_size, device) if limited else None,
    )


def sample(logits: Tensor, batch: SamplingBatch, draws: Sequence[int]) -> Tensor:
    """The next token of each row.

    logits: (B, V), any float type. draws: for each of the B rows, how many tokens its request has drawn
    before. Returns (B,) int64, of Apple's GPUs on the host.
    """
    logits = logits.to(_drawn_on(logits.device))
    tokens = logits.argmax(dim=-1)
    for group, choose in ((batch.whole, _choose_whole), (batch.limited, _choose_limited)):
        if group is None:
            continue
        numbers = np.asarray(draws, dtype=np.uint64)[group.places]
        # A GPU is still working on the logits: nothing here waits for it.
        uniform = to_device(torch.from_numpy(uniforms(group.seeds, numbers)), logits.device)
        tokens[group.rows] = choose(logits[group.rows].float() / group.temperature, group, uniform)
    return tokens


def _drawn_on(device: torch.device) -> torch.device:
    """Where tokens are drawn: Apple's GPUs cannot add probabilities up in float64, so the host does it for them."""
    return torch.device("cpu") if is_mps(device) else device


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """One row's logits (V,) with a repetition penalty on the tokens in seen, (V,) bool. Returns (V,)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _is_limited(row: Sampling) -> bool:
    return row.top_k is not None or row.top_p is not None or row.min_p is not None


def _columns(rows: Sequence[Sampling], chosen: Sequence[int], vocab_size: int, device: torch.device) -> SampledRows:
    settings = [rows[i] for i in chosen]
    # Of any size where it is asked for, and a column holds 64 bits.
    top_k = [[min(s.top_k or vocab_size, vocab_size)] for s in settings]
    return SampledRows(
        rows=torch.tensor(chosen, dtype=torch.int64, device=device),
        places=np.array(chosen, dtype=np.int64),
        temperature=torch.tensor([[s.temperature] for s in settings], dtype=torch.float32, device=device),
        top_k=torch.tensor(top_k, dtype=torch.int64, device=device),
        top_p=torch.tensor([[s.top_p or 2.0] for s in settings], dtype=torch.float64, device=device),
        min_p=torch.tensor([[s.min_p or 0.0] for s in settings], dtype=torch.float64, device=device),
        seeds=np.array([s.seed for s in settings], dtype=np.uint64),
    )


def uniforms(seeds: NDArray[np.uint64], draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Number `draws[i]` of the stream of `seeds[i]`, uniform on [0, 1) with 53 random bits."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        state = _mix(seeds + _GOLDEN_GAMMA) + (draws + np.uint64(1)) * _GOLDEN_GAMMA
        bits = _mix(state) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _choose_whole(logits: Tensor, group: SampledRows, uniform: Tensor) -> Tensor:
    """Inverse of each row's cumulative distribution at its uniform number.

    logits: (S, V) float32, tempered; uniform: (S,). Returns (S,).
    """
    cumulative = torch.softmax(logits, dim=-1, dtype=torch.float64).cumsum(dim=-1)  # (S, V)
    return _first_above(cumulative, uniform)


def _choose_limited(logits: Tensor, group: SampledRows, uniform: Tensor) -> Tensor:
    """As `_choose_whole`, over the tokens that top-k, then top-p, then min-p leave."""
    # Stable, so that ties fall to the lower token id, as argmax has it.
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)  # (S, V)
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    probability = torch.softmax(ordered.masked_fill(ranks >= group.top_k, -torch.inf), dim=-1, dtype=torch.float64)
    before = probability.cumsum(dim=-1) - probability
    probability = probability.masked_fill(before >= group.top_p, 0.0)  # nothing stands before the first
    probability = probability.masked_fill(probability < group.min_p * probability[:, :1], 0.0)
    place = _first_above(probability.cumsum(dim=-1), uniform)
    return order.gather(-1, place[:, None]).squeeze(-1)


def _first_above(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """First index whose cumulative weight exceeds the uniform share of the total: never one of weight 0."""
    total = cumulative[:, -1:]
    # The product may round up to the total, which no index exceeds.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # No index exceeds a NaN either: such a row ends at the last one, and harms no other.
    last = cumulative.shape[-1] - 1
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=last)
