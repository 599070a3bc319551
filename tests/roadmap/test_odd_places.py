"""Walks in places that are not plain folders: runs/ as a link, homes elsewhere, damaged records."""

import os
import shlex

import pytest

from gradus.cli.placing import push_home
from gradus.core.errors import ArtifactError
from gradus.core.run_record import read_run_record
from gradus.roadmap.models import resolve_model
from gradus.roadmap.progress import PlainProgress
from gradus.roadmap.report_stages import stage_view
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


def test_runs_may_be_a_link_to_a_folder_elsewhere(roadmap_file, tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "big/disk/runs of all"
    home.mkdir()
    elsewhere.mkdir(parents=True)
    (home / "runs").symlink_to(elsewhere)
    with pytest.raises(KeyboardInterrupt):
        walk(load_roadmap(roadmap_file, ["prose.fail=interrupt"]), home, PlainProgress())
    (record, *_) = read_run_record(home / "runs/toy")["stages"]
    assert stage_view(home / "runs/toy", record).state == "working"

    walk(load_roadmap(roadmap_file), home, PlainProgress())
    assert resolve_model("toy", home).folder.parent.parent == home / "artifacts"
    assert (elsewhere / "toy/chat/manifest.json").is_file()
    records = read_run_record(home / "runs/toy")["stages"]
    assert [stage_view(home / "runs/toy", one).state for one in records] == ["done"] * 3


def test_links_stay_relative_where_the_home_can_be_moved(roadmap_file, tmp_path):
    artifacts = tmp_path / "big disk"
    artifacts.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/artifacts").symlink_to(artifacts)
    walk(load_roadmap(roadmap_file), tmp_path / "home", PlainProgress())
    assert os.readlink(tmp_path / "home/runs/toy/chat").startswith("../../artifacts/sft-")
    os.rename(tmp_path / "home", tmp_path / "moved")
    assert resolve_model("toy", tmp_path / "moved").label == "toy/chat"


def test_commands_that_are_told_can_be_typed_as_they_stand(roadmap_file, tmp_path, capsys, monkeypatch):
    file = roadmap_file.rename(tmp_path / "mein Weg é.toml")
    home = tmp_path / "another home"
    roadmap = load_roadmap(file, ["prose.fail=interrupt", "chat.epochs=1"], smoke=True)
    with pytest.raises(KeyboardInterrupt):
        walk(roadmap, home, PlainProgress())
    told = capsys.readouterr().out.split("resumes it: ")[1].strip()
    assert shlex.split(told) == [
        "gradus", "run", str(file), "prose.fail=interrupt", "chat.epochs=1", "--smoke", "--home", str(home),
    ]  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        walk(roadmap, home, PlainProgress(), only=["prose"])
    alone = capsys.readouterr().out.split("resumes it: ")[1].strip()
    assert shlex.split(alone) == [*shlex.split(told)[:5], "--only", "prose", "--smoke", "--home", str(home)]
    with pytest.raises(KeyboardInterrupt):
        walk(roadmap, home, PlainProgress(), only=["talk", "prose"])
    assert " --only talk --only prose --smoke " in capsys.readouterr().out.split("resumes it: ")[1]
    walk(load_roadmap(file), home, PlainProgress())
    assert f"talk     gradus chat --model toy --home '{home}'\n" in capsys.readouterr().out
    monkeypatch.setenv("GRADUS_HOME", str(home))  # commands look there without being told
    walk(load_roadmap(file), home, PlainProgress())
    assert "talk     gradus chat --model toy\npage     gradus serve toy\n" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "toy"}', '{"name": "toy", "stages": [{"name": "chat"}]}'])
def test_a_damaged_record_is_told_by_all_that_read_it(roadmap_file, tmp_path, content):
    home = tmp_path / "home"
    walk(load_roadmap(roadmap_file), home, PlainProgress())
    file = home / "runs/toy/roadmap.json"
    file.write_text(content)
    readers = [
        lambda: read_run_record(file.parent),
        lambda: resolve_model("toy", home),
        lambda: push_home("toy", home, f"file://{tmp_path}/place", None, False, True),
    ]
    for read in readers:
        with pytest.raises(ArtifactError, match=r"toy/roadmap\.json: (damaged|not the record).*gradus run writes it"):
            read()
    walk(load_roadmap(roadmap_file), home, PlainProgress())
    assert resolve_model("toy", home).label == "toy/chat"
