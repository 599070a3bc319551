"""The corpus: every document once, on the side its text decides, with everything else accounted for."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradus.core.errors import DataError
from gradus.core.quantity import Quantity
from gradus.data.build import build_corpus
from gradus.data.corpus import corpus_counts, read_corpus
from gradus.data.document import document_id
from gradus.data.files import FilesSource
from gradus.data.prepare import PrepareSettings


def write_lines(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))


def texts_of(folder: Path, split: str) -> list[str]:
    return [d.text for d in read_corpus(folder, split)]


def test_documents_are_normalised_deduplicated_divided_and_counted(tmp_path: Path) -> None:
    texts = [f"document number {i}\r\n" for i in range(200)]
    write_lines(tmp_path / "a.jsonl", [*texts, "document number 3", " \n ", "\ud800 lone"])
    write_lines(tmp_path / "b.jsonl", ["document number 7\n", "only here"])
    sources = [FilesSource(path="a.jsonl"), FilesSource(path="b.jsonl")]
    counts = build_corpus(sources, tmp_path / "out", roadmap_dir=tmp_path, validation_fraction=0.1)
    train, validation = (texts_of(tmp_path / "out", s) for s in ("train", "validation"))
    assert sorted(train + validation) == sorted([*(t.strip() for t in texts), "only here"])
    assert counts["dropped"] == {"duplicate": 2, "empty": 1, "invalid_unicode": 1}
    assert counts["read"] == 205
    assert counts["kept"] == len(train) + len(validation) == 201
    assert counts["train"]["bytes"] == sum(len(t.encode()) for t in train)
    assert counts["train"]["by_source"]["b"] == {"documents": 1, "bytes": 9}
    assert corpus_counts(tmp_path / "out") == counts
    drops = json.loads((tmp_path / "out" / "drops.json").read_text())
    assert drops["by_source"] == {
        "a": {"duplicate": 1, "empty": 1, "invalid_unicode": 1},
        "b": {"duplicate": 1},
    }
    assert [s["place"] for s in drops["samples"]["duplicate"]] == ["a.jsonl:201", "b.jsonl:1"]


def test_documents_keep_their_identity_source_and_meta(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "hello", "title": "T", "long": "x" * 600}) + "\n{")
    build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0)
    [document] = read_corpus(tmp_path / "c", "train")
    assert document.id == document_id("hello")
    assert document.source == "a"
    assert document.meta == {"title": "T", "file": "a.jsonl", "line": 1}
    drops = json.loads((tmp_path / "c" / "drops.json").read_text())
    assert drops["by_source"] == {"a": {"invalid_json": 1}}


def test_a_document_is_on_the_same_side_in_every_corpus(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(300)]
    write_lines(tmp_path / "forward.jsonl", texts)
    write_lines(tmp_path / "backward.jsonl", texts[::-1])
    write_lines(tmp_path / "other.jsonl", [f"other {i}" for i in range(300)])
    sides = []
    for seed, paths in enumerate([("forward.jsonl",), ("other.jsonl", "backward.jsonl")]):
        sources = [FilesSource(path=p) for p in paths]
        out = tmp_path / f"out{seed}"
        build_corpus(sources, out, roadmap_dir=tmp_path, validation_fraction=0.1, seed=seed)
        sides.append({t for t in texts_of(out, "validation") if t.startswith("text")})
    assert sides[0] == sides[1]
    assert 10 < len(sides[0]) < 60


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [f"text {i}" for i in range(3000)])
    written = []
    for name in ("one", "two"):
        build_corpus([FilesSource(path="a.jsonl")], tmp_path / name, roadmap_dir=tmp_path)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        written.append([(p.relative_to(tmp_path / name), p.read_bytes()) for p in files])
    assert written[0] == written[1]
    groups = pq.ParquetFile(tmp_path / "one" / "train" / "00000-000.parquet").metadata
    assert groups.row_group(0).num_rows == 1024
    assert groups.row_group(0).column(1).compression == "ZSTD"


def test_a_limit_counts_the_documents_that_are_kept(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [f"text {i // 2}" for i in range(100)])
    source = FilesSource(path="a.jsonl", limit=Quantity(7, "documents"))
    counts = build_corpus([source], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0)
    assert texts_of(tmp_path / "c", "train") == [f"text {i}" for i in range(7)]
    assert counts["kept"] == 7


def test_dedup_and_normalisation_can_be_left_out(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ["same\r\n", "same\r\n"])
    as_it_is = PrepareSettings(normalise=False)
    build_corpus(
        [FilesSource(path="a.jsonl")],
        tmp_path / "c",
        roadmap_dir=tmp_path,
        settings=as_it_is,
        dedup="none",
        validation_fraction=0.0,
    )
    assert texts_of(tmp_path / "c", "train") == ["same\r\n", "same\r\n"]


def test_short_documents_are_dropped_when_asked(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ["tiny", "long enough"])
    counts = build_corpus(
        [FilesSource(path="a.jsonl")],
        tmp_path / "c",
        roadmap_dir=tmp_path,
        settings=PrepareSettings(min_characters=5),
        validation_fraction=0.0,
    )
    assert counts["dropped"] == {"too_short": 1}


def test_an_empty_corpus_says_what_was_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError) as error:
        build_corpus([FilesSource(path="a.txt")], tmp_path / "c", roadmap_dir=tmp_path)
    assert str(error.value) == (
        "the sources hold no usable document: 1 read, dropped 1 invalid_utf8 "
        "(first: a.txt: invalid_utf8 byte 0xff at position 0 is not UTF-8)"
    )


def test_an_empty_validation_side_is_refused_with_the_fraction_that_fills_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ["one", "two", "three"])
    with pytest.raises(DataError, match="holds out none of 3 documents; set it above") as error:
        build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=1e-6)
    needed = float(str(error.value).split("set it above ")[1].split()[0]) + 1e-4
    counts = build_corpus(
        [FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=needed
    )
    assert counts["validation"]["documents"] == 1


def test_a_second_build_replaces_the_first(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [f"text {i}" for i in range(50)])
    for _ in range(2):
        build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0.2)
    assert len(texts_of(tmp_path / "c", "train") + texts_of(tmp_path / "c", "validation")) == 50
    assert not (tmp_path / "c" / "scratch").exists()


def test_progress_is_told_and_ends_with_the_totals(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [f"text {i:04}" for i in range(600)])
    told: list[tuple[int, int]] = []
    settings = {"validation_fraction": 0.0, "on_progress": lambda *now: told.append(now)}
    build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, **settings)
    assert told[-1] == (600, 600 * 9)


def test_a_folder_without_a_corpus_or_with_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no corpus here \(corpus\.json is missing\)"):
        list(read_corpus(tmp_path, "train"))
    write_lines(tmp_path / "a.jsonl", ["one"])
    build_corpus([FilesSource(path="a.jsonl")], tmp_path / "c", roadmap_dir=tmp_path, validation_fraction=0)
    (tmp_path / "c" / "train" / "00000-000.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(DataError, match="damaged corpus shard"):
        list(read_corpus(tmp_path / "c", "train"))


def test_real_prose_becomes_a_corpus(tmp_path: Path, real_data: Path) -> None:
    sources = [
        FilesSource(path=("prose/us_speeches.jsonl.gz", "prose/c4_demo_300.jsonl.gz")),
        FilesSource(path="prose/wiki_demo.txt.gz", split="line"),
        FilesSource(path="prose/tinyshakespeare.txt.gz"),
    ]
    counts = build_corpus(sources, tmp_path / "c", roadmap_dir=real_data, validation_fraction=0.02)
    # Rows as the data's own description counts them: 124 + 300 + 30 + 1 file.
    assert counts["read"] == 455
    assert counts["kept"] == 455 - sum(counts["dropped"].values())
    assert counts["train"]["bytes"] + counts["validation"]["bytes"] > 5_600_000
