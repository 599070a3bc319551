"""DPO against the published formula written out, by hand and by finite differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation
from gradus.core.settings import check_settings
from gradus.data.loader import REFERENCE_LOGP, PairLoader, pair_lengths
from gradus.data.pack import unpacked_plan
from gradus.data.shards import TokenStore
from gradus.data.token_writer import TokenWriter
from gradus.engine.engine import Engine
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.posttrain.config import DPOSettings
from gradus.posttrain.dpo import answer_logps, dpo_loss, preference_loss, reference_logps

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 11


def random_model(seed: int = 0) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    table = {"depth": 1, "width": 16, "num_heads": 2, "head_dim": 8}
    model = build_model(model_config(table, VOCAB, 64), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def pair_batch(lengths: list[int], prompt: int = 2, seed: int = 1) -> Batch:
    """Documents of these lengths, targets behind a prompt of two tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (sum(lengths),), generator=generator)
    documents = Documents.of_lengths(lengths)
    targets = tokens.roll(-1)
    ends = torch.tensor(documents.bounds[1:]) - 1
    targets[ends] = IGNORE
    targets[documents.positions < prompt - 1] = IGNORE
    return Batch(tokens, targets, documents)


def slow_logps(model: Transformer, batch: Batch) -> list[Tensor]:
    """Each document alone, through a plain log-softmax."""
    found = []
    for start, end in zip(batch.documents.bounds, batch.documents.bounds[1:], strict=False):
        tokens, targets = batch.tokens[start:end], batch.targets[start:end]
        logp = model.head(model(tokens, Documents.of_lengths([end - start]))).log_softmax(-1)
        counted = targets != IGNORE
        found.append(logp[counted].gather(1, targets[counted][:, None]).sum())
    return found


def published_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """`preference_loss` of the reference implementation (eric-mitchell/direct-preference-optimization), also
    TRL's sigmoid loss: -logsigmoid(beta * ((pi_c - pi_r) - (ref_c - ref_r)))."""
    pi_logratios = chosen - rejected
    ref_logratios = reference_chosen - reference_rejected
    return -torch.nn.functional.logsigmoid(beta * (pi_logratios - ref_logratios))


def test_one_pair_by_hand() -> None:
    policy, reference = torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -4.5])
    # beta x ((-3 + 4) - (-5 + 4.5)) = 0.2 x 1.5 = 0.3; -ln sigmoid(0.3) = ln(1 + e^-0.3)
    losses, rewards = preference_loss(DPOSettings(beta=0.2), policy, reference, torch.tensor([3, 4]))
    assert rewards.tolist() == pytest.approx([0.2, -0.1])
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-0.3))])
    assert losses.tolist() == pytest.approx([0.554355], abs=1e-6)


def test_it_is_the_published_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 20, generator=generator, dtype=torch.float64) * 30
    losses, _ = preference_loss(DPOSettings(beta=0.1), policy, reference, torch.ones(20))
    expected = published_loss(policy[0::2], policy[1::2], reference[0::2], reference[1::2], 0.1)
    torch.testing.assert_close(losses, expected)


def test_answer_log_probabilities_are_those_of_each_document_alone() -> None:
    model, batch = random_model(), pair_batch([5, 9, 3, 4])
    sums, counts = answer_logps(model, batch)
    torch.testing.assert_close(sums, torch.stack(slow_logps(model, batch)))
    assert counts.tolist() == [3, 7, 1, 2]


def test_at_the_first_step_the_loss_is_ln_2_for_each_pair() -> None:
    model, batch = random_model(), pair_batch([5, 9, 3, 4, 6, 6])
    with torch.no_grad():
        batch.extra[REFERENCE_LOGP] = answer_logps(model, batch)[0]
    total, count, metrics = dpo_loss(DPOSettings())(model, batch)
    assert int(count) == 3
    assert float(total.detach()) == pytest.approx(3 * math.log(2), rel=1e-6)
    assert float(metrics["margin"]) == pytest.approx(0.0, abs=1e-5)
    assert float(metrics["chosen_reward"]) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_sum_and_its_metrics_are_the_formula_written_out(sft_weight: float) -> None:
    model, batch = random_model(), pair_batch([5, 9, 3, 4])
    reference = [-7.0, -20.0, -1.0, -6.0]
    batch.extra[REFERENCE_LOGP] = torch.tensor(reference)
    total, count, metrics = dpo_loss(DPOSettings(beta=0.3, sft_weight=sft_weight))(model, batch)
    logps = [float(value.detach()) for value in slow_logps(model, batch)]
    expected, margins = 0.0, []
    for i, num_chosen in ((0, 3), (2, 1)):
        margin = 0.3 * ((logps[i] - reference[i]) - (logps[i + 1] - reference[i + 1]))
        margins.append(margin)
        expected += math.log1p(math.exp(-margin)) - sft_weight * logps[i] / num_chosen
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(count) == 2
    assert float(metrics["margin"]) == pytest.approx(sum(margins), rel=1e-5)
    assert float(metrics["accuracy"]) == sum(margin > 0 for margin in margins)
    assert float(metrics["chosen_logp"]) == pytest.approx(logps[0] + logps[2], rel=1e-5)
    assert float(metrics["rejected_logp"]) == pytest.approx(logps[1] + logps[3], rel=1e-5)
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_gradient_is_that_of_the_formula_and_of_finite_differences(sft_weight: float) -> None:
    model, batch = random_model(), pair_batch([5, 9, 3, 4])
    batch.extra[REFERENCE_LOGP] = torch.tensor([-7.0, -20.0, -1.0, -6.0])
    settings = DPOSettings(beta=0.3, sft_weight=sft_weight)
    total, _, _ = dpo_loss(settings)(model, batch)
    parameters = list(model.parameters())
    found = torch.autograd.grad(total, parameters)
    logps = torch.stack(slow_logps(model, batch))
    slow = published_loss(logps[0::2], logps[1::2], *batch.extra[REFERENCE_LOGP].view(2, 2).T, 0.3).sum()
    slow = slow - sft_weight * (logps[0] / 3 + logps[2] / 1)
    for ours, expected in zip(found, torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    # One direction by finite differences, through our own loss.
    step = 1e-3
    values = []
    for sign in (1, -1):
        moved = random_model()
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), found, strict=True):
                parameter += sign * step * direction
        values.append(float(dpo_loss(settings)(moved, batch)[0].detach()))
    slope = sum(float((gradient**2).sum()) for gradient in found)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=5e-3)


def test_two_micro_batches_sum_to_one() -> None:
    model = random_model()
    whole = pair_batch([5, 9, 3, 4])
    reference = torch.tensor([-7.0, -20.0, -1.0, -6.0])
    whole.extra[REFERENCE_LOGP] = reference
    parts = []
    for rows, lengths, extra in ((slice(0, 14), [5, 9], reference[:2]), (slice(14, 21), [3, 4], reference[2:])):
        documents = Documents.of_lengths(lengths)
        parts.append(Batch(whole.tokens[rows], whole.targets[rows], documents, {REFERENCE_LOGP: extra}))
    loss = dpo_loss(DPOSettings())
    together = float(loss(model, whole)[0].detach())
    assert sum(float(loss(model, part)[0].detach()) for part in parts) == pytest.approx(together, rel=1e-6)


def test_references_come_in_store_order_and_give_ln_2_through_the_pair_loader(
    memorised: tuple[Engine, dict[str, Conversation]], tmp_path: Path
) -> None:
    engine, known = memorised
    form = engine.form
    assert isinstance(form, HermesFormat)
    rows = form.render_many([known[name] for name in ("product", "greeting", "coffee", "name")])
    writer = TokenWriter(tmp_path, "train", "documents", engine.tokenizer)
    writer.add([row.ids for row in rows], ["x"] * 4, [0] * 4, [row.mask for row in rows])
    writer.close()
    store = TokenStore(tmp_path, "train")
    seen: list[tuple[int, int]] = []
    found = reference_logps(engine.model, store, documents_per_batch=3, on_progress=lambda *now: seen.append(now))
    assert seen == [(3, 4), (4, 4)]
    assert found.dtype == np.float32
    # Known by heart, so nearly certain.
    assert (found < 0).all()
    assert (found > -1).all()
    plan = unpacked_plan(pair_lengths(store))
    loader = PairLoader(store, plan, seed=3, pairs_per_step=2, micro_pairs=1, reference_logp=found)
    batches = loader.batches(0)
    assert len(batches) == 2
    for batch in batches:
        total, count, _ = dpo_loss(DPOSettings())(engine.model, batch)
        assert int(count) == 1
        assert float(total.detach()) == pytest.approx(math.log(2), rel=1e-5)


def test_settings_out_of_range_are_named() -> None:
    settings, problems = check_settings(DPOSettings, {"beta": 0, "sft_weight": -1})
    assert settings is None
    assert [problem.text for problem in problems] == [
        '"beta": expected more than 0.0, found 0',
        '"sft_weight": expected at least 0.0, found -1',
    ]
