"""Models made ready to decode: the same bits as before, or in 8 bits what the integers say."""

import pytest
import torch
from small_models import SIGMOID, SOFTMAX, decoded, logits_of, random_model, random_tokens, small_config

from gradus.core.errors import ConfigError
from gradus.model.frozen import freeze, int8_product, quantised
from gradus.model.transformer import Transformer

CHOICES: dict[str, dict[str, object]] = {
    "portable": {},
    "relu2": {"family": "custom", "activation": "relu2"},
    "psann": {"family": "psann"},
    "speedrun": {"family": "speedrun", "window": 5},
    "softmax experts": {"family": "custom", **SOFTMAX},
    "sigmoid experts": {"family": "custom", **SIGMOID},
    "untied": {"tie_embeddings": False},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CHOICES)
@torch.no_grad()
def test_a_frozen_model_computes_the_same_bits(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(small_config(**CHOICES[name]))
    model.to(dtype)
    model.compute_dtype = dtype
    tokens, rows = random_tokens(21), [random_tokens(9, seed=3).tolist(), random_tokens(7, seed=4).tolist()]
    before, steps_before = logits_of(model, tokens, [12, 9]), decoded(model, rows, monkeypatch)
    freeze(model)
    assert torch.equal(logits_of(model, tokens, [12, 9]), before)
    for row, row_before in zip(decoded(model, rows, monkeypatch), steps_before, strict=True):
        assert row.keys() == row_before.keys()
        assert all(torch.equal(row[place], row_before[place]) for place in row)


def test_every_weight_is_at_most_half_a_step_away_from_its_integer() -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 40)[:, None]
    weight[7] = 0
    integers, scale = quantised(weight)
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) == 127
    # The scale is rounded to bf16, so the largest weight of a row may lie up to half a step more away.
    error = (integers.float() * scale.float()[:, None] - weight).abs() / scale.float()[:, None]
    assert float(error.max()) <= 1.0
    assert float(error[weight.abs() < 0.99 * weight.abs().amax(1, keepdim=True)].max()) <= 0.5 + 1e-3


def with_rounded_weights(model: Transformer) -> Transformer:
    """The slow reference: every product's folded weight replaced by its integers times their scale, in fp32."""
    with torch.no_grad():
        for block in model.blocks:
            block.qkv.mul_(block.attention_norm)
            block.attention_norm.fill_(1)
            block.gate_up.mul_(block.mlp_norm)
            block.mlp_norm.fill_(1)
            for weight in (block.qkv, block.out, block.gate_up, block.down):
                integers, scale = quantised(weight)
                weight.copy_(integers.float() * scale.float()[:, None])
    return model


@pytest.mark.parametrize("columns", [64, 168, 8])  # torch's own product may crash where they are no multiple of 16
@pytest.mark.parametrize("count", [1, 3, 40])  # fewer and more rows than are multiplied as integers
def test_a_product_in_eight_bits_is_that_of_the_rounded_weight(count: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(count)
    weight = torch.randn(30, columns, generator=generator)
    x = torch.randn(count, columns, generator=generator).to(torch.bfloat16)
    integers, scale = quantised(weight)
    wanted = x.double() @ (integers.double() * scale.double()[:, None]).T
    got = int8_product(weight)(x)
    assert got.dtype == torch.bfloat16
    # Two roundings to bf16: of the sum, and of the sum times its scale.
    torch.testing.assert_close(got.double(), wanted, rtol=2**-7, atol=1e-5)


@torch.no_grad()
def test_a_model_in_eight_bits_is_as_near_its_rounded_weights_as_bf16_is() -> None:
    model = random_model(small_config(tie_embeddings=False))
    reference = with_rounded_weights(model)
    integers, scale = quantised(reference.head_weight)
    reference.head_weight.copy_(integers.float() * scale.float()[:, None])
    tokens = random_tokens(40)
    wanted = logits_of(reference, tokens, [40])
    error = {}
    for int8 in (False, True):
        model = random_model(small_config(tie_embeddings=False))
        model.load_state_dict(reference.state_dict())
        model.to(torch.bfloat16)
        model.compute_dtype = torch.bfloat16
        freeze(model, int8=int8)
        error[int8] = float((logits_of(model, tokens, [40]) - wanted).abs().mean())
    # The integers of weights that are integers times a scale are the same ones, so only bf16 is left.
    assert error[True] < 1.3 * error[False] < 0.05
    held = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert all(held[f"blocks.0.{name}"] == 0 for name in ("qkv", "out", "gate_up", "down"))


def test_eight_bits_are_refused_where_they_are_not_possible() -> None:
    model = random_model(small_config())
    with pytest.raises(ConfigError, match="take activations in bfloat16, and the model computes in float32"):
        freeze(model, int8=True)
    model = random_model(small_config(family="custom", **SOFTMAX))
    model.compute_dtype = torch.bfloat16
    with pytest.raises(ConfigError, match="without experts"):
        freeze(model, int8=True)
