"""The decoder against the Hub class, a dense mask, its own cache and the arrow of time."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import check_loads_back, logits_of, random_model, small_config
from torch import Tensor

from gradus.core.errors import ArtifactError
from gradus.model.attention import attention, attention_cached
from gradus.model.batch import Documents
from gradus.model.layout import document_layout
from gradus.model.tiles import document_tiles
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model, save_model, to_stored


def dense_attention(q: Tensor, k: Tensor, v: Tensor, index: Tensor, window: int | None) -> Tensor:
    """Softmax over one (N, N) mask, head by head."""
    places = torch.arange(len(index))
    mask = (index[:, None] == index[None]) & (places[:, None] >= places[None])
    if window is not None:
        mask &= places[:, None] - places[None] < window
    out = []
    for head in range(q.shape[1]):
        shared = head * k.shape[1] // q.shape[1]
        scores = q[:, head] @ k[:, shared].T / q.shape[-1] ** 0.5
        out.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[:, shared])
    return torch.stack(out, 1)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_saved_folder_gives_the_same_logits_in_transformers(
    tmp_path: Path, qk_norm: bool, tie_embeddings: bool
) -> None:
    from transformers import AutoModelForCausalLM

    model = random_model(small_config(qk_norm=qk_norm, tie_embeddings=tie_embeddings))
    save_model(tmp_path, model, token_ids={"eos_token_id": 3})
    hub = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(hub).__name__ == ("Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM")
    assert hub.config.eos_token_id == 3
    assert sum(p.numel() for p in hub.parameters()) == sum(p.numel() for p in model.parameters())
    tokens = torch.randint(97, (2, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = hub(tokens).logits.flatten(0, 1)
        ours = logits_of(model, tokens.flatten(), [60, 60])
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_folder_loads_back_bit_for_bit(tmp_path: Path, tie_embeddings: bool) -> None:
    model = random_model(small_config(tie_embeddings=tie_embeddings))
    check_loads_back(model, tmp_path)


def test_a_folder_that_transformers_wrote_loads(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    hub = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    )
    hub.save_pretrained(tmp_path)
    tokens = torch.arange(40) % 50
    with torch.no_grad():
        ours = logits_of(load_model(tmp_path), tokens, [40])
        assert (ours - hub(tokens[None]).logits[0]).abs().max() < 1e-4


def test_wrong_folders_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json is missing"):
        load_model(tmp_path)
    save_model(tmp_path, random_model(small_config()))
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="is damaged"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    table = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | {"intermediate_size": 8}))
    with pytest.raises(ArtifactError, match=r"gate_proj\.weight has shape \(160, 64\), expected \(8, 64\)"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(table | {"model_type": "gpt2"}))
    with pytest.raises(ArtifactError, match="model_type is 'gpt2'"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(table | {"rope_scaling": {"rope_type": "linear"}}))
    with pytest.raises(ArtifactError, match="rope scaling is 'linear'"):
        load_model(tmp_path)


@pytest.mark.parametrize("lengths", [[64], [16, 16, 16], [1, 30, 7, 33, 8, 1, 40], [5] * 7 + [90], [130, 5, 300]])
@pytest.mark.parametrize("window", [None, 1, 9])
def test_attention_by_document_equals_a_dense_mask(lengths: list[int], window: int | None) -> None:
    generator = torch.Generator().manual_seed(3)
    documents = Documents.of_lengths(lengths)
    total = sum(lengths)
    q, k, v = (
        torch.randn(total, heads, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    weights = torch.randn(total, 4, 8, generator=generator, dtype=torch.float64)
    heads = torch.cat([q / 8**0.5, k, v], dim=1).transpose(0, 1)
    ours = attention(heads, 4, documents, window).view(total, 4, 8)
    dense = dense_attention(q, k, v, documents.index, window)
    assert torch.allclose(ours, dense, atol=1e-10)
    got = torch.autograd.grad((ours * weights).sum(), (q, k, v))
    expected = torch.autograd.grad((dense * weights).sum(), (q, k, v))
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_the_layout_holds_every_token_once_and_fills_up_little() -> None:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(20, 300, (60,), generator=generator).tolist()
    layout = document_layout(Documents.of_lengths(lengths))
    assert layout.gather is not None
    spread = torch.cat([group.spread for group in layout.groups if group.spread is not None])
    assert torch.equal(spread[layout.gather], torch.arange(sum(lengths)))
    assert len(spread) < 1.13 * sum(lengths)
    assert len(layout.groups) < 32


def test_tiles_hold_every_token_once_at_its_place_in_its_document() -> None:
    documents = Documents.of_lengths([20, 300, 64, 65, 1, 130])
    tiles = document_tiles(documents, query_width=4096)
    assert tiles.spread is not None
    assert tiles.gather is not None
    assert tiles.filled is not None
    assert torch.equal(tiles.spread[tiles.gather], torch.arange(580))
    assert len(tiles.filled) == len(tiles.spread) - 580
    assert tiles.counts == sorted(tiles.counts, reverse=True)
    level_of_place = torch.arange(len(tiles.counts)).repeat_interleave(torch.tensor(tiles.counts) * tiles.length)
    assert torch.equal(level_of_place[tiles.gather], documents.positions // tiles.length)
    # Each level is a few products more: a narrow model has fewer levels and more pairs that nobody needs.
    assert document_tiles(Documents.of_lengths([300, 200]), 8192).length < 128
    assert document_tiles(Documents.of_lengths([300, 200]), 64).length == 128


def test_changing_a_token_changes_nothing_before_it_nor_in_other_documents() -> None:
    model = random_model(small_config())
    tokens = torch.randint(97, (50,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = logits_of(model, tokens, [20, 30])
        for place in (0, 7, 19, 20, 33, 49):
            changed = tokens.clone()
            changed[place] = (changed[place] + 1) % 97
            after = logits_of(model, changed, [20, 30])
            document = slice(0, 20) if place < 20 else slice(20, 50)
            same = torch.ones(50, dtype=torch.bool)
            same[place : document.stop] = False
            assert torch.equal(before[same], after[same])
            assert (before[place : document.stop] != after[place : document.stop]).any(-1).all()


def test_a_document_computes_the_same_wherever_it_stands() -> None:
    model = random_model(small_config())
    tokens = torch.randint(97, (37,), generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        alone = logits_of(model, tokens, [37])
        packed = logits_of(model, torch.cat([tokens[:11], tokens, tokens[:5]]), [11, 37, 5])
    assert (packed[11:48] - alone).abs().max() < 1e-5


class ListCache:
    """Keys and values of equally long rows, in plain lists."""

    def __init__(self, depth: int) -> None:
        self.stored: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(depth)]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.stored[layer].append((keys, values))
        keys = torch.stack([k for k, _ in self.stored[layer]], 2)
        values = torch.stack([v for _, v in self.stored[layer]], 2)
        return keys, values, torch.ones(keys.shape[0], 1, 1, keys.shape[2], dtype=torch.bool)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attention_cached(queries, *self.append(layer, keys, values))


@pytest.mark.parametrize("prefilled", [0, 9])
def test_decoding_with_a_cache_equals_the_full_pass(prefilled: int) -> None:
    model = random_model(small_config())
    tokens = torch.randint(97, (3, 24), generator=torch.Generator().manual_seed(7))
    cache = ListCache(model.config.depth)
    with torch.no_grad():
        full = model(tokens.flatten(), Documents.of_lengths([24] * 3)).view(3, 24, -1)
        if prefilled:
            hidden, recording = model.prefill(tokens[:, :prefilled].flatten(), Documents.of_lengths([prefilled] * 3))
            assert (hidden.view(3, prefilled, -1) - full[:, :prefilled]).abs().max() < 1e-5
            for layer, (keys, values) in enumerate(recording.keys_values):
                for place in range(prefilled):
                    rows = [place, prefilled + place, 2 * prefilled + place]
                    cache.append(layer, keys[rows], values[rows])
        for place in range(prefilled, 24):
            step = model.decode(tokens[:, place], torch.full((3,), place), cache)
            assert (step - full[:, place]).abs().max() < 1e-5


def test_fresh_weights_depend_on_the_generator_alone() -> None:
    config = small_config()
    first, again, other = (build_model(config, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embedding, other.embedding)
    assert not any(p.is_meta or p.isnan().any() for p in first.parameters())
    logits = logits_of(first, torch.arange(20), [20])
    loss = F.cross_entropy(logits, torch.arange(20))
    assert abs(loss.item() - torch.log(torch.tensor(97.0)).item()) < 0.1


def test_every_parameter_has_a_role_and_a_hub_name() -> None:
    with torch.device("meta"):
        model = Transformer(small_config())
    roles = model.roles()
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert {role for name, role in roles.items() if "norm" in name} == {"vector"}
    assert roles["blocks.0.qkv"] == "matrix"
    assert (roles["embedding"], roles["unembedding"]) == ("embed", "head")
    assert sum(len(rows) for rows in model.row_splits().values()) == 2 * 5
    assert len(to_stored(model)) == 2 * 11 + 3
