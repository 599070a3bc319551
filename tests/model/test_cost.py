"""Costs against built models and torch's own FLOP counter; config errors."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gradus.core.errors import ConfigError
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.cost import (
    flops_per_token,
    forward_flops_per_token,
    kv_bytes_per_token,
    mean_context,
    parameters,
    training_memory,
)
from gradus.model.transformer import Transformer, build_model

SPECS: list[str | dict[str, object]] = [
    "d1",
    "d4",
    "d12",
    {"preset": "d4", "tie_embeddings": True, "num_kv_heads": 2},
    {"depth": 3, "width": 96, "num_heads": 6, "head_dim": 24, "qk_norm": False},
    {"preset": "d4", "family": "psann", "wave_kernel": 3, "spectral_length": 8},
    {"preset": "d4", "family": "speedrun", "window": 256},
    {"preset": "d4", "num_experts": 8, "dense_layers": 1},
    {"preset": "d2", "num_experts": 4, "router": "sigmoid", "balance": "bias", "shared_experts": 2},
]


@pytest.mark.parametrize("spec", SPECS)
def test_parameter_counts_equal_the_built_model(spec: str) -> None:
    config = model_config(spec, vocab_size=1000, context=256)
    with torch.device("meta"):
        model = Transformer(config)
    counted = dict.fromkeys(("matrix", "expert", "embed", "head", "vector", "scalar", "balance"), 0)
    for name, role in model.roles().items():
        counted[role] += model.get_parameter(name).numel()
    count = parameters(config)
    assert {role: getattr(count, role) for role in counted} == counted
    assert count.total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("spec", SPECS)
def test_analytic_flops_equal_the_counter_on_meta(spec: str) -> None:
    config = model_config(spec, vocab_size=1000, context=256)
    length = 64
    with torch.device("meta"):
        model = Transformer(config)
        tokens = torch.zeros(2 * length, dtype=torch.int64)
        positions = torch.zeros(2 * length, dtype=torch.int64)
    documents = Documents([0, length, 2 * length], positions)
    with FlopCounterMode(display=False) as forward:
        hidden = model(tokens, documents)
        logits = model.head(hidden)
    # The counter knows no causal mask: it sees each token attend to the whole document.
    assert forward.get_total_flops() == pytest.approx(2 * length * forward_flops_per_token(config, length))
    with FlopCounterMode(display=False) as both:
        logits.backward(torch.empty_like(logits))
    assert forward.get_total_flops() + both.get_total_flops() >= 2 * length * flops_per_token(config, length)


def test_flops_are_6n_plus_12ldt_for_one_full_document() -> None:
    config = model_config("d4", vocab_size=8192, context=512)
    multiplied = 4 * (4 * 256**2 + 3 * 256 * 672) + 8192 * 256
    assert flops_per_token(config, 512) == 6 * multiplied + 12 * 4 * 256 * 512
    assert flops_per_token(config, 512, head_fraction=0) == 6 * (multiplied - 8192 * 256) + 12 * 4 * 256 * 512


def test_a_window_costs_what_it_lets_a_token_see() -> None:
    whole, cut = (
        model_config({"preset": "d4", "family": "custom"} | window, 512, 64)
        for window in ({}, {"window_pattern": "SL", "window": 3})
    )
    # Through a window of 3, tokens of a document of 6 see 1, 2, 3, 3, 3, 3; layers 0 and 2 have it.
    seen = (1 + 2 + 3 + 3 + 3 + 3) / 6
    saved = 4 * 256 * 2 * (3.5 - seen)
    assert forward_flops_per_token(whole, 3.5) - forward_flops_per_token(cut, 3.5) == pytest.approx(saved)


def test_mean_context_is_document_aware() -> None:
    assert mean_context([3]) == (1 + 2 + 3) / 3
    assert mean_context([1, 1, 2]) == (1 + 1 + 1 + 2) / 4


def test_kv_bytes_and_memory_by_hand() -> None:
    config = model_config({"preset": "d4", "num_kv_heads": 2}, vocab_size=512, context=512)
    assert kv_bytes_per_token(config) == 2 * 4 * 2 * 64 * 2
    memory = training_memory(config, tokens_per_micro_batch=4096)
    total = parameters(config).total
    assert memory.gradients == 4 * total
    assert memory.optimizer == 4 * parameters(config).matrix + 8 * (total - parameters(config).matrix)
    assert memory.total < 2**31


@pytest.mark.parametrize(
    ("spec", "lengths"),
    [
        ("d4", [512, 512]),
        ({"depth": 3, "width": 192, "num_kv_heads": 1}, [100, 130, 150, 132] * 2),
        ({"preset": "d4", "family": "psann"}, [512, 512]),
        ({"preset": "d4", "family": "speedrun", "window": 512}, [512, 512]),
        ({"preset": "d4", "num_experts": 8, "dense_layers": 1}, [512, 512]),
        ({"preset": "d4", "num_experts": 4, "router": "sigmoid", "shared_experts": 1}, [512, 512]),
    ],
)
def test_planned_activations_are_what_the_backward_pass_keeps(
    spec: str | dict[str, object], lengths: list[int]
) -> None:
    config = model_config(spec, vocab_size=1024, context=512)
    model = build_model(config, torch.Generator(), compute_dtype=torch.bfloat16)
    roles = model.roles()
    weights = sum(2 * p.numel() for n, p in model.named_parameters() if roles[n] in {"matrix", "expert"})
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # In fp32 are the router's input, its logits and scores; parameters and indices are not activations.
        if tensor.dtype in (torch.bfloat16, torch.float32) and not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(sum(lengths), dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens, Documents.of_lengths(lengths))
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) - weights
    planned = training_memory(config, sum(lengths), mean_context=mean_context(lengths)).activations
    assert found == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "head_dim", "mlp"),
    [(4, 256, 4, 64, 672), (8, 512, 8, 64, 1376), (9, 576, 9, 64, 1536), (12, 768, 6, 128, 2048)],
)
def test_the_dial_sets_the_shape(depth: int, width: int, heads: int, head_dim: int, mlp: int) -> None:
    config = model_config(f"d{depth}", vocab_size=8192, context=512)
    assert (config.depth, config.width, config.num_heads, config.head_dim) == (depth, width, heads, head_dim)
    assert (config.num_kv_heads, config.mlp_width) == (heads, mlp)


def test_a_table_overrides_the_dial_and_the_rest_follows() -> None:
    config = model_config({"depth": 6, "width": 192, "vocab_size": 300}, vocab_size=512, context=64)
    assert (config.depth, config.width, config.num_heads, config.vocab_size) == (6, 192, 3, 300)
    assert model_config({"preset": "d4", "depth": 6}, 512, 64).width == 256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("4", r"model: found '4'; expected a dial such as \"d4\" \(depth 4\), a table"),
        ({"width": 64}, 'model: missing key "depth"'),
        ({"depth": 2, "widht": 64}, 'model: unknown key "widht"; did you mean "width"'),
        ({"depth": 0}, 'model: "depth": expected at least 1, found 0'),
        ({"depth": 2, "num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"depth": 2, "head_dim": 7}, "head_dim 7 is odd"),
    ],
)
def test_wrong_shapes_are_explained(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(spec, vocab_size=512, context=64)
