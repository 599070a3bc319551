"""The shape of a model: one depth dial, or an explicit table, or a table that the dial completes.

The `portable` family is the feature set of the Hub architecture Qwen3 (RMSNorm, RoPE in halves, grouped-query
attention, RMSNorm on queries and keys, SwiGLU), so that a saved folder loads elsewhere without custom code.
The dial follows nanochat: width = 64 x depth; `derived_sizes` gives the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from gradus.core.errors import ConfigError
from gradus.core.settings import Settings, check_settings
from gradus.model.rope import RopeScaling

WIDTH_PER_DEPTH = 64
NARROW_WIDTH = 512  # up to this width a head has 64 channels, above it 128 where that divides
# How attention runs on a CPU: queries go in blocks, and the probabilities of documents up to a length are kept
# for the backward pass; longer ones would cost too much memory and are worked out again.
QUERY_BLOCK = 128
KEPT_LENGTH = 1024
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
    rope_scaling: RopeScaling | None = None
    norm_eps: float = Field(default=1e-6, gt=0.0)
    tie_embeddings: bool = False
    qk_norm: bool = True
    activation: Literal["swiglu"] = "swiglu"

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        problems = []
        if self.num_heads % self.num_kv_heads:
            problems.append(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            problems.append(f"head_dim {self.head_dim} is odd; rotary positions turn pairs of channels")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def query_width(self) -> int:
        """Channels of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Channels of all key heads together (values have as many)."""
        return self.num_kv_heads * self.head_dim


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
    config, problems = check_settings(ModelConfig, table)
    if config is None:
        raise ConfigError([f"model: {problem.text}" for problem in problems])
    return config


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _dial_depth(spec: object) -> int:
    match = _DIAL.fullmatch(spec) if isinstance(spec, str) else None
    if match is None:
        raise ConfigError(f'model: found {spec!r}; expected a dial such as "d4" (depth 4) or a table of settings')
    return int(match[1])
