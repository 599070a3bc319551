"""Reading remote shards: every format and way, bad connections, exact bookmarks, damage, disks, and the token."""

import errno
import gzip
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hub_server import SIGNATURE, HubServer

from gradus.core.errors import DataError
from gradus.data import remote, transfer
from gradus.data.drops import Dropped
from gradus.data.hub import HubSource
from gradus.data.shard_reading import read_shard, remote_shard, shard_file
from gradus.data.shard_tasks import RawText, ShardTask
from gradus.data.sources import read_source, shard_tasks

TEXTS = [f"document {i} " + "word " * (i % 50) for i in range(400)]
RAW = ["stream", "delete", "keep"]


def jsonl(texts: list[str], **more: object) -> bytes:
    return "".join(json.dumps({"text": t, "id": f"d{i}", **more}) + "\n" for i, t in enumerate(texts)).encode()


def parquet(texts: list[str], group: int = 50, compression: str = "none", **columns: list[object]) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": texts, "id": [f"d{i}" for i in range(len(texts))], **columns})
    pq.write_table(table, sink, row_group_size=group, compression=compression, use_dictionary=False)
    return sink.getvalue()


CONTENT = {
    "a.parquet": parquet(TEXTS),
    "a.jsonl": jsonl(TEXTS),
    "a.jsonl.gz": gzip.compress(jsonl(TEXTS)),
    "a.json.gz": gzip.compress(jsonl(TEXTS)),
    "a.jsonl.zst": zstandard.compress(jsonl(TEXTS)),
    "a.json": json.dumps([{"text": t} for t in TEXTS]).encode(),
}


def only_task(hub: HubServer, name: str, content: bytes, **settings: object) -> ShardTask:
    commit = hub.dataset("a/b").commit({name: content})
    (task,) = shard_tasks(HubSource(repo="a/b", path=name, revision=commit, **settings), Path(), seed=3)
    return task


def texts_of(found: Iterator[RawText | Dropped]) -> list[str]:
    return [f.text for f in found if isinstance(f, RawText)]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a little file takes many answers."""
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(remote, "_PIECE_BYTES", 1000)
    monkeypatch.setattr("gradus.data.readers.PARQUET_BUFFER_BYTES", 1000)


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", sorted(CONTENT))
def test_every_format_gives_the_same_texts_however_it_is_reached(
    hub: HubServer, tmp_path: Path, name: str, raw: str
) -> None:
    task = only_task(hub, name, CONTENT[name], raw=raw)
    found = list(read_shard(task, raw_dir=tmp_path / "raw"))
    assert texts_of(iter(found)) == TEXTS
    assert isinstance(found[7], RawText)
    assert (found[7].source, found[7].place) == ("b", f"{name}:8")
    assert found[7].meta["file"] == name
    kept = [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    assert len(kept) == (raw == "keep")
    num_requests = len(hub.requests)
    assert texts_of(read_shard(task, raw_dir=tmp_path / "raw")) == TEXTS
    assert (len(hub.requests) == num_requests) == (raw == "keep")


def test_a_small_file_outside_lfs_is_read_and_checked(hub: HubServer, tmp_path: Path) -> None:
    task = only_task(hub, "a.jsonl", jsonl(["one"]), raw="delete")
    assert task.digest.startswith("git:")
    assert texts_of(read_shard(task)) == ["one"]


def test_equal_bytes_of_two_sources_are_read_side_by_side_and_deleted_by_each(hub: HubServer, tmp_path: Path) -> None:
    task = only_task(hub, "a.jsonl", jsonl(["one"]), raw="delete")
    raw = tmp_path / "raw"
    with shard_file(task, raw), shard_file(replace(task, source=1), raw) as other:
        with shard_file(task, raw):
            pass  # read to its end, and deleted
        with other.open() as file:
            assert file.read() == jsonl(["one"])
    assert not [path for path in raw.rglob("*") if path.is_file()]


# Bad connections


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl"])
def test_a_bad_connection_loses_and_repeats_no_row(hub: HubServer, tmp_path: Path, name: str, raw: str) -> None:
    task = only_task(hub, name, CONTENT[name], raw=raw)
    hub.fail("/resolve/", status=500)
    hub.fail("/resolve/", status=429, headers={"Retry-After": "7"})
    hub.fail("/lfs/", status=503)
    hub.fail("/lfs/", drop=True)
    hub.fail("/lfs/", cut=700, times=3)
    hub.fail("/lfs/", cut=0)
    assert texts_of(read_shard(task, raw_dir=tmp_path)) == TEXTS
    assert all(fault.times == 0 for fault in hub.faults)
    assert 7.0 in hub.waits  # what the server asked for
    assert 0.75 <= hub.waits[0] <= 1.25


def test_waits_double_and_a_server_that_never_recovers_is_given_up(hub: HubServer) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"])
    hub.fail("/lfs/", status=502, times=99)
    with pytest.raises(DataError, match=r"a\.jsonl: the server answered 502, 9 times in a row; check the connection"):
        list(read_shard(task))
    assert len(hub.waits) == transfer.MOST_FAILURES
    for wait, expected in zip(hub.waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert 0.75 * expected <= wait <= 1.25 * expected


@pytest.mark.usefixtures("small_pieces")
def test_progress_between_failures_keeps_a_transfer_going(hub: HubServer) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"])
    hub.fail("/lfs/", cut=1200, times=30)
    assert texts_of(read_shard(task)) == TEXTS
    assert len(hub.waits) > transfer.MOST_FAILURES


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"RateLimit": '"resolvers";r=0;t=41'}, 41.0),
        ({"RateLimit": '"resolvers";r=12;t=41'}, 1.0),
        ({"Retry-After": "soon"}, 1.0),
    ],
)
def test_the_pause_a_server_asks_for_is_kept(hub: HubServer, headers: dict[str, str], wait: float) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"])
    hub.fail("/resolve/", status=429, headers=headers)
    assert texts_of(read_shard(task)) == TEXTS
    assert hub.waits == [pytest.approx(wait, abs=0.25)]


def test_a_pause_given_as_a_date_is_kept_and_one_of_hours_is_not(hub: HubServer) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"])
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 600))
    hub.fail("/resolve/", status=503, headers={"Retry-After": date})
    assert texts_of(read_shard(task)) == TEXTS
    assert 480 <= hub.waits[0] <= 600
    hub.fail("/resolve/", status=429, headers={"Retry-After": "7200"})
    with pytest.raises(DataError, match="asks to wait 2 h 0 m: run the same command again then"):
        list(read_shard(task))


def test_a_silent_server_is_asked_again(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_TIMEOUT_SECONDS", (60.0, 0.5))
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"])
    hub.fail("/lfs/", silent_seconds=2)
    assert texts_of(read_shard(task)) == TEXTS
    assert hub.waits  # once, and more often where the machine is slow


@pytest.mark.usefixtures("small_pieces")
def test_a_signed_address_that_runs_out_is_asked_for_again(hub: HubServer) -> None:
    task = only_task(hub, "a.parquet", CONTENT["a.parquet"])
    hub.fail("/lfs/", status=403, after_bytes=8192)
    assert texts_of(read_shard(task)) == TEXTS
    # One address serves many parts: the Hub itself is asked once, and again when that ran out.
    assert len(hub.asked("/resolve/")) == 2 < len(hub.asked("/lfs/"))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_server_without_ranges_gives_whole_files_only(hub: HubServer, tmp_path: Path, name: str) -> None:
    hub.ranges = False
    if name.endswith("gz"):
        task = only_task(hub, name, CONTENT[name])
        hub.fail("/lfs/", cut=3000)
        assert texts_of(read_shard(task)) == TEXTS
    else:
        with pytest.raises(DataError, match='the server sends whole files only; set raw = "delete"'):
            list(read_shard(only_task(hub, name, CONTENT[name])))
    task = only_task(hub, name, CONTENT[name], raw="delete")
    assert texts_of(read_shard(task, raw_dir=tmp_path)) == TEXTS


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_changes_while_it_is_read_is_noticed(hub: HubServer) -> None:
    content = parquet(["x" * 500 + str(i) for i in range(800)])
    rows = read_shard(only_task(hub, "a.parquet", content))
    next(rows)
    (oid,) = hub._objects
    hub._objects[oid] = content[:-1] + b"?"
    with pytest.raises(DataError, match=r"a\.parquet: the file changed while it was being read"):
        list(rows)


@pytest.mark.parametrize("raw", RAW)
def test_bytes_that_are_not_the_files_are_refused(hub: HubServer, tmp_path: Path, raw: str) -> None:
    content = jsonl(TEXTS)
    task = only_task(hub, "a.jsonl", content, raw=raw)
    list(read_shard(task, raw_dir=tmp_path / "first"))
    (oid,) = hub._objects
    hub._objects[oid] = content.replace(b"document 9 ", b"document 8 ")
    hub.object_path = lambda data: f"/lfs/{oid}"  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"a\.jsonl: the bytes that arrived are not the file's \(sha256:"):
        list(read_shard(task, raw_dir=tmp_path / "second"))
    assert not [p for p in (tmp_path / "second").rglob("*") if p.is_file()]


# Bookmarks


@pytest.mark.parametrize("shuffle_buffer", [0, 64])
@pytest.mark.parametrize("name", sorted(CONTENT))
def test_a_reader_goes_on_exactly_where_another_stopped(hub: HubServer, name: str, shuffle_buffer: int) -> None:
    task = only_task(hub, name, CONTENT[name], shuffle_buffer=shuffle_buffer)
    whole = list(read_shard(task))
    assert sorted(texts_of(iter(whole))) == sorted(TEXTS)
    for start in (0, 1, 49, 50, 51, 127, 128, 399, 400):
        assert list(read_shard(task, start)) == whole[start:]


def test_bad_rows_count_in_bookmarks_too(hub: HubServer) -> None:
    content = b'{"text": "one"}\n\n{broken\n{"other": 1}\n{"text": "two"}\n'
    task = only_task(hub, "a.jsonl", content)
    whole = list(read_shard(task))
    assert [f.reason if isinstance(f, Dropped) else f.text for f in whole] == [
        "one", "invalid_json", "missing_text", "two"
    ]  # fmt: skip
    for start in range(5):
        assert list(read_shard(task, start)) == whole[start:]


@pytest.mark.usefixtures("small_pieces")
def test_row_groups_before_a_bookmark_are_never_fetched(hub: HubServer) -> None:
    content = parquet(["x" * 2000 + str(i) for i in range(400)])
    task = only_task(hub, "a.parquet", content)
    assert len(texts_of(read_shard(task, 350))) == 50
    fetched = sum(
        int(r.range.split("-")[1]) + 1 - int(r.range[6:].split("-")[0]) for r in hub.asked("/lfs/") if r.range
    )
    assert fetched < len(content) / 4


@pytest.mark.usefixtures("small_pieces")
def test_reading_in_parts_holds_a_bounded_number_of_them(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MOST_BLOCKS", 4)
    held = []
    original = remote._Blocks._block
    monkeypatch.setattr(
        remote._Blocks, "_block", lambda self, number: (original(self, number), held.append(len(self._blocks)))[0]
    )
    content = parquet(["x" * 2000 + str(i) for i in range(60)], group=60)  # one row group
    assert len(texts_of(read_shard(only_task(hub, "a.parquet", content)))) == 60
    assert max(held) == 4


def test_rows_shuffled_in_a_buffer_are_a_permutation_of_the_seed(hub: HubServer, tmp_path: Path) -> None:
    task = only_task(hub, "a.parquet", CONTENT["a.parquet"], shuffle_buffer=100)
    order = texts_of(read_shard(task))
    assert order == texts_of(read_shard(task))
    for block in range(0, 400, 100):
        assert sorted(order[block : block + 100]) == sorted(TEXTS[block : block + 100])
        assert order[block : block + 100] != TEXTS[block : block + 100]
    other = ShardTask.from_json({**task.to_json(), "seed": 4})
    assert texts_of(read_shard(other)) != order


def test_a_task_survives_json_and_another_process(hub: HubServer, tmp_path: Path) -> None:
    hub.dataset("a/b", {"a.jsonl": jsonl(TEXTS, lang="en"), "b.jsonl": jsonl(["nein"], lang="de")})
    source = HubSource(repo="a/b", path="*", where={"lang": ("en", "fr")}, id_key="id", text_key=("id", "text"))
    task = next(t for t in shard_tasks(source, tmp_path, seed=1, index=5) if t.name == "a.jsonl")
    written = json.dumps(task.to_json())
    assert ShardTask.from_json(json.loads(written)) == task
    assert task.source == 5
    script = (
        "import json, sys; from gradus.data.shard_reading import read_shard; "
        "from gradus.data.shard_tasks import ShardTask; "
        "print(json.dumps([t.text for t in read_shard(ShardTask.from_json(json.loads(sys.argv[1])), 390)]))"
    )
    done = subprocess.run([sys.executable, "-c", script, written], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [f"d{i}\n\n{TEXTS[i]}" for i in range(390, 400)]


# Columns


def test_columns_are_joined_chosen_and_kept(hub: HubServer) -> None:
    languages = [["Python", "C"][i % 2] for i in range(6)]
    titles = ["A", None, "", "D", "E", "F"]
    inner = [{"url": f"http://x/{i}", "words": [i]} for i in range(6)]
    content = parquet(TEXTS[:6], title=titles, language=languages, metadata=inner)
    settings = {"text_key": ("title", "text"), "id_key": "id", "url_key": "metadata.url"}
    task = only_task(hub, "a.parquet", content, where={"language": "Python"}, **settings)
    found = list(read_shard(task))
    assert texts_of(iter(found)) == [f"A\n\n{TEXTS[0]}", TEXTS[2], f"E\n\n{TEXTS[4]}"]
    assert [(f.reason, f.place, f.detail) for f in found if isinstance(f, Dropped)] == [
        ("not_selected", f"a.parquet:{row}", "\"language\" is 'C'") for row in (2, 4, 6)
    ]
    assert isinstance(found[0], RawText)
    assert found[0].meta == {
        "id": "d0", "url": "http://x/0", "language": "Python", "file": "a.parquet", "line": 1
    }  # fmt: skip
    nested = only_task(hub, "a.jsonl", b'{"metadata": {"lang": "en"}, "text": "yes"}\n{"metadata": {}, "text": "no"}\n',
                       where={"metadata.lang": "en"})  # fmt: skip
    assert texts_of(read_shard(nested)) == ["yes"]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_a_wrong_column_names_the_nearest(hub: HubServer, name: str) -> None:
    for settings in ({"text_key": "txt"}, {"text_key": ("id", "txt")}, {"url_key": "idd"}, {"where": {"textt": "x"}}):
        with pytest.raises(DataError, match=r'no column "\w+"; columns found: id, text; did you mean "(id|text)"\?'):
            list(read_shard(only_task(hub, name, CONTENT[name], **settings)))


# Damage


@pytest.mark.parametrize("raw", RAW)
def test_damaged_shards_are_refused_or_kept_as_asked(hub: HubServer, tmp_path: Path, raw: str) -> None:
    # Damaged at the Hub itself: the digest fits, the content does not.
    footer = CONTENT["a.parquet"]
    for name, content, least in [
        ("a.parquet", footer[:-200] + b"x" * 192 + footer[-8:], 0),
        ("a.parquet", footer[: len(footer) // 2], 0),
        ("a.jsonl.gz", CONTENT["a.jsonl.gz"][:-40], 300),
        ("a.jsonl.zst", CONTENT["a.jsonl.zst"][:-40], 0),
    ]:
        task = only_task(hub, name, content, raw=raw)
        with pytest.raises(DataError, match=f"{name}: damaged or cut short"):
            list(read_shard(task, raw_dir=tmp_path))
        kept = list(read_shard(only_task(hub, name, content, raw=raw, damaged="keep"), raw_dir=tmp_path))
        assert len(texts_of(iter(kept))) >= least
        assert isinstance(kept[-1], Dropped)
        assert (kept[-1].reason, kept[-1].place) == ("damaged_file", name)
        assert str(tmp_path) not in str(kept[-1])


@pytest.mark.parametrize("raw", RAW)
def test_an_empty_shard_is_counted(hub: HubServer, tmp_path: Path, raw: str) -> None:
    for name in ("a.parquet", "a.jsonl"):
        (dropped,) = read_shard(only_task(hub, name, b"", raw=raw), raw_dir=tmp_path)
        assert isinstance(dropped, Dropped)
        assert (dropped.reason, dropped.place, dropped.source) == ("empty_file", name, "b")
    assert list(read_shard(only_task(hub, "a.parquet", parquet([]), raw=raw), raw_dir=tmp_path)) == []


def test_a_file_that_left_the_hub_is_said_so(hub: HubServer) -> None:
    repository = hub.dataset("a/b", {"a.jsonl": CONTENT["a.jsonl"]})
    (task,) = shard_tasks(HubSource(repo="a/b", path="a.jsonl"), Path())
    repository.commits.clear()
    with pytest.raises(DataError, match=r"Hub dataset a/b@\w{10}: a\.jsonl: no such revision"):
        list(read_shard(task))


# Disks


def test_deleted_shards_never_stand_together(hub: HubServer, tmp_path: Path) -> None:
    hub.dataset("a/b", {f"train-{i}.jsonl": jsonl([f"{i} {t}" for t in TEXTS]) for i in range(5)})
    source = HubSource(repo="a/b", raw="delete")
    most = 0
    for count, _ in enumerate(read_source(source, tmp_path, 1, tmp_path / "raw")):
        if count % 50 == 0:
            most = max(most, len([p for p in (tmp_path / "raw").rglob("*") if p.is_file()]))
    assert count + 1 == 2000
    assert most == 1
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    stopped = read_source(source, tmp_path, 1, tmp_path / "raw")
    next(stopped)
    stopped.close()  # as a limit does
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]


def test_a_full_disk_leaves_nothing_half_written(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"], raw="keep")
    written = []

    def write(handle: io.BufferedRandom, piece: bytes) -> None:
        written.append(handle.write(piece[:1000]))
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    with monkeypatch.context() as patched:
        patched.setattr(remote, "_write", write)
        with pytest.raises(OSError, match="No space left") as error:
            list(read_shard(task, raw_dir=tmp_path / "raw"))
    assert error.value.errno == errno.ENOSPC
    assert written
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    with monkeypatch.context() as patched:
        patched.setattr(remote.shutil, "disk_usage", lambda path: SimpleNamespace(free=999))
        with pytest.raises(OSError, match=r"a\.jsonl needs .* more and 999 B are free") as error:
            list(read_shard(task, raw_dir=tmp_path / "raw"))
    assert error.value.errno == errno.ENOSPC
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    assert texts_of(read_shard(task, raw_dir=tmp_path / "raw")) == TEXTS


KILLED = """
import json, sys
from pathlib import Path
from gradus.data.shard_reading import read_shard
from gradus.data.shard_tasks import ShardTask
from gradus.data.transfer import Connection
task = ShardTask.from_json(json.loads(sys.argv[1]))
for number, row in enumerate(read_shard(task, int(sys.argv[3]), Path(sys.argv[2]))):
    print(json.dumps(row.text), flush=True)
"""


def test_a_kill_while_downloading_resumes_at_the_byte(hub: HubServer, tmp_path: Path) -> None:
    content = jsonl([f"{i} " + os.urandom(200).hex() for i in range(8000)])
    task = only_task(hub, "a.jsonl", content, raw="keep")
    hub.fail("/lfs/", cut=2_000_000)
    hub.fail("/lfs/", silent_seconds=120, after_bytes=1)
    command = [sys.executable, "-c", KILLED, json.dumps(task.to_json()), str(tmp_path / "raw"), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not hub.asked("/lfs/")[1:] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    assert part.name.endswith(".part")
    assert 0 < part.stat().st_size < len(content)
    hub.faults.clear()
    hub.requests.clear()
    assert len(texts_of(read_shard(task, raw_dir=tmp_path / "raw"))) == 8000
    ranges = [r.range for r in hub.asked("/lfs/")]
    assert ranges
    assert all(r is not None and not r.startswith("bytes=0-") for r in ranges)


def test_a_part_that_is_not_the_files_beginning_is_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    task = only_task(hub, "a.jsonl", CONTENT["a.jsonl"], raw="keep")
    list(read_shard(task, raw_dir=tmp_path))
    (stored,) = [p for p in tmp_path.rglob("*.jsonl") if p.is_file()]
    stored.unlink()
    stored.with_name(stored.name + ".part").write_bytes(b"x" * 500)
    assert texts_of(read_shard(task, raw_dir=tmp_path)) == TEXTS
    assert [p for p in tmp_path.rglob("*") if p.is_file() and "raw" not in str(p) and p.suffix == ".part"] == []


def test_a_kill_in_the_middle_gives_each_row_once(hub: HubServer, tmp_path: Path) -> None:
    content = parquet([f"row {i} " + "x" * 3000 for i in range(2000)], group=100)
    task = only_task(hub, "a.parquet", content)
    given: list[str] = []
    for most in (350, 351):
        command = [sys.executable, "-c", KILLED, json.dumps(task.to_json()), str(tmp_path), str(len(given))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line, _ in zip(process.stdout, range(most), strict=False):
            given.append(json.loads(line))
        process.kill()
        process.communicate()
    given += texts_of(read_shard(task, len(given)))
    assert [text.split(" ")[1] for text in given] == [str(i) for i in range(2000)]


# Secrets


def test_the_token_reaches_the_hub_alone_and_no_message(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password netrc-secret\n")
    hub.dataset("a/hidden", {"a.parquet": CONTENT["a.parquet"]}, private=True)
    (task,) = shard_tasks(HubSource(repo="a/hidden"), tmp_path)
    assert texts_of(read_shard(task)) == TEXTS
    assert {r.authorization for r in hub.requests if r.server == "hub"} == {f"Bearer {hub.token}"}
    assert {r.authorization for r in hub.requests if r.server == "cdn"} == {None}
    messages = []
    for fault in ({"status": 502}, {"drop": True}, {"cut": 10}, {"status": 403}, {"status": 418}):
        hub.fail("/lfs/", times=99, **fault)
        with pytest.raises(DataError) as error:
            list(read_shard(task))
        messages.append(str(error.value) + repr(error.value) + str(error.value.__cause__))
        hub.faults.clear()
    assert not any(hub.token in r.getMessage() for r in caplog.records)
    text = "\n".join([*messages, json.dumps(task.to_json()), *(str(r.getMessage()) for r in caplog.records
                      if r.name.startswith("gradus"))])  # fmt: skip
    assert hub.token not in text
    assert SIGNATURE not in text
    assert "netrc-secret" not in text


def test_a_shard_of_unknown_size_is_measured(hub: HubServer) -> None:
    task = only_task(hub, "a.parquet", CONTENT["a.parquet"])
    shard = remote_shard(ShardTask.from_json({**task.to_json(), "size": None, "digest": ""}))
    assert shard.size() == len(CONTENT["a.parquet"])
    unsized = ShardTask.from_json({**task.to_json(), "size": None, "digest": ""})
    assert texts_of(read_shard(unsized)) == TEXTS
