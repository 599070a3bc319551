"""K-quants: GGUF types of 2 to 6 bits that llama.cpp's own quantiser makes from a file in fp32.

Rows are packed by 256 values. What does not divide gets a wider type of llama.cpp's choosing, which is said before, and
the types that a file came to have are told after. Torch-free until a file is made.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradus.core.errors import ConfigError, ExportError
from gradus.model.config import ModelConfig
from gradus.release.settings import GgufType

K_QUANTS = {"q6_k": "Q6_K", "q5_k_m": "Q5_K_M", "q4_k_m": "Q4_K_M", "q3_k_m": "Q3_K_M", "q2_k": "Q2_K"}
"""llama.cpp's names of them."""
_BLOCK = 256


def k_quants_note(config: ModelConfig, kinds: Sequence[GgufType]) -> str | None:
    """What to say of a shape before it is packed; None where all rows divide, or no K-quant is asked for.

    Errors: ConfigError where no row divides, so that nothing of the type would be left.
    """
    asked = [kind for kind in kinds if kind in K_QUANTS]
    rows = _row_lengths(config)
    odd = [length for length in rows if length % _BLOCK]
    if not asked or not odd:
        return None
    lengths = ", ".join(f"{length:,}" for length in odd)
    if len(odd) == len(rows):
        raise ConfigError(
            f"{', '.join(asked)}: K-quants pack {_BLOCK} values of a row together, and this model's rows have "
            f"{lengths}; choose q8_0, q5_1, q5_0, q4_1 or q4_0, which pack 32"
        )
    return (
        f"{', '.join(asked)}: K-quants pack {_BLOCK} values of a row together; rows of {lengths} do not divide, "
        "and llama.cpp gives them wider types"
    )


def _row_lengths(config: ModelConfig) -> list[int]:
    """Of the matrices: values in a row, each length once."""
    lengths = {config.width, config.num_heads * config.head_dim}
    if config.num_experts is None or config.dense_layers:
        lengths.add(config.mlp_width)
    if config.expert_width is not None:
        lengths |= {config.expert_width, config.expert_width * max(1, config.shared_experts)}
    return sorted(lengths)


def write_k_quant(fp32_file: Path, path: Path, kind: GgufType) -> None:
    """Make the file of a K-quant from one in fp32. Errors: MissingPackageError; ExportError."""
    from gradus.engine.llamacpp_library import last_words, library, num_threads

    api = library()
    settings = api.llama_model_quantize_default_params()
    settings.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{K_QUANTS[kind]}")
    settings.nthread = num_threads()
    if api.llama_model_quantize(str(fp32_file).encode(), str(path).encode(), ctypes.byref(settings)) != 0:
        raise ExportError(f"llama.cpp could not pack {path.name}: {last_words()}")


def tensor_types(path: Path) -> dict[str, int]:
    """How many matrices of a file have which type."""
    import gguf

    found = Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) > 1)
    return dict(found.most_common())
