"""Decontamination: coverage by hand, the rule written out over sets of words, and planted rows of real benchmarks."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.benchmarks import BENCHMARK_TEXTS, BenchmarkItem
from gradus.data.decontaminate import (
    Contamination,
    DecontaminationSettings,
    Decontaminator,
    EvaluationSet,
    benchmark_sets,
)


def numbered(first: int, last: int) -> str:
    return " ".join(f"w{i}" for i in range(first, last + 1))


def one_set(*texts: str, ngram: int = 13) -> list[EvaluationSet]:
    return [EvaluationSet("set", [BenchmarkItem(str(i), (text,)) for i, text in enumerate(texts)], ngram)]


def test_coverage_is_the_share_of_an_items_ngrams_by_hand() -> None:
    # 20 words have 8 13-grams. Words 1-16 hold four of them, words 1-15 three.
    checker = Decontaminator(one_set(numbered(1, 20)))
    found = checker.check([f"x {numbered(1, 16)} y", f"x {numbered(1, 15)} y", numbered(1, 20), "", "clean"])
    assert found == [Contamination("set", "0", 0.5), None, Contamination("set", "0", 1.0), None, None]


def test_pieces_of_an_item_in_several_places_add_up() -> None:
    checker = Decontaminator(one_set(numbered(1, 20)))
    # Two 13-grams each: words 1-14 and 7-20.
    document = f"{numbered(1, 14)} and then {numbered(7, 20)} and again {numbered(1, 14)}"
    assert checker.check([document]) == [Contamination("set", "0", 0.5)]


def test_case_punctuation_and_spacing_do_not_hide_an_item() -> None:
    item = "Janet's ducks lay 16 eggs per day; she eats three for breakfast every morning, and bakes muffins."
    planted = (
        "JANET S\n\nducks -- LAY (16) eggs\tper day. She «eats» three for breakfast; every_morning and bakes MUFFINS"
    )
    assert Decontaminator(one_set(item)).check([f"Prose before. {planted}! Prose after."])[0] is not None


def test_a_short_text_must_be_there_as_a_whole() -> None:
    checker = Decontaminator(one_set(numbered(1, 10)))
    found = checker.check([f"a {numbered(1, 10)} b", f"a {numbered(1, 9)} b"])
    assert found == [Contamination("set", "0", 1.0), None]


def test_texts_too_short_to_be_told_from_prose_are_named_and_not_looked_for() -> None:
    items = [
        BenchmarkItem("capital", ("What is the capital of France?",)),
        BenchmarkItem("joined", ("What is the capital of France?", "What is the capital of France? It is Paris")),
        BenchmarkItem("empty", ()),
    ]
    checker = Decontaminator([EvaluationSet("geography", items)])
    assert checker.unchecked == {"geography": ["capital", "empty"]}
    assert checker.num_items == {"geography": 3}
    assert checker.check(["What is the capital of France?"]) == [None]
    assert checker.check(["What is the capital of France? It is Paris!"])[0] == Contamination(
        "geography", "joined", 1.0
    )


def test_mathematics_has_shorter_ngrams() -> None:
    text = numbered(1, 14)  # two 13-grams, seven 8-grams
    document = f"{numbered(1, 11)} x"  # four 8-grams
    assert Decontaminator(one_set(text)).check([document]) == [None]
    [found] = Decontaminator(one_set(text, ngram=8)).check([document])
    assert found == Contamination("set", "0", pytest.approx(4 / 7))


def test_the_most_covered_item_is_named_and_of_equals_the_first() -> None:
    sets = [
        EvaluationSet("one", [BenchmarkItem("a", (numbered(1, 20),)), BenchmarkItem("b", (numbered(3, 18),))]),
        EvaluationSet("two", [BenchmarkItem("c", (numbered(3, 18),)), BenchmarkItem("d", (numbered(101, 116),))]),
    ]
    checker = Decontaminator(sets)
    document = f"{numbered(3, 18)} {numbered(101, 116)}"
    assert checker.check([document]) == [Contamination("one", "b", 1.0)]
    assert checker.num_texts == 3  # an equal text is kept once
    assert checker.unchecked == {"one": [], "two": []}


def test_an_items_own_repeats_count_once() -> None:
    # "a b" repeated: two distinct 13-grams in 30 words.
    checker = Decontaminator(one_set("a b " * 15))
    assert checker.check(["a b " * 7]) == [Contamination("set", "0", 1.0)]


def test_settings_move_the_threshold() -> None:
    strict = Decontaminator(one_set(numbered(1, 20)), DecontaminationSettings(coverage=0.9, short=13))
    assert strict.check([numbered(1, 16), numbered(1, 20)]) == [None, Contamination("set", "0", 1.0)]


def test_the_fingerprint_tells_sets_and_settings_apart() -> None:
    plain = Decontaminator(one_set("a " * 13)).fingerprint
    assert plain == Decontaminator(one_set("a " * 13)).fingerprint
    others = [
        Decontaminator(one_set("b " * 13)),
        Decontaminator(one_set("a " * 13, ngram=8)),
        Decontaminator(one_set("a " * 13), DecontaminationSettings(coverage=0.6)),
        Decontaminator([]),
    ]
    assert len({plain, *(other.fingerprint for other in others)}) == 5


def test_without_sets_everything_is_clean() -> None:
    assert Decontaminator([]).check(["a", "b"]) == [None, None]
    assert Decontaminator(one_set("too short")).check(["too short"]) == [None]


# Against the rule written out


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def slow_check(sets: list[EvaluationSet], document: str, rule: DecontaminationSettings) -> Contamination | None:
    best = None
    for one in sets:
        for item in one.items:
            for text in item.texts:
                size = len(re.findall(r"[^\W_]+", text))
                n, needed = (one.ngram, rule.coverage) if size >= one.ngram else (rule.short, 1.0)
                if size < n:
                    continue
                wanted = ngrams(text, n)
                coverage = len(wanted & ngrams(document, n)) / len(wanted)
                if coverage >= needed and (best is None or coverage > best.coverage):
                    best = Contamination(one.name, item.id, coverage)
    return best


TEXTS = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)


@given(
    st.lists(st.tuples(st.lists(st.tuples(TEXTS, TEXTS), max_size=4), st.integers(3, 5)), max_size=3),
    st.lists(TEXTS, max_size=6),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.integers(1, 3),
)
def test_checks_equal_the_rule_over_sets_of_words(
    contents: list[tuple[list[tuple[str, str]], int]], documents: list[str], coverage: float, short: int
) -> None:
    sets = [
        EvaluationSet(f"set{k}", [BenchmarkItem(f"{k}.{i}", texts) for i, texts in enumerate(items)], ngram)
        for k, (items, ngram) in enumerate(contents)
    ]
    rule = DecontaminationSettings(coverage=coverage, short=short)
    checker = Decontaminator(sets, rule)
    expected = [slow_check(sets, document, rule) for document in documents]
    assert checker.check(documents) == expected
    assert [found for document in documents for found in checker.check([document])] == expected


# Real benchmarks


def test_planted_rows_of_every_benchmark_are_found(real_data: Path) -> None:
    """In the middle of prose, with other case, punctuation and spacing; prose without them is clean."""
    small = ["aqua", "arc", "boolq", "gsm8k", "hellaswag", "humaneval", "mbpp", "openbookqa", "svamp", "winogrande"]
    sets = benchmark_sets(small, real_data)
    checker = Decontaminator(sets)
    rng = random.Random(0)
    prose = numbered(1000, 1400).split()
    documents = []
    for one in sets:
        unchecked = set(checker.unchecked[one.name])
        for item in rng.sample([item for item in one.items if item.id not in unchecked], 20):
            whole = max(item.texts, key=len)
            words = [w.upper() if w.upper().lower() == w.lower() else w for w in re.findall(r"[^\W_]+", whole)]
            planted = "".join(word + rng.choice([" ", "\n", ", ", " -- ", "\t"]) for word in words)
            documents.append(" ".join([*prose[:200], planted, *prose[200:]]))
    assert len(documents) == 200
    assert all(checker.check(documents))
    assert checker.check([" ".join(prose)]) == [None]
    assert BENCHMARK_TEXTS["gsm8k"].ngram == 8


def test_an_unknown_benchmark_is_refused_before_any_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no benchmark "gsm9k"; did you mean "gsm8k"\?'):
        benchmark_sets(["gsm9k"], tmp_path)
