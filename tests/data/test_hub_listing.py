"""Which shards a Hub dataset means: card, file names, the Hub's conversion, commits, access, and no network."""

import json
import re
from pathlib import Path

import pytest
import regex
from hub_server import HubServer

from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.data import hub as hub_module
from gradus.data.hub import HubSource, hub_listing
from gradus.data.sources import shard_tasks, source_digest, source_lineage

CARD = """---
license: odc-by
configs:
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
- config_name: sample-100BT
  data_files:
  - split: train
    path:
    - sample/100BT/*.jsonl
    - extra/*.jsonl
  - split: validation
    path: sample/validation.jsonl
---
# A card
"""
LINE = '{"text": "hello"}\n'
FILES = {
    "README.md": CARD,
    "sample/10BT/001.jsonl": LINE,
    "sample/10BT/000.jsonl": LINE * 2,
    "sample/100BT/000.jsonl": LINE,
    "extra/000.jsonl": LINE,
    "sample/validation.jsonl": LINE,
}


def paths(**settings: object) -> list[str]:
    return [file.path for file in hub_listing(HubSource(**{"repo": "a/b", **settings})).files]


def refusal(**settings: object) -> str:
    with pytest.raises(DataError) as error:
        paths(**settings)
    return str(error.value)


def test_a_card_whose_pattern_would_take_for_ever_comes_to_an_end(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "*a" * 12 + "b?.jsonl"  # eight took `re` minutes on such a name, and each one more five times as long
    card = f"---\nconfigs:\n- config_name: default\n  data_files: '{pattern}'\n---\n"
    hub.dataset("a/b").commit({"README.md": card, "a" * 60 + "bb" + "a" * 60 + ".jsonl": LINE})
    assert f'"{pattern}" matches no file' in refusal()
    # No pattern of a card is known that takes long now; a bare expression stands for one.
    monkeypatch.setattr(hub_module, "compiled_pattern", lambda pattern: regex.compile(r"(a|aa)+b\b"))
    monkeypatch.setattr(hub_module, "MATCH_SECONDS", 0.05)
    assert f'the pattern "{pattern}" takes longer than 0.05 s on the name of a file' in refusal()


def test_the_card_says_which_files_a_configuration_and_split_are(hub: HubServer) -> None:
    commit = hub.dataset("a/b").commit(FILES)
    assert paths(config="sample-10BT") == ["sample/10BT/000.jsonl", "sample/10BT/001.jsonl"]
    assert paths(config="sample-100BT") == ["extra/000.jsonl", "sample/100BT/000.jsonl"]
    assert paths(config="sample-100BT", split="validation") == ["sample/validation.jsonl"]
    listing = hub_listing(HubSource(repo="a/b", config="sample-10BT"))
    assert listing.commit == commit
    assert [file.size for file in listing.files] == [36, 18]
    # Everything after the first question is asked at that commit, so that a push in between changes nothing.
    assert all("/main" not in r.path for r in hub.requests[1:] if "revision" not in r.path)


def test_a_wrong_configuration_or_split_names_the_nearest(hub: HubServer) -> None:
    hub.dataset("a/b", FILES)
    assert refusal(config="sample-10B") == (
        'Hub dataset a/b: no configuration "sample-10B"; did you mean "sample-10BT"?'
    )
    assert refusal(config="sample-100BT", split="valid") == (
        'Hub dataset a/b: no split "valid" in configuration "sample-100BT"; did you mean "validation"?'
    )
    assert refusal() == (
        'Hub dataset a/b: it has several configurations; set config to one of "sample-10BT", "sample-100BT"'
    )


@pytest.mark.parametrize(
    ("card", "chosen"),
    [
        ('data_files: "*.jsonl"', ["a.jsonl", "b.jsonl"]),
        ("data_files: [a.jsonl]", ["a.jsonl"]),
        ("data_dir: inner\n  data_files: '**'", ["inner/deep/d.jsonl"]),
        ("data_files: inner", ["inner/deep/d.jsonl"]),
        ("data_files: '**'", ["a.jsonl", "b.jsonl", "inner/deep/d.jsonl"]),
        ("data_files:\n  - split: train\n    path: ['?.jsonl', 'inner/*/[a-d].jsonl']",
         ["a.jsonl", "b.jsonl", "inner/deep/d.jsonl"]),
    ],
)  # fmt: skip
def test_every_form_of_data_files_is_understood(hub: HubServer, card: str, chosen: list[str]) -> None:
    text = f"---\nconfigs:\n- config_name: default\n  {card}\n---\n"
    hub.dataset("a/b", {"README.md": text, "a.jsonl": LINE, "b.jsonl": LINE, "inner/deep/d.jsonl": LINE})
    assert paths() == chosen


def test_the_marked_configuration_is_the_default(hub: HubServer) -> None:
    entries = "- {config_name: x, data_files: x.jsonl}\n- {config_name: y, data_files: y.jsonl, default: true}"
    card = f"---\nconfigs:\n{entries}\n---"
    hub.dataset("a/b", {"README.md": card, "x.jsonl": LINE, "y.jsonl": LINE})
    assert paths() == ["y.jsonl"]


@pytest.mark.parametrize(
    ("files", "settings", "chosen"),
    [
        (["data/train-00000-of-00002.parquet", "data/test-0.parquet"], {}, ["data/train-00000-of-00002.parquet"]),
        (
            ["en/c4-train.0-of-2.json.gz", "en/c4-validation.0.json.gz"],
            {"config": "en"},
            ["en/c4-train.0-of-2.json.gz"],
        ),
        (["fr/train.jsonl", "en/train.jsonl"], {"config": "en"}, ["en/train.jsonl"]),
        (["valid.jsonl", "train.jsonl", "trainer.txt"], {"split": "validation"}, ["valid.jsonl"]),
        (["shard_00001.parquet", "shard_00000.parquet", "code.py"], {}, ["shard_00000.parquet", "shard_00001.parquet"]),
    ],
)
def test_without_a_card_the_names_say_it(
    hub: HubServer, files: list[str], settings: dict[str, str], chosen: list[str]
) -> None:
    hub.dataset("a/b", {"README.md": "no front matter", **dict.fromkeys(files, LINE)})
    assert paths(**settings) == chosen


def test_the_hubs_own_conversion_serves_where_no_file_can_be_read(hub: HubServer) -> None:
    repository = hub.dataset("a/b", {"README.md": "", "script.py": "", "raw.zip": "x"})
    converted = {
        "default/train/0000.parquet": "x",
        "default/train/0001.parquet": "y",
        "small/partial-train/0.parquet": "",
    }
    commit = repository.commit(converted, "refs/convert/parquet")
    assert paths(config="default") == ["default/train/0000.parquet", "default/train/0001.parquet"]
    assert hub_listing(HubSource(repo="a/b", config="default")).commit == commit
    assert "only the first gigabytes" in refusal(config="small")
    # The conversion belongs to the newest state: another revision is not served by it.
    assert "no file's name says split" in refusal(config="default", revision=repository.refs["main"])


def test_files_can_be_named_by_pattern(hub: HubServer) -> None:
    hub.dataset("a/b", {"data/py/a.jsonl": LINE, "data/py/b.jsonl": LINE, "data/js/c.jsonl": LINE, "data/x.bin": ""})
    assert paths(path="data/py/*") == ["data/py/a.jsonl", "data/py/b.jsonl"]
    assert paths(path=("data/j*/*.jsonl", "data/py/b.jsonl")) == ["data/js/c.jsonl", "data/py/b.jsonl"]
    assert paths(path="data/py") == ["data/py/a.jsonl", "data/py/b.jsonl"]
    assert refusal(path="dat/*.jsonl") == (
        'Hub dataset a/b: "dat/*.jsonl" matches no file; at the top stand data; did you mean "data"?'
    )
    assert "matches 1 files, such as data/x.bin, and none that can be read" in refusal(path="data/*.bin")
    with pytest.raises(ConfigError, match="path names the files itself"):
        load_settings(HubSource, {"kind": "hub", "repo": "a/b", "path": "x", "config": "y"})


def test_a_range_of_a_pattern_that_runs_backwards_is_told_with_the_way_it_goes(hub: HubServer) -> None:
    told = 'pattern "data/[z-a]*.jsonl": bad character range z-a'
    fix = "; a range goes from the lower character to the higher, as in [a-z]"
    with pytest.raises(ConfigError, match=re.escape(told) + r".*" + re.escape(fix)) as raised:
        load_settings(HubSource, {"kind": "hub", "repo": "a/b", "path": ["x/*", "data/[z-a]*.jsonl"]}, "roadmap:3")
    assert str(raised.value).startswith("roadmap:3")
    # A card's own patterns are looked at when it is read.
    card = "---\nconfigs:\n- config_name: default\n  data_files: 'data/[z-a]*.jsonl'\n---\n"
    hub.dataset("a/b", {"README.md": card, "data/a.jsonl": LINE})
    assert refusal().startswith(f"Hub dataset a/b: {told}")


def test_long_lists_come_in_pages(hub: HubServer) -> None:
    hub.page_size = 3
    hub.dataset("a/b", {f"data/train-{i:05d}.jsonl": LINE for i in range(10)})
    assert paths(path="data/*.jsonl") == [f"data/train-{i:05d}.jsonl" for i in range(10)]
    assert len(hub.asked("/tree/")) == 4


def test_what_is_not_there_is_said_plainly(hub: HubServer) -> None:
    hub.dataset("a/b", FILES)
    assert refusal(repo="a/absent") == (
        f"Hub dataset a/absent: no such dataset, or it is private: set HF_TOKEN ({hub.endpoint}/datasets/a/absent)"
    )
    assert refusal(revision="v9") == f"Hub dataset a/b@v9: no such revision; see {hub.endpoint}/datasets/a/b/tree/main"
    for repo in ("https://huggingface.co/datasets/a/b", "a/b/c", "a b"):
        with pytest.raises(ConfigError, match='expected the dataset\'s name on the Hub, such as "owner/name"'):
            load_settings(HubSource, {"kind": "hub", "repo": repo})


def test_a_card_that_is_no_yaml_is_refused_with_the_way_round(hub: HubServer) -> None:
    hub.dataset("a/b", {"README.md": "---\nconfigs: [\n---\n", "train.jsonl": LINE})
    assert "its README.md cannot be read as a dataset card" in refusal()
    assert paths(path="train.jsonl") == ["train.jsonl"]


# Access


def test_private_and_gated_datasets_need_the_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.dataset("a/hidden", FILES, private=True)
    hub.dataset("a/gated", FILES, gated=True)
    assert "or it is private: set HF_TOKEN" in refusal(repo="a/hidden", path="extra/*")
    assert refusal(repo="a/gated", config="sample-10BT") == (
        f"Hub dataset a/gated: access is restricted ({hub.endpoint}/datasets/a/gated); "
        "accept its terms there, then set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_someone_else")
    assert "ask for access there" in refusal(repo="a/gated", config="sample-10BT")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert len(paths(repo="a/gated", config="sample-10BT")) == 2
    assert len(paths(repo="a/hidden", path="extra/*")) == 1


def test_the_kept_token_is_used_and_must_be_for_its_owner_alone(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.dataset("a/hidden", FILES, private=True)
    file = tmp_path / "token"
    file.write_text(hub.token + "\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(file))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(file))
    file.chmod(0o644)
    message = refusal(repo="a/hidden", path="extra/*")
    assert message == f"{file}: other users of this machine can read this secret; run: chmod 600 {file}"
    file.chmod(0o600)
    assert len(paths(repo="a/hidden", path="extra/*")) == 1
    monkeypatch.setenv("HF_TOKEN", "hf_\u2026cut")
    assert refusal(repo="a/other") == (
        "HF_TOKEN holds characters that no token has; copy it again from the Hub's settings"
    )


# Commits


def test_a_branch_that_moves_matters_only_where_shards_change(hub: HubServer, tmp_path: Path) -> None:
    source = HubSource(repo="a/b", config="sample-10BT")
    repository = hub.dataset("a/b", FILES)
    first = source_digest(source, tmp_path)
    repository.commit({**FILES, "README.md": CARD + "more words"})
    assert source_digest(source, tmp_path) == first  # resolved once a process
    hub_module._resolved.clear()
    assert source_digest(source, tmp_path) == first
    assert source_lineage(source, tmp_path)["commit"] == repository.refs["main"]
    hub_module._resolved.clear()
    repository.commit({**FILES, "sample/10BT/001.jsonl": LINE * 5})
    assert source_digest(source, tmp_path) != first


def test_a_commit_is_asked_for_once_and_never_moves(hub: HubServer, tmp_path: Path) -> None:
    repository = hub.dataset("a/b", FILES)
    pinned = HubSource(repo="a/b", config="sample-10BT", revision=repository.refs["main"])
    first = source_digest(pinned, tmp_path)
    repository.commit({**FILES, "sample/10BT/001.jsonl": LINE * 5})
    hub_module._resolved.clear()
    num_requests = len(hub.requests)
    assert source_digest(pinned, tmp_path) == first
    assert len(hub.requests) == num_requests


def test_without_a_network_the_last_answer_counts(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.dataset("a/b", FILES)
    source = HubSource(repo="a/b", config="sample-10BT")
    known = hub_listing(source)
    hub.close()
    hub_module._resolved.clear()
    assert hub_listing(source) == known
    assert hub.waits == []
    other = HubSource(repo="a/b", config="sample-100BT")
    with pytest.raises(DataError, match=r"Hub dataset a/b: the server cannot be reached, 4 times in a row; check the"):
        hub_listing(other)
    assert len(hub.waits) == 3
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_module._resolved.clear()
    assert hub_listing(source) == known
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set and its list of files is not known yet"):
        hub_listing(other)


def test_a_torn_memory_is_asked_again(hub: HubServer, tmp_path: Path) -> None:
    hub.dataset("a/b", FILES)
    source = HubSource(repo="a/b", config="sample-10BT")
    known = hub_listing(source)
    (memory,) = (tmp_path / "cache" / "hub").iterdir()
    memory.write_text('{"repo": "a/b", "fil')
    hub_module._resolved.clear()
    assert hub_listing(source) == known
    assert json.loads(memory.read_text())["commit"] == known.commit


def test_a_server_that_is_no_hub_is_noticed(hub: HubServer) -> None:
    hub.pages["/api/datasets/a/b/revision/main"] = b"<html>welcome</html>"
    assert "did not answer with JSON; is it a Hub?" in refusal()


# Order


def test_shards_come_in_an_order_of_the_seed_that_a_new_shard_leaves(hub: HubServer, tmp_path: Path) -> None:
    names = {f"data/train-{i:05d}.jsonl": LINE * (i + 1) for i in range(20)}
    repository = hub.dataset("a/b", names)
    source = HubSource(repo="a/b", path="data/*")

    def order(seed: int, source: HubSource = source) -> list[str]:
        return [task.name for task in shard_tasks(source, tmp_path, seed)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(names) != order(1)
    assert order(1, HubSource(repo="a/b", path="data/*", shuffle=False)) == sorted(names)
    before = order(1)
    repository.commit({**names, "data/train-00020.jsonl": LINE})
    hub_module._resolved.clear()
    assert [name for name in order(1) if name in names] == before


def test_the_hubs_own_client_sees_the_same_files(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    hub.page_size = 2
    repository = hub.dataset("a/b", {**FILES, "big.jsonl": LINE * 50})
    listing = hub_listing(HubSource(repo="a/b", path="**", shuffle=False))
    api = HfApi(endpoint=hub.endpoint, token=False)
    assert api.dataset_info("a/b").sha == listing.commit == repository.refs["main"]
    entries = list(api.list_repo_tree("a/b", recursive=True, revision=listing.commit, repo_type="dataset"))
    theirs = {
        e.path: (e.size, f"sha256:{e.lfs.sha256}" if e.lfs else f"git:{e.blob_id}")
        for e in entries
        if hasattr(e, "blob_id") and e.path.endswith(".jsonl")
    }
    ours = {file.path: (file.size, file.digest) for file in listing.files if file.path.endswith(".jsonl")}
    assert ours == theirs
    assert len(ours) == 6
    path = api.hf_hub_download("a/b", "big.jsonl", repo_type="dataset", cache_dir=tmp_path / "theirs")
    assert Path(path).read_text() == LINE * 50
