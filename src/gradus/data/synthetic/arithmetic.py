"""arithmetic: sums, differences, products and quotients of two or three numbers, answered through the calculator."""

from __future__ import annotations

import random

from gradus.data.synthetic import numerals
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Item, Persona, Turn, between, pick
from gradus.data.synthetic.surface import dress

ANSWER = "The answer is {result}."

# name of the rule -> sign, or expression. These have no plan in words: a name for the whole would have to be right
# before the first number is read (EXPERIMENTS.md).
_TWO = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_THREE = {
    "addadd": "{a} + {b} + {c}",
    "addsub": "{a} + {b} - {c}",
    "subadd": "{a} - {b} + {c}",
    "subsub": "{a} - {b} - {c}",
    "muladd": "{a} * {b} + {c}",
    "mulsub": "{a} * {b} - {c}",
    "addmul": "({a} + {b}) * {c}",
    "submul": "({a} - {b}) * {c}",
    "adddiv": "({a} + {b}) / {c}",
    "divadd": "{a} / {b} + {c}",
    "divsub": "{a} / {b} - {c}",
    "mulmul": "{a} * {b} * {c}",
    "muldiv": "{a} * {b} / {c}",
}
# name of the rule -> (plan, expression)
_SPECIAL = {
    "double": ("Double it", "{a} * 2"),
    "triple": ("Triple it", "{a} * 3"),
    "half": ("Divide by 2", "{a} / 2"),
    "third": ("Divide by 3", "{a} / 3"),
    "quarter": ("Divide by 4", "{a} / 4"),
    "square": ("Multiply it by itself", "{a} * {a}"),
    "average2": ("Add, then divide by 2", "({a} + {b}) / 2"),
    "rest": ("Remainder", "mod({a}, {b})"),
    "average3": ("Add, then divide by 3", "({a} + {b} + {c}) / 3"),
}


def whole_number(rng: random.Random) -> int:
    """A whole number up to 9,999, small ones as often as large ones."""
    draw = rng.random()
    if draw < 0.2:
        return between(rng, 2, 20)
    if draw < 0.5:
        return between(rng, 10, 99)
    if draw < 0.8:
        return between(rng, 100, 999)
    return between(rng, 1000, 9999)


def decimal(rng: random.Random) -> str:
    """A decimal with one or two places, up to 999.99, without trailing zeros."""
    places = 10 if rng.random() < 0.5 else 100
    value = between(rng, 1, 99 * places if rng.random() < 0.6 else 999 * places)
    if value % places == 0:
        value += 1
    return f"{value // places}.{value % places:0{len(str(places)) - 1}d}".rstrip("0")


def _operand(rng: random.Random, decimals: bool) -> str:
    return decimal(rng) if decimals and rng.random() < 0.7 else str(whole_number(rng))


def written(rng: random.Random, plain: str) -> str:
    """An operand as the question shows it."""
    return numerals.integer(rng, int(plain)) if plain.isdigit() else plain


def ask(rng: random.Random, bank: str, rule: str, slots: dict[str, str]) -> str:
    """A question from the rules `rule`_np, _vp, _gerund, _full of a bank, in one of the frames of the `ask` bank."""
    grammar = load_grammar(bank)
    kinds = _kinds(bank, rule)
    kind = pick(rng, kinds)
    phrase = grammar.text(f"{rule}_{kind}", rng, slots)
    if kind == "full":
        return phrase
    return load_grammar("ask").text(kind, rng, {"x": phrase})


_WEIGHTED_KINDS = ("np", "np", "np", "np", "vp", "vp", "vp", "gerund", "full", "full")


def _kinds(bank: str, rule: str) -> tuple[str, ...]:
    key = (bank, rule)
    kinds = _KINDS.get(key)
    if kinds is None:
        grammar = load_grammar(bank)
        kinds = tuple(kind for kind in _WEIGHTED_KINDS if f"{rule}_{kind}" in grammar)
        _KINDS[key] = kinds
    return kinds


_KINDS: dict[tuple[str, str], tuple[str, ...]] = {}


def generate(rng: random.Random, persona: Persona) -> Item:
    draw = rng.random()
    if draw < 0.65:
        return _two(rng)
    if draw < 0.92:
        name = pick(rng, tuple(_THREE))
        return _several(rng, name, "", _THREE[name])
    name = pick(rng, tuple(_SPECIAL))
    return _several(rng, name, *_SPECIAL[name])


def _two(rng: random.Random) -> Item:
    name = pick(rng, tuple(_TWO))
    sign = _TWO[name]
    decimals = rng.random() < 0.2
    a, b = _operand(rng, decimals), _operand(rng, decimals)
    if name == "sub" and float(a) < float(b) and rng.random() < 0.9:
        a, b = b, a
    if name == "div":
        b = str(between(rng, 2, 12) if rng.random() < 0.6 else between(rng, 2, 99))
        if rng.random() < 0.8:
            a = str(int(b) * between(rng, 2, max(2, min(9999 // int(b), 300))))
    shown_a, shown_b = written(rng, a), written(rng, b)
    question = ask(rng, "arithmetic", name, {"a": shown_a, "b": shown_b})
    if sign in "+*" and question.find(shown_b) < question.find(shown_a):
        a, b = b, a  # the numbers are copied in the order in which they were read
    expression = f"{a} {sign} {b}"
    return _item(rng, question, expression, expression, sorted((a, b)) if sign in "+*" else (a, b), name)


def _several(rng: random.Random, name: str, plan: str, form: str) -> Item:
    values = {slot: str(whole_number(rng)) for slot in "abc"}
    if rng.random() < 0.1:
        values[pick(rng, "abc")] = decimal(rng)
    if name in ("subsub", "subadd", "submul") or (name == "addsub"):
        values["a"], values["b"], values["c"] = sorted(values.values(), key=float, reverse=True)
    if "div" in name or "mul" in name:
        for slot in "bc":
            values[slot] = str(between(rng, 2, 25))
    if name in ("divadd", "divsub"):
        values["a"] = str(int(values["b"]) * between(rng, 2, 200))
    if name == "third" or name == "quarter" or name == "half":
        values["a"] = str({"third": 3, "quarter": 4, "half": 2}[name] * between(rng, 1, 900))
    question = ask(rng, "arithmetic", name, {slot: written(rng, value) for slot, value in values.items()})
    expression = form.format(**values)
    return _item(rng, question, f"{plan}: {expression}" if plan else expression, expression, (expression,), name)


def _item(rng: random.Random, question: str, thought: str, expression: str, values: object, name: str) -> Item:
    turn = Turn(
        user=dress(question, rng),
        answer=ANSWER,
        thinking=f"{thought}.",
        calculation=expression,
        key=f"arithmetic|{name}|{'|'.join(values)}",  # type: ignore[arg-type]
    )
    return Item("arithmetic", turn.key, (turn,))


def two_numbers(rng: random.Random) -> Turn:
    """One operation on two numbers, as a turn."""
    return _two(rng).turns[0]
