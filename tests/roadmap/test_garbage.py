"""What is garbage in a home is what no roadmap, run, server, push or protected checkpoint needs; nothing else goes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from gradus.cli.collecting import collect
from gradus.core.artifact import open_artifact
from gradus.core.errors import ConfigError, GradusError
from gradus.core.files import write_atomic
from gradus.core.lock import exclusive_lock
from gradus.release.parcels import drop_pin
from gradus.roadmap.garbage import DELETED, collect_garbage
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.serve.deployments import Deployment, Deployments, ModelSource


@pytest.fixture
def home(roadmap_file, tmp_path):
    """A home in which the toy roadmap was walked three times: `old` once, then with more words and other epochs."""

    def go(*overrides):
        walk(load_roadmap(roadmap_file, overrides), tmp_path / "home", QuietProgress())
        return (tmp_path / "home/runs/toy/chat").resolve()

    go.folder = tmp_path / "home"
    go.old = go()
    go.middle = go("chat.mixture.0.epochs=5")
    go.new = go("prose.words=6")
    return go


def garbage(home, *roadmaps, delete=False):
    found = collect_garbage(home.folder, roadmaps, delete, lambda text: None)
    assert {held.path.name for held in found.kept}.isdisjoint(held.path.name for held in found.garbage)
    return {held.path.name for held in found.garbage}


def reason(home, folder):
    found = collect_garbage(home.folder, (), False, lambda text: None)
    return {held.path: held.reason for held in found.kept}.get(home.folder / "artifacts" / folder.name, "")


def test_artifacts_of_settings_that_were_left_are_garbage_and_only_they_go(home, capsys):
    artifacts = home.folder / "artifacts"
    prose = {path.name for path in artifacts.glob("corpus-*")} - {open_artifact(home.new).parent("corpus")}
    (old_prose,) = [n for n in prose if open_artifact(artifacts / n).results["documents"] == 4]
    expected = {home.old.name, home.middle.name, old_prose}
    everything = {path.name for path in artifacts.iterdir()}
    assert garbage(home) == expected == garbage(home, "toy")
    assert {path.name for path in artifacts.iterdir()} == everything, "without --delete nothing is deleted"
    (artifacts / "my notes").mkdir()
    (artifacts / f"{home.old.name}.work").mkdir()
    (artifacts / "sft-0123456789abcdef").symlink_to(home.new)
    collect([], home.folder, True, False)
    said = capsys.readouterr().out
    assert "4 deleted" in said
    assert f"{home.old.name}.work" in said
    gone = {path.name for path in artifacts.iterdir()} ^ (everything | {"my notes", "sft-0123456789abcdef"})
    assert gone == expected
    assert home.new.is_dir()
    assert home("prose.words=6") == home.new


def test_caches_beside_the_artifacts_are_told_and_stay(home, capsys):
    (home.folder / "gguf").mkdir()
    (home.folder / "gguf/model.gguf").write_bytes(bytes(3000))
    collect([], home.folder, True, False)
    told = "gguf/ holds 2.9 KiB that are made again where they lack; delete them by hand"
    assert capsys.readouterr().out.splitlines()[-1] == told
    assert (home.folder / "gguf/model.gguf").is_file()


def test_a_roadmaps_file_needs_what_it_says_now_and_what_was_walked_last(home, roadmap_file, tmp_path):
    assert garbage(home, str(roadmap_file)) == {home.middle.name}
    other = tmp_path / "other.toml"
    other.write_text(roadmap_file.read_text().replace('name = "toy"', 'name = "other"'))
    assert home.new.name in garbage(home, str(other))
    assert home.old.name not in garbage(home, str(other))
    assert garbage(home, "toy/prose") > {home.new.name, home.old.name}
    for text, words in (("tyo", 'found neither; did you mean "toy"'), ("toy/chta", 'no finished stage "chta"')):
        with pytest.raises(ConfigError, match=words):
            garbage(home, text)
    with pytest.raises(ConfigError, match="no such folder; --home says"):
        collect_garbage(tmp_path / "nowhere", (), True, print)


def test_what_is_deployed_waits_to_be_pushed_or_is_protected_is_kept_with_what_it_was_made_from(home):
    old, corpus = home.old, open_artifact(home.old).manifest.parents["corpus"][0][:16]
    (step := old / "checkpoints" / "step-00000007").mkdir(parents=True)
    (step / "protected").touch()
    assert reason(home, old) == "holds a protected checkpoint"
    assert reason(home, home.folder / f"corpus-{corpus}") == "those were made from"
    shutil.rmtree(step)
    assert reason(home, old) == ""
    source = ModelSource("toy", "toy", "toy/chat", old / "model", old / "model")
    Deployments(home.folder / "deployed.json").record("toy", Deployment("toy", source, None))
    assert reason(home, old) == "deployed"
    (home.folder / "deployed.json").unlink()
    write_atomic(home.folder / "runs/toy/push.json", json.dumps({"waiting": {f"artifacts/{old.name}": 9}}))
    assert reason(home, old) == "to be pushed"
    (home.folder / "runs/toy/push.json").unlink()
    (pin := home.folder / "artifacts/.push" / f"{old.name}.work" / "step-00000007").mkdir(parents=True)
    assert reason(home, old) == "to be pushed"
    drop_pin(pin)
    assert reason(home, old) == "", "a checkpoint that was sent waits no more"
    (home.folder / ".dry-run-1/artifacts").mkdir(parents=True)
    (home.folder / ".dry-run-1/artifacts" / old.name).symlink_to(old)
    assert reason(home, old) == "a dry run uses it"
    (home.folder / "runs/toy/roadmap.json").write_text("{")
    for spoil in (lambda: None, (home.folder / "runs/toy/roadmap.json").unlink):
        spoil()
        with pytest.raises(GradusError, match=r"roadmap\.json: cannot be read, so what it needs is unknown"):
            garbage(home, delete=True)
    shutil.rmtree(home.folder / "runs")
    with pytest.raises(ConfigError, match="runs: no run is there, so everything would seem left over"):
        garbage(home, delete=True)
    assert old.is_dir()


def test_what_a_server_of_this_home_holds_is_kept_and_one_that_does_not_say_stops_all(home, monkeypatch):
    folder = home.folder / ".servers"
    folder.mkdir()
    monkeypatch.chdir(folder)  # the path of a socket may have a hundred characters
    (folder / "left-by-another-program.sock").touch()
    answers = [
        {"done": {"models": [{"folder": str(home.old / "model"), "tokenizer": "/elsewhere"}]}},
        {"error": "broken"},
    ]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("8000.sock")
        listening.listen()

        def answer():
            for row in answers:
                listening.accept()[0].close()  # whether anybody is there
                with listening.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(json.dumps(row).encode() + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert reason(home, home.old) == "served"
        with pytest.raises(GradusError, match="broken"):
            garbage(home, delete=True)
        thread.join(120)
    assert garbage(home) >= {home.old.name}, "a server that was killed leaves its socket behind"


HOLDER = """
import sys, time
from pathlib import Path
from gradus.core.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "held"):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_walked_keeps_all_that_it_was_begun_with(home, roadmap_file, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(
        roadmap_file.read_text().replace('name = "toy"', 'name = "other"').replace("words = 4", "words = 9")
    )
    walk(load_roadmap(other), home.folder, QuietProgress())
    lock = home.folder / "runs/toy/.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as walker:
        assert walker.stdout.readline() == "holds\n"
        assert home.new.name not in garbage(home, "other", delete=True)
        walker.stdin.close()
    assert home.new.is_dir()
    assert home.new.name in garbage(home, "other")


def test_a_walk_that_begins_waits_until_garbage_is_found_and_put_aside(home):
    said = []
    with exclusive_lock(home.folder / "artifacts/.lock", "held"):
        thread = threading.Thread(target=lambda: said.append(home()))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(120)
    assert said == [home.old]


def test_files_with_two_names_are_counted_once_and_what_was_put_aside_goes_the_next_time(home):
    artifacts = home.folder / "artifacts"
    (home.old / "large").write_bytes(b"1" * 100_000)
    os.link(home.old / "large", home.new / "large")
    os.link(home.old / "large", home.old / "again")
    found = collect_garbage(home.folder, (), False, print)
    assert next(held for held in found.garbage if held.path == artifacts / home.old.name).num_bytes > 200_000
    assert found.freed_bytes < 100_000
    (home.new / "large").unlink()
    assert 100_000 < collect_garbage(home.folder, (), False, print).freed_bytes < 200_000
    (artifacts / DELETED).mkdir()
    os.rename(home.old, artifacts / DELETED / "left-by-a-kill")
    assert collect_garbage(home.folder, (), True, print).freed_bytes > 100_000
    assert not (artifacts / DELETED).exists()
