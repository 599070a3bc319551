"""Adapters against the formula written out, against PEFT, merged, stored and read again.

`make test` compares with golden/peft_logits.json. Where PEFT is installed (make test-peers) it computes the values
anew; GRADUS_WRITE_GOLDEN=1 then writes them to that file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import TABLE, VOCAB, logits_of, random_tokens, small_config

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.batch import Batch, Documents
from gradus.model.config import LORA_TARGETS, LoraSettings, model_config
from gradus.model.cost import adapter_parameters
from gradus.model.lora import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, add_adapters, init_adapters, is_adapter, merged
from gradus.model.tensor_files import TensorFiles, save_tensors
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model, save_adapter, save_model
from gradus.train.losses import next_token_loss

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parent / "golden" / "peft_logits.json"
TARGETS = {"all": LORA_TARGETS, "some": ("q_proj", "v_proj", "up_proj")}
TOKENS = random_tokens(20)


def numbered(model: Transformer, seed: int) -> Transformer:
    """Values from numpy's generator, which gives the same numbers in every version."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            values = torch.from_numpy(random.normal(0, 0.2, tuple(parameter.shape)))
            parameter.copy_(1 + values if parameter.ndim == 1 else values)
    return model


def base() -> Transformer:
    return numbered(build_model(small_config(), torch.Generator().manual_seed(0)), 3)


def adapted(targets: str = "all") -> Transformer:
    """The base with adapters, none of them zero."""
    model = base()
    add_adapters(model, LoraSettings(rank=3, alpha=6.0, targets=TARGETS[targets]))
    random = np.random.default_rng(11)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if is_adapter(name):
                parameter.copy_(torch.from_numpy(random.normal(0, 0.3, tuple(parameter.shape))))
    return model


@pytest.mark.parametrize("targets", TARGETS)
def test_logits_equal_peft_s(targets: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    with torch.no_grad():
        found = logits_of(adapted(targets), TOKENS, [len(TOKENS)])
        assert not torch.allclose(found, logits_of(base(), TOKENS, [len(TOKENS)]), atol=0.1)
    torch.testing.assert_close(found[::5], torch.tensor(golden["logits"][targets]), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("default")
def test_the_golden_logits_are_what_peft_computes_on_the_stored_folders(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed (make test-peers)")
    from transformers import AutoModelForCausalLM

    (tmp_path / "base").mkdir()
    save_model(tmp_path / "base", base())
    found = {}
    for targets in TARGETS:
        folder = tmp_path / targets
        folder.mkdir()
        save_adapter(folder, adapted(targets), str(tmp_path / "base"))
        theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), folder)
        with torch.no_grad():
            found[targets] = theirs(TOKENS[None]).logits[0, ::5].tolist()
    if os.environ.get("GRADUS_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        rounded = {name: [[round(x, 6) for x in row] for row in rows] for name, rows in found.items()}
        GOLDEN.write_text(json.dumps({"peft": peft.__version__, "logits": rounded}) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for targets, logits in found.items():
        torch.testing.assert_close(torch.tensor(logits), torch.tensor(golden["logits"][targets]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", TARGETS)
def test_merged_weights_compute_the_same(targets: str, tmp_path: Path) -> None:
    model = adapted(targets)
    save_model(tmp_path, model)
    plain = load_model(tmp_path)
    assert plain.lora is None
    with torch.no_grad():
        ours, theirs = (logits_of(m, TOKENS, [12, 8]) for m in (model, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # By hand: rows of k_proj stand behind those of q_proj.
    weights, parameters = merged(model), dict(model.named_parameters())
    c = model.config
    rows = slice(c.query_width, c.query_width + c.kv_width)
    expected = parameters["blocks.1.qkv"][rows].detach()
    if targets == "all":
        a, b = (parameters[f"blocks.1.adapters.k_proj_{half}"].detach() for half in "ab")
        expected = expected + 2.0 * b @ a
    torch.testing.assert_close(weights["blocks.1.qkv"][rows], expected)


def test_fresh_adapters_add_nothing_and_only_they_have_gradients() -> None:
    model, plain = base(), base()
    lora = LoraSettings(rank=3, alpha=6.0)
    add_adapters(model, lora)
    init_adapters(model, torch.Generator().manual_seed(5))
    ours, theirs = (logits_of(m, TOKENS, [20]) for m in (model, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(is_adapter(name) for name in trained)
    assert sum(p.numel() for p in trained.values()) == adapter_parameters(model.config, lora)
    bound = max(float(p.detach().abs().max()) for name, p in trained.items() if name.endswith("q_proj_a"))
    assert 0.9 * 64**-0.5 < bound <= 64**-0.5


def test_gradients_are_those_of_the_sum_of_weight_and_product() -> None:
    """W + (alpha / rank) B A written out, through the same model without adapters."""
    model = adapted()
    batch = Batch(TOKENS[:-1], TOKENS[1:], Documents.of_lengths([11, 8]))
    next_token_loss(model, batch)[0].backward()
    plain = base()
    with torch.no_grad():
        for name, value in merged(model).items():
            dict(plain.named_parameters())[name].copy_(value)
    next_token_loss(plain, batch)[0].backward()
    parameters = dict(model.named_parameters())
    for layer in range(2):
        whole = dict(plain.named_parameters())[f"blocks.{layer}.down"].grad
        assert whole is not None
        a, b = (parameters[f"blocks.{layer}.adapters.down_proj_{half}"] for half in "ab")
        torch.testing.assert_close(a.grad, 2.0 * b.detach().T @ whole, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(b.grad, 2.0 * whole @ a.detach().T, rtol=1e-3, atol=1e-3)
    assert all(p.grad is None for name, p in parameters.items() if not is_adapter(name))


def test_an_adapter_beside_its_base_is_merged_when_it_is_read(tmp_path: Path) -> None:
    model = adapted("some")
    save_model(tmp_path, base())
    save_adapter(tmp_path, model)
    read = load_model(tmp_path)
    with torch.no_grad():
        ours, theirs = (logits_of(m, TOKENS, [20]) for m in (model, read))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_kind_or_model_is_refused(tmp_path: Path) -> None:
    model = adapted("some")
    save_model(tmp_path, base())
    save_adapter(tmp_path, model)
    config = json.loads((tmp_path / ADAPTER_CONFIG_FILE).read_text())
    (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ArtifactError, match="use_dora is True, expected False"):
        load_model(tmp_path)
    for key, value in {
        "alpha_pattern": {"q_proj": 32},
        "rank_pattern": {"q_proj": 2},
        "modules_to_save": ["lm_head"],
    }.items():
        (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config | {key: value}))
        with pytest.raises(ArtifactError, match=f"{key} is .*: no other adapters can be computed"):
            load_model(tmp_path)
    (tmp_path / ADAPTER_CONFIG_FILE).write_text("[]")
    with pytest.raises(ArtifactError, match="expected a JSON object"):
        load_model(tmp_path)
    (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config | {"target_modules": ["q_proj", "lm_head"]}))
    with pytest.raises(ConfigError, match="lm_head"):
        load_model(tmp_path)
    (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config))
    with TensorFiles(tmp_path, ADAPTER_WEIGHTS_FILE) as tensors:
        whole = {name: tensor[...] for name, tensor in tensors.items()}
    save_tensors(tmp_path / ADAPTER_WEIGHTS_FILE, whole | {"base_model.model.lm_head.weight": torch.ones(3, 3)})
    with pytest.raises(ArtifactError, match=r"lm_head\.weight is no part of an adapter that can be computed"):
        load_model(tmp_path)
    stored = {name.replace("layers.1", "layers.7"): tensor for name, tensor in whole.items()}
    save_tensors(tmp_path / ADAPTER_WEIGHTS_FILE, stored)
    with pytest.raises(ArtifactError, match=r"layers\.7\..* does not fit the weights beside it"):
        load_model(tmp_path)
    save_tensors(tmp_path / ADAPTER_WEIGHTS_FILE, whole)
    (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config | {"r": config["r"] + 1}))
    with pytest.raises(ArtifactError, match=rf"do not fit the weights beside it, .* and rank {config['r'] + 1} in"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "rank", "problem"),
    [
        ({"num_experts": 4}, 4, "found experts; leave lora out"),
        ({"family": "speedrun"}, 4, 'found family "speedrun"'),
        ({}, 33, "rank 33 is more than the 32 channels of the smallest projection"),
    ],
)
def test_models_without_names_in_peft_and_ranks_too_large_are_refused(
    changes: dict[str, object], rank: int, problem: str
) -> None:
    with torch.device("meta"):
        model = Transformer(model_config(TABLE | changes, VOCAB, 128))
    with pytest.raises(ConfigError, match=problem):
        add_adapters(model, LoraSettings(rank=rank))
