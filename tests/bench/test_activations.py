"""The comparison of activations: equal parameters, and steps in equal time."""

import sys
from pathlib import Path

import pytest

from gradus.model.config import model_config
from gradus.model.cost import parameters

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])


@pytest.mark.parametrize("width", [144, 288, 576])
def test_the_three_have_equally_many_parameters_in_their_matrices(width: int) -> None:
    from activations import ACTIVATIONS, shape

    configs = [model_config(shape(name, 5, width), vocab_size=2048, context=256) for name in ACTIVATIONS]
    assert {config.activation for config in configs} == {"swiglu", "relu2", "sine"}
    assert {parameters(config).matrix for config in configs} == {12 * 5 * width**2}
    assert len({config.num_heads for config in configs}) == 1


def test_a_step_that_takes_longer_leaves_time_for_fewer() -> None:
    from activations import steps_in_equal_time

    assert steps_in_equal_time({"a": 0.5, "b": 1.0, "c": 0.6}, 100) == {"a": 100, "b": 50, "c": 83}
    assert steps_in_equal_time({"a": 0.5, "b": 0.52}, 100) == {"a": 100, "b": 100}  # the timing resolves no more


def test_timing_counts_every_step_but_the_first_and_the_update_inside(one_thread: None) -> None:
    from activations import shape, step_seconds

    found = step_seconds({"sine": shape("sine", 1, 48)}, steps=2)["sine"]
    assert len(found["step_seconds"]) == len(found["update_seconds"]) == 2
    assert all(0 < update < step for update, step in zip(found["update_seconds"], found["step_seconds"], strict=True))
    assert found["in_matrices"] == 12 * 48**2
    assert found["parameters"] == 12 * 48**2 + 2 * 2048 * 48 + 2 * 48 + 2 * 48 + 48 + 3 * 4 * 48  # norms and the sine's
