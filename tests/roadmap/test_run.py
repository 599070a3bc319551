"""The walk: what runs and why, reuse, gates, interruption, locks and records."""

import errno
import json
import os
import subprocess
import sys

import pytest

from gradus.core.artifact import open_artifact
from gradus.core.errors import ArtifactError, ConfigError, GateFailedError, GradusError
from gradus.core.ledger import Ledger
from gradus.roadmap.models import models_of_roadmap, resolve_model, resolve_stage
from gradus.roadmap.progress import PlainProgress, QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


@pytest.fixture
def run(roadmap_file, tmp_path, capsys, toys):
    """Walk the toy roadmap with overrides; gives (stages that ran, what was printed)."""

    def go(*overrides, only=(), override=None, smoke=False):
        toys.clear()
        roadmap = load_roadmap(roadmap_file, overrides, smoke=smoke)
        try:
            walk(roadmap, tmp_path / "home", PlainProgress(), only=only, override=override)
        finally:
            go.text = capsys.readouterr().out
        return list(toys), go.text

    return go


def table(text):
    """The opening table as {stage: (what, why)}."""
    rows = text.split("\n\n")[1].splitlines()[2:]
    return {row.split()[0]: row.split()[2] + " " + row.split("  ")[-1].strip() for row in rows}


def test_a_new_roadmap_runs_in_order_and_prints_first_what_it_will_do(run):
    ran, text = run()
    assert ran == ["prose", "talk", "chat"]
    assert table(text) == {"prose": "run new", "talk": "run new", "chat": "run new"}
    assert text.index("3 to run, about 1 m 3 s") < text.index("prose (corpus)")
    assert "gate passed: probes.fresh.total = 0.9 (n = 100) is at least 0.8" in text
    assert "talk     gradus chat --model toy --home" in text
    assert "weekday  ████████████████████ 100.0%  9/9" in text


def test_a_finished_walk_reuses_everything(run):
    run()
    ran, text = run()
    assert ran == []
    assert {s.split()[0] for s in table(text).values()} == {"reuse"}
    assert "everything is done already" in text


def test_a_changed_setting_reruns_the_stage_and_its_descendants_only(run):
    run()
    ran, text = run("prose.words=6")
    assert ran == ["prose", "chat"]
    assert table(text)["prose"] == "run words changed from 4 to 6"
    assert table(text)["chat"] == "run input prose changed"
    assert table(text)["talk"].startswith("reuse done in")
    ran, text = run("chat.mixture.0.epochs=5")
    assert ran == ["chat"]
    assert "mixture[0].epochs changed from 2.0 to 5.0" in text
    ran, _ = run()
    assert ran == []


def test_a_gate_stops_the_walk_and_an_edited_gate_judges_again_without_running(run, tmp_path):
    with pytest.raises(GateFailedError, match=r'toy\.toml:13 stage "chat": gate failed: probes\.fresh\.total = 0\.9 '):
        run("chat.gate.0.at_least=0.95")
    with pytest.raises(GateFailedError):
        run("chat.gate.0.at_least=0.95")
    assert run()[0] == []
    ran, text = run("chat.gate.0.at_least=0.95", override="good enough for a demo")
    assert ran == []
    assert "gate FAILED" in text
    gates = [r for r in Ledger(tmp_path / "home/runs/toy/ledger.jsonl").records() if r["event"] == "gate"]
    assert [(g["passed"], g.get("override")) for g in gates] == [
        (False, None), (True, None), (False, "good enough for a demo"),
    ]  # fmt: skip


def test_a_gate_on_what_was_not_measured_says_what_was(run):
    with pytest.raises(ConfigError, match=r'stage "chat": gate: no measure "probes\.total" in the results'):
        run("chat.gate.0.measure=probes.total")


def test_one_stage_alone_needs_its_inputs(run):
    with pytest.raises(ConfigError, match='stage "chat": its input prose, talk has not been made yet'):
        run(only=["chat"])
    assert run(only=["prose"])[0] == ["prose"]
    assert run(only=["talk"])[0] == ["talk"]
    assert run(only=["chat"])[0] == ["chat"]
    with pytest.raises(ConfigError, match='no stage "chta"; did you mean "chat"'):
        run(only=["chta"])


def test_several_stages_are_walked_in_the_order_of_the_file(run):
    assert run(only=["talk", "prose", "talk"])[0] == ["prose", "talk"]
    with pytest.raises(ConfigError, match='no stage "chta"'):
        run(only=["prose", "chta"])


def test_an_interrupted_stage_is_kept_and_resumed(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("prose.fail=interrupt")
    assert 'stopped in stage "prose" after' in run.text
    assert "the same command resumes it: gradus run" in run.text
    (work,) = (tmp_path / "home/artifacts").glob("corpus-*.work")
    assert (work / "scratch" / "state").read_text() == "half way"
    with pytest.raises(KeyboardInterrupt):
        run("prose.fail=interrupt")
    assert f"resumes in {work.name}" in run.text


def test_a_stage_error_comes_with_its_line(run):
    with pytest.raises(GradusError, match=r'toy\.toml:4 stage "prose": row 3 is not text'):
        run("prose.fail=error")


def test_a_smoke_walk_is_small_separate_and_passes_failed_gates(run, tmp_path):
    ran, text = run("chat.gate.0.at_least=0.99", smoke=True)
    assert ran == ["prose", "talk", "chat"]
    assert "a smoke run goes on past failed gates" in text
    assert sorted(p.name for p in (tmp_path / "home/runs").iterdir()) == ["toy-smoke"]
    assert run()[0] == ["prose", "chat"]


def test_a_damaged_input_is_refused_before_the_stage_runs(run, tmp_path):
    run(only=["prose"])
    run(only=["talk"])
    file = tmp_path / "home/runs/toy/prose/text.txt"
    file.write_text("word word word wurd ")
    with pytest.raises(ArtifactError, match=r"text\.txt: damaged: expected checksum .* delete the folder"):
        run(only=["chat"])


def test_the_run_folder_tells_lineage_and_measures(run, tmp_path):
    run()
    home = tmp_path / "home"
    record = json.loads((home / "runs/toy/roadmap.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["prose", "talk", "chat"]
    assert record["stages"][2]["inputs"] == {"corpus": ["prose"], "mixture[].source": ["talk"]}
    assert record["stages"][2]["predicted"]["seconds"] == 60
    link = home / "runs/toy/chat"
    assert os.readlink(link).startswith("../../artifacts/sft-")
    manifest = open_artifact(link).manifest
    prose = open_artifact(home / "runs/toy/prose").manifest
    assert manifest.parents["corpus"] == [prose.fingerprint]
    assert manifest.machine["cores"] >= 1
    assert manifest.software["pydantic"]
    events = list(Ledger(home / "runs/toy/ledger.jsonl").records())
    assert " ".join(e["event"] for e in events) == (
        "walk stage result result stage result measure stage result result gate"
    )
    (total,) = [e for e in events if e.get("measure") == "probes.fresh.total" and e["event"] == "result"]
    assert (total["value"], total["n"]) == (0.9, 100)
    assert "items" not in total
    stage = next(e for e in events if e["event"] == "stage" and e["stage"] == "chat")
    assert stage["predicted_seconds"] == 60
    assert stage["seconds"] >= 0


def test_two_walks_of_one_roadmap_do_not_collide(run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from gradus.core.lock import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), 'busy'): print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "home/runs/toy/.lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(GradusError, match=f'another walk of "toy" is going on .process {holder.pid}.; wait'):
            run()
    assert run()[0] == ["prose", "talk", "chat"]


def test_a_full_disk_is_told_clearly(run, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("gradus.roadmap.place.commit_artifact", full)
    with pytest.raises(GradusError, match=r"x: the disk is full \(.* MiB left at .*\); free some space and run"):
        run()


def test_a_model_is_found_by_roadmap_stage_or_folder(run, tmp_path):
    home = tmp_path / "home"
    with pytest.raises(ArtifactError, match=r'no model "toy" in .*run a roadmap first'):
        resolve_model("toy", home)
    run()
    found = resolve_model("toy", home)
    assert found.label == "toy/chat"
    assert found.folder == (home / "runs/toy/chat/model").resolve()
    assert resolve_model("toy/chat@latest", home) == found
    assert resolve_model(str(found.folder), home).folder == found.folder
    assert resolve_model(str(found.folder.parent), home).folder == found.folder
    for reference, message in {
        "tou": 'no model "tou" in .*; did you mean "toy"',
        "toy/chta": 'has no stage "chta"; did you mean "chat"',
        "toy/prose": 'stage "prose" of roadmap "toy" holds no finished model; stages with a model are chat',
        "toy@500": 'toy/chat keeps no checkpoint "@500"; there are @latest',
        str(tmp_path): "this folder holds no model",
        "./nowhere": r"\./nowhere: no model and no such folder; give a folder that holds one, or a",
        "owner/model": r'no model "owner/model" in .*; there are toy .*"import" with take = "hub:owner/model"',
    }.items():
        with pytest.raises(ArtifactError, match=message):
            resolve_model(reference, home)
    with pytest.raises(ArtifactError, match=f"{tmp_path}: no corpus in this folder; give a folder that holds one, or"):
        resolve_stage(str(tmp_path), home, "corpus")
    with pytest.raises(ArtifactError, match=r'no roadmap "\./toy" in .*; there are toy'):
        models_of_roadmap("./toy", home)


def test_a_quiet_walk_prints_nothing(roadmap_file, tmp_path, capsys):
    result = walk(load_roadmap(roadmap_file), tmp_path / "home", QuietProgress())
    assert capsys.readouterr().out == ""
    assert set(result.artifacts) == {"prose", "talk", "chat"}
