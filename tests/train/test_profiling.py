"""Profiles: which steps are in them, that a request and a signal work, and that failing to write ends nothing."""

import gzip
import json
import os
import signal

import pytest
import torch

from gradus.train.profiling import StepProfiler, on_signal

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def run_steps(profiler, steps, before=None):
    """Steps with two products each, as `fit` asks for their batches."""
    batches = profiler.watched(lambda step: torch.ones(8, 8))
    for step in range(steps):
        if before:
            before(step)
        batch = batches(step)
        with torch.profiler.record_function("the_step"):
            batch @ batch @ batch
    profiler.end()


def traced_steps(path):
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    return sum(event.get("name") == "the_step" and event.get("cat") == "user_annotation" for event in events)


def test_a_request_in_the_roadmap_profiles_so_many_steps_after_the_first_few(tmp_path):
    lines = []
    run_steps(StepProfiler(tmp_path / "p", 4, at_once=True, device=CPU, say=lines.append), 12)
    trace, table = sorted((tmp_path / "p").iterdir())
    assert (trace.name, table.name) == ("steps-000004-000007.json.gz", "steps-000004-000007.txt")
    assert traced_steps(trace) == 4
    assert "aten::mm" in table.read_text()
    assert lines[0] == "  profiling 4 steps from step 4"
    assert "ui.perfetto.dev" in lines[1]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
def test_each_signal_profiles_the_next_steps_and_the_run_goes_on(tmp_path):
    profiler = StepProfiler(tmp_path, 3, at_once=False, device=CPU, say=lambda line: None)
    before = signal.getsignal(signal.SIGUSR1)

    def send(step):
        if step in {2, 3, 8}:  # the second comes while the first is still profiled, and takes its turn after it
            os.kill(os.getpid(), signal.SIGUSR1)

    with on_signal(profiler):
        run_steps(profiler, 13, send)
    assert signal.getsignal(signal.SIGUSR1) is before
    traces = sorted(path.name for path in tmp_path.glob("*.gz"))
    assert traces == ["steps-000003-000005.json.gz", "steps-000006-000008.json.gz", "steps-000009-000011.json.gz"]


def test_a_run_that_ends_first_leaves_what_was_profiled(tmp_path):
    run_steps(StepProfiler(tmp_path, 50, at_once=True, device=CPU, say=lambda line: None), 6)
    (trace,) = tmp_path.glob("*.gz")
    assert trace.name == "steps-000004-000006.json.gz"
    assert traced_steps(trace) == 3


def test_a_profile_that_cannot_be_written_costs_nothing_but_itself(tmp_path):
    (tmp_path / "file").write_text("in the way")
    lines = []
    run_steps(StepProfiler(tmp_path / "file" / "p", 2, at_once=True, device=CPU, say=lines.append), 8)
    assert "could not be written" in lines[-1]


def test_without_a_request_nothing_is_profiled_or_written(tmp_path):
    run_steps(StepProfiler(tmp_path / "p", 2, at_once=False, device=CPU, say=lambda line: None), 8)
    assert not (tmp_path / "p").exists()
