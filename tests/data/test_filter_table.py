"""All filters: names and settings, fingerprints, outside functions, hostile text, and what happens to code."""

import gc
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import Settings
from gradus.data.filters.filter import Filter, Reason, TextFilter, first_reasons
from gradus.data.filters.ngram_model import NgramSettings, train_ngram_model
from gradus.data.filters.table import FILTERS, MASKERS, filter_named, filter_settings, masker_named

CODE = r"""# a heading that is a comment
int sum(int *values, int n) {
	int total = 0;
	for (int i = 0; i < n; ++i) total += values[i] * (i > 2 ? 1 : -1) / 2;
	return total & 0xFF; // total = a * b + c
}

$$\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}, \quad a < b > c \in \{1, 2\} \setminus \#S$$

| = | * | / | + | # | < | > | $ | \ |
$ echo "x" > /tmp/y && cat < /tmp/y   
"""  # noqa: W291 - white space at the end of a line is a part of it


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every filter of the table, with what each needs."""
    model = tmp_path_factory.mktemp("model") / "small.safetensors"
    texts = [f"{word} the river ran past the old town and on to sea {word}" for word in map(str, range(1000, 1600))]
    train_ngram_model(texts, NgramSettings(table_bits=12)).save(model)
    needs: dict[str, dict[str, Any]] = {"language": {"languages": ["en", "de"]}, "perplexity": {"model": str(model)}}
    missing = []
    for name, package in (("english", "pycld2"), ("language", "pycld2")):
        try:
            __import__(package)
        except ModuleNotFoundError:
            missing.append(name)
    return [{"name": name, **needs.get(name, {})} for name in FILTERS if name not in missing]


# Text is left alone


def test_code_and_mathematics_survive_everything(everything: Sequence[dict[str, Any]]) -> None:
    text = CODE
    for entry in everything:
        # A filter gives a reason or none, and has no way to hand back another text.
        assert all(reason is None or isinstance(reason, Reason) for reason in filter_named(entry)([text]))
    for name in MASKERS:
        text, counts = masker_named({"name": name, "phones": True}).mask(text)
        assert counts == {}
    assert text == CODE
    assert set("=*/+#<>$\\\n\t{}_^&|") <= set(text)


def test_code_between_prose_is_kept_by_the_filters_that_judge_prose() -> None:
    prose = "The function below adds up the values that it is given, and we explain each of its lines in turn. "
    text = "\n\n".join(
        part.strip()
        for part in [prose * 6, CODE, prose * 5, CODE.replace("total", "result").replace("int", "long"), prose * 8]
    )
    for entry in ("gopher_quality", "c4", "length", "symbols", "fineweb"):
        assert filter_named(entry).reason(text) is None, entry


# Names and settings


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'unknown filter "gofer"; known are english.*; did you mean "gopher"\?'):
        filter_named("gofer")
    with pytest.raises(ConfigError, match=r'line 3: unknown filter "fine_web".*; did you mean "fineweb"\?'):
        filter_named("fine_web", where="line 3")
    with pytest.raises(ConfigError, match='"pii" is a masker, not a filter; list it under the maskers'):
        filter_named("pii")
    with pytest.raises(ConfigError, match='"c4" is a filter, not a masker; list it under the filters'):
        masker_named("c4")
    with pytest.raises(ConfigError, match='a filter is a name or a table with the key "name", found'):
        filter_named({"min_words": 3})


def test_all_that_is_wrong_with_settings_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        filter_named({"name": "gopher_quality", "min_word": 3, "max_hash_ratio": "low"}, where="roadmap.toml:7")
    assert sorted(caught.value.problems) == [
        'roadmap.toml:7: "gopher_quality": "max_hash_ratio": expected a number, found "low"',
        'roadmap.toml:7: "gopher_quality": unknown key "min_word"; did you mean "min_words"?',
    ]
    with pytest.raises(ConfigError, match=r'"quality.words": expected one of whitespace, symbols_apart, found "spacy"'):
        filter_named({"name": "gopher", "quality": {"words": "spacy"}})
    with pytest.raises(ConfigError, match="at least 2"):
        filter_named({"name": "gopher_repetition", "max_top_ngram_fraction": [[1, 0.5]]})


def test_settings_are_checked_without_loading_models_or_packages() -> None:
    checked = filter_settings({"name": "perplexity", "model": "nowhere"})
    assert checked.model_dump()["max_percentile"] == 99
    assert filter_settings("no.such.module:at_all") == Settings()
    with pytest.raises(ConfigError, match='missing key "model"'):
        filter_settings("perplexity")


def test_every_setting_and_the_name_change_the_fingerprint(everything: Sequence[dict[str, Any]]) -> None:
    fingerprints = {entry["name"]: filter_named(entry).fingerprint for entry in everything}
    assert len(set(fingerprints.values())) == len(fingerprints)
    for entry in everything:
        assert filter_named(dict(entry)).fingerprint == fingerprints[entry["name"]]
    variants = [
        {"name": "gopher", "quality": {"words": "symbols_apart"}},
        {"name": "gopher", "repetition": {"max_duplicate_line_fraction": 0.31}},
        {"name": "c4", "curly_brackets": True},
        {"name": "fineweb", "words": "symbols_apart"},
        {"name": "length", "min_words": None},
    ]
    for entry in variants:
        assert filter_named(entry).fingerprint != fingerprints[entry["name"]]
    assert masker_named("pii").fingerprint != masker_named({"name": "pii", "phones": True}).fingerprint


def test_the_version_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = filter_named("c4").fingerprint
    monkeypatch.setattr(FILTERS["c4"], "version", 2)
    assert filter_named("c4").fingerprint != before


# Several filters


def test_the_first_filter_that_drops_a_text_gives_the_reason() -> None:
    filters = [filter_named({"name": "length", "min_words": 3}), filter_named({"name": "c4", "min_sentences": 1})]
    texts = ["one two", "one two three four five.", "one two three four five", "{ a b c d e f.", ""]
    reasons = [reason and reason.name for reason in first_reasons(filters, texts)]
    assert reasons == ["length.too_few_words", None, "c4.too_few_sentences", None, "length.too_few_words"]
    assert first_reasons([], texts) == [None] * 5
    assert first_reasons(filters, []) == []


@settings(max_examples=20)
@given(st.lists(st.text(st.sampled_from("ab .\n-é"), max_size=200), max_size=12))
def test_answers_do_not_depend_on_what_is_judged_together(texts: Sequence[str]) -> None:
    for name in ("gopher", "fineweb", "length"):
        judge = filter_named(name)
        assert judge(texts) == [judge.reason(text) for text in texts] == judge(list(reversed(texts)))[::-1]


def test_many_texts_are_judged_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the river and town to be " * count for count in (1, 20, 9, 12, 3)] * 4
    whole = filter_named("gopher")(texts)
    monkeypatch.setattr("gradus.data.filters.filter._BATCH_CHARACTERS", 300)
    assert filter_named("gopher")(texts) == whole
    assert len({reason.name for reason in whole if reason}) >= 2


# Outside functions


MODULE = """
from gradus.data.filters.filter import TextFilter
from gradus.core.settings import Settings

def no_cats(text):
    return "cat" if "cat" in text else None

def wrong(text):
    return 3

class Dogs(Settings):
    word: str = "dog"

class NoDogs(TextFilter):
    name = "no_dogs"
    settings_class = Dogs
    def judge_text(self, text):
        return self.drop("met") if self.settings.word in text else None

number = 3
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's."""
    name = f"outside_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_package_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_from_outside_is_a_filter(outside: str) -> None:
    judge = filter_named(f"{outside}:no_cats")
    assert judge(["a cat", "a dog"]) == [Reason(f"{outside}:no_cats.cat"), None]
    with pytest.raises(ConfigError, match='a function takes no settings, found "word"'):
        filter_named({"name": f"{outside}:no_cats", "word": "x"})
    with pytest.raises(DataError, match="expected a reason as text, or None, found int 3"):
        filter_named(f"{outside}:wrong")(["x"])


def test_a_class_from_outside_has_settings(outside: str) -> None:
    judge = filter_named({"name": f"{outside}:NoDogs", "word": "wolf"})
    assert judge(["a wolf", "a dog"]) == [Reason("no_dogs.met"), None]
    with pytest.raises(ConfigError, match='unknown key "wrd"; did you mean "word"'):
        filter_named({"name": f"{outside}:NoDogs", "wrd": "wolf"})


@pytest.mark.parametrize("name", ["no_cats", "NoDogs"])
def test_an_edit_to_a_function_or_class_changes_its_fingerprint(outside: str, tmp_path: Path, name: str) -> None:
    before = filter_named(f"{outside}:{name}").fingerprint
    assert filter_named(f"{outside}:{name}").fingerprint == before
    (tmp_path / f"{outside}.py").write_text(MODULE + "# edited")
    assert filter_named(f"{outside}:{name}").fingerprint != before


def test_what_is_not_there_is_refused(outside: str) -> None:
    with pytest.raises(ConfigError, match=r'does not exist; did you mean "no_cats"\?'):
        filter_named(f"{outside}:nocats")
    with pytest.raises(ConfigError, match="number is not a function"):
        filter_named(f"{outside}:number")
    with pytest.raises(ConfigError, match=r'no module "no_such_module"; expected "package\.module:name"'):
        filter_named("no_such_module:x")
    with pytest.raises(ConfigError, match=r'expected "package\.module:name"'):
        filter_named(":x")
    # A module that is there and lacks a package of its own is not a module that is missing.
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        filter_named(f"{outside}_broken:x")


# Hostile text


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=80), max_size=4))
def test_no_unicode_makes_a_filter_fail(everything: Sequence[dict[str, Any]], texts: Sequence[str]) -> None:
    for entry in everything:
        assert len(filter_named(entry)(texts)) == len(texts)
    for text in texts:
        masker_named({"name": "pii", "phones": True}).mask(text)


WORST = [
    "a",
    " ",
    "\n",
    "\n\n ",
    "a ",
    "a\n",
    "@",
    "a@",
    "a@a.",
    "a@b.c.",
    "a.",
    "1.",
    "1.1.1.1 ",
    "1",
    ":",
    "2000:",
    "...",
    "-",
    "-----BEGIN PRIVATE KEY-----",
    "key='",
    "key = 'a1b2c3d4e5f6g7h8i9j0",
    "eyJ",
    "eyJaaaaaaaaaa.",
    "sk-",
    "AKIA",
    "+1 ",
    "+12 34 ",
    "(212) 736-",
    "[",
    "[1",
    "é",
    "漢",
    "漢 ",
    "\u3000",
    "\ud800",
    "\x00",
    "{",
    "lorem ipsu",
    "cat's “dog” ",
]


@pytest.mark.parametrize("part", WORST, ids=ascii)
def test_the_worst_text_takes_time_in_proportion(part: str, everything: Sequence[dict[str, Any]]) -> None:
    text = part * (200_000 // len(part))
    steps = [(entry["name"], filter_named(entry).reason) for entry in everything]
    steps += [("pii", masker_named({"name": "pii", "phones": True}).mask)]  # type: ignore[list-item]
    for name, step in steps:
        began = time.thread_time()
        step(text)
        # Quadratic time would be minutes; the bound leaves room for a slow machine.
        assert time.thread_time() - began < 20, name


@pytest.mark.parametrize("unit", ["the river ran past the old town and on to the sea ", "x", "漢字"])
def test_memory_is_linear_in_one_enormous_line(unit: str) -> None:
    peaks = []
    for size in (1 << 18, 1 << 19):
        text = unit * (size // len(unit.encode()))
        gc.collect()
        tracemalloc.start()
        for name in ("gopher", "fineweb", "c4", "length", "lines", "symbols"):
            filter_named(name).reason(text)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.4 * peaks[0]
    assert peaks[1] < 60 * (1 << 19)


def test_a_filter_of_ones_own_needs_a_name_settings_and_a_judgement() -> None:
    class Long(TextFilter[Settings]):
        name = "long"
        settings_class = Settings

        def judge_text(self, text: str) -> Reason | None:
            return self.drop("long") if len(text) > 3 else None

    judge: Filter[Settings] = Long(Settings())
    assert judge(["abc", "abcd"]) == [None, Reason("long.long")]
