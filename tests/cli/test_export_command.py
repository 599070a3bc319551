"""`gradus export`: a folder that is whole and checked, or none."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from gradus.cli.exporting import export_to_folder
from gradus.cli.placing import push_home
from gradus.core.artifact import open_artifact
from gradus.core.errors import ConfigError, GradusError
from gradus.core.lock import exclusive_lock
from gradus.release import export
from gradus.roadmap.models import resolve_model

sys.path.insert(0, str(Path(__file__).parents[1] / "release"))
from exported import save_random

pytest.importorskip("gguf", reason='gguf is not installed: pip install "gradus[export]"')
OPTIONS = {"formats": ["gguf"], "gguf_types": ["f32"], "prompts": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_random(tmp_path_factory.mktemp("export") / "toy"))


def test_a_folder_comes_whole_with_checksums_and_is_never_written_over(model, tmp_path, capsys):
    stale = tmp_path / ".out.export"
    stale.mkdir()
    (stale / "half").write_text("what a kill left")
    export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=True)
    told = json.loads(capsys.readouterr().out)
    made = open_artifact(tmp_path / "out", "export")
    assert set(made.manifest.files) == set(told["files"]) == {"README.md", "toy-F32.gguf"}
    assert made.results["checks"][0]["greedy"] == {"beginnings": 2, "equal": 2, "ties": 0}
    assert made.manifest.settings["gguf_types"] == ["f32"]
    assert os.listdir(tmp_path) == ["out"]
    push_home(str(tmp_path / "out"), tmp_path, (tmp_path.parent / "there").as_uri(), None, False, as_json=False)
    assert sorted(os.listdir(tmp_path.parent / "there")) == ["README.md", "manifest.json", "toy-F32.gguf"]
    with pytest.raises(ConfigError, match="say where it goes, --to hub:OWNER/NAME"):
        push_home(str(tmp_path / "out"), tmp_path, None, None, False, as_json=False)
    with pytest.raises(ConfigError, match="out is there already; name a new folder, or delete that one"):
        export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=False)
    assert resolve_model(model, tmp_path).label == "toy"


def test_a_link_where_the_work_or_its_lock_will_be_is_refused_and_what_it_leads_to_stays(model, tmp_path):
    """As somebody else would lay it into a folder that both write to."""
    (tmp_path / "mine").mkdir()
    precious = tmp_path / "mine" / "letter"
    precious.write_text("dear")
    work = tmp_path / ".out.export"
    work.symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"\.out\.export is a link, or another user's; move it away"):
        export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=False)
    work.unlink()
    (work / "scratch").mkdir(parents=True)
    (work / "scratch" / ".lock").symlink_to(precious)
    with pytest.raises(GradusError, match="expected the file of a lock, found a link"):
        export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=False)
    assert precious.read_text() == "dear"
    (work / "scratch" / ".lock").unlink()
    with (
        exclusive_lock(work / "scratch" / ".lock", "held"),
        pytest.raises(GradusError, match=f"out: process {os.getpid()} is exporting there"),
    ):
        export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=False)
    assert work.is_dir()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt(), GradusError("refused")])
def test_whatever_goes_wrong_nothing_is_left(model, tmp_path, monkeypatch, failure):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(export, "model_card", fail)
    expected = GradusError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected, match=None if isinstance(failure, KeyboardInterrupt) else "the disk is full|refused"):
        export_to_folder(model, tmp_path / "out", tmp_path, OPTIONS, as_json=False)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_done_is_told_before_the_model_is_read(model, tmp_path):
    for options, message in (
        ({"formats": ["gguff"]}, 'expected one of .*found "gguff"'),
        ({"gguf_types": ["q8_0"]}, 'gguf_types needs "gguf" or "ollama" in formats'),
        ({"formats": ["ollama"], "gguf_types": ["q9_k"]}, "q9_k"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_to_folder(model, tmp_path / "out", tmp_path, options, as_json=False)
    with pytest.raises(ConfigError, match="there is no folder"):
        export_to_folder(model, tmp_path / "no" / "out", tmp_path, OPTIONS, as_json=False)
