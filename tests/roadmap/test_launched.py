"""Processes that a launcher started: one walk, the same weights, and clear words where they cannot meet."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_stages import write_lines
from test_workers import ROADMAP

from gradus.core.errors import ConfigError, GradusError, TrainingError
from gradus.roadmap import launched
from gradus.roadmap.launched import (
    Meeting,
    follow_walk,
    is_launched,
    join_meeting,
    launched_overrides,
    leading,
    other_processes,
)
from gradus.roadmap.place import Place
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.workers import free_port


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path, 300)
    (tmp_path / "pair.toml").write_text(ROADMAP)
    return tmp_path


def test_two_nodes_of_one_process_give_the_weights_of_two_processes_of_one_machine(folder):
    """Each node is started by torchrun, as on machines of their own."""
    port = free_port()
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command += ["-m", "gradus.cli.main", "run", str(folder / "pair.toml"), "--home", str(folder / "nodes")]
    nodes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
        for _ in range(2)
    ]
    said = [node.communicate(timeout=1800)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    # One of them walks, the other says nothing.
    assert sorted("talk     gradus chat" in text for text in said) == [False, True]
    two = load_roadmap(folder / "pair.toml", ["machine.processes=2"])
    here = walk(two, folder / "here", QuietProgress()).artifacts["base"]
    nodes_model = folder / "nodes" / "runs" / "pair" / "base" / "model" / "model.safetensors"
    assert nodes_model.read_bytes() == (here.path / "model" / "model.safetensors").read_bytes()
    assert load_file(nodes_model)


def test_as_many_processes_train_as_the_launcher_started(folder, monkeypatch):
    file = folder / "pair.toml"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched_overrides(file, ["base.seed=2"]) == ["base.seed=2", "machine.processes=4"]
    assert launched_overrides(file, ["machine.processes=4"])
    with pytest.raises(
        ConfigError, match=r"\[machine\] processes = 2, and the launcher started 4; leave processes out"
    ):
        launched_overrides(file, ["machine.processes=2"])


def test_a_machine_that_is_no_table_and_a_number_that_is_none_are_told(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = folder / "bad.toml"
    file.write_text('machine = 3\n\n[[stage]]\nname = "talk"\nkind = "synthesize"\n')
    with pytest.raises(ConfigError, match="machine"):
        load_roadmap(file, launched_overrides(file, []))
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 'two', expected the number of processes"):
        is_launched()


def test_what_the_launcher_did_not_set_is_named(tmp_path, monkeypatch):
    for name in launched.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="set WORLD_SIZE and not LOCAL_RANK, MASTER_ADDR, MASTER_PORT; start with"):
        join_meeting(tmp_path)


@pytest.fixture
def meetings():
    """Rank 0 and rank 1 of two, in one process."""
    import torch.distributed as dist

    main = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    other = dist.TCPStore("127.0.0.1", main.port, is_master=False, wait_for_workers=False)
    return Meeting(0, 2, main), Meeting(1, 2, other)


def at_once(*acts):
    """Do all of them, each in a thread; what they raised."""
    raised = [None] * len(acts)

    def run(number, act):
        try:
            act()
        except GradusError as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return raised


def test_homes_that_are_not_one_folder_are_refused_on_both_sides(meetings, tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "_SEEN_SECONDS", 0.5)
    main, other = meetings
    errors = at_once(
        lambda: launched._agree_on_home(main, tmp_path / "a"), lambda: launched._agree_on_home(other, tmp_path / "b")
    )
    for error in errors:
        text = f"is not the folder {tmp_path}/a of process 0 on"
        assert text in str(error)
        assert "mount one folder on all of them and name it with --home" in str(error)
    assert [type(error) for error in errors] == [TrainingError, ConfigError]
    assert not list((tmp_path / "a").iterdir())


def test_a_home_that_cannot_be_written_is_named(meetings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/home: .*; choose another folder with --home"):
        launched._agree_on_home(meetings[0], tmp_path / "file" / "home")


def test_one_home_is_seen_by_all(meetings, tmp_path):
    main, other = meetings
    assert at_once(*(lambda m=m: launched._agree_on_home(m, tmp_path / "a") for m in (main, other))) == [None, None]


def test_others_wait_until_the_walk_ends_and_then_end_too(meetings, tmp_path):
    main, other = meetings

    def lead():
        with leading(main), pytest.raises(ZeroDivisionError):
            _ = 1 / 0

    assert at_once(lead, lambda: follow_walk(other, tmp_path / "pair.toml", tmp_path)) == [None, None]


def stage_and_place(folder):
    roadmap = load_roadmap(folder / "pair.toml", ["machine.processes=2"])
    stage = roadmap.stage("base")
    return roadmap, stage, Place(stage, folder / "x.work", folder, folder, machine=roadmap.machine)


def test_the_last_words_of_a_process_that_fails_are_told_by_rank_0(meetings, folder, monkeypatch):
    main, other = meetings
    roadmap, stage, place = stage_and_place(folder)

    def fail(task, ready):
        assert Path(task["work"]) == folder / "artifacts" / "x.work"
        raise RuntimeError("first line\nno space left")

    monkeypatch.setattr(launched, "work", fail)

    def lead():
        with other_processes(main, roadmap, stage, place):
            pass

    errors = at_once(lead, lambda: follow_walk(other, folder / "pair.toml", folder))
    assert "process 1 failed: " in str(errors[0])
    assert str(errors[0]).endswith(": no space left")
    assert isinstance(errors[1], TrainingError)


def test_a_stage_that_one_process_does_alone_is_not_one_of_several(tmp_path, monkeypatch):
    given = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    # The package has a function of the module's name.
    module = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(module, "rendezvous", lambda url: iter([("store", 0, 2)]))
    monkeypatch.setattr(launched, "_agree_on_home", lambda meeting, home: None)
    meeting = join_meeting(tmp_path)
    assert not set(given) & set(os.environ)
    with launched._meeting_at(meeting, "77"):
        assert {name: os.environ[name] for name in given} == given | {"MASTER_PORT": "77"}
        assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False"
    assert not {*given, "TORCHELASTIC_USE_AGENT_STORE"} & set(os.environ)


def test_a_process_that_never_comes_is_named(meetings, folder, monkeypatch):
    monkeypatch.setattr(launched, "_READY_SECONDS", 0.5)
    roadmap, stage, place = stage_and_place(folder)
    with (
        pytest.raises(
            TrainingError, match=r"process 1 of 2 was not heard of for .* seconds; start the command on every"
        ),
        other_processes(meetings[0], roadmap, stage, place),
    ):
        pass


def test_a_store_that_is_gone_ends_the_waiting(folder):
    import torch.distributed as dist

    main = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    other = Meeting(1, 2, dist.TCPStore("127.0.0.1", main.port, is_master=False, wait_for_workers=False))
    del main
    with pytest.raises(TrainingError, match="the other processes cannot be reached any more"):
        follow_walk(other, folder / "pair.toml", folder)
