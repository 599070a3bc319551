"""A dry run: everything is run, later stages take what earlier ones made, and nothing of it is left."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_stages import PROSE, base_of, tokens_of, write_lines

from gradus.cli.walking import run_roadmap
from gradus.core.errors import ConfigError, GateFailedError
from gradus.core.lock import exclusive_lock
from gradus.roadmap import dry_run
from gradus.roadmap.dry_run import dry_home, dry_walk, sweep_dry_homes
from gradus.roadmap.launched import _here
from gradus.roadmap.progress import PlainProgress, QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


def contents(folder):
    """Every file below a folder with its digest and time of change."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def test_every_stage_runs_on_what_the_dry_run_made_and_nothing_is_left(roadmap_file, home, toys, capsys):
    result = dry_walk(load_roadmap(roadmap_file), home, PlainProgress())
    assert toys == ["prose", "talk", "chat"]
    assert result.report is None
    assert result.artifacts["chat"].results["probes"]["fresh"]["total"]["value"] == 0.9
    assert not home.exists()
    text = capsys.readouterr().out
    assert "dry run: nothing of it is kept" in text
    assert "chat" in text.split("stage  took")[1]
    assert "probes.fresh.total 0.9" in text
    assert "gradus chat" not in text


def test_what_was_finished_before_is_used_and_stays_byte_for_byte(roadmap_file, home, toys):
    walk(load_roadmap(roadmap_file), home, QuietProgress())
    before = contents(home)
    toys.clear()
    dry_walk(load_roadmap(roadmap_file, ["chat.epochs=7"]), home, QuietProgress())
    assert toys == ["chat"]
    assert contents(home) == before
    assert not list(home.glob(".dry-run-*"))


def test_downloads_are_used_and_neither_added_to_nor_deleted(roadmap_file, home):
    for name in ("keep/a.parquet", "keep/b.parquet.part", "delete/c.parquet"):
        (home / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "raw" / name).write_text(name)
    before = contents(home)
    with dry_home(load_roadmap(roadmap_file), home) as folder:
        assert (folder / "raw" / "keep" / "a.parquet").read_text() == "keep/a.parquet"
        # One that an interrupted walk has a part of is fetched by itself.
        assert not (folder / "raw" / "keep" / "b.parquet.part").exists()
        (folder / "raw" / "keep" / "new.parquet").write_text("new")
        (folder / "raw" / "delete" / "c.parquet").unlink()
    assert contents(home) == before


def test_a_folder_that_its_own_run_deletes_meanwhile_is_passed_over(home, monkeypatch):
    (home / ".dry-run-gone").mkdir(parents=True)

    def deleted_first(path, refusal):
        shutil.rmtree(path.parent)
        raise FileNotFoundError(path)

    monkeypatch.setattr(dry_run, "exclusive_lock", deleted_first)
    os.utime(home / ".dry-run-gone", (1, 1))
    sweep_dry_homes(home)
    assert not list(home.iterdir())


def test_a_failed_gate_an_error_and_ctrl_c_leave_nothing_either(roadmap_file, home, toys, capsys):
    with pytest.raises(GateFailedError, match=r"is below 0\.95\. go on past it with --override"):
        dry_walk(load_roadmap(roadmap_file, ["chat.gate.0.at_least=0.95"]), home, QuietProgress())
    with pytest.raises(Exception, match="row 3 is not text"):
        dry_walk(load_roadmap(roadmap_file, ['prose.fail="error"']), home, QuietProgress())
    with pytest.raises(KeyboardInterrupt):
        dry_walk(load_roadmap(roadmap_file, ['prose.fail="interrupt"']), home, PlainProgress())
    assert "nothing of it is kept" in capsys.readouterr().out.splitlines()[-1]
    assert not home.exists()


def test_the_command_that_makes_missing_inputs_names_the_home_and_not_what_is_thrown_away(roadmap_file, home, toys):
    with pytest.raises(ConfigError) as refused:
        dry_walk(load_roadmap(roadmap_file), home, QuietProgress(), only=["chat"])
    assert str(refused.value).endswith(f"run the whole roadmap: gradus run {roadmap_file} --home {home}")


def test_a_dry_run_does_not_push(roadmap_file, home, toys, tmp_path):
    roadmap_file.write_text(f'[push]\nto = "{(tmp_path / "backup").as_uri()}"\n' + roadmap_file.read_text())
    roadmap_file.write_text(roadmap_file.read_text().replace('name = "toy"\nseed = 1\n', ""))
    roadmap_file.write_text('name = "toy"\nseed = 1\n' + roadmap_file.read_text())
    dry_walk(load_roadmap(roadmap_file), home, QuietProgress())
    assert not (tmp_path / "backup").exists()


def test_the_command_gives_results_without_paths(roadmap_file, home, toys, capsys):
    run_roadmap(roadmap_file, [], home, only=[], smoke=False, reason=None, as_json=True, dry_run=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["report"], said["stages"]["prose"]["artifact"]) == (None, None, None)
    assert said["stages"]["prose"]["results"]["documents"] == 4


def test_folders_of_killed_dry_runs_are_deleted_and_one_that_goes_on_is_not(home):
    for name in ("killed", "alive", "starting", "half-deleted"):
        (home / f".dry-run-{name}").mkdir(parents=True)
    os.utime(home / ".dry-run-half-deleted", (1, 1))
    (home / ".dry-run-killed" / ".lock").write_text("1")
    with exclusive_lock(home / ".dry-run-alive" / ".lock", "held"):
        sweep_dry_homes(home)
        assert sorted(path.name for path in home.iterdir()) == [".dry-run-alive", ".dry-run-starting"]


def test_other_machines_work_in_the_dry_runs_folder_of_their_home(tmp_path):
    task = {"home": "/theirs/home/.dry-run-ab", "work": "/theirs/home/.dry-run-ab/artifacts/sft-1.work"}
    found = _here(task, tmp_path / "r.toml", tmp_path)
    assert found["home"] == str(tmp_path / ".dry-run-ab")
    assert found["work"] == str(tmp_path / ".dry-run-ab" / "artifacts" / "sft-1.work")
    assert _here({"home": "/theirs/home", "work": "/x/sft-1.work"}, tmp_path, tmp_path)["home"] == str(tmp_path)


@pytest.mark.slow
def test_a_real_stage_trains_in_two_processes_and_a_kill_leaves_what_the_next_one_deletes(tmp_path):
    write_lines(tmp_path, 300)
    head = 'name = "dry"\n[machine]\nprocesses = 2\nthreads = 1\n'
    (tmp_path / "dry.toml").write_text(head + PROSE + tokens_of(280) + base_of(5))
    command = [sys.executable, "-m", "gradus.cli.main", "run", str(tmp_path / "dry.toml"), "--dry-run"]
    command += ["--home", str(tmp_path / "home")]
    killed = subprocess.Popen([*command, 'base.horizon="5000 steps"'], stdout=subprocess.PIPE, text=True)
    for line in killed.stdout:
        if line.startswith("base"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(list((tmp_path / "home").iterdir())) == 1
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if not list((tmp_path / "home").iterdir()):
            break
    assert list((tmp_path / "home").iterdir()) == []
    assert "base" in done.stdout.split("stage  ")[-1]
    assert "loss" in done.stdout
