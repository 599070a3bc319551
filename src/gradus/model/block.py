"""One layer: attention and a feed-forward, both behind a norm and added to the residual; and what may be added to it.

A layer's parts are methods of their own, called in the order of `forward`. Norm weights are folded into the
projection behind them (a small product each step instead of one over all tokens), which is the same function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.model.config import VALUE_GATE_CHANNELS, ModelConfig
from gradus.model.experts import Experts, Routing
from gradus.model.frozen import FrozenBlock
from gradus.model.kernels import attention_heads, ready_heads, ready_norm, relu2, rms_norm, swiglu
from gradus.model.lora import Adapters
from gradus.model.past import Past
from gradus.model.sine import SineParameters, sine, sine_feed_forward


@dataclass(frozen=True)
class Surroundings:
    """What a layer reads besides the residual.

    tokens: (N,); start: (N, width), the embedding; cos, sin: (N, 1, D/2), of each token's angles; turn: both as factors
    of whole heads, which a frozen layer takes.
    """

    tokens: Tensor
    start: Tensor
    cos: Tensor
    sin: Tensor
    past: Past
    turn: tuple[Tensor, Tensor] | None = None


class Block(nn.Module):
    """One layer. Weights are (out, in).

    qkv stacks the rows of query, key and value, gate_up those of gate and up. experts: in place of both, or None.
    adapters: what is trained in place of the weights (lora.py), or None.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.adapters: Adapters | None = None
        c = config
        self.attention_norm = nn.Parameter(torch.empty(c.width))
        self.qkv = nn.Parameter(torch.empty(c.query_width + 2 * c.kv_width, c.width))
        has_norms = c.qk_norm and c.qk_norm_weights
        self.query_norm = nn.Parameter(torch.empty(c.head_dim)) if has_norms else None
        self.key_norm = nn.Parameter(torch.empty(c.head_dim)) if has_norms else None
        self.out = nn.Parameter(torch.empty(c.width, c.query_width))
        self.mlp_norm = nn.Parameter(torch.empty(c.width))
        self.experts = Experts(c) if c.has_experts(layer) else None
        if self.experts is None:
            if c.is_gated:
                self.gate_up = nn.Parameter(torch.empty(2 * c.mlp_width, c.width))
            else:
                self.up = nn.Parameter(torch.empty(c.mlp_width, c.width))
            self.down = nn.Parameter(torch.empty(c.width, c.mlp_width))
        self.sine = SineParameters(c.sine, c.mlp_width) if c.activation == "sine" else None
        self.branch_scale = nn.Parameter(torch.empty(1)) if c.branch_scale else None
        self.frozen: FrozenBlock | None = None  # products made ready, of a model that trains no more
        self.wave = Wave(c, layer) if c.wave_kernel is not None else None
        self.spectral_taps = nn.Parameter(torch.empty(c.width, c.spectral_length)) if c.spectral_length else None
        self.residual_scale = nn.Parameter(torch.empty(1)) if c.residual_scalars else None
        self.start_scale = nn.Parameter(torch.empty(1)) if c.residual_scalars else None
        has_values = c.has_value_embedding(layer)
        self.value_embedding = nn.Parameter(torch.empty(c.vocab_size, c.kv_width)) if has_values else None
        gate_channels = min(VALUE_GATE_CHANNELS, c.width)
        self.value_gate = nn.Parameter(torch.empty(c.num_kv_heads, gate_channels)) if has_values else None

    def forward(self, x: Tensor, around: Surroundings) -> tuple[Tensor, Routing | None]:
        """The whole layer. x: (N, width). Returns (N, width), and what the router said, None without experts."""
        x = self.mixed(x, around)
        x = self.attended(x, around.past.attend(self.layer, self.heads(x, around)))
        return self.feed_forward(x)

    def mixed(self, x: Tensor, around: Surroundings) -> Tensor:
        """The residual with what comes before attention: scalars, wave block, spectral gate."""
        c = self.config
        if self.residual_scale is not None and self.start_scale is not None:
            x = self.residual_scale.to(x.dtype) * x + self.start_scale.to(x.dtype) * around.start
        if self.wave is not None:
            x = x + self.wave(rms_norm(x, c.norm_eps), around.past)
        if self.spectral_taps is not None:
            x = x + around.past.filtered(f"{self.layer}/spectral", rms_norm(x, c.norm_eps), self.spectral_taps)
        return x

    def heads(self, x: Tensor, around: Surroundings) -> Tensor:
        """x: (N, width). Returns (H + 2 Hk, N, D): queries, keys and values ready for attention."""
        c = self.config
        x = self._normed(x)
        if self.frozen is not None:
            qkv = self.frozen.qkv(x).to(x.dtype)
        else:
            qkv = F.linear(x, (self.qkv * self.attention_norm).to(x.dtype))
        if self.adapters is not None and self.adapters.has("qkv"):
            qkv = qkv + self.adapters.added("qkv", x * self.attention_norm.to(x.dtype))
        qkv = qkv.view(x.shape[0], -1, c.head_dim)
        if self.value_embedding is not None and self.value_gate is not None:
            gate = 3 * torch.sigmoid(F.linear(x[:, : self.value_gate.shape[1]], self.value_gate.to(x.dtype)))
            added = F.embedding(around.tokens, self.value_embedding).to(x.dtype).view(-1, c.num_kv_heads, c.head_dim)
            turned, values = torch.split(qkv, [c.num_heads + c.num_kv_heads, c.num_kv_heads], dim=1)
            qkv = torch.cat([turned, values + gate[:, :, None] * added], dim=1)
        if self.frozen is not None:
            assert around.turn is not None
            return ready_heads(qkv, self.frozen.heads, self.frozen.head_norm, around.turn)
        norms: tuple[Tensor, Tensor] | None = None
        if self.query_norm is not None and self.key_norm is not None:
            norms = (self.query_norm, self.key_norm)
        elif c.qk_norm:
            # Two tensors: a compiler takes no tensor twice.
            norms = (torch.ones(c.head_dim, device=x.device), torch.ones(c.head_dim, device=x.device))
        return attention_heads(qkv, c.num_heads, norms, around.cos, around.sin, c.norm_eps)

    def _normed(self, x: Tensor) -> Tensor:
        """The residual without its length; the norm's weights are in the product behind it."""
        return rms_norm(x, self.config.norm_eps) if self.frozen is None else ready_norm(x, self.frozen.norm)

    def attended(self, x: Tensor, attention_out: Tensor) -> Tensor:
        """Residual after attention. attention_out: (N, H D)."""
        if self.frozen is not None:
            return x + self.frozen.out(attention_out)
        x = x + F.linear(attention_out, self.out.to(x.dtype))
        if self.adapters is not None and self.adapters.has("out"):
            x = x + self.adapters.added("out", attention_out)
        return x

    def feed_forward(self, x: Tensor) -> tuple[Tensor, Routing | None]:
        """Residual after the feed-forward or the experts, and what the router said."""
        normed = self._normed(x)
        routed = None
        if self.experts is not None:
            # One product over the tokens is less than one over the weights of all experts.
            scaled = normed * self.mlp_norm.to(x.dtype)
            out, routed = self.experts(scaled if self.frozen is None else scaled.to(self.mlp_norm.dtype))
        elif self.frozen is not None:
            out = self._frozen_feed_forward(normed, self.frozen)
        elif self.adapters is not None:
            out = self._adapted_feed_forward(normed, self.adapters)
        elif self.config.is_gated:
            out = swiglu(normed, (self.gate_up * self.mlp_norm).to(x.dtype), self.down.to(x.dtype))
        else:
            up, down = (self.up * self.mlp_norm).to(x.dtype), self.down.to(x.dtype)
            out = relu2(normed, up, down) if self.sine is None else sine_feed_forward(normed, up, down, self.sine())
        if self.branch_scale is not None:
            out = out * self.branch_scale.to(x.dtype)
        return x + out, routed

    def _adapted_feed_forward(self, normed: Tensor, adapters: Adapters) -> Tensor:
        """The gated feed-forward with its adapters."""
        gate_up = F.linear(normed, (self.gate_up * self.mlp_norm).to(normed.dtype))
        if adapters.has("gate_up"):
            gate_up = gate_up + adapters.added("gate_up", normed * self.mlp_norm.to(normed.dtype))
        gate, up = gate_up.chunk(2, dim=-1)
        hidden = F.silu(gate) * up
        out = F.linear(hidden, self.down.to(normed.dtype))
        return out + adapters.added("down", hidden) if adapters.has("down") else out

    def _frozen_feed_forward(self, normed: Tensor, frozen: FrozenBlock) -> Tensor:
        """The dense feed-forward through products made ready. normed: (N, width). Returns (N, width)."""
        assert frozen.down is not None
        if self.config.is_gated:
            products = [product(normed) for product in frozen.ups]
            gate, up = products if len(products) == 2 else products[0].chunk(2, dim=-1)
            return frozen.down(F.silu(gate) * up)
        inner = frozen.ups[0](normed)
        return frozen.down(inner.relu_().square() if self.sine is None else sine(inner, *self.sine()))


class Wave(nn.Module):
    """A causal wave block, W phi(sum_j taps_j x_(n - j dilation)), channel by channel before W. Source: PSANN."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.wave_kernel is not None
        self.key = f"{layer}/wave"
        self.lags = [j * config.wave_dilation for j in range(1, config.wave_kernel)]
        self.wave_taps = nn.Parameter(torch.empty(config.width, config.wave_kernel))
        self.wave_out = nn.Parameter(torch.empty(config.width, config.width))
        self.sine = SineParameters(config.sine, config.width)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """x: (N, width), normalised. Returns (N, width)."""
        taps = self.wave_taps.to(x.dtype)
        z = x * taps[:, 0]
        for j, before in enumerate(past.shifted(self.key, x, self.lags), start=1):
            z = z + before * taps[:, j]
        return F.linear(sine(z, *self.sine()), self.wave_out.to(x.dtype))
