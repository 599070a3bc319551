"""Where a model runs besides here: the class of the Hub that computes it, and what other runtimes make of that class.

Torch-free. What llama.cpp asks of a class was read in its source (b11549 and llama-cpp-python 0.3.36), what vLLM has in
its table of supported models; what is measured at every export is in release/.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradus.model.config import ModelConfig
from gradus.model.hub import CLASSES, model_type

VLLM_NATIVE = frozenset(CLASSES.values()) - {"MellumForCausalLM"}
"""Classes of the Hub that vLLM has of its own; the rest goes through its Transformers backend."""


@dataclass(frozen=True)
class Reach:
    """Which runtimes load an exported model, and why the others do not.

    kind: model_type of the class, or "gradus" for one that comes with its own code; each other field is what to say of
    that runtime: what it needs, or after "no: " why it cannot.
    """

    kind: str
    transformers: str
    vllm: str
    llamacpp: str

    @property
    def has_gguf(self) -> bool:
        """Whether llama.cpp, and with it Ollama, computes it."""
        return not self.llamacpp.startswith("no: ")

    def text(self) -> str:
        """One line for a plan."""
        return f"transformers ({self.transformers}); vLLM ({self.vllm}); llama.cpp and Ollama ({self.llamacpp})"


def portable_config(config: ModelConfig) -> ModelConfig | None:
    """The same function as a class of the Hub has it, where one does; weights change with it (see portable.py).

    Weightless norms of queries and keys become ones, the scale of a feed-forward moves into its last projection.
    """
    folded = {"family": "portable", "qk_norm_weights": True, "branch_scale": False}
    changed = config.model_copy(update=folded)
    return None if changed.classless_choices else changed


def reach(config: ModelConfig) -> Reach:
    """What loads a model of this shape once it is exported."""
    portable = portable_config(config)
    kind = model_type(portable) if portable is not None else None
    if portable is None or kind is None:
        why = f"no: no class of its own for {', '.join(config.classless_choices)}"
        return Reach("gradus", "with trust_remote_code=True", "no: it has no class for it", why)
    vllm = "native" if CLASSES[kind] in VLLM_NATIVE else "through its Transformers backend"
    problem = _gguf_problem(portable, kind)
    return Reach(kind, "native", vllm, f"no: {problem}" if problem else "GGUF")


def _gguf_problem(config: ModelConfig, kind: str) -> str:
    """What llama.cpp's form of a class leaves out."""
    if kind == "mellum" and config.num_experts is None:
        return "it has sliding windows only in a model with experts"
    if kind in {"mellum", "qwen3_moe"} and config.dense_layers:
        return "it has experts in every layer of this class, or in none"
    scaling = config.rope_scaling
    if kind == "mellum" and scaling is not None and any(config.windows):
        return "its layers with a window have no stretched positions in this class"
    if scaling is not None and not scaling.has_usual_betas:
        return "it stretches positions by YaRN with beta_fast 32 and beta_slow 1 alone in this class"
    if kind == "dots1" and config.num_kv_heads != config.num_heads:
        return "it has as many key heads as heads in this class"
    return ""
