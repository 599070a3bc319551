"""The push beside a walk: started, never in the way, honest about what is not there; and going on after a pull."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import time

import pytest
from small_stages import tokens_of, write_lines

from gradus.core.errors import ConfigError, GateFailedError
from gradus.core.secrets import redacted
from gradus.release.place import open_place
from gradus.release.pull import pull
from gradus.roadmap.progress import PlainProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


@pytest.fixture
def run(roadmap_file, tmp_path, capsys, toys):
    """Walk the toy roadmap with overrides into a home; what was printed."""

    def go(*overrides, home="home", smoke=False):
        toys.clear()
        try:
            roadmap = load_roadmap(roadmap_file, overrides, smoke, tmp_path / home)
            walk(roadmap, tmp_path / home, PlainProgress())
        finally:
            go.text = capsys.readouterr().out
        return go.text

    return go


def to(place):
    return f'push.to="{place}"'


def test_a_walk_pushes_what_it_makes_and_says_so(run, tmp_path):
    text = run(to((tmp_path / "there").as_uri()))
    assert f"push     {tmp_path.as_uri()}/there, checkpoints every 100 steps" in text
    assert f"push     everything is at {tmp_path.as_uri()}/there" in text
    sent = {path.name.split("-")[0] for path in (tmp_path / "there" / "artifacts").iterdir()}
    assert sent == {"corpus", "pool", "sft"}
    assert {p.name for p in (tmp_path / "there/runs/toy").iterdir()} == {"roadmap.json", "ledger.jsonl", "report.html"}


def test_a_walk_without_a_place_says_that_nothing_is_pushed(run):
    assert "push     nowhere: what is made stays on this machine (no [push] in the roadmap)" in run()


def test_a_smoke_run_is_not_pushed(run, tmp_path):
    text = run(to((tmp_path / "there").as_uri()), smoke=True)
    assert "(a smoke run is not pushed)" in text
    assert not (tmp_path / "there").exists()


def test_the_place_is_no_part_of_any_fingerprint(run, toys, tmp_path):
    run()
    run(to((tmp_path / "there").as_uri()))
    assert toys == []


def test_a_push_that_cannot_start_is_said_aloud_and_the_walk_goes_on(run, toys):
    text = run(to("nosuch://bucket/runs"))
    reason = 'the process that pushes has ended: "nosuch://bucket/runs": fsspec knows no protocol "nosuch"'
    assert f"  warning: push: {reason}; training goes on" in text
    assert text.index("warning: push") < text.index("prose (corpus)")
    assert "push     not everything was sent; send it: gradus push toy" in text
    assert toys == ["prose", "talk", "chat"]


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_missing_package_is_named_with_its_install_line(run):
    text = run(to("s3://bucket/runs"))
    assert 'the package "s3fs" is needed and not installed; run: pip install "gradus[s3]"' in text


def test_a_place_that_cannot_be_reached_is_said_aloud_and_what_is_missing_is_named(run, toys, tmp_path):
    text = run(to((tmp_path / "no" / "mount" / "there").as_uri()), "push.wait_seconds=1")
    assert toys == ["prose", "talk", "chat"]
    assert f"there is no folder {tmp_path}/no/mount; training goes on" in text
    status = json.loads((tmp_path / "home/runs/toy/push.json").read_text())
    assert re.search("push     after 1 s [1-4] not at", text), text  # what was seen until then
    os.kill(status["process"], signal.SIGTERM)


def test_a_walk_that_is_stopped_says_that_sending_goes_on(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(to((tmp_path / "there").as_uri()), "chat.corpus=prose", "prose.fail=interrupt")
    assert re.search(r"push     (1 not at .*; )?process \d+ goes on sending", run.text), run.text


def test_a_failed_gate_does_not_keep_what_was_made_from_being_sent(run, tmp_path):
    with pytest.raises(GateFailedError):
        run(to((tmp_path / "there").as_uri()), "chat.gate.0.at_least=0.99")
    until = time.monotonic() + 120
    while time.monotonic() < until and not list((tmp_path / "there").glob("pushed/artifacts/sft-*.json")):
        time.sleep(0.05)
    assert list((tmp_path / "there").glob("pushed/artifacts/sft-*.json"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://AKIA123:secret@bucket/x", "an address must hold no name or password: give them in the environment"),
        ("/backup", '; a folder is written "file:///backup"'),
        ("file://backup", '"file://backup" needs three slashes and a whole path'),
        ("hub:owner", 'expected a place, "hub:owner/name", '),
    ],
)
def test_a_place_of_another_form_is_refused_without_repeating_a_password(roadmap_file, place, message):
    with pytest.raises(ConfigError) as caught:
        load_roadmap(roadmap_file, [to(place)])
    assert message in str(caught.value)
    # The label repeats the override, which the command line shows redacted; the sentence itself must not.
    assert "secret@" not in str(caught.value).partition('"push.to": ')[2]
    assert "secret" not in redacted(str(caught.value)).partition("override")[2].partition("AWS_SECRET")[0]


def test_steps_are_the_only_unit_of_every(roadmap_file):
    with pytest.raises(
        ConfigError, match='expected a whole number of steps, such as "100 steps", found "2_000_000 tokens"'
    ):
        load_roadmap(roadmap_file, [to("file:///there"), 'push.every="2M tokens"'])


def test_a_pulled_home_is_walked_on_where_the_files_of_a_finished_stage_are_missing(run, toys, tmp_path):
    (tmp_path / "raw.txt").write_text("raw")
    path = 'prose.path="raw.txt"'
    run(path, to((tmp_path / "there").as_uri()))
    (tmp_path / "raw.txt").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        run(path, home="other")
    pull(open_place((tmp_path / "there").as_uri()), tmp_path / "other", None, lambda text: None)
    text = run(path, "chat.epochs=5", home="other")
    assert toys == ["chat"]
    assert "reused (its files are not on this machine)" in text
    # Its artifact is what stands in for the files, not their name.
    (corpus,) = (tmp_path / "other/artifacts").glob("corpus-*")
    shutil.rmtree(corpus)
    with pytest.raises(ConfigError, match=r'stage "prose": "raw\.txt": no such file'):
        run(path, home="other")
    with pytest.raises(ConfigError, match="no such file"):
        run(path, "prose.words=5", home="other")


ROADMAP = (
    """\
name = "lost"
seed = 3

[machine]
threads = 1

[push]
to = "{place}"
every = "2 steps"

[[stage]]
name = "prose"
kind = "corpus"
sources = [{{ kind = "files", path = "text.txt", split = "line" }}]
validation_fraction = 0.1
"""
    + tokens_of(285)
    + """
[[stage]]
name = "base"
kind = "pretrain"
tokens = "tokens"
model = {{ depth = 2, width = 32, head_dim = 16 }}
context = 64
horizon = "40 steps"
batch_tokens = 512
save_every = 2
evaluate_every = 10
log_every = 2
samples = ["The"]
"""
)


# A walk that waits at its sixth step until a checkpoint is at the place, and is killed some steps later.
KILLED = """
import os, signal, time
from pathlib import Path
from gradus.cli.main import main
from gradus.train import loop
fit = loop.fit

def watched(*given, **more):
    for report in fit(*given, **more):
        yield report
        while report.step >= 6 and not list(Path({there!r}).glob("pushed/artifacts/pretrain-*.work/*.json")):
            time.sleep(0.02)
        if report.step >= 12:
            os.kill(os.getpid(), signal.SIGKILL)

loop.fit = watched
main()
"""


def done(warm, folder, *words):
    """The end of a process, and what it said."""
    found = warm.run(words, cwd=folder)
    return found.returncode, found.stdout + found.stderr


def weights(home):
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (home / "runs/lost/base/model").glob("*.safetensors")
    }


def test_a_machine_that_is_lost_while_training_changes_no_bit(warm, tmp_path):
    """Killed a few steps after the first checkpoint was sent, its home deleted, gone on from a pull."""
    write_lines(tmp_path, 400)
    there = tmp_path / "there"
    (tmp_path / "lost.toml").write_text(ROADMAP.format(place=there.as_uri()))
    until = time.monotonic() + 600
    (tmp_path / "killed.py").write_text(KILLED.format(there=str(there)))
    status, said = done(warm, tmp_path, tmp_path / "killed.py", "run", "lost.toml", "--home", "first")
    assert status == -signal.SIGKILL, said
    while not json.loads((tmp_path / "first/runs/lost/push.json").read_text())["ended"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "text.txt").rename(tmp_path / "elsewhere.txt")
    gradus = (warm, tmp_path, "-m", "gradus.cli.main")
    status, said = done(*gradus, "pull", there.as_uri(), "--into", "second")
    assert status == 0, said
    status, said = done(*gradus, "run", "lost.toml", "--home", "second")
    assert status == 0, said
    assert "base    pretrain   resume" in said
    (tmp_path / "elsewhere.txt").rename(tmp_path / "text.txt")
    status, said = done(*gradus, "run", "lost.toml", "--home", "whole", to(f"{there.as_uri()}-whole"))
    assert status == 0, said
    assert weights(tmp_path / "second") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 1
