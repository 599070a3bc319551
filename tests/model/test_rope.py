"""Stretched rotary positions: against transformers, by hand, through folders, and in decoding."""

import json
import math
from pathlib import Path

import pytest
import torch
from small_models import random_model

from gradus.core.errors import ArtifactError
from gradus.model.batch import Documents
from gradus.model.config import ModelConfig, model_config
from gradus.model.rope import RopeScaling, rescaled_base, rope_from_hub, scaled_frequencies
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model, save_model

TABLE = {"depth": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
SCALINGS = [
    {"factor": 4.0, "original_context": 64},
    {"factor": 8.0, "original_context": 32, "beta_fast": 16.0, "beta_slow": 2.0},
    {"factor": 2.0, "original_context": 128, "attention_factor": 1.0},
]


def stretched_model(**scaling: object) -> Transformer:
    config = model_config(TABLE | {"rope_scaling": scaling}, vocab_size=97, context=256)
    return random_model(config)


def tokens_of(number: int) -> torch.Tensor:
    return torch.randint(97, (number,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scaling", SCALINGS, ids=["yarn", "betas", "attention factor"])
def test_a_stretched_folder_gives_the_same_logits_in_transformers(scaling: dict[str, float], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = stretched_model(**scaling)
    save_model(tmp_path, model)
    hub = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = tokens_of(240)
    with torch.no_grad():
        ours = model.head(model(tokens, Documents.of_lengths([240])))
        theirs = hub(tokens[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-4
    plain = model.config.model_copy(update={"rope_scaling": None})
    model.config = plain
    with torch.no_grad():
        assert (model.head(model(tokens, Documents.of_lengths([240]))) - theirs).abs().max() > 1e-2


def test_a_folder_loads_back_with_its_scaling(tmp_path: Path) -> None:
    model = stretched_model(**SCALINGS[1])
    save_model(tmp_path, model)
    assert load_model(tmp_path).config == model.config


def test_a_stretched_folder_that_transformers_wrote_loads(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    fields = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10_000.0}
    hub = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=128, rope_parameters=fields,
        )
    )  # fmt: skip
    hub.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config.rope_scaling == RopeScaling(factor=4.0, original_context=32)
    tokens = torch.arange(100) % 50
    with torch.no_grad():
        ours = model.head(model(tokens, Documents.of_lengths([100])))
        assert (ours - hub(tokens[None]).logits[0]).abs().max() < 1e-4


def test_fast_frequencies_stay_and_slow_ones_are_divided() -> None:
    scaling = RopeScaling(factor=8.0, original_context=4096)
    found = scaled_frequencies(10_000.0, 128, scaling)
    for i, frequency in enumerate(found):
        plain = 10_000.0 ** (-i / 64)
        turns = 4096 * plain / (2 * math.pi)
        if turns > 40:
            assert frequency == pytest.approx(plain)
        elif turns < 0.8:
            assert frequency == pytest.approx(plain / 8)
        assert plain / 8 * (1 - 1e-9) <= frequency <= plain
    assert scaling.magnitude == pytest.approx(0.1 * math.log(8) + 1)


def test_a_raised_base_slows_the_slowest_frequency_by_the_factor() -> None:
    base = rescaled_base(10_000.0, 64, 8.0)
    slowest = -(2 * 31) / 64
    assert base**slowest == pytest.approx(10_000.0**slowest / 8)


def test_decoding_with_a_cache_equals_the_full_pass() -> None:
    model = stretched_model(**SCALINGS[0])
    tokens = tokens_of(100)
    with torch.no_grad():
        whole = model(tokens, Documents.of_lengths([100]))
        stored, recording = model.prefill(tokens[:90], Documents.of_lengths([90]))
        assert torch.allclose(stored, whole[:90], atol=1e-5)
        cos, sin = model._rotation(torch.arange(90, 100))
        full_cos, full_sin = model._rotation(torch.arange(100))
    assert torch.equal(cos, full_cos[90:])
    assert torch.equal(sin, full_sin[90:])
    assert len(recording.keys_values) == 2


def test_without_scaling_the_fields_of_the_hub_are_as_before(tmp_path: Path) -> None:
    save_model(tmp_path, build_model(model_config(TABLE, 97, 64), torch.Generator().manual_seed(0)))
    table = json.loads((tmp_path / "config.json").read_text())
    assert table["rope_theta"] == 10_000.0
    assert "rope_scaling" not in table


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, 'rope scaling is \'llama3\', expected "default" or "yarn"'),
        ({"rope_type": "yarn", "factor": 8.0, "mscale": 0.7}, "rope scaling has mscale"),
        ({"rope_type": "yarn", "factor": 8.0, "truncate": False}, "rope scaling has truncate = false"),
        ({"type": "yarn"}, "rope scaling has no factor"),
    ],
)
def test_a_scaling_that_cannot_be_computed_is_refused(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    save_model(tmp_path, build_model(model_config(TABLE, 97, 64), torch.Generator().manual_seed(0)))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_scaling": fields}))
    with pytest.raises(ArtifactError, match=message):
        load_model(tmp_path)
    assert rope_from_hub({"rope_scaling": fields})[2] == [message]


def test_a_wrong_scaling_is_explained() -> None:
    from gradus.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r'"rope_scaling.factor": expected more than 1'):
        model_config(TABLE | {"rope_scaling": {"factor": 0.5, "original_context": 8}}, 97, 64)
    assert isinstance(model_config(TABLE | {"rope_scaling": SCALINGS[0]}, 97, 64), ModelConfig)
