"""Appending to token shards: old files stay as they are, and a set is the old one or the new one whatever happens."""

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradus.core.errors import DataError
from gradus.core.files import is_disk_full
from gradus.data import token_task
from gradus.data.document import Document, document_id
from gradus.data.shards import TokenStore
from gradus.data.token_manifest import SetFacts
from gradus.data.token_task import TaskWriter
from gradus.data.token_writer import TokenAppend, TokenWriter
from gradus.data.tokenise import tokenise_shards, write_token_shards
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

FACTS = SetFacts("stream", 300, "f" * 64, 256)


def documents(name: str, count: int) -> list[Document]:
    texts = [f"{name} {i} " + "the rat sat " * (i % 7) for i in range(count)]
    return [Document(text, document_id(text), source=name) for text in texts]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_task(task, seed: int = 0) -> None:
    random = np.random.default_rng([seed, task.number])
    with TaskWriter(task) as writer:
        for _ in range(3):
            ids = [random.integers(0, 255, size=random.integers(1, 9)) for _ in range(5)]
            writer.add(ids, [f"s{int(i) % 2}" for i in random.integers(0, 9, size=5)], [4] * 5)
        writer.finish()


def append(folder: Path, tasks: list[str], **options) -> TokenAppend:
    one = TokenAppend(folder, "train", FACTS, tasks, shard_tokens=20, **options)
    for task in one.pending:
        write_task(task)
    one.commit()
    return one


def test_an_append_leaves_old_files_as_they_were_and_joins_at_the_next_generation(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_token_shards(documents("books", 20), tokenizer, tmp_path, split="train", shard_tokens=50, batch_bytes=100)
    first, before = contents(tmp_path), TokenStore(tmp_path, "train")
    counts = write_token_shards(documents("web", 9), tokenizer, tmp_path, split="train", append=True)
    second = contents(tmp_path)
    manifest = first.pop("train.jsonl")
    assert second["train.jsonl"].startswith(manifest)
    assert {name: second[name] for name in first} == first
    old, new = TokenStore(tmp_path, "train", generation=1), TokenStore(tmp_path, "train")
    assert (old.generation, new.generation, old.num_generations) == (1, 2, 2)
    assert old.fingerprint == before.fingerprint != new.fingerprint
    assert old.lengths.tolist() == before.lengths.tolist() == new.lengths[:20].tolist()
    assert (old.counts, old.sources) == (before.counts, ["books"])
    assert new.counts == counts
    assert (new.num_documents, new.sources) == (29, ["books", "web"])
    assert counts["by_source"]["web"]["documents"] == 9
    assert counts["document_tokens"]["count"] == 29
    assert [new.sources[i] for i in new.source_index] == ["books"] * 20 + ["web"] * 9
    assert tokenizer.decode(new.ids(28).tolist()[1:]) == documents("web", 9)[8].text
    with pytest.raises(DataError, match=r"there is no generation 3; the set has 1 to 2"):
        TokenStore(tmp_path, "train", generation=3)


def test_only_what_the_same_tokenizer_made_can_be_appended(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents("books", 5), tokenizer, tmp_path, split="train")
    before = contents(tmp_path)
    other = train_tokenizer(["abc abc"] * 3, 268)
    with pytest.raises(DataError, match=r"the set has vocab_size 275, what would be appended has 268; append with"):
        write_token_shards(documents("web", 5), other, tmp_path, split="train", append=True)
    with pytest.raises(DataError, match="the set has layout stream, what would be appended has documents"):
        TokenWriter(tmp_path, "train", "documents", tokenizer, append=True)
    assert contents(tmp_path) == before


def test_tasks_give_the_same_files_in_any_order_and_after_any_interruption(tmp_path: Path) -> None:
    names = [f"shard {i}" for i in range(6)]
    append(tmp_path / "a", names)
    expected = contents(tmp_path / "a")
    begun = TokenAppend(tmp_path / "b", "train", FACTS, names, shard_tokens=20)
    for number in (4, 1):
        write_task(begun.tasks[number])
    with TaskWriter(begun.tasks[2]) as half:  # a writer that dies: files and no marker
        half.add([np.arange(30)], ["s"], [30])
        half.add([np.arange(9)], ["s"], [9])
    assert list((tmp_path / "b" / "train").glob("00002-*"))
    again = TokenAppend(tmp_path / "b", "train", FACTS, names, shard_tokens=20)
    assert [task.number for task in again.pending] == [0, 2, 3, 5]
    assert not list((tmp_path / "b" / "train").glob("00002-*"))
    for task in reversed(again.pending):
        write_task(task)
    again.commit()
    assert contents(tmp_path / "b") == expected


def test_finished_tasks_of_another_append_are_not_taken_over(tmp_path: Path) -> None:
    begun = TokenAppend(tmp_path, "train", FACTS, ["a", "b"], filters="strict")
    write_task(begun.tasks[0])
    for names, filters in ((["a", "b"], "loose"), (["a", "c"], "strict")):
        assert len(TokenAppend(tmp_path, "train", FACTS, names, filters=filters).pending) == 2
        write_task(TokenAppend(tmp_path, "train", FACTS, ["a", "b"], filters="strict").tasks[0])


def test_a_set_is_not_appended_to_twice_by_the_same_run(tmp_path: Path) -> None:
    append(tmp_path, ["a", "b"], generation=1)
    append(tmp_path, ["c"], generation=2)
    before = contents(tmp_path)
    again = TokenAppend(tmp_path, "train", FACTS, ["c"], shard_tokens=20, generation=2)
    assert (again.is_committed, again.pending) == (True, [])
    assert again.commit() == TokenStore(tmp_path, "train").counts
    assert contents(tmp_path) == before
    with pytest.raises(DataError, match="the set has 2 generations, so this cannot become its generation 2"):
        TokenAppend(tmp_path, "train", FACTS, ["d"], generation=2)
    with pytest.raises(DataError, match="cannot become its generation 1"):
        TokenAppend(tmp_path, "train", FACTS, ["a", "b"], shard_tokens=20, generation=1)


def test_a_new_set_takes_the_place_of_one_from_something_else(tmp_path: Path) -> None:
    append(tmp_path / "a", ["old"], generation=1)
    append(tmp_path / "a", ["new"], generation=1)
    append(tmp_path / "b", ["new"], generation=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_unfinished_task_or_a_set_that_moved_on_cannot_be_committed(tmp_path: Path) -> None:
    begun = TokenAppend(tmp_path, "train", FACTS, ["a", "b"])
    write_task(begun.tasks[0])
    with pytest.raises(DataError, match=r"task 1 \(b\) is not finished; run again"):
        begun.commit()
    write_task(begun.tasks[1])
    other = TokenAppend(tmp_path, "train", FACTS, ["a", "b"])
    other.commit()
    begun._before = None
    for task in begun.tasks:
        (tmp_path / "train" / "pending").mkdir(exist_ok=True)
        write_task(task)
    with pytest.raises(DataError, match="the set was appended to by another process"):
        begun.commit()


def test_the_manifest_says_where_every_shard_came_from(tmp_path: Path) -> None:
    append(tmp_path, ["train/00000.parquet", "train/00001.parquet"], filters="abc")
    shards = TokenStore(tmp_path, "train").shards
    assert {shard.entry.source_shard for shard in shards if shard.entry.task == 1} == {"train/00001.parquet"}
    assert {shard.entry.filters for shard in shards} == {"abc"}


def test_a_full_disk_is_told_and_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, ["a"])
    before = contents(tmp_path)

    def full(path: Path, mode: str = "r", **options):
        # Writing to it fails with "no space left on device".
        return open("/dev/full" if path.suffix == ".bin" and "w" in mode else path, mode, **options)

    begun = TokenAppend(tmp_path, "train", FACTS, ["b"], shard_tokens=20)
    with monkeypatch.context() as patch:
        patch.setattr(token_task.Path, "open", full)
        with pytest.raises(OSError) as caught:
            write_task(begun.tasks[0])
    assert caught.value.errno == errno.ENOSPC
    assert is_disk_full(caught.value)
    with pytest.raises(DataError, match="is not finished"):
        begun.commit()
    assert TokenStore(tmp_path, "train").num_generations == 1
    append(tmp_path, ["b"])
    after = contents(tmp_path)
    assert {name: after[name] for name in before if name != "train.jsonl"}.items() <= before.items()
    append(tmp_path / "other", ["a"])
    append(tmp_path / "other", ["b"])
    assert contents(tmp_path / "other").items() <= {k.replace("other/", ""): v for k, v in after.items()}.items()


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path]:
    """Four parquet shards and the folder of a tokenizer."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for part in range(4):
        rows = documents(f"part {part}", 40)
        columns = {"id": [d.id for d in rows], "text": [d.text for d in rows], "source": [d.source for d in rows]}
        pq.write_table(pa.table(columns), shards / f"{part:05d}.parquet", row_group_size=16)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    train_tokenizer(["the rat sat on the mat, part 1 and part 2"] * 4, 275).save(folder)
    return shards, folder


WORKER = """
import json, sys
from gradus.data.tokenise import tokenise_shard
for line in sys.stdin:
    print(json.dumps(tokenise_shard(json.loads(line), lambda documents, size: None)), flush=True)
"""


def in_processes(job, jobs):
    """Two worker processes, every other job each, the second one's first: results in order."""
    lines = [json.dumps(arguments) + "\n" for arguments in jobs]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", WORKER], **pipes) for _ in range(2)]
    for part in (1, 0):
        workers[part].stdin.write("".join(lines[part::2]))
        workers[part].stdin.flush()
    found = [worker.communicate()[0].splitlines() for worker in workers]
    return [json.loads(found[index % 2][index // 2]) for index in range(len(lines))]


def test_shards_tokenised_in_several_processes_are_those_of_one(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    shards, folder = sorted(corpus[0].iterdir()), corpus[1]
    told: list[tuple[int, int]] = []
    one, _ = tokenise_shards(
        shards, folder, tmp_path / "one", split="train", shard_tokens=300, on_progress=lambda *now: told.append(now)
    )
    two, _ = tokenise_shards(
        shards, folder, tmp_path / "two", split="train", shard_tokens=300, threads=1, run_jobs=in_processes
    )
    assert one == two
    assert one["documents"] == 160
    assert told[-1] == (160, one["bytes"])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    store = TokenStore(tmp_path / "one", "train")
    assert [shard.entry.source_shard for shard in store.shards][-1] == "shards/00003.parquet"
    # The documents are those of the shards, in their order.
    tokenizer = train_tokenizer(["the rat sat on the mat, part 1 and part 2"] * 4, 275)
    assert tokenizer.decode(store.ids(41).tolist()[1:]) == documents("part 1", 40)[1].text


KILLS = """
import os, sys, pathlib, io
from pathlib import Path
sys.path.insert(0, {tests!r})
import gradus.core.files as files
from test_shard_append import append, contents
import hashlib, json

class Dying(io.FileIO):
    def write(self, data):
        data = bytes(data)
        now = min(len(data), budget[0])
        super().write(data[:now])
        spend(len(data))
        return len(data)

def spend(cost):
    if budget[0] < cost:
        os._exit(9)
    budget[0] -= cost

def arm():
    def opened(path, mode="r", *rest, **options):
        return Dying(path, mode) if "w" in mode else io.open(path, mode, *rest, **options)
    files.open = opened
    Path.open = opened
    for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"):
        real = getattr(os, name)
        def counted(*a, real=real, **k):
            spend(1)
            return real(*a, **k)
        setattr(os, name, counted)

def state(folder):
    return {{k: hashlib.sha256(v).hexdigest() for k, v in contents(folder).items()}}

def run(folder):
    append(folder, ["a", "b"])
    pid = os.fork()
    if pid == 0:
        arm()
        whole = budget[0]
        append(folder, ["c", "d"])
        with open(f"{{folder}}.bytes", "w") as file:
            file.write(str(whole - budget[0]))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

root = Path({root!r})
budget = [10**9]
run(root / "cost")
cost = int((root / "cost.bytes").read_text())
for kill in [*range(0, cost, {stride}), *range(cost - 24, cost + 1, 4)]:
    budget = [kill]
    code = run(root / str(kill))
    print(json.dumps({{"kill": kill, "code": code, "state": state(root / str(kill))}}), flush=True)
"""


@pytest.mark.parametrize("stride", [701, pytest.param(97, marks=pytest.mark.slow)])
def test_a_kill_at_any_byte_leaves_the_old_set_or_the_new_one(tmp_path: Path, stride: int) -> None:
    append(tmp_path / "whole", ["a", "b"])
    old = {name: hashlib.sha256(data).hexdigest() for name, data in contents(tmp_path / "whole").items()}
    append(tmp_path / "whole", ["c", "d"])
    new = contents(tmp_path / "whole")
    code = KILLS.format(tests=str(Path(__file__).parent), root=str(tmp_path), stride=stride)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    generations = []
    assert ends[0]["code"] == 9
    assert ends[-1]["code"] == 0
    for end in ends:
        folder = tmp_path / str(end["kill"])
        store = TokenStore(folder, "train")
        store.verify()
        generations.append(store.num_generations)
        known = {name: end["state"][name] for name in old if name != "train.jsonl"}
        assert known == {name: digest for name, digest in old.items() if name != "train.jsonl"}
        if store.num_generations == 1:
            assert end["state"]["train.jsonl"] == old["train.jsonl"]
            append(folder, ["c", "d"], generation=2)
        else:
            # Between the manifest and the end of the append only the markers are left behind.
            again = TokenAppend(folder, "train", FACTS, ["c", "d"], shard_tokens=20, generation=2)
            assert again.is_committed
        after = {name: data for name, data in contents(folder).items() if "pending" not in name}
        assert after == new
    assert generations == sorted(generations)
    assert set(generations) == {1, 2}
