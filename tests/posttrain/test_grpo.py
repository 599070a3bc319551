"""The GRPO loss against TRL's values, by hand, and against a plain log-softmax on every token."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.posttrain.grpo import (
    ADVANTAGE,
    ENTROPY,
    OLD_LOGP,
    REFERENCE_LOGP,
    GRPOSettings,
    group_advantages,
    grpo_loss,
    policy_terms,
    with_policy,
)
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World
from gradus.train.step import train_step

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trl_grpo.json").read_text())
VOCAB = 13


def small_model(seed: int, softcap: float | None = None) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    table = {"depth": 1, "width": 16, "num_heads": 2, "head_dim": 8, "family": "custom", "softcap": softcap}
    model = build_model(model_config(table, VOCAB, 64), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def answers(lengths: list[int], advantages: list[float], prompt: int = 3) -> Batch:
    """Documents with a prompt of three tokens and, in the first, one untrained token in the middle of the answer."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, VOCAB, (sum(lengths),), generator=generator)
    documents = Documents.of_lengths(lengths)
    targets = tokens.roll(-1)
    targets[torch.tensor(documents.bounds[1:]) - 1] = IGNORE
    targets[documents.positions < prompt - 1] = IGNORE
    targets[4] = IGNORE
    return Batch(tokens, targets, documents, {ADVANTAGE: torch.tensor(advantages)})


def slow_logps(model: Transformer, batch: Batch, temperature: float) -> list[Tensor]:
    """The log-softmax of each document alone, (targets, V)."""
    found = []
    for start, end in zip(batch.documents.bounds, batch.documents.bounds[1:], strict=False):
        counted = batch.targets[start:end] != IGNORE
        logits = model.head(model(batch.tokens[start:end], Documents.of_lengths([end - start])))
        found.append((logits / temperature).log_softmax(-1)[counted])
    return found


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_the_loss_and_its_gradient_are_those_of_trl(name):
    case, given = GOLDEN["cases"][name], {key: torch.tensor(value) for key, value in GOLDEN["inputs"].items()}
    mask = (given["completion"] * given["tool"]).bool()
    every = {key: torch.tensor(GOLDEN["inputs"][key], dtype=torch.float64) for key in ("logp", "old", "reference")}
    advantage = torch.tensor(GOLDEN["inputs"]["advantages"], dtype=torch.float64)[:, None].expand(mask.shape)
    logp = every["logp"].requires_grad_()
    settings = GRPOSettings(
        epsilon_low=case["epsilon_low"], epsilon_high=case["epsilon_high"], kl_beta=case["beta"],
    )  # fmt: skip
    losses, watched = policy_terms(logp[mask], every["old"][mask], every["reference"][mask], advantage[mask], settings)
    count = int(mask.sum()) if case["loss_type"] == "dapo" else len(mask) * GOLDEN["max_tokens"]
    loss = losses.sum() / count
    loss.backward()
    assert float(loss.detach()) == pytest.approx(case["loss"], abs=1e-5)
    assert torch.allclose(logp.grad, torch.tensor(case["gradient"], dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(watched["clipped"]) / int(mask.sum()) == pytest.approx(case["clipped"], abs=1e-5)
    if case["kl"] is not None:
        assert float(watched["kl"]) / int(mask.sum()) == pytest.approx(case["kl"], abs=1e-5)


def test_advantages_are_the_distance_from_the_mean_in_standard_deviations():
    assert group_advantages([1.0, 0.0, 0.0, 0.0], "none") == [0.75, -0.25, -0.25, -0.25]
    # variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4
    assert group_advantages([1.0, 0.0, 0.0, 0.0], "std") == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3])
def test_a_group_that_earned_alike_has_no_advantage_not_even_by_rounding(reward):
    assert group_advantages([reward] * 7, "std") == [0.0] * 7


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_loss_of_a_batch_is_the_one_written_out_over_single_documents(temperature, softcap):
    policy, old, reference = (small_model(seed, softcap) for seed in (1, 2, 3))
    batch = answers([9, 6, 11], [0.8, -1.2, 0.3])
    scored = with_policy(batch, old, reference, temperature)
    settings = GRPOSettings(kl_beta=0.05, temperature=temperature)
    total, count, metrics = grpo_loss(settings)(policy, scored)
    expected = kl = entropy = 0.0
    num_tokens = clipped = 0
    with torch.no_grad():
        rows = list(zip(*(slow_logps(model, batch, temperature) for model in (policy, old, reference)), strict=True))
    for document, (now, before, base) in enumerate(rows):
        bounds = batch.documents.bounds
        targets = batch.targets[bounds[document] : bounds[document + 1]]
        for place, target in enumerate(targets[targets != IGNORE].tolist()):
            advantage = float(batch.extra[ADVANTAGE][document])
            ratio = math.exp(float(now[place, target] - before[place, target]))
            bounded = min(max(ratio, 0.8), 1.28)
            gap = float(base[place, target] - now[place, target])
            k3 = math.exp(gap) - gap - 1
            expected += -min(ratio * advantage, bounded * advantage) + 0.05 * k3
            kl += k3
            entropy -= float((before[place].exp() * before[place]).sum())
            clipped += (ratio < 0.8 and advantage < 0) or (ratio > 1.28 and advantage > 0)
            num_tokens += 1
    assert int(count) == num_tokens == 16
    assert float(total.detach()) == pytest.approx(expected, abs=1e-4)
    assert float(metrics["kl"]) == pytest.approx(kl, abs=1e-4)
    assert float(metrics["entropy"]) == pytest.approx(entropy, abs=1e-4)
    assert 0 < int(metrics["clipped"]) == clipped


def test_the_gradient_at_a_temperature_is_that_of_plain_autograd():
    policy, reference = small_model(1, softcap=3.0), small_model(3, softcap=3.0)
    batch = answers([9, 6], [0.8, -1.2])
    scored = with_policy(batch, small_model(2, softcap=3.0), reference, 0.6)
    grpo_loss(GRPOSettings(temperature=0.6))(policy, scored)[0].backward()
    found = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    kept = torch.cat(
        [
            row.gather(1, batch.targets[start:end][batch.targets[start:end] != IGNORE][:, None])[:, 0]
            for row, start, end in zip(
                slow_logps(policy, batch, 0.6), batch.documents.bounds, batch.documents.bounds[1:], strict=False
            )
        ]
    )
    advantage = batch.extra[ADVANTAGE][batch.documents.index[batch.supervised]]
    policy_terms(kept, scored.extra[OLD_LOGP], scored.extra[REFERENCE_LOGP], advantage, GRPOSettings())[
        0
    ].sum().backward()
    for name, parameter in policy.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=2e-5), name


def test_before_any_update_every_ratio_is_exactly_one_and_the_divergence_zero():
    model = small_model(1)
    scored = with_policy(answers([9, 6], [1.0, -1.0]), model, model, 0.9)
    _, count, metrics = grpo_loss(GRPOSettings(temperature=0.9))(model, scored)
    assert float(metrics["ratio"]) == float(count)
    assert float(metrics["ratio_distance"]) == float(metrics["kl"]) == float(metrics["clipped"]) == 0.0
    assert not any(scored.extra[name].requires_grad for name in (OLD_LOGP, REFERENCE_LOGP, ENTROPY))


def test_the_constant_denominator_counts_answers_and_metrics_stay_means_over_tokens():
    model = small_model(1)
    scored = with_policy(answers([9, 6], [1.0, -1.0]), model, small_model(2), 1.0)
    by_token, by_answer = (
        grpo_loss(GRPOSettings(denominator=kind, max_tokens=40))(model, scored) for kind in ("tokens", "constant")
    )
    assert (int(by_token[1]), int(by_answer[1])) == (8, 80)
    assert torch.equal(by_token[0], by_answer[0])
    for name, value in by_token[2].items():
        assert float(value) / 8 == pytest.approx(float(by_answer[2][name]) / 80, rel=1e-6)


def step(model: Transformer, batches: list[Batch]) -> object:
    optimizer = build_optimizer(model, OptimizerSettings(matrix="adamw"))
    guard = Guard(GuardSettings(), torch.device("cpu"))
    return train_step(
        model, optimizer, batches, grpo_loss(GRPOSettings()), step=0, lr_scale=1.0, guard=guard, world=World()
    )


def test_micro_batches_divide_by_the_tokens_of_the_whole_step():
    model = small_model(1)
    parts = [answers([9], [1.0]), answers([6, 12], [-1.0, 0.5])]
    parts = [with_policy(part, model, small_model(2), 1.0) for part in parts]
    result = step(model, parts)
    losses = [grpo_loss(GRPOSettings())(small_model(1), part) for part in parts]
    assert float(result.count) == sum(float(count) for _, count, _ in losses)
    assert float(result.loss_sum) == pytest.approx(sum(float(total.detach()) for total, _, _ in losses), abs=1e-5)


def test_a_step_in_which_nothing_counts_leaves_the_weights():
    model = small_model(1)
    before = [p.detach().clone() for p in model.parameters()]
    batch = answers([9], [1.0])
    idle = Batch(batch.tokens, torch.full_like(batch.targets, IGNORE), batch.documents, batch.extra)
    result = step(model, [with_policy(idle, model, model, 1.0)])
    assert bool(result.skipped)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
