"""Learning rate by step, and which steps are refused."""

import math

import pytest
import torch

from gradus.core.errors import ConfigError
from gradus.core.settings import load_settings
from gradus.train.config import GuardSettings, ScheduleSettings
from gradus.train.guard import Guard
from gradus.train.schedule import Schedule


def test_wsd_warms_up_stays_and_decays_in_a_line() -> None:
    settings = ScheduleSettings(warmup_fraction=0.1, decay_fraction=0.4, final_fraction=0.2)
    rates = [Schedule(settings, 100)(step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[9] == pytest.approx(10 / 11)
    assert rates[10:60] == [1.0] * 50
    assert rates[60] == 1.0
    assert rates[80] == pytest.approx(0.2 + 0.8 * 0.5)
    assert rates[99] == pytest.approx(0.2 + 0.8 * (1 - 39 / 40))


def test_cosine_and_linear_decay_from_the_warm_up_on() -> None:
    cosine = Schedule(ScheduleSettings(kind="cosine", warmup_steps=4, final_fraction=0.0), 104)
    linear = Schedule(ScheduleSettings(kind="linear", warmup_steps=0, final_fraction=0.0), 100)
    assert cosine(4) == 1.0
    assert cosine(54) == pytest.approx(0.5)
    assert cosine(29) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert [linear(0), linear(25), linear(50), linear(100)] == [1.0, 0.75, 0.5, 0.0]


def test_phases_longer_than_the_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_fraction 0.5 and decay_fraction 0.65 add up to 1.15"):
        load_settings(ScheduleSettings, {"warmup_fraction": 0.5})


def guard_of(**changes: object) -> Guard:
    return Guard(GuardSettings(**changes), torch.device("cpu"))


def verdicts(guard: Guard, losses: list[float], norm: float = 1.0) -> list[bool]:
    return [bool(guard.judge(torch.tensor(loss), torch.tensor(norm), torch.tensor(False))) for loss in losses]


def test_one_nan_costs_exactly_one_step() -> None:
    guard = guard_of(min_history=4, window=8)
    assert verdicts(guard, [2.0, 2.1, 1.9, 2.0, math.nan, 2.0, 2.05, 1.95]) == [False] * 4 + [True] + [False] * 3
    assert (int(guard.skipped), int(guard.skipped_in_row), int(guard.accepted)) == (1, 0, 7)
    assert guard.history.isfinite().all()


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    guard = guard_of()
    assert verdicts(guard, [2.0], norm=math.inf) == [True]


def test_a_spike_is_refused_and_does_not_move_the_mean() -> None:
    guard = guard_of(min_history=4, window=8, spike_deviations=5.0)
    calm = [2.0, 2.1, 1.9, 2.0, 2.1, 1.9]
    assert verdicts(guard, calm) == [False] * 6
    assert verdicts(guard, [9.0] * 3 + [2.0]) == [True, True, True, False]
    assert int(guard.skipped_in_row) == 0


def test_a_step_in_which_nothing_counts_moves_no_mean_and_hides_no_spike() -> None:
    guard = guard_of(min_history=4, window=8, spike_deviations=5.0)
    verdicts(guard, [2.0, 2.1, 1.9, 2.0])
    zero = torch.tensor(0.0)
    assert bool(guard.judge(zero, zero, torch.tensor(True)))
    assert (int(guard.skipped), int(guard.accepted)) == (0, 4)
    assert verdicts(guard, [4.0, 2.0]) == [True, False]


def test_without_spike_deviations_only_finite_counts() -> None:
    guard = guard_of(min_history=2, window=4, spike_deviations=None)
    assert verdicts(guard, [1.0, 1.0, 1.0, 1e6, math.inf]) == [False] * 4 + [True]


def test_a_falling_loss_is_never_a_spike() -> None:
    guard = guard_of(min_history=8, window=16, spike_deviations=3.0)
    assert not any(verdicts(guard, [10 * 0.9**step for step in range(60)]))


def test_guard_state_round_trips() -> None:
    first, second = guard_of(window=4), guard_of(window=4)
    verdicts(first, [1.0, 2.0, math.nan, 3.0, 4.0, 5.0])
    second.load_state(first.state())
    for name, value in first.state().items():
        assert torch.equal(value, second.state()[name])
    smaller = guard_of(window=3)
    smaller.load_state(first.state())
    assert (int(smaller.accepted), int(smaller.skipped)) == (0, 1)
