"""What is taken from the Hub without a commit is read at one commit, for ever, and that is said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradus.core.errors import ConfigError
from gradus.roadmap import calibrate
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.schema import load_roadmap

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import hub_server

ROADMAP = """\
[[stage]]
name = "bpe"
kind = "tokenizer"
take = "hub:someone/small"

[[stage]]
name = "model"
kind = "import"
take = "hub:someone/small@other"
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server() as server:
        repository = server.model("someone/small")
        for name, value in {
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": tmp_path / "hf",
            "GRADUS_CACHE": tmp_path,
        }.items():
            monkeypatch.setenv(name, str(value))
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield repository


def test_a_tokenizer_of_a_branch_is_read_at_one_commit_until_the_roadmap_says_otherwise(hub, tmp_path, monkeypatch):
    repository = hub
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    minimal = {"model": {"type": "BPE", "vocab": _byte_vocabulary(), "merges": []}, "added_tokens": [],
               "normalizer": None, "pre_tokenizer": byte_level, "decoder": byte_level}  # fmt: skip
    first = repository.commit({"tokenizer.json": json.dumps(minimal)})
    imported = repository.commit({"config.json": "{}"}, "other")
    file, home = tmp_path / "taken.toml", tmp_path / "home"
    file.write_text(ROADMAP)
    command = [sys.executable, "-m", "gradus.cli.main", "run", str(file), "--only", "bpe", "--home", str(home)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=600, check=False)
    assert f"  someone/small at commit {first}\n" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    manifest = json.loads((home / "runs/taken/bpe/manifest.json").read_text())
    assert manifest["sources"] == {"hub:someone/small": first}

    second = repository.commit({"tokenizer.json": json.dumps(minimal), "README.md": "newer"})
    elsewhere = load_roadmap(file, home=tmp_path / "new home")
    assert elsewhere.stage("bpe").sources == {"hub:someone/small": second}
    assert elsewhere.stage("model").sources == {"hub:someone/small@other": imported}
    assert elsewhere.stage("bpe").fingerprint != manifest["fingerprint"]
    (home / "runs/taken/roadmap.json").replace(tmp_path / "record")
    assert load_roadmap(file, home=home).stage("bpe").fingerprint == elsewhere.stage("bpe").fingerprint
    (tmp_path / "record").replace(home / "runs/taken/roadmap.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = load_roadmap(file, home=home)
    assert again.stage("bpe").fingerprint == manifest["fingerprint"]
    assert again.stage("model").sources == {"hub:someone/small@other": imported}
    plan = plan_roadmap(again, choose_device("cpu", again.machine, home), home / "artifacts")
    assert calibrate._small(again, plan).stage("bpe").settings.take == f"hub:someone/small@{first}"
    named = load_roadmap(file, [f"bpe.take=hub:someone/small@{first}", f"model.take=hub:someone/small@{first}"])
    assert named.stage("bpe").sources == named.stage("model").sources == {}
    with pytest.raises(ConfigError) as error:
        load_roadmap(file)
    assert 'taken.toml:4 stage "bpe": "take": Hub model someone/small: HF_HUB_OFFLINE is set and its commit is not ' \
        "known yet; connect once, or name the commit: hub:someone/small@COMMIT" in str(error.value)  # fmt: skip
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConfigError, match="Hub model someone/absent: no such model, or it is private: set HF_TOKEN"):
        load_roadmap(file, ["bpe.take=hub:someone/absent"])
    with pytest.raises(ConfigError, match="Hub model someone/small@v9: no such revision"):
        load_roadmap(file, ["bpe.take=hub:someone/small@v9"])


def _byte_vocabulary():
    from tokenizers.pre_tokenizers import ByteLevel

    return {character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}
