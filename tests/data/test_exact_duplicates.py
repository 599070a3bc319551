"""Exact duplicates by text and address: the rule written out, addresses by hand, earlier corpora, damage."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.document import document_id
from gradus.data.exact_duplicates import ExactDuplicates, url_id
from gradus.data.urls import normalise_url

DOCUMENTS = st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(0, 6)), max_size=25)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a/b",
        "https://www.example.org/a/b/",
        "HTTP://WWW.Example.ORG:80/a/b#part",
        "https://example.org:443/a/./c/../b",
        "https://user:secret@example.org./%61/b?utm_source=x&fbclid=1&gclid=2",
        "  https://example.org/a/b?  ",
    ],
)
def test_spellings_of_one_address_are_one(url: str) -> None:
    assert normalise_url(url) == "example.org/a/b"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/?b=2&a=1", "example.org?a=1&b=2"),
        ("https://example.org/A%2fb%7ec", "example.org/A%2Fb~c"),
        ("https://example.org:8080/", "example.org:8080"),
        ("https://example.org/page?id=7&utm_x=1", "example.org/page?id=7"),
        ("https://example.org/../../x", "example.org/x"),
        ("https://example.org/wwww.", "example.org/wwww."),
        ("ftp://www.example.org/", "ftp://www.example.org/"),
        ("books/chapter 1.txt", "books/chapter 1.txt"),
        ("http://[broken/", "http://[broken/"),
        ("http://example.org:port/", "http://example.org:port/"),
        ("http://www.www.example.org/%%36%31", "example.org/a"),
        ("", ""),
    ],
)
def test_what_an_address_becomes(url: str, expected: str) -> None:
    assert normalise_url(url) == expected


@given(st.text(max_size=40) | st.from_regex(r"https?://(www\.)?[a-z%.:/?&=#\[\]~0-9A-F]{0,40}", fullmatch=True))
def test_normalising_an_address_twice_changes_nothing_more(url: str) -> None:
    once = normalise_url(url)
    if url.strip().lower().startswith("http") and once != url.strip():
        assert normalise_url("http://" + once) == once
    assert len(url_id(url)) == 32


def slow(documents: list[tuple[int, int | None]]) -> list[str | None]:
    texts, urls, reasons = set(), set(), list[str | None]()
    for text, url in documents:
        reason = "duplicate" if text in texts else "duplicate_url" if url in urls else None
        reasons.append(reason)
        if reason is None:
            texts.add(text)
            urls |= {url} - {None}
    return reasons


def parts(documents: list[tuple[int, int | None]]) -> tuple[list[str], list[str | None]]:
    urls = [None if url is None else f"https://example.org/{url}" for _, url in documents]
    return [document_id(str(text)) for text, _ in documents], urls


@given(DOCUMENTS, DOCUMENTS, st.integers(1, 10))
def test_the_first_of_a_text_and_of_an_address_stays(
    first: list[tuple[int, int | None]], second: list[tuple[int, int | None]], batch: int
) -> None:
    """In any batches, and the same when the second half is a later corpus."""
    expected = slow(first + second)
    with TemporaryDirectory() as name:
        at_once = ExactDuplicates(Path(name) / "once")
        found = []
        for start in range(0, len(expected), batch):
            found += at_once.add(*parts((first + second)[start : start + batch]))
        assert found == expected
        early = ExactDuplicates(Path(name) / "early")
        assert early.add(*parts(first)) == expected[: len(first)]
        early.close()
        late = ExactDuplicates(Path(name) / "late", against=[Path(name) / "early"])
        assert late.add(*parts(second)) == expected[len(first) :]


def test_addresses_may_be_left_out(tmp_path: Path) -> None:
    ids, urls = parts([(1, 5), (2, 5), (1, 6)])
    assert ExactDuplicates(tmp_path / "a", by_url=False).add(ids, urls) == [None, None, "duplicate"]
    assert ExactDuplicates(tmp_path / "b").add(ids) == [None, None, "duplicate"]
    assert ExactDuplicates(tmp_path / "c").add(ids[:2], ["", ""]) == [None, None]


def test_an_unfinished_or_damaged_folder_is_refused(tmp_path: Path) -> None:
    seen = ExactDuplicates(tmp_path / "old")
    seen.add(*parts([(1, 1), (2, None)]))
    with pytest.raises(DataError, match=r"old: no exact.json here; the corpus was not finished"):
        ExactDuplicates(tmp_path / "new", against=[tmp_path / "old"])
    seen.close()
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["exact.json", "texts.bin", "urls.bin"]
    ExactDuplicates(tmp_path / "new", against=[tmp_path / "old"])
    (tmp_path / "old" / "texts.bin").write_bytes(b"\0" * 16)
    with pytest.raises(DataError, match=r"texts.bin: 16 bytes, expected 32; build that corpus again"):
        ExactDuplicates(tmp_path / "new", against=[tmp_path / "old"])
