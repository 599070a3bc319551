"""Looking into a corpus: samples, comparison, and the way of one document."""

import json
from pathlib import Path

import pytest

from gradus.core.errors import DataError
from gradus.data import accounts
from gradus.data.accounts import (
    DroppedRow,
    Whereabouts,
    compare_corpora,
    find_document,
    sample_documents,
    sample_drops,
)
from gradus.data.build import build_corpus
from gradus.data.corpus import read_corpus
from gradus.data.document import document_id
from gradus.data.files import FilesSource


def make(folder: Path, name: str, texts_of: dict[str, list[str]]) -> Path:
    sources = []
    for source, texts in texts_of.items():
        path = folder / f"{name}-{source}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources.append(FilesSource(path=path.name, name=source))
    build_corpus(sources, folder / name, roadmap_dir=folder, validation_fraction=0.2)
    return folder / name


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    letters = [f"letter {n}" for n in range(300)]
    return make(tmp_path, "one", {"a": letters, "b": ["letter 7", "", *(f"note {n}" for n in range(100))]})


def test_a_sample_is_drawn_by_its_seed_from_one_side(corpus: Path) -> None:
    train = {document.id for document in read_corpus(corpus, "train")}
    drawn = [[document.text for document in sample_documents(corpus, "train", 8, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(document_id(text) in train for text in drawn[0])
    notes = list(sample_documents(corpus, "train", 1000, source="b"))
    assert {document.source for document in notes} == {"b"}
    assert len(notes) == sum(document.source == "b" for document in read_corpus(corpus, "train"))


def test_drops_are_shown_with_their_reason(corpus: Path) -> None:
    [empty] = sample_drops(corpus, 5, reason="empty")
    assert (empty.reason, empty.source, empty.place) == ("empty", "b", "one-b.jsonl:2")
    assert len(list(sample_drops(corpus, 5))) == 2
    with pytest.raises(DataError, match='nothing was dropped as "duplicat"; did you mean "duplicate"'):
        list(sample_drops(corpus, 5, reason="duplicat"))


def test_a_document_is_found_by_id_start_of_id_and_place(corpus: Path) -> None:
    identity = document_id("letter 7")
    for key in (identity, identity[:12]):
        kept, dropped = find_document(corpus, key)
        assert isinstance(kept, Whereabouts)
        assert isinstance(dropped, DroppedRow)
        assert kept.document.text == "letter 7"
        assert kept.document.meta == {"file": "one-a.jsonl", "line": 8}
        assert list(read_corpus(corpus, kept.side))[kept.number].id == identity
        assert (dropped.reason, dropped.place) == ("duplicate", "one-b.jsonl:1")
    assert [type(found) for found in find_document(corpus, "one-b.jsonl:1")] == [DroppedRow]
    assert len(list(find_document(corpus, "one-b.jsonl"))) == 102
    assert list(find_document(corpus, "nowhere.txt")) == []


@pytest.mark.parametrize("at_a_time", [1 << 24, 50])
def test_two_corpora_are_compared_by_text(corpus: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr(accounts, "_COMPARED_AT_A_TIME", at_a_time)
    other = make(corpus.parent, "two", {"a": [f"letter {n}" for n in range(250, 400)], "c": ["new"]})
    assert compare_corpora(corpus, other) == {
        "a": {"both": 50, "only in the first": 250, "only in the second": 100},
        "b": {"only in the first": 100},
        "c": {"only in the second": 1},
    }


def test_an_unknown_source_is_refused_with_the_known_ones(corpus: Path) -> None:
    with pytest.raises(DataError, match='no document of source "c" in train; sources: a, b'):
        list(sample_documents(corpus, "train", 1, source="c"))
