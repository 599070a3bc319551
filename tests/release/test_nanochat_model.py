"""A checkpoint of nanochat computes here what it computes there; what is not a file of tensors is not opened."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from foreign_models import STAGE, save_tokenizer, walked
from safetensors.torch import load_file

from gradus.core.errors import ArtifactError, GradusError
from gradus.model.batch import Documents
from gradus.release.nanochat_model import read_nanochat_model

# Written by make_nanochat_golden.py with nanochat's own code.
GOLDEN = load_file(Path(__file__).parent / "golden" / "nanochat.safetensors")
SIZES = {
    "sequence_len": 512, "vocab_size": 60, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 32,
    "window_pattern": "SL",
}  # fmt: skip
EVERY = 13


def weights():
    return {name.removeprefix("model/"): tensor for name, tensor in GOLDEN.items() if name.startswith("model/")}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder without its tokenizer."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    save(folder, weights(), SIZES)
    return folder


def save(folder, state, sizes, step=7):
    torch.save(state, folder / f"model_{step:06d}.pt")
    (folder / f"meta_{step:06d}.json").write_text(json.dumps({"step": step, "model_config": sizes}))


def logits(model, tokens):
    with torch.no_grad():
        return model.head(model(tokens, Documents.of_lengths([len(tokens)])))


def test_the_logits_are_those_of_nanochat(folder):
    model = read_nanochat_model(folder, 60, 60)
    found = logits(model, GOLDEN["tokens"])[::EVERY]
    assert torch.allclose(found, GOLDEN["logits"], atol=1e-4)
    assert GOLDEN["logits"].std() > 1
    # The first layer sees 128 tokens and itself, of 300.
    assert model.config.windows == [129, None, None]


@pytest.mark.parametrize(
    "part", ["smear_lambda", "backout_lambda", "x0_lambdas", "transformer.h.2.attn.ve_gate.weight"]
)
def test_every_part_counts(folder, part):
    state = weights()
    save(folder, state | {part: torch.zeros_like(state[part])}, SIZES)
    found = logits(read_nanochat_model(folder, 60, 60), GOLDEN["tokens"])[::EVERY]
    assert not torch.allclose(found, GOLDEN["logits"], atol=1e-2)


def test_compiled_names_and_the_newest_step_are_read(folder):
    save(folder, {f"_orig_mod.{name}": tensor * 2 for name, tensor in weights().items()}, SIZES, step=12)
    model = read_nanochat_model(folder, 60, 60)
    assert torch.equal(model.unembedding, 2 * weights()["lm_head.weight"][:60].float())


def test_new_tokens_get_rows_in_every_table(folder):
    before, after = read_nanochat_model(folder, 60, 60), read_nanochat_model(folder, 60, 71)
    assert torch.allclose(logits(after, GOLDEN["tokens"])[:, :60], logits(before, GOLDEN["tokens"]), atol=1e-5)
    tables = [name for name, parameter in after.named_parameters() if parameter.shape[0] == 71]
    assert len(tables) == 4


# Files that are not what they should be


class Hostile:
    """Would make a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_that_is_more_than_tensors_runs_nothing(folder, tmp_path):
    torch.save({"transformer.wte.weight": Hostile(tmp_path / "pwned")}, folder / "model_000007.pt")
    with pytest.raises(ArtifactError, match=r"model_000007\.pt: not a file of tensors alone, or damaged"):
        read_nanochat_model(folder, 60, 60)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"junk" * 99, pickle.dumps([1, 2])])
def test_a_damaged_file_is_named(folder, content):
    (folder / "model_000007.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model_000007\.pt"):
        read_nanochat_model(folder, 60, 60)


def test_another_version_of_nanochat_is_named_by_its_parts(folder):
    state = weights()
    state["transformer.h.0.attn.new.weight"] = state.pop("smear_lambda")
    save(folder, state, SIZES)
    with pytest.raises(
        ArtifactError,
        match=r"another version of nanochat.*: smear_lambda is missing; transformer\.h\.0\.attn\.new\.weight is not",
    ):
        read_nanochat_model(folder, 60, 60)


def test_a_weight_that_is_a_single_number_is_named(folder):
    save(folder, weights() | {"lm_head.weight": torch.tensor(1.0)}, SIZES)
    with pytest.raises(ArtifactError, match=r"lm_head\.weight is a single number"):
        read_nanochat_model(folder, 60, 60)


def test_sizes_that_are_not_the_weights_are_told(folder):
    save(folder, weights(), SIZES | {"n_embd": 64})
    with pytest.raises(ArtifactError, match="has shape"):
        read_nanochat_model(folder, 60, 60)
    save(folder, weights(), SIZES | {"n_head": 3})
    with pytest.raises(ArtifactError, match=r"meta_000007\.json: "):
        read_nanochat_model(folder, 60, 60)
    (folder / "meta_000007.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not the meta file of a nanochat checkpoint"):
        read_nanochat_model(folder, 60, 60)
    (folder / "meta_000007.json").unlink()
    with pytest.raises(ArtifactError, match="missing beside its model"):
        read_nanochat_model(folder, 60, 60)


# As a stage


def test_its_tokenizer_is_never_unpickled(folder, tmp_path):
    (folder / "tokenizer.pkl").write_bytes(pickle.dumps(Hostile(tmp_path / "pwned")))
    with pytest.raises(
        GradusError,
        match=r"no tokenizer\.json beside the checkpoint \(tokenizer\.pkl would have to be unpickled.*docs/continuing",
    ):
        walked(tmp_path, STAGE)
    assert not (tmp_path / "pwned").exists()
    save_tokenizer(folder / "tokenizer.json")
    with pytest.raises(GradusError, match=r"tokenizer\.json has 300 tokens and the checkpoint 60; expected"):
        walked(tmp_path, STAGE)


MORE = """
[[stage]]
name = "text"
kind = "corpus"
sources = [{ kind = "files", path = "text.txt", split = "line" }]
validation_fraction = 0.1

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "text"
tokenizer = "taken"

[[stage]]
name = "more"
kind = "pretrain"
from = "taken"
tokens = "tokens"
context = 64
horizon = "20 steps"
batch_tokens = 512
evaluate_every = 20
log_every = 1
samples = ["Line"]
"""


def test_pretraining_goes_on_from_it(folder, tmp_path):
    state = weights()
    tables = ("wte", "lm_head", "value_embeds")
    wide = {n: t.repeat(5, 1) if any(table in n for table in tables) else t for n, t in state.items()}
    save(folder, wide, SIZES | {"vocab_size": 300})
    save_tokenizer(folder / "tokenizer.json")
    (tmp_path / "text.txt").write_text("\n".join(f"Line {i} of a text, and {i % 7} more." for i in range(300)))
    made = walked(tmp_path, STAGE + MORE)
    losses = [json.loads(line) for line in (made["more"].path / "metrics.jsonl").read_text().splitlines()]
    train = [line["loss"] for line in losses if line["event"] == "train"]
    assert train[-1] < train[0] - 1
    assert made["taken"].results["vocab_size"] == 311
