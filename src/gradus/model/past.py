"""What a layer learns of the tokens before: by attention, by place, and by causal filters; in full and with a cache.

A layer asks its `Past` and does not know whether whole documents go through it or one new token of each. What is
asked for by place has a key of its own, under which a cache keeps the last tokens' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradus.model.attention import attention
from gradus.model.batch import Documents
from gradus.model.config import ModelConfig
from gradus.model.layout import document_layout
from gradus.model.sharing import laid_out, of_tokens


class Past(Protocol):
    """Everything is inside a token's own document; what would stand before its beginning is zero."""

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        """Causal attention with the layer's window. heads: (H + 2 Hk, N, D). Returns (N, H D)."""
        ...

    def shifted(self, key: str, x: Tensor, lags: Sequence[int]) -> list[Tensor]:
        """x (N, d) of the token so many places before, for each lag (from 1 on)."""
        ...

    def filtered(self, key: str, x: Tensor, taps: Tensor) -> Tensor:
        """y_n = sum_j taps[:, j] x_(n - j), channel by channel. x: (N, d); taps: (d, K). Returns (N, d)."""
        ...


class FullPass:
    """Whole documents laid end to end."""

    def __init__(self, config: ModelConfig, documents: Documents) -> None:
        self.config = config
        self.documents = documents

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        return attention(heads, self.config.num_heads, self.documents, self.config.windows[layer])

    def shifted(self, key: str, x: Tensor, lags: Sequence[int]) -> list[Tensor]:
        return [_shifted(x, lag, self.documents) for lag in lags]

    def filtered(self, key: str, x: Tensor, taps: Tensor) -> Tensor:
        return causal_filter(x, taps, self.documents)


class Recording(FullPass):
    """A full pass that keeps what decoding goes on from.

    keys_values: (N, Hk, D) each, by layer. recent: by key, (documents, reach, d), the last tokens of each document.
    """

    def __init__(self, config: ModelConfig, documents: Documents) -> None:
        super().__init__(config, documents)
        self.keys_values: list[tuple[Tensor, Tensor]] = []
        self.recent: dict[str, Tensor] = {}

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        _, keys, values = split_heads(self.config, heads)
        self.keys_values.append((keys, values))
        return super().attend(layer, heads)

    def shifted(self, key: str, x: Tensor, lags: Sequence[int]) -> list[Tensor]:
        self.recent[key] = _last_of_documents(x, max(lags), self.documents)
        return super().shifted(key, x, lags)

    def filtered(self, key: str, x: Tensor, taps: Tensor) -> Tensor:
        self.recent[key] = _last_of_documents(x, taps.shape[1] - 1, self.documents)
        return super().filtered(key, x, taps)


class KeyValueCache(Protocol):
    """What decoding needs of a cache."""

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store new tokens' keys and values, and attend to all that these tokens may see.

        queries: (N, H, D), already scaled; keys, values: (N, Hk, D). Returns (N, H D).
        """
        ...

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        """The last `reach` values under a key, (N, reach, d), oldest first; then x (N, d) is stored behind them."""
        ...


class CachedPass:
    """New tokens whose past lies in a cache."""

    def __init__(self, config: ModelConfig, cache: KeyValueCache) -> None:
        self.config = config
        self.cache = cache

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        return self.cache.attend(layer, *split_heads(self.config, heads))

    def shifted(self, key: str, x: Tensor, lags: Sequence[int]) -> list[Tensor]:
        recent = self.cache.recent(key, x, max(lags))
        return [recent[:, -lag] for lag in lags]

    def filtered(self, key: str, x: Tensor, taps: Tensor) -> Tensor:
        seen = torch.cat([self.cache.recent(key, x, taps.shape[1] - 1), x[:, None]], dim=1)  # (N, K, d)
        return (seen.flip(1) * taps.to(x.dtype).T).sum(1)


def split_heads(config: ModelConfig, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (N, H, D), keys and values (N, Hk, D) of heads (H + 2 Hk, N, D)."""
    c = config
    queries, keys, values = torch.split_with_sizes(heads, [c.num_heads, c.num_kv_heads, c.num_kv_heads])
    return queries.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1)


def _shifted(x: Tensor, lag: int, documents: Documents) -> Tensor:
    x = laid_out(x[None], documents)[0]
    behind = x[: max(0, len(x) - lag)]
    moved = torch.cat([x.new_zeros(len(x) - len(behind), x.shape[1]), behind])
    return torch.where((documents.positions >= lag)[:, None], of_tokens(moved, documents), 0)


def _last_of_documents(x: Tensor, reach: int, documents: Documents) -> Tensor:
    """(documents, reach, d): each document's last values, zero where it is shorter."""
    bounds = torch.tensor(documents.bounds, device=x.device)
    places = bounds[1:, None] - torch.arange(reach, 0, -1, device=x.device)  # (documents, reach)
    found = x[places.clamp(min=0)]
    return torch.where((places >= bounds[:-1, None])[:, :, None], found, 0)


def causal_filter(x: Tensor, taps: Tensor, documents: Documents) -> Tensor:
    """`Past.filtered` over whole documents, by FFT over documents of like length filled up with zeros at their end.

    Filled up to twice the longer of both, the circular convolution is the linear one: nothing reaches back in time.
    """
    x = laid_out(x[None], documents)[0]
    layout = document_layout(documents)
    kind = torch.promote_types(x.dtype, torch.float32)
    outs = []
    for group in layout.groups:
        part = x if group.spread is None else x.index_select(0, group.spread)
        part = part.view(-1, group.length, x.shape[1]).to(kind)  # (B, T, d)
        size = 2 * max(group.length, taps.shape[1])
        spectrum = torch.fft.rfft(part, n=size, dim=1) * torch.fft.rfft(taps.T.to(kind), n=size, dim=0)
        outs.append(torch.fft.irfft(spectrum, n=size, dim=1)[:, : group.length].flatten(0, 1))
    out = (outs[0] if len(outs) == 1 else torch.cat(outs)).to(x.dtype)
    return of_tokens(out if layout.gather is None else out.index_select(0, layout.gather), documents)
