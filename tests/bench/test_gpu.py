"""The GPU bench at toy size on a CPU: what it measures and leaves out, and that it goes on where it was cut off."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
JOB = {
    "model": {"depth": 1, "width": 32, "head_dim": 16}, "vocab_size": 64, "context": 16, "rows": 4, "micro_rows": 2,
    "steps": 2, "windows": 2, "device": "cpu", "compile": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("side", ["gradus", "plain"])
def test_a_side_states_speed_flops_and_the_optimizers_share(side: str, one_thread: None) -> None:
    from gpu_sides import Job, measure

    from gradus.model.cost import flops_per_token, multiplied_parameters

    job = Job(**JOB)
    found = measure(side, job)
    assert len(found["window_seconds"]) == 2
    assert found["tokens_per_second"] == pytest.approx(4 * 16 * 2 / min(found["window_seconds"]))
    assert found["optimizer_fraction"] > 0
    assert found["loss"] == pytest.approx(4.2, abs=0.8)  # ln 64
    rate = found["tokens_per_second"]
    assert found["flops_per_second"] == pytest.approx(rate * flops_per_token(job.config, 8.5))
    six_n = 6 * multiplied_parameters(job.config) + 12 * 1 * 32 * 16  # and 12 L d T
    assert found["flops_per_second_whole_rows"] == pytest.approx(rate * six_n)


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("side", ["gradus", "compiled", "transformers"])
def test_a_side_of_decoding_states_its_speed_by_rows(
    side: str, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_decode
    import torch

    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: function)  # which takes long
    shape = {key: JOB[key] for key in ("model", "vocab_size", "device")}
    job = gpu_decode.DecodeJob(**shape, context=64, batches=[1, 3], prompt=5, generate=20, runs=1)
    clock = iter(range(100))
    monkeypatch.setattr(gpu_decode.time, "perf_counter", lambda: float(next(clock)))
    found = gpu_decode.measure(side, job)
    assert found["tokens_per_second_of_1"] == 20  # a second of that clock
    assert found["tokens_per_second_of_3"] == 60
    assert found["peak_allocated_bytes"] > 0
    if side == "compiled":
        assert found["alike_fraction"] == 1
        assert found["compile_seconds"] == 1


def test_random_rows_are_a_function_of_the_step_and_can_be_learned() -> None:
    import torch
    from gpu_sides import Job, rows_of_step

    job = Job(**JOB)
    rows = rows_of_step(job, 3)
    assert rows.shape == (4, 17)
    assert torch.equal(rows, rows_of_step(job, 3))
    assert not torch.equal(rows, rows_of_step(job, 4))
    assert set(rows.diff(dim=1).remainder(64).unique().tolist()) <= {1, 2, 3}


def session(tmp_path: Path, budget: float = 100.0, context: int = 16) -> object:
    from gpu import Session

    args = SimpleNamespace(
        out=tmp_path / "out.json", budget_seconds=budget, smoke=True, device="cpu", context=context, rows=4,
        micro_rows=2, vocab_size=64, steps=1, windows=1, conversations=None,
    )  # fmt: skip
    return Session(args)


def test_what_is_measured_stands_in_the_file_at_once_and_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu

    monkeypatch.setattr(gpu, "missing", lambda names: [])
    asked: list[str] = []

    def run(command: list[str], seconds: float) -> tuple[int, str]:
        asked.append(command[2])
        if command[2] == "trainer":
            return 1, "Traceback\nValueError: no trainer here"
        assert json.loads((tmp_path / "out.json").read_text())["parts"] if len(asked) > 1 else True
        figures = {"tokens_per_second": 10.0, "flops_per_second": 1.0, "flops_per_second_whole_rows": 2.0}
        return 0, "noise\n" + json.dumps(figures)

    monkeypatch.setattr(gpu, "run", run)
    first = session(tmp_path)
    gpu.model_part(first, "d12")
    assert asked == ["gradus", "gradus", "gradus", "plain", "trainer"]
    assert first.result["left_out"] == {"d12, trainer": "exit status 1: Traceback | ValueError: no trainer here"}
    asked.clear()
    again = session(tmp_path)
    gpu.model_part(again, "d12")
    assert asked == ["trainer"]
    assert set(again.result["parts"]["d12"]) == {"gradus", "gradus without compile", "gradus documents", "plain"}
    with pytest.raises(SystemExit, match=r"measured at another shape, .*'context': 16.*--out"):
        session(tmp_path, context=32)


def test_without_time_or_packages_parts_are_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu

    monkeypatch.setattr(gpu, "missing", lambda names: ["accelerate"] if "accelerate" in names else [])
    late = session(tmp_path, budget=1.0)
    gpu.model_part(late, "d24")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["left_out"]["d24, trainer"] == "not installed: accelerate"
    assert written["left_out"]["d24, gradus"] == "out of time; run the same command again"
    assert written["parts"] == {}
    assert written["device"]["peak_flops"] is None


def test_a_missing_device_or_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in next(gpu.problems(SimpleNamespace(device="cuda")))
    assert not list(gpu.problems(SimpleNamespace(device="cpu")))
    monkeypatch.setattr(gpu, "missing", lambda names: ["safetensors"])
    assert "not installed: safetensors" in next(gpu.problems(SimpleNamespace(device="cpu")))


def test_known_gpus_have_a_peak_and_others_none() -> None:
    from gpu import peak_flops

    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("Some GPU") is None


@pytest.mark.slow
def test_the_script_runs_end_to_end_at_toy_size(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH / "gpu.py"), "--device", "cpu", "--smoke", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert set(parts["experts"]) >= {"gradus", "gradus without compile", "gradus documents", "plain"}
    assert set(parts["decode"]) >= {"gradus", "compiled", "transformers"}
    assert "skipped" in parts["tests"]["pytest -m gpu"]["last_lines"][-1]


def test_what_runs_out_of_time_is_ended_with_all_that_it_started() -> None:
    import gpu

    began = time.monotonic()
    script = "print('begun', flush=True); import subprocess; subprocess.run(['sleep', '600'])"
    status, said = gpu.run([sys.executable, "-c", script], 3.0)
    assert status is None
    assert "begun" in said
    assert time.monotonic() - began < 300
