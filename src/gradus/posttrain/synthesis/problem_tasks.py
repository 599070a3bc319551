"""Tasks with a checked result: reasoning, dates and times, arithmetic of several steps.

The truth of dates and sums is computed here and the teacher only words it; a reasoning problem is solved a second time
by the teacher without sight of the first solution, and taken where both agree.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

from gradus.conversation.messages import Conversation
from gradus.posttrain.synthesis.judge import (
    require_last_number,
    require_parts,
    require_thinking,
    same_text,
)
from gradus.posttrain.synthesis.material import Material, asking, banks
from gradus.posttrain.synthesis.teacher import Brief, Rejected, Teacher
from gradus.posttrain.synthesis.tool_tasks import QUESTION, thinking_row

STEPS = "the assistant's reasoning step by step, each step with its reason or its intermediate result"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


# Reasoning


def draw_reasoning(rng: random.Random, material: Material) -> Brief:
    """A puzzle with one answer."""
    bank = banks()
    prompt = (
        f"{asking(rng)} The user poses a puzzle, {bank.text('scene', rng)}: {bank.text('puzzle', rng)}. It is new, has "
        f"exactly one right answer, all that is needed is in it, and it takes {rng.randint(3, 6)} steps to solve."
    )
    fields = {
        "question": QUESTION,
        "thinking": STEPS,
        "answer": "what the assistant then says: the result and the main reason, in one to three sentences",
        "final": "the result alone, as one number, name or word",
    }
    return Brief(prompt, fields)


async def write_reasoning(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """Taken where a second, independent solution comes to the same."""
    first = await teacher.write(brief)
    require_thinking(first["thinking"], first["answer"])
    require_parts(first["answer"], [first["final"]], "final_not_in_answer")
    prompt = f'Solve this with care. Where it has no single answer, the result is "none".\n\n{first["question"]}'
    again = Brief(prompt, {"thinking": STEPS, "final": "the result alone, as one number, name or word"})
    second = await teacher.write(again)
    if not same_text(first["final"], second["final"]):
        raise Rejected("solutions_disagree", f"{first['final']!r} and {second['final']!r}", first["question"])
    return thinking_row(first, material)


# Dates and times


def draw_temporal(rng: random.Random, material: Material) -> Brief:
    """Something to reckon with dates, days or hours; the truth is known."""
    given, asked, truth = rng.choice((_weekday_after, _days_between, _date_after, _age_at, _clock_after))(rng)
    bank = banks()
    prompt = (
        f"{asking(rng)} The question is about {bank.text('event', rng)}. It gives these facts, each written just like "
        f"this: {'; '.join(given)}. It asks for {asked}. The right answer is: {truth}. The reasoning comes to it step "
        "by step."
    )
    fields = {
        "question": QUESTION,
        "thinking": STEPS,
        "answer": f'what the assistant then says, in one sentence, with "{truth}" in it',
    }
    return Brief(prompt, fields, {"given": "\n".join(given), "truth": truth})


async def write_temporal(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """The question gives all facts and the answer states the truth, as the thinking does."""
    fields = await teacher.write(brief)
    truth = brief.facts["truth"]
    require_parts(fields["question"], brief.facts["given"].split("\n"), "fact_missing")
    require_parts(fields["answer"], [truth], "wrong_answer")
    require_parts(fields["thinking"], [truth], "wrong_thinking")
    require_thinking(fields["thinking"], fields["answer"])
    return thinking_row(fields, material)


def _day(rng: random.Random) -> date:
    return date(2019, 1, 1) + timedelta(days=rng.randrange(4200))


def _written(day: date) -> str:
    return f"{day:%B} {day.day}, {day.year}"


def _weekday_after(rng: random.Random) -> tuple[list[str], str, str]:
    start, days = _day(rng), rng.randint(5, 200)
    later = _DAYS[(start.weekday() + days) % 7]
    return [_DAYS[start.weekday()], f"{days} days"], "the weekday so many days later", later


def _days_between(rng: random.Random) -> tuple[list[str], str, str]:
    start, days = _day(rng), rng.randint(11, 400)
    return [_written(start), _written(start + timedelta(days=days))], "the number of days between", f"{days}"


def _date_after(rng: random.Random) -> tuple[list[str], str, str]:
    start, weeks = _day(rng), rng.randint(2, 40)
    return [_written(start), f"{weeks} weeks"], "the date so much later", _written(start + timedelta(weeks=weeks))


def _age_at(rng: random.Random) -> tuple[list[str], str, str]:
    born, age = rng.randint(1925, 2015), rng.randint(12, 90)
    day = date(born, rng.randint(1, 12), rng.randint(1, 28))
    then = date(born + age, 7, 1)
    truth = age - ((then.month, then.day) < (day.month, day.day))
    return (
        [_written(day), _written(then)],
        "the age in whole years of who was born on the first, on the second",
        str(truth),
    )


def _clock_after(rng: random.Random) -> tuple[list[str], str, str]:
    start, minutes = rng.randrange(24 * 60), rng.randint(35, 900)
    end = (start + minutes) % (24 * 60)
    spent = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return (
        [f"{start // 60}:{start % 60:02d}", spent],
        "the time on a 24-hour clock after that",
        f"{end // 60}:{end % 60:02d}",
    )


# Arithmetic


def draw_arithmetic(rng: random.Random, material: Material) -> Brief:
    """A story whose steps and result are known, or a long multiplication."""
    if rng.random() < 0.2:
        one, other = rng.randint(112, 989), rng.randint(23, 987)
        given, rule, result = [one, other], f"{one} times {other}, worked out by long multiplication", one * other
    else:
        given, rule, result = _chain(rng)
    prompt = (
        f"{asking(rng)} The user tells a short story {banks().text('scene', rng)} that asks for the result of exactly "
        f"these steps: {rule}. The story has these numbers in figures: {', '.join(map(str, given))}, and no others. "
        f"The result is {result}. The assistant has no calculator and shows every step."
    )
    fields = {
        "question": QUESTION,
        "thinking": STEPS,
        "answer": f"what the assistant then says, in one sentence that ends with the result {result} and its unit",
    }
    return Brief(prompt, fields, {"given": "\n".join(map(str, given)), "result": str(result)})


def _chain(rng: random.Random) -> tuple[list[int], str, int]:
    """(numbers, the steps in words, result): whole and positive all along."""
    value = rng.randint(12, 240)
    given, words = [value], [f"start with {value}"]
    for _ in range(rng.randint(2, 4)):
        kinds = ["add", "times"] if value < 30 else ["add", "take", "times"] if value < 2000 else ["add", "take"]
        kind = rng.choice([*kinds, "share"])
        divisors = [n for n in range(3, 13) if value % n == 0 and value > 2 * n]
        if kind == "share" and divisors:
            number = rng.choice(divisors)
            value, word = value // number, f"divide by {number}"
        elif kind == "times":
            number = rng.randint(3, 12)
            value, word = value * number, f"multiply by {number}"
        elif kind == "take":
            number = rng.randint(5, value - 5)
            value, word = value - number, f"subtract {number}"
        else:
            number = rng.randint(5, 400)
            value, word = value + number, f"add {number}"
        given.append(number)
        words.append(word)
    return given, ", then ".join(words), value


async def write_arithmetic(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """All numbers stand in the question, the thinking comes to the result, the answer ends with it."""
    fields = await teacher.write(brief)
    result = brief.facts["result"]
    require_parts(fields["question"], brief.facts["given"].split("\n"), "fact_missing")
    require_parts(fields["thinking"], [result], "wrong_thinking")
    require_last_number(fields["answer"], Fraction(result))
    require_thinking(fields["thinking"], fields["answer"])
    # With a calculator at hand the right thing would be to use it.
    return replace(thinking_row(fields, material), tools=())
