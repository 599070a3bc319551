"""What a model costs, from its config alone: parameters, FLOPs, memory, KV cache. Torch-free.

FLOPs count two per multiply-add of matrix products, forward and backward, without element-wise work
(Kaplan et al. 2020: 6 per matrix parameter and token, plus attention). Tests equate it with built models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradus.core.errors import ConfigError
from gradus.model.config import (
    KEPT_LENGTH,
    LOGITS_ON_CPU,
    LOGITS_ON_GPU,
    QUERY_TILE,
    SMEAR_GATE_CHANNELS,
    VALUE_GATE_CHANNELS,
    LoraSettings,
    ModelConfig,
)

# What an optimizer keeps for each value of a parameter, in bytes; Adafactor's rows and columns are next to nothing.
STATE_BYTES = {"muon": 4.0, "adamw": 8.0, "adamw8bit": 2 * (1 + 4 / 256), "adafactor": 0.0}
# Of a matrix, and of anything else.
_MUON_AND_ADAMW = (STATE_BYTES["muon"], STATE_BYTES["adamw"])


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. `matrix` are those inside blocks; `head` is 0 where it is the embedding.

    expert: of all experts; active_expert: of those that one token passes through.
    """

    matrix: int
    embed: int
    head: int
    vector: int
    scalar: int = 0
    expert: int = 0
    active_expert: int = 0
    balance: int = 0

    @property
    def total(self) -> int:
        parts = self.matrix, self.embed, self.head, self.vector, self.scalar, self.expert, self.balance
        return sum(parts)

    @property
    def active(self) -> int:
        """What one token passes through; all of it where there are no experts."""
        return self.total - self.expert + self.active_expert


def parameters(config: ModelConfig) -> ParameterCount:
    """Exact parameter counts."""
    c = config
    experts, expert_width = c.num_experts or 0, c.expert_width or 0
    num_sparse = sum(c.has_experts(layer) for layer in range(c.depth))
    attention = c.width * (2 * c.query_width + 2 * c.kv_width)
    dense = (3 if c.is_gated else 2) * c.width * c.mlp_width
    around_experts = c.width * (experts + 3 * c.shared_experts * expert_width)  # routers and shared experts
    per_expert = 3 * c.width * expert_width
    wave = c.width * c.width if c.wave_kernel else 0
    num_values = sum(c.has_value_embedding(layer) for layer in range(c.depth))
    table = c.vocab_size * c.width
    return ParameterCount(
        matrix=c.depth * (attention + wave) + (c.depth - num_sparse) * dense + num_sparse * around_experts,
        embed=table + num_values * c.vocab_size * c.kv_width,
        head=0 if c.tie_embeddings else table,
        vector=c.depth * _layer_vectors(c) + c.width + _value_gates(c),
        scalar=c.depth * c.residual_scalars + _smear_gate(c) + c.smear + c.backout,
        expert=num_sparse * experts * per_expert,
        active_expert=num_sparse * c.experts_per_token * per_expert,
        balance=num_sparse * experts if c.has_router_bias else 0,
    )


def projection_sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of each of the Hub's modules that can have an adapter."""
    c = config
    return {
        "q_proj": (c.width, c.query_width),
        "k_proj": (c.width, c.kv_width),
        "v_proj": (c.width, c.kv_width),
        "o_proj": (c.query_width, c.width),
        "gate_proj": (c.width, c.mlp_width),
        "up_proj": (c.width, c.mlp_width),
        "down_proj": (c.mlp_width, c.width),
    }


def adapter_parameters(config: ModelConfig, lora: LoraSettings) -> int:
    """Parameters of the adapters of all layers."""
    sizes = projection_sizes(config)
    return config.depth * lora.rank * sum(sum(sizes[target]) for target in lora.targets)


def check_adapters(config: ModelConfig, settings: LoraSettings) -> None:
    """ConfigError where this model cannot have these adapters."""
    found = [] if config.family == "portable" else [f'family "{config.family}"']
    found += ["experts"] if config.num_experts is not None else []
    found += [] if config.is_gated else [f'activation "{config.activation}"']
    if found:
        raise ConfigError(
            f'lora is for models of family "portable" with SwiGLU and without experts, found {", ".join(found)}; '
            "leave lora out"
        )
    smallest = min(min(projection_sizes(config)[target]) for target in settings.targets)
    if settings.rank > smallest:
        raise ConfigError(f"lora: rank {settings.rank} is more than the {smallest} channels of the smallest projection")


def _value_gates(config: ModelConfig) -> int:
    num_values = sum(config.has_value_embedding(layer) for layer in range(config.depth))
    return num_values * config.num_kv_heads * min(VALUE_GATE_CHANNELS, config.width)


def _smear_gate(config: ModelConfig) -> int:
    return min(SMEAR_GATE_CHANNELS, config.width) if config.smear else 0


def _layer_vectors(config: ModelConfig) -> int:
    """Values of one layer's vectors: norms, activation, filters, scales; the value embedding's gate is apart."""
    c = config
    norms = 2 * c.width + (2 * c.head_dim if c.qk_norm and c.qk_norm_weights else 0)
    sines = 3 * c.mlp_width * (c.activation == "sine")
    wave = c.width * (c.wave_kernel + 3) if c.wave_kernel else 0
    return norms + sines + wave + c.width * (c.spectral_length or 0) + c.branch_scale + c.residual_scalars


def multiplied_parameters(config: ModelConfig) -> int:
    """Parameters that every token is multiplied by: matrices, its experts and the head (a tied head counts)."""
    count = parameters(config)
    return count.matrix + count.active_expert + config.vocab_size * config.width


def forward_flops_per_token(config: ModelConfig, mean_context: float, head_fraction: float = 1.0) -> float:
    """FLOPs of one forward pass per token.

    mean_context: positions a token attends to on average, itself included; for documents of length t it is
    (t + 1) / 2, and a layer with a window counts what such documents let it see. head_fraction: tokens the head is
    computed for. A spectral gate's filter is not counted: its work is that of a transform, not of matrices.
    """
    c = config
    seen = sum(_mean_seen(mean_context, window) for window in c.windows)
    attention = 4.0 * c.query_width * seen  # scores, then values
    matrices = multiplied_parameters(c) - c.vocab_size * c.width
    return 2.0 * (matrices + _value_gates(c) + _smear_gate(c) + head_fraction * c.vocab_size * c.width) + attention


def _mean_seen(mean_context: float, window: int | None) -> float:
    """Positions that a token sees on average through a window, in documents of length 2 mean_context - 1."""
    length = 2 * mean_context - 1
    if window is None or window >= length:
        return mean_context
    return window - window * (window - 1) / (2 * length)


def flops_per_token(config: ModelConfig, mean_context: float, head_fraction: float = 1.0) -> float:
    """FLOPs of one training step per token: forward once, backward twice."""
    return 3.0 * forward_flops_per_token(config, mean_context, head_fraction)


def flops_of_shared(config: ModelConfig) -> float:
    """What a training step saves for each token that is computed once for several documents: all but its attention.

    Such a token has no target, so the head is not computed for it.
    """
    return flops_per_token(config, 0.0, 0.0)


def mean_context(document_lengths: list[int]) -> float:
    """Positions that a token attends to on average in documents of these lengths."""
    tokens = sum(document_lengths)
    return sum(n * (n + 1) / 2 for n in document_lengths) / tokens if tokens else 0.0


def kv_bytes_per_token(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Bytes that one token keeps in the cache, keys and values of all layers."""
    return 2 * config.depth * config.kv_width * bytes_per_value


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by part while training in one process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_memory(
    config: ModelConfig,
    tokens_per_micro_batch: int,
    compute_bytes: int = 2,
    mean_context: float | None = None,
    on_cpu: bool = True,
    state_bytes: tuple[float, float] = _MUON_AND_ADAMW,
) -> TrainingMemory:
    """Memory of one training step of one process, by part.

    Weights and gradients are fp32. state_bytes: what the optimizer keeps for a value of a matrix, and of the rest.
    Activations are what the
    backward pass keeps of each block; logits exist one chunk of tokens at a time. mean_context: positions a
    token attends to on average, None for rows that are one full document each. on_cpu: whether the step runs on one,
    where attention keeps its probabilities of short documents for the backward pass and logits are fewer at a time.
    """
    c = config
    count = parameters(c)
    if mean_context is None:
        mean_context = (c.context + 1) / 2
    heads = 2 * c.query_width + 2 * c.kv_width + c.query_width  # normalised q and k, all heads, attention out
    kept = on_cpu and c.context <= KEPT_LENGTH
    probabilities = c.num_heads * (mean_context + QUERY_TILE / 2) if kept else 0.0
    # Two normalised inputs and the attention's part, in each layer.
    per_layer = 2 * c.width + heads + c.kv_width + probabilities
    num_sparse = sum(c.has_experts(layer) for layer in range(c.depth))
    others = (c.depth - num_sparse) * _dense_activations(c) + num_sparse * _expert_activations(c, compute_bytes)
    others += _choice_activations(c)
    multiplied = count.matrix + count.expert + c.vocab_size * c.width
    compute_copy = compute_bytes * multiplied if compute_bytes < 4 else 0
    matrices = count.matrix + count.expert
    logits = min(LOGITS_ON_CPU if on_cpu else LOGITS_ON_GPU, tokens_per_micro_batch * c.vocab_size)
    return TrainingMemory(
        weights=4 * count.total + compute_copy,
        gradients=4 * count.total,
        optimizer=round(state_bytes[0] * matrices + state_bytes[1] * (count.total - matrices - count.balance)),
        # The last layer's input to the head counts twice.
        activations=round(tokens_per_micro_batch * compute_bytes * (c.depth * per_layer + others + 2 * c.width)),
        logits=logits * 2 * compute_bytes,
    )


def sharded_memory(
    config: ModelConfig,
    tokens_per_micro_batch: int,
    ranks: int,
    activation_checkpointing: Literal["none", "selective", "full"] = "none",
    micro_batches: int = 1,
    compute_bytes: int = 2,
    state_bytes: tuple[float, float] = _MUON_AND_ADAMW,
    offload: bool = False,
) -> TrainingMemory:
    """Memory of one process of `ranks` that hold a model by rows together, by part, at the step's worst moment.

    That is where the backward pass begins (all activations), where it ends (all gradients), or the optimizer's work
    (its matrices whole). Embedding and head stay gathered through both passes, and of the layers the one at work and
    the next. Gradients of several micro-batches add up whole before they are shared out. Rows are full documents.
    offload: of its GPU alone, where weights, gradients and the optimizer's state and work are the host's.
    """
    c = config
    count = parameters(c)
    whole = training_memory(c, tokens_per_micro_batch, compute_bytes, state_bytes=state_bytes)
    matrices = count.matrix + count.expert
    root = 4 * (c.vocab_size * c.width + count.head)  # embeddings of values lie in their layers
    held, block = (
        0 if offload else 4 * count.total // ranks,
        (4 * (count.embed + count.head + matrices) - root) // c.depth,
    )
    owned = 0 if offload else 4 * matrices // ranks
    per_value = tokens_per_micro_batch * compute_bytes
    copies = compute_bytes * matrices if compute_bytes < 4 else 0  # of weights, kept for the backward pass
    layer = whole.activations // c.depth
    if activation_checkpointing == "none":
        activations = whole.activations
    else:
        copies //= c.depth
        kept = _kept_products(c) if activation_checkpointing == "selective" else c.depth * c.width
        activations = per_value * kept + layer
    gathered = held + root + 2 * block + compute_bytes * c.vocab_size * c.width
    last = 4 * count.total if micro_batches > 1 else held + root + block
    state = 0 if offload else whole.optimizer // ranks
    moments = [
        TrainingMemory(gathered + copies, root, state, activations, whole.logits),
        TrainingMemory(gathered + copies // c.depth, last, state, layer, 0),
        # What is sent, what arrives, the whole matrices, and work on some of them.
        TrainingMemory(held, held, state + 4 * owned, 0, 0),
    ]
    return max(moments, key=lambda moment: moment.total)


def _kept_products(config: ModelConfig) -> int:
    """Values a token keeps of all layers' inputs and of the results of their products with weights."""
    c = config
    num_sparse = sum(c.has_experts(layer) for layer in range(c.depth))
    expert_width = c.expert_width or 0
    sparse = c.experts_per_token * (2 * expert_width + c.width) + 2 * c.shared_experts * expert_width
    dense = (2 if c.is_gated else 1) * c.mlp_width
    around = 3 * c.width + 2 * c.query_width + 2 * c.kv_width
    return c.depth * around + (c.depth - num_sparse) * dense + num_sparse * sparse


def _choice_activations(config: ModelConfig) -> int:
    """Values a token keeps for what a family adds, in all layers: what learned scalars and filters multiply."""
    c = config
    num_values = sum(c.has_value_embedding(layer) for layer in range(c.depth))
    wave = c.width * (c.wave_kernel + 2) if c.wave_kernel else 0
    per_layer = c.width * (c.residual_scalars + c.branch_scale) + wave
    return c.depth * per_layer + num_values * c.kv_width + c.width * (2 * c.smear + c.backout)


def _dense_activations(config: ModelConfig) -> int:
    """Values a token keeps in a dense layer's feed-forward: gate, up, silu(gate) and their product; else one."""
    return (4 if config.is_gated else 1) * config.mlp_width


def _expert_activations(config: ModelConfig, compute_bytes: int) -> float:
    """Values a token keeps in a layer's experts, in units of the compute dtype.

    Its input again behind the norm weight and in fp32 for the router, and for each expert its row sorted in, gate
    with up, silu(gate), their product, and its row sorted back; the shared expert as a dense layer. Scores are fp32.
    """
    c = config
    if c.num_experts is None or c.expert_width is None:
        return 0.0
    own = c.width + (4 * c.width + 4 * 3 * c.num_experts) / compute_bytes
    return own + c.experts_per_token * (2 * c.width + 4 * c.expert_width) + 4 * c.shared_experts * c.expert_width
