"""Experts against a naive loop, the Hub classes, their own cache, and loads counted by hand."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import (
    SIGMOID,
    SOFTMAX,
    check_loads_back,
    decoded,
    logits_of,
    random_model,
    random_tokens,
    small_config,
)
from torch import Tensor

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import ModelConfig
from gradus.model.experts import (
    Experts,
    Routing,
    balance,
    choose_experts,
    grouped_linear,
    has_grouped_mm,
    looped_linear,
    run_experts,
    within_capacity,
)
from gradus.model.transformer import build_model
from gradus.model.weights import config_text, load_model, save_model
from gradus.train.config import OptimizerSettings
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer

KINDS = pytest.mark.parametrize("kind", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])
NO, YES, ONE = torch.tensor(False), torch.tensor(True), torch.tensor(1.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_experts(x: Tensor, experts: Experts, config: ModelConfig) -> Tensor:
    """Token by token and expert by expert, from the definition alone."""
    rows = []
    for token in x:
        logits = experts.router @ token
        scores = logits.softmax(0) if config.router == "softmax" else 1 / (1 + (-logits).exp())
        ranked = scores if experts.router_bias is None else scores + experts.router_bias
        best = sorted(range(len(scores)), key=lambda i: -ranked[i].item())[: config.experts_per_token]
        total = sum(scores[i] for i in best)
        out = torch.zeros_like(token)
        if experts.shared_gate_up is not None:
            gate, up = experts.shared_gate_up.chunk(2)
            out = experts.shared_down @ (F.silu(gate @ token) * (up @ token))
        for i in best:
            gate, up = experts.expert_gate_up.chunk(6)[i].chunk(2)
            inner = F.silu(gate @ token) * (up @ token)
            out = out + scores[i] / total * (experts.expert_down.chunk(6)[i] @ inner)
        rows.append(out)
    return torch.stack(rows)


@KINDS
def test_experts_and_their_gradients_match_a_naive_loop(kind: dict[str, object]) -> None:
    model = random_model(small_config(**kind))
    experts, x = model.blocks[0].experts, random(40, 64).requires_grad_()
    weights = random(40, 64, seed=2)
    ours, theirs = experts(x)[0], naive_experts(x, experts, model.config)
    assert (ours - theirs).abs().max() < 1e-5
    leaves = [x, experts.router, experts.expert_gate_up, experts.expert_down]
    got = torch.autograd.grad((ours * weights).sum(), leaves)
    expected = torch.autograd.grad((theirs * weights).sum(), leaves)
    for mine, wanted in zip(got, expected, strict=True):
        assert (mine - wanted).abs().max() < 1e-4 * max(1.0, float(wanted.abs().max()))


def test_the_grouped_product_equals_the_loop_with_idle_experts_and_gradients_of_stride_zero() -> None:
    assert has_grouped_mm("cpu", torch.float32)
    x, weight = random(20, 16).requires_grad_(), random(4, 24, 16, seed=1).requires_grad_()
    ends = torch.tensor([0, 7, 7, 20], dtype=torch.int32)
    fast, slow = grouped_linear(x, weight, ends), looped_linear(x, weight, ends)
    assert torch.allclose(fast, slow, atol=1e-5)
    # The gradient of a sum is one number, repeated by a stride of zero.
    for mine, wanted in zip(
        torch.autograd.grad(fast.sum(), (x, weight)), torch.autograd.grad(slow.sum(), (x, weight)), strict=True
    ):
        assert torch.allclose(mine, wanted, atol=1e-4)


def test_what_a_gpu_leaves_in_the_gradient_of_an_idle_expert_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    right = F.grouped_mm

    def as_on_blackwell(a: Tensor, b: Tensor, *, offs: Tensor) -> Tensor:
        out = right(a, b, offs=offs)
        if b.ndim == 2:  # of weights
            out[offs.diff(prepend=offs.new_zeros(1)) == 0] = torch.nan
        return out

    x, weight = random(20, 16), random(4, 24, 16, seed=1).requires_grad_()
    ends = torch.tensor([0, 7, 7, 20], dtype=torch.int32)
    (wanted,) = torch.autograd.grad(looped_linear(x, weight, ends).sum(), weight)
    monkeypatch.setattr(F, "grouped_mm", as_on_blackwell)
    (found,) = torch.autograd.grad(grouped_linear(x, weight, ends).sum(), weight)
    assert found[[0, 2]].isnan().all()
    monkeypatch.setattr("gradus.model.experts.fills_empty_groups", lambda device: True)
    (found,) = torch.autograd.grad(grouped_linear(x, weight, ends).sum(), weight)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_experts_compute_the_same_without_the_grouped_product(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(small_config(**SOFTMAX))
    tokens = random_tokens(30)
    fast = logits_of(model, tokens, [30])
    monkeypatch.setattr("gradus.model.experts.has_grouped_mm", lambda device, dtype: False)
    assert torch.allclose(logits_of(model, tokens, [30]), fast, atol=1e-4)


@KINDS
def test_every_expert_and_router_gets_a_gradient_from_fresh_weights(kind: dict[str, object]) -> None:
    model = build_model(small_config(**kind), torch.Generator().manual_seed(0))
    tokens = random_tokens(400)
    next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([399])))[0].backward()
    for block in model.blocks:
        assert block.experts.expert_down.grad.view(6, -1).norm(dim=1).min() > 0
        assert block.experts.expert_gate_up.grad.view(6, -1).norm(dim=1).min() > 0
        assert block.experts.router.grad.norm(dim=1).min() > 0


@KINDS
@pytest.mark.parametrize("changes", [{}, {"depth": 3, "dense_layers": 1, "tie_embeddings": True}])
def test_a_saved_folder_gives_the_same_logits_in_transformers(
    tmp_path: Path, kind: dict[str, object], changes: dict[str, object]
) -> None:
    from transformers import AutoModelForCausalLM

    model = random_model(small_config(**kind | changes))
    save_model(tmp_path, model)
    hub = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = "Qwen3MoeForCausalLM" if kind is SOFTMAX else "Dots1ForCausalLM"
    assert type(hub).__name__ == expected
    tokens = random_tokens(2, 60)
    with torch.no_grad():
        ours = logits_of(model, tokens.flatten(), [60, 60])
        assert (ours - hub(tokens).logits.flatten(0, 1)).abs().max() < 1e-4


@KINDS
def test_a_folder_loads_back_bit_for_bit(tmp_path: Path, kind: dict[str, object]) -> None:
    model = random_model(small_config(**kind, depth=3, dense_layers=1, balance_weight=0.003))
    check_loads_back(model, tmp_path)


def test_a_folder_that_transformers_wrote_loads(tmp_path: Path) -> None:
    from transformers import Dots1Config, Dots1ForCausalLM

    torch.manual_seed(0)
    hub = Dots1ForCausalLM(
        Dots1Config(
            vocab_size=50, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, n_routed_experts=4, n_shared_experts=2,
            num_experts_per_tok=2, first_k_dense_replace=1, norm_topk_prob=True, sliding_window=None, head_dim=8,
        )
    )  # fmt: skip
    hub.save_pretrained(tmp_path)
    model, tokens = load_model(tmp_path), torch.arange(40) % 50
    assert (model.config.shared_experts, model.config.balance) == (2, "bias")
    with torch.no_grad():
        assert (logits_of(model, tokens, [40]) - hub(tokens[None]).logits[0]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_topk_prob": False}, "norm_topk_prob is False, expected True"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step is 2, expected 1"),
        ({"mlp_only_layers": [1]}, r"mlp_only_layers is \[1\], expected the first layers"),
        ({"num_experts_per_tok": 1}, "experts_per_token is 1"),
    ],
)
def test_folders_that_compute_something_else_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_model(tmp_path, random_model(small_config(**SOFTMAX)))
    table = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | change))
    with pytest.raises(ArtifactError, match=message):
        load_model(tmp_path)


@KINDS
def test_token_by_token_equals_the_batch(kind: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = random_model(small_config(**kind)), random_tokens(3, 24)
    seen = decoded(model, tokens.tolist(), monkeypatch)
    with torch.no_grad():
        full = model(tokens.flatten(), Documents.of_lengths([24] * 3)).view(3, 24, -1)
    for row, places in enumerate(seen):
        assert sorted(places) == list(range(3, 24))
        for place, step in places.items():
            assert (step - full[row, place]).abs().max() < 1e-5


@KINDS
def test_changing_a_token_changes_nothing_before_it(kind: dict[str, object]) -> None:
    model, tokens = random_model(small_config(**kind)), random_tokens(40)
    with torch.no_grad():
        before = logits_of(model, tokens, [40])
        changed = tokens.clone()
        changed[20] = (changed[20] + 1) % 97
        after = logits_of(model, changed, [40])
    # The grouped product sums in another order where more tokens share an expert.
    assert (before[:20] - after[:20]).abs().max() < 1e-5
    assert (before[20:] != after[20:]).any(-1).all()


def test_balance_is_that_of_the_formulas_and_leaves_padding_out() -> None:
    config = small_config(**SOFTMAX, depth=1, balance_weight=0.5)
    logits = random(9, 6)
    loss, push, metrics = balance(config, [Routing(logits, None)], num_tokens=7)
    p = logits[:7].softmax(-1)
    counts = torch.zeros(6)
    for row in p:
        counts[row.topk(2).indices] += 1
    f = counts / 14
    z = logits[:7].exp().sum(-1).log().square().mean()
    assert loss.item() == pytest.approx(float(0.5 * 6 * (f * p.mean(0)).sum() + 0.001 * z), rel=1e-5)
    assert push.item() == 0
    assert metrics["expert_load_max"].item() == pytest.approx(float(counts.max()) / (14 / 6))
    assert metrics["expert_load_min"].item() == pytest.approx(float(counts.min()) / (14 / 6))


@KINDS
def test_balancing_adds_nothing_to_the_loss_and_is_left_out_of_evaluation(kind: dict[str, object]) -> None:
    model = random_model(small_config(**kind))
    tokens = random_tokens(61)
    batch = Batch(tokens[:-1], tokens[1:], Documents.of_lengths([30, 30]))
    total, count, metrics = next_token_loss(model, batch)
    with torch.no_grad():
        plain, _, none = next_token_loss(model, batch)
        reference = F.cross_entropy(logits_of(model, batch.tokens, [30, 30]), batch.targets, reduction="sum")
    assert total.item() == pytest.approx(reference.item(), rel=1e-5)
    assert plain.item() == pytest.approx(reference.item(), rel=1e-5)
    assert set(metrics) == {"balance_loss", "expert_load_max", "expert_load_min"}
    assert none == {}
    assert 1 <= metrics["expert_load_max"].item() / count.item() <= 6


def test_loads_of_micro_batches_add_up_to_those_of_one_batch() -> None:
    model = random_model(small_config(**SIGMOID))
    tokens = random_tokens(91)
    targets = tokens[1:].clone()
    targets[40:] = IGNORE  # tokens count for the load, supervised or not
    lengths = [20, 30, 40]

    def pushes(parts: list[slice], sizes: list[list[int]]) -> list[Tensor]:
        model.zero_grad()
        for part, size in zip(parts, sizes, strict=True):
            batch = Batch(tokens[:-1][part], targets[part], Documents.of_lengths(size))
            next_token_loss(model, batch)[0].backward()
        return [block.experts.router_bias.grad for block in model.blocks]

    whole = pushes([slice(0, 90)], [lengths])
    split = pushes([slice(0, 50), slice(50, 90)], [[20, 30], [40]])
    for one, many in zip(whole, split, strict=True):
        assert torch.allclose(one, many, atol=1e-10)
        # In tokens: loads of 90 tokens on 2 of 6 experts lie around 30.
        assert torch.allclose(one * 1e6 + 30, (one * 1e6 + 30).round(), atol=1e-3)


def test_biases_move_against_the_load_and_not_in_a_refused_step() -> None:
    model = build_model(small_config(**SIGMOID), torch.Generator().manual_seed(0))
    optimizer = build_optimizer(model, OptimizerSettings(balance_lr=0.01))
    bias = model.blocks[0].experts.router_bias
    optimizer.gradients()
    bias.grad = torch.tensor([3.0, -1.0, 0.0, 2.0, -2.0, -2.0])
    optimizer.step(0, 0.5, YES, ONE)
    assert not bias.any()
    optimizer.step(0, 0.5, NO, ONE)
    assert torch.equal(bias, torch.tensor([-0.005, 0.005, 0.0, -0.005, 0.005, 0.005]))


@pytest.mark.parametrize("kind", [SOFTMAX | {"balance_weight": 0.05}, SIGMOID], ids=["loss", "bias"])
def test_training_evens_out_a_router_that_prefers_one_expert(kind: dict[str, object]) -> None:
    model = build_model(small_config(**kind, depth=1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = model.embedding.mean(0)
        model.blocks[0].experts.router[0] += 0.05 * mean / mean.norm() * 8
    optimizer = build_optimizer(model, OptimizerSettings(balance_lr=0.02))
    loads = []
    for step in range(60):
        tokens = random_tokens(257, seed=step)
        optimizer.zero_grad()
        total, count, metrics = next_token_loss(model, Batch(tokens[:-1], tokens[1:], Documents.of_lengths([256])))
        total.backward()
        optimizer.gradients()
        optimizer.step(step, 1.0, NO, count.float())
        loads.append(metrics["expert_load_max"].item() / count.item())
    assert sum(loads[-10:]) / 10 < 1.6


def test_each_expert_is_a_matrix_of_its_own_for_muon() -> None:
    model = build_model(small_config(**SOFTMAX), torch.Generator().manual_seed(0))
    roles = model.roles()
    assert roles["blocks.0.experts.expert_gate_up"] == roles["blocks.1.experts.expert_down"] == "expert"
    assert roles["blocks.0.experts.router"] == "matrix"
    optimizer = build_optimizer(model, OptimizerSettings(variance_beta=None))
    weight = model.blocks[0].experts.expert_gate_up
    before = weight.detach().clone()
    optimizer.gradients()
    weight.grad = random(*before.shape)
    weight.grad.view(6, 96, 64)[2] = 0  # an expert that no token chose
    optimizer.step(0, 1.0, NO, ONE)
    moved = ((before - weight.detach()) / 0.02).view(6, 96, 64)
    assert not moved[2].any()
    for expert in (0, 1, 3, 4, 5):
        for half in (slice(0, 48), slice(48, 96)):
            values = torch.linalg.svdvals(moved[expert, half])
            assert values.min() > 0.75
            assert values.max() < 1.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared_experts": 1}, "shared_experts needs num_experts"),
        ({"num_experts": 4, "experts_per_token": 5}, "experts_per_token 5 is more than num_experts 4"),
        ({"num_experts": 4, "experts_per_token": 1}, "experts_per_token is 1, with which the router learns nothing"),
        ({"num_experts": 4, "dense_layers": 2}, "dense_layers 2 leaves no layer of 2 for experts"),
        ({"num_experts": 4, "qk_norm": False}, "no class of the Hub computes experts without qk_norm"),
        ({"num_experts": 4, "shared_experts": 1}, 'no class of the Hub computes shared_experts with router "softmax"'),
        ({"num_experts": 4, "balance": "bias"}, 'no class of the Hub computes router "softmax" with balance "bias"'),
        (
            {"num_experts": 4, "router": "sigmoid"},
            r'"sigmoid" without a shared expert \(shared_experts = 1 is\)',
        ),
        ({"num_experts": 1}, '"num_experts": expected at least 2, found 1'),
    ],
)
def test_experts_that_do_not_fit_are_explained(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


def test_the_derived_width_keeps_the_active_width_of_the_feed_forward() -> None:
    assert small_config(num_experts=4, mlp_width=192).expert_width == 96
    assert small_config(num_experts=4, mlp_width=192, shared_experts=1, router="sigmoid").expert_width == 64


def test_equal_scores_choose_the_same_experts_every_time() -> None:
    config = small_config(**SOFTMAX)
    weights, chosen = choose_experts(config, torch.zeros(3, 6), None)
    assert torch.equal(chosen[0], chosen[1])
    assert torch.allclose(weights, torch.full((3, 2), 0.5))
    out = run_experts(random(3, 64), weights, chosen, random(6, 96, 64), random(6, 64, 48))
    assert out.shape == (3, 64)


def test_an_expert_takes_the_first_tokens_up_to_its_capacity() -> None:
    # 5 tokens, 2 choices each, 5 experts: ceil(1.25 * 10 / 5) = 3 of them.
    config = small_config(num_experts=5, experts_per_token=2, expert_width=16, capacity_factor=1.25)
    chosen = torch.tensor([[0, 1], [0, 2], [3, 0], [0, 1], [4, 0]])
    expected = [[True, True], [True, True], [True, True], [False, True], [True, False]]
    assert within_capacity(config, chosen).tolist() == expected


@KINDS
def test_dropped_choices_are_left_out_of_training_counted_and_kept_in_evaluation(kind: dict[str, object]) -> None:
    config = small_config(**kind, capacity_factor=0.5)
    model = random_model(config)
    layer = model.blocks[0].experts
    assert layer is not None
    x = random(40, 64)
    logits = x @ layer.router.T
    weights, chosen = choose_experts(config, logits, layer.router_bias)
    room = within_capacity(config, chosen)
    assert 0 < int(room.sum()) < room.numel()
    gate_up, down = layer.expert_gate_up.view(6, -1, 64), layer.expert_down.view(6, 64, -1)
    shared = 0.0
    if layer.shared_gate_up is not None:
        gate, up = (x @ layer.shared_gate_up.T).chunk(2, dim=-1)
        shared = (F.silu(gate) * up) @ layer.shared_down.T
    found, routing = layer(x)
    assert torch.allclose(found, run_experts(x, weights * room, chosen, gate_up, down) + shared, atol=1e-4)
    metrics = balance(config, [routing], 30)[2]
    assert float(metrics["expert_drop_fraction"]) == pytest.approx(1 - float(room[:30].float().mean()))
    with torch.no_grad():
        assert torch.allclose(layer(x)[0], run_experts(x, weights, chosen, gate_up, down) + shared, atol=1e-4)


def test_a_capacity_needs_experts_and_is_kept_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="capacity_factor needs num_experts"):
        small_config(capacity_factor=1.25)
    model = random_model(small_config(**SOFTMAX, capacity_factor=1.25))
    save_model(tmp_path, model)
    assert load_model(tmp_path).config == model.config
    assert "capacity_factor" not in config_text(small_config(**SOFTMAX), torch.float32)


@pytest.mark.parametrize(("width", "expert_width"), [(16, 12), (20, 16)])
def test_in_bf16_experts_of_any_width_are_computed(width: int, expert_width: int) -> None:
    """The grouped product takes rows of whole 16 bytes; experts of other widths go one by one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, width, generator=generator)
    gate_up = torch.randn(3, 2 * expert_width, width, generator=generator)
    down = torch.randn(3, width, expert_width, generator=generator)
    chosen, weights = torch.tensor([[0, 1], [2, 0], [1, 2]] * 2), torch.full((6, 2), 0.5)
    narrow = [part.bfloat16().requires_grad_() for part in (x, gate_up, down)]
    found = run_experts(narrow[0], weights, chosen, *narrow[1:])
    found.sum().backward()
    wide = [part.detach().float() for part in narrow]
    expected = run_experts(wide[0], weights, chosen, *wide[1:])
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert all(part.grad is not None for part in narrow)
