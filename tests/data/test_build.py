"""Building a corpus in portions: any number of processes, killed anywhere, the same bytes come out."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradus.core.errors import DataError
from gradus.core.quantity import Quantity
from gradus.data import portions
from gradus.data.build import build_corpus
from gradus.data.corpus import corpus_counts, read_corpus
from gradus.data.decontaminate import DecontaminateSettings
from gradus.data.document import document_id
from gradus.data.files import FilesSource
from gradus.data.minhash import MinHashSettings
from gradus.data.prepare import PrepareSettings


def write_files(folder: Path, files: int, documents: int) -> None:
    """Files with texts of their own, and every fifth shared with other files."""
    rng = random.Random(1)
    folder.mkdir(exist_ok=True)
    for number in range(files):
        texts = [
            f"shared {rng.randrange(40)}" if row % 5 == 0 else f"file {number} row {row} " + "word " * rng.randrange(9)
            for row in range(documents)
        ]
        (folder / f"{number:03d}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "raw", 9, 120)
    monkeypatch.setattr(portions, "LEAST_BYTES", 10_000)
    sources = [
        FilesSource(path="raw/00[0-4].jsonl", name="first", limit=Quantity(222, "documents")),
        FilesSource(path="raw", name="second"),
    ]
    settings = {"roadmap_dir": tmp_path, "validation_fraction": 0.1}
    counts = [build_corpus(sources, tmp_path / f"c{n}", processes=n, **settings) for n in (1, 2, 3)]
    assert counts[0] == counts[1] == counts[2]
    assert len({json.dumps(corpus_counts(tmp_path / f"c{n}")) for n in (1, 2, 3)}) == 1
    alone, both, three = (content(tmp_path / f"c{n}") for n in (1, 2, 3))
    assert alone == both == three
    assert len([name for name in alone if name.startswith("train/")]) > 4


def test_everything_read_is_kept_or_accounted_for(tmp_path: Path) -> None:
    write_files(tmp_path / "raw", 3, 100)
    with (tmp_path / "raw" / "002.jsonl").open("a") as file:
        file.write("{not json\n" + json.dumps({"text": "  "}) + "\n")
    counts = build_corpus([FilesSource(path="raw")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0.1)
    dropped = pq.read_table(tmp_path / "c" / "drops").to_pylist()
    assert counts["read"] == 302 == counts["kept"] + len(dropped)
    by_reason = {reason: sum(row["reason"] == reason for row in dropped) for reason in counts["dropped"]}
    assert by_reason == counts["dropped"]
    assert counts["dropped"] | {"duplicate": 0} == {"invalid_json": 1, "empty": 1, "duplicate": 0}
    assert counts["dropped"]["duplicate"] > 10
    kept = {document.id for split in ("train", "validation") for document in read_corpus(tmp_path / "c", split)}
    assert {row["id"] for row in dropped if row["reason"] == "duplicate"} <= kept


def test_a_limited_source_goes_on_where_others_hold_its_texts(tmp_path: Path) -> None:
    def write(name: str, first: int, last: int) -> FilesSource:
        lines = [json.dumps({"text": f"text {number}"}) + "\n" for number in range(first, last)]
        (tmp_path / name).write_text("".join(lines))
        return FilesSource(path=name, limit=Quantity(50, "documents"))

    # The first 50 of the second source are all in the first one.
    sources = [write("a.jsonl", 0, 60), write("b.jsonl", 0, 200)]
    counts = build_corpus(sources, tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0)
    texts = [document.text for document in read_corpus(tmp_path / "c", "train")]
    assert texts == [f"text {number}" for number in range(100)]
    assert counts["dropped"] == {"duplicate": 50}
    assert counts["read"] == 150


def test_what_stands_behind_a_limit_is_no_duplicate_of_later_sources(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {number}"}) + "\n" for number in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    (tmp_path / "b.jsonl").write_text("".join(lines))
    sources = [FilesSource(path="a.jsonl", limit=Quantity(5, "documents")), FilesSource(path="b.jsonl")]
    counts = build_corpus(sources, tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0)
    assert counts["kept"] == 20
    assert counts["dropped"] == {"duplicate": 5}


BUILD = """
import sys
from pathlib import Path
from gradus.data import portions
from gradus.data.build import build_corpus
from gradus.data.decontaminate import DecontaminateSettings
from gradus.data.document import document_id
from gradus.data.files import FilesSource
from gradus.data.minhash import MinHashSettings
from gradus.data.prepare import PrepareSettings
portions.LEAST_BYTES = 20_000
folder = Path(sys.argv[1])
build_corpus([FilesSource(path="raw")], folder / sys.argv[2], roadmap_dir=folder, validation_fraction=0.1, processes=2)
"""


def test_a_build_killed_at_many_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write_files(tmp_path / "raw", 24, 300)
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    began = time.monotonic()
    subprocess.run([*command, "whole"], check=True)
    whole_seconds = time.monotonic() - began
    rng = random.Random(7)
    ended = False
    for _ in range(6):
        walk = subprocess.Popen([*command, "killed"], start_new_session=True)
        time.sleep(rng.uniform(0.2, whole_seconds))
        if walk.poll() is not None:
            ended = True
            break
        os.killpg(walk.pid, signal.SIGKILL)
        walk.wait()
    if not ended:
        subprocess.run([*command, "killed"], check=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_finished_portions_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "raw", 4, 50)
    monkeypatch.setattr(portions, "LEAST_BYTES", 1000)
    (tmp_path / "raw" / "003.jsonl").write_bytes(b"\x1f\x8b")
    source = FilesSource(path="raw", text_key="text")
    from gradus.data import prepare

    read: list[str] = []
    genuine = prepare.read_shard

    def watched(task, **settings):  # type: ignore[no-untyped-def]
        read.append(task.name)
        if task.name == "003.jsonl" and read.count("003.jsonl") == 1:
            raise DataError("the disk went away")
        return genuine(task, **settings)

    monkeypatch.setattr(prepare, "read_shard", watched)
    settings = {"roadmap_dir": tmp_path, "validation_fraction": 0.1}
    with pytest.raises(DataError, match="went away"):
        build_corpus([source], tmp_path / "c", **settings)
    assert not (tmp_path / "c" / "corpus.json").exists()
    build_corpus([source], tmp_path / "c", **settings)
    assert read == ["000.jsonl", "001.jsonl", "002.jsonl", "003.jsonl", "003.jsonl"]


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    write_files(tmp_path / "raw", 2, 50)
    first = build_corpus([FilesSource(path="raw")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0.1)
    second = build_corpus([FilesSource(path="raw")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0.5)
    assert first["validation"]["documents"] < second["validation"]["documents"]
    assert first["kept"] == second["kept"]


def test_filters_and_masks_act_before_duplicates_are_sought(tmp_path: Path) -> None:
    (tmp_path / "my_rules.py").write_text("def loud(text):\n    return 'loud' if text.isupper() else None\n")
    rows = ["write to anna@posteo.de", "write to bert@posteo.de", "LOUD", "short", "x = a * b / (c + d) < e # $1 \\n"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    settings = PrepareSettings(
        filters=("my_rules:loud", {"name": "length", "min_characters": 6, "min_words": None}), mask=("pii",)
    )
    counts = build_corpus(
        [FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, settings=settings, validation_fraction=0
    )
    texts = [document.text for document in read_corpus(tmp_path / "c", "train")]
    assert len(texts) == 2
    assert "anna" not in texts[0]
    assert texts[1] == rows[4]
    assert counts["dropped"] == {"duplicate": 1, "length.too_few_characters": 1, "my_rules:loud.loud": 1}
    assert counts["masked"] == {"email": 2}
    dropped = {row["reason"]: row for row in pq.read_table(tmp_path / "c" / "drops").to_pylist()}
    assert dropped["my_rules:loud.loud"]["place"] == "a.jsonl:3"
    assert dropped["my_rules:loud.loud"]["id"] == document_id("LOUD")


def prose(rng: random.Random, words: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(words)]


WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "su", "ter", "van") for b in ("den", "fil", "gor", "hem", "jas", "kut")]


def edited(rng: random.Random, words: list[str], edits: int) -> str:
    words = list(words)
    for place in rng.sample(range(len(words)), edits):
        words[place] = "changed"
    return " ".join(words)


def test_near_duplicates_keep_the_longest_across_sources_and_generations(tmp_path: Path) -> None:
    rng = random.Random(5)
    originals = [prose(rng, 600) for _ in range(40)]
    first = [" ".join(words) for words in originals[:30]]
    # The same texts with two words changed, and one word more: longer, so these stay.
    second = [edited(rng, words, 2) + " end" for words in originals[:10]] + [" ".join(w) for w in originals[30:]]
    third = [edited(rng, words, 1) + " and more" for words in originals[5:35]] + [
        "entirely new " + " ".join(prose(rng, 99))
    ]
    sources = []
    for name, texts in (("a", first), ("b", second), ("c", third)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources.append(FilesSource(path=f"{name}.jsonl"))
    settings = {
        "roadmap_dir": tmp_path,
        "settings": PrepareSettings(minhash=MinHashSettings()),
        "validation_fraction": 0.1,
    }
    counts = build_corpus(sources[:2], tmp_path / "one", **settings)
    assert counts["dropped"] == {"near_duplicate": 10}
    kept = {document.text for split in ("train", "validation") for document in read_corpus(tmp_path / "one", split)}
    assert kept == {*first[10:], *second}
    before = content(tmp_path / "one")
    grown = build_corpus(sources[2:], tmp_path / "two", extends=tmp_path / "one", **settings)
    # What an earlier generation holds stays, though what comes is longer.
    assert grown["dropped"] == {"near_duplicate": 40}
    assert grown["kept"] == counts["kept"] + 1
    assert grown["generations"] == 2
    after = content(tmp_path / "two")
    shards = {name: data for name, data in before.items() if name.endswith(".parquet")}
    assert shards.items() <= after.items()
    assert corpus_counts(tmp_path / "two") == grown


def test_an_extended_corpus_drops_what_the_earlier_one_holds(tmp_path: Path) -> None:
    write_files(tmp_path / "raw", 3, 60)
    settings = {"roadmap_dir": tmp_path, "validation_fraction": 0.2}
    whole = build_corpus([FilesSource(path="raw")], tmp_path / "whole", **settings)
    build_corpus([FilesSource(path="raw/00[01].jsonl")], tmp_path / "one", **settings)
    grown = build_corpus([FilesSource(path="raw/002.jsonl")], tmp_path / "two", extends=tmp_path / "one", **settings)
    for key in ("read", "kept", "dropped"):
        assert grown[key] == whole[key]
    for split in ("train", "validation"):
        texts = [[d.text for d in read_corpus(tmp_path / name, split)] for name in ("whole", "two")]
        assert texts[0] == texts[1]
        assert grown[split]["document_bytes"] == whole[split]["document_bytes"]


def test_an_address_is_kept_once_where_asked(tmp_path: Path) -> None:
    rows = [("one", "http://a.org/x"), ("two", "https://www.a.org/x/"), ("three", "http://a.org/y"), ("four", None)]
    lines = [json.dumps({"text": text, **({"url": url} if url else {})}) + "\n" for text, url in rows]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    settings = {"roadmap_dir": tmp_path, "validation_fraction": 0}
    counts = build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", unique_urls=True, **settings)
    assert counts["dropped"] == {"duplicate_url": 1}
    assert [d.text for d in read_corpus(tmp_path / "c", "train")] == ["one", "three", "four"]


def test_documents_that_hold_evaluation_items_are_dropped_with_the_item(tmp_path: Path) -> None:
    words = random.Random(3)
    question = " ".join(prose(words, 30))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"text": question}) + "\n")
    clean = [" ".join(prose(words, 80)) for _ in range(9)]
    texts = [*clean, f"before it {question.upper()}, and after"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    counts = build_corpus(
        [FilesSource(path="a.jsonl")],
        tmp_path / "c",
        roadmap_dir=tmp_path,
        decontaminate=DecontaminateSettings(sets=("exam.jsonl",)),
        validation_fraction=0,
        processes=2,
    )
    assert counts["dropped"] == {"contaminated.exam.jsonl": 1}
    assert [document.text for document in read_corpus(tmp_path / "c", "train")] == clean
    [dropped] = pq.read_table(tmp_path / "c" / "drops").to_pylist()
    assert dropped["detail"].startswith("100% of item ")
