"""Benchmarks while a model trains: when they are asked, what is left of them, and that they change no weight."""

import json
from pathlib import Path

import pytest
from small_stages import PROSE, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.core.errors import ConfigError
from gradus.core.gate import find_measure
from gradus.core.statistics import Z95
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_data import report_data
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

WATCH = 'watch = { tasks = ["arc_easy", "spelling"], at_most = 5, every = 8, benchmarks = "sets", max_tokens = 4 }\n'
CHAT = """
[[stage]]
name = "chat"
kind = "sft"
from = "base"
mixture = [{ source = "talk", epochs = 1.0 }]
steps_at_most = 2
batch_tokens = 256
watch = { tasks = ["chatcore.arc_easy"], at_most = 3, benchmarks = "sets" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path, 150)
    rows = [{"id": f"q{n}", "question": f"What is {n}?", "choices": ["a", "b c"], "gold": n % 2} for n in range(8)]
    (tmp_path / "sets/arc").mkdir(parents=True)
    for name in ("test", "val"):
        (tmp_path / f"sets/arc/arc_easy_{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_chats(tmp_path, [(f"Who sat on {n}?", "A cat.") for n in range(30)])
    return tmp_path


def load(folder: Path, base: str, more: str = "", processes: int = 1):  # type: ignore[no-untyped-def]
    machine = f'name = "w"\n[machine]\nthreads = 1\nprocesses = {processes}\n'
    (folder / "w.toml").write_text(machine + PROSE + TALK + tokens_of(280) + base + more)
    return load_roadmap(folder / "w.toml")


def evaluated(folder: Path, stage: str) -> list[dict]:  # type: ignore[type-arg]
    lines = (folder / f"runs/w/{stage}/metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "evaluate"]


def test_a_subset_is_asked_at_some_evaluations_and_no_weight_changes(folder: Path) -> None:
    base = base_of(10) + "evaluate_every = 4\nsave_every = 4\n"
    plain = load(folder, base)
    walk(plain, folder, QuietProgress())
    weights = (folder / "runs/w/base/model/model.safetensors").read_bytes()
    assert all("tasks.spelling.acc" not in line for line in evaluated(folder, "base"))
    watched = load(folder, base + WATCH, CHAT)
    # What is watched is no part of what a stage is.
    assert watched.stages[-2].fingerprint == plain.stages[-1].fingerprint
    for kept in (folder / "artifacts").glob("pretrain-*"):
        kept.rename(folder / "set_aside")
    (folder / "runs/w/base").unlink()
    walk(watched, folder, QuietProgress())
    assert (folder / "runs/w/base/model/model.safetensors").read_bytes() == weights
    lines = evaluated(folder, "base")
    assert [(line["step"], "tasks.arc_easy.acc" in line) for line in lines] == [(4, False), (8, True), (10, True)]
    last = lines[-1]
    assert set(last["standard_errors"]) == {"tasks.arc_easy.acc", "tasks.arc_easy.acc_norm", "tasks.spelling.acc"}
    results = json.loads((folder / "runs/w/base/manifest.json").read_text())["results"]
    measure = find_measure(results, "tasks.arc_easy.acc")
    value, error = last["tasks.arc_easy.acc"], last["standard_errors"]["tasks.arc_easy.acc"]
    assert error == pytest.approx((value * (1 - value) / 5) ** 0.5)
    assert (measure["value"], measure["upper"]) == (value, pytest.approx(value + Z95 * error))
    assert results["bpb"] == last["bpb"]
    assert "tasks.chatcore.arc_easy.acc" in evaluated(folder, "chat")[-1]
    curves = {entry["stage"]: entry for entry in report_data(folder / "runs/w")["training"]}
    assert curves["base"]["evaluate"]["tasks.arc_easy.acc"] == [None, lines[1]["tasks.arc_easy.acc"], value]
    assert "standard_errors" not in curves["base"]["evaluate"]


def test_what_cannot_be_watched_is_said_before_the_walk(folder: Path) -> None:
    for watch, problem in {
        'watch = { tasks = ["arc_esy"], benchmarks = "sets" }': r'unknown task "arc_esy"; did you mean "arc_easy"',
        'watch = { tasks = ["piqa"], benchmarks = "sets" }': r"no file piqa/valid\.jsonl",
        'watch = { tasks = ["arc_easy"], benchmarks = "sets", every = 150 }': "150 is no multiple of evaluate_every",
        'watch = { tasks = ["mt_bench"], benchmarks = "sets" }': 'task "mt_bench" needs a judge',
        'watch = { tasks = ["arc_easy"], evry = 5 }': 'unknown key "watch.evry"; did you mean "every"',
    }.items():
        with pytest.raises(ConfigError, match=problem):
            load(folder, base_of(4) + watch + "\n")


@pytest.mark.slow
def test_two_processes_look_at_the_same_as_one(folder: Path) -> None:
    base = base_of(8) + "evaluate_every = 4\n" + WATCH
    walk(load(folder, base, processes=2), folder, QuietProgress())
    two = evaluated(folder, "base")[-1]
    for kept in (folder / "artifacts").glob("pretrain-*"):
        kept.rename(folder / "set_aside")
    (folder / "runs/w/base").unlink()
    walk(load(folder, base), folder, QuietProgress())
    one = evaluated(folder, "base")[-1]
    names = [name for name in one if name.startswith("tasks.")]
    assert names
    assert [one[name] for name in names] == [two[name] for name in names]
