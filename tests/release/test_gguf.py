"""GGUF files: what is written can be read back, and is, tensor by tensor, what llama.cpp ran and computed alike.

`golden/llamacpp.json` holds what llama.cpp made of the files of these models, written by test_llamacpp.py.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from exported import EXPERTS, KINDS, TABLE, VOCAB, WINDOW, exported, gguf_digest, llamacpp_text, save_random

from gradus.core.errors import ConfigError, ExportError, MissingPackageError
from gradus.engine import llamacpp_library
from gradus.model.config import model_config
from gradus.model.portable import portable_form
from gradus.model.reach import reach
from gradus.model.weights import load_model
from gradus.release import export, gguf_export
from gradus.release.k_quants import k_quants_note
from gradus.release.parity import make_reference
from gradus.release.settings import MOST_NATS
from gradus.tokenizer.loading import load_tokenizer

pytest.importorskip("gguf", reason='gguf is not installed: pip install "gradus[export]"')
from gradus.release.gguf_file import read_gguf, split_name, write_gguf

GOLDEN = json.loads((Path(__file__).parent / "golden" / "llamacpp.json").read_text())
GGUF_KINDS = [kind for kind in KINDS if kind != "gradus"]


@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_a_file_is_the_one_that_llamacpp_ran_and_our_logits_are_its_own(tmp_path, kind):
    folder, golden = save_random(tmp_path / "model", **KINDS[kind]), GOLDEN["models"][kind]
    model, tokenizer = portable_form(load_model(folder)), load_tokenizer(folder)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, "f32", "toy")
    assert gguf_digest(tmp_path / "a.gguf") == golden["digest"]
    back = read_gguf(tmp_path / "a.gguf", model.config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
    reference = make_reference(model, tokenizer, llamacpp_text(tokenizer, model.config))
    found = reference.logits[:: golden["every"]]
    assert (found - torch.tensor(golden["logits"])).abs().max() < reference.tolerance
    assert reference.answers == golden["answers"]


@pytest.mark.parametrize(
    ("kind", "most_bits"), [("f16", 16.1), ("bf16", 16.1), ("q8_0", 8.6), ("q5_1", 7.5), ("q4_0", 7)]
)
def test_rounded_files_take_their_bits_and_cost_little(tmp_path, kind, most_bits):
    model = portable_form(load_model(save_random(tmp_path / "model")))
    tokenizer = load_tokenizer(tmp_path / "model")
    write_gguf(tmp_path / "a.gguf", model, tokenizer, kind, "toy")
    back = read_gguf(tmp_path / "a.gguf", model.config)
    matrices = [(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True) if a.ndim == 2]
    error = max(((a - b).norm() / a.norm()).item() for a, b in matrices)
    assert error < {"f16": 3e-4, "bf16": 3e-3, "q8_0": 6e-3, "q5_1": 0.05, "q4_0": 0.12}[kind]
    write_gguf(tmp_path / "b.gguf", model, tokenizer, "f32", "toy")
    saved = (tmp_path / "b.gguf").stat().st_size - (tmp_path / "a.gguf").stat().st_size
    values = sum(a.numel() for a, _ in matrices)
    assert 32 - 8 * saved / values < most_bits


def test_an_export_writes_each_type_with_what_it_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_export, "has_llamacpp", lambda: False)
    model = save_random(tmp_path / "model")
    results = exported(model, tmp_path / "out", formats=["gguf"], gguf_types=["f32", "f16"])
    assert [file["file"] for file in results["gguf"]] == ["toy-F32.gguf", "toy-F16.gguf"]
    exact, rounded = results["checks"]
    assert exact["largest_difference"] == 0.0
    assert 0 < rounded["kl_nats"] < 1e-3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "llama.cpp was not at hand" in card
    assert "llama-cli -m toy-F16.gguf" in card
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "toy-F16.gguf", "toy-F32.gguf"]


def test_rounding_that_costs_too_much_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_export, "has_llamacpp", lambda: False)
    monkeypatch.setitem(MOST_NATS, "q4_0", 0.003)
    model = save_random(tmp_path / "model")
    with pytest.raises(
        ExportError, match=r"rounding the weights costs .* nats a token .* more than 0.003; choose a type"
    ):
        exported(model, tmp_path / "out", formats=["gguf"], gguf_types=["q4_0"])
    assert list((tmp_path / "out").iterdir()) == []


def test_k_quants_are_told_or_refused_by_the_rows_before_anything_is_written(tmp_path, monkeypatch):
    wide = model_config(TABLE | {"width": 512, "mlp_width": 1376}, VOCAB, 96)
    assert k_quants_note(wide, ["q8_0"]) is None
    assert "q4_k_m: K-quants pack 256 values of a row together; rows of 64, 1,376 do" in k_quants_note(wide, ["q4_k_m"])
    model = save_random(tmp_path / "model")
    monkeypatch.setattr(llamacpp_library, "PACKAGE", "no_such_llama")
    with pytest.raises(MissingPackageError, match=r'"llama-cpp-python" is needed .* pip install "gradus\[llamacpp\]"'):
        exported(model, tmp_path / "out", formats=["gguf"], gguf_types=["q4_k_m"])
    monkeypatch.setattr(export, "require_llamacpp", lambda: None)
    with pytest.raises(ConfigError, match="this model's rows have 64, 96; choose q8_0"):
        exported(model, tmp_path / "out2", formats=["gguf"], gguf_types=["q2_k"])
    assert not list((tmp_path / "out2").iterdir())


def test_what_llamacpp_would_read_otherwise_is_refused(tmp_path):
    from gradus.tokenizer.training import train_tokenizer

    tokenizer = train_tokenizer(["a few words 12 34"] * 9, 268, pattern="nanochat")
    with pytest.raises(ConfigError, match='only a tokenizer with pattern "qwen2", "cl100k" can go there'):
        split_name(tokenizer)
    model = portable_form(load_model(save_random(tmp_path / "model", mlp_width=90)))
    with pytest.raises(ConfigError, match=r"ffn_down.weight has rows of 90 values, and q8_0 packs 32 together"):
        write_gguf(tmp_path / "a.gguf", model, load_tokenizer(tmp_path / "model"), "q8_0", "toy")


def test_stretched_positions_have_the_magnitude_that_the_model_has(tmp_path):
    import gguf

    scaling = {"factor": 4.0, "original_context": 32, "attention_factor": 1.5}
    model = portable_form(load_model(save_random(tmp_path / "model", rope_scaling=scaling)))
    write_gguf(tmp_path / "a.gguf", model, load_tokenizer(tmp_path / "model"), "f32", "toy")
    fields = gguf.GGUFReader(tmp_path / "a.gguf").fields
    # llama.cpp reads this one for every class, and multiplies YaRN's own magnitude by it (llama-context.cpp).
    factor = fields["qwen3.rope.scaling.attn_factor"].contents()
    assert factor * (0.1 * math.log(4.0) + 1) == pytest.approx(1.5, rel=1e-6)
    assert "qwen3.rope.scaling.yarn_attn_factor" not in fields


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (WINDOW | EXPERTS | {"rope_scaling": {"factor": 4.0, "original_context": 32}}, "layers with a window have no"),
        ({"rope_scaling": {"factor": 4.0, "original_context": 32, "beta_fast": 16.0}}, "beta_fast 32 and beta_slow 1"),
    ],
)
def test_positions_that_llamacpp_would_stretch_otherwise_are_refused(changes, reason):
    reached = reach(model_config(TABLE | changes, VOCAB, 96))
    assert not reached.has_gguf
    assert reason in reached.llamacpp
    plain = changes["rope_scaling"] | {"beta_fast": 32.0}
    assert reach(model_config(TABLE | {"rope_scaling": plain}, VOCAB, 96)).has_gguf
