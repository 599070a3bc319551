"""Telemetry: what it reads, that it bounds its own cost, and that nothing unreadable ends a run."""

import importlib.util

import psutil
import pytest
import torch

from gradus.train import telemetry
from gradus.train.telemetry import COST_FRACTION, Telemetry

CPU = torch.device("cpu")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_it_reads_what_the_operating_system_says():
    found = Telemetry(CPU).read()
    assert found["memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.5)
    assert 0 <= found["cpu_fraction"] <= 1
    assert 0 < found["machine_memory_fraction"] < 1


def test_a_busy_core_shows_as_its_share_of_all_cores(monkeypatch):
    clock = Clock()
    seconds = iter([5.0, 5.0 + 3.0])
    monkeypatch.setattr(telemetry.ProcessTree, "usage", lambda self: (10, next(seconds)))
    monkeypatch.setattr(telemetry, "usable_cores", lambda: 4)
    reader = Telemetry(CPU, clock)
    clock.now += 2.0
    # Three seconds of work in two seconds on four cores.
    assert reader.read()["cpu_fraction"] == 3 / 8


def test_readings_take_at_most_a_thousandth_of_the_time_between_them(monkeypatch):
    clock = Clock()

    def slow_usage(self):
        clock.now += 0.004
        return 1, 1.0

    monkeypatch.setattr(telemetry.ProcessTree, "usage", slow_usage)
    reader = Telemetry(CPU, clock)
    spent, begin, readings = 0.0, clock.now, 0
    for _ in range(5000):
        before = clock.now
        readings += bool(reader.read())
        spent += clock.now - before
        clock.now += 0.01
    # The last reading has its pause still before it.
    assert readings > 3
    assert spent / (clock.now - begin) <= COST_FRACTION * (1 + 1 / readings) + 1e-9


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("no driver"), psutil.AccessDenied(1)])
def test_what_cannot_be_read_is_left_out_and_not_asked_again(error, monkeypatch):
    asked = []

    def broken():
        asked.append(1)
        raise error

    monkeypatch.setattr(telemetry, "_machine", broken)
    clock = Clock()
    reader = Telemetry(CPU, clock)
    for _ in range(3):
        assert "memory_bytes" in reader.read()
        clock.now += 1000
    assert len(asked) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_shows_its_memory_and_through_nvml_its_load_heat_and_power():
    kept = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    found = Telemetry(torch.device("cuda", 0)).read()
    assert found["gpu_memory_bytes"] >= kept.numel()
    if importlib.util.find_spec("pynvml") is not None:
        assert {"gpu_busy_fraction", "gpu_celsius", "gpu_watts"} <= set(found)
