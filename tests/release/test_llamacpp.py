"""llama.cpp itself on exported files (make test-peers): logits, greedy text, ids of real and of strange text.

Run as a program it writes golden/llamacpp.json, by which `make test` goes: PYTHONPATH=tests/release python FILE.
"""

import json
import random
import sys
from pathlib import Path

import pytest
from exported import KINDS, exported, gguf_digest, llamacpp_text, save_random

from gradus.core.errors import ExportError
from gradus.engine.batching import DecodeBatch
from gradus.engine.decoding import GreedyStream, decode_streams
from gradus.engine.llamacpp import LlamaCppModel
from gradus.model.portable import portable_form
from gradus.model.weights import load_model
from gradus.release.gguf_file import write_gguf
from gradus.release.llamacpp_reader import llamacpp_reader
from gradus.release.parity import make_reference, prove_equal
from gradus.release.settings import MOST_NATS
from gradus.tokenizer.difficult_text import difficult_texts
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.training import train_tokenizer

GOLDEN = Path(__file__).parent / "golden" / "llamacpp.json"
EVERY = 20  # of the places, those whose logits are kept
GGUF_KINDS = [kind for kind in KINDS if kind != "gradus"]

if __name__ != "__main__":
    pytest.importorskip("llama_cpp", reason="llama.cpp is not installed (make test-peers)")
    pytest.importorskip("gguf", reason="gguf is not installed (make test-peers)")


@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_llamacpp_computes_every_kind_of_model(tmp_path, kind):
    results = exported(save_random(tmp_path / "model", **KINDS[kind]), tmp_path / "out", formats=["gguf"])
    proof = results["checks"][0]
    assert proof["reader"].startswith("llama.cpp")
    assert proof["largest_difference"] < 1e-4 * proof["largest_logit"]
    assert proof["greedy"] == {"beginnings": 6, "equal": 6, "ties": 0}
    assert results["checks"][2]["kl_nats"] < 1e-3


@pytest.mark.parametrize("kind", ["qwen3", "mellum"])
def test_sequences_that_are_used_again_hold_what_a_model_with_or_without_windows_may_see(tmp_path, kind):
    folder = save_random(tmp_path / "model", **KINDS[kind])
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    write_gguf(tmp_path / "a.gguf", portable_form(model), tokenizer, "f32", "toy")
    draw = random.Random(1)
    prompts = [[draw.randrange(400) for _ in range(draw.randint(1, 70))] for _ in range(12)]
    prompts += [prompts[0] + [draw.randrange(400) for _ in range(3)] for _ in range(6)]
    ours, theirs = ([GreedyStream(prompt, 20) for prompt in prompts] for _ in range(2))
    for _ in decode_streams(model, ours, 400):
        pass
    batch, waiting = DecodeBatch(LlamaCppModel(tmp_path / "a.gguf"), 3, 400), list(theirs)
    while waiting or batch.num_live:
        if waiting and batch.num_free:
            batch.enter(waiting.pop())
        batch.step()
    assert [stream.tokens for stream in theirs] == [stream.tokens for stream in ours]
    assert (sum(stream.num_cached_tokens for stream in theirs) > 0) == (kind == "qwen3")


def test_k_quants_are_packed_by_llamacpp_and_refused_where_they_cost_too_much(tmp_path, monkeypatch):
    said = []
    model = save_random(tmp_path / "model", width=256, head_dim=64, mlp_width=352)
    with pytest.raises(ExportError, match=r"rounding the weights costs .* nats a token"):
        exported(model, tmp_path / "out", formats=["gguf"], gguf_types=["q4_k_m"])
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out").rmdir()
    monkeypatch.setitem(MOST_NATS, "q4_k_m", 0.6)  # random weights lose more than trained ones
    results = exported(model, tmp_path / "out", said.append, formats=["gguf"], gguf_types=["q6_k", "q4_k_m"])
    assert "rows of 352 do not divide, and llama.cpp gives them wider types" in said[0]
    fine, coarse = results["gguf"]
    assert fine["matrices"] == {"Q6_K": 20, "Q8_0": 3}
    assert coarse["bytes"] < 0.8 * fine["bytes"]
    assert [check["reader"][:4] for check in results["checks"]] == ["llam", "gguf", "llam", "gguf", "llam"]
    costs = [check["kl_nats"] for check in results["checks"][1:]]
    assert 0 < costs[0] < costs[2]
    assert costs[1] == pytest.approx(costs[0], abs=0.01)
    assert costs[3] == pytest.approx(costs[2], abs=0.03)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["README.md", "toy-Q4_K_M.gguf", "toy-Q6_K.gguf"]


@pytest.mark.parametrize("pattern", ["qwen2", "cl100k"])
def test_ids_of_real_and_of_strange_text_are_ours(tmp_path, pattern, real_texts):
    tokenizer = train_tokenizer(real_texts, 4_000, pattern=pattern)
    folder = save_random(tmp_path / "model", tokenizer=tokenizer)
    write_gguf(tmp_path / "a.gguf", portable_form(load_model(folder)), tokenizer, "q8_0", "toy")
    names = tokenizer.special_tokens
    texts = [*real_texts, *difficult_texts(()), *strange_texts(3_000)]
    texts = [text.replace("'\u017f", "") for text in texts if not any(name in text for name in names)]
    with llamacpp_reader(tmp_path / "a.gguf", 64) as reader:
        for text, ours, theirs in zip(texts, tokenizer.encode_lists(texts), reader.encode(texts), strict=True):
            assert ours == theirs, text[:80]


@pytest.fixture(scope="module")
def real_texts():
    from gradus.release.check_text import own_documents

    return own_documents()


def strange_texts(count):
    """Strings of characters from every part of Unicode, in runs."""
    draw = random.Random(7)
    ranges = [(9, 14), (32, 127), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xE80), (0x1100, 0x1200),
              (0x2000, 0x2070), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0xE010),
              (0xFF00, 0xFFF0), (0x1F300, 0x1F700), (0x1D400, 0x1D800)]  # fmt: skip
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 8)):
            low, high = draw.choice(ranges)
            parts.append("".join(chr(draw.randrange(low, high)) for _ in range(draw.randint(1, 5))))
        texts.append("".join(parts))
    return texts


def main(folder):
    """Ask llama.cpp and write down what it says."""
    models = {}
    for kind in GGUF_KINDS:
        made = save_random(folder / kind, **KINDS[kind])
        model, tokenizer = portable_form(load_model(made)), load_tokenizer(made)
        path = folder / f"{kind}.gguf"
        write_gguf(path, model, tokenizer, "f32", "toy")
        text = llamacpp_text(tokenizer, model.config)
        reference = make_reference(model, tokenizer, text)
        with llamacpp_reader(path, len(text.row)) as reader:
            prove_equal(reference, reader)
            logits = reader.logits(text.row, reference.places)[::EVERY]
            answers = reader.greedy(text.beginnings, len(reference.answers[0]))
        rounded = [[round(value, 4) for value in row] for row in logits.tolist()]
        models[kind] = {"digest": gguf_digest(path), "every": EVERY, "logits": rounded, "answers": answers}
    body = {"llama.cpp": reader.name, "models": models}
    GOLDEN.write_text(json.dumps(body, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
