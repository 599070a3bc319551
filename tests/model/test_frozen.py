"""Models made ready to decode: the same bits as before in fp32, as near as they can be in bf16 and in 8 bits."""

import pytest
import torch
from small_models import SIGMOID, SOFTMAX, decoded, logits_of, random_model, random_tokens, small_config
from torch import Tensor

from gradus.core.errors import ConfigError
from gradus.model.frozen import bf16_product, freeze, int8_product, packs_bf16, quantised

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
def test_a_frozen_model_computes_the_same_bits_where_nothing_is_packed(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradus.model.frozen.packs_bf16", lambda: False)
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


@pytest.mark.skipif(not packs_bf16(), reason="this processor packs no bf16")
@pytest.mark.parametrize("name", CHOICES)
@torch.no_grad()
def test_packed_bf16_is_nearer_to_fp32_than_a_model_that_computes_in_bf16(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, rows = random_tokens(21), [random_tokens(9, seed=3).tolist(), random_tokens(7, seed=4).tolist()]
    found: dict[str, list[Tensor]] = {}
    for kind in ("fp32", "bf16", "packed"):
        model = random_model(small_config(**CHOICES[name])).to(torch.bfloat16)
        if kind == "fp32":  # of the weights as they are in bf16
            model.to(torch.float32)
        else:
            model.compute_dtype = torch.bfloat16
        if kind == "packed":
            freeze(model)
            assert model.compute_dtype == torch.float32
            assert all(block.qkv.numel() == 0 for block in model.blocks)
        steps = [row[place] for row in decoded(model, rows, monkeypatch) for place in sorted(row)]
        found[kind] = [logits_of(model, tokens, [12, 9]).float(), torch.stack(steps).float()]
    for wanted, plain, packed in zip(*found.values(), strict=True):
        assert float((packed - wanted).square().mean()) <= float((plain - wanted).square().mean())


@pytest.mark.skipif(not packs_bf16(), reason="this processor packs no bf16")
@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (3, 168), (40, 8)])
def test_a_packed_product_is_the_product_in_bf16(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, x = (torch.randn(n, columns, generator=generator).to(torch.bfloat16) for n in (30, rows))
    # One rounding, of the sum.
    torch.testing.assert_close(bf16_product(weight)(x).double(), x.double() @ weight.double().T, rtol=2**-8, atol=1e-5)


def test_every_weight_is_at_most_half_a_step_away_from_its_integer() -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 40)[:, None]
    weight[7] = 0
    integers, scale = quantised(weight)
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) == 127
    assert float((integers * scale[:, None] - weight).abs().div(scale[:, None]).max()) <= 0.5 + 1e-4


def slow_int8(weight: Tensor, x: Tensor) -> Tensor:
    """Both rounded to 127ths of their row's largest, multiplied in fp64."""

    def rounded(rows: Tensor) -> Tensor:
        step = rows.double().abs().amax(1, keepdim=True) / 127
        return torch.where(step > 0, (rows / step).round() * step, 0)

    return rounded(x.float()) @ rounded(weight.float()).T


@pytest.mark.parametrize("columns", [64, 168, 8])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_product_in_eight_bits_is_that_of_rounded_rows(count: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(count)
    weight = torch.randn(30, columns, generator=generator)
    x = torch.randn(count, columns, generator=generator) * torch.logspace(-3, 3, count)[:, None]
    x[-1, 1:] = 0
    product = int8_product(weight)
    got = product(x)
    torch.testing.assert_close(got.double(), slow_int8(weight, x), rtol=1e-5, atol=1e-6)
    # What a row gives does not depend on who shares its batch.
    assert all(torch.equal(product(row[None])[0], out) for row, out in zip(x, got, strict=True))
    assert torch.equal(product(torch.zeros(2, columns)), torch.zeros(2, 30))
    assert bool(product(torch.full((1, columns), torch.nan)).isnan().all())


@torch.no_grad()
def test_a_model_in_eight_bits_is_the_model_with_rounded_products(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(40)
    model = random_model(small_config(tie_embeddings=False))
    exact = logits_of(model, tokens, [40])
    freeze(model, int8=True)
    found = logits_of(model, tokens, [40])
    held = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert all(held[f"blocks.0.{name}"] == 0 for name in ("qkv", "out", "gate_up", "down"))
    assert held["unembedding"] == 0
    slow = random_model(small_config(tie_embeddings=False))
    monkeypatch.setattr(
        "gradus.model.frozen.int8_product", lambda weight: lambda x: slow_int8(weight.clone(), x).to(x.dtype)
    )
    freeze(slow, int8=True)
    wanted = logits_of(slow, tokens, [40])
    # A sum that rounds otherwise may move an integer by one: a 127th of a row's largest.
    assert float((found - wanted).abs().mean()) < 0.1 * float((found - exact).abs().mean())
    assert float((found - exact).square().mean().sqrt()) < 0.05 * float(exact.std())


def test_eight_bits_are_refused_where_they_are_not_possible() -> None:
    model = random_model(small_config(family="custom", **SOFTMAX))
    with pytest.raises(ConfigError, match="without experts"):
        freeze(model, int8=True)
