"""The portable decoder: pre-norm blocks of attention and SwiGLU, the function of the Hub class Qwen3.

Inside, query/key/value are one projection and gate/up another: fewer and wider products. Norm weights are
folded into the projection behind them (a small product each step instead of one over all tokens), which is
the same function. Parameters stay in fp32 while training and are cast to `compute_dtype` once per forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.model.attention import attention
from gradus.model.batch import Documents
from gradus.model.config import ModelConfig
from gradus.model.kernels import attention_heads, rms_norm, swiglu
from gradus.model.rope import scaled_frequencies
from gradus.model.rows import held, held_rows

Role = Literal["matrix", "embed", "head", "vector"]


class KeyValueCache(Protocol):
    """What decoding needs of a cache."""

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store new tokens' keys and values, and attend to all that these tokens may see.

        queries: (N, H, D), already scaled; keys, values: (N, Hk, D). Returns (N, H D).
        """
        ...


class Block(nn.Module):
    """One layer. Weights are (out, in).

    qkv stacks the rows of query, key and value, gate_up those of gate and up.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.attention_norm = nn.Parameter(torch.empty(c.width))
        self.qkv = nn.Parameter(torch.empty(c.query_width + 2 * c.kv_width, c.width))
        self.query_norm = nn.Parameter(torch.empty(c.head_dim)) if c.qk_norm else None
        self.key_norm = nn.Parameter(torch.empty(c.head_dim)) if c.qk_norm else None
        self.out = nn.Parameter(torch.empty(c.width, c.query_width))
        self.mlp_norm = nn.Parameter(torch.empty(c.width))
        self.gate_up = nn.Parameter(torch.empty(2 * c.mlp_width, c.width))
        self.down = nn.Parameter(torch.empty(c.width, c.mlp_width))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, documents: Documents) -> Tensor:
        """The whole layer, as training runs it. x: (N, width); cos, sin: (N, 1, D/2). Returns (N, width)."""
        heads = self.heads(x, cos, sin)
        x = self.attended(x, attention(heads, self.config.num_heads, documents))
        return self.feed_forward(x)

    def heads(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (N, width). Returns (H + 2 Hk, N, D): queries, keys and values ready for attention."""
        c = self.config
        x = rms_norm(x, c.norm_eps)
        qkv = F.linear(x, (self.qkv * self.attention_norm).to(x.dtype)).view(x.shape[0], -1, c.head_dim)
        norms = None
        if self.query_norm is not None and self.key_norm is not None:
            norms = (self.query_norm, self.key_norm)
        return attention_heads(qkv, c.num_heads, norms, cos, sin, c.norm_eps)

    def keys_values(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values (N, Hk, D) among heads."""
        c = self.config
        _, keys, values = torch.split(heads, [c.num_heads, c.num_kv_heads, c.num_kv_heads])
        return keys.transpose(0, 1), values.transpose(0, 1)

    def attended(self, x: Tensor, attention_out: Tensor) -> Tensor:
        """Residual after attention. attention_out: (N, H D)."""
        return x + F.linear(attention_out, self.out.to(x.dtype))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Residual after the gated feed-forward."""
        gate_up = (self.gate_up * self.mlp_norm).to(x.dtype)
        return x + swiglu(rms_norm(x, self.config.norm_eps), gate_up, self.down.to(x.dtype))


class Transformer(nn.Module):
    """A decoder over N tokens laid end to end. `build_model` builds one; on meta it has shapes alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.blocks: list[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config) for _ in range(config.depth)
        )
        self.norm = nn.Parameter(torch.empty(config.width))
        self.unembedding = None if config.tie_embeddings else nn.Parameter(torch.empty(config.vocab_size, config.width))

    def forward(self, tokens: Tensor, documents: Documents) -> Tensor:
        """Hidden states before the head. tokens: (N,). Returns (N, width) in the compute dtype."""
        x = self._embedded(tokens)
        cos, sin = self._rotation(documents.positions)
        for block in self.blocks:
            x = block(x, cos, sin, documents)
        return self._normed(x)

    def prefill(self, tokens: Tensor, documents: Documents) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Like forward, and each layer's keys and values (N, Hk, D) for a cache."""
        x = self._embedded(tokens)
        cos, sin = self._rotation(documents.positions)
        stored = []
        for block in self.blocks:
            heads = block.heads(x, cos, sin)
            stored.append(block.keys_values(heads))
            x = block.attended(x, attention(heads, self.config.num_heads, documents))
            x = block.feed_forward(x)
        return self._normed(x), stored

    def decode(self, tokens: Tensor, positions: Tensor, cache: KeyValueCache) -> Tensor:
        """Tokens whose past lies in a cache, mostly one for each row of a batch.

        tokens, positions: (N,). Returns hidden states (N, width).
        """
        x = self._embedded(tokens)
        cos, sin = self._rotation(positions)
        for layer, block in enumerate(self.blocks):
            heads = block.heads(x, cos, sin)
            queries = heads[: self.config.num_heads].transpose(0, 1)  # (B, H, D)
            x = block.attended(x, cache.attend(layer, queries, *block.keys_values(heads)))
            x = block.feed_forward(x)
        return self._normed(x)

    @property
    def head_weight(self) -> Tensor:
        """(vocabulary, width): the embedding where it is tied."""
        return self.embedding if self.unembedding is None else self.unembedding

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, vocabulary) of hidden states (N, width)."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def roles(self) -> dict[str, Role]:
        """What each parameter is, by name; optimizers go by this and never by shape."""
        roles: dict[str, Role] = {}
        for name, _ in self.named_parameters():
            last = name.rpartition(".")[2]
            if last in {"qkv", "out", "gate_up", "down"}:
                roles[name] = "matrix"
            elif last == "embedding":
                roles[name] = "embed"
            elif last == "unembedding":
                roles[name] = "head"
            else:
                roles[name] = "vector"
        return roles

    def row_splits(self) -> dict[str, list[int]]:
        """Rows of each independent matrix inside a fused one, by parameter name."""
        c = self.config
        splits = {"qkv": [c.query_width, c.kv_width, c.kv_width], "gate_up": [c.mlp_width, c.mlp_width]}
        found = {}
        for name, _ in self.named_parameters():
            last = name.rpartition(".")[2]
            if last in splits:
                found[name] = splits[last]
        return found

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Fresh weights, the same for the same generator state on any device.

        Projections into a block are uniform with deviation 1 / sqrt(in), those back to the residual start at
        zero (nanochat), so that every block starts as the identity; norms at one.
        """
        for name, parameter in self.named_parameters():
            last = name.rpartition(".")[2]
            if last in {"out", "down"}:
                held(parameter).zero_()
            elif last in {"qkv", "gate_up"}:
                bound = (3.0 / parameter.shape[1]) ** 0.5
                _fill(parameter, torch.Tensor.uniform_, generator, -bound, bound)
            elif last == "embedding":
                deviation = 1.0 if self.unembedding is not None else 0.02
                _fill(parameter, torch.Tensor.normal_, generator, 0.0, deviation)
            elif last == "unembedding":
                _fill(parameter, torch.Tensor.normal_, generator, 0.0, 0.001)
            else:
                held(parameter).fill_(1.0)

    def _embedded(self, tokens: Tensor) -> Tensor:
        # Looked up in the parameter's own dtype: the gradient of a frequent token is summed in fp32.
        return F.embedding(tokens, self.embedding).to(self.compute_dtype)

    def _normed(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.config.norm_eps) * self.norm.to(x.dtype)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each token's angles, (N, 1, D/2). Source: RoPE, Su et al. 2021, in halves."""
        half, scaling = self.config.head_dim // 2, self.config.rope_scaling
        if scaling is not None:
            stretched = scaled_frequencies(self.config.rope_base, self.config.head_dim, scaling)
            angles = positions[:, None].float() * torch.tensor(stretched, device=positions.device)  # (N, D/2)
            cos, sin = angles.cos() * scaling.magnitude, angles.sin() * scaling.magnitude
            return cos[:, None].to(self.compute_dtype), sin[:, None].to(self.compute_dtype)
        steps = torch.arange(half, device=positions.device, dtype=torch.float32)
        frequencies = self.config.rope_base ** (-steps / half)
        angles = positions[:, None].float() * frequencies  # (N, D/2)
        return angles.cos()[:, None].to(self.compute_dtype), angles.sin()[:, None].to(self.compute_dtype)


def _fill(parameter: Tensor, draw: object, generator: torch.Generator, low: float, high: float) -> None:
    """Draw the whole on the generator's device, then copy the rows held here: neither changes the draw."""
    values = torch.empty(parameter.shape, device=generator.device)
    draw(values, low, high, generator=generator)  # type: ignore[operator]
    start, stop = held_rows(parameter)
    held(parameter).copy_(values[start:stop])


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
    model.to_empty(device=device)
    model.init_weights(generator)
    model.compute_dtype = compute_dtype
    return model
