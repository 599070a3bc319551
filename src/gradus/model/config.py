"""The shape of a model: one depth dial, or an explicit table, or a table that the dial completes.

The `portable` family is the feature set of the Hub architecture Qwen3 (RMSNorm, RoPE in halves, grouped-query
attention, RMSNorm on queries and keys, SwiGLU), so that a saved folder loads elsewhere without custom code.
With experts it is that of Qwen3Moe (softmax) or Dots1 (sigmoid, shared expert), with `activation = "relu2"` that of
Apertus, with windows that of Mellum (see hub.py); what none of them computes is refused.
The families `psann` and `speedrun` are named sets of other choices, `custom` is none: they are saved in our own
format, and any choice can be set alone. The dial follows nanochat: width = 64 x depth; `derived_sizes` gives the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.settings import Settings, check_settings
from gradus.model.presets import PRESETS
from gradus.model.rope import RopeScaling

WIDTH_PER_DEPTH = 64
NARROW_WIDTH = 512  # up to this width a head has 64 channels, above it 128 where that divides
# How attention runs on a CPU: in tiles of at most so many queries; the probabilities of documents up to a length are
# kept for the backward pass, longer ones would cost too much memory and are worked out again.
QUERY_TILE = 128
KEPT_LENGTH = 1024
# Logits that the loss has in memory at a time. A GPU wants large products, and between two of them the gradient of the
# whole head is read and written; on a CPU smaller ones stay near its caches.
LOGITS_ON_CPU, LOGITS_ON_GPU = 2**23, 2**27
VALUE_GATE_CHANNELS = 12  # of a layer's normalised input, that say how much of its value embedding comes in
SMEAR_GATE_CHANNELS = 24  # of the embedding, that say how much of the one before is mixed in
_SIZES = frozenset({
    "preset", "depth", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width", "expert_width", "dense_layers",
    "context", "vocab_size", "window",
})  # fmt: skip
_DIAL = re.compile(r"d([1-9][0-9]{0,2})")


Bounds = tuple[float, float]


class SineSettings(Settings):
    """The activation A exp(-d |z|) sin(f z): where A, f and d start, whether they learn, and between what bounds.

    frequency_deviation: f starts normal around `frequency`, each feature with its own. Bounds are (low, high), both
    never reached; None: anything above zero.
    """

    amplitude: float = Field(default=1.0, gt=0)
    frequency: float = Field(default=2.25, gt=0)
    frequency_deviation: float = Field(default=0.25, ge=0)
    damping: float = Field(default=0.001, gt=0)
    trainable: bool = True
    amplitude_bounds: Bounds | None = None
    frequency_bounds: Bounds | None = None
    damping_bounds: Bounds | None = None

    @model_validator(mode="after")
    def _starts_are_inside(self) -> SineSettings:
        for name in ("amplitude", "frequency", "damping"):
            start, bounds = getattr(self, name), getattr(self, f"{name}_bounds")
            if bounds is not None and not 0 <= bounds[0] < start < bounds[1]:
                low, high = bounds
                raise ValueError(f"{name} {start:g} does not lie between its bounds {low:g} and {high:g}, from 0 on")
        return self


class ModelConfig(Settings):
    """Every number that fixes the function a model computes. Sizes are in channels or tokens."""

    family: Literal["portable", "psann", "speedrun", "custom"] = "portable"
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
    qk_norm_weights: bool = True  # learned; without them queries and keys are normalised all the same
    activation: Literal["swiglu", "relu2", "sine"] = "swiglu"
    sine: SineSettings = SineSettings()
    branch_scale: bool = False  # the feed-forward's result times a learned number, from 1
    init: Literal["zero", "xavier"] = "zero"  # projections back to the residual from zero, or all matrices Xavier
    wave_kernel: int | None = Field(default=None, ge=2)  # taps of a causal wave block before each layer
    wave_dilation: int = Field(default=1, ge=1)
    spectral_length: int | None = Field(default=None, ge=2)  # taps of a causal spectral gate before each layer
    residual_scalars: bool = False  # x = a x + b x0 before each layer, x0 the embedding
    value_embeddings: bool = False  # on every second layer, the last among them
    smear: bool = False  # the embedding of the token before is mixed in
    backout: bool = False  # the stream in the middle is taken off at the end
    softcap: float | None = Field(default=None, gt=0)  # logits are c tanh(logits / c)
    window_pattern: str | None = Field(default=None, pattern="^[SL]+$")  # by layer, repeated; the last layer is L
    window: int | None = Field(default=None, ge=1)  # tokens that a layer marked S sees, the token itself included
    # Experts in place of the feed-forward of all but the first `dense_layers` layers; None: none.
    num_experts: int | None = Field(default=None, ge=2)
    experts_per_token: int = Field(default=2, ge=1)
    expert_width: int | None = Field(default=None, ge=1)
    shared_experts: int = Field(default=0, ge=0)  # every token passes through a feed-forward of so many expert widths
    dense_layers: int = Field(default=0, ge=0)
    # What an expert takes of a micro-batch in training, in even loads; later tokens pass it by. None: all of them.
    capacity_factor: float | None = Field(default=None, gt=0)
    router: Literal["softmax", "sigmoid"] = "softmax"
    balance: Literal["loss", "bias"] = "loss"
    balance_weight: float = Field(default=0.01, ge=0.0)  # of the auxiliary loss

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        problems = [*self._expert_problems(), *self._idle_choices(), *self._unportable_choices()]
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
        if self.activation != "swiglu":
            problems.append(f'experts have activation "swiglu", found "{self.activation}"')
        return problems

    def _idle_choices(self) -> list[str]:
        """Settings that mean nothing without another."""
        problems = []
        sine = self.activation == "sine" or self.wave_kernel is not None
        if self.sine != SineSettings() and not sine:
            problems.append('sine needs activation = "sine" or wave_kernel')
        if self.wave_dilation != 1 and self.wave_kernel is None:
            problems.append("wave_dilation needs wave_kernel")
        if (self.window is None) != (self.window_pattern is None):
            problems.append("window and window_pattern need each other")
        return problems

    def _unportable_choices(self) -> list[str]:
        """Choices that no class of the Hub computes, in a family that promises one."""
        found = self.classless_choices if self.family == "portable" else []
        if not found:
            return []
        return [
            f'no class of the Hub computes {", ".join(found)}; family "portable" promises one, '
            'family = "custom" does not'
        ]

    @property
    def classless_choices(self) -> list[str]:
        """What no class of the Hub computes, as the author would call it; empty where one does (see hub.py)."""
        fields = ModelConfig.model_fields
        found = [key for key in _CLASSLESS if getattr(self, key) != fields[key].default]
        if self.activation == "sine":
            found.append('activation "sine"')
        if self.activation == "relu2" and not self.qk_norm:
            found.append('activation "relu2" without qk_norm')
        if self.window_pattern is not None:
            if self.activation == "relu2":
                found.append('window_pattern with activation "relu2"')
            if not self.qk_norm:
                found.append("window_pattern without qk_norm")
        if self.num_experts is not None:
            if not self.qk_norm:
                found.append("experts without qk_norm")
            if self.router == "softmax" and self.balance == "bias":
                found.append('router "softmax" with balance "bias" (router "sigmoid" is)')
            if self.router == "softmax" and self.shared_experts:
                found.append('shared_experts with router "softmax" (router "sigmoid" is)')
            if self.router == "sigmoid" and not self.shared_experts:
                found.append('router "sigmoid" without a shared expert (shared_experts = 1 is)')
            if self.router == "sigmoid" and self.window_pattern is not None:
                found.append('window_pattern with router "sigmoid" (router "softmax" is)')
        return found

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate beside its way up."""
        return self.activation == "swiglu"

    @property
    def windows(self) -> list[int | None]:
        """How many tokens each layer's attention sees, None for all."""
        if self.window_pattern is None:
            return [None] * self.depth
        pattern = self.window_pattern
        windows = [self.window if pattern[i % len(pattern)] == "S" else None for i in range(self.depth)]
        return [*windows[:-1], None]

    @property
    def attends_to_all_alone(self) -> bool:
        """Whether a token's past is nothing but keys and values of all tokens before."""
        looks_back = self.smear or self.wave_kernel is not None or self.spectral_length is not None
        return self.window_pattern is None and not looks_back

    def moved_by_depth(self, depth: int) -> list[str]:
        """Choices by which the layers of this model would compute something else in one of `depth` layers."""
        deeper = self.model_copy(update={"depth": depth})
        found = []
        if deeper.windows[: self.depth] != self.windows:
            found.append("window_pattern")
        if any(deeper.has_value_embedding(i) != self.has_value_embedding(i) for i in range(self.depth)):
            found.append("value_embeddings")
        # The stream in the middle; behind the last layer of this model it stays what it is.
        if self.backout and min(depth // 2, self.depth - 1) != self.depth // 2:
            found.append("backout")
        return found

    def has_value_embedding(self, layer: int) -> bool:
        """Whether a layer, from 0, adds an embedding of its own to the values: every second, the last among them."""
        return self.value_embeddings and (self.depth - 1 - layer) % 2 == 0

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


LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_TARGETS: tuple[LoraTarget, ...] = get_args(LoraTarget)


class LoraSettings(Settings):
    """Low-rank adapters: what is trained in place of the weights.

    rank: of each addition. alpha: additions count alpha / rank. targets: the projections, by the Hub's names.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[LoraTarget, ...] = Field(default=LORA_TARGETS, min_length=1)

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: tuple[LoraTarget, ...]) -> tuple[LoraTarget, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"a target is named twice: {', '.join(targets)}")
        return targets


# What each family sets, where a table does not say otherwise.
FAMILIES: dict[str, dict[str, Any]] = {
    "portable": {},
    "custom": {},
    "psann": {"activation": "sine", "branch_scale": True, "init": "xavier"},
    "speedrun": {
        "activation": "relu2",
        "qk_norm_weights": False,
        "residual_scalars": True,
        "value_embeddings": True,
        "smear": True,
        "backout": True,
        "softcap": 15.0,
        "window_pattern": "SSSL",
    },
}
# Choices that no class of the Hub computes at any value but their default.
_CLASSLESS = (
    "qk_norm_weights", "branch_scale", "wave_kernel", "spectral_length", "residual_scalars", "value_embeddings",
    "smear", "backout", "softcap",
)  # fmt: skip
# Settings of ModelConfig that mean nothing without experts.
EXPERT_KEYS = (
    "experts_per_token", "expert_width", "shared_experts", "dense_layers", "router", "balance", "balance_weight",
    "capacity_factor",
)  # fmt: skip


def derived_sizes(width: int, head_dim: int | None = None, gated: bool = True) -> dict[str, int]:
    """Heads and feed-forward width for a model width; `head_dim` overrides the derived head size.

    Without a gate the feed-forward is 4 x width wide. With one it is 8/3 x width, which keeps a layer near 12 width^2
    matrix parameters too, rounded to a multiple of 32 (256 from width 768 on), which matrix units and the block
    quantisation of exports want.
    """
    if head_dim is None:
        head_dim = 128 if width > NARROW_WIDTH and width % 128 == 0 else min(64, width)
    heads = max(1, width // head_dim)
    step = 32 if width < 768 else 256
    return {
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_dim,
        "mlp_width": max(step, round(width * 8 / 3 / step) * step) if gated else 4 * width,
    }


def model_config(spec: str | Mapping[str, Any], vocab_size: int, context: int) -> ModelConfig:
    """A checked config from a dial (`"d4"`), a preset (`"mac_nano"`) or a table (`{depth = 4, width = 192}`).

    A table may start from a dial or a preset (`preset = "d4"`) and set anything; what it leaves out is what its
    family says, or derived from its width. `vocab_size` and `context` hold unless the table sets its own. Raises
    ConfigError with every problem.
    """
    table: dict[str, Any] = {"preset": spec} if isinstance(spec, str) else dict(spec)
    if "preset" in table:
        table = _named(table.pop("preset")) | table
    family = FAMILIES.get(table.get("family", "portable"), {}) if isinstance(table.get("family", ""), str) else {}
    table = {"vocab_size": vocab_size, "context": context} | family | table
    if table.get("window_pattern") is not None and _is_size(table["context"]):
        table = {"window": short_window(table["context"])} | table
    depth, width, head_dim = (table.get(key) for key in ("depth", "width", "head_dim"))
    if width is None and _is_size(depth):
        table["width"] = width = WIDTH_PER_DEPTH * depth  # type: ignore[operator]
    if _is_size(width):
        gated = table.get("activation", "swiglu") == "swiglu"
        sizes = derived_sizes(width, head_dim if _is_size(head_dim) else None, gated)  # type: ignore[arg-type]
        if "num_heads" in table:
            sizes["num_kv_heads"] = table["num_heads"]
        table = sizes | table
    if _is_size(table.get("num_experts")):
        table = {"expert_width": _expert_width(table)} | table
    config, problems = check_settings(ModelConfig, table)
    if config is None:
        raise ConfigError([f"model: {problem.text}" for problem in problems])
    return config


def short_window(context: int) -> int:
    """A quarter of the context, up to the next multiple of 128: what a layer marked S sees (nanochat)."""
    return -(-context // 512) * 128


def toy_model(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """The table of a model of the same make, two layers deep and 64 wide, with a width derived for all else."""
    table = {"preset": spec} if isinstance(spec, str) else dict(spec)
    if "preset" in table:
        table = _named(table["preset"]) | table
    return {key: table[key] for key in table if key not in _SIZES} | {"depth": 2, "width": 64}


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


def _named(name: object) -> dict[str, Any]:
    """The settings that a dial or a preset stands for."""
    match = _DIAL.fullmatch(name) if isinstance(name, str) else None
    if match is not None:
        return {"depth": int(match[1]), "width": WIDTH_PER_DEPTH * int(match[1])}
    if isinstance(name, str) and name in PRESETS:
        return dict(PRESETS[name].settings)
    hint = did_you_mean(str(name), PRESETS)
    raise ConfigError(
        f'model: found {name!r}; expected a dial such as "d4" (depth 4), a table of settings, or one of '
        f"{', '.join(PRESETS)}{hint}"
    )
