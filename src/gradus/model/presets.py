"""Named shapes, as exact facts: what their sources wrote down, not what their names say. Torch-free.

A preset's vocabulary and context are those of its source; in a roadmap the tokenizer and the stage decide both.
The dial (`d4`, `d12`, ...) is no preset: see config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """settings: of ModelConfig, as in a roadmap's table; notes: where ours departs from the source."""

    settings: dict[str, Any]
    vocab_size: int
    context: int
    source: str
    notes: str = ""


def _psann(width: int, depth: int, heads: int) -> Preset:
    settings = {
        "family": "psann",
        "depth": depth,
        "width": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": width // heads,
        "mlp_width": 4 * width,
    }
    return Preset(settings, vocab_size=50_257, context=2048, source="PSANN-LM")


def _tardbot(
    depth: int, width: int, mlp_width: int, heads: int, kv_heads: int, experts: int | None = None, notes: str = ""
) -> Preset:
    """Its experts are as wide as the feed-forward they replace, and the first quarter of the layers has none."""
    settings: dict[str, Any] = {
        "depth": depth,
        "width": width,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": 64,
        "mlp_width": mlp_width,
        "tie_embeddings": True,
    }
    if experts is not None:
        settings |= {"num_experts": experts, "expert_width": mlp_width, "dense_layers": depth // 4}
    return Preset(settings, vocab_size=32_000, context=4096, source="TardBot", notes=notes)


PRESETS: dict[str, Preset] = {
    "psann-d256-L6": _psann(256, 6, 4),
    "psann-300M": _psann(1024, 16, 16),
    "psann-1B": _psann(2048, 22, 16),
    "psann-3B": _psann(3072, 30, 24),
    "dense_75m": _tardbot(12, 512, 2048, 8, 8),
    "dense_175m": _tardbot(16, 576, 2304, 9, 9),
    "mac_nano": _tardbot(12, 448, 1792, 7, 7, 5, "its 4 key heads do not divide 7 heads: 7"),
    "mac_mini": _tardbot(14, 512, 2304, 8, 4, 6),
    "expert_75m": _tardbot(16, 896, 28_672, 14, 7, 6),
    "mac_base": _tardbot(16, 640, 2560, 10, 5, 8),
    "mac_plus": _tardbot(18, 704, 2816, 11, 11, 8, "its 6 key heads do not divide 11 heads: 11"),
}
