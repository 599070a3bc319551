"""The shape of a model: one depth dial, or an explicit table, or a table that the dial completes.

The `portable` family is the feature set of the Hub architecture Qwen3 (RMSNorm, RoPE in halves, grouped-query
attention, RMSNorm on queries and keys, SwiGLU), so that a saved folder loads elsewhere without custom code.
With experts it is that of Qwen3Moe (softmax) or Dots1 (sigmoid, shared expert); what neither computes is refused.
The dial follows nanochat: width = 64 x depth; `derived_sizes` gives the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from gradus.core.errors import ConfigError
from gradus.core.settings import Settings, check_settings

WIDTH_PER_DEPTH = 64
NARROW_WIDTH = 512  # up to this width a head has 64 channels, above it 128 where that divides
# How attention runs on a CPU: queries go in blocks, and the probabilities of documents up to a length are kept
# for the backward pass; longer ones would cost too much memory and are worked out again.
QUERY_BLOCK = 128
KEPT_LENGTH = 1024
_SIZES = frozenset({
    "preset", "depth", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width", "expert_width", "dense_layers",
    "context", "vocab_size",
})  # fmt: skip
_DIAL = re.compile(r"d([1-9][0-9]{0,2})")


class ModelConfig(Settings):
    """Every number that fixes the function a model computes. Sizes are in channels or tokens."""

    family: Literal["portable"] = "portable"
    depth: int = Field(ge=1)
    width: int = Field(ge=2)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    mlp_width: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    context: int = Field(ge=1)
    rope_base: float = Field(default=10_000.0, gt=1.0)
    norm_eps: float = Field(default=1e-6, gt=0.0)
    tie_embeddings: bool = False
    qk_norm: bool = True
    activation: Literal["swiglu"] = "swiglu"
    # Experts in place of the feed-forward of all but the first `dense_layers` layers; None: none.
    num_experts: int | None = Field(default=None, ge=2)
    experts_per_token: int = Field(default=2, ge=1)
    expert_width: int | None = Field(default=None, ge=1)
    shared_experts: int = Field(default=0, ge=0)  # every token passes through a feed-forward of so many expert widths
    dense_layers: int = Field(default=0, ge=0)
    router: Literal["softmax", "sigmoid"] = "softmax"
    balance: Literal["loss", "bias"] = "loss"
    balance_weight: float = Field(default=0.01, ge=0.0)  # of the auxiliary loss

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        problems = self._expert_problems()
        if self.num_heads % self.num_kv_heads:
            problems.append(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            problems.append(f"head_dim {self.head_dim} is odd; rotary positions turn pairs of channels")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _expert_problems(self) -> list[str]:
        """What does not fit in the choice of experts, and what the portable family cannot export."""
        if self.num_experts is None:
            idle = [key for key in EXPERT_KEYS if getattr(self, key) != ModelConfig.model_fields[key].default]
            return [f"{key} needs num_experts" for key in idle]
        problems = []
        if self.expert_width is None:
            problems.append("expert_width is missing")
        if self.experts_per_token > self.num_experts:
            problems.append(f"experts_per_token {self.experts_per_token} is more than num_experts {self.num_experts}")
        if self.experts_per_token < 2:
            # Weights add up to one over the chosen: that of a single expert is 1 whatever the router says.
            problems.append("experts_per_token is 1, with which the router learns nothing; expected at least 2")
        if self.dense_layers >= self.depth:
            problems.append(f"dense_layers {self.dense_layers} leaves no layer of {self.depth} for experts")
        return problems + self._unportable_experts()

    def _unportable_experts(self) -> list[str]:
        """Choices of experts that no class of the Hub computes."""
        problems = []
        if not self.qk_norm:
            problems.append("no Hub class computes these experts without qk_norm")
        if self.router == "softmax" and self.balance == "bias":
            problems.append('no Hub class computes router "softmax" with balance "bias"; use router "sigmoid"')
        if self.router == "softmax" and self.shared_experts:
            problems.append('no Hub class computes shared_experts with router "softmax"; use router "sigmoid"')
        if self.router == "sigmoid" and not self.shared_experts:
            problems.append('no Hub class computes router "sigmoid" without a shared expert; set shared_experts = 1')
        return problems

    def has_experts(self, layer: int) -> bool:
        """Whether a layer, from 0, has experts in place of its feed-forward."""
        return self.num_experts is not None and layer >= self.dense_layers

    @property
    def has_router_bias(self) -> bool:
        """Whether routers choose by score plus a bias that only balances."""
        return self.router == "sigmoid" or self.balance == "bias"

    @property
    def query_width(self) -> int:
        """Channels of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Channels of all key heads together (values have as many)."""
        return self.num_kv_heads * self.head_dim


# Settings of ModelConfig that mean nothing without experts.
EXPERT_KEYS = (
    "experts_per_token", "expert_width", "shared_experts", "dense_layers", "router", "balance", "balance_weight",
)  # fmt: skip


def derived_sizes(width: int, head_dim: int | None = None) -> dict[str, int]:
    """Heads and feed-forward width for a model width; `head_dim` overrides the derived head size.

    8/3 x width keeps a layer near 12 width^2 matrix parameters; it is rounded to a multiple of 32 (256 from
    width 768 on), which matrix units and the block quantisation of exports want.
    """
    if head_dim is None:
        head_dim = 128 if width > NARROW_WIDTH and width % 128 == 0 else min(64, width)
    heads = max(1, width // head_dim)
    step = 32 if width < 768 else 256
    return {
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_dim,
        "mlp_width": max(step, round(width * 8 / 3 / step) * step),
    }


def model_config(spec: str | Mapping[str, Any], vocab_size: int, context: int) -> ModelConfig:
    """A checked config from a dial (`"d4"`) or a table (`{depth = 4, width = 192}`).

    A table may start from a dial (`preset = "d4"`) and set anything; what it leaves out is derived from its
    width. `vocab_size` and `context` hold unless the table sets its own. Raises ConfigError with every
    problem.
    """
    if isinstance(spec, str):
        table: dict[str, Any] = {"depth": _dial_depth(spec)}
    else:
        table = dict(spec)
        preset = table.pop("preset", None)
        if preset is not None:
            table.setdefault("depth", _dial_depth(preset))
            table.setdefault("width", WIDTH_PER_DEPTH * _dial_depth(preset))
    table = {"vocab_size": vocab_size, "context": context} | table
    depth, width, head_dim = (table.get(key) for key in ("depth", "width", "head_dim"))
    if width is None and _is_size(depth):
        table["width"] = width = WIDTH_PER_DEPTH * depth  # type: ignore[operator]
    if _is_size(width):
        sizes = derived_sizes(width, head_dim if _is_size(head_dim) else None)  # type: ignore[arg-type]
        if "num_heads" in table:
            sizes["num_kv_heads"] = table["num_heads"]
        table = sizes | table
    if _is_size(table.get("num_experts")):
        table = {"expert_width": _expert_width(table)} | table
    config, problems = check_settings(ModelConfig, table)
    if config is None:
        raise ConfigError([f"model: {problem.text}" for problem in problems])
    return config


def toy_model(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """The table of a model of the same make, two layers deep and 64 wide, with a width derived for all else."""
    choices = {} if isinstance(spec, str) else {key: spec[key] for key in spec if key not in _SIZES}
    return choices | {"depth": 2, "width": 64}


def _expert_width(table: Mapping[str, Any]) -> int | None:
    """The width at which the experts of one token together are as wide as the feed-forward they replace."""
    mlp_width, chosen, shared = (
        table.get(key, ModelConfig.model_fields[key].default)
        for key in ("mlp_width", "experts_per_token", "shared_experts")
    )
    if not (_is_size(mlp_width) and _is_size(chosen)):
        return None
    parts = chosen + (shared if _is_size(shared) else 0)
    width: int = max(32, round(mlp_width / parts / 32) * 32)
    return width


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _dial_depth(spec: object) -> int:
    match = _DIAL.fullmatch(spec) if isinstance(spec, str) else None
    if match is None:
        raise ConfigError(f'model: found {spec!r}; expected a dial such as "d4" (depth 4) or a table of settings')
    return int(match[1])
