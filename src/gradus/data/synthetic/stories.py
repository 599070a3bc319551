"""word_problem: stories put together from clauses (changes, shopping, sharing, groups, comparison) or told whole.

Whole stories are in plots.py. The thinking walks through the story, names each quantity and lets the expression grow;
its last expression goes to the calculator. A story that was never seen is then a new order of clauses that were.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from gradus.data.synthetic import numerals
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Item, Persona, Turn, between, pick
from gradus.data.synthetic.people import other_person, subject
from gradus.data.synthetic.plots import PLOTS, Draw, Plot
from gradus.data.synthetic.surface import dress, with_articles
from gradus.data.synthetic.words import plural

_JOINTS = (
    ". ",
    ". ",
    ". ",
    ". ",
    ", ",
    " and ",
    ". Then ",
    ", then ",
    ". After that ",
    ". Later ",
    ". Next, ",
    " and then ",
    "; ",
)
_TIMES = {2: ("twice", "two times", "2 times", "double"), 3: ("three times", "3 times"), 4: ("four times", "4 times")}
_FRACTIONS = {3: ("third",), 4: ("quarter", "fourth"), 5: ("fifth",)}
_PERIODS = ("day", "week", "month", "year", "week", "month")
_WAYS = (
    ("miles", ("miles an hour", "miles per hour", "mph")),
    ("km", ("km an hour", "km/h", "kmh", "km per hour")),
    ("kilometres", ("kilometres an hour", "kilometres per hour", "km/h")),
)


class Story:
    """A story in the making: its clauses, the slots they share, and the steps of its plan."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bank = load_grammar("stories")
        self.money = numerals.currency(rng)
        self.slots = subject(rng)
        self.slots["F"] = other_person(rng)
        self.slots["place"] = load_grammar("nouns").text("place", rng)
        self.things("object")
        self.container()
        self.text = ""
        self.steps: list[str] = []
        self.expression = ""

    def things(self, kind: str) -> None:
        """Draw the noun of the story."""
        thing = load_grammar("nouns").text(kind, self.rng)
        self.slots["thing"], self.slots["things"] = thing, plural(thing)

    def container(self) -> None:
        box = load_grammar("nouns").text("container", self.rng)
        self.slots["box"], self.slots["boxes"] = box, plural(box)

    def number(self, name: str, value: int) -> str:
        """Show a count under a slot name; returns its digits."""
        self.slots[name] = numerals.integer(self.rng, value, words=0.05)
        return str(value)

    def cash(self, name: str, cents: int) -> str:
        """Show an amount under a slot name; returns its digits."""
        self.slots[name] = self.money.write(cents, self.rng)
        return numerals.plain_cents(cents)

    def clause(self, rule: str) -> str:
        return self.bank.text(rule, self.rng, self.slots)

    def event(self, rule: str) -> str:
        """Add the clause of an event; what happens in it, which the bank has between two "*"."""
        before, act, after = self.clause(rule).split("*")
        self.say(f"{before}{act}{after}")
        return act

    def say(self, clause: str) -> None:
        """Add a clause, joined as speech joins them."""
        if not self.text:
            self.text = clause
            return
        joint = pick(self.rng, _JOINTS)
        if joint == ". " and self.rng.random() < 0.5:
            clause = clause[:1].upper() + clause[1:]
        self.text = f"{self.text}{joint}{clause}"

    def ask(self, rule: str, front: float = 0.06) -> None:
        """Close with the question, now and then in front of the story."""
        question = self.clause(rule)
        draw = self.rng.random()
        if draw < front:
            question = question.rstrip("?.")
            self.text = f"{question} if {self.text}?"
        elif draw < 0.2 and not question.startswith(("find", "tell", "work", "calc", "total", "change", "(")):
            self.text = f"{pick(self.rng, ('if ', 'suppose ', 'say ', 'when '))}{self.text}, {question}"
        else:
            if self.rng.random() < 0.6:
                question = question[:1].upper() + question[1:]
            self.text = f"{self.text}{pick(self.rng, ('. ', '. ', '. ', ', ', '; ', ': '))}{question}"

    def step(self, name: str, expression: str, shown: str | None = None) -> str:
        """Add a step to the plan; the last one's expression is asked. shown: what the plan says in its place."""
        self.steps.append(f"{name}: {expression if shown is None else shown}")
        self.expression = expression
        return expression

    def item(self, sign: bool = False) -> Item:
        answer = self.money.answer("{result}") if sign else "{result}"
        turn = Turn(
            dress(with_articles(self.text), self.rng),
            f"The answer is {answer}.",
            f"{'. '.join(self.steps)}.",
            calculation=self.expression,
            key=f"word_problem|{self.expression}",
        )
        return Item("word_problem", turn.key, (turn,))


def changes(story: Story) -> None:
    """Somebody or something has a number of things, and one to three events change it."""
    rng = story.rng
    kind = pick(rng, ("person", "person", "food", "place", "people"))
    tail = {"person": "", "food": "_food", "place": "_place", "people": "_people"}[kind]
    story.things({"person": "object", "food": "food", "place": "object", "people": "people"}[kind])
    start = between(rng, 5, 100) if rng.random() < 0.6 else between(rng, 20, 500)
    expression = story.number("a", start)
    starts_last = kind in ("person", "food") and rng.random() < 0.04
    if starts_last:
        person = story.slots["S"]
    else:
        story.say(story.clause({"place": "start_place", "people": "start_people"}.get(kind, "start")))
    story.step("Has", expression)
    events = between(rng, 1, 3) if kind != "people" else between(rng, 1, 4)
    left = start
    for _ in range(events):
        gain = rng.random() < 0.45 or left < 3
        if kind in ("person", "food") and rng.random() < 0.25:
            k = between(rng, 2, 6)
            c = between(rng, 2, 12) if gain else between(rng, 1, max(1, min(12, (left - 1) // k)))
            if not gain and k * c >= left:
                continue
            story.container()
            group = f"{story.number('k', k)} * {story.number('c', c)}"
            act = story.event("gain_groups" if gain else "lose_groups")
            left += k * c if gain else -k * c
        else:
            value = between(rng, 1, 60) if gain else between(rng, 1, max(1, left - 1))
            group = story.number("b", value)
            rule = ("gain" if gain else "lose") + tail
            if kind == "food" and rng.random() < 0.5:
                rule = "gain" if gain else "lose"
            act = story.event(rule)
            left += value if gain else -value
        change = f"{'+' if gain else '-'} {group}"
        # What happens is named before its sign: whether "took 5" is more or fewer hangs on the words, not the number.
        expression = story.step(act, f"{expression} {change}", shown=change)
    if starts_last:
        # The first event names the person, the number to start from comes at the end.
        story.text = _named(story.text, story.slots["he"], person)
        story.say(story.clause("start_last"))
        story.ask("ask_left_last", front=0.0)
    else:
        story.ask("ask_now" if kind in ("person", "food") else "ask_now_place")


def _named(text: str, pronoun: str, person: str) -> str:
    """The text with the first pronoun replaced by the person."""
    return re.sub(rf"\b{pronoun}\b", lambda match: person, text, count=1)


def shopping(story: Story) -> None:
    """One to three purchases, then a coupon or fee, then payment, budget or equal shares."""
    rng = story.rng
    draw = Draw(rng)
    wallet = rng.random() < 0.2
    opening = story.text
    total, expression = 0, ""
    lines = []
    count = pick(rng, (1, 1, 2, 2, 2, 3))
    by_price = count == 1 and rng.random() < 0.4
    for _ in range(count):
        story.things("goods")
        price = draw.cash(1, 40) if rng.random() < 0.8 else draw.cash(1, 200)
        single = rng.random() < 0.3 and not by_price and count > 1
        n = 1 if single else between(rng, 2, 15)
        cost = story.cash("p", price)
        part = cost if single else f"{story.number('n', n)} * {cost}"
        if by_price:
            lines.append(f"{story.clause('price_many')}. {story.clause('buys')} {story.slots['n']}")
            if rng.random() < 0.5:
                lines[-1] += f" {story.slots['things']}"
        else:
            lines.append(story.clause("line_one" if single else "line_many"))
        name, whole = ("And", f"{expression} + {part}") if expression else ("Cost", part)
        expression = story.step(name, whole, shown=part)
        total += n * price
    shopping_list = _listed(lines, story)
    story.text = opening
    had = draw.above(total)
    if wallet:
        money = story.cash("m", had)
        story.say(story.clause("had_money"))
        story.slots["S"] = story.slots["he"]
    if by_price:
        story.say(shopping_list)
    else:
        story.say(f"{story.clause('buys')} {shopping_list}")
    many = "+" in expression
    extra = rng.random()
    if extra < 0.13 and total > 300:
        cut = between(rng, 1, max(1, total // 200)) * 100
        less = story.cash("c", cut)
        expression = story.step("Less", f"{expression} - {less}", shown=less)
        story.say(story.clause("coupon"))
        many, total = True, total - cut
    elif extra < 0.26:
        more = story.cash("c", draw.cash(1, 15))
        expression = story.step("More", f"{expression} + {more}", shown=more)
        story.say(story.clause("fee"))
        many = True
        had += 1500
        if wallet:  # the amount was said before the fee was known to fit
            story.text = story.text.replace(story.slots["m"], story.money.write(had, rng), 1)
            money = numerals.plain_cents(had)
    _payment(story, expression, many, wallet, money if wallet else numerals.plain_cents(had), had)


def _payment(story: Story, expression: str, many: bool, wallet: bool, money: str, had: int) -> None:
    rng = story.rng
    if wallet:
        story.step("Left", f"{money} - ({expression})" if many else f"{money} - {expression}")
        story.ask("ask_money_left", front=0.0)
        return
    draw = rng.random()
    if draw < 0.35:
        story.cash("m", had)
        story.say(story.clause("pays"))
        story.step("Change", f"{money} - ({expression})" if many else f"{money} - {expression}")
        story.ask("ask_change")
    elif draw < 0.47:
        people = story.number("k", between(rng, 2, 8))
        story.say(story.clause("split"))
        story.step("Each", f"({expression}) / {people}" if many else f"{expression} / {people}")
        story.ask("ask_each", front=0.0)
    else:
        story.ask("ask_total_i" if story.slots["he"] == "I" else "ask_total")


def _listed(lines: list[str], story: Story) -> str:
    if len(lines) == 1:
        return lines[0]
    return f"{', '.join(lines[:-1])} {story.clause('and')} {lines[-1]}"


def sharing(story: Story) -> None:
    """Equal shares, packing into containers, what is left over."""
    rng = story.rng
    story.things(pick(rng, ("food", "object")))
    k, each = between(rng, 2, 20), between(rng, 2, 30)
    total = k * each
    kind = pick(rng, ("share", "share", "pack", "rest"))
    if kind == "rest":
        total += between(rng, 0, k - 1)
    t = story.number("t", total)
    if kind == "pack":
        n = story.number("n", k)
        story.say(story.clause("pack_start"))
        story.say(story.clause("pack_act"))
        story.step("Number", f"{t} / {n}")
        story.ask("ask_pack", front=0.0)
        return
    people = story.number("k", k)
    story.say(story.clause("share_start"))
    story.say(story.clause("share_act"))
    if kind == "rest":
        story.step("Left over", f"mod({t}, {people})")
        story.ask("ask_rest", front=0.0)
    else:
        story.step("Each", f"{t} / {people}")
        story.ask("ask_share", front=0.0)


def groups(story: Story) -> None:
    """So many containers of so many things, then perhaps more, fewer or shared."""
    rng = story.rng
    story.things(pick(rng, ("food", "object")))
    k, n = between(rng, 2, 20), between(rng, 2, 30)
    expression = f"{story.number('k', k)} * {story.number('n', n)}"
    story.say(story.clause("groups_start"))
    story.step("Groups", expression)
    draw = rng.random()
    if draw < 0.3:
        change = f"- {story.number('b', between(rng, 1, k * n - 1))}"
        act = story.event(pick(rng, ("lose", "lose_place")))
        story.step(act, f"{expression} {change}", shown=change)
        story.ask("ask_now_place", front=0.0)
    elif draw < 0.55:
        change = f"+ {story.number('b', between(rng, 1, 60))}"
        act = story.event(pick(rng, ("gain", "gain_place")))
        story.step(act, f"{expression} {change}", shown=change)
        story.ask(pick(rng, ("ask_now", "ask_groups")), front=0.0)
    elif draw < 0.7:
        divisor = pick(rng, [d for d in range(2, 13) if k * n % d == 0] or [k])
        people = story.number("k", divisor)
        story.container()
        story.say(story.clause("share_act"))
        story.step("Each", f"{expression} / {people}")
        story.ask("ask_share", front=0.0)
    else:
        story.ask("ask_groups")


def comparison(story: Story) -> None:
    """Somebody has more, fewer or so many times as many; the other's number or both together."""
    rng = story.rng
    story.things(pick(rng, ("food", "object", "animal")))
    a = between(rng, 4, 200)
    first = story.number("a", a)
    story.say(story.clause("compare_start"))
    kind = pick(rng, ("more", "fewer", "times", "half", "gap"))
    if kind == "gap":
        b = story.number("b", between(rng, 1, a - 1))
        story.text = story.clause("two_counts")
        story.step("Difference", f"{first} - {b}")
        story.ask("ask_gap", front=0.0)
        return
    if kind == "times":
        k = between(rng, 2, 4)
        story.slots["times"] = pick(rng, _TIMES[k])
        other = f"{first} * {k}"
    elif kind == "half":
        k = pick(rng, (2, 2, 3, 4))
        first = story.number("a", k * between(rng, 2, 60))
        story.text = story.clause("compare_start")
        story.slots["frac"] = pick(rng, _FRACTIONS.get(k, ("half",)))
        other = f"{first} / {k}"
        story.say(story.clause("half_than" if k == 2 else "half_than_k"))
    elif kind == "more":
        other = f"{first} + {story.number('b', between(rng, 1, 100))}"
    else:
        other = f"{first} - {story.number('b', between(rng, 1, a - 1))}"
    if kind != "half":
        if rng.random() < 0.3:
            story.text = story.clause(f"{kind}_first")
        else:
            story.say(story.clause(f"{kind}_than"))
    story.step("Other", other)
    if rng.random() < 0.5:
        story.step("Together", f"{first} + {other}")
        story.ask("ask_together", front=0.0)
    else:
        story.ask("ask_other", front=0.0)


def _units(rng: random.Random) -> dict[str, str]:
    """Units that stay the same throughout one story."""
    period, short = pick(rng, _PERIODS), pick(rng, ("day", "hour", "day", "hour", "minute"))
    unit, speeds = pick(rng, _WAYS)
    return {
        "period1": period,
        "period": f"{period}s",
        "period_dh1": short,
        "period_dh": f"{short}s",
        "unit": unit,
        "mph": pick(rng, speeds),
        "lu": pick(rng, ("metres", "meters", "feet", "cm", "inches", "m")),
        "wu": pick(rng, ("kilos", "kg", "pounds", "grams")),
        "who": pick(rng, ("people", "guests", "children", "cakes", "cats", "dogs", "horses", "students", "servings")),
    }


def plot(rng: random.Random) -> Item:
    """One of the fixed stories."""
    chosen: Plot = pick(rng, PLOTS)
    story = Story(rng)
    story.things("goods" if chosen.money else pick(rng, ("object", "food")))
    values = chosen.values(Draw(rng))
    digits = {}
    for name, value in values.items():
        digits[name] = story.cash(name, value) if name in chosen.money else story.number(name, value)
    thing = load_grammar("nouns").text("goods", rng)
    story.slots |= {"thing2": thing, "things2": plural(thing), **_units(rng)}
    if chosen.rule == "fraction_left":
        story.slots["frac"] = pick(rng, _FRACTIONS[values["k"]])
    story.text = load_grammar("plots").text(chosen.rule, rng, story.slots)
    for step in chosen.plan.format(**digits).split(". "):
        story.step(*step.split(": "))
    return story.item(chosen.sign)


_COMPOSED: tuple[tuple[Callable[[Story], None], bool], ...] = (
    *((changes, False),) * 5,
    *((shopping, True),) * 5,
    *((sharing, False),) * 2,
    *((groups, False),) * 2,
    *((comparison, False),) * 2,
)


def generate(rng: random.Random, persona: Persona) -> Item:
    if rng.random() < 0.45:
        return plot(rng)
    compose, sign = pick(rng, _COMPOSED)
    story = Story(rng)
    compose(story)
    return story.item(sign)
