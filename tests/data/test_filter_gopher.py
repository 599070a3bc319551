"""The Gopher filters equal a slow reading of their rules, and datatrove's verdicts on texts at every rule's edge."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.filters.batch import TextBatch
from gradus.data.filters.filter import first_reasons
from gradus.data.filters.gopher_quality import GopherQuality, GopherQualityFilter
from gradus.data.filters.gopher_repetition import GopherRepetition, GopherRepetitionFilter
from gradus.data.filters.line_repetition import may_repeat_lines
from gradus.data.filters.ngram_repetition import RepeatedNgrams, candidates, covered_bytes, largest_ngrams
from gradus.data.filters.punctuation import PUNCTUATION
from gradus.data.filters.table import filter_named

GOLDEN = Path(__file__).parent / "golden" / "filters.json"


def rules(name: str | dict[str, Any], texts: Sequence[str]) -> list[str | None]:
    """The rule that each text breaks."""
    return [reason and reason.name.partition(".")[2] for reason in filter_named(name)(texts)]


@pytest.mark.parametrize("name", ["gopher_quality", "gopher_repetition", "fineweb"])
def test_verdicts_and_rules_are_those_that_datatrove_gave(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["datatrove"] == "0.10.1"
    assert rules(name, golden["texts"]) == golden["verdicts"][name]
    # One at a time as in a batch.
    assert [rules(name, [text])[0] for text in golden["texts"][:40]] == golden["verdicts"][name][:40]


# Quality

WORDS = ["the river and"] * 20


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (" ".join(WORDS), None),
        (" ".join(WORDS[:16]), "too_few_words"),  # 48 words
        (" ".join(["- - -", *WORDS[:16]]), "too_few_words"),  # words of punctuation do not count
        ("the and to of a b c d e f " * 10, "short_words"),
        ("the and " + "internationalisation " * 60, "long_words"),
        (" ".join(WORDS) + " #" * 9, "hashes"),  # 9 of 69
        (" ".join(WORDS) + " #" * 6, None),  # 6 of 66
        (" ".join(WORDS) + " wait… no..." * 4, "ellipses"),  # 8 of 68
        ("\n".join(f"- {words}" for words in WORDS), "bullet_lines"),
        ("\n".join([*WORDS[:3], *(f"  • {words} of the town" for words in WORDS[3:])]), None),  # 17 of 20
        ("\n".join([*WORDS, "and so...", "the end…  ", *["and..."] * 8]), "ellipses"),
        ("\n".join([*WORDS[:7] * 6, *["the river of the town and so..."] * 20]), "ellipsis_lines"),  # 20 of 62
        (" ".join(WORDS) + " 12 3.5" * 8, "few_letters"),  # 60 of 76
        ("river paper town house " * 15 + "the", "few_stop_words"),
        ("river paper town house " * 15 + "The the", "few_stop_words"),  # written exactly so
        ("river paper town house " * 15 + "the of", None),
        ("", "too_few_words"),
    ],
)
def test_quality_rules_by_hand(text: str, rule: str | None) -> None:
    assert rules("gopher_quality", [text]) == [rule]


def slow_quality(text: str, limits: GopherQuality) -> str | None:
    """The rules of appendix A.1.1, counted with Python's strings."""
    words = text.split()
    counted = [word for word in words if any(character not in PUNCTUATION for character in word)]
    lines = text.splitlines()

    def share(parts: list[str], test: Callable[[str], bool]) -> float:
        return sum(map(test, parts)) / len(parts) if parts else 0.0

    def above(value: float, limit: float | None) -> bool:
        return bool(words) and limit is not None and value > limit

    mean = sum(map(len, counted)) / len(counted) if counted else None
    ellipses = text.count("...") + text.count("…")
    checks = [
        ("too_few_words", limits.min_words is not None and len(counted) < limits.min_words),
        ("too_many_words", limits.max_words is not None and len(counted) > limits.max_words),
        ("short_words", mean is not None and mean < (limits.min_mean_word_characters or 0)),
        ("long_words", mean is not None and mean > (limits.max_mean_word_characters or 1e9)),
        ("hashes", above(text.count("#") / max(len(words), 1), limits.max_hash_ratio)),
        ("ellipses", above(ellipses / max(len(words), 1), limits.max_ellipsis_ratio)),
        ("bullet_lines", above(share(lines, lambda s: s.lstrip()[:1] in ("-", "•")), limits.max_bullet_line_fraction)),
        (
            "ellipsis_lines",
            above(share(lines, lambda s: s.rstrip().endswith(("...", "…"))), limits.max_ellipsis_line_fraction),
        ),
        (
            "few_letters",
            bool(words)
            and share(words, lambda w: any(c.isalpha() for c in w)) < (limits.min_letter_word_fraction or 0),
        ),
        ("few_stop_words", bool(words) and len(set(words) & set(limits.stop_words)) < (limits.min_stop_words or 0)),
    ]
    return next((name for name, fails in checks if fails), None)


MARKED = st.lists(
    st.tuples(
        st.sampled_from(["", "", "- ", "•", "\t-", "\u3000- ", "-", "\u2028•"]),
        st.sampled_from(
            ["the", "of", "river", "é", "漢字", "«x»", "—", "#", "3.5", "_", "x" * 30, "\ud800", "..", "²"]
        ),
        st.sampled_from([" ", " ", "\n", "...\n", "… \n", "…", "....", "\r\n", "\x85", " . "]),
    ),
    max_size=40,
)
QUALITY_LIMITS = st.builds(
    GopherQuality,
    min_words=st.sampled_from([None, 1, 5]),
    max_words=st.sampled_from([None, 30]),
    min_mean_word_characters=st.sampled_from([None, 2.0]),
    max_mean_word_characters=st.sampled_from([None, 10.0]),
    max_hash_ratio=st.sampled_from([None, 0.0, 0.1]),
    max_ellipsis_ratio=st.sampled_from([None, 0.1, 0.5]),
    max_bullet_line_fraction=st.sampled_from([None, 0.5, 0.9]),
    max_ellipsis_line_fraction=st.sampled_from([None, 0.0, 0.3]),
    min_letter_word_fraction=st.sampled_from([None, 0.5, 0.8]),
    min_stop_words=st.sampled_from([None, 1, 2]),
)


@given(st.lists(MARKED, max_size=4), QUALITY_LIMITS)
def test_quality_equals_a_slow_count(texts: Sequence[Any], limits: GopherQuality) -> None:
    written = ["".join(map("".join, text)) for text in texts]
    reasons = GopherQualityFilter(limits)(written)
    assert [reason and reason.name.partition(".")[2] for reason in reasons] == [
        slow_quality(text, limits) for text in written
    ]


def test_a_rule_that_is_off_drops_nothing() -> None:
    off = {key: None for key in GopherQuality.model_fields if key.startswith(("min", "max"))}
    texts = ["", " ", "#", "...", "- x", "1 2 3", "x" * 500]
    assert rules({"name": "gopher_quality", **off}, texts) == [None] * len(texts)
    off = {key: None for key in GopherRepetition.model_fields if key.startswith("max") and "ngram" not in key}
    off |= {"max_top_ngram_fraction": [], "max_duplicate_ngram_fraction": []}
    texts = ["a a a a", "x\nx\nx", "x\n\nx\n\nx"]
    assert rules({"name": "gopher_repetition", **off}, texts) == [None] * len(texts)


def test_the_word_definition_decides() -> None:
    text = "river,the town of and " * 15
    assert rules({"name": "gopher_quality", "min_words": 55}, [text]) == [None]
    assert rules({"name": "gopher_quality", "min_words": 65}, [text]) == ["too_few_words"]  # 60
    at_commas = {"name": "gopher_quality", "min_words": 55, "min_stop_words": 1, "stop_words": ["river"]}
    assert rules(at_commas, [text]) == ["few_stop_words"]
    assert rules({**at_commas, "words": "symbols_apart"}, [text]) == [None]


def test_a_reason_tells_the_figure_and_the_limit() -> None:
    reason = filter_named("gopher_quality").reason("one two")
    assert reason is not None
    assert (reason.name, reason.detail) == ("gopher_quality.too_few_words", "2 words, at least 50")


# Repetition


def slow_repetition(text: str, limits: GopherRepetition) -> str | None:
    """The rules of table A1, counted with Python's strings."""
    if not text:
        return "empty"

    def duplicates(parts: list[str]) -> tuple[float, float]:
        seen: set[str] = set()
        again = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
        return len(again) / len(parts), sum(map(len, again)) / len(text)

    def runs(text: str, least: int) -> list[str]:
        """What stands between runs of at least so many line feeds."""
        parts, place = [""], 0
        while place < len(text):
            end = place
            while text[end : end + 1] == "\n":
                end += 1
            if end - place >= least:
                parts.append("")
                place = end
            else:
                parts[-1] += text[place]
                place += 1
        return parts

    shares = duplicates(runs(text.strip(), 2)), duplicates(runs(text, 1))
    checks = [
        ("duplicate_paragraphs", shares[0][0], limits.max_duplicate_paragraph_fraction),
        ("duplicate_paragraph_characters", shares[0][1], limits.max_duplicate_paragraph_character_fraction),
        ("duplicate_lines", shares[1][0], limits.max_duplicate_line_fraction),
        ("duplicate_line_characters", shares[1][1], limits.max_duplicate_line_character_fraction),
    ]
    words = text.split()
    for n, limit in limits.max_top_ngram_fraction:
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if ngrams:
            ngram, count = Counter(ngrams).most_common(1)[0]
            checks.append((f"top_{n}_gram", len(" ".join(ngram)) * count / len(text), limit))
    for n, limit in limits.max_duplicate_ngram_fraction:
        met: set[tuple[str, ...]] = set()
        place = characters = 0
        while place + n <= len(words):
            found = tuple(words[place : place + n])
            if found in met:
                characters += len("".join(found))
                place += n
            else:
                met.add(found)
                place += 1
        checks.append((f"duplicate_{n}_grams", characters / len(text), limit))
    return next((name for name, share, limit in checks if limit is not None and share > limit), None)


PIECES = st.sampled_from(["a", "b", "ab", "the", "of", "éa", "river", "1", "11", "漢字", "x" * 20])
REPETITIVE = st.lists(st.tuples(PIECES, st.sampled_from([" ", " ", " ", "\n", "\n\n", "\n\n\n", "\t"])), max_size=80)
LIMITS = st.builds(
    GopherRepetition,
    max_duplicate_paragraph_fraction=st.sampled_from([None, 0.0, 0.3]),
    max_duplicate_paragraph_character_fraction=st.sampled_from([None, 0.0, 0.2]),
    max_duplicate_line_fraction=st.sampled_from([None, 0.3, 0.9]),
    max_duplicate_line_character_fraction=st.sampled_from([None, 0.2, 0.9]),
    max_top_ngram_fraction=st.sampled_from([(), ((2, 0.2), (3, 0.18), (4, 0.16)), ((2, 0.7), (4, 0.5)), ((3, 0.9),)]),
    max_duplicate_ngram_fraction=st.sampled_from([(), ((5, 0.15), (6, 0.14), (10, 0.1)), ((5, 0.6), (7, 0.4))]),
)


@given(st.lists(REPETITIVE, max_size=4), LIMITS, st.sampled_from(["", "\n", " ", "\n\n"]))
def test_repetition_equals_a_slow_count(texts: Sequence[Any], limits: GopherRepetition, edge: str) -> None:
    written = [edge + "".join(piece + gap for piece, gap in text) + edge for text in texts]
    reasons = GopherRepetitionFilter(limits)(written)
    assert [reason and reason.name.partition(".")[2] for reason in reasons] == [
        slow_repetition(text, limits) for text in written
    ]


def test_words_written_together_are_no_ngram_of_others() -> None:
    # 1 11 1 1 1 and 1 1 1 11 1 differ as words, though their characters are equal.
    limits = GopherRepetition(max_top_ngram_fraction=(), max_duplicate_ngram_fraction=((5, 0.3),))
    text = "1 11 1 1 1 x 1 1 1 11 1"
    assert slow_repetition(text, limits) is None
    assert GopherRepetitionFilter(limits).reason(text) is None


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(2, 7))
def test_repeated_ngrams_are_all_that_occur_twice(words: Sequence[int], n: int) -> None:
    found = RepeatedNgrams(1, np.arange(len(words)), np.array(words, dtype=np.uint64))
    found.advance_to(n)
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(ngrams)
    expected = [i for i, ngram in enumerate(ngrams) if counts[ngram] > 1]
    assert found.positions.tolist() == expected
    assert len({(ngrams[i], g) for i, g in zip(expected, found.groups.tolist(), strict=True)}) == len(
        {ngrams[i] for i in expected}
    )
    if ngrams:
        ngram, count = counts.most_common(1)[0]
        assert found.most_frequent() == (ngrams.index(ngram), count)


def test_words_whose_keys_differ_only_in_bits_that_sorting_gives_up_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # With this mixing all keys look alike to the quick sort.
    monkeypatch.setattr("gradus.data.filters.ngram_repetition.mixed", lambda keys: keys & np.uint64(7))
    found = RepeatedNgrams(1, np.arange(6), np.array([1, 2, 1, 3, 2, 1], dtype=np.uint64))
    assert found.positions.tolist() == [0, 1, 2, 4, 5]
    assert found.groups[0] == found.groups[2] == found.groups[4] != found.groups[1] == found.groups[3]
    found.advance_to(2)
    assert found.positions.tolist() == [1, 4]


def suspected(texts: Sequence[str], limits: GopherRepetition) -> list[bool]:
    """Whether the bounds leave a text to be counted."""
    batch = TextBatch(texts)
    sizes = np.array([len(text) for text in texts])
    words = batch.words("whitespace").segments
    ends = np.concatenate([[0], np.cumsum(words.num_bytes)])
    top, duplicate = dict(limits.max_top_ngram_fraction), dict(limits.max_duplicate_ngram_fraction)
    may = may_repeat_lines(batch.lines, sizes, 0.3, 0.2)
    for found in candidates(words, 5):
        if found.n in top:
            may |= largest_ngrams(words, ends, found) >= top[found.n] * sizes
        if found.n == 5:
            may |= covered_bytes(words, ends, found) >= min(duplicate.values()) * sizes
    return [bool(answer) for answer in may]


@given(st.lists(REPETITIVE, min_size=1, max_size=4))
def test_bounds_never_acquit_what_breaks_a_limit(texts: Sequence[Any]) -> None:
    written = ["a" + "".join(piece + gap for piece, gap in text) + "a" for text in texts]
    limits = GopherRepetition()
    for text, may in zip(written, suspected(written, limits), strict=True):
        assert may or slow_repetition(text, limits) is None


def test_ordinary_prose_is_acquitted_without_counting(real_data: Path) -> None:
    assert sum(suspected(prose(real_data, 40), GopherRepetition())) <= 8


def prose(real_data: Path, count: int) -> list[str]:
    """The first chapters of the books."""
    import gzip

    with gzip.open(real_data / "prose" / "books.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line, _ in zip(stream, range(count), strict=False)]


# Together


def test_gopher_is_quality_then_repetition() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    texts, verdicts = golden["texts"], golden["verdicts"]
    expected = [
        f"gopher_quality.{one}" if one else f"gopher_repetition.{other}" if other else None
        for one, other in zip(verdicts["gopher_quality"], verdicts["gopher_repetition"], strict=True)
    ]
    assert [reason and reason.name for reason in filter_named("gopher")(texts)] == expected
    pair = [GopherQualityFilter(GopherQuality()), GopherRepetitionFilter(GopherRepetition())]
    assert [reason and reason.name for reason in first_reasons(pair, texts)] == expected
