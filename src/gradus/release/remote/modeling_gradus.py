# SPDX-License-Identifier: Apache-2.0
"""A gradus model for transformers, in one file without gradus: `from_pretrained(folder, trust_remote_code=True)`.

For models that no class of transformers computes. Weights are (out, in) under the names of the training code; norm
weights stand before the projection behind them. Read `config.gradus` for what the model is made of.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class GradusConfig(PretrainedConfig):
    """config.json. `gradus` holds every setting of the model."""

    model_type = "gradus"

    def __init__(self, gradus: dict[str, Any] | None = None, **kwargs: Any) -> None:
        settings = dict(gradus or {})
        self.gradus = settings
        self.vocab_size = settings.get("vocab_size", 0)
        self.hidden_size = settings.get("width", 0)
        self.num_hidden_layers = settings.get("depth", 0)
        self.num_attention_heads = settings.get("num_heads", 1)
        self.num_key_value_heads = settings.get("num_kv_heads", 1)
        self.head_dim = settings.get("head_dim", 0)
        self.max_position_embeddings = settings.get("context", 0)
        kwargs["tie_word_embeddings"] = False  # a tied head is the embedding itself: there is no second tensor
        super().__init__(**kwargs)


class LookBackCache(DynamicCache):
    """Keys and values, and what layers remember of the last tokens: `recent`, (B, reach, d) by name."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: dict[str, Tensor] = {}

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.recent = {name: x.index_select(0, beam_idx.to(x.device)) for name, x in self.recent.items()}

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.recent = {name: x.repeat_interleave(repeats, dim=0) for name, x in self.recent.items()}

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.recent = {name: x[indices] for name, x in self.recent.items()}


class Settings:
    """The settings by attribute, and what follows from them."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.__dict__.update(table)
        pattern, window = table["window_pattern"], table["window"]
        marked = [window if pattern and pattern[i % len(pattern)] == "S" else None for i in range(table["depth"])]
        self.windows = [*marked[:-1], None]
        self.query_width = table["num_heads"] * table["head_dim"]
        self.kv_width = table["num_kv_heads"] * table["head_dim"]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"config.json: the setting {name!r} is missing under 'gradus'")

    def has_value_embedding(self, layer: int) -> bool:
        return bool(self.value_embeddings) and (self.depth - 1 - layer) % 2 == 0

    def has_experts(self, layer: int) -> bool:
        return self.num_experts is not None and layer >= self.dense_layers


class Step:
    """What layers read besides the residual (B, T, d): tokens, the embedding, rotations, mask, cache."""

    def __init__(self, tokens: Tensor, valid: Tensor, cos: Tensor, sin: Tensor, cache: LookBackCache | None) -> None:
        self.tokens, self.valid, self.cos, self.sin, self.cache = tokens, valid, cos, sin, cache
        self.start: Tensor | None = None
        self.masks: dict[int | None, Tensor | None] = {}

    def last(self, name: str, x: Tensor, reach: int) -> Tensor:
        """x behind the `reach` values that came before it: (B, reach + T, d). Padding counts as zero."""
        x = x * self.valid[..., None]
        before = None if self.cache is None else self.cache.recent.get(name)
        if before is None:
            before = x.new_zeros(x.shape[0], reach, x.shape[2])
        whole = torch.cat([before, x], dim=1)
        if self.cache is not None:
            self.cache.recent[name] = whole[:, whole.shape[1] - reach :]
        return whole


def vector(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*size))


def rms_norm(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


class Sine(nn.Module):
    """A exp(-d |z|) sin(f z), channel by channel; raw values behind a softplus, or a sigmoid between bounds."""

    def __init__(self, s: Settings, width: int) -> None:
        super().__init__()
        self.amplitude, self.frequency, self.damping = vector(width), vector(width), vector(width)
        self.bounds = {name: s.sine[f"{name}_bounds"] for name in ("amplitude", "frequency", "damping")}

    def _value(self, name: str) -> Tensor:
        raw, bounds = getattr(self, name).float(), self.bounds[name]
        return F.softplus(raw) if bounds is None else bounds[0] + (bounds[1] - bounds[0]) * raw.sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        wide = z.float()
        decay = torch.exp(-self._value("damping") * wide.abs())
        return (self._value("amplitude") * decay * torch.sin(self._value("frequency") * wide)).to(z.dtype)


class Wave(nn.Module):
    """A causal convolution, channel by channel, the sine, and a projection."""

    def __init__(self, s: Settings, layer: int) -> None:
        super().__init__()
        self.name = f"{layer}/wave"
        self.lags = [j * s.wave_dilation for j in range(s.wave_kernel)]
        self.wave_taps, self.wave_out = vector(s.width, s.wave_kernel), vector(s.width, s.width)
        self.sine = Sine(s, s.width)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        reach, length = self.lags[-1], x.shape[1]
        whole = step.last(self.name, x, reach)
        shifted = [whole[:, reach - lag : reach - lag + length] for lag in self.lags]
        z = sum(part * self.wave_taps[:, j] for j, part in enumerate(shifted))
        return F.linear(self.sine(z), self.wave_out)


class Experts(nn.Module):
    """A mixture of experts without a limit on what an expert takes."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.s = s
        shared = s.shared_experts * s.expert_width
        has_bias = s.router == "sigmoid" or s.balance == "bias"
        self.router = vector(s.num_experts, s.width)
        self.router_bias = vector(s.num_experts) if has_bias else None
        self.expert_gate_up = vector(s.num_experts * 2 * s.expert_width, s.width)
        self.expert_down = vector(s.num_experts * s.width, s.expert_width)
        self.shared_gate_up = vector(2 * shared, s.width) if shared else None
        self.shared_down = vector(s.width, shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        s, flat = self.s, x.flatten(0, 1)
        logits = F.linear(flat.float(), self.router.float())
        scores = logits.softmax(-1) if s.router == "softmax" else logits.sigmoid()
        ranked = scores if self.router_bias is None else scores + self.router_bias.float()
        chosen = ranked.topk(s.experts_per_token, dim=-1).indices
        weights = scores.gather(1, chosen)
        weights = (weights / (weights.sum(-1, keepdim=True) + 1e-20)).to(x.dtype)
        gate_up = self.expert_gate_up.view(s.num_experts, -1, s.width)
        down = self.expert_down.view(s.num_experts, s.width, -1)
        out = torch.zeros_like(flat)
        for expert in chosen.unique().tolist():
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            out.index_add_(0, rows, gated(flat[rows], gate_up[expert], down[expert]) * weights[rows, places, None])
        if self.shared_gate_up is not None:
            out = out + gated(flat, self.shared_gate_up, self.shared_down)
        return out.view_as(x)


def gated(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


class Block(nn.Module):
    """One layer."""

    def __init__(self, s: Settings, layer: int) -> None:
        super().__init__()
        self.s, self.layer = s, layer
        self.attention_norm, self.mlp_norm = vector(s.width), vector(s.width)
        self.qkv, self.out = vector(s.query_width + 2 * s.kv_width, s.width), vector(s.width, s.query_width)
        has_norms = s.qk_norm and s.qk_norm_weights
        self.query_norm = vector(s.head_dim) if has_norms else None
        self.key_norm = vector(s.head_dim) if has_norms else None
        self.experts = Experts(s) if s.has_experts(layer) else None
        if self.experts is None:
            if s.activation == "swiglu":
                self.gate_up = vector(2 * s.mlp_width, s.width)
            else:
                self.up = vector(s.mlp_width, s.width)
            self.down = vector(s.width, s.mlp_width)
        self.sine = Sine(s, s.mlp_width) if s.activation == "sine" else None
        self.branch_scale = vector(1) if s.branch_scale else None
        self.wave = Wave(s, layer) if s.wave_kernel is not None else None
        self.spectral_taps = vector(s.width, s.spectral_length) if s.spectral_length else None
        self.residual_scale = vector(1) if s.residual_scalars else None
        self.start_scale = vector(1) if s.residual_scalars else None
        has_values = s.has_value_embedding(layer)
        self.value_embedding = vector(s.vocab_size, s.kv_width) if has_values else None
        self.value_gate = vector(s.num_kv_heads, min(12, s.width)) if has_values else None

    def forward(self, x: Tensor, step: Step) -> Tensor:
        s = self.s
        if self.residual_scale is not None:
            x = self.residual_scale * x + self.start_scale * step.start
        if self.wave is not None:
            x = x + self.wave(rms_norm(x, s.norm_eps), step)
        if self.spectral_taps is not None:
            x = x + self._filtered(rms_norm(x, s.norm_eps), step)
        x = x + F.linear(self._attended(rms_norm(x, s.norm_eps), step), self.out)
        normed = rms_norm(x, s.norm_eps) * self.mlp_norm
        if self.experts is not None:
            out = self.experts(normed)
        elif s.activation == "swiglu":
            out = gated(normed, self.gate_up, self.down)
        else:
            inner = F.linear(normed, self.up)
            out = F.linear(self.sine(inner) if self.sine is not None else F.relu(inner).square(), self.down)
        return x + (out if self.branch_scale is None else out * self.branch_scale)

    def _filtered(self, x: Tensor, step: Step) -> Tensor:
        """sum_j taps_j x_(n - j), channel by channel."""
        reach, length = self.spectral_taps.shape[1] - 1, x.shape[1]
        whole = step.last(f"{self.layer}/spectral", x, reach)
        kernel = self.spectral_taps.flip(1)[:, None].to(x.dtype)
        return F.conv1d(whole.transpose(1, 2), kernel, groups=x.shape[2]).transpose(1, 2)[:, -length:]

    def _attended(self, x: Tensor, step: Step) -> Tensor:
        s, (batch, length, _) = self.s, x.shape
        heads = F.linear(x * self.attention_norm, self.qkv).view(batch, length, -1, s.head_dim)
        queries, keys, values = heads.split([s.num_heads, s.num_kv_heads, s.num_kv_heads], dim=2)
        if self.value_embedding is not None:
            gate = 3 * torch.sigmoid(F.linear(x[..., : self.value_gate.shape[1]], self.value_gate))
            values = values + gate[..., None] * F.embedding(step.tokens, self.value_embedding).view_as(values)
        if s.qk_norm:
            queries, keys = rms_norm(queries, s.norm_eps), rms_norm(keys, s.norm_eps)
        if self.query_norm is not None:
            queries, keys = queries * self.query_norm, keys * self.key_norm
        queries, keys = turned(queries, step), turned(keys, step)
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))  # (B, H, T, D)
        if step.cache is not None:
            keys, values = step.cache.update(keys, values, self.layer)
        groups = s.num_heads // s.num_kv_heads
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
        mask = step.masks[s.windows[self.layer]]
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None)
        return out.transpose(1, 2).flatten(2)


def turned(x: Tensor, step: Step) -> Tensor:
    """x (B, T, H, D), its channel pairs (i, i + D/2) turned."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = step.cos[:, :, None].to(x.dtype), step.sin[:, :, None].to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class GradusForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder with its head."""

    config_class = GradusConfig
    _supports_sdpa = True
    _no_split_modules = ("Block",)

    def __init__(self, config: GradusConfig) -> None:
        super().__init__(config)
        self.s = s = Settings(config.gradus)
        self.embedding, self.norm = vector(s.vocab_size, s.width), vector(s.width)
        self.blocks = nn.ModuleList(Block(s, layer) for layer in range(s.depth))
        self.unembedding = None if s.tie_embeddings else vector(s.vocab_size, s.width)
        self.smear_gate = vector(1, min(24, s.width)) if s.smear else None
        self.smear_scale = vector(1) if s.smear else None
        self.backout_scale = vector(1) if s.backout else None
        self.post_init()

    def get_input_embeddings(self) -> None:
        return None  # the embedding is a bare parameter

    def get_output_embeddings(self) -> None:
        return None

    def _init_weights(self, module: nn.Module) -> None:
        """Every weight comes from the folder."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids (B, T), padded on the left if at all. Returns logits (B, T, vocabulary), of the last ones asked."""
        s, (batch, length) = self.s, input_ids.shape
        cache = past_key_values if isinstance(past_key_values, LookBackCache) else None
        if cache is None and (use_cache or past_key_values is not None):
            if past_key_values is not None and past_key_values.get_seq_length():
                raise ValueError("this model goes on from the cache that it returned itself, and from no other")
            cache = LookBackCache()
        before = 0 if cache is None else cache.get_seq_length()
        if attention_mask is None:
            attention_mask = input_ids.new_ones(batch, before + length)
        seen = attention_mask.bool()
        # From the mask, whatever was given: padding has no place.
        position_ids = (seen.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        step = Step(input_ids, seen[:, -length:], *self._rotation(position_ids), cache)
        step.masks = {window: self._mask(seen, length, window) for window in set(s.windows)}
        x = F.embedding(input_ids, self.embedding)
        if self.smear_gate is not None:
            previous = step.last("smear", x, 1)[:, :length]
            gate = torch.sigmoid(F.linear(x[..., : self.smear_gate.shape[1]], self.smear_gate))
            x = x + self.smear_scale * gate * previous
        step.start = x
        middle = x
        for layer, block in enumerate(self.blocks):
            x = block(x, step)
            if layer == s.depth // 2:
                middle = x
        if self.backout_scale is not None:
            x = x - self.backout_scale * middle
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        x = rms_norm(x[:, kept], s.norm_eps) * self.norm
        logits = F.linear(x, self.embedding if self.unembedding is None else self.unembedding)
        if s.softcap is not None:
            logits = s.softcap * torch.tanh(logits / s.softcap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    @staticmethod
    def _mask(seen: Tensor, length: int, window: int | None) -> Tensor | None:
        """(B, 1, T, P + T), True where a token looks; None for plain causal attention."""
        total = seen.shape[1]
        if total == length and window is None and bool(seen.all()):
            return None
        places = torch.arange(total, device=seen.device)
        distance = places[total - length :, None] - places
        mask = distance >= 0
        if window is not None:
            mask = mask & (distance < window)
        # Padding looks at itself, so that no row is empty.
        return ((mask & seen[:, None]) | (distance == 0))[:, None]

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, T, D/2); frequencies stretched by YaRN where the settings say so."""
        s, scaling = self.s, self.s.rope_scaling
        half = s.head_dim // 2
        steps = torch.arange(half, device=positions.device, dtype=torch.float32)
        frequencies = s.rope_base ** (-steps / half)
        if scaling is None:
            angles = positions[..., None].float() * frequencies
            return angles.cos(), angles.sin()

        def channel(turns: float) -> float:
            return (
                s.head_dim * math.log(scaling["original_context"] / (turns * 2 * math.pi)) / (2 * math.log(s.rope_base))
            )

        low = max(0, math.floor(channel(scaling["beta_fast"])))
        high = min(s.head_dim - 1, math.ceil(channel(scaling["beta_slow"])))
        stretched = ((steps - low) / (high - low or 0.001)).clamp(0, 1)
        frequencies = frequencies * (1 - stretched) + frequencies / scaling["factor"] * stretched
        factor = scaling["attention_factor"]
        magnitude = 0.1 * math.log(scaling["factor"]) + 1 if factor is None else factor
        angles = positions[..., None].float() * frequencies
        return angles.cos() * magnitude, angles.sin() * magnitude
