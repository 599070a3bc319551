"""Rotary positions: their frequencies, stretched for a longer context by YaRN, and the Hub's fields for it.

Source: RoPE, Su et al. 2021, in halves; YaRN, Peng et al. 2023, "NTK-by-parts" (section 3.2) and the temperature of
section 3.3, which here multiplies cosine and sine, as the Hub's classes do. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gradus.core.settings import Settings

# Keys of the Hub's rope_scaling that change nothing here, or only at the values given.
_KNOWN_KEYS = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast",
               "beta_slow", "attention_factor", "truncate"}  # fmt: skip


class RopeScaling(Settings):
    """YaRN. factor: by how much positions are compressed; original_context: tokens that the model knew before.

    Frequencies that turn more than beta_fast times within original_context stay, those that turn fewer than beta_slow
    times are divided by the factor, in between it is a mixture. attention_factor: 0.1 ln(factor) + 1 if None.
    """

    factor: float = Field(gt=1.0)
    original_context: int = Field(ge=1)
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    attention_factor: float | None = Field(default=None, gt=0)

    @property
    def magnitude(self) -> float:
        """What cosine and sine are multiplied by."""
        return self.attention_factor if self.attention_factor is not None else self.usual_magnitude

    @property
    def usual_magnitude(self) -> float:
        """The same where nobody says otherwise."""
        return 0.1 * math.log(self.factor) + 1

    @property
    def has_usual_betas(self) -> bool:
        """Whether frequencies are mixed between YaRN's own bounds."""
        fields = RopeScaling.model_fields
        return (self.beta_fast, self.beta_slow) == (fields["beta_fast"].default, fields["beta_slow"].default)


def scaled_frequencies(base: float, head_dim: int, scaling: RopeScaling) -> list[float]:
    """Radians a position, (head_dim / 2,)."""
    half = head_dim // 2
    plain = [base ** (-i / half) for i in range(half)]
    low = max(0, math.floor(_channel_of(scaling.beta_fast, base, head_dim, scaling)))
    high = min(head_dim - 1, math.ceil(_channel_of(scaling.beta_slow, base, head_dim, scaling)))
    width = high - low or 0.001
    # 1 where a frequency stays as it is, 0 where it is divided.
    kept = [1 - min(1.0, max(0.0, (i - low) / width)) for i in range(half)]
    return [f * keep + f / scaling.factor * (1 - keep) for f, keep in zip(plain, kept, strict=True)]


def _channel_of(turns: float, base: float, head_dim: int, scaling: RopeScaling) -> float:
    """The channel pair that turns so many times within the original context."""
    return head_dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))


def rescaled_base(base: float, head_dim: int, factor: float) -> float:
    """The base whose slowest frequency is `factor` times slower ("NTK-aware" scaling, bloc97 2023)."""
    return float(base * factor ** (head_dim / max(1, head_dim - 2)))


def hub_rope(base: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """config.json's fields for rotary positions."""
    if scaling is None:
        return {"rope_theta": base}
    fields: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_context,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }
    if scaling.attention_factor is not None:
        fields["attention_factor"] = scaling.attention_factor
    return {"rope_theta": base, "rope_scaling": fields}


def rope_from_hub(table: Mapping[str, Any]) -> tuple[float, RopeScaling | None, list[str]]:
    """(base, scaling, what this decoder cannot compute) of a config.json."""
    fields = dict(table.get("rope_scaling") or {}) | dict(table.get("rope_parameters") or {})
    base = float(table.get("rope_theta") or fields.get("rope_theta") or 10_000.0)
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind == "default":
        return base, None, []
    if kind != "yarn":
        return base, None, [f'rope scaling is {kind!r}, expected "default" or "yarn"']
    problems = [f"rope scaling has {key}" for key in sorted(fields.keys() - _KNOWN_KEYS) if fields[key] is not None]
    if fields.get("truncate", True) is not True:
        problems.append("rope scaling has truncate = false")
    if "factor" not in fields:
        problems.append("rope scaling has no factor")
    if problems:
        return base, None, problems
    scaling = RopeScaling(
        factor=fields["factor"],
        original_context=fields.get("original_max_position_embeddings") or table["max_position_embeddings"],
        beta_fast=fields.get("beta_fast") or 32.0,
        beta_slow=fields.get("beta_slow") or 1.0,
        attention_factor=fields.get("attention_factor"),
    )
    return base, scaling, []
