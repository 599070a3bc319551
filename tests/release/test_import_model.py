"""Models of transformers come over with equal logits; what this decoder cannot compute is refused."""

import json

import pytest
import torch
from foreign_models import STAGE, save_tokenizer, walked

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.batch import Documents
from gradus.model.weights import load_model
from gradus.release.transformers_model import read_transformers_model
from gradus.tokenizer.loading import load_tokenizer

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "vocab_size": 300,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


def transformers_folder(folder, kind="qwen3", shard="5GB", **changed):
    """A small random model as transformers saves it, with a tokenizer of as many ids that lacks control tokens."""
    import transformers

    config_class, model_class = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES | changed)).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder / "tokenizer.json")
    return model


@pytest.mark.parametrize(
    ("kind", "shard", "changed"),
    [
        ("qwen3", "5GB", {}),
        ("llama", "5GB", {"tie_word_embeddings": True}),
        ("qwen3", "20KB", {"rope_theta": 1e6}),
        ("llama", "20KB", {"num_key_value_heads": 2}),
    ],
)
def test_a_model_of_transformers_keeps_its_logits(tmp_path, kind, shard, changed):
    theirs = transformers_folder(tmp_path, kind, shard, **changed)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "20KB")
    ours = read_transformers_model(tmp_path, 310)
    ids = torch.randint(0, 300, (40,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0]
        found = ours.head(ours(ids, Documents.of_lengths([40])))
    assert torch.allclose(found[:, :300], expected, atol=1e-4)
    # New tokens begin as the mean of the others.
    assert torch.allclose(ours.embedding[300:], ours.embedding[:300].mean(0).expand(10, -1))


def test_an_imported_model_is_an_artifact_that_holds_its_tokenizer(tmp_path):
    transformers_folder(tmp_path / "theirs")
    taken = walked(tmp_path, STAGE)["taken"]
    assert taken.results["added_tokens"][:2] == ["</think>", "</tool_call>"]
    assert taken.results["vocab_size"] == taken.results["model"]["vocab_size"] > 300
    tokenizer = load_tokenizer(taken.file("tokenizer"))
    assert load_model(taken.path / "model").config.vocab_size == tokenizer.vocab_size
    text = "the cat number 7 sat"
    assert tokenizer.encode(text) == load_tokenizer(tmp_path / "theirs").encode(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"attention_bias": True}, "attention_bias is True, expected False"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0, "rope_theta": 1e4}}, "rope scaling is 'llama3'"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
    ],
)
def test_what_the_decoder_cannot_compute_is_refused(tmp_path, change, message):
    transformers_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArtifactError) as caught:
        read_transformers_model(tmp_path, 300)
    assert message in str(caught.value)


def test_pickled_weights_are_never_opened(tmp_path):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin would have to be unpickled.*safe_serialization=True"):
        read_transformers_model(tmp_path, 300)


def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=r"its file \.\./secret\.safetensors is missing"):
        read_transformers_model(tmp_path, 300)


def test_a_damaged_weights_file_is_named(tmp_path):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        read_transformers_model(tmp_path, 300)


def test_bad_settings_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        walked(tmp_path, STAGE)
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ConfigError, match="no model there"):
        walked(tmp_path, STAGE)
    with pytest.raises(ConfigError, match='expected "folder:PATH" or "hub:owner/name@revision"'):
        walked(tmp_path, STAGE.replace("folder:theirs", "hub:b@main"))
