"""The decoder: embedding, layers (block.py), head. `ModelConfig` says which of all choices it is made of.

Inside, query/key/value are one projection and gate/up another: fewer and wider products. Parameters stay in fp32
while training and are cast to `compute_dtype` once per forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.model.batch import Documents, to_device
from gradus.model.block import Block, Surroundings
from gradus.model.config import SMEAR_GATE_CHANNELS, LoraSettings, ModelConfig
from gradus.model.experts import Routing
from gradus.model.frozen import Product
from gradus.model.initial import init_weights
from gradus.model.kernels import rms_norm, turning
from gradus.model.lora import is_adapter
from gradus.model.past import CachedPass, FullPass, KeyValueCache, Past, Recording
from gradus.model.rope import scaled_frequencies

Role = Literal["matrix", "expert", "embed", "head", "vector", "scalar", "balance", "adapter"]

_ROLES: dict[str, Role] = {
    **dict.fromkeys(
        ("qkv", "out", "gate_up", "up", "down", "router", "shared_gate_up", "shared_down", "wave_out"), "matrix"
    ),
    **dict.fromkeys(("expert_gate_up", "expert_down"), "expert"),
    **dict.fromkeys(("embedding", "value_embedding"), "embed"),
    **dict.fromkeys(("start_scale", "smear_scale", "smear_gate", "backout_scale"), "scalar"),
    "unembedding": "head",
    "router_bias": "balance",
}  # by a parameter's last name; all others are vectors


class Transformer(nn.Module):
    """A decoder over N tokens laid end to end. `build_model` builds one; on meta it has shapes alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.lora: LoraSettings | None = None  # see lora.add_adapters
        self.frozen_head: Product | None = None
        self.frozen_frequencies: Tensor | None = None
        self.is_packed = False  # see frozen.freeze
        self.has_compiled_steps = False  # see engine.compiled
        self.offloaded_from: torch.device | None = None
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.blocks: list[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config, layer) for layer in range(config.depth)
        )
        self.norm = nn.Parameter(torch.empty(config.width))
        self.unembedding = None if config.tie_embeddings else nn.Parameter(torch.empty(config.vocab_size, config.width))
        gate_channels = min(SMEAR_GATE_CHANNELS, config.width)
        self.smear_gate = nn.Parameter(torch.empty(1, gate_channels)) if config.smear else None
        self.smear_scale = nn.Parameter(torch.empty(1)) if config.smear else None
        self.backout_scale = nn.Parameter(torch.empty(1)) if config.backout else None

    def forward(self, tokens: Tensor, documents: Documents, routing: list[Routing] | None = None) -> Tensor:
        """Hidden states before the head. tokens: (N,). Returns (N, width) in the compute dtype.

        routing: a list that gets what each router said, layer by layer.
        """
        return self._hidden(tokens, documents.positions, FullPass(self.config, documents), routing)

    def prefill(self, tokens: Tensor, documents: Documents) -> tuple[Tensor, Recording]:
        """Like forward, and what a cache needs to go on."""
        recording = Recording(self.config, documents)
        return self._hidden(tokens, documents.positions, recording), recording

    def decode(self, tokens: Tensor, positions: Tensor, cache: KeyValueCache) -> Tensor:
        """Tokens whose past lies in a cache, mostly one for each row of a batch.

        tokens, positions: (N,). Returns hidden states (N, width).
        """
        return self._hidden(tokens, positions, CachedPass(self.config, cache))

    def _hidden(self, tokens: Tensor, positions: Tensor, past: Past, routing: list[Routing] | None = None) -> Tensor:
        x = self._embedded(tokens, past)
        cos, sin = self._rotation(positions)
        turn = None if self.frozen_head is None else turning(cos, sin)
        around = Surroundings(tokens, x, cos, sin, past, turn)
        middle = None
        # Sharded layers gather when they are called, by all processes; who decodes may do so alone, with all weights.
        is_alone = type(past) is not FullPass
        for layer, block in enumerate(self.blocks):
            x, routed = block.forward(x, around) if is_alone else block(x, around)
            if routing is not None and routed is not None:
                routing.append(routed)
            if layer == self.config.depth // 2:
                middle = x
        if self.backout_scale is not None and middle is not None:
            x = x - self.backout_scale.to(x.dtype) * middle
        return rms_norm(x, self.config.norm_eps) * self.norm.to(x.dtype)

    @property
    def head_weight(self) -> Tensor:
        """(vocabulary, width): the embedding where it is tied."""
        return self.embedding if self.unembedding is None else self.unembedding

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, vocabulary) of hidden states (N, width)."""
        if self.frozen_head is not None:
            logits = self.frozen_head(hidden).to(hidden.dtype)
        else:
            logits = F.linear(hidden, self.head_weight.to(hidden.dtype))
        cap = self.config.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def device(self) -> torch.device:
        """Where it computes; its weights lie there too unless they are offloaded to the host."""
        return self.offloaded_from or self.embedding.device

    def take_memory(self, device: torch.device | str) -> None:
        """Give a model that has shapes alone the memory for its weights, uninitialised, to compute on `device`."""
        self.to_empty(device=device if self.offloaded_from is None else "cpu")

    def roles(self) -> dict[str, Role]:
        """What each parameter is, by name; optimizers go by this and never by shape."""
        return {
            name: "adapter" if is_adapter(name) else _ROLES.get(name.rpartition(".")[2], "vector")
            for name, _ in self.named_parameters()
        }

    def row_splits(self) -> dict[str, list[int]]:
        """Rows of each independent matrix inside a fused one, by parameter name.

        Experts count as one matrix each: their rows are those of all experts, one after the other.
        """
        c = self.config
        splits = {"qkv": [c.query_width, c.kv_width, c.kv_width], "gate_up": [c.mlp_width, c.mlp_width]}
        if c.num_experts is not None and c.expert_width is not None:
            splits["expert_gate_up"] = [c.expert_width] * (2 * c.num_experts)
            splits["expert_down"] = [c.width] * c.num_experts
            splits["shared_gate_up"] = [c.shared_experts * c.expert_width] * 2
        found = {}
        for name, _ in self.named_parameters():
            last = name.rpartition(".")[2]
            if last in splits:
                found[name] = splits[last]
        return found

    def _embedded(self, tokens: Tensor, past: Past) -> Tensor:
        # Looked up in the parameter's own dtype: the gradient of a frequent token is summed in fp32.
        x = F.embedding(tokens, self.embedding).to(self.compute_dtype)
        if self.smear_gate is None or self.smear_scale is None:
            return x
        gate = torch.sigmoid(F.linear(x[:, : self.smear_gate.shape[1]], self.smear_gate.to(x.dtype)))  # (N, 1)
        return x + self.smear_scale.to(x.dtype) * gate * past.shifted("smear", x, [1])[0]

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each token's angles, (N, 1, D/2). Source: RoPE, Su et al. 2021, in halves."""
        frequencies = self.frozen_frequencies
        if frequencies is None:
            frequencies = self.rope_frequencies(positions.device)
        angles = positions[:, None].float() * frequencies  # (N, D/2)
        cos, sin = angles.cos(), angles.sin()
        if self.config.rope_scaling is not None:
            cos, sin = (part * self.config.rope_scaling.magnitude for part in (cos, sin))
        return cos[:, None].to(self.compute_dtype), sin[:, None].to(self.compute_dtype)

    def rope_frequencies(self, device: torch.device) -> Tensor:
        """Radians a position, (D/2,) fp32."""
        c = self.config
        if c.rope_scaling is not None:
            return to_device(torch.tensor(scaled_frequencies(c.rope_base, c.head_dim, c.rope_scaling)), device)
        half = c.head_dim // 2
        found: Tensor = c.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        return found


def build_model(
    config: ModelConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    compute_dtype: torch.dtype = torch.float32,
    prepare: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """A model with fresh fp32 weights: shapes on meta, then memory, then `init_weights`.

    prepare: is given the model while it has shapes alone, so that sharding it never takes the memory of the whole.
    """
    with torch.device("meta"):
        model = Transformer(config)
    if prepare is not None:
        prepare(model)
    model.take_memory(device)
    init_weights(model, config, generator)
    model.compute_dtype = compute_dtype
    return model
