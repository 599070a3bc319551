"""Families and single choices: formulas, gradients, memory, causality, cached decoding, folders."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import VOCAB, decoded, logits_of, random_model, random_tokens, small_config
from torch import Tensor
from torch.autograd import gradcheck

from gradus.core.errors import ConfigError
from gradus.model.batch import Batch, Documents
from gradus.model.config import ModelConfig, SineSettings, model_config
from gradus.model.hub import hub_config
from gradus.model.kernels import relu2
from gradus.model.past import FullPass, causal_filter
from gradus.model.sine import SineParameters, sine, sine_feed_forward
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model, save_model
from gradus.train.config import OptimizerSettings
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer

CHOICES: dict[str, dict[str, object]] = {
    "psann": {"family": "psann"},
    "speedrun": {"family": "speedrun", "window": 5},
    "wave": {"family": "custom", "wave_kernel": 3, "wave_dilation": 2},
    "spectral": {"family": "custom", "spectral_length": 9},
    "all of psann": {"family": "psann", "wave_kernel": 4, "spectral_length": 6},
    "relu2": {"family": "custom", "activation": "relu2"},
    "plain qk norm": {"family": "custom", "qk_norm_weights": False},
    "residual scalars": {"family": "custom", "residual_scalars": True},
    "value embeddings": {"family": "custom", "value_embeddings": True},
    "smear": {"family": "custom", "smear": True},
    "backout": {"family": "custom", "backout": True},
    "softcap": {"family": "custom", "softcap": 4.0},
    "window": {"family": "custom", "window_pattern": "S", "window": 4, "depth": 3},
    "experts": {"family": "custom", "num_experts": 4, "balance": "bias", "smear": True},
}
EVERY = pytest.mark.parametrize("changes", CHOICES.values(), ids=CHOICES.keys())


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@EVERY
def test_changing_a_token_changes_nothing_before_it_nor_in_other_documents(changes: dict[str, object]) -> None:
    model, tokens = random_model(small_config(**changes)), random_tokens(50)
    with torch.no_grad():
        before = logits_of(model, tokens, [20, 30])
        for place in (0, 7, 19, 20, 33, 49):
            changed = tokens.clone()
            changed[place] = (changed[place] + 1) % VOCAB
            after = logits_of(model, changed, [20, 30])
            document = slice(0, 20) if place < 20 else slice(20, 50)
            same = torch.ones(50, dtype=torch.bool)
            same[place : document.stop] = False
            # A transform rounds every place a little; what reached back would be as large as the change itself.
            assert (before[same] - after[same]).abs().max() < 2e-5 * before.abs().max()
            assert (before[place] != after[place]).any()


@EVERY
def test_cached_decoding_equals_the_full_pass(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = random_model(small_config(**changes)), random_tokens(4, 24)
    lengths = [24, 20, 24, 11]  # rows leave at different times, and the last live one takes the free slot
    rows = [tokens[index, :length].tolist() for index, length in enumerate(lengths)]
    seen = decoded(model, rows, monkeypatch)
    with torch.no_grad():
        for index, length in enumerate(lengths):
            full = model(tokens[index, :length], Documents.of_lengths([length]))
            assert len(seen[index]) == length - 3
            for place, step in seen[index].items():
                assert (step - full[place]).abs().max() < 2e-5 * full.abs().max()


@EVERY
def test_a_choice_trains_and_its_folder_loads_back(tmp_path: Path, changes: dict[str, object]) -> None:
    model = build_model(small_config(**changes), torch.Generator().manual_seed(0))
    optimizer = build_optimizer(model, OptimizerSettings())
    losses = []
    for step in range(8):
        tokens = random_tokens(65)
        optimizer.zero_grad()
        total, count, _ = next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([30, 34])))
        total.backward()
        assert all(torch.isfinite(grad).all() for grad in optimizer.gradients())
        optimizer.step(step, 1.0, torch.tensor(False), count.float())
        losses.append(total.item() / 64)
    assert losses[-1] < 0.8 * losses[0]
    save_model(tmp_path, model, token_ids={"eos_token_id": 3})
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gradus"
    for (name, ours), theirs in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@EVERY
def test_every_parameter_matters_to_the_loss(changes: dict[str, object]) -> None:
    model = random_model(small_config(**changes))
    tokens = random_tokens(65)
    next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([30, 34])))[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_no_hub_class_computes_is_refused_where_a_class_is_promised() -> None:
    with pytest.raises(ConfigError, match=r'no class of the Hub computes smear, softcap; family "portable" promises'):
        small_config(softcap=15.0, smear=True)
    with pytest.raises(ConfigError, match=r'family "speedrun": no class of the Hub computes .*smear'):
        hub_config(small_config(family="speedrun"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "sampan"}, '"family": expected one of .*psann.*, found "sampan"'),
        ({"sine": {"frequency": 3.0}}, 'sine needs activation = "sine" or wave_kernel'),
        ({"family": "psann", "sine": {"amplitude_bounds": [2.0, 3.0]}}, "amplitude 1 does not lie between its bounds"),
        ({"family": "psann", "sine": {"frequencies": 1.0}}, 'unknown key "sine.frequencies"; did you mean "frequency"'),
        ({"family": "custom", "window": 5}, "window and window_pattern need each other"),
        ({"family": "custom", "window_pattern": "SX"}, '"window_pattern": expected text that matches'),
        ({"family": "custom", "wave_dilation": 2}, "wave_dilation needs wave_kernel"),
        ({"family": "psann", "num_experts": 4}, 'experts have activation "swiglu", found "sine"'),
    ],
)
def test_choices_that_do_not_fit_are_explained(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


# Sine


def test_sine_is_its_formula_and_passes_gradcheck() -> None:
    z = random(5, 4).requires_grad_()
    vectors = [random(4, seed=s).abs().add(0.1).requires_grad_() for s in (1, 2, 3)]
    amplitude, frequency, damping = vectors
    expected = amplitude * torch.exp(-damping * z.abs()) * torch.sin(frequency * z)
    assert torch.allclose(sine(z, *vectors), expected, atol=1e-12)
    assert gradcheck(sine, (z, *vectors))
    x, up, down = (random(*shape, seed=9).requires_grad_() for shape in ((5, 3), (4, 3), (3, 4)))
    assert gradcheck(lambda *a: sine_feed_forward(a[0], a[1], a[2], a[3:]), (x, up, down, *vectors))


def test_the_sine_feed_forward_keeps_its_input_z_and_three_vectors_and_computes_in_fp32() -> None:
    x, up, down = (random(*shape, dtype=torch.bfloat16).requires_grad_() for shape in ((64, 8), (32, 8), (8, 32)))
    vectors = tuple(torch.full((32,), value, requires_grad=True) for value in (1.0, 2.25, 0.001))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = sine_feed_forward(x, up, down, vectors)
    sizes = sorted(tuple(t.shape) for t in kept)
    assert sizes == sorted([(64, 8), (32, 8), (8, 32), (64, 32), (32,), (32,), (32,)])
    z = F.linear(x, up).float()
    phi = (torch.exp(-0.001 * z.abs()) * torch.sin(2.25 * z)).bfloat16()
    assert torch.equal(out, F.linear(phi, down))


def test_sine_parameters_start_where_the_settings_say_and_stay_inside_their_bounds() -> None:
    free = SineParameters(SineSettings(), 4000)
    free.init_weights(torch.Generator().manual_seed(0))
    amplitude, frequency, damping = free()
    assert torch.allclose(amplitude, torch.ones(4000), atol=1e-6)
    assert torch.allclose(damping, torch.full((4000,), 0.001), rtol=1e-4)
    assert frequency.mean().item() == pytest.approx(2.25, abs=0.02)
    assert frequency.std().item() == pytest.approx(0.25, abs=0.02)
    bounded = SineParameters(SineSettings(frequency_bounds=(2.0, 2.5), frequency_deviation=0.0), 3)
    bounded.init_weights(torch.Generator())
    assert torch.allclose(bounded()[1], torch.full((3,), 2.25))
    with torch.no_grad():
        bounded.frequency.copy_(torch.tensor([-50.0, 0.0, 50.0]))
    assert torch.allclose(bounded()[1], torch.tensor([2.0, 2.25, 2.5]))


def test_frozen_sines_never_move_and_trained_ones_have_no_weight_decay() -> None:
    for trainable in (True, False):
        model = build_model(small_config(family="psann", sine={"trainable": trainable}), torch.Generator())
        optimizer = build_optimizer(model, OptimizerSettings(matrix="adamw", weight_decay=0.5))
        before = model.blocks[0].sine.frequency.detach().clone()
        decays = {group.weight_decay for group in optimizer.groups if "blocks.0.sine.frequency" in group.parameters}
        assert decays == {0.0}
        tokens = random_tokens(33)
        next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([32])))[0].backward()
        optimizer.gradients()
        optimizer.step(0, 1.0, torch.tensor(False), torch.tensor(32.0))
        assert torch.equal(before, model.blocks[0].sine.frequency) is not trainable


def test_fresh_psann_weights_are_xavier_and_alpha_is_one() -> None:
    model = build_model(model_config({"family": "psann", "depth": 2, "width": 128}, 97, 64), torch.Generator())
    block = model.blocks[0]
    assert (model.config.mlp_width, block.branch_scale.item()) == (512, 1.0)
    assert block.up.std().item() == pytest.approx((2 / (128 + 512)) ** 0.5, rel=0.05)
    assert block.down.std().item() == pytest.approx((2 / (128 + 512)) ** 0.5, rel=0.05)
    assert block.qkv.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)


# Filters


@pytest.mark.parametrize("lengths", [[40], [1, 17, 3, 19], [20, 20]])
def test_the_filter_by_transform_equals_a_slow_sum(lengths: list[int]) -> None:
    x, taps = random(40, 3).requires_grad_(), random(3, 7, seed=1).requires_grad_()
    documents = Documents.of_lengths(lengths)
    rows = []
    for place, begin in enumerate(torch.tensor(documents.bounds)[documents.index].tolist()):
        rows.append(sum(taps[:, j] * x[place - j] for j in range(7) if place - j >= begin))
    slow, fast = torch.stack(rows), causal_filter(x, taps, documents)
    assert torch.allclose(fast, slow, atol=1e-12)
    for mine, wanted in zip(
        torch.autograd.grad(fast.square().sum(), (x, taps)),
        torch.autograd.grad(slow.square().sum(), (x, taps)),
        strict=True,
    ):
        assert torch.allclose(mine, wanted, atol=1e-10)


def test_the_wave_block_is_its_formula() -> None:
    model = random_model(small_config(family="custom", wave_kernel=3, wave_dilation=2, depth=1))
    wave, x = model.blocks[0].wave, random(12, 64, dtype=torch.float32)
    ours = wave(x, FullPass(model.config, Documents.of_lengths([5, 7])))
    for begin, end in ((0, 5), (5, 12)):
        padded = F.pad(x[begin:end].T[None], (4, 0))  # (kernel - 1) dilation on the left
        z = F.conv1d(padded, wave.wave_taps.flip(1)[:, None], dilation=2, groups=64)[0].T
        a, f, d = wave.sine()
        expected = (a * torch.exp(-d * z.abs()) * torch.sin(f * z)) @ wave.wave_out.T
        assert (ours[begin:end] - expected).abs().max() < 1e-4


def test_fresh_spectral_gates_halve_what_passes() -> None:
    model = build_model(small_config(family="custom", spectral_length=5), torch.Generator())
    x = random(9, 64, dtype=torch.float32)
    assert torch.allclose(causal_filter(x, model.blocks[0].spectral_taps, Documents.of_lengths([9])), x / 2, atol=1e-6)


# Speedrun


def test_the_speedrun_model_is_its_description() -> None:
    """A second, plain version of the whole model, one document, dense masks."""
    config = small_config(family="speedrun", window=5, depth=4)
    model, tokens = random_model(config), random_tokens(30)
    with torch.no_grad():
        ours = logits_of(model, tokens, [30])
        assert (ours - plain_speedrun(model, config, tokens)).abs().max() < 1e-4


def plain_speedrun(model: Transformer, c: ModelConfig, tokens: Tensor) -> Tensor:
    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + c.norm_eps).sqrt()

    length, half = len(tokens), c.head_dim // 2
    places = torch.arange(length)
    angles = places[:, None] * c.rope_base ** (-torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]

    def turned(x: Tensor) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    x = model.embedding[tokens]
    gate = model.smear_scale * torch.sigmoid(x[1:, :24] @ model.smear_gate.T)
    x = torch.cat([x[:1], x[1:] + gate * x[:-1]])
    start = x
    for layer, block in enumerate(model.blocks):
        x = block.residual_scale * x + block.start_scale * start
        y = norm(x) * block.attention_norm
        # The gate reads the input before the norm's weight, which is folded into the projection.
        q, k, v = (y @ w.T for w in block.qkv.split([c.query_width, c.kv_width, c.kv_width]))
        q, k, v = (part.view(length, -1, c.head_dim) for part in (q, k, v))
        if layer % 2 == (c.depth - 1) % 2:
            weight = 3 * torch.sigmoid(norm(x)[:, :12] @ block.value_gate.T)
            v = v + weight[:, :, None] * block.value_embedding[tokens].view(length, -1, c.head_dim)
        q, k = turned(norm(q)), turned(norm(k))
        k, v = (part.repeat_interleave(c.num_heads // c.num_kv_heads, 1) for part in (k, v))
        distance = places[:, None] - places
        window = 5 if layer != c.depth - 1 and "SSSL"[layer % 4] == "S" else length
        mask = (distance >= 0) & (distance < window)
        scores = torch.einsum("qhd,khd->hqk", q, k) / c.head_dim**0.5
        attended = torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)
        x = x + attended.flatten(1) @ block.out.T
        x = x + ((norm(x) * block.mlp_norm) @ block.up.T).relu().square() @ block.down.T
        if layer == c.depth // 2:
            middle = x
    hidden = norm(x - model.backout_scale * middle) * model.norm
    return 15 * torch.tanh(hidden @ model.unembedding.T / 15)


def test_relu2_passes_gradcheck() -> None:
    x, up, down = (random(*shape, seed=4).requires_grad_() for shape in ((5, 3), (4, 3), (3, 4)))
    assert gradcheck(relu2, (x, up, down))
    assert torch.allclose(relu2(x, up, down), (x @ up.T).relu().square() @ down.T)


def test_windows_follow_the_pattern_and_the_last_layer_sees_all() -> None:
    config = model_config({"family": "speedrun", "preset": "d8"}, 512, 2048)
    assert config.windows == [512, 512, 512, None, 512, 512, 512, None]
    assert model_config({"family": "speedrun", "preset": "d6"}, 512, 1024).windows == [256, 256, 256, None, 256, None]


def test_fresh_scalars_fall_from_the_first_layer_to_the_last() -> None:
    model = build_model(small_config(family="speedrun", depth=3), torch.Generator())
    assert [b.residual_scale.item() for b in model.blocks] == pytest.approx([1.15, 1.10, 1.05])
    assert [b.start_scale.item() for b in model.blocks] == pytest.approx([0.20, 0.125, 0.05])
    assert (model.smear_scale.item(), model.backout_scale.item()) == (0.0, pytest.approx(0.2))
