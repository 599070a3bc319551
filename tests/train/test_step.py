"""One step: micro-batches add up to a batch, bad numbers stop before the update, AdamW is AdamW."""

import pytest
import torch
from tiny_training import batch, batches, documents_of_step, model_and_optimizer

from gradus.core.errors import ArtifactError
from gradus.model.batch import Batch
from gradus.model.transformer import Transformer
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import AdamGroup, Optimizer, build_optimizer
from gradus.train.parallel import World
from gradus.train.step import StepResult, train_step


def run_step(
    model: Transformer,
    optimizer: Optimizer,
    micro_batches: list[Batch],
    step: int = 0,
    lr_scale: float = 1.0,
    guard: Guard | None = None,
) -> StepResult:
    guard = guard or Guard(GuardSettings(), torch.device("cpu"))
    return train_step(
        model,
        optimizer,
        micro_batches,
        next_token_loss,
        step=step,
        lr_scale=lr_scale,
        guard=guard,
        world=World(),
    )


def weights_of(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("cuts", [[6], [1, 6], [3, 4, 6], [1, 2, 3, 4, 5, 6]])
def test_micro_batches_equal_one_batch_with_uneven_masks(cuts: list[int]) -> None:
    whole, cut = model_and_optimizer(), model_and_optimizer()
    for step in range(4):
        documents = documents_of_step(step)
        pieces = [batch(documents[i:j]) for i, j in zip([0, *cuts[:-1]], cuts, strict=True)]
        one = run_step(*whole, [batch(documents)], step)
        many = run_step(*cut, pieces, step)
        assert one.count == many.count == sum((b.targets >= 0).sum() for b in pieces)
        assert torch.allclose(one.loss_sum, many.loss_sum, rtol=1e-6)
        assert torch.allclose(one.grad_norm, many.grad_norm, rtol=1e-4)
    for name, value in weights_of(whole[0]).items():
        assert torch.allclose(value, cut[0].get_parameter(name), atol=2e-5), name


@pytest.mark.parametrize(
    "kinds",
    [{}, {"clip_norm": 0.1}, {"matrix": "adafactor", "rest": "adafactor"}, {"matrix": "adamw", "clip_norm": 0.1}],
)
def test_bad_numbers_stop_before_the_update_and_cost_one_step(kinds: dict[str, object]) -> None:
    model, optimizer = model_and_optimizer(**kinds)
    guard = Guard(GuardSettings(), torch.device("cpu"))
    for step in range(3):
        run_step(model, optimizer, batches(step), step, guard=guard)
    kept, state = weights_of(model), {k: v.clone() for k, v in optimizer.state().items()}

    def broken_loss(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        total, count, metrics = next_token_loss(model, batch)
        return total * torch.nan, count, metrics

    result = train_step(model, optimizer, batches(3), broken_loss, step=3, lr_scale=1.0, guard=guard, world=World())
    assert bool(result.skipped)
    for name, value in weights_of(model).items():
        assert torch.equal(value, kept[name]), name
    for name, value in optimizer.state().items():
        assert torch.equal(value, state[name]), name
    assert not run_step(model, optimizer, batches(4), 4, guard=guard).skipped
    assert int(guard.skipped) == 1
    assert not torch.equal(model.embedding, kept["embedding"])


def test_a_step_without_any_supervised_token_leaves_the_weights_where_momentum_would_move_them() -> None:
    model, optimizer = model_and_optimizer()
    run_step(model, optimizer, batches(0))
    kept = weights_of(model)
    empty = batches(0)[0]
    result = run_step(model, optimizer, [Batch(empty.tokens, torch.full_like(empty.targets, -100), empty.documents)])
    assert (float(result.loss_sum), float(result.count), bool(result.skipped)) == (0.0, 0.0, True)
    for name, value in weights_of(model).items():
        assert torch.equal(value, kept[name]), name


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    # AdamW forgets how long gradients are, but not which was longer than another: some of these are cut, some not.
    limit = 0.95
    same = dict.fromkeys(("matrix_lr", "embed_lr", "head_lr", "vector_lr"), 0.01)
    model, optimizer = model_and_optimizer(matrix="adamw", weight_decay=0.0, clip_norm=limit, **same)
    reference, _ = model_and_optimizer()
    adam = torch.optim.AdamW(reference.parameters(), lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    norms = []
    for step in range(8):
        reported = run_step(model, optimizer, batches(step), step).grad_norm
        adam.zero_grad()
        losses = [next_token_loss(reference, b) for b in batches(step)]
        (sum(loss for loss, _, _ in losses) / sum(count for _, count, _ in losses)).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(reference.parameters(), limit)))
        assert float(reported) == pytest.approx(norms[-1], rel=1e-3)
        adam.step()
    assert min(norms) < 0.95 * limit < 1.05 * limit < max(norms), norms
    for name, value in reference.named_parameters():
        assert torch.allclose(model.get_parameter(name), value, rtol=1e-3, atol=1e-5), name


def test_parameters_outside_the_matrices_follow_torch_adamw() -> None:
    settings = {"embed_lr": 0.03, "head_lr": 0.02, "vector_lr": 0.01, "matrix_lr": 0.0}
    model, optimizer = model_and_optimizer(**settings)
    reference, _ = model_and_optimizer()
    rates = {"embed": 0.03, "head": 0.02, "vector": 0.01}
    roles = reference.roles()
    groups = [{"params": [reference.get_parameter(n)], "lr": rates[r]} for n, r in roles.items() if r in rates]
    adam = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, foreach=False)
    for step in range(5):
        run_step(model, optimizer, batches(step), step, lr_scale=0.5)
        adam.zero_grad()
        losses = [next_token_loss(reference, b) for b in batches(step)]
        (sum(loss for loss, _, _ in losses) / sum(count for _, count, _ in losses)).backward()
        for group in adam.param_groups:
            group["lr"] *= 0.5 if step == 0 else 1
        adam.step()
    for name, role in roles.items():
        if role != "matrix":
            assert torch.allclose(model.get_parameter(name), reference.get_parameter(name), rtol=1e-3, atol=1e-5), name


def test_adamw_in_plain_operations_moves_as_torchs_kernel() -> None:
    def run(step_name: str) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        parameters = {
            f"p{n}": torch.nn.Parameter(torch.randn(shape, generator=generator))
            for n, shape in enumerate([(4, 3), (5,)])
        }
        group = AdamGroup(parameters, 0.1, 0.3, World(), OptimizerSettings())
        for step in range(4):
            for parameter in parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0**-step
            if step == 2:
                parameters["p0"].grad[0] = torch.nan  # type: ignore[index]
            skip = torch.tensor(float(step == 2))
            with torch.no_grad():
                getattr(group, step_name)(torch.tensor(step + 1.0 - (step > 2)), 0.5, skip, torch.tensor(7.0))
        return [*parameters.values(), *group.mean.values(), *group.square.values()]

    for found, expected in zip(run("_step_unfused"), run("step"), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)


def test_adafactor_follows_torch_adafactor() -> None:
    rates = {"matrix": 0.3, "embed": 0.2, "head": 0.1, "vector": 0.05}
    settings = {f"{role}_lr": rate for role, rate in rates.items()}
    model, optimizer = model_and_optimizer(matrix="adafactor", rest="adafactor", **settings)
    reference, _ = model_and_optimizer()
    roles = reference.roles()
    groups = [
        {"params": [reference.get_parameter(n)], "lr": rates[r], "weight_decay": 0.1 if r == "matrix" else 0.0}
        for n, r in roles.items()
    ]
    adafactor = torch.optim.Adafactor(groups)
    for step in range(6):
        run_step(model, optimizer, batches(step), step)
        adafactor.zero_grad()
        losses = [next_token_loss(reference, b) for b in batches(step)]
        (sum(loss for loss, _, _ in losses) / sum(count for _, count, _ in losses)).backward()
        adafactor.step()
    for name in roles:
        assert torch.allclose(model.get_parameter(name), reference.get_parameter(name), rtol=1e-3, atol=1e-5), name


def test_matrices_can_train_with_adamw_too() -> None:
    model, optimizer = model_and_optimizer(matrix="adamw", matrix_lr=0.01)
    assert optimizer.muon is None
    before = weights_of(model)
    first = run_step(model, optimizer, batches(0))
    for step in range(1, 30):
        last = run_step(model, optimizer, batches(0), step)
    assert not torch.equal(before["blocks.0.qkv"], model.blocks[0].qkv)
    assert last.loss_sum < 0.8 * first.loss_sum


@pytest.mark.parametrize("kinds", [{}, {"matrix": "adafactor", "rest": "adafactor"}, {"matrix": "adamw"}])
def test_optimizer_state_round_trips_and_continues_bit_for_bit(kinds: dict[str, str]) -> None:
    model, optimizer = model_and_optimizer(**kinds)
    for step in range(3):
        run_step(model, optimizer, batches(step), step)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    other, _ = model_and_optimizer(seed=9)
    other.load_state_dict(model.state_dict())
    second = build_optimizer(other, optimizer.settings)
    second.load_state(state, "here")
    for step in range(3, 6):
        run_step(model, optimizer, batches(step), step)
        run_step(other, second, batches(step), step)
    for name, value in weights_of(model).items():
        assert torch.equal(value, other.get_parameter(name)), name


def test_state_of_another_model_is_refused() -> None:
    model, optimizer = model_and_optimizer()
    run_step(model, optimizer, batches(0))
    state = optimizer.state()
    with pytest.raises(ArtifactError, match="here: the optimizer state does not fit this model"):
        optimizer.load_state({k: v for k, v in state.items() if k != "momentum/blocks.0.out"}, "here")
    with pytest.raises(ArtifactError, match="does not fit this model"):
        optimizer.load_state(state | {"adam_mean/embedding": torch.zeros(3, 3)}, "here")


def test_every_parameter_is_updated_by_exactly_one_optimizer() -> None:
    model, _ = model_and_optimizer()
    optimizer = Optimizer(model, OptimizerSettings())
    assert optimizer.muon is not None
    by_muon = {part.name for group in optimizer.muon.groups for part in group.parts}
    by_adam = {name for group in optimizer.groups for name in group.parameters}
    for name, _ in model.named_parameters():
        assert (name in by_muon) != (name in by_adam), name
