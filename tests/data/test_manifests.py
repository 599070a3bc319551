"""Manifests: lines that mean shards wherever they stand, each once and in order, or a reason with its line."""

import json
from pathlib import Path

import pytest
from hub_server import HubServer
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data import hub as hub_module
from gradus.data.manifests import Entry, ManifestSource, read_entries
from gradus.data.shard_tasks import RawText, ShardTask
from gradus.data.sources import read_source, shard_tasks, source_digest, source_files


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def texts(folder: Path, **settings: object) -> list[str]:
    found = read_source(ManifestSource(**settings), folder, seed=0)
    return [f.text for f in found if isinstance(f, RawText)]


def tasks(folder: Path, **settings: object) -> list[ShardTask]:
    return shard_tasks(ManifestSource(**settings), folder)


def test_a_manifest_mixes_paths_patterns_addresses_and_the_hub(hub: HubServer, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    (lists / "more").mkdir(parents=True)
    (tmp_path / "up.jsonl").write_text(lines("up"))
    for name in ("b", "a"):
        (lists / "more" / f"{name}.jsonl").write_text(lines(name))
    hub.dataset("a/b", {"data/x.jsonl": lines("hub x"), "data/y.jsonl": lines("hub y")})
    hub.pages["/files/web%20page.jsonl"] = lines("web").encode()
    (lists / "shards.txt").write_text(
        "\ufeff# shards of a corpus\n../up.jsonl\n\nmore/*.jsonl   # a pattern\r\n  more/b.jsonl\n"
        f"{hub.endpoint}/files/web%20page.jsonl\nhf://datasets/a/b/data/*.jsonl\n"
    )
    settings = {"path": "lists/*.txt", "name": "mixed"}
    assert texts(tmp_path, **settings) == ["up", "a", "b", "web", "hub x", "hub y"]
    found = tasks(tmp_path, **settings)
    assert [task.name for task in found] == [
        "../up.jsonl", "more/a.jsonl", "more/b.jsonl", "127.0.0.1/files/web page.jsonl",
        "a/b/data/x.jsonl", "a/b/data/y.jsonl",
    ]  # fmt: skip
    assert [task.place for task in found] == ["local", "local", "local", "http", "hub", "hub"]
    assert [task.size for task in found] == [15, 14, 14, None, 18, 18]
    assert {task.label for task in found} == {"mixed"}
    assert tasks(tmp_path, path="lists/shards.txt")[0].label == "shards"


def test_a_manifest_on_the_hub_names_files_beside_it_and_elsewhere(hub: HubServer, tmp_path: Path) -> None:
    repository = hub.dataset("a/lists")
    hub.pages["/far/0.jsonl"] = lines("far").encode()
    commit = repository.commit(
        {"urls/v1.txt": f"{hub.endpoint}/far/0.jsonl\nnear.jsonl\n", "urls/near.jsonl": lines("near")}
    )
    source = {"path": "hf://datasets/a/lists/urls/v1.txt"}
    assert texts(tmp_path, **source) == ["far", "near"]
    assert tasks(tmp_path, **source)[0].label == "v1"
    repository.commit({"urls/v1.txt": "gone.jsonl\n"})
    hub_module._resolved.clear()
    with pytest.raises(
        DataError, match=r'a/lists/urls/v1\.txt:1: Hub dataset a/lists@\w{40}: "urls/gone.jsonl" matche'
    ):
        texts(tmp_path, **source)
    pinned = {"path": f"hf://datasets/a/lists@{commit}/urls/v1.txt"}
    assert texts(tmp_path, **pinned) == ["far", "near"]


def test_a_manifest_at_an_address_is_kept_for_when_the_server_is_away(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.pages["/lists/all.txt"] = b"a.jsonl\nsub/b.jsonl\n"
    hub.pages["/lists/a.jsonl"] = lines("a").encode()
    hub.pages["/lists/sub/b.jsonl"] = lines("b").encode()
    source = {"path": f"{hub.endpoint}/lists/all.txt"}
    assert texts(tmp_path, **source) == ["a", "b"]
    digest = source_digest(ManifestSource(**source), tmp_path)
    hub.close()
    monkeypatch.setattr("gradus.data.manifests._fetched_texts", {})
    assert source_digest(ManifestSource(**source), tmp_path) == digest
    with pytest.raises(DataError, match="the server cannot be reached"):
        tasks(tmp_path, path=f"{hub.endpoint}/lists/other.txt")


def test_lines_that_mean_nothing_are_told_all_at_once(hub: HubServer, tmp_path: Path) -> None:
    hub.dataset("a/b", {"x.jsonl": ""})
    (tmp_path / "list.txt").write_text(
        "missing.jsonl\nftp://host/x.jsonl\nhttp://me:secret@host/x.jsonl\nhttps:///x.jsonl\nhf://a/b/x.jsonl\n"
        "https://host/data.bin\nhf://datasets/a/b@v9/x.jsonl\nhttp://[half/x.jsonl\n"
    )
    with pytest.raises(DataError) as error:
        tasks(tmp_path, path="list.txt")
    problems = str(error.value).splitlines()
    assert [p.split(": ")[0] for p in problems] == [f"list.txt:{i}" for i in range(1, 9)]
    assert 'list.txt:1: "missing.jsonl" matches no file' in problems[0]
    assert "expected a path, or an address that begins with http://, https:// or hf://" in problems[1]
    assert "a user's name or password would be written down; leave them out" in problems[2]
    assert "secret" not in str(error.value)
    assert "an address without a server" in problems[3]
    assert "expected hf://datasets/OWNER/NAME/PATH" in problems[4]
    assert "cannot tell what this file holds" in problems[5]
    assert "no such revision" in problems[6]
    assert "not an address" in problems[7]


def test_manifests_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "bytes.txt").write_bytes(b"a\xff")
    with pytest.raises(DataError, match=r"empty\.txt: the manifest lists nothing"):
        tasks(tmp_path, path="empty.txt")
    with pytest.raises(DataError, match=r"bytes\.txt: a manifest is UTF-8 text; byte 1 is not"):
        tasks(tmp_path, path="bytes.txt")
    with pytest.raises(DataError, match=r'"shards\.txt" matches no file'):
        tasks(tmp_path, path="shards.txt")


def test_the_digest_of_a_manifest_follows_the_content_of_its_files(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines("a"))
    (tmp_path / "list.txt").write_text(f"a.jsonl\n{hub.endpoint}/b.jsonl\n")
    source = ManifestSource(path="list.txt")
    first = source_digest(source, tmp_path)
    assert [sorted(file) for file in source_files(source, tmp_path)] == [
        ["bytes", "path", "sha256"], ["bytes", "digest", "path"]
    ]  # fmt: skip
    (tmp_path / "list.txt").write_text(f"# a word\na.jsonl\n{hub.endpoint}/b.jsonl\n")
    assert source_digest(source, tmp_path) == first
    (tmp_path / "a.jsonl").write_text(lines("b"))
    assert source_digest(source, tmp_path) != first
    assert not hub.requests  # an address stands for itself


def test_a_shard_at_an_address_is_refused_as_the_server_says(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{hub.endpoint}/absent.jsonl?key=secret\n")
    with pytest.raises(DataError) as error:
        texts(tmp_path, path="list.txt")
    assert str(error.value) == f"{hub.endpoint}/absent.jsonl: the server answered 404"


def test_a_stored_shard_that_nothing_vouches_for_is_fetched_again_after_damage(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{hub.endpoint}/a.jsonl.gz\n")
    hub.pages["/a.jsonl.gz"] = b"no gzip"
    source = ManifestSource(path="list.txt", raw="keep")
    with pytest.raises(DataError, match="damaged or cut short"):
        list(read_source(source, tmp_path, 0, tmp_path / "raw"))
    import gzip

    hub.pages["/a.jsonl.gz"] = gzip.compress(lines("whole").encode())
    assert [f.text for f in read_source(source, tmp_path, 0, tmp_path / "raw") if isinstance(f, RawText)] == ["whole"]


def test_raw_texts_are_divided_as_asked_and_local_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "list.txt").write_text("a.txt\n")
    assert texts(tmp_path, path="list.txt") == ["one\n\ntwo\n"]
    assert texts(tmp_path, path="list.txt", split="paragraphs", raw="delete") == ["one", "two"]
    assert (tmp_path / "a.txt").exists()


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("a#b.jsonl", "a#b.jsonl"),
        ("a b.jsonl # note # more", "a b.jsonl"),
        ("#a", None),
        ("  # a", None),
        ("a\t#", "a"),
    ],
)
def test_a_comment_begins_a_line_or_follows_a_space(line: str, entry: str | None) -> None:
    assert [e.text for e in read_entries(line)] == ([entry] if entry else [])


WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1).filter(lambda word: word[0] != "#")
COMMENT = st.sampled_from(["", " # note", "\t#", "   "])


@given(st.lists(st.one_of(st.none(), st.tuples(WORD, COMMENT)), max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_every_line_gives_its_entry_whatever_stands_around_it(lines: list[tuple[str, str] | None], end: str) -> None:
    text = "".join((f"  {line[0]}{line[1]}" if line else "# only a comment") + end for line in lines)
    assert read_entries(text) == [Entry(i, line[0]) for i, line in enumerate(lines, start=1) if line]
