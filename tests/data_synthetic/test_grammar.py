"""The template language: what its brackets mean, what it refuses, and that every bank can be said in full."""

from __future__ import annotations

import random
import re
from collections import Counter
from importlib.resources import files

import pytest

from gradus.core.errors import DataError
from gradus.data.synthetic.grammar import Grammar, TrainingDraws, _Choice, _Part, load_grammar
from gradus.data.synthetic.surface import dress, with_articles


def wordings(grammar: Grammar, rule: str, slots: dict[str, str] | None = None) -> set[str]:
    rng = random.Random(0)
    return {grammar.text(rule, rng, slots) for _ in range(300)}


def test_choices_options_rules_and_slots() -> None:
    grammar = Grammar({"bank": ":ask\n(what is|how much is) {x}[ please]?\n<other>\n:other\n-\nadd \\(now\\) | later"})
    assert wordings(grammar, "ask", {"x": "5"}) == {
        "what is 5?",
        "how much is 5?",
        "what is 5 please?",
        "how much is 5 please?",
        "",
        "add (now)",
        "later",
    }
    assert grammar.num_lines("ask") == 2
    assert grammar.num_wordings("ask") == 4 + 3


@pytest.mark.parametrize(("draws", "power"), [(random.Random, 1.0), (TrainingDraws, 0.5)])
def test_earlier_alternatives_of_a_ranked_rule_come_more_often(draws: type[random.Random], power: float) -> None:
    grammar = Grammar({"bank": ":a by rank\none\ntwo\n(three|four)\n:b\n<a>"})
    rng = draws(0)
    counts = Counter(grammar.text("b", rng) for _ in range(20_000))
    # Weights 1/2, 1/3 and 1/4; the last is divided 1/2 to 1/3.
    one, two, rest, three, four = ((1 / k) ** power for k in (2, 3, 4, 2, 3))
    shares = {"one": one, "two": two, "three": rest * three / (three + four), "four": rest * four / (three + four)}
    for text, share in shares.items():
        assert counts[text] / 20_000 == pytest.approx(share / (one + two + rest), abs=0.015)


def test_options_may_be_nested() -> None:
    grammar = Grammar({"bank": ":a\n(one (two|three)|[four [five]] six)"})
    assert wordings(grammar, "a") == {"one two", "one three", "four five six", "four six", "six"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(what", "bank b:2: missing ')' in '(what'"),
        ("what)", "bank b:2: unexpected ')' in 'what)'"),
        ("{}", "bank b:2: unexpected '{' in '{}'"),
        ("<nowhere>", "wording banks b: rules used but not defined: nowhere"),
    ],
)
def test_a_malformed_bank_says_where(line: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        Grammar({"b": f":rule\n{line}"})


def test_a_line_before_the_first_rule_is_refused() -> None:
    with pytest.raises(DataError, match="bank b:1: an alternative before any `:rule` line"):
        Grammar({"b": "hello"})


def test_every_bank_compiles_and_no_bracket_reaches_the_text() -> None:
    class Anything(dict[str, str]):
        def __missing__(self, name: str) -> str:
            return "seven"

    names = [entry.name[:-4] for entry in files("gradus.data.synthetic").joinpath("banks").iterdir()]
    rng = random.Random(0)
    for name in names:
        if name in ("words", "more_words"):
            continue
        grammar = load_grammar(name)
        for rule in grammar.rules:
            for _ in range(40):
                assert not re.search(r"[\[\]{}<>|\\]", grammar.text(rule, rng, Anything())), (name, rule)


def test_events_of_stories_and_no_other_clauses_have_between_two_stars_what_happens() -> None:
    def texts(part: _Part) -> list[str]:
        """Every text that can be drawn, slots as an x."""
        if not isinstance(part, _Choice):
            return [part if isinstance(part, str) else "x"]
        found = []
        for option in part.options:
            ways = [""]
            for piece in option:
                ways = [before + after for before in ways for after in texts(piece)]
            found += ways
        return found

    bank = files("gradus.data.synthetic").joinpath("banks/stories.txt").read_text(encoding="utf-8")
    others = re.sub(r"^:(gain|lose).*?(?=^[:#]|\Z)", "", bank, flags=re.MULTILINE | re.DOTALL)
    assert "*" in bank
    assert "*" not in others
    events = {name: rule for name, rule in load_grammar("stories")._rules.items() if name.startswith(("gain", "lose"))}
    assert len(events) == 10
    for name, rule in events.items():
        for text in texts(rule):
            pieces = text.split("*")
            assert len(pieces) == 3, (name, text)
            assert pieces[1].strip(), (name, text)


def test_dressing_changes_the_looks_and_keeps_numbers_and_words_to_spell() -> None:
    rng = random.Random(4)
    variants = {dress('How many r\'s are in "strawberry" after 1,200 days?', rng) for _ in range(500)}
    assert len(variants) > 60
    for text in variants:
        assert "strawberry" in text.lower()
        assert "1,200" in text or "1 ,200" in text or "1200" in text


def test_articles_follow_the_sound() -> None:
    assert with_articles("a apple and a one and a uniform and A elephant") == (
        "an apple and a one and a uniform and An elephant"
    )
