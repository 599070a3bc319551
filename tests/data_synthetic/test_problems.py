"""Every generated problem against independent truth: datetime, fractions of our own, str.count, the closed tables."""

from __future__ import annotations

import ast
import datetime
import operator
import random
import re
from fractions import Fraction

import pytest

from gradus.data.synthetic import facts
from gradus.data.synthetic.calendars import date, date_steps, weekday, weekday_steps
from gradus.data.synthetic.conversations import GENERATORS
from gradus.data.synthetic.item import Persona, side_of
from gradus.data.synthetic.letters import counted, letter_count, spelled, spelling
from gradus.data.synthetic.numerals import integer, number_word, ordinal, percent, plain_cents
from gradus.data.synthetic.plots import PLOTS, Draw
from gradus.data.synthetic.words import plural, spelling_words
from gradus.tools.calculator import calculate

NUMBER = re.compile(r"\d+(?:\.\d+)?")
PERSONA = Persona("Ada", "the makers")
# A year that is not a leap year, followed by none.
YEAR = 2025


@pytest.mark.parametrize("days", [1, 2, 6, 7, 8, 13, 14, 30, 59, 60])
@pytest.mark.parametrize("sign", [1, -1])
def test_weekdays_agree_with_the_calendar(days: int, sign: int) -> None:
    monday = datetime.date(2025, 1, 6)
    for offset, day in enumerate(facts.DAYS):
        reached = monday + datetime.timedelta(days=offset + sign * days)
        steps, found = weekday_steps(day, sign * days)
        assert found == facts.DAYS[reached.weekday()]
        assert int(calculate(steps.expressions[0])) == (reached.weekday() + 1) % 7
        assert steps.thinking.endswith(f"{steps.expressions[0]}.")


def test_dates_agree_with_the_calendar_on_every_day_of_the_year() -> None:
    for number in range(365):
        start = datetime.date(YEAR, 1, 1) + datetime.timedelta(days=number)
        for days in (1, 5, 17, 28, 29, 30):
            for sign in (1, -1):
                reached = start + datetime.timedelta(days=sign * days)
                # Crossing into a neighbouring year keeps February at 28 days.
                _, month, day = date_steps(facts.MONTHS[start.month - 1], start.day, sign * days)
                assert (month, day) == (facts.MONTHS[reached.month - 1], reached.day)


def test_the_steps_of_a_date_are_true_sums() -> None:
    rng = random.Random(3)
    for _ in range(300):
        month = rng.choice(facts.MONTHS)
        days = rng.randint(1, 30) * rng.choice((1, -1))
        day = rng.randint(1, facts.MONTH_LENGTHS[month])
        steps, _, reached = date_steps(month, day, days)
        results = [int(calculate(expression)) for expression in steps.expressions]
        assert results[-1] == reached
        # Each further call goes on from the result before it.
        for result, expression in zip(results, steps.expressions[1:], strict=False):
            assert expression.startswith(f"{result} ")
        for name, length in re.findall(r"(\w+) (?:has|with) (\d+) days", steps.thinking):
            assert facts.MONTH_LENGTHS[name] == int(length)


def test_spelling_and_letter_counts_by_hand() -> None:
    assert spelled("cat") == "c-a-t"
    assert counted("strawberry", "r") == "s-t-r1-a-w-b-e-r2-r3-y"
    assert counted("moon", "x") == "m-o-o-n"
    rng = random.Random(1)
    for _ in range(200):
        item = spelling(rng, PERSONA)
        assert item.turns[0].answer.replace("-", "") == item.key.partition("|")[2]
        item = letter_count(rng, PERSONA)
        _, word, letter = item.key.split("|")
        assert item.turns[0].answer.split("appears ")[1].split()[0] == str(word.count(letter))
        assert word in item.turns[0].user.lower()


def test_the_questions_name_their_day_and_number() -> None:
    rng = random.Random(2)
    for _ in range(200):
        for generate in (weekday, date):
            item = generate(rng, PERSONA)
            start = item.key.split("|")[1].lower()[:3]
            assert start in item.turns[0].user.lower()


OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(node: ast.expr) -> Fraction:
    """A second evaluator, of Python's own syntax tree over fractions."""
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](value_of(node.left), value_of(node.right))
    if isinstance(node, ast.Call):
        a, b = (value_of(argument) for argument in node.args)
        return a % b
    assert isinstance(node, ast.Constant)
    return Fraction(str(node.value))


def truth(expression: str) -> Fraction:
    return value_of(ast.parse(re.sub(r"([\d.]+)%", r"(\1/100)", expression), mode="eval").body)


@pytest.mark.parametrize("category", ["arithmetic", "percent", "word_problem", "age"])
def test_calculations_give_what_a_second_evaluator_gives(category: str) -> None:
    rng = random.Random(category)
    for _ in range(400):
        turn = GENERATORS[category](rng, PERSONA).turns[0]
        assert turn.calculation is not None
        assert turn.thinking is not None
        # The plan ends with the expression, or names its parts in order.
        ends = turn.thinking.endswith(f"{turn.calculation}.")
        assert ends or NUMBER.findall(turn.thinking) == NUMBER.findall(turn.calculation)
        assert float(calculate(turn.calculation)) == pytest.approx(float(truth(turn.calculation)), abs=5e-7, rel=1e-9)


def test_numbers_of_a_calculation_stand_in_the_question() -> None:
    rng = random.Random(7)
    implied = {"1", "2", "3", "4", "5", "7", "10", "12", "25", "60", "100"}
    for category in ("arithmetic", "percent", "age", "word_problem"):
        for _ in range(400):
            turn = GENERATORS[category](rng, PERSONA).turns[0]
            shown = re.sub(r"(\d),(\d)", r"\1\2", turn.user)
            numbers = {Fraction(n) for n in re.findall(r"\d+(?:\.\d+)?", shown)}
            for number in re.findall(r"\d+(?:\.\d+)?", turn.calculation or ""):
                in_words = number.isdigit() and int(number) <= 100 and number_word(int(number)) in shown.lower()
                assert Fraction(number) in numbers or number in implied or in_words, (turn.user, turn.calculation)


def test_percentages_by_hand() -> None:
    assert calculate("17% * 45") == "7.65"
    assert calculate("45 + 17% * 45") == "52.65"
    assert calculate("80 - 25% * 80") == "60"


HAND_MADE_PLOTS = {
    "wage_spend": ({"p": 1200, "h": 8, "c": 1600}, "80"),
    "read_left": ({"n": 20, "d": 6, "t": 300}, "180"),
    "save_weeks": ({"p": 1000, "m": 7000}, "7"),
    "unit_price": ({"m": 600, "a": 4, "b": 10}, "15"),
    "legs": ({"a": 3, "b": 5}, "22"),
    "tickets": ({"a": 2, "p": 1200, "b": 3, "q": 650}, "43.5"),
    "profit_total": ({"n": 10, "p": 350, "c": 2000}, "15"),
    "installment_total": ({"k": 6, "p": 5000, "c": 20000}, "500"),
    "average": ({"a": 10, "b": 4, "c": 7}, "7"),
    "fraction_left": ({"k": 3, "t": 60}, "40"),
    "need_more_groups": ({"k": 3, "n": 10, "t": 45}, "15"),
    "budget_two": ({"m": 5000, "p": 1225, "q": 800}, "29.75"),
    "share_rest": ({"t": 50, "c": 8, "k": 6}, "7"),
}


@pytest.mark.parametrize("rule", HAND_MADE_PLOTS)
def test_plots_worked_by_hand(rule: str) -> None:
    plot = next(plot for plot in PLOTS if plot.rule == rule)
    values, expected = HAND_MADE_PLOTS[rule]
    digits = {name: plain_cents(v) if name in plot.money else str(v) for name, v in values.items()}
    expression = plot.plan.format(**digits).rpartition(": ")[2]
    assert calculate(expression) == expected


def test_nobody_gives_away_more_than_there_is() -> None:
    for plot in PLOTS:
        rng = random.Random(plot.rule)
        for _ in range(100):
            values = plot.values(Draw(rng))
            digits = {name: plain_cents(v) if name in plot.money else str(v) for name, v in values.items()}
            for step in plot.plan.format(**digits).split(". "):
                assert float(calculate(step.partition(": ")[2])) >= 0, (plot.rule, step)


def test_the_closed_tables_have_one_answer_each() -> None:
    assert len(facts.CAPITALS) == 50
    assert len(set(facts.CAPITALS.values())) == 50
    words = [word for pair in facts.OPPOSITES for word in pair]
    assert len(facts.OPPOSITES) == 80
    assert len(set(words)) == 160
    assert sum(facts.MONTH_LENGTHS.values()) == 365
    questions = [(fact.part, fact.whole) for fact in facts.COUNTS]
    assert len(questions) == len(set(questions))


def test_spelling_words_are_plain_and_enough() -> None:
    words = spelling_words()
    assert len(words) >= 1500
    assert all(re.fullmatch("[a-z]{3,10}", word) for word in words)
    assert list(words) == sorted(set(words))


def test_number_forms_by_hand() -> None:
    assert [number_word(n) for n in (0, 12, 20, 45, 100)] == ["zero", "twelve", "twenty", "forty-five", "one hundred"]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "31st"]
    )
    assert [plain_cents(c) for c in (4500, 450, 405, 99)] == ["45", "4.5", "4.05", "0.99"]
    assert [plural(n) for n in ("box", "child", "loaf of bread", "cherry", "toy", "glass")] == (
        ["boxes", "children", "loaves of bread", "cherries", "toys", "glasses"]
    )
    rng = random.Random(0)
    assert {integer(rng, 1200) for _ in range(50)} == {"1200", "1,200"}
    assert {percent(rng, "17") for _ in range(500)} == {
        "17%",
        "17 %",
        "17 percent",
        "seventeen percent",
        "17 per cent",
    }


def test_about_one_problem_in_ten_is_a_probe() -> None:
    share = sum(side_of(f"arithmetic|add|{n}|7") == "probe" for n in range(20_000)) / 20_000
    assert 0.09 < share < 0.11
