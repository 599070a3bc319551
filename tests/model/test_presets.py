"""Presets: counts against built models and hand arithmetic, and one step of a reduced copy of each."""

import pytest
import torch

from gradus.core.errors import ConfigError
from gradus.model.batch import Batch, Documents
from gradus.model.config import ModelConfig, model_config, toy_model
from gradus.model.cost import parameters
from gradus.model.presets import PRESETS
from gradus.model.transformer import Transformer, build_model
from gradus.train.losses import next_token_loss

DIALS = ["d4", "d8", "d12", "d16", "d20", "d24", "d26", "d32"]


def whole(name: str) -> ModelConfig:
    preset = PRESETS.get(name)
    vocabulary, context = (preset.vocab_size, preset.context) if preset else (32_768, 2048)
    return model_config(name, vocabulary, context)


@pytest.mark.parametrize("name", [*DIALS, *PRESETS])
def test_counts_are_those_of_the_model_built_on_meta(name: str) -> None:
    config = whole(name)
    with torch.device("meta"):
        model = Transformer(config)
    assert parameters(config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [*DIALS, *PRESETS])
def test_a_reduced_copy_goes_forward_and_backward(name: str) -> None:
    config = model_config(toy_model(name), 97, 64)
    assert (config.depth, config.width, config.family) == (2, 64, whole(name).family)
    assert (config.num_experts, config.activation) == (whole(name).num_experts, whole(name).activation)
    model = build_model(config, torch.Generator().manual_seed(0))
    tokens = torch.randint(97, (41,), generator=torch.Generator().manual_seed(1))
    total, count, _ = next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([15, 25])))
    total.backward()
    assert total.item() / count.item() == pytest.approx(4.57, abs=0.5)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        # 16 x (4 x 576^2 + 3 x 576 x 2304) + 32000 x 576, and norms: 33 x 576 and 32 x 64
        ("dense_175m", 16 * (4 * 576**2 + 3 * 576 * 2304) + 32_000 * 576 + 33 * 576 + 32 * 64, None),
        # 30 layers of 4 d^2 and 2 x 4 d^2, both tables; norms, sines (3 x 4 d), alpha
        (
            "psann-3B",
            30 * 12 * 3072**2 + 2 * 50_257 * 3072 + 61 * 3072 + 60 * 128 + 30 * (12 * 3072 + 1),
            None,
        ),
        # 4 dense layers and 12 of 8 experts, 2 of them for a token
        (
            "mac_base",
            16 * 3 * 640**2 + (4 + 12 * 8) * 3 * 640 * 2560 + 12 * 8 * 640 + 32_000 * 640 + 33 * 640 + 32 * 64,
            12 * 6 * 3 * 640 * 2560,
        ),
    ],
)
def test_counts_by_hand(name: str, total: int, active: int | None) -> None:
    count = parameters(whole(name))
    assert count.total == total
    assert count.total - count.active == (active or 0)


def test_names_that_lied_have_their_true_counts() -> None:
    assert round(parameters(whole("dense_175m")).total / 1e6) == 103
    assert round(parameters(whole("psann-3B")).total / 1e8) == 37
    # nanochat's depth 24 is published as 1.38 B.
    assert round(parameters(model_config({"preset": "d24", "family": "speedrun"}, 32_768, 2048)).total / 1e7) == 138


def test_a_table_starts_from_a_preset_and_changes_anything() -> None:
    config = model_config({"preset": "mac_mini", "num_experts": 3, "depth": 4, "dense_layers": 1}, 512, 64)
    assert (config.depth, config.width, config.num_experts, config.vocab_size) == (4, 512, 3, 512)
    assert model_config({"preset": "d4", "family": "psann"}, 512, 64).mlp_width == 1024


def test_an_unknown_name_lists_the_presets_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'found \'mac_mino\'; .*one of psann-d256-L6, .*did you mean "mac_min'):
        model_config("mac_mino", 512, 64)
