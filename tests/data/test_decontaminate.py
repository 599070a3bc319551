"""Decontamination by hand arithmetic, against a slow version on sets of words, and with planted items."""

import json
import random
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.data import decontaminate
from gradus.data.benchmarks import benchmark_items
from gradus.data.decontaminate import Contamination, DecontaminateSettings, Decontaminator

# Twenty different words.
TWENTY = "one two three four five six seven eight nine ten eleven twelve a b c d e f g h"


def write_items(folder: Path, *texts: str, name: str = "items.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"id": f"i{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def checker(folder: Path, *texts: str, **options: object) -> Decontaminator:
    return Decontaminator(DecontaminateSettings(sets=(str(write_items(folder, *texts)),), **options))


def coverage(checker_: Decontaminator, text: str) -> float | None:
    (answer,) = checker_.check([text])
    return answer and answer.coverage


# The rule by hand


def test_coverage_is_the_share_of_an_items_ngrams(tmp_path: Path) -> None:
    words = TWENTY.split()
    judge = checker(tmp_path, TWENTY)
    # 20 words hold 8 13-grams; a run of k words holds k - 12 of them.
    assert coverage(judge, TWENTY) == 1.0
    assert coverage(judge, f"before {' '.join(words[:18])} after") == 6 / 8
    assert coverage(judge, f"before {' '.join(words[3:19])} after") == 4 / 8
    assert coverage(judge, f"before {' '.join(words[:15])} after") is None
    # Two runs apart: 13-grams 0 to 2 in the first, 5 to 7 in the second.
    assert coverage(judge, f"{' '.join(words[:15])} between {' '.join(words[5:])}") == 6 / 8
    assert coverage(judge, "") is None


def test_repeats_in_the_document_or_in_the_item_count_once(tmp_path: Path) -> None:
    words = TWENTY.split()
    judge = checker(tmp_path, TWENTY)
    assert coverage(judge, "\n".join([" ".join(words[:15])] * 9)) is None
    # The item's 13-grams repeat: 13 distinct ones, whatever its length.
    cycle = " ".join(words[:13])
    assert coverage(checker(tmp_path, f"{cycle} {cycle} {cycle}"), f"{cycle} {' '.join(words[:7])}") == 8 / 13


def test_case_punctuation_white_space_and_unicode_form_do_not_matter(tmp_path: Path) -> None:
    item = "How long, in café hours, does it take a très slow train to cross 3 bridges — 40 km?"
    judge = checker(tmp_path, item)
    assert coverage(judge, f"Well then. {item.upper()}") == 1.0
    assert coverage(judge, unicodedata.normalize("NFD", item)) == 1.0
    assert coverage(judge, item.replace(" ", "\n\t ... ").replace(",", "")) == 1.0
    assert coverage(judge, item.replace("long", "far").replace("bridges", "rivers")) is None


def test_short_items_are_matched_whole_and_the_shortest_not_at_all(tmp_path: Path) -> None:
    judge = checker(tmp_path, "a b c d e f g", "a b c d e f g h", "k l m n o p q r s")
    assert (judge.num_items, judge.num_too_short, judge.num_common) == (2, 1, 0)
    path = str(tmp_path / "items.jsonl")
    answers = judge.check(["x a b c d e f g y", "x A, b, c, d, e, f, g... h y", "k l m n o p q r", "k l m n o p q r s"])
    assert answers == [None, Contamination(path, "i1", 1.0), None, Contamination(path, "i2", 1.0)]


def test_texts_of_few_different_words_are_not_looked_for(tmp_path: Path) -> None:
    judge = checker(tmp_path, "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 = 2 / 3", "0 " * 40)
    assert (judge.num_items, judge.num_too_short) == (0, 2)
    assert judge.check(["1 1 1 1 1 1 1 1 1 2 3", "0 " * 99]) == [None, None]


def test_what_many_items_share_does_not_count(tmp_path: Path) -> None:
    frame = "choose the language in which the following sentence is written and give its name"
    own = [f"{frame} {' '.join(f'{word}{number}' for word in TWENTY.split())}" for number in range(11)]
    alone = [frame] * 11
    judge = checker(tmp_path, *own, *alone)
    assert (judge.num_items, judge.num_common) == (11, 11)
    assert judge.check([frame]) == [None]
    assert coverage(judge, f"{own[3]} end") == 1.0
    # As many as are allowed still count.
    assert coverage(checker(tmp_path, *own[:5], *alone[:5]), frame) == 1.0


def test_the_same_item_in_two_sets_is_not_boilerplate(tmp_path: Path) -> None:
    paths = [write_items(tmp_path, TWENTY, name=f"{number}.jsonl") for number in range(12)]
    judge = Decontaminator(DecontaminateSettings(sets=tuple(map(str, paths))))
    assert judge.check([TWENTY]) == [Contamination(str(paths[0]), "i0", 1.0)]


def test_the_question_alone_gives_an_item_away_and_the_answer_alone_does_not(tmp_path: Path) -> None:
    question, answer = " ".join(TWENTY.split()[:10]), " ".join(TWENTY.split()[10:])
    check = {"kind": "answer_contains", "any": [answer]}
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"id": "p", "turns": [question], "checks": [check]}) + "\n")
    judge = Decontaminator(DecontaminateSettings(sets=("suite.jsonl",)), tmp_path)
    found = Contamination("suite.jsonl", "p", 1.0)
    assert judge.check([question, f"{question} {answer}", answer]) == [found, found, None]


def test_sets_of_mathematics_are_looked_for_by_shorter_ngrams(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    words = TWENTY.split()
    row = {"question": " ".join(words[:10]), "answer": f"{' '.join(words[10:18])} <<1+1=2>>\n#### h"}
    (tmp_path / "gsm8k/test.jsonl").write_text(json.dumps(row) + "\n")
    judge = Decontaminator(DecontaminateSettings(sets=("gsm8k",), folder=str(tmp_path)))
    # Of the question's three 8-grams two stand here.
    assert judge.check([f"x {' '.join(words[:9])} x"]) == [Contamination("gsm8k", "1", 2 / 3)]


# Against a slow version


def slow_words(text: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in text.lower()).split())


def slow_check(items: list[str], text: str, n: int, least: int, threshold: float) -> tuple[int, Fraction] | None:
    def grams(words: tuple[str, ...], size: int) -> set[tuple[str, ...]]:
        return {words[start : start + size] for start in range(len(words) - size + 1)}

    document = slow_words(text)
    found: list[tuple[Fraction, int]] = []
    for number, item in enumerate(items):
        words = slow_words(item)
        size = min(n, len(words))
        if len(words) >= least:
            wanted = grams(words, size)
            share = Fraction(len(wanted & grams(document, size)), len(wanted))
            if share >= threshold:
                found.append((share, -number))
    return (-max(found)[1], max(found)[0]) if found else None


def test_the_same_is_found_as_by_sets_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decontaminate, "_BATCH_CHARACTERS", 300)
    draw = random.Random(1)
    vocabulary = list("abcdefg")
    num_found = 0
    for n, least, threshold in ((5, 3, 0.5), (4, 2, 0.25), (3, 3, 1.0), (6, 4, 0.7)):
        items = [" ".join(draw.choices(vocabulary, k=draw.randrange(1, 14))) for _ in range(40)]
        texts = [" ".join(draw.choices(vocabulary, k=draw.randrange(0, 120))) for _ in range(80)]
        texts += [f"{texts[n][:30]} {item[: draw.randrange(30)]} {texts[n][:30]}" for n, item in enumerate(items)]
        judge = checker(
            tmp_path, *items, ngram=n, math_ngram=n, min_words=least, min_distinct_words=1, threshold=threshold,
            common_items=1000,
        )  # fmt: skip
        for text, answer in zip(texts, judge.check(texts), strict=True):
            wanted = slow_check(items, text, n, least, threshold)
            got = answer and (int(answer.item[1:]), Fraction(answer.coverage).limit_denominator(100))
            assert got == wanted, text
            num_found += got is not None
    assert num_found > 50


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=4))
@example("İıßςΣ\u0301\ud800 \U0001f600", ["\ud800", "ก็", "x" * 30])
def test_odd_unicode_is_checked_and_items_are_found(tmp_path: Path, odd: str, around: list[str]) -> None:
    odd = odd.encode("utf-8", "replace").decode("utf-8")
    item = f"{TWENTY} {odd} {TWENTY[::-1]}"
    judge = checker(tmp_path, item)
    answers = judge.check([*around, f"{' '.join(around)} . {item} . {' '.join(around)}"])
    assert answers[-1] is not None
    assert answers[-1].coverage >= 0.5
    assert len(answers) == len(around) + 1


def test_planted_items_of_real_sets_are_all_found(real_data: Path) -> None:
    names = ("gsm8k", "arc_easy", "hellaswag", "winogrande", "humaneval", "piqa", "core_squad")
    judge = Decontaminator(DecontaminateSettings(sets=names, folder=str(real_data)))
    draw = random.Random(3)
    noise = "Ships came up the river in the morning and left before night; nobody asked what they carried. " * 20
    texts, short = [], 0
    for name in names:
        items = list(benchmark_items(name, real_data))
        for item in draw.sample(items, 60):
            words = item.text.split()
            planted = draw.choice([" ", "\n", " - "]).join(draw.choice([str.upper, str.title, str])(w) for w in words)
            short += judge.check([item.text]) == [None]
            texts.append(f"{noise} {planted} {noise}")
    answers = judge.check(texts)
    assert judge.check([noise]) == [None]
    assert sum(answer is None for answer in answers) == short
    assert short < 60
    assert all(answer.coverage == 1.0 for answer in answers if answer is not None)


# The whole


def test_answers_do_not_depend_on_what_is_checked_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = TWENTY.split()
    judge = checker(tmp_path, TWENTY, "k l m n o p q r s")
    # No item is found across the end of a text.
    texts = [" ".join(words[:10]), " ".join(words[10:]), TWENTY, "", "k l m n", "o p q r s", f"x {TWENTY}", "k"] * 5
    together = judge.check(texts)
    assert together == [judge.check([text])[0] for text in texts]
    monkeypatch.setattr(decontaminate, "_BATCH_CHARACTERS", 7)
    assert judge.check(texts) == together
    assert [number for number, answer in enumerate(together[:8]) if answer] == [2, 6]
    assert judge.check([]) == []


def test_an_index_is_saved_and_loaded_without_the_sets(tmp_path: Path) -> None:
    judge = checker(tmp_path, TWENTY, "k l m n o p q r s", "too short", threshold=0.75)
    judge.save(tmp_path / "index.npz")
    (tmp_path / "items.jsonl").unlink()
    loaded = Decontaminator.load(tmp_path / "index.npz")
    assert loaded.settings == judge.settings
    assert loaded.fingerprint == judge.fingerprint
    assert (loaded.num_items, loaded.num_too_short, loaded.num_common) == (2, 1, 0)
    texts = [TWENTY, TWENTY[:-4], TWENTY[:-8], "k l m n o p q r s", ""]
    assert loaded.check(texts) == judge.check(texts)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such index of evaluation items; build it first"):
        Decontaminator.load(tmp_path / "none.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"bad\.npz: not an index of evaluation items .*; build it again"):
        Decontaminator.load(bad)
    checker(tmp_path, TWENTY).save(bad)
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(DataError, match="build it again"):
        Decontaminator.load(bad)
    checker(tmp_path, TWENTY).save(bad)
    with np.load(bad) as file:
        arrays = dict(file)
    arrays["grams13"] = arrays["grams13"] ^ np.uint64(1)
    np.savez(bad, **arrays)
    with pytest.raises(DataError, match=r"damaged .*; build it again"):
        Decontaminator.load(bad)


def test_the_fingerprint_follows_items_and_settings_but_not_the_folder(tmp_path: Path) -> None:
    def fingerprint(*texts: str, place: str = "here", **options: object) -> str:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        write_items(folder, *texts)
        return Decontaminator(DecontaminateSettings(sets=("items.jsonl",), **options), folder).fingerprint

    first = fingerprint(TWENTY)
    assert fingerprint(TWENTY, place="there") == first
    assert fingerprint(TWENTY.upper()) == first
    assert fingerprint(TWENTY + " i") != first
    assert fingerprint(TWENTY, threshold=0.6) != first
    assert fingerprint(TWENTY, ngram=12) != first


def test_unknown_sets_are_refused_with_the_settings() -> None:
    with pytest.raises(ConfigError, match=r'unknown evaluation set "gsm8"; did you mean "gsm8k"\?'):
        load_settings(DecontaminateSettings, {"sets": ["gsm8"]}, "here")


def test_every_item_of_a_text_can_be_asked_for(tmp_path: Path) -> None:
    other = " ".join(f"{word}x" for word in TWENTY.split())
    judge = checker(tmp_path, TWENTY, other, "no word of this one stands in the texts")
    path = str(tmp_path / "items.jsonl")
    half = " ".join(other.split()[:17])
    assert judge.found_items([f"{TWENTY} {half}", "nothing", half]) == {(path, "i0"): 1.0, (path, "i1"): 5 / 8}
    assert judge.found_items([]) == {}
