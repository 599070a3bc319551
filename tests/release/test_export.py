"""Exports: every kind of model as transformers computes it, and what is not the same model is refused."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from exported import KINDS, WINDOW, change_json, exported, save_random
from foreign_models import walked
from safetensors.torch import load_file, save_file

from gradus.core.artifact import open_artifact
from gradus.core.errors import ArtifactError, ConfigError, ExportError
from gradus.model.weights import load_model
from gradus.release import export, transformers_folder
from gradus.release.model_card import _metadata
from gradus.release.origin import Origin
from gradus.release.settings import ExportSettings
from gradus.release.transformers_model import read_transformers_model

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function from the name of a kind to a folder with a random model of it."""
    made = {}

    def model(kind):
        if kind not in made:
            made[kind] = save_random(tmp_path_factory.mktemp("models") / kind, **KINDS[kind])
        return made[kind]

    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_the_same_in_transformers(models, tmp_path, kind):
    results = exported(models(kind), tmp_path / "out")
    (check,) = results["checks"]
    assert results["class"] == kind
    assert check["class"].lower().startswith(kind.replace("_", ""))
    # Longer than the context and any window, and every beginning went on alike.
    assert check["tokens"] == 160
    assert check["largest_difference"] < 1e-4 * check["largest_logit"]
    assert check["greedy"] == {"beginnings": 6, "equal": 6, "ties": 0}
    assert check["tokenizer"]["tokens"] > 20_000
    assert (tmp_path / "out" / "modeling_gradus.py").exists() is (kind == "gradus")
    # What was exported can be taken up again, here too.
    again, ours = load_model(tmp_path / "out"), load_model(models(kind))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("window", "computes another model: at token"),
        ("weight", "computes another model: at token"),
        ("template", "the chat template writes other ids"),
        ("merges", "reads text otherwise"),
        ("lost", "does not find the weights"),
        ("class", "cannot load the exported model"),
    ],
)
def test_an_export_that_is_another_model_is_refused_and_leaves_nothing(models, tmp_path, monkeypatch, kind, message):
    def write_wrong(folder, *arguments):
        transformers_folder.write_transformers_folder(folder, *arguments)
        if kind == "window":  # one token less: seen beyond the window only
            change_json(folder / "config.json", sliding_window=WINDOW["window"] - 1)
        elif kind == "class":
            change_json(folder / "config.json", model_type="nobody", architectures=["Nobody"])
        elif kind == "template":
            text = (folder / "tokenizer_config.json").read_text()
            (folder / "tokenizer_config.json").write_text(text.replace("<tools>", "<tools> "))
        elif kind == "merges":
            data = json.loads((folder / "tokenizer.json").read_text())
            data["model"]["merges"].reverse()
            (folder / "tokenizer.json").write_text(json.dumps(data))
        else:
            tensors = load_file(folder / "model.safetensors")
            if kind == "weight":
                tensors["model.norm.weight"][3] += 0.01
            else:
                del tensors["model.norm.weight"]
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(export, "write_transformers_folder", write_wrong)
    with pytest.raises(ExportError, match=message):
        exported(models("mellum"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_sixteen_bits_are_told_what_they_cost(models, tmp_path):
    results = exported(models("apertus"), tmp_path / "out", dtype="bfloat16")
    cost, check = results["checks"]
    assert 0 < cost["kl_nats"] < cost["most_nats"]
    assert check["largest_difference"] < 1e-4 * check["largest_logit"]
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == torch.bfloat16
    # A softplus of it in 16 bits is not 1.
    assert stored["model.layers.0.mlp.act_fn.alpha_p"].dtype == torch.float32
    assert f"{cost['kl_nats']:.2g} nats" in (tmp_path / "out" / "README.md").read_text()


def test_what_a_class_lacks_is_folded_into_the_weights(tmp_path):
    model = save_random(tmp_path / "model", family="custom", branch_scale=True, qk_norm_weights=False)
    results = exported(model, tmp_path / "out")
    assert results["class"] == "qwen3"
    assert results["checks"][0]["largest_difference"] < 1e-4 * results["checks"][0]["largest_logit"]


def test_foreign_models_of_these_classes_can_be_taken_and_others_are_refused(tmp_path):
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "vocab_size": 300,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 5e3}
    apertus = transformers.ApertusForCausalLM(transformers.ApertusConfig(**sizes, rope_parameters=rope))
    apertus.save_pretrained(tmp_path / "xielu")
    with pytest.raises(ArtifactError, match=r"act_fn.alpha_n is .*, expected -1000, with which xIELU is relu"):
        read_transformers_model(tmp_path / "xielu", 300)
    mellum = transformers.MellumConfig(
        **sizes, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict.fromkeys(("full_attention", "sliding_attention"), rope),
    )  # fmt: skip
    transformers.MellumForCausalLM(mellum).save_pretrained(tmp_path / "mellum")
    config = read_transformers_model(tmp_path / "mellum", 300).config
    assert (config.windows, config.num_experts, config.rope_base) == ([8, None], 4, 5e3)
    table = json.loads((tmp_path / "mellum" / "config.json").read_text())
    table["rope_parameters"]["full_attention"]["rope_theta"] = 1e6
    change_json(tmp_path / "mellum" / "config.json", rope_parameters=table["rope_parameters"])
    with pytest.raises(ArtifactError, match="rope_parameters differ by the type of layer"):
        read_transformers_model(tmp_path / "mellum", 300)


def test_the_card_names_what_a_model_began_from_as_the_hub_does():
    commit = "0123456789abcdef0123456789abcdef01234567"
    origin = Origin(name="toy", base_models=(f"hub:owner/small@{commit}", "folder:models/mine"))
    head = yaml.safe_load(_metadata(ExportSettings(), origin, {}).split("---")[1])
    assert head["base_model"] == ["owner/small"]


def test_a_stage_exports_and_its_card_is_true(models, tmp_path, monkeypatch):
    shutil.copytree(models("qwen3"), tmp_path / "theirs")
    road = '[[stage]]\nname = "taken"\nkind = "import"\ntake = "folder:theirs"\ntrained = "chat"\n'
    road += (
        '[[stage]]\nname = "out"\nkind = "export"\nfrom = "taken"\nprompts = 4\nlicence = "mit"\nlanguages = ["en"]\n'
    )
    out = walked(tmp_path, f'name = "road"\n{road}')["out"]
    assert open_artifact(out.path, "export").results["checks"][0]["greedy"]["equal"] == 4
    card = (out.path / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["language"], head["pipeline_tag"]) == ("mit", ["en"], "text-generation")
    assert "| taken | import |" in card
    assert "whose licence binds it too" in card
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.S)
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace("FOLDER", str(out.path)).replace("256", "4")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<|im_start|>user\nHello!<|im_end|>")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ["gguff"]}, "expected one of"),
        ({"formats": []}, "formats"),
        ({"gguf_types": ["q4_k_m"]}, "gguf_types"),
        ({"gguf_types": ["f16", "f16"]}, "named twice: f16"),
        ({"licence": "my own licence"}, "expected the SPDX name of a licence"),
        ({"gguf_types": ["q8_0"]}, 'gguf_types needs "gguf" or "ollama" in formats'),
        ({"system": "You are Ada."}, 'system needs "ollama" in formats'),
        ({"languages": ["English"]}, 'expected codes of languages, such as "en", found "English"'),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    from gradus.core.settings import check_settings

    found, problems = check_settings(ExportSettings, settings)
    assert found is None
    assert message in "; ".join(problem.text for problem in problems)


def test_a_form_that_the_model_has_not_is_refused_before_anything_is_written(models, tmp_path):
    with pytest.raises(ConfigError, match=r"llama\.cpp and Ollama do not run this model .*smear"):
        exported(models("gradus"), tmp_path / "out", formats=["gguf"])
    windows = save_random(tmp_path / "dense", **WINDOW)
    with pytest.raises(ConfigError, match="sliding windows only in a model with experts"):
        exported(windows, tmp_path / "other", formats=["ollama"])
