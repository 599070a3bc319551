"""Sources: patterns, formats, and what each bad file or record becomes."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import TypeAdapter

from gradus.core import compression
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.data import readers
from gradus.data.benchmarks import json_rows
from gradus.data.drops import Dropped
from gradus.data.file_formats import LocalFile
from gradus.data.files import FilesSource
from gradus.data.record_rows import read_rows
from gradus.data.shard_tasks import RawText
from gradus.data.sources import Source, SyntheticSource, read_source, source_digest, source_files


def read(folder: Path, **settings: object) -> tuple[list[str], list[Dropped]]:
    """(texts, drops) of a files source in `folder`."""
    found = list(read_source(FilesSource(**settings), folder, seed=0))
    texts = [f.text for f in found if not isinstance(f, Dropped)]
    return texts, [f for f in found if isinstance(f, Dropped)]


def lines(*records: object) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


RECORDS = [{"text": "one", "title": "t"}, {"text": "zwei ü"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(*RECORDS)),
        ("a.jsonl.gz", gzip.compress(lines(*RECORDS), mtime=0)),
        ("a.jsonl.zst", zstandard.compress(lines(RECORDS[0])) + zstandard.compress(lines(RECORDS[1]))),
        ("a.json", json.dumps(RECORDS).encode()),
        ("a.json.gz", gzip.compress(json.dumps(RECORDS, indent=2).encode(), mtime=0)),
        ("a.json", lines(*RECORDS)),
        ("a.json", json.dumps(["one", "zwei ü"]).encode()),
        ("a.jsonl", b"\xef\xbb\xbf" + lines(*RECORDS).replace(b"\n", b"\r\n\n")),
        ("a.NDJSON", lines(*RECORDS).rstrip(b"\n")),
    ],
)
def test_every_record_format_gives_the_same_texts(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path, path=name) == (["one", "zwei ü"], [])


def test_parquet_is_read_with_its_short_columns_as_meta(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", None, "two"], "score": [1.5, 2.0, 3.0], "parts": [[1], [2], [3]]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = list(read_source(FilesSource(path="a.parquet"), tmp_path, seed=0))
    assert [f.text for f in found if not isinstance(f, Dropped)] == ["one", "two"]
    assert found[0].meta == {"score": 1.5, "file": "a.parquet", "line": 1}
    assert isinstance(found[1], Dropped)
    assert (found[1].reason, found[1].place) == ("missing_text", "a.parquet:2")


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("file", ["a\nb\n\n\nc\n \nd"]),
        ("line", ["a", "b", "c", "d"]),
        ("paragraphs", ["a\nb", "c", "d"]),
    ],
)
def test_a_text_file_is_divided_as_asked(tmp_path: Path, split: str, texts: list[str]) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\nb\n\n\nc\n \nd"))
    assert read(tmp_path, path="*.txt.gz", split=split) == (texts, [])


def test_patterns_reach_into_folders_and_home_and_each_file_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("b/x.md", "b/c/y.txt", "z.txt", "b/.hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path / "b", path=("~/**/*.txt", "c/y.txt", "x.md"))[0] == ["b/c/y.txt", "z.txt", "b/x.md"]
    assert read(tmp_path, path="b")[0] == ["b/c/y.txt", "b/x.md"]


def test_a_file_name_with_brackets_means_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("bracket")
    assert read(tmp_path, path="a[1].txt")[0] == ["bracket"]


def test_labels_are_file_names_or_the_given_name(tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_bytes(lines(*RECORDS))
    (tmp_path / "news.txt").write_text("n")
    by_file = read_source(FilesSource(path="*"), tmp_path, 0)
    assert [f.source for f in by_file] == ["books", "books", "news"]
    assert {f.source for f in read_source(FilesSource(path="*", name="mine"), tmp_path, 0)} == {"mine"}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "news.txt").write_text("o")
    labels = [f.source for f in read_source(FilesSource(path="**/*.txt"), tmp_path, 0)]
    assert labels == ["news", "old/news"]


def test_a_pattern_without_files_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "books.jsonl").write_text("{}")
    with pytest.raises(DataError) as error:
        read(tmp_path, path="prose/boks.jsonl")
    assert str(error.value) == (
        f'"prose/boks.jsonl" matches no file (looked in {tmp_path}/prose, which holds books.jsonl)'
        '; did you mean "books.jsonl"?'
    )
    with pytest.raises(DataError, match=r'matches no file .*; did you mean "prose"'):
        read(tmp_path, path="pros/*.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no file that ends in \.txt"):
        read(tmp_path, path="empty")
    with pytest.raises(DataError, match=r'an empty "path" names no file; write "\." for the roadmap\'s folder'):
        read(tmp_path, path=("prose", ""))
    (tmp_path / "broken.txt").symlink_to("gone.txt")
    with pytest.raises(DataError, match=r'"broken.txt" is a link to gone.txt, and no file is there; mend the link'):
        read(tmp_path, path="broken.txt")


def test_loops_of_links_and_what_gradus_made_are_no_part_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.txt", "artifacts/.lock", "artifacts/tokenizer-1/merges.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "loop").symlink_to(".")
    assert read(tmp_path, path=".")[0] == read(tmp_path, path="**/*.txt")[0] == ["a.txt"]


def test_an_unknown_kind_of_file_is_refused_unless_its_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = 1")
    with pytest.raises(DataError, match=r"code\.py: cannot tell what this file holds"):
        read(tmp_path, path="*.py")
    assert read(tmp_path, path="*.py", format="text")[0] == ["x = 1"]


def test_a_wrong_text_column_names_those_found_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"content": "x", "id": 1}, {"content": "y", "lang": "en"}))
    with pytest.raises(DataError) as error:
        read(tmp_path, path="a.jsonl", text_key="contents")
    assert str(error.value).endswith(
        'a.jsonl: no column "contents"; columns found: content, id, lang; did you mean "content"?'
    )
    pq.write_table(pa.table({"body": ["x"], "text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match='no column "words"; columns found: body, text; set text_key'):
        read(tmp_path, path="a.parquet", text_key="words")
    with pytest.raises(DataError, match='column "text" holds int64, expected text'):
        read(tmp_path, path="a.parquet")


def test_a_wrong_column_is_found_before_the_end_of_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*({"body": "x"} for _ in range(100))) + b"\xff")
    with pytest.raises(DataError, match=r'a\.jsonl:100: no column "text"; columns found: body'):
        read(tmp_path, path="a.jsonl")


def test_bad_records_are_dropped_with_their_line_and_reason(tmp_path: Path) -> None:
    content = lines({"text": "good"}, {"other": 1}, {"text": 7}, 3)
    content += b'{"text": "half\n' + b'{"text": "\xff"}\n' + b"[" * 100_000 + b"\n" + lines({"text": "last"})
    (tmp_path / "a.jsonl").write_bytes(content)
    texts, drops = read(tmp_path, path="a.jsonl")
    assert texts == ["good", "last"]
    assert [(d.reason, d.place) for d in drops] == [
        ("missing_text", "a.jsonl:2"),
        ("text_is_not_text", "a.jsonl:3"),
        ("not_a_record", "a.jsonl:4"),
        ("invalid_json", "a.jsonl:5"),
        ("invalid_utf8", "a.jsonl:6"),
        ("invalid_json", "a.jsonl:7"),
    ]
    assert drops[4].detail == "byte 0xff at position 10 is not UTF-8"


def test_a_text_that_is_null_is_told_so(tmp_path: Path) -> None:
    # It said: no "text"; found text.
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "good", "n": 1}, {"text": None, "n": 2}))
    texts, drops = read(tmp_path, path="a.jsonl")
    assert texts == ["good"]
    assert [(drop.reason, drop.detail) for drop in drops] == [("missing_text", '"text" is null')]


def test_a_file_whose_name_is_not_utf8_is_read_under_a_name_that_can_be_written(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (found,) = read_source(FilesSource(path="*.txt"), tmp_path, seed=0)
    assert isinstance(found, RawText)
    assert (found.source, found.place) == ("caf\\xe9", "caf\\xe9.txt")


def test_a_line_over_the_bound_is_dropped_and_never_held(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "x" * 5000}, {"text": "short"}))
    texts, drops = read(tmp_path, path="a.jsonl", max_line_bytes=100)
    assert texts == ["short"]
    assert [(d.reason, d.place) for d in drops] == [("line_too_long", "a.jsonl:1")]
    (tmp_path / "b.txt").write_bytes(b"long\n" * 100 + b"\nfits\n")
    texts, drops = read(tmp_path, path="b.txt", split="paragraphs", max_line_bytes=100)
    assert (texts, [d.reason for d in drops]) == (["fits"], ["line_too_long"])


def test_a_text_file_over_the_bound_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 200)
    with pytest.raises(DataError, match='more than 100 B as one document; set split = "paragraphs"'):
        read(tmp_path, path="a.txt", max_line_bytes=100)


def test_a_small_file_that_becomes_a_large_one_is_refused_unless_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x" * 3_000_000
    line = lines({"text": text})
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line, mtime=0))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(line))
    pq.write_table(pa.table({"text": [text] * 30}), tmp_path / "c.parquet")  # one entry of a dictionary
    (tmp_path / "d.jsonl.gz").write_bytes(
        gzip.compress(b"".join(lines({"text": str(i)}) for i in range(9999)), mtime=0)
    )
    small = [len(read(tmp_path, path=name)[0]) for name in ("a.jsonl.gz", "b.jsonl.zst", "c.parquet")]
    assert small == [1, 1, 30], "up to 256 MiB no ratio is too much"
    monkeypatch.setattr(compression, "_FREE_BYTES", 100_000)
    for name in ("a.jsonl.gz", "b.jsonl.zst", "c.parquet"):
        with pytest.raises(DataError, match=rf"{name}: .* more than 100 times as much, .*set GRADUS_MAX_EXPANSION"):
            read(tmp_path, path=name, damaged="keep")
    with pytest.raises(DataError, match="more than 100 times"):
        list(json_rows(tmp_path / "a.jsonl.gz"))
    with pytest.raises(DataError, match="more than 100 times"):
        list(read_rows(LocalFile(tmp_path / "c.parquet"), "parquet", {}))
    assert len(read(tmp_path, path="d.jsonl.gz")[0]) == 9999, "ordinary text may be of any size"
    monkeypatch.setenv("GRADUS_MAX_EXPANSION", "100000")
    assert read(tmp_path, path="b.jsonl.zst")[0] == [text]
    monkeypatch.setenv("GRADUS_MAX_EXPANSION", "lots")
    with pytest.raises(
        ConfigError, match='GRADUS_MAX_EXPANSION: expected a number of times of at least 1, found "lots"'
    ):
        read(tmp_path, path="b.jsonl.zst")


def test_one_text_that_stands_for_many_rows_of_parquet_is_never_held_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"text": ["x" * 1_000_000] * 30 + ["y"]}), tmp_path / "a.parquet")
    monkeypatch.setattr(readers, "_BATCH_BYTES", 5_000_000)
    with pq.ParquetFile(tmp_path / "a.parquet") as parquet:
        batches = [b for _, b in readers.bounded_batches(LocalFile(tmp_path / "a.parquet"), parquet, [0], ["text"])]
    assert max(batch.nbytes for batch in batches) < 5_000_000
    assert pa.Table.from_batches(batches).column("text").to_pylist()[29:] == ["x" * 1_000_000, "y"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz"])
def test_a_file_cut_short_is_refused_or_kept_as_asked(tmp_path: Path, name: str) -> None:
    content = lines(*({"text": f"{i} " + "x" * (i % 700)} for i in range(20_000)))
    compress = gzip.compress if name.endswith("gz") else zstandard.compress
    (tmp_path / name).write_bytes(compress(content)[:-100])
    settings = {"path": name, "split": "line"}
    with pytest.raises(DataError, match=r"damaged or cut short \(EOFError"):
        read(tmp_path, **settings)
    texts, drops = read(tmp_path, damaged="keep", **settings)
    assert len(texts) > 100
    assert [d.reason for d in drops] == ["damaged_file"]


def test_files_that_are_not_what_they_claim_are_refused(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        (tmp_path / name).write_bytes(b"plain text, nothing else\n" * 3)
        with pytest.raises(DataError, match=f"{name}: damaged or cut short"):
            read(tmp_path, path=name)
    (tmp_path / "a.json").write_text('{\n "text": "one object"\n}')
    with pytest.raises(DataError, match=r"a\.json:1: neither a list of records nor one record a line"):
        read(tmp_path, path="a.json")


def test_an_empty_file_and_bad_utf8_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes("na\u00efve".encode("latin-1"))
    texts, drops = read(tmp_path, path="*.txt")
    assert texts == []
    assert [(d.reason, d.place) for d in drops] == [("empty_file", "a.txt"), ("invalid_utf8", "b.txt")]


def test_a_vanished_file_is_an_error(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    stream = read_source(FilesSource(path="*.txt"), tmp_path, seed=0)
    next(stream)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: the file vanished"):
        next(stream)


def test_the_digest_follows_content_and_not_place_or_time(tmp_path: Path) -> None:
    digests = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("same")
        digests.append(source_digest(FilesSource(path="*.txt"), tmp_path / folder))
    assert digests[0] == digests[1]
    (tmp_path / "two" / "a.txt").write_text("diff")
    assert source_digest(FilesSource(path="*.txt"), tmp_path / "two") != digests[0]
    (tmp_path / "one" / "b.txt").write_text("more")
    assert source_digest(FilesSource(path="*.txt"), tmp_path / "one") != digests[0]


def test_a_remembered_digest_is_dropped_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradus.data.files._SETTLE_SECONDS", -1.0)
    monkeypatch.setattr("gradus.data.files._LEAST_BYTES", 0)
    cache, file, source = tmp_path / "cache" / "digests.json", tmp_path / "a.txt", FilesSource(path="a.txt")
    file.write_text("first")
    first = source_files(source, tmp_path, cache)
    assert str(file) in json.loads(cache.read_text())
    monkeypatch.setattr("hashlib.file_digest", None)  # a remembered digest is not computed again
    assert source_files(source, tmp_path, cache) == first
    monkeypatch.undo()
    file.write_text("other")  # same size
    assert source_files(source, tmp_path, cache) != first
    cache.write_text("{torn")
    assert source_files(source, tmp_path, cache)[0]["bytes"] == 5


def test_digests_are_computed_where_none_can_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradus.data.files._SETTLE_SECONDS", -1.0)
    monkeypatch.setattr("gradus.data.files._LEAST_BYTES", 0)
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "taken").mkdir()
    for cache in (tmp_path / "taken", tmp_path / "a.txt" / "digests.json"):  # as where this user may not read or write
        (found,) = source_files(FilesSource(path="a.txt"), tmp_path, cache)
        assert found["sha256"] == hashlib.sha256(b"first").hexdigest()


def test_a_digest_of_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fresh")
    source_files(FilesSource(path="a.txt"), tmp_path, tmp_path / "digests.json")
    assert not (tmp_path / "digests.json").exists()


def test_settings_choose_a_source_by_kind_and_refuse_wrong_limits() -> None:
    adapter: TypeAdapter[FilesSource | SyntheticSource] = TypeAdapter(Source)
    assert isinstance(adapter.validate_python({"kind": "synthetic", "name": "x", "documents": 3}), SyntheticSource)
    source = load_settings(FilesSource, {"path": ["a", "b"], "limit": "20 documents"})
    assert source.limit is not None
    assert source.limit.value == 20
    with pytest.raises(ConfigError, match=r"a limit counts documents, bytes or tokens, such as .*; found steps"):
        load_settings(FilesSource, {"path": "a", "limit": "3B steps"})
    with pytest.raises(ConfigError, match='unknown key "text_keys"; did you mean "text_key"'):
        load_settings(FilesSource, {"path": "a", "text_keys": "x"})


def test_a_synthetic_source_needs_no_file_and_follows_the_seed(tmp_path: Path) -> None:
    source = SyntheticSource(name="primer", documents=30)
    texts = [[f.text for f in read_source(source, tmp_path, seed) if isinstance(f, RawText)] for seed in (1, 1, 2)]
    assert len(texts[0]) == 30
    assert texts[0] == texts[1] != texts[2]
    assert source_files(source, tmp_path) == []
    # The generators are the content: one digest for all of a package's sources, not that of no files.
    assert source_digest(source, tmp_path) == source_digest(SyntheticSource(name="x", documents=1), tmp_path)
    assert len(source_digest(source, tmp_path)) == 64
