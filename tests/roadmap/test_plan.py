"""Plans: horizons against hand arithmetic, money, memory by part, several devices, the record and the calibration."""

import json
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest

from gradus.core.devices import Rate, known_devices
from gradus.core.errors import ConfigError
from gradus.core.machine import bf16_instructions
from gradus.core.quantity import Quantity
from gradus.model.config import model_config
from gradus.model.cost import flops_of_shared, flops_per_token, multiplied_parameters, sharded_memory, training_memory
from gradus.roadmap.calibrate import calibrate, write_rates
from gradus.roadmap.horizon import horizon_steps, horizon_text
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.plan import choose_device, own_device, plan_roadmap
from gradus.roadmap.plan_text import plan_json, plan_text
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_data import report_data
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import dpo

ROADMAP = """\
name = "small"

[machine]
threads = 1

[[stage]]
name = "primer"
kind = "corpus"
sources = [{ kind = "synthetic", name = "primer", documents = 400 }]
validation_fraction = 0.1

[[stage]]
name = "talk"
kind = "synthesize"
conversations = 200
validation_fraction = 0.1

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "primer"
vocab_size = 320

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "primer"
tokenizer = "bpe"

[[stage]]
name = "base"
kind = "pretrain"
tokens = "tokens"
model = { depth = 1, width = 32, head_dim = 16 }
context = 64
horizon = "6 steps"
batch_tokens = 512
log_every = 1
evaluate_tokens = 500
samples = []

[[stage]]
name = "chat"
kind = "sft"
from = "base"
mixture = [{ source = "talk" }]
steps_at_most = 4
batch_tokens = 512
row_length = 64
log_every = 1
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(ROADMAP)
    return path


# Horizons. The oracles are those of the curriculum notes: 461 M parameters, 524,288 tokens a step.


@pytest.mark.parametrize(
    ("horizon", "thousand_steps"),
    [(Quantity(4e19, "flops"), 27.6), (Quantity(20, "tokens/param"), 17.6)],
)
def test_horizons_of_a_published_plan_come_to_its_steps(horizon, thousand_steps):
    steps = horizon_steps(horizon, 524_288, parameters=461e6, flops_per_token=6 * 461e6, epoch_tokens=1e9)
    assert round(steps / 1000, 1) == thousand_steps


def test_part_of_a_step_is_refused_with_its_line(file):
    file.write_text(file.read_text().replace('"6 steps"', '"2.5 steps"'))
    place = r'small\.toml:\d+ stage "base": "horizon": "2\.5 steps": expected a whole number of steps'
    with pytest.raises(ConfigError, match=place):
        load_roadmap(file)


def test_a_horizon_is_told_in_all_three_terms():
    assert horizon_text(17_586, 17_586 * 524_288, 6 * 461e6 * 17_586 * 524_288, 461e6) == (
        "17,586 steps = 9.22 B tokens = 2.55e+19 FLOPs = 20 tokens/param"
    )


@pytest.mark.parametrize("unit", ["tokens", "flops", "tokens/param", "epochs"])
def test_every_term_gives_the_same_steps_as_the_others(unit):
    each = {"tokens": 1.0, "flops": 6e6, "tokens/param": 1 / 1e6, "epochs": 1 / 5e4}[unit]
    horizon = Quantity(1000 * 4096 * each, unit)
    steps = horizon_steps(horizon, 4096, parameters=1e6, flops_per_token=6e6, epoch_tokens=5e4)
    assert steps in {1000, 1001}


# Devices, money, memory


def test_time_and_money_follow_from_the_peak_the_assumed_share_and_the_price(file, tmp_path):
    (tmp_path / "devices.toml").write_text("[h100]\nmfu = 0.5\nprice_per_hour = 3.6\ntraining_overhead_seconds = 7\n")
    roadmap = load_roadmap(file, ["base.model=d24", "base.context=2048", "base.horizon=1e18 flops",
                                  "base.batch_tokens=524_288", "machine.processes=8"])  # fmt: skip
    device = choose_device("h100", roadmap.machine, tmp_path)
    plan = plan_roadmap(roadmap, device, tmp_path / "artifacts")
    base = plan.stages[4].estimate
    assert base.seconds == pytest.approx(7 + base.flops / (8 * 0.5 * 989e12), rel=0.01)
    assert base.mfu == pytest.approx(0.5, rel=0.01)
    money = plan_json(roadmap, plan)["stages"][4]["money"]
    assert money == pytest.approx(base.seconds * 8 * 3.6 / 3600)
    assert base.flops == pytest.approx(1e18, rel=0.01)
    assert base.tokens / base.scaled_parameters == pytest.approx(
        1e18 / base.flops * base.tokens / base.scaled_parameters, rel=0.01
    )


@pytest.mark.parametrize(("in_fp32", "value_bytes"), [(False, 2), (True, 4)])
def test_memory_parts_add_up_to_what_one_step_takes(file, tmp_path, in_fp32, value_bytes):
    roadmap = load_roadmap(file)
    device = replace(choose_device("cpu", roadmap.machine, tmp_path), in_fp32=in_fp32)
    base = plan_roadmap(roadmap, device, tmp_path / "artifacts").stages[4].estimate
    config = model_config(roadmap.stage("base").settings.model, 320, 64)
    memory = training_memory(config, 512, value_bytes, mean_context=32)
    assert base.memory["weights"] == memory.weights
    assert base.memory["activations"] == memory.activations
    assert base.memory_bytes == pytest.approx(base.memory["program"] + memory.total)
    gpu = plan_roadmap(roadmap, choose_device("l4", roadmap.machine, tmp_path), tmp_path / "artifacts").stages[4]
    assert gpu.estimate.memory["activations"] < memory.activations
    assert "program" not in gpu.estimate.memory


def test_memory_of_a_sharded_model_is_that_of_one_gpu_of_them(file, tmp_path):
    wide = ["base.model=d24", "base.context=2048", "base.micro_rows=1", "base.batch_tokens=16_384"]

    def memory(*overrides):
        roadmap = load_roadmap(file, [*wide, "machine.processes=8", *overrides])
        device = choose_device("h100", roadmap.machine, tmp_path)
        return plan_roadmap(roadmap, device, tmp_path / "artifacts").stages[4].estimate

    whole, sharded = memory(), memory("machine.parallel=shard")
    config = model_config("d24", 320, 2048)
    expected = sharded_memory(config, 2048, 8)
    assert sharded.memory_bytes == pytest.approx(expected.total)
    assert sharded.memory["optimizer"] == expected.optimizer < whole.memory["optimizer"] / 4
    assert memory("machine.parallel=shard", "machine.activation_checkpointing=full").memory_bytes < sharded.memory_bytes


def test_a_step_of_fewer_rows_than_processes_is_refused_before_anything_runs(file, tmp_path):
    roadmap = load_roadmap(file, ["base.batch_tokens=200", "base.context=64", "machine.processes=4"])
    device = choose_device("cpu", roadmap.machine, tmp_path)
    with pytest.raises(ConfigError, match=r"has 3 of the rows of 64, which 4 processes cannot share; .* = 256"):
        plan_roadmap(roadmap, device, tmp_path / "artifacts")


def test_rows_longer_than_the_context_are_refused_with_their_line(file, tmp_path):
    roadmap = load_roadmap(file, ["base.context=512", "chat.row_length=513"])
    device = choose_device("cpu", roadmap.machine, tmp_path)
    place = r'stage "chat": "row_length": the model has a context of 512 tokens; expected at most that, found 513'
    with pytest.raises(ConfigError, match=place):
        plan_roadmap(roadmap, device, tmp_path / "artifacts")
    # In a smoke run rows of 512 tokens are cut down with the context.
    roadmap = load_roadmap(file, ["base.context=512", "chat.row_length=512"], smoke=True)
    assert roadmap.stage("base").settings.context == roadmap.stage("chat").settings.row_length == 256
    plan_roadmap(roadmap, device, tmp_path / "artifacts")


@pytest.mark.parametrize("processes", [2, 8, 16, 64])
def test_a_smoke_run_has_a_row_for_each_process_where_the_real_run_has(processes, file, tmp_path):
    changes = [f"{stage}.batch_tokens=524288" for stage in ("base", "chat")]
    changes += ["base.context=1024", "chat.row_length=256", f"machine.processes={processes}"]
    real, smoke = (load_roadmap(file, changes, smoke=small) for small in (False, True))
    for roadmap in (real, smoke):
        plan_roadmap(roadmap, choose_device("h100", roadmap.machine, tmp_path), tmp_path / "artifacts")
    batches = [smoke.stage(name).settings.batch_tokens for name in ("base", "chat")]
    assert batches == [max(2048, processes * 320)] * 2
    # A small step stays as it is, and what cannot be shared is refused as it is in earnest.
    roadmap = load_roadmap(file, ["machine.processes=9"], smoke=True)
    with pytest.raises(ConfigError, match="has 8 of the rows of 64, which 9 processes cannot share"):
        plan_roadmap(roadmap, choose_device("h100", roadmap.machine, tmp_path), tmp_path / "artifacts")


def test_a_smoke_run_on_pairs_has_one_for_each_process_where_the_real_run_has():
    pairs = [dpo.Settings(pairs_per_step=32).smoke_of(processes).pairs_per_step for processes in (1, 4, 8, 64)]
    assert pairs == [4, 4, 8, 32]


def test_memory_follows_the_kind_of_optimizer(file, tmp_path):
    def kept(*overrides):
        roadmap = load_roadmap(file, overrides)
        device = choose_device("h100", roadmap.machine, tmp_path)
        return plan_roadmap(roadmap, device, tmp_path / "artifacts").stages[4].estimate

    full = kept('base.optimizer.matrix="adamw"')
    eight = kept('base.optimizer.matrix="adamw8bit"', 'base.optimizer.rest="adamw8bit"')
    assert full.memory["optimizer"] == 8 * full.parameters
    assert eight.memory["optimizer"] == pytest.approx(full.memory["optimizer"] * 2.03125 / 8, abs=1)
    assert kept().memory["optimizer"] < full.memory["optimizer"]


def test_several_devices_stand_beside_each_other(file, tmp_path):
    roadmap = load_roadmap(file)
    plans = [
        plan_roadmap(roadmap, choose_device(name, roadmap.machine, tmp_path), tmp_path / "artifacts")
        for name in ("cpu", "h100", "t4")
    ]
    text = plan_text(roadmap, plans)
    header = next(line for line in text.splitlines() if line.startswith("stage"))
    assert header.split() == ["stage", "kind", "cpu", "money", "h100", "money", "t4", "money"]
    assert "  base: 6 steps = 3,072 tokens = " in text
    assert "\nt4: time " in text
    one = plan_text(roadmap, plans[:1])
    assert "memory by part" in one
    assert "n/a" in one  # of a processor that was not measured no peak is known


def test_a_processor_without_bf16_trains_at_the_rates_of_fp32(file, tmp_path, monkeypatch):
    def planned(flags, *overrides):
        monkeypatch.setattr("gradus.roadmap.plan.bf16_instructions", lambda: flags)
        roadmap = load_roadmap(file, ["base.horizon=50_000 steps", *overrides])
        plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, tmp_path), tmp_path / "artifacts")
        text = plan_text(roadmap, [plan])
        assert ('precision = "bf16" on a processor without' in text) == (bool(overrides) and "bf16" in overrides[0])
        return plan.stages[4].estimate.seconds, "trains in fp32" in text

    with_bf16, without = planned(["avx512_bf16"]), planned([])
    # "a step of a small model" and "training on a CPU" of EXPERIMENTS.md, and the table's last width.
    assert 1.7 < without[0] / with_bf16[0] < 2.1
    assert planned(["avx512_bf16"], "machine.precision=fp32")[0] == without[0]
    assert planned([], "machine.precision=bf16") == (without[0], False)
    assert (with_bf16[1], without[1]) == (False, True)
    (tmp_path / "devices.toml").write_text('[cpu]\nflops_by_width = { "256" = 3e10 }\n')
    assert planned([]) == planned(["avx512_bf16"])
    (tmp_path / "devices.toml").unlink()
    # A rate that was measured here is one of what this processor computes in.
    write_rates(tmp_path, "cpu", {"pretrain": Rate(per_second=1e9, width=32, overhead_seconds=2.5)}, {"fp32": 2e9})
    assert planned([]) == planned(["avx512_bf16"])
    assert not planned([])[1]


def test_a_model_that_does_not_fit_is_told(file, tmp_path):
    roadmap = load_roadmap(file, ["base.model=d48", "base.context=2048"])
    plan = plan_roadmap(roadmap, choose_device("t4", roadmap.machine, tmp_path), tmp_path / "artifacts")
    assert "are needed, t4 has 16.0 GiB" in plan_text(roadmap, [plan])


def test_a_filter_makes_a_corpus_slower_in_the_plan(file, tmp_path):
    def seconds(*overrides):
        roadmap = load_roadmap(file, ["primer.sources.0.documents=1_000_000", *overrides])
        device = choose_device("cpu", roadmap.machine, tmp_path)
        return plan_roadmap(roadmap, device, tmp_path / "artifacts").stages[0].estimate.seconds

    bare, size = seconds(), 1_000_000 * 420
    rates = known_devices(tmp_path)["cpu"].rates
    assert seconds("primer.filters=['gopher']") - bare == pytest.approx(size / rates["filter/gopher"].per_second)
    both = seconds("primer.filters=['gopher']", "primer.dedup=minhash") - bare
    assert both == pytest.approx(size / rates["filter/gopher"].per_second + size / rates["minhash"].per_second)


def test_the_plan_of_this_machine_is_for_its_gpu_where_the_table_has_it(monkeypatch, tmp_path):
    names = ["NVIDIA L4"]
    monkeypatch.setattr("gradus.roadmap.plan.gpu_names", lambda: names)
    assert own_device(MachineSettings(), tmp_path) == "l4"
    assert own_device(MachineSettings(device="cpu"), tmp_path) == "cpu"
    names[0] = "Unheard-of 1"
    assert own_device(MachineSettings(), tmp_path) == "cpu"
    monkeypatch.setattr("gradus.roadmap.calibrate.gpu_names", lambda: names)
    with pytest.raises(ConfigError, match='"Unheard-of 1" is in no table of devices; add it to'):
        calibrate(load_roadmap_of(tmp_path), tmp_path, QuietProgress())
    on_tpu = replace(load_roadmap_of(tmp_path), machine=MachineSettings(device="xla"))
    with pytest.raises(ConfigError, match='"xla" is in no table of devices'):
        calibrate(on_tpu, tmp_path, QuietProgress())


def test_a_home_that_cannot_be_written_is_told(file, tmp_path):
    with pytest.raises(ConfigError, match="choose another folder with --home"):
        calibrate(load_roadmap(file), file / "home", QuietProgress())


def load_roadmap_of(folder):
    (folder / "small.toml").write_text(ROADMAP)
    return load_roadmap(folder / "small.toml")


def test_planning_does_not_import_torch(file):
    code = (
        "import sys; from gradus.cli.main import app; from typer.main import get_command\n"
        f"get_command(app)(['plan', {str(file)!r}, '--device', 'cpu', '--device', 'h100'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=file.parent, capture_output=True)


# A real walk


def test_a_walk_leaves_telemetry_mfu_and_what_each_stage_took(file, tmp_path):
    (tmp_path / "devices.toml").write_text(
        "[cpu]\nprice_per_hour = 3600.0\n[cpu.peak_flops]\nfp32 = 1e11\nbf16 = 2e11\n"
    )
    made = walk(load_roadmap(file, ["machine.precision=fp32"]), tmp_path, QuietProgress()).artifacts
    lines = [json.loads(line) for line in made["base"].file("metrics.jsonl").read_text().splitlines()]
    first = lines[0]
    assert {"cpu_fraction", "memory_bytes", "machine_memory_fraction", "mfu"} <= set(first)
    config = model_config({"depth": 1, "width": 32, "head_dim": 16}, 320, 64)
    mean_context = made["base"].results["packing"]["mean_context"]
    expected = first["tokens_per_second"] * flops_per_token(config, mean_context) / 1e11
    assert first["mfu"] == pytest.approx(expected, abs=1e-4)
    results = made["base"].results
    assert results["flops"] == pytest.approx(results["tokens"] * flops_per_token(config, mean_context))
    stages = {stage["name"]: stage for stage in report_data(tmp_path / "runs" / "small")["stages"]}
    for name, artifact in made.items():
        actual = stages[name]["actual"]
        assert actual["memory_bytes"] > 5e7
        assert actual["money"] == pytest.approx(artifact.manifest.seconds)
        assert stages[name]["predicted"]["memory_bytes"] > 0
    assert stages["base"]["predicted"]["tokens"] == 3072
    assert stages["chat"]["actual"]["tokens"] == made["chat"].results["tokens"]


def test_fine_tuning_counts_the_head_on_answers_only(file, tmp_path):
    made = walk(load_roadmap(file), tmp_path, QuietProgress()).artifacts["chat"]
    config = model_config({"depth": 1, "width": 32, "head_dim": 16}, 320, 64)
    counts, packing = made.results["counts"], made.results["packing"]
    trained = counts["trained_tokens"] / counts["tokens"]
    each = flops_per_token(config, packing["mean_context"], trained)
    tokens, shared = made.results["tokens"], made.results["tokens"] - made.results["computed_tokens"]
    assert made.results["flops"] == pytest.approx(tokens * each - shared * flops_of_shared(config), rel=1e-3)
    assert 0 < shared < tokens - counts["trained_tokens"]
    assert made.results["flops"] < tokens * each < tokens * flops_per_token(config, packing["mean_context"])


# Calibration


def test_a_calibration_measures_the_kinds_of_the_roadmap_and_writes_them(file, tmp_path):
    home = tmp_path / "home"
    rates = calibrate(load_roadmap(file), home, QuietProgress())
    assert set(rates) == {
        "corpus", "corpus/synthetic", "synthesize", "tokenizer", "tokenizer/pools", "tokenize",
        "pretrain", "sft", "decode",
    }  # fmt: skip
    cpu = known_devices(home)["cpu"]
    for kind, rate in rates.items():
        assert cpu.rates[kind].per_second == pytest.approx(rate.per_second, rel=1e-3)
    assert cpu.rates["pretrain"].width == 32
    assert set(cpu.peak_flops) == {"fp32", "bf16"} - (set() if bf16_instructions() else {"bf16"})
    # Nothing of the run itself stays.
    assert [path.name for path in home.iterdir()] == ["devices.toml"]
    roadmap = load_roadmap(file)
    plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, home), home / "artifacts")
    assert plan.stages[4].estimate.mfu is not None


def test_measured_rates_stand_beside_what_the_user_wrote(tmp_path):
    path = tmp_path / "devices.toml"
    written = "# my own\n[cpu]\nprice_per_hour = 0.1\n\n[mine]\nflops_per_second = 2e12\n"
    path.write_text(written, encoding="utf-8-sig")  # as some editors do
    write_rates(tmp_path, "cpu", {"corpus": Rate(per_second=1e6), "sft": Rate(per_second=2.0, width=64)}, {})
    write_rates(tmp_path, "cpu", {"corpus": Rate(per_second=3e6)}, {"bf16": 5e10})
    text = path.read_text()
    assert text.startswith("# my own\n[cpu]\nprice_per_hour = 0.1\n\n[mine]\n")
    assert text.count("Measured by") == 1
    found = tomllib.loads(text)
    assert found["mine"] == {"flops_per_second": 2e12}
    assert found["cpu"]["price_per_hour"] == 0.1
    assert found["cpu"]["rates"] == {
        "corpus": {"per_second": 3e6, "overhead_seconds": 0.0},
        "sft": {"per_second": 2.0, "overhead_seconds": 0.0, "width": 64},
    }
    path.write_text('[cpu]\nrates = { "sft" = { per_second = 1.0 } }\n')
    with pytest.raises(ConfigError, match="cannot stand beside what you wrote there"):
        write_rates(tmp_path, "cpu", {"corpus": Rate(per_second=1e6)}, {})
    assert path.read_text() == '[cpu]\nrates = { "sft" = { per_second = 1.0 } }\n'


def test_scaled_parameters_are_matrices_and_head():
    config = model_config("d4", vocab_size=8192, context=512)
    assert multiplied_parameters(config) == 4 * (4 * 256**2 + 3 * 256 * 672) + 8192 * 256


# Profiles


def test_a_profile_changes_nothing_but_leaves_a_trace(file, tmp_path):
    plain = walk(load_roadmap(file), tmp_path / "a", QuietProgress()).artifacts["base"]
    asked = walk(load_roadmap(file, ["machine.profile=2 steps"]), tmp_path / "b", QuietProgress()).artifacts["base"]
    assert asked.fingerprint == plain.fingerprint
    weights = "model/model.safetensors"
    assert asked.file(weights).read_bytes() == plain.file(weights).read_bytes()
    (folder,) = (tmp_path / "b" / "profiles").glob("base-*")
    assert sorted(path.name for path in folder.iterdir()) == ["steps-000004-000005.json.gz", "steps-000004-000005.txt"]
    assert not (tmp_path / "a" / "profiles").exists()
    with pytest.raises(ConfigError, match="expected a number of steps, such as"):
        load_roadmap(file, ["machine.profile=20 tokens"])


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
def test_a_signal_while_no_stage_trains_ends_nothing(file, tmp_path):
    code = (
        "import os, signal\nfrom gradus.roadmap.stages import tokenizer\nrun = tokenizer.run\n"
        "def signalled(*given): os.kill(os.getpid(), signal.SIGUSR1); return run(*given)\n"
        "tokenizer.run = signalled\nfrom gradus.cli.main import main\nmain()"
    )
    words = [sys.executable, "-c", code, "run", str(file), "--home", str(tmp_path), "--only"]
    subprocess.run([*words, "primer"], check=True, capture_output=True)
    done = subprocess.run([*words, "bpe"], check=True, capture_output=True, text=True)
    assert "nothing to profile" in done.stderr


def test_a_gate_that_no_result_can_pass_is_an_error_of_the_plan(file, tmp_path):
    probe = {"id": "a", "category": "sums", "messages": [{"role": "user", "content": "1+1?"}]}
    rows = [probe | {"id": str(n), "checks": [{"kind": "stops"}]} for n in range(40)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = """
[[stage]]
name = "look"
kind = "eval"
from = "chat"
suites = {{ own = "s.jsonl" }}
tasks = ["spelling"]
at_most = 30

[[stage.gate]]
measure = "{measure}"
bound = "lower"
at_least = {bar}
"""
    for measure, bar, problem in (
        ("probes.own.sums", 0.88, None),
        ("probes.own.sums", 0.9, 'gate on "probes.own.sums": the lower bound of 30 items comes to 0.8865 at best'),
        ("tasks.spelling.acc", 0.95, "lower bound of 30 items"),
    ):
        file.write_text(ROADMAP + asked.format(measure=measure, bar=bar))
        roadmap = load_roadmap(file)
        if problem is None:
            plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, tmp_path), tmp_path / "artifacts")
            continue
        with pytest.raises(ConfigError, match=re.escape(problem)):
            plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, tmp_path), tmp_path / "artifacts")
        # At toy size nothing reaches a bar, and nothing has to.
        small = load_roadmap(file, smoke=True)
        plan_roadmap(small, choose_device("cpu", small.machine, tmp_path), tmp_path / "artifacts")


def test_judgements_are_part_of_the_money_of_an_evaluation(file, tmp_path):
    check = {"kind": "judge", "rubric": "kind", "threshold": 6}
    rows = [{"id": str(n), "messages": [{"role": "user", "content": "Hi"}], "checks": [check]} for n in range(40)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stage = '\n[[stage]]\nname = "look"\nkind = "eval"\nfrom = "chat"\nsuites = { own = "s.jsonl" }\n'
    file.write_text(ROADMAP + stage)
    with pytest.raises(ConfigError, match='suite "s": 40 checks of the kind "judge" need a judge'):
        load_roadmap(file)
    judge = 'judge = { base_url = "http://localhost:1/v1", model = "j", input_price = 2.0, output_price = 8.0 }\n'
    file.write_text(ROADMAP + stage + judge)
    roadmap = load_roadmap(file)
    plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, tmp_path), tmp_path / "artifacts")
    estimate = plan.stages[-1].estimate
    assert estimate.fees == pytest.approx(40 * (1500 * 2 + 250 * 8) / 1e6)
    assert "about 40 requests to j" in estimate.notes[-1]
    assert plan.costs_money
    # Every sample of every probe that is asked is judged.
    drawn = load_roadmap(file, ["look.temperature=0.7", "look.samples=5", "look.at_most=10"])
    plan = plan_roadmap(drawn, choose_device("cpu", drawn.machine, tmp_path), tmp_path / "artifacts")
    assert plan.stages[-1].estimate.fees == pytest.approx(50 * (1500 * 2 + 250 * 8) / 1e6)
