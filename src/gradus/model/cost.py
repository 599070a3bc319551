"""What a model costs, from its config alone: parameters, FLOPs, memory, KV cache. Torch-free.

FLOPs count two per multiply-add of matrix products, forward and backward, without element-wise work
(Kaplan et al. 2020: 6 per matrix parameter and token, plus attention). Tests equate it with built models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradus.model.config import KEPT_LENGTH, QUERY_BLOCK, ModelConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. `matrix` are those inside blocks; `head` is 0 where it is the embedding."""

    matrix: int
    embed: int
    head: int
    vector: int

    @property
    def total(self) -> int:
        return self.matrix + self.embed + self.head + self.vector


def parameters(config: ModelConfig) -> ParameterCount:
    """Exact parameter counts."""
    c = config
    per_layer = c.width * (2 * c.query_width + 2 * c.kv_width) + 3 * c.width * c.mlp_width
    vectors = 2 * c.width + (2 * c.head_dim if c.qk_norm else 0)
    table = c.vocab_size * c.width
    return ParameterCount(
        matrix=c.depth * per_layer,
        embed=table,
        head=0 if c.tie_embeddings else table,
        vector=c.depth * vectors + c.width,
    )


def multiplied_parameters(config: ModelConfig) -> int:
    """Parameters that every token is multiplied by: matrices and head (a tied head counts)."""
    return parameters(config).matrix + config.vocab_size * config.width


def forward_flops_per_token(config: ModelConfig, mean_context: float, head_fraction: float = 1.0) -> float:
    """FLOPs of one forward pass per token.

    mean_context: positions a token attends to on average, itself included; for documents of length t it is
    (t + 1) / 2. head_fraction: tokens the head is computed for.
    """
    c = config
    attention = 4.0 * c.depth * c.query_width * mean_context  # scores, then values
    matrices = parameters(c).matrix
    return 2.0 * (matrices + head_fraction * c.vocab_size * c.width) + attention


def flops_per_token(config: ModelConfig, mean_context: float, head_fraction: float = 1.0) -> float:
    """FLOPs of one training step per token: forward once, backward twice."""
    return 3.0 * forward_flops_per_token(config, mean_context, head_fraction)


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
    logit_chunk: int = 1024,
    mean_context: float | None = None,
    keeps_probabilities: bool = True,
) -> TrainingMemory:
    """Memory of one training step of one process, by part.

    Weights and gradients are fp32, matrices train with Muon, the rest with AdamW. Activations are what the
    backward pass keeps of each block; logits exist one chunk of tokens at a time. mean_context: positions a
    token attends to on average, None for rows that are one full document each. keeps_probabilities: whether attention
    keeps those of short documents for the backward pass, as it does on a CPU.
    """
    c = config
    count = parameters(c)
    if mean_context is None:
        mean_context = (c.context + 1) / 2
    heads = 2 * c.query_width + 2 * c.kv_width + c.query_width  # normalised q and k, all heads, attention out
    kept = keeps_probabilities and c.context <= KEPT_LENGTH
    probabilities = c.num_heads * (mean_context + QUERY_BLOCK / 2) if kept else 0.0
    # Two normalised inputs; gate, up, silu(gate) and their product; the last layer's input to the head twice.
    per_layer = 2 * c.width + heads + c.kv_width + 4 * c.mlp_width + probabilities
    compute_copy = compute_bytes * multiplied_parameters(c) if compute_bytes < 4 else 0
    return TrainingMemory(
        weights=4 * count.total + compute_copy,
        gradients=4 * count.total,
        optimizer=4 * count.matrix + 8 * (count.total - count.matrix),
        activations=round(tokens_per_micro_batch * compute_bytes * (c.depth * per_layer + 2 * c.width)),
        logits=min(logit_chunk, tokens_per_micro_batch) * c.vocab_size * (2 * compute_bytes),
    )


def sharded_memory(
    config: ModelConfig,
    tokens_per_micro_batch: int,
    ranks: int,
    activation_checkpointing: Literal["none", "selective", "full"] = "none",
    micro_batches: int = 1,
    compute_bytes: int = 2,
) -> TrainingMemory:
    """Memory of one process of `ranks` that hold a model by rows together, by part, at the step's worst moment.

    That is where the backward pass begins (all activations), where it ends (all gradients), or the optimizer's work
    (its matrices whole). Embedding and head stay gathered through both passes, and of the layers the one at work and
    the next. Gradients of several micro-batches add up whole before they are shared out. Rows are full documents.
    """
    c = config
    count = parameters(c)
    whole = training_memory(c, tokens_per_micro_batch, compute_bytes)
    held, root, block = 4 * count.total // ranks, 4 * (count.embed + count.head), 4 * count.matrix // c.depth
    owned = 4 * count.matrix // ranks
    per_value = tokens_per_micro_batch * compute_bytes
    products = 3 * c.width + 2 * c.query_width + 2 * c.kv_width + 2 * c.mlp_width  # a layer's input with its results
    copies = compute_bytes * count.matrix if compute_bytes < 4 else 0  # of weights, kept for the backward pass
    layer = whole.activations // c.depth
    if activation_checkpointing == "none":
        activations = whole.activations
    else:
        copies //= c.depth
        kept = products if activation_checkpointing == "selective" else c.width
        activations = per_value * c.depth * kept + layer
    gathered = held + root + 2 * block + compute_bytes * c.vocab_size * c.width
    last = 4 * count.total if micro_batches > 1 else held + root + block
    state = whole.optimizer // ranks
    moments = [
        TrainingMemory(gathered + copies, root, state, activations, whole.logits),
        TrainingMemory(gathered + copies // c.depth, last, state, layer, 0),
        # What is sent, what arrives, the whole matrices, and work on some of them.
        TrainingMemory(held, held, state + 4 * owned, 0, 0),
    ]
    return max(moments, key=lambda moment: moment.total)
