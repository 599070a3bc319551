"""The horizon law against its formulas, worked out by hand."""

import pytest

from gradus.core.errors import ConfigError
from gradus.core.quantity import parse_quantity
from gradus.model.config import model_config
from gradus.model.cost import parameters
from gradus.roadmap.scaling import stage_law
from gradus.roadmap.stages.pretrain import Settings
from gradus.train.config import OptimizerSettings
from gradus.train.horizon import horizon_law


def test_the_reference_is_its_own_horizon() -> None:
    law = horizon_law(12 * 1e8, int(1e8))
    assert (law.batch_tokens, law.rate_scale, law.decay_scale) == (2**19, 1.0, 1.0)


def test_a_horizon_64_times_as_long_takes_steps_four_times_as_large() -> None:
    law = horizon_law(64 * 12 * 1e8, int(1e8))  # 64^0.383 = 4.92, nearest power of two 4
    assert (law.batch_tokens, law.rate_scale, law.decay_scale) == (2**21, 2.0, 2.0 / 64)
    settings = law.optimizer(OptimizerSettings(matrix_lr=0.03, weight_decay=0.32))
    assert (settings.matrix_lr, settings.head_lr, settings.weight_decay) == (0.06, 0.008, 0.01)
    assert settings.balance_lr == OptimizerSettings().balance_lr


def test_the_reference_model_is_depth_12_of_the_same_make_and_vocabulary() -> None:
    count = parameters(model_config("d12", 32_768, 512))
    law = stage_law(parse_quantity("12 tokens/param"), model_config("d12", 32_768, 512), 0.0, 256.0)
    assert law.batch_tokens == 2**19
    assert law.decay_scale == pytest.approx(1.0, rel=1e-6)
    experts = model_config({"preset": "d12", "num_experts": 4}, 32_768, 512)
    tokens = 12 * (count.matrix + count.head)
    assert stage_law(parse_quantity(f"{tokens} tokens"), experts, 0.0, 256.0).decay_scale == pytest.approx(1.0)


def test_what_the_law_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigError, match="a horizon of 500 steps says too little; expected one in another unit"):
        stage_law(parse_quantity("500 steps"), model_config("d4", 512, 64), 0.0, 32.0)
    with pytest.raises(ValueError, match='batch_tokens is written, and scaling = "auto" sets it'):
        Settings(scaling="auto", batch_tokens=4096)
    assert Settings(scaling="auto").smoke().scaling is None
