"""The blind TEST suite of wordings ("fresh"): makes fresh.jsonl beside this file.

Its writer had not seen the training templates of the quickstart model (of gradus.data.synthetic only facts.py, the
closed table of facts, was read). Nobody may tune on this suite: no template, value range, seed, setting or check may
be chosen by looking at it or at a model's answers to it. Tune on another suite, then measure here.

Wordings are data, values are filled by a seeded script, answers are exact arithmetic.
Run: python roadmaps/probes/make_fresh.py
"""

# ruff: noqa: E501, S307, SIM905, T201

from __future__ import annotations

import calendar
import json
import random
import re
import runpy
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
FACTS_FILE = Path(__file__).parents[2] / "src/gradus/data/synthetic/facts.py"
SEED, PREFIX, OUT, PER_CATEGORY = 84713, "fresh", "fresh.jsonl", 125
MONTHS = list(calendar.month_name)[1:]
MONTH_LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]  # no leap year

FACTS = runpy.run_path(str(FACTS_FILE))  # the closed table, and nothing else of the package
CAPITALS, COLOURS = FACTS["CAPITALS"], FACTS["COLOURS"]
OPPOSITE_OF = {a: b for pair in FACTS["OPPOSITES"] for a, b in (pair, pair[::-1])}
# Right answers in ordinary English that the table does not hold.
ALSO_OPPOSITE = {
    "old": ["new"],
    "light": ["heavy", "darkness"],
    "dark": ["bright"],
    "short": ["long"],
    "hard": ["easy"],
    "begin": ["finish", "stop"],
    "start": ["end", "finish"],
    "end": ["start", "beginning"],
    "stop": ["go", "begin"],
    "near": ["distant"],
    "far": ["close"],
    "big": ["little"],
    "small": ["large"],
    "rich": ["broke"],
    "wrong": ["right"],
    "right": ["wrong"],
    "correct": ["incorrect"],
    "good": ["evil"],
    "open": ["shut", "close"],
    "closed": ["opened"],
    "arrive": ["leave"],
    "come": ["leave"],
    "enter": ["leave"],
    "exit": ["entry", "entrance"],
    "polite": ["impolite"],
    "kind": ["mean", "unkind"],
    "easy": ["hard"],
    "difficult": ["simple"],
    "ask": ["reply", "tell"],
    "find": ["lose"],
    "hide": ["seek", "show", "reveal"],
    "build": ["demolish"],
    "cry": ["smile"],
    "accept": ["reject", "decline"],
    "refuse": ["agree", "allow"],
    "give": ["receive"],
    "happy": ["unhappy"],
    "sad": ["cheerful"],
    "fast": ["slowly"],
    "quiet": ["noisy"],
    "loud": ["silent"],
    "simple": ["complicated", "hard", "difficult"],
    "complex": ["easy"],
    "front": ["rear"],
    "top": ["base"],
    "brave": ["scared", "afraid"],
    "cowardly": ["courageous"],
    "sweet": ["bitter", "salty"],
    "cold": ["warm"],
    "sour": ["bitter"],
    "sharp": ["dull"],
    "back": ["forward"],
    "friend": ["foe"],
    "victory": ["loss"],
    "success": ["fail"],
    "less": ["greater"],
    "fall": ["climb"],
    "rise": ["drop"],
    "dead": ["living"],
    "safe": ["unsafe", "risky"],
    "outside": ["in"],
    "inside": ["out"],
    "above": ["under", "beneath"],
    "below": ["over"],
    "empty": ["filled"],
    "early": ["tardy"],
    "weak": ["powerful"],
    "defeat": ["win"],
    "enemy": ["ally"],
    "expensive": ["inexpensive"],
}
WORDS_FOR = {0: ["zero", "no", "none"], 1000: ["1,000", "thousand"], 100: ["hundred"]} | {
    number: [word]
    for number, word in {
        2: "two",
        3: "three",
        4: "four",
        5: "five",
        6: "six",
        7: "seven",
        8: "eight",
        10: "ten",
        11: "eleven",
        12: "twelve",
        24: "twenty-four",
        26: "twenty-six",
        52: "fifty-two",
        60: "sixty",
    }.items()
}
ALSO_COLOUR = {"grey": ["gray"], "golden": ["gold", "yellow", "amber"]}
ALSO_CAPITAL = {"Kyiv": ["Kiev"], "New Delhi": ["Delhi"], "Brasilia": ["Brasília"], "Bern": ["Berne"]}
HAVE_PARTS = {"legs", "arms", "wings", "eyes", "fingers", "toes", "wheels", "sides", "faces", "strings"}


# ---------------------------------------------------------------- kinds of slot
@dataclass(frozen=True)
class Whole:
    low: int
    high: int
    step: int = 1


@dataclass(frozen=True)
class Decimal:
    low: float
    high: float
    places: int = 1


@dataclass(frozen=True)
class Money:
    """Dollars or pounds with two decimals, a multiple of `step` cents."""

    low: float
    high: float
    step: int = 5


@dataclass(frozen=True)
class Pick:
    options: tuple


@dataclass(frozen=True)
class Numbers:
    options: tuple


@dataclass(frozen=True)
class Day:
    pass


@dataclass(frozen=True)
class Date:
    pass


@dataclass(frozen=True)
class Row:
    """A row of the table of counts, with the slots `_part` and `_whole`."""

    rows: tuple


@dataclass(frozen=True)
class Letter:
    """A letter that occurs in the word of the slot `w`."""


@dataclass(frozen=True)
class Calc:
    """A number computed from the other slots."""

    expression: str


@dataclass(frozen=True)
class Opposite:
    slot: str


@dataclass(frozen=True)
class Spelled:
    slot: str


@dataclass(frozen=True)
class DayPlus:
    expression: str  # days after slot d


@dataclass(frozen=True)
class DatePlus:
    expression: str  # days after slot dd


HAVE_ROWS = tuple(row for row in FACTS["COUNTS"] if row.part in HAVE_PARTS and row.number > 0)
UNIT_ROWS = tuple(row for row in FACTS["COUNTS"] if row.part not in HAVE_PARTS)
SHARED_SLOTS = {
    "country": Pick(tuple(CAPITALS)),
    "word": Pick(tuple(OPPOSITE_OF)),
    "thing": Pick(tuple(COLOURS)),
    "day": Pick(tuple(DAYS)),
    "month": Pick(tuple(MONTHS)),
    "have": Row(HAVE_ROWS),
    "unit": Row(UNIT_ROWS),
}
SHARED_SLOTS |= {"country2": SHARED_SLOTS["country"], "word2": SHARED_SLOTS["word"], "dd": Date()}


def pick_number(*numbers: int) -> Numbers:
    return Numbers(numbers)


def pick(*options: str) -> Pick:
    return Pick(tuple(options))


# ---------------------------------------------------------------- an entry: one wording
@dataclass
class Entry:
    """`text` is one user message, or a list of messages.

    A list stands for `turns` (user messages only) unless `given` is true: then it
    alternates user, assistant, user, ...
    """

    text: str | list[str]
    answer: object
    where: str | None = None
    given: bool = False
    slots: dict = field(default_factory=dict)


def W(text, answer=None, where=None, **slots) -> Entry:
    return Entry(text, answer, where, False, slots)


def G(text, answer=None, where=None, **slots) -> Entry:
    return Entry(text, answer, where, True, slots)


def number_text(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    text = f"{float(value):.4f}".rstrip("0")
    assert Fraction(text) == value, value
    return text


def ordinal(n: int) -> str:
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return f"{n}" + {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def month_day(day_of_year: int) -> tuple[str, int]:
    rest = day_of_year % 365
    for name, length in zip(MONTHS, MONTH_LENGTHS, strict=True):
        if rest < length:
            return name, rest + 1
        rest -= length
    raise AssertionError


def date_texts(day_of_year: int) -> dict[str, str]:
    month, day = month_day(day_of_year)
    texts = {
        "": f"{month} {day}",
        "_th": f"{month} {ordinal(day)}",
        "_uk": f"{day} {month}",
        "_ukth": f"{ordinal(day)} of {month}",
        "_short": f"{month[:3]} {day}",
    }
    return texts | {key + "_low": text.lower() for key, text in texts.items()}


def draw(kind, values: dict, rng: random.Random):
    """(value for the arithmetic, texts for the wording by suffix of the slot's name)."""
    if isinstance(kind, Whole):
        value = Fraction(rng.randrange(kind.low, kind.high + 1, kind.step))
        return value, {"": str(value), "_c": f"{value.numerator:,}"}
    if isinstance(kind, Decimal):
        scale = 10**kind.places
        while True:
            units = rng.randint(round(kind.low * scale), round(kind.high * scale))
            if units % 10:
                break
        value = Fraction(units, scale)
        return value, {"": number_text(value)}
    if isinstance(kind, Money):
        low, high = round(kind.low * 100), round(kind.high * 100)
        cents = rng.randrange(low, high + 1, kind.step)
        if cents % 100 == 0:
            cents += kind.step
        return Fraction(cents, 100), {"": f"{cents / 100:.2f}"}
    if isinstance(kind, Pick):
        value = rng.choice(kind.options)
        shown = "the Netherlands" if value == "Netherlands" else value
        return value, {"": shown, "_bare": value, "_low": shown.lower()}
    if isinstance(kind, Numbers):
        value = Fraction(rng.choice(kind.options))
        return value, {"": str(value), "_c": f"{value.numerator:,}"}
    if isinstance(kind, Day):
        value = rng.randrange(7)
        return value, {"": DAYS[value], "_low": DAYS[value].lower()}
    if isinstance(kind, Date):
        value = rng.randrange(365)
        return value, date_texts(value)
    if isinstance(kind, Letter):
        word = values["w"]
        often = [letter for letter in sorted(set(word)) if word.count(letter) > 1]
        twice = bool(often) and rng.random() < 0.6
        letter = rng.choice(often if twice else sorted(set(word)))
        return letter, {"": letter, "_up": letter.upper()}
    if isinstance(kind, Row):
        row = rng.choice(kind.rows)
        return row, {"_part": row.part, "_whole": row.whole}
    if isinstance(kind, Calc):
        value = Fraction(evaluate(kind.expression, values))
        return value, {"": number_text(value) if (value * 100).denominator == 1 else "?"}
    if isinstance(kind, DayPlus):
        value = int(values["d"] + evaluate(kind.expression, values)) % 7
        return value, {"": DAYS[value], "_low": DAYS[value].lower()}
    if isinstance(kind, DatePlus):
        value = int(values["dd"] + evaluate(kind.expression, values)) % 365
        return value, date_texts(value)
    if isinstance(kind, Opposite):
        return OPPOSITE_OF[values[kind.slot]], {"": OPPOSITE_OF[values[kind.slot]]}
    if isinstance(kind, Spelled):
        text = "-".join(values[kind.slot])
        return text, {"": text}
    raise TypeError(kind)


def evaluate(expression: str, values: dict):
    return eval(expression, {"__builtins__": {"len": len}}, dict(values))


def slots_in(entry: Entry) -> str:
    return entry.text if isinstance(entry.text, str) else "\n".join(entry.text)


def default_slots(category: str, entry: Entry) -> dict:
    """Slots that an entry uses without saying what they are."""
    used = set(re.findall(r"\{(\w+)\}", slots_in(entry)))
    slots = {}
    for name in sorted(used):
        base = name.split("_")[0]
        if base in entry.slots or base in slots:
            continue
        if re.fullmatch(r"she\d?", base):
            slots[base] = Pick(WOMEN)
        elif re.fullmatch(r"he\d?", base):
            slots[base] = Pick(MEN)
        elif base == "w":
            slots[base] = Pick(COUNT_WORDS if category == "letter_count" else SPELL_WORDS)
        elif base == "d" and category == "date":
            slots[base] = Date()
        elif base == "d":
            slots[base] = Day()
        elif base == "n" and category == "weekday":
            slots[base] = Whole(2, 60)
        elif base == "n" and category == "date":
            slots[base] = Whole(2, 30)
        elif base in SHARED_SLOTS:
            slots[base] = SHARED_SLOTS[base]
        elif base != "l":
            raise KeyError(f"{name} in {entry.text!r}")
    if "l" in {name.split("_")[0] for name in used} and "l" not in entry.slots:
        slots["l"] = Letter()
    return slots | entry.slots


# ---------------------------------------------------------------- checks
STOPS = {"kind": "stops"}
CALLS = {"kind": "calls", "tool": "calculator"}
CALLS_NONE = {"kind": "calls_none"}


def number_check(value: Fraction) -> dict:
    number = value.numerator if value.denominator == 1 else float(value)
    return {"kind": "answer_number", "value": number, "tolerance": 0.005}


def weekday_check(day: int) -> dict:
    return {"kind": "exactly_one_of", "value": DAYS[day % 7], "of": DAYS}


def date_check(day_of_year: int) -> dict:
    month, day = month_day(day_of_year)
    number = rf"{day}(?:st|nd|rd|th)?"
    return {
        "kind": "answer_regex",
        "pattern": rf"(?i)\b(?:{month} (?:the )?{number}|{number} (?:of )?{month})\b",
    }


def spelling_check(word: str) -> dict:
    joined = "-".join(word)
    return {"kind": "answer_regex", "pattern": rf"(?i)(?<![a-z-]){joined}(?![a-z-])"}


def any_of(*facts: str) -> dict:
    return {"kind": "answer_contains", "any": list(facts)}


def one_of_words(*facts: str) -> dict:
    """The answer holds one of the facts as whole words."""
    joined = "|".join(re.escape(fact).replace(r"\ ", " ") for fact in facts)
    return {"kind": "answer_regex", "pattern": rf"(?i)\b(?:{joined})\b"}


def fact_check(what: str, values: dict) -> dict:
    """`what` names a table of facts; ("row", "legs a spider") is one fixed row of the counts."""
    if isinstance(what, tuple) and what[0] == "row":
        rows = {f"{row.part} {row.whole}": row.number for row in FACTS["COUNTS"]}
        return count_check(rows[what[1]])
    if isinstance(what, tuple):  # ("opposite", "hot"): one fixed word, country, thing, day or month
        what, fixed = what
        values = dict.fromkeys(("country", "word", "thing", "day", "month"), fixed)
    if what == "capital":
        city = CAPITALS[values["country"]]
        return any_of(city, *ALSO_CAPITAL.get(city, ()))
    if what == "opposite":
        word = values["word"]
        return one_of_words(OPPOSITE_OF[word], *ALSO_OPPOSITE.get(word, ()))
    if what == "colour":
        colour = COLOURS[values["thing"]]
        return one_of_words(colour, *ALSO_COLOUR.get(colour, ()))
    if what in ("next_day", "previous_day"):
        return one_of_words(step(DAYS, values["day"], what))
    if what in ("next_month", "previous_month"):
        return one_of_words(step(MONTHS, values["month"], what))
    if what in ("have", "unit"):
        return count_check(values[what].number)
    raise ValueError(what)


def count_check(number: int) -> dict:
    return one_of_words(str(number), *WORDS_FOR.get(number, ()))


def step(names: list[str], name: str, what: str) -> str:
    return names[(names.index(name) + (1 if what.startswith("next") else -1)) % len(names)]


IDENTITY_CHECKS = {
    "name": any_of("Gradus"),
    "who": any_of("Gradus", "assistant", "language model"),
    "call": any_of("Gradus"),
    "maker": any_of("gradus team"),
    "what": one_of_words(
        "AI", "assistant", "language model", "artificial intelligence", "chatbot", "chat model", "program"
    ),
    "human": {
        "kind": "answer_regex",
        "pattern": r"(?i)\b(?:AI|assistant|language model|artificial|chatbot|program|not (?:a |really a )?(?:human|person)|not human)\b",
    },
    "abilities": any_of(
        "arithmetic",
        "math",
        "sums",
        "calculat",
        "percent",
        "spell",
        "count",
        "date",
        "weekday",
        "numbers",
        "questions",
    ),
}
SMALL_TALK = {
    "greeting": [
        "hello",
        "hi",
        "hey",
        "help",
        "assist",
        "welcome",
        "good morning",
        "good evening",
        "good afternoon",
    ],
    "thanks": ["welcome", "glad", "pleasure", "any time", "anytime", "no problem", "happy"],
    "farewell": [
        "bye",
        "goodbye",
        "good-bye",
        "farewell",
        "see you",
        "nice day",
        "take care",
        "good night",
        "goodnight",
        "come back",
    ],
    "wellbeing": ["well", "fine", "good", "great", "help"],
}


def checks_for(category: str, entry: Entry, values: dict) -> list[dict] | None:
    """The checks of one filled entry, or None when its values give no clean answer."""
    answer = entry.answer
    if category == "follow_up":
        kind, what = answer
        if kind == "number":
            value = clean_number(Fraction(evaluate(what, values)), values)
            return None if value is None else [number_check(value), STOPS]
        if kind == "weekday":
            return [weekday_check(int(values["d"] + evaluate(what, values))), STOPS]
        if kind == "date":
            return [date_check(int(values["dd"] + evaluate(what, values))), STOPS]
        if kind == "spell":
            return [spelling_check(what.format(**values)), STOPS]
        if kind == "spell_opposite":
            word = OPPOSITE_OF[values["word"]]
            return [spelling_check(word), STOPS] if 3 <= len(word) <= 10 else None
        if kind == "letters":
            return [number_check(Fraction(values["w"].count(values["l"]))), STOPS]
        if kind == "contains":
            return [one_of_words(*[fact.format(**values) for fact in what]), STOPS]
        if kind == "fact":
            return [fact_check(what, values), STOPS]
        if kind == "fact2":
            second = {key: values[key + "2"] for key in ("country", "word") if key + "2" in values}
            return [fact_check(what, second), STOPS]
        raise ValueError(kind)
    if category in ("arithmetic", "percent", "word_problem", "age"):
        value = clean_number(Fraction(evaluate(answer, values)), values)
        if value is None:
            return None
        money = category == "word_problem" and any(isinstance(kind, Money) for kind in entry.slots.values())
        if category in ("word_problem", "age") and value.denominator != 1 and not money:
            return None
        calls = [CALLS] if category in ("arithmetic", "percent") else []
        return [number_check(value), *calls, STOPS]
    if category == "weekday":
        return [weekday_check(int(values["d"] + evaluate(answer, values))), STOPS]
    if category == "date":
        return [date_check(int(values["d"] + evaluate(answer, values))), STOPS]
    if category == "spelling":
        return [spelling_check(values["w"]), STOPS]
    if category == "letter_count":
        return [number_check(Fraction(values["w"].count(values["l"]))), STOPS]
    if category == "identity":
        return [IDENTITY_CHECKS[answer], STOPS]
    if category == "direct":
        if isinstance(answer, str) and answer in SMALL_TALK:
            return [{"kind": "answer_chars", "min": 2}, one_of_words(*SMALL_TALK[answer]), CALLS_NONE, STOPS]
        return [fact_check(answer, values), CALLS_NONE, STOPS]
    raise ValueError(category)


def clean_number(value: Fraction, values: dict) -> Fraction | None:
    """None unless the answer is positive and has at most two decimals."""
    if value <= 0 or (value * 100).denominator != 1:
        return None
    return value


# ---------------------------------------------------------------- filling
def fill(category: str, entry: Entry, rng: random.Random) -> dict | None:
    values, texts = {}, {}
    for name, kind in default_slots(category, entry).items():
        value, forms = draw(kind, values, rng)
        values[name] = value
        for suffix, text in forms.items():
            texts[name + suffix] = text
    words = [value for value in values.values() if isinstance(value, str)]
    if len(set(words)) != len(words):
        return None
    if entry.where and not evaluate(entry.where, values):
        return None
    checks = checks_for(category, entry, values)
    if checks is None:
        return None
    tail = {"tools": ["calculator"], "samples": 1, "checks": checks}
    if isinstance(entry.text, str):
        message = {"role": "user", "content": said(entry.text, texts)}
        return {"messages": [message], **tail}
    lines = [said(line, texts) for line in entry.text]
    if entry.given:
        roles = ["user", "assistant"]
        return {
            "messages": [{"role": roles[index % 2], "content": line} for index, line in enumerate(lines)],
            **tail,
        }
    return {"turns": lines, **tail}


def said(text: str, texts: dict) -> str:
    text = text.format(**texts).replace("Netherlands's", "Netherlands'")
    text = re.sub(r"\b([Aa]) (?=[$£]?(?:8\d*|11|18)(?!\d))", r"\1n ", text)  # an 8% tip, an $80 lamp
    return text[0].upper() + text[1:] if text.startswith("the Netherlands") else text


def prompt_of(item: dict) -> str:
    return json.dumps(item.get("messages") or item["turns"]).lower()


def suite() -> list[dict]:
    items = []
    for category, entries in CATEGORIES.items():
        rng = random.Random(f"{SEED}-{category}")
        seen: set[str] = set()
        chosen: list[tuple[int, dict]] = []
        for round_number in range(20):
            order = list(enumerate(entries))
            if round_number:  # every wording once, then some again
                rng.shuffle(order)
            for index, entry in order:
                if round_number and len(chosen) >= PER_CATEGORY:
                    break
                for _ in range(3000 if round_number == 0 else 300):
                    item = fill(category, entry, rng)
                    if item is not None and prompt_of(item) not in seen:
                        seen.add(prompt_of(item))
                        chosen.append((index, item))
                        break
                else:
                    if round_number == 0:
                        raise SystemExit(f"no clean values for {category}: {entry.text!r}")
        if len(chosen) < PER_CATEGORY:
            raise SystemExit(f"{category}: only {len(chosen)} items")
        chosen.sort(key=lambda pair: pair[0])
        for number, (_, item) in enumerate(chosen, 1):
            name = f"{PREFIX}-{category.replace('_', '-')}-{number:03d}"
            items.append({"id": name, "category": category, **item})
    return items


# fmt: off
# ---------------------------------------------------------------- words and names
WOMEN = ("Alice", "Brigid", "Chloe", "Daisy", "Eva", "Fiona", "Grace", "Hannah", "Isla", "Julia", "Lucy", "Maria", "Nadia", "Paula", "Rosa", "Sarah", "Tina", "Zoe")
MEN = ("Alex", "Brian", "Callum", "David", "Ed", "Felix", "George", "Hugo", "Ivan", "James", "Kevin", "Luis", "Martin", "Oscar", "Peter", "Ravi", "Sam", "Tom")

SPELL_WORDS = tuple(
    "ocean planet rocket pirate monkey turtle carrot potato sandwich breakfast pillow mirror ladder basket "
    "blanket pocket button ticket garage airport station library museum hospital church farmer baker driver "
    "nurse soldier captain brother father daughter husband doctor purple golden heavy gentle strange "
    "famous simple careful dangerous beautiful believe remember finish listen know laugh though through "
    "weight height neighbour beach shark whale lion horse sheep goose mouse snow storm thunder desert "
    "forest valley field leaf root seed stone paper scissors glue map key lamp bed hat shoe egg fish "
    "cheese bacon pepper onion cherry peach grape".split()
)
COUNT_WORDS = tuple(
    "raspberry blueberry cranberry parrot raccoon kangaroo buffalo grasshopper butterfly beetle "
    "mosquito lobster salmon chicken turkey goose sheep rooster piglet hedgehog squirrel badger otter "
    "keyboard computer screen printer battery charger bicycle scooter tractor rocket railway airport "
    "platform suitcase passport compass tissue pocket button zipper collar necklace bracelet earring glasses "
    "mittens stockings cotton velvet leather toffee jelly custard pudding lasagna macaroni "
    "broccoli zucchini avocado pineapple papaya mango cinnamon ginger mustard parsley hello goodbye "
    "tomorrow yesterday afternoon evening weekend assessment possession business "
    "occasion accident difference excellent referee referral parallel balcony staircase bathroom".split()
)

# ---------------------------------------------------------------- the wordings
CATEGORIES: dict[str, list[Entry]] = {}

CATEGORIES["arithmetic"] = [
    W("add {a} to {b}", "a + b", a=Whole(20, 900), b=Whole(20, 900)),
    W("What is {a} + {b}?", "a + b", a=Whole(100, 9000), b=Whole(100, 9000)),
    W("{a} plus {b} equals?", "a + b", a=Whole(30, 2500), b=Whole(30, 2500)),
    W("{a}*{b}", "a * b", a=Whole(12, 600), b=Whole(4, 80)),
    W("{a}/{b}", "a / b", "a > b", a=Whole(30, 3000), b=Whole(2, 25)),
    W("{a} -{b}", "a - b", "a > b", a=Whole(80, 8000), b=Whole(20, 4000)),
    W("what does {a} times {b} give", "a * b", a=Whole(13, 400), b=Whole(5, 60)),
    W("Mind telling me {a} x {b}? I left my glasses at home.", "a * b", a=Whole(12, 200), b=Whole(6, 40)),
    W("im on shift and need {a} minus {b} real quick", "a - b", "a > b", a=Whole(100, 2000), b=Whole(25, 900)),
    W("Could you multiply {a} and {b} for me, love?", "a * b", a=Whole(14, 250), b=Whole(6, 50)),
    W("{a} over {b}, please", "a / b", "a % b == 0 and a > b", a=Whole(36, 3000), b=Whole(4, 60)),
    W("tot up {a}, {b} and {c}", "a + b + c", a=Whole(15, 700), b=Whole(15, 700), c=Whole(15, 700)),
    W("Our stock list says {a} and {b}. Can you add those two?", "a + b", a=Whole(200, 6000), b=Whole(200, 6000)),
    W("what do u get when u subtract {b} from {a}", "a - b", "a > b", a=Whole(90, 3000), b=Whole(30, 1500)),
    W("knock {b} off {a}", "a - b", "a > b", a=Whole(100, 1500), b=Whole(11, 700)),
    W("Solve: {a} + {b}", "a + b", a=Whole(400, 9999), b=Whole(400, 9999)),
    W("Evaluate {a} - {b}.", "a - b", "a > b", a=Whole(1000, 9999), b=Whole(300, 8000)),
    W("Let me know what {a} ÷ {b} is.", "a / b", "a > b", a=Whole(60, 2400), b=Whole(3, 24)),
    W("I am knitting a blanket: {a} rows of {b} stitches, so what is {a} times {b}?", "a * b", a=Whole(40, 260), b=Whole(24, 99)),
    W("whats {a} and {b} and {c} all together", "a + b + c", a=Whole(9, 400), b=Whole(9, 400), c=Whole(9, 400)),
    W("{a} + {b} + {c} = ?", "a + b + c", a=Whole(50, 3000), b=Whole(50, 3000), c=Whole(50, 3000)),
    W("If you take {a} and remove {b}, what remains?", "a - b", "a > b", a=Whole(60, 1200), b=Whole(20, 600)),
    W("Give me {a} multiplied by {b}.", "a * b", a=Whole(18, 900), b=Whole(7, 70)),
    W("so {a} divided by {b} would be", "a / b", "a % b == 0 and a > b", a=Whole(48, 2000), b=Whole(4, 48)),
    W("I've two readings, {a} and {b}. What's their sum?", "a + b", a=Decimal(2, 300, 1), b=Decimal(2, 300, 1)),
    W("How far apart are {a} and {b}?", "a - b", "a > b", a=Whole(200, 5000), b=Whole(40, 2500)),
    W("what is {a} minus {b}? the app on my watch is broken", "a - b", "a > b", a=Decimal(30, 200, 2), b=Decimal(2, 90, 2)),
    W("{a} and {b}, summed up please", "a + b", a=Decimal(1, 99, 2), b=Decimal(1, 99, 2)),
    W("the price list says {a} plus {b}, what is it in total", "a + b", a=Decimal(1, 60, 2), b=Decimal(1, 60, 2)),
    W("{a} × {b} ?", "a * b", a=Decimal(1, 40, 1), b=Whole(3, 60)),
    W("How much is {a} multiplied with {b}", "a * b", a=Decimal(2, 30, 1), b=Decimal(1, 12, 1)),
    W("ok {b} lots of {a}", "a * b", a=Whole(12, 180), b=Whole(4, 40)),
    W("what number is {a} less than {b}", "b - a", "b > a", a=Whole(20, 600), b=Whole(80, 2400)),
    W("what number is {a} more than {b}", "a + b", a=Whole(20, 900), b=Whole(80, 2400)),
    W("Gran here. Would you add {a} and then {b} to {c}?", "a + b + c", a=Whole(12, 300), b=Whole(12, 300), c=Whole(30, 900)),
    W("Need a hand with long division: {a} by {b}.", "a / b", "a % b == 0 and a > 3 * b", a=Whole(200, 6000), b=Whole(6, 48)),
    W("{a} shared by {b} is what?", "a / b", "a % b == 0 and a > b", a=Whole(24, 900), b=Whole(3, 30)),
    W("{a} times {b} plus {c}", "a * b + c", a=Whole(6, 90), b=Whole(4, 40), c=Whole(5, 300)),
    W("first {a} times {b}, then minus {c}. result?", "a * b - c", "a * b > c", a=Whole(8, 70), b=Whole(6, 40), c=Whole(9, 99)),
    W("{a} x ({b} + {c})", "a * (b + c)", a=Whole(3, 30), b=Whole(3, 60), c=Whole(3, 60)),
    W("({a} - {b}) / {c}", "(a - b) / c", "a > b and (a - b) % c == 0", a=Whole(60, 500), b=Whole(4, 59), c=Whole(2, 12)),
    W("Can you figure out {a} + {b} before the kettle boils?", "a + b", a=Whole(120, 3500), b=Whole(120, 3500)),
    W("thanks in advance! {a} - {b}", "a - b", "a > b", a=Whole(200, 5000), b=Whole(60, 2500)),
    W("{a} take {b}?", "a - b", "a > b", a=Whole(30, 700), b=Whole(12, 400)),
    W("The kids want to know what {a} groups of {b} make.", "a * b", a=Whole(5, 40), b=Whole(12, 90)),
    W("I counted {a} tins on one shelf and {b} on the other. {a} + {b} = ?", "a + b", a=Whole(24, 900), b=Whole(24, 900)),
    W("product: {a}, {b}", "a * b", a=Whole(21, 500), b=Whole(5, 60)),
    W("work this out: {a} divided into {b} equal lots", "a / b", "a % b == 0 and a > b", a=Whole(40, 1500), b=Whole(4, 30)),
    W("I had {a} points and lost {b}, so {a} minus {b} is?", "a - b", "a > b", a=Whole(300, 4000), b=Whole(100, 2500)),
    W("I need the exact value of {a} * {b} for a form.", "a * b", a=Whole(110, 2500), b=Whole(8, 52)),
    W("hiya, {a} add {b}", "a + b", a=Whole(25, 1500), b=Whole(25, 1500)),
    W("{a} take away {b} take away {c}, what have i got", "a - b - c", "a > b + c", a=Whole(200, 1500), b=Whole(20, 300), c=Whole(20, 300)),
    W("A number please: {a} / {b} - {c}", "a / b - c", "a % b == 0 and a > b * c", a=Whole(200, 3000), b=Whole(3, 20), c=Whole(2, 30)),
    W("{a_c} minus {b_c} is how much", "a - b", "a > b", a=Whole(2000, 9999), b=Whole(1000, 8000)),
    W("whats double {a} plus {b}, i mean 2 x {a} + {b}", "2 * a + b", a=Whole(15, 600), b=Whole(10, 400)),
]

CATEGORIES["percent"] = [
    W("What is {p}% of {y}?", "p * y / 100", p=Whole(2, 98), y=Whole(20, 1500)),
    W("percentage question: {p} % of {y}", "p * y / 100", p=Whole(3, 97), y=Whole(12, 960)),
    W("i need {p}% of {y}", "p * y / 100", p=Whole(5, 85, 5), y=Whole(16, 1600)),
    W("Take {y}. What's {p} percent of it?", "p * y / 100", p=Whole(2, 80), y=Whole(30, 1200)),
    W("can you get me {p} percent of {y} dollars", "p * y / 100", p=Whole(4, 65), y=Whole(25, 900)),
    W("Say I have £{y} and give away {p}% of it. How much do I give away?", "p * y / 100", p=Whole(5, 60, 5), y=Whole(30, 700)),
    W("how big is a {p}% tip on a ${y} meal", "p * y / 100", p=pick_number(10, 12, 15, 17, 19, 20, 22, 25), y=Whole(14, 170)),
    W("Tip calculation: bill ${y}, rate {p}%.", "p * y / 100", p=Whole(10, 25), y=Money(15, 130)),
    W("the waiter was lovely, id like to tip {p}% on {y} dollars. how much is that tip", "p * y / 100", p=Whole(12, 30), y=Whole(22, 150)),
    W("What tip should I leave if the bill is £{y} and I go for {p} percent?", "p * y / 100", p=Whole(10, 20), y=Whole(18, 190)),
    W("A ${y} tab plus {p}% for the bartender. What's the sum I hand over?", "y * (100 + p) / 100", p=pick_number(10, 15, 20, 25), y=Money(9, 90)),
    W("{y} bucks for the meal, {p} percent tip on top. Full amount?", "y * (100 + p) / 100", p=Whole(10, 26), y=Whole(16, 220)),
    W("We owe £{y} for the curry. With a tip of {p}% added, what do we pay?", "y * (100 + p) / 100", p=Whole(8, 20), y=Whole(24, 160)),
    W("grand total for ${y} plus {p}% tip", "y * (100 + p) / 100", p=Whole(12, 25), y=Whole(18, 240)),
    W("my breakfast was ${y}, tip is {p}%, how much does it all cost me", "y * (100 + p) / 100", p=pick_number(10, 15, 18, 20), y=Money(7, 40)),
    W("The boots are £{y}, reduced by {p}%. What do they cost in the sale?", "y * (100 - p) / 100", p=Whole(5, 70, 5), y=Whole(35, 240)),
    W("price after {p}% discount on ${y}?", "y * (100 - p) / 100", p=Whole(3, 60), y=Whole(20, 900)),
    W("student discount is {p} percent, laptop is {y} dollars. what do i pay", "y * (100 - p) / 100", p=Whole(5, 25), y=Whole(400, 1800, 5)),
    W("I get {p}% staff discount. How much would a ${y} coffee machine be for me?", "y * (100 - p) / 100", p=Whole(10, 45), y=Whole(60, 350)),
    W("Everything in the shop is {p}% cheaper today. What's a £{y} dress now?", "y * (100 - p) / 100", p=Whole(10, 50, 5), y=Money(18, 120)),
    W("was {y}, now {p}% off. what is it now?", "y * (100 - p) / 100", p=Whole(5, 75, 5), y=Whole(24, 640)),
    W("How many pounds do I save if a £{y} fridge is {p}% off?", "p * y / 100", p=Whole(5, 45, 5), y=Whole(180, 900)),
    W("The voucher takes {p}% off my ${y} basket. How many dollars come off?", "p * y / 100", p=Whole(5, 40), y=Money(25, 180)),
    W("discount amount for {p}% on {y} please", "p * y / 100", p=Whole(4, 55), y=Whole(40, 800)),
    W("I bake and sell cakes. If {p}% of {y} cakes are chocolate, how many chocolate cakes do I have?", "p * y / 100", "p * y % 100 == 0", p=Whole(5, 90, 5), y=Whole(20, 500)),
    W("{p}% of our {y} members voted. How many voted?", "p * y / 100", "p * y % 100 == 0", p=Whole(12, 96), y=Whole(50, 1500)),
    W("a recipe wants {p} percent of {y} grams of flour, how many grams is it", "p * y / 100", p=Whole(5, 95, 5), y=Whole(100, 1000, 10)),
    W("Find me {p} percent of ${y}.", "p * y / 100", p=Whole(2, 49), y=Money(30, 400)),
    W("Lad wants {p}% of the £{y} takings. How much would he get?", "p * y / 100", p=Whole(5, 40), y=Whole(80, 1200)),
    W("The phone's battery is {y} mAh and {p}% is left. How many mAh is that?", "p * y / 100", p=Whole(10, 90, 5), y=Whole(2000, 5000, 100)),
    W("For my statistics class: {p}% out of {y} is what number?", "p * y / 100", p=Whole(11, 94), y=Whole(50, 1800)),
    W("what would a {p}% tip come to if we spent {y} pounds", "p * y / 100", p=Whole(8, 18), y=Whole(30, 210)),
    W("cab fare {y} dollars, tip {p} percent - the tip is?", "p * y / 100", p=Whole(10, 25), y=Whole(8, 75)),
    W("nails were ${y} and i always tip {p}%, so how much tip", "p * y / 100", p=pick_number(10, 15, 20, 25), y=Whole(28, 110)),
    W("hair salon charged ${y}, i add {p}%. what leaves my wallet", "y * (100 + p) / 100", p=pick_number(10, 15, 20), y=Whole(35, 170)),
    W("If a meal is £{y} and a tip of {p}% goes on it, how much is the lot?", "y * (100 + p) / 100", p=Whole(10, 15), y=Whole(20, 145)),
    W("Ticket ${y}. Senior discount {p}%. So I pay?", "y * (100 - p) / 100", p=Whole(10, 50, 5), y=Money(8, 60)),
    W("season pass {y} dollars minus {p} percent, price?", "y * (100 - p) / 100", p=Whole(5, 40), y=Whole(70, 600)),
    W("I'm buying paint for £{y} with {p}% off for trade customers. Could you tell me the price?", "y * (100 - p) / 100", p=Whole(5, 30), y=Money(22, 140)),
    W("{p}% off a {y} dollar guitar is what price", "y * (100 - p) / 100", p=Whole(5, 55), y=Whole(90, 950)),
    W("Black Friday deal: {p} percent off ${y}. What's left to pay?", "y * (100 - p) / 100", p=Whole(10, 65, 5), y=Whole(45, 1300)),
    W("kids shoes {y} pounds {p} percent off how much now", "y * (100 - p) / 100", p=Whole(10, 60, 5), y=Whole(14, 60)),
    W("Is {p}% of {y} a lot? How much is it?", "p * y / 100", p=Whole(3, 78), y=Whole(60, 1000)),
    W("Sorry, one more thing: {p}% of £{y}?", "p * y / 100", p=Whole(4, 72), y=Whole(35, 850)),
    W("you can work out {p}% of {y} right?", "p * y / 100", p=Whole(6, 93), y=Whole(24, 720)),
    W("I'd like {p} percent of {y}, and the exact figure if you can.", "p * y / 100", p=Whole(10, 95, 5), y=Whole(30, 900)),
    W("out of {y}, what is {p}%", "p * y / 100", p=Whole(2, 96), y=Whole(40, 2500)),
    W("Coach says {p}% of {y} shots went in. How many shots went in?", "p * y / 100", "p * y % 100 == 0", p=Whole(20, 95), y=Whole(20, 400, 10)),
    W("{p} percent. {y} dollars. what's the tip?", "p * y / 100", p=Whole(10, 28), y=Whole(17, 155)),
    W("Dear assistant, kindly compute {p}% of {y}.", "p * y / 100", p=Whole(2, 89), y=Whole(33, 777)),
    W("work out the money off: {p}% on a ${y} tent", "p * y / 100", p=Whole(5, 50, 5), y=Whole(65, 420)),
    W("how do i take {p} percent off {y}, whats the result", "y * (100 - p) / 100", p=Whole(4, 70), y=Whole(25, 900)),
    W("The charity gets {p}% of every £{y} ticket. How many pounds is that per ticket?", "p * y / 100", p=Whole(5, 50, 5), y=Whole(12, 90)),
    W("hubby left a {p}% tip on ${y}. how much tip did he leave", "p * y / 100", p=Whole(10, 30), y=Money(20, 140)),
]

CATEGORIES["weekday"] = [
    W("which weekday do you get {n} days after {d}", "n"),
    W("today is {d}, what day is it {n} days from now", "n"),
    W("{d} today. {n} days later?", "n"),
    W("Suppose today is {d}. What day of the week comes {n} days later?", "n"),
    W("{n} days before {d} is which day?", "-n"),
    W("{d} + {n} days = ?", "n"),
    W("{d_low} - {n} days", "-n"),
    W("My night shift starts {n} days after {d}. What day of the week do I start?", "n", n=Whole(2, 30)),
    W("Scouts meet {n} days from today. It's {d} today. Which day do we meet?", "n", n=Whole(2, 25)),
    W("If tomorrow is {d}, which day is today?", "-1"),
    W("if yesterday was {d_low} whats today", "1"),
    W("Today's {d}. And tomorrow?", "1"),
    W("it was {d_low} yesterday. so tomorrow is?", "2"),
    W("What's the day after tomorrow when today is {d}?", "2"),
    W("Day before yesterday was what, if it's {d} today?", "-2"),
    W("the match is in {n} days and its {d_low}. what day is the match", "n", n=Whole(2, 40)),
    W("Medication runs out in {n} days. It is {d} now, so which day is that?", "n", n=Whole(2, 30)),
    W("I gave birth {n} days ago and today is {d}. On what weekday was the baby born?", "-n", n=Whole(2, 40)),
    W("Starting from {d}, move on {n} days. Which weekday?", "n"),
    W("Starting from {d}, move back {n} days. Which weekday?", "-n"),
    W("whats {n} days past {d_low}", "n"),
    W("Our landlord promised to come {n} days after {d}. When is that, as a weekday?", "n", n=Whole(2, 21)),
    W("The dough rested from {d} for {n} days. What day did we bake?", "n", n=Whole(2, 6)),
    W("help, which day was {n} days before this {d}?", "-n"),
    W("Two weeks from {d}, what weekday is it?", "14"),
    W("in a week it will be what day if today is {d_low}", "7"),
    W("I counted {n} days from {d} and got lost. Where should I end up?", "n"),
    W("{n} days after a {d} falls on", "n"),
    W("{n} days later than {d}. Which day of the week?", "n"),
    W("The bin lorry came on {d}. It comes again in {n} days. Which day?", "n", n=Whole(2, 20)),
    W("My visa interview is {n} days away, today being {d}. Name the weekday please.", "n"),
    W("Suppose it is {d}. What was the weekday {n} days back?", "-n"),
    W("tell me what day it was {n} days ago. today = {d_low}", "-n"),
    W("She called me {n} days before {d}. What day was that?", "-n", n=Whole(2, 30)),
    W("Boat leaves {d}. The trip lasts {n} days. What day are we back, {n} days later?", "n", n=Whole(3, 20)),
    W("need weekday: {d}, {n} days on", "n"),
    W("need weekday: {d}, {n} days earlier", "-n"),
    W("Last time I watered the cactus was {d}, and I water it every {n} days. What day is next?", "n", n=Whole(4, 30)),
    W("can u tell me the day {n} days after {d} pls", "n"),
    W("The deadline slipped by {n} days from {d}. What day is it now?", "n", n=Whole(2, 15)),
    W("It is {d} and I jump ahead {n} days. Which weekday am I on?", "n"),
    W("I'm {n} days into my diet and today is {d}. On which weekday was it {n} days ago?", "-n", n=Whole(3, 50)),
    W("If the first lesson was on {d}, which weekday is {n} days later?", "n"),
    W("{n} days ago it was {d}. What is today?", "n"),
    W("In {n} days it will be {d}. What is today?", "-n"),
    W("My flight is {n} days after {d_low}, what weekday do i fly", "n", n=Whole(2, 45)),
    W("How about {n} days before {d}? Just the name of the day.", "-n"),
    W("Just the day name please: {n} days after {d}.", "n"),
    W("Choir practice was {d}. We sing again {n} days afterwards. On which day?", "n", n=Whole(2, 28)),
    W("a puppy was born {n} days before {d}, what day of the week", "-n", n=Whole(2, 50)),
    W("Which day of the week do I get if I go {n} days beyond {d}?", "n"),
    W("got paid {d_low}, next pay in {n} days, what day will that be", "n", n=pick_number(7, 10, 14, 15, 28, 30)),
    W("Pharmacy said come back in {n} days. I was there on {d}. Which day do I go?", "n", n=Whole(2, 14)),
    W("What would the weekday be {n} days after {d}, dear?", "n"),
]

CATEGORIES["date"] = [
    W("{n} days after {d}?", "n"),
    W("what is {d} plus {n} days", "n"),
    W("what's {d} minus {n} days", "-n"),
    W("{n} days before {d_low}", "-n"),
    W("It's {d} today. What date will it be {n} days from now?", "n"),
    W("today: {d}. in {n} days?", "n"),
    W("Which date do I get if I add {n} days to {d}?", "n"),
    W("add {n} days to {d_low}", "n"),
    W("go back {n} days from {d_low}, which date", "-n"),
    W("The stitches come out {n} days after {d_th}. What's the date then?", "n", n=Whole(5, 21)),
    W("My tenancy ends {n} days after the {d_ukth}. Can you give me the date?", "n"),
    W("I posted the parcel on {d_uk}. It should be there {n} days later. What date is that?", "n", n=Whole(2, 20)),
    W("essay due {d_low}, want to finish {n} days earlier. which date is that", "-n", n=Whole(2, 14)),
    W("Our scout camp opens on {d_th} and closes {n} days later. On which date does it close?", "n", n=Whole(3, 14)),
    W("If {d} is today, what was the date {n} days back?", "-n"),
    W("The eggs hatch {n} days after {d}. Which date should I expect chicks?", "n", n=Whole(14, 30)),
    W("Could you count {n} days on from the {d_ukth}?", "n"),
    W("Could you count {n} days back from the {d_ukth}?", "-n"),
    W("visa valid until {n} days after {d}, so until what date", "n"),
    W("Warranty claim filed {d_uk}, they answer {n} days after. Date of the answer?", "n"),
    W("Dear helper, which date lies {n} days after {d_th}?", "n"),
    W("Which date lies {n} days before {d_th}?", "-n"),
    W("my period started {d_low} and the next one is {n} days later, what date", "n", n=Whole(24, 30)),
    W("whats the date gonna be {n} days after {d_low}", "n"),
    W("We got engaged {n} days before {d}. On what date was that?", "-n"),
    W("Bakery order placed {d}, pick up {n} days later. What date do I pick up?", "n", n=Whole(2, 15)),
    W("The bank says the money arrives {n} days from {d_uk}. What date is that?", "n", n=Whole(2, 12)),
    W("physio again in {n} days. today's {d}. date?", "n"),
    W("Kick-off is on {d_uk}. Training starts {n} days sooner. Which date is that?", "-n"),
    W("calendar question: {d} and then {n} days more", "n"),
    W("calendar question: {n} days back from {d}", "-n"),
    W("I bought a bus pass on {d_th}; it stops working {n} days later. When does it stop?", "n"),
    W("Tell me the date {n} days following {d}.", "n"),
    W("what date precedes {d} by {n} days", "-n"),
    W("The kitten was born {n} days before the {d_ukth}. What was its birth date?", "-n"),
    W("{d_short}, {n} days on?", "n"),
    W("{d_short}, {n} days earlier?", "-n"),
    W("Moving house {n} days after {d}. What date is moving day?", "n"),
    W("We leave for Spain on {d_th} and I start packing {n} days before. What date do I start packing?", "-n", n=Whole(2, 12)),
    W("I quit smoking {n} days ago, and today is {d_uk}. What date did I quit?", "-n"),
    W("quit sugar on {d_low}, made it {n} days. what date is it now", "n"),
    W("The fair was meant for {d} but got put off by {n} days. When is it now?", "n"),
    W("Please shift {d_th} forward by {n} days.", "n"),
    W("Please shift {d_th} backward by {n} days.", "-n"),
    W("Suppose a letter dated {d} gets an answer {n} days later. What date is on the answer?", "n"),
    W("{n} days later than the {d_ukth} makes which date?", "n"),
    W("how do i figure out the date {n} days from {d}? what is it?", "n"),
    W("exam on {d_low}. i want {n} days to study, so i start {n} days before. when do i start", "-n", n=Whole(3, 25)),
    W("The tomatoes went in on {d_uk}, and we picked the first one {n} days afterwards. Date?", "n", n=Whole(10, 30)),
    W("The paint needs {n} days to dry from {d}. On which date is it dry?", "n", n=Whole(2, 9)),
    W("{d} is {n} days from now. What is today's date?", "-n"),
    W("{d} was {n} days ago. What is today's date?", "n"),
    W("Gym membership froze on {d} for {n} days. On which date, {n} days later, does it restart?", "n"),
    W("next blood test {n} days after {d_uk} please, date only", "n"),
]

BORN = Whole(1932, 2014)
CATEGORIES["age"] = [
    W("If I was born in {y}, how old am I in {z} once I've had my birthday?", "z - y", "z > y + 2", y=BORN, z=Whole(2020, 2048)),
    W("how old will i be in {z}, born {y}, birthday already over", "z - y", "z > y + 2", y=BORN, z=Whole(2024, 2050)),
    W("year {z} minus birth year {y}: how old is that person at year's end?", "z - y", "z > y + 2", y=BORN, z=Whole(1990, 2040)),
    W("{she}'s birth year is {y}. What age does she reach in {z}?", "z - y", "z > y + 2", y=BORN, z=Whole(2018, 2045)),
    W("My granddad came into the world in {y}. How old did he turn in {z}?", "z - y", "z > y + 40", y=Whole(1920, 1955), z=Whole(1985, 2025)),
    W("nan was born {y}, what age on her birthday in {z}?", "z - y", "z > y + 30", y=Whole(1925, 1955), z=Whole(1980, 2025)),
    W("A lad born in {y}: how old will he be by the end of {z}?", "z - y", "z > y + 2", y=Whole(1995, 2018), z=Whole(2021, 2045)),
    W("What age is a woman from {y} in {z}, assuming her birthday has gone by?", "z - y", "z > y + 15", y=Whole(1940, 2000), z=Whole(2016, 2040)),
    W("The actor was born in {y}. How old was he when he turned a year older in {z}?", "z - y", "z > y + 12", y=Whole(1935, 1990), z=Whole(1970, 2024)),
    W("Someone in my class was born in {y}. How old will they turn in {z}?", "z - y", "z > y + 5", y=Whole(1998, 2012), z=Whole(2022, 2060)),
    W("{he} is {m}. {she} is {n} years older than {he}. What is her age?", "m + n", m=Whole(4, 60), n=Whole(2, 24)),
    W("{she} is {m}. {he} is {n} years younger than {she}. What is his age?", "m - n", "m > n + 2", m=Whole(12, 75), n=Whole(2, 24)),
    W("im {m} and my sis is {n} yrs younger. her age?", "m - n", "m > n + 2", m=Whole(12, 45), n=Whole(2, 14)),
    W("im {m} and my big bro is {n} yrs older. his age?", "m + n", m=Whole(6, 45), n=Whole(2, 14)),
    W("The captain of our team is {n} years older than me. I'm {m}. How old is the captain?", "m + n", m=Whole(14, 35), n=Whole(2, 15)),
    W("My husband is {m}; I am {n} years younger. How old does that make me?", "m - n", "m > n + 20", m=Whole(28, 80), n=Whole(2, 15)),
    W("The younger nurse is {n} years below the older one, who is {m}. How old is the younger nurse?", "m - n", "m > n + 20", m=Whole(35, 64), n=Whole(3, 30)),
    W("The horse is {m} years old. The pony is {n} years younger. How old is the pony?", "m - n", "m > n + 1", m=Whole(8, 25), n=Whole(2, 7)),
    W("Our tortoise is {n} years older than my uncle, and my uncle is {m}. How old is the tortoise?", "m + n", m=Whole(30, 60), n=Whole(5, 40)),
    W("I turn {m} this week. What age will I be in {n} years?", "m + n", m=Whole(11, 70), n=Whole(2, 30)),
    W("{n} years from now, how old is a person of {m}?", "m + n", m=Whole(15, 75), n=Whole(2, 35)),
    W("she is {m} now what age will she be {n} years later", "m + n", m=Whole(7, 70), n=Whole(2, 35)),
    W("My girl is {m}. In {n} years she'll be what age?", "m + n", m=Whole(2, 17), n=Whole(2, 25)),
    W("how old was i {n} years ago, im {m} today", "m - n", "m > n + 2", m=Whole(18, 75), n=Whole(2, 45)),
    W("I am {m}. We moved here {n} years ago. How old was I then?", "m - n", "m > n + 2", m=Whole(20, 75), n=Whole(3, 40)),
    W("We married {n} years ago and I'm {m} now. At what age did I marry?", "m - n", "m > n + 18", m=Whole(40, 85), n=Whole(5, 50)),
    W("{he} is {m} today. How old was he {n} years back?", "m - n", "m > n + 2", m=Whole(20, 80), n=Whole(3, 50)),
    W("The old boat is {m} years old. How old will it be in {n} years?", "m + n", m=Whole(20, 70), n=Whole(5, 30)),
    W("{m} years old, minus {n} years: how old was this person?", "m - n", "m > n + 2", m=Whole(25, 90), n=Whole(4, 50)),
    W("A pensioner aged {m} started work {n} years ago. How old was she when she started?", "m - n", "m > n + 14", m=Whole(65, 88), n=Whole(35, 60)),
    W("I'm from {y}, so how old do I become in {z}?", "z - y", "z > y + 2", y=Whole(1955, 2010), z=Whole(2023, 2050)),
    W("somebody born in {y}, how old are they at the end of {z}?", "z - y", "z > y + 2", y=Whole(1950, 2010), z=Whole(2020, 2045)),
    W("born in {y}? then how old on your birthday in {z}?", "z - y", "z > y + 2", y=BORN, z=Whole(2019, 2049)),
    W("Our firm's founder, born {y}, retired on his birthday in {z}. At what age?", "z - y", "50 < z - y < 80", y=Whole(1930, 1965), z=Whole(1990, 2024)),
    W("{she} was born in {y}. She had her first child after her birthday in {z}. How old was she?", "z - y", "18 < z - y < 42", y=Whole(1940, 1995), z=Whole(1965, 2024)),
    W("mum was born in {y} and i was born in {z}, on her birthday! how old was mum that day", "z - y", "18 < z - y < 43", y=Whole(1950, 1990), z=Whole(1975, 2020)),
    W("The cake should say an age. {he} was born in {y} and the party is on his birthday in {z}. Which age?", "z - y", "z > y + 3", y=Whole(1940, 2018), z=Whole(2022, 2030)),
    W("There's a gap of {n} years between me and my older cousin. I am {m}. My cousin is?", "m + n", m=Whole(9, 50), n=Whole(2, 16)),
    W("There's a gap of {n} years between {she} and her younger brother. She is {m}. How old is the brother?", "m - n", "m > n + 1", m=Whole(10, 50), n=Whole(2, 9)),
    W("my bf is {n} years older then me and im {m} how old is he", "m + n", m=Whole(18, 40), n=Whole(2, 9)),
    W("{he} is {m} and his friend {she} is {n} years younger, so what's {she}'s age?", "m - n", "m > n + 2", m=Whole(15, 70), n=Whole(2, 12)),
    W("What's the age of a man {n} years older than a {m}-year-old?", "m + n", m=Whole(20, 60), n=Whole(3, 25)),
    W("What's the age of a girl {n} years younger than a {m}-year-old?", "m - n", "m > n + 2", m=Whole(9, 25), n=Whole(2, 10)),
    W("At {m} I feel old. What will I be in another {n} years?", "m + n", m=Whole(30, 70), n=Whole(3, 30)),
    W("in {n} years my {m} year old nephew turns", "m + n", m=Whole(2, 18), n=Whole(2, 20)),
    W("Grandma turns {m} today and Grandpa is {n} years older than her. How old is Grandpa?", "m + n", m=Whole(62, 90), n=Whole(2, 9)),
    W("Suppose you meet a {m} year old. How old were they {n} years earlier?", "m - n", "m > n + 2", m=Whole(22, 85), n=Whole(3, 40)),
    W("{he} and {she} are {n} years apart and {he}, the older one, is {m}. {she} is how old?", "m - n", "m > n + 2", m=Whole(14, 70), n=Whole(2, 12)),
    W("my professor was born {y}. its {z} and his birthday was last week. how old is he", "z - y", "28 < z - y < 75", y=Whole(1945, 1992), z=Whole(2018, 2030)),
    W("Age please. Birth: {y}. Now: {z}. Birthday: passed.", "z - y", "z > y + 2", y=BORN, z=Whole(2018, 2032)),
    W("The winemaker in our village was born in {y}. How old does she turn in {z}?", "z - y", "20 < z - y < 80", y=Whole(1950, 1995), z=Whole(1990, 2026)),
    W("I've been told that she was {m} when the twins came, {n} years ago. How old is she today?", "m + n", m=Whole(20, 42), n=Whole(2, 40)),
]

CATEGORIES["word_problem"] = [
    W("A nurse gives {a} patients {b} tablets each in the morning and {c} tablets in total at night. How many tablets does she hand out?", "a * b + c", a=Whole(6, 24), b=Whole(2, 5), c=Whole(10, 60)),
    W("{she} knits {a} squares a day. After {b} days she unravels {c} squares that went wrong. How many good squares are there?", "a * b - c", "c < a * b", a=Whole(3, 12), b=Whole(4, 20), c=Whole(2, 9)),
    W("Our warehouse had {a} pallets on Monday. A lorry brought {b} more and another took {c}. How many pallets are here now?", "a + b - c", "c < a + b", a=Whole(60, 300), b=Whole(15, 90), c=Whole(10, 120)),
    W("i get £{a} pocket money a week and spend £{b} of it every week. how much have i saved after {c} weeks", "(a - b) * c", "a > b + 1", a=Whole(6, 25), b=Whole(2, 12), c=Whole(4, 26)),
    W("A pub quiz has {a} rounds with {b} questions each. We got {c} wrong. How many did we get right?", "a * b - c", "c < a * b", a=Whole(4, 10), b=Whole(8, 20), c=Whole(5, 30)),
    W("{he} scored {a} goals in autumn and {b} in spring. His rival scored {c} goals all season. How many more did {he} score than his rival?", "a + b - c", "c < a + b", a=Whole(8, 30), b=Whole(8, 30), c=Whole(5, 15)),
    W("Flour comes in bags of {a} kg. The bakery uses {b} kg a day and bakes {c} days a week. How many bags does it need for one week?", "b * c / a", "b * c % a == 0", a=pick_number(5, 10, 15, 20, 25), b=Whole(20, 90, 5), c=pick_number(5, 6, 7)),
    W("The tour group has {a} people. Museum tickets cost ${b} each, and the guide costs ${c} for the whole group. What does it cost altogether?", "a * b + c", a=Whole(8, 32), b=Whole(5, 18), c=Whole(40, 150)),
    W("my phone has {a} GB of space. the apps use {b} GB and the photos {c} GB. how much space is free", "a - b - c", a=pick_number(128, 256), b=Whole(15, 55), c=Whole(10, 60)),
    W("A box of tea has {a} bags. We drink {b} cups a day with one bag each. After {c} days, how many bags remain?", "a - b * c", a=pick_number(80, 100, 120, 160, 240), b=Whole(2, 6), c=Whole(3, 12)),
    W("The choir has {a} sopranos, {b} altos and twice as many basses as altos. How many singers is that?", "a + b + 2 * b", a=Whole(8, 40), b=Whole(5, 25)),
    W("Grandpa picked {a} plums. He made jam with {b} of them and shared the rest equally among {c} neighbours. How many plums did each neighbour get?", "(a - b) / c", "a > b + c and (a - b) % c == 0", a=Whole(60, 220), b=Whole(20, 59), c=Whole(3, 8)),
    W("Parking is ${p} for the first hour and ${q} for each hour after that. I stay {a} hours. What do I pay?", "p + q * (a - 1)", "p > q", a=Whole(3, 9), p=Money(2.5, 6, 50), q=Money(1.5, 4, 50)),
    W("A theatre has {a} seats downstairs and {b} upstairs. {c} seats are empty tonight. How many people are watching?", "a + b - c", "c < a + b", a=Whole(120, 400), b=Whole(60, 200), c=Whole(12, 110)),
    W("we have {a} tents and each sleeps {b}. {c} scouts are coming. how many places are spare", "a * b - c", "c < a * b", a=Whole(6, 20), b=Whole(3, 8), c=Whole(15, 60)),
    W("{she} swims {a} lengths of a {b} metre pool and then {c} metres more in the lake. How many metres does she swim?", "a * b + c", a=Whole(6, 18), b=pick_number(20, 25), c=Whole(50, 400, 10)),
    W("A courier has {a} parcels. He drops {b} in the first street and {c} in the second. How many are still in the van?", "a - b - c", a=Whole(70, 200), b=Whole(8, 30), c=Whole(6, 30)),
    W("Lena's candle shop sells candles at ${p} each. She sold {a} on Saturday and {b} on Sunday. How much money came in?", "(a + b) * p", a=Whole(5, 40), b=Whole(4, 35), p=Money(3.5, 9.5, 25)),
    W("There are {a} sweets in a tin. {b} children each take {c}, and the teacher takes 2. How many sweets stay in the tin?", "a - b * c - 2", a=Whole(90, 200), b=Whole(6, 20), c=Whole(2, 4)),
    W("Two trains carry {a} and {b} passengers. At the border everyone changes into coaches of {c}. How many full coaches do they need?", "(a + b) / c", "(a + b) % c == 0", a=Whole(80, 320), b=Whole(80, 320), c=pick_number(40, 45, 50, 52, 55)),
    W("The gym costs £{a} a month. I have a £{b} voucher to use once. What will {c} months cost me?", "a * c - b", "b < a * c", a=Whole(18, 45), b=Whole(5, 40), c=Whole(3, 12)),
    W("hey can you help me, {a} pizzas are cut into {b} slices each and {c} slices got eaten. how many slices are left over?", "a * b - c", "c < a * b", a=Whole(4, 12), b=pick_number(6, 8, 10), c=Whole(8, 30)),
    W("A snail climbs {a} cm each hour and slides down {b} cm each hour. How many cm higher is it after {c} hours?", "(a - b) * c", "a > b + 1", a=Whole(6, 20), b=Whole(2, 9), c=Whole(3, 15)),
    W("{he} earns ${a} per lawn and mows {b} lawns. Petrol costs him ${c}. What's his profit?", "a * b - c", "c < a * b", a=Whole(12, 35), b=Whole(3, 14), c=Whole(6, 30)),
    W("A wall is {a} cm long. I hang {b} pictures that are each {c} cm wide. How much wall is left uncovered, in cm?", "a - b * c", a=Whole(300, 500), b=Whole(3, 7), c=Whole(20, 38)),
    W("I'm reading a {a}-page novel. I finished {b} pages last week. If I read {c} pages a day now, how many days will the rest take?", "(a - b) / c", "(a - b) % c == 0 and a - b > c", a=Whole(200, 480), b=Whole(30, 120), c=Whole(8, 40)),
    W("A farm stall sells melons for ${a} and pumpkins for ${b}. I take {c} melons and {e} pumpkins. What is the bill?", "a * c + b * e", a=Whole(3, 6), b=Whole(4, 9), c=Whole(2, 7), e=Whole(2, 6)),
    W("Class 4B collected {a} bottles and class 4A collected {b} fewer. How many bottles did the two classes collect?", "a + a - b", "b < a", a=Whole(60, 240), b=Whole(6, 50)),
    W("The lake is {a} m across. {she} rowed {b} m, rested, rowed {c} m more. How far is it to the other side, in metres?", "a - b - c", a=Whole(350, 500), b=Whole(60, 170), c=Whole(40, 140)),
    W("Each minibus takes {a} players. Our club has {b} girls and {c} boys. How many minibuses do we fill?", "(b + c) / a", "(b + c) % a == 0 and b + c > a", a=pick_number(8, 9, 12, 14, 16), b=Whole(15, 80), c=Whole(15, 80)),
    W("my cat eats {a} g of food in the morning and {b} g in the evening. how much does she eat in {c} days, in grams", "(a + b) * c", a=Whole(20, 60), b=Whole(20, 60), c=Whole(3, 14)),
    W("A video is {a} minutes long and I've seen a third of it. How many minutes are left?", "a - a / 3", "a % 3 == 0", a=Whole(30, 180)),
    W("A hotel has {a} floors with {b} rooms each. {c} rooms are being painted and cannot be used. How many rooms can guests use?", "a * b - c", "c < a * b", a=Whole(3, 14), b=Whole(8, 30), c=Whole(3, 16)),
    W("{he} put {a} dollars in the bank, then {b} dollars a month for {c} months. How many dollars has he put in?", "a + b * c", a=Whole(50, 400), b=Whole(15, 80), c=Whole(3, 12)),
    W("Five cousins each brought {a} cupcakes to the party and {b} were eaten. How many are left?", "5 * a - b", "b < 5 * a", a=Whole(8, 30), b=Whole(12, 38)),
    W("a bike trail is {a} km. we rode {b} km a day for {c} days. how many km still to ride", "a - b * c", a=Whole(200, 480), b=Whole(18, 45), c=Whole(2, 4)),
    W("I poured {a} small cups of {b} ml each from a 500 ml flask. How much is left in the flask, in ml?", "500 - a * b", "a * b < 490", a=Whole(3, 9), b=pick_number(40, 50, 60, 75, 80)),
    W("The florist got {a} tulips. {b} were broken. She puts {c} in each vase with the rest. How many vases can she fill?", "(a - b) / c", "(a - b) % c == 0 and a - b > c", a=Whole(60, 260), b=Whole(3, 20), c=pick_number(5, 7, 8, 9, 12)),
    W("A babysitter charges ${a} an hour plus ${b} for the bus. What does she get for {c} hours?", "a * c + b", a=Whole(9, 22), b=Whole(2, 8), c=Whole(3, 9)),
    W("Our street has {a} houses. Half of them have {b} windows and the other half have {c} windows. How many windows are there?", "a / 2 * b + a / 2 * c", "a % 2 == 0 and b != c", a=Whole(10, 40), b=Whole(4, 12), c=Whole(4, 12)),
    W("{she} bakes {a} scones at 8 o'clock and {b} more at noon, then sells them in bags of {c}. How many bags is that?", "(a + b) / c", "(a + b) % c == 0", a=Whole(24, 90), b=Whole(24, 90), c=pick_number(4, 5, 6, 8)),
    W("Socks are £{p} a pair. I want {a} pairs and have a £{b} note. What change will I be given?", "b - a * p", a=Whole(2, 6), p=Money(1.5, 4.8, 10), b=pick_number(20, 50)),
    W("The elevator went up {a} floors from floor {b} and then down {c}. Which floor is it on?", "b + a - c", "c < a + b", a=Whole(5, 20), b=Whole(2, 12), c=Whole(3, 14)),
    W("We picked {a} baskets of {b} apples. {c} apples had worms in them, so we fed those to the pigs. How many good apples did we have?", "a * b - c", "c < a * b", a=Whole(4, 16), b=Whole(15, 45), c=Whole(6, 40)),
    W("It costs {a} dollars to rent skates and {b} dollars per hour on the ice. What will {c} hours cost for one person?", "a + b * c", a=Whole(3, 9), b=Whole(4, 12), c=Whole(2, 5)),
    W("{he} has {a} old coins, {she} has three times as many. How many coins have they got together?", "a + 3 * a", a=Whole(12, 110)),
    W("the cafe had {a} croissants. it sold {b} before 9 and {c} after 9. how many went unsold", "a - b - c", a=Whole(70, 160), b=Whole(15, 40), c=Whole(10, 28)),
    W("My commute takes {a} minutes by bus plus {b} minutes on foot, twice a day. How many minutes a day is that?", "(a + b) * 2", a=Whole(15, 60), b=Whole(4, 25)),
    W("A ream has 500 sheets. We printed {a} letters of {b} sheets each. How many sheets are left?", "500 - a * b", "a * b < 490", a=Whole(20, 120), b=Whole(2, 4)),
    W("A TV series has {a} seasons of {b} episodes. I've watched {c} episodes. How many episodes are left for me?", "a * b - c", "c < a * b", a=Whole(3, 9), b=Whole(8, 24), c=Whole(10, 22)),
    W("{a} volunteers planted {b} trees each before lunch and {c} trees each after lunch. How many trees were planted?", "a * (b + c)", a=Whole(4, 24), b=Whole(3, 12), c=Whole(2, 12)),
    W("Rent is ${a} and we are {b} flatmates sharing it equally. My share of the power bill is ${c}. How much do I pay in total?", "a / b + c", "a % b == 0", a=Whole(300, 500), b=pick_number(2, 3, 4, 5), c=Whole(15, 60)),
    W("{she} sold {a} bracelets at ${p} each and used the money to buy a ${q} necklace. What is left of the money?", "a * p - q", "q < a * p", a=Whole(6, 20), p=Money(3.5, 8.5, 25), q=Money(10, 19, 50)),
    W("Karim drove {a} km on Monday. On Tuesday he drove {b} km less, and on Wednesday {c} km. How many km did he drive in the three days?", "a + (a - b) + c", "a > b", a=Whole(90, 220), b=Whole(15, 80), c=Whole(30, 200)),
    W("In the aquarium there are {a} tanks with {b} fish each. The keeper moves {c} fish to the pond. How many fish remain in the tanks?", "a * b - c", "c < a * b", a=Whole(5, 20), b=Whole(6, 22), c=Whole(8, 28)),
    W("the dentist sees {a} people a day from monday to friday and {b} on saturday. how many in a week", "5 * a + b", a=Whole(9, 26), b=Whole(3, 12)),
    W("Batteries come {a} to a pack. I need {b} for the torches and {c} for the toys. How many packs should I buy?", "(b + c) / a", "(b + c) % a == 0 and b + c > a", a=pick_number(4, 6, 8), b=Whole(4, 40), c=Whole(4, 40)),
    W("Ferry fare is £{p} per adult and £{q} per dog. {a} adults with {b} dogs pay how much?", "a * p + b * q", "p > q", a=Whole(2, 8), b=Whole(2, 4), p=Money(5, 12, 50), q=Money(1.5, 4, 50)),
    W("A sack of potatoes weighs {a} kg. The kitchen uses {b} kg each day. How many kg are left from {c} sacks after 2 days?", "a * c - 2 * b", "2 * b < a * c", a=pick_number(10, 15, 20, 25), b=Whole(4, 18), c=Whole(2, 6)),
    W("At the start {a} runners were in the race. {b} gave up and a quarter of the others walked the last part. How many ran all the way?", "(a - b) * 3 / 4", "(a - b) % 4 == 0 and a > b + 8", a=Whole(60, 300), b=Whole(4, 30)),
    W("{he} needs {a} screws per shelf and builds {b} shelves. The box he has holds {c} screws. How many screws will be left in it?", "c - a * b", a=Whole(4, 12), b=Whole(3, 12), c=Whole(150, 300)),
    W("Hi, quick puzzle from my kid's book: {a} frogs sit on a log, {b} jump in, {c} climb on. How many frogs on the log?", "a - b + c", "a > b + 1", a=Whole(12, 60), b=Whole(3, 20), c=Whole(2, 20)),
    W("I work {a} hours a week at ${b} an hour and pay ${c} for my bus pass. What's left of my weekly money?", "a * b - c", "c < a * b", a=Whole(8, 40), b=Whole(10, 24), c=Whole(12, 45)),
    W("A swimming badge takes {a} lessons of {b} minutes. {she} has done {c} lessons so far. How many minutes of lessons are still ahead?", "(a - c) * b", "a > c + 1", a=Whole(10, 20), b=pick_number(25, 30, 35, 40, 45), c=Whole(2, 9)),
]

CATEGORIES["spelling"] = [
    W("what is the correct spelling of {w}"),
    W("Spell the word {w}."),
    W("spell me {w}"),
    W("how is {w} spelt?"),
    W("{w} spelling"),
    W("Could you spell {w}, please?"),
    W("My handwriting app needs it letter by letter: {w}"),
    W("hey how do u spell {w}"),
    W("Can you help me spell {w}?"),
    W("I'm writing a birthday card. How do you spell {w}?"),
    W("Would you spell the word {w} for my son?"),
    W("letters in {w}?"),
    W("Please write {w} one letter at a time."),
    W("say {w} letter by letter"),
    W("I can never spell {w}. Help!"),
    W("Split the word {w} into its letters."),
    W("what are the letters of {w}"),
    W("Dictation practice: spell {w}, please."),
    W("spell this for me: {w}"),
    W("Is it hard to spell {w}? Show me."),
    W("the word '{w}', letter by letter"),
    W("How would a dictionary spell {w}?"),
    W("Spell {w} slowly, with a dash after each letter."),
    W("can you please spell out the word {w}"),
    W("{w}. spell."),
    W("Tell me the letters in {w} from first to last."),
    W("we play scrabble and someone laid {w}, how is it spelled"),
    W("Let me hear you spell '{w}'."),
    W("my spelling is awful, how do you write {w}"),
    W("Next one for the spelling list: {w}"),
    W("How's {w} spelled in British schools?"),
    W("go through the letters of {w}"),
    W("could u give me the spelling of the word {w}"),
    W("I need to text the word {w}. What letters do I type?"),
    W('how do we spell "{w}"?'),
    W("Spell {w}, thanks!"),
    W("Teach me to spell {w}."),
    W("The teacher asked me to spell {w} aloud. How does it go?"),
    W("Do me a favour and spell {w}."),
    W("type {w} letter for letter with hyphens"),
    W("Which letters do I need for {w}?"),
    W("whats {w} spelled like"),
    W("Over the phone I'd have to spell {w}. How?"),
    W("Name each letter in {w}."),
    W("Give the spelling: {w}"),
    W("good morning, spell {w} for an old lady please"),
    W("In which order do the letters of {w} go?"),
    W("spell the english word {w} pls"),
    W("Can you take the word {w} apart, letter by letter?"),
    W("I said {w}, and now I have to spell it. Can you?"),
    W("What do you get when you spell {w}?"),
    W("Ready? Spell {w}!"),
]

CATEGORIES["letter_count"] = [
    W("how many {l} in the word {w}"),
    W("How many {l}'s does {w} have?"),
    W("what is the count of letter {l} in {w}"),
    W("Count how many times {l} appears in {w}."),
    W("In '{w}', how many times do we see the letter {l}?"),
    W("{l}'s in {w}?"),
    W("How often does the letter {l} occur in the word {w}?"),
    W("number of times {l} is in {w}"),
    W("Could you tell me the number of {l}'s in {w}?"),
    W("pls count {l} in {w}"),
    W("My crossword says {w}. How many {l_up}'s is that?"),
    W("How many of the letter {l_up} do I need to write {w}?"),
    W("do you know how many {l}s there are in {w}"),
    W("the letter {l}: how many times in {w}?"),
    W("Please check {w} and count the {l}'s."),
    W("I bet you can't count the {l}'s in {w}. How many?"),
    W("How many {l_up}'s would I find in {w}?"),
    W("i'm icing the word {w} on a cake, how many times do i make the letter {l}"),
    W("Spell check: how many {l}'s belong in {w}?"),
    W("Within the word {w}, how many of the letters are {l_up}?"),
    W("counting {l} in the word '{w}', what do you get"),
    W("Just the number: {l} in {w}."),
    W("what number of {l}s has the word {w} got"),
    W("Kids are arguing how many {l}'s {w} has. Settle it, please."),
    W("When I write {w}, how many times do I write {l}?"),
    W("{w} contains how many {l}'s?"),
    W("{w} - how often {l}?"),
    W("Tell me how frequently {l} turns up in {w}."),
    W("How many times does {l_up} come up when you spell out {w}?"),
    W("count every {l} in the word {w} for me"),
    W("Does {w} have the letter {l_up} in it, and how many times?"),
    W("total number of the letter {l} in {w}"),
    W("wordle help: how many {l} does {w} have"),
    W("Would you look at {w} and say how many {l}'s it has?"),
    W("i need to know how many times {l} is used in {w}"),
    W("On my keyboard the {l_up} key is stuck. How many times would I press it for {w}?"),
    W("I've lost count of the {l}'s in {w}. What's the number?"),
    W("Give a count: letter {l}, word '{w}'."),
    W("so many letters in {w}... how many of them are {l}?"),
    W("can you count up the {l}s in {w}"),
    W("Sign painter here. For {w}, how many {l_up}s should I paint?"),
    W("the amount of {l}'s in {w} please"),
    W("In the spelling of {w}, how many {l}'s are used?"),
    W("hi, how many times is the letter {l} in {w}"),
    W("Find the letter {l} in {w}. How many times is it there?"),
    W("Let's count together: how many {l}'s in {w}?"),
    W("whats the {l} count for {w}"),
    W("If I cross out every {l} in {w}, how many letters do I cross out?"),
    W("{l_up}s inside {w}, how many r there"),
    W("For {w}, state the number of {l}'s."),
    W("Good evening, how many {l}'s does one need for the word {w}?"),
    W("how many {l}'s did i just type: {w}"),
]

HELLO = pick("Hiya", "Good afternoon", "Hello there", "Morning", "Evening", "Excuse me")
RELATIVE = pick("husband", "wife", "daughter", "son", "granny", "flatmate", "colleague", "neighbour")
CATEGORIES["identity"] = [
    W("tell me your name", "name"),
    W("ur name pls", "name"),
    W("{h}, could I have your name?", "name", h=HELLO),
    W("Can I ask what your name is?", "name"),
    W("May I know your name?", "name"),
    W("Got a name?", "name"),
    W("Which name do you have?", "name"),
    W("{h}, who am I speaking with?", "name", h=HELLO),
    W("My {r} forgot your name. What was it?", "name", r=RELATIVE),
    W("{she} here. And what is your name?", "name"),
    W("pleased to meet you, im {he}. your name is?", "name"),
    W("Introduce yourself, please.", "who"),
    W("who r u", "who"),
    W("Who is this?", "who"),
    W("name please", "name"),
    W("What name do you answer to?", "call"),
    W("how do i call you", "call"),
    W("{h}, how shall I call you?", "call", h=HELLO),
    W("What can I call you?", "call"),
    W("My {r} would like to call you by your name. What is it?", "call", r=RELATIVE),
    W("Is it ok to call you something? What do you go by?", "call"),
    W("what do i write if i want to address you by name", "call"),
    W("What are you called?", "call"),
    W("what kind of assistant are you, what are you", "what"),
    W("{h}, what are you, if I may ask?", "what", h=HELLO),
    W("My {r} asks: what is this thing I'm chatting with?", "what", r=RELATIVE),
    W("what r u", "what"),
    W("Tell me a bit about what you are.", "what"),
    W("I've never used one of these. What are you?", "what"),
    W("in one sentence, what are you?", "what"),
    W("Are you some kind of computer program, or what are you?", "what"),
    W("How would you describe what you are?", "what"),
    W("who developed you", "maker"),
    W("Who is behind you?", "maker"),
    W("{h}, who made you, please?", "maker", h=HELLO),
    W("by whom were you made?", "maker"),
    W("My {r} wants to know who built you.", "maker", r=RELATIVE),
    W("who wrote you", "maker"),
    W("Can you tell me who your creators are?", "maker"),
    W("Who should get the credit for creating you?", "maker"),
    W("what company or team made you", "maker"),
    W("Somebody must have made you. Who?", "maker"),
    W("who programmed u", "maker"),
    W("Name the people who made you.", "maker"),
    W("who do you belong to, i mean who made you", "maker"),
    W("r u a real person", "human"),
    W("You're not a human, are you?", "human"),
    W("{h}, am I chatting with a human being?", "human", h=HELLO),
    W("My {r} is sure that you're a real person. Is that so?", "human", r=RELATIVE),
    W("Are you a person or an AI?", "human"),
    W("is this a human talking", "human"),
    W("Do I have a living person in front of me?", "human"),
    W("Tell me the truth: human or not?", "human"),
    W("are you a human being or a computer", "human"),
    W("what r u able to do", "abilities"),
    W("What are your skills?", "abilities"),
    W("{h}, what is it that you can do?", "abilities", h=HELLO),
    W("My {r} wonders what you could help with.", "abilities", r=RELATIVE),
    W("what do you know how to do", "abilities"),
    W("Which kinds of questions can you answer?", "abilities"),
    W("how can you help me", "abilities"),
    W("Show me what you're able to do, in a sentence.", "abilities"),
    W("what should i use you for", "abilities"),
    W("Give me a list of your abilities.", "abilities"),
]

CATEGORIES["direct"] = [
    W("capital city of {country} please", "capital"),
    W("What is {country}'s capital?", "capital"),
    W("name the capital city of {country}", "capital"),
    W("I'm a tourist on my way to {country}. Which city is the capital?", "capital"),
    W("Which capital does {country} have?", "capital"),
    W("pub quiz: capital of {country}", "capital"),
    W("Tell me the capital of {country}, please.", "capital"),
    W("the capital of {country} is", "capital"),
    W("In {country}, what's the capital called?", "capital"),
    W("{word} - opposite?", "opposite"),
    W("what word means the opposite of {word}", "opposite"),
    W("Can you tell me the opposite of '{word}'?", "opposite"),
    W("whats opposite to {word}", "opposite"),
    W("If something isn't {word}, give me the opposite word.", "opposite", word=pick("hot", "cold", "big", "small", "fast", "slow", "wet", "dry", "full", "empty", "clean", "dirty", "loud", "quiet", "tall", "thick", "thin", "strong", "weak", "safe", "dangerous", "cheap", "expensive", "smooth", "rough", "tight", "loose", "wide", "narrow", "deep", "shallow")),
    W("The opposite of {word} is?", "opposite"),
    W("English lesson: find the opposite of {word}", "opposite"),
    W("My grandson needs the opposite of the word {word}. Which is it?", "opposite"),
    W("Name the opposite for {word}.", "opposite"),
    W("after {day} comes which day", "next_day"),
    W("What's the next day after {day}?", "next_day"),
    W("Tell me the day that follows {day}.", "next_day"),
    W("before {day} comes which day", "previous_day"),
    W("Name the day just before {day}.", "previous_day"),
    W("after {month} comes what month", "next_month"),
    W("Which month do we have after {month}?", "next_month"),
    W("Tell me the month that follows {month}.", "next_month"),
    W("the month before {month_low} is", "previous_month"),
    W("Which month do we have before {month}?", "previous_month"),
    W("{have_whole}: how many {have_part}?", "have"),
    W("How many {have_part} has {have_whole} got?", "have"),
    W("do you know how many {have_part} {have_whole} has", "have"),
    W("Nature and things quiz: the number of {have_part} that {have_whole} has?", "have"),
    W("how many {unit_part} in {unit_whole}", "unit"),
    W("What's the number of {unit_part} in {unit_whole}?", "unit"),
    W("Could you say how many {unit_part} there are in {unit_whole}?", "unit"),
    W("how many {unit_part} make up {unit_whole}", "unit", "unit.part not in ('things', 'continents', 'colours', 'planets')"),
    W("whats the colour of {thing}", "colour"),
    W("What color would you say {thing} is?", "colour"),
    W("Which colour is {thing} normally?", "colour"),
    W("{thing} has which color?", "colour"),
    W("My toddler points at a picture of {thing}. What colour is it usually?", "colour", "thing not in ('the sky', 'salt', 'milk')"),
    W("how many wheels does a bike have, i mean a bicycle", ("row", "wheels a bicycle")),
    W("How many hours does a day have?", ("row", "hours a day")),
    W("how many legs do insects have", ("row", "legs an insect")),
    W("a year is how many weeks?", ("row", "weeks a year")),
    W("Hello there!", "greeting"),
    W("hey", "greeting"),
    W("Good evening to you", "greeting"),
    W("hiya", "greeting"),
    W("How are you?", "wellbeing"),
    W("Hi! How's it going?", "wellbeing"),
    W("thank you", "thanks"),
    W("Great, thanks a lot for that", "thanks"),
    W("ta very much", "thanks"),
    W("goodbye", "farewell"),
    W("See you later!", "farewell"),
    W("That's all for today. Bye!", "farewell"),
]

CATEGORIES["follow_up"] = [
    W(["{a} plus {b} is what?", "plus {c} more?"], ("number", "a + b + c"), a=Whole(15, 600), b=Whole(15, 600), c=Whole(5, 99)),
    W(["Multiply {a} by {b}.", "Now subtract {c}."], ("number", "a * b - c"), "a * b > c", a=Whole(7, 70), b=Whole(4, 30), c=Whole(5, 60)),
    W(["what do you get for {a} minus {b}?", "Good. Halve it for me."], ("number", "(a - b) / 2"), "a > b", a=Whole(80, 700), b=Whole(10, 79)),
    W(["{a} divided by {b} pls", "and times {c}?"], ("number", "a / b * c"), "a % b == 0 and a > b", a=Whole(24, 600), b=Whole(3, 24), c=Whole(3, 15)),
    W(["i have {a} and {b}, what do they make", "take {c} away again"], ("number", "a + b - c"), "a + b > c", a=Whole(20, 400), b=Whole(20, 400), c=Whole(5, 90)),
    W(["{p}% of {y}, please.", "Add {c} to it."], ("number", "p * y / 100 + c"), p=Whole(5, 80, 5), y=Whole(40, 700, 10), c=Whole(3, 60)),
    W(["What is {a} times {b}?", "What is double that?"], ("number", "a * b * 2"), a=Whole(6, 60), b=Whole(4, 30)),
    W(["sum up {a}, {b}, {c}", "now divide it by {e}"], ("number", "(a + b + c) / e"), "(a + b + c) % e == 0", a=Whole(6, 90), b=Whole(6, 90), c=Whole(6, 90), e=Whole(2, 9)),
    W(["The taxi costs ${y}. What's a {p}% tip on that?", "How much do I pay in all then?"], ("number", "y * (100 + p) / 100"), p=pick_number(10, 15, 20), y=Whole(10, 90)),
    W(["jeans for {y} dollars, {p}% off, what's the price?", "and for {k} pairs?"], ("number", "y * (100 - p) / 100 * k"), p=Whole(10, 60, 5), y=Whole(20, 120, 10), k=Whole(2, 5)),
    W(["My meal was £{y}, so what is {p}% of it?", "Twice as much, please, what would that be?"], ("number", "p * y / 50"), p=Whole(5, 40, 5), y=Whole(12, 120)),
    W(["How much are {a} stamps at ${b} each?", "I pay with ${c}. What do I get back?"], ("number", "c - a * b"), a=Whole(3, 9), b=Whole(2, 5), c=pick_number(50, 60, 100)),
    W(["{a} x {b}?", "minus {c}?", "and plus {e}?"], ("number", "a * b - c + e"), "a * b > c", a=Whole(5, 40), b=Whole(4, 20), c=Whole(4, 19), e=Whole(5, 70)),
    W(["start with {a}", "add {b}", "and what do you get if you add {c} as well?"], ("number", "a + b + c"), a=Whole(10, 300), b=Whole(10, 300), c=Whole(10, 90)),
    W(["{he} has {a} marbles and wins {b}. How many does he have?", "Then he loses {c}. How many does he have now?"], ("number", "a + b - c"), "a + b > c", a=Whole(10, 60), b=Whole(4, 40), c=Whole(3, 13)),
    W(["We bake {a} rolls an hour. How many in {b} hours?", "{c} of those got burnt. How many good ones?"], ("number", "a * b - c"), "a * b > c", a=Whole(12, 60), b=Whole(3, 8), c=Whole(3, 30)),
    G(["could you add {a} and {b}?", "Sure, the sum is {x}.", "and if you triple that?"], ("number", "(a + b) * 3"), a=Whole(12, 300), b=Whole(12, 300), x=Calc("a + b")),
    G(["{a} - {b}", "{x}", "+ {c}"], ("number", "a - b + c"), "a > b", a=Whole(60, 900), b=Whole(10, 59), c=Whole(5, 90), x=Calc("a - b")),
    G(["What's {a} × {b}?", "{a} × {b} is {x}.", "Please divide that by 2."], ("number", "a * b / 2"), a=Whole(6, 80), b=Whole(3, 30), x=Calc("a * b")),
    G(["hey what's {p}% of {y}", "It's {x}.", "subtract that from {y} for me"], ("number", "y - p * y / 100"), p=Whole(5, 60, 5), y=Whole(40, 600, 10), x=Calc("p * y / 100")),
    G(["How much are {a} chairs at £{b}?", "That comes to £{x}.", "And delivery is £{c} extra, so the total?"], ("number", "a * b + c"), a=Whole(3, 12), b=Whole(15, 45), c=Whole(5, 30), x=Calc("a * b")),
    G(["what is {a} / {b}", "{a} / {b} = {x}", "and ten times that?"], ("number", "a / b * 10"), "a % b == 0 and a > b", a=Whole(24, 600), b=Whole(3, 24), x=Calc("a / b")),
    W(["which day is {n} days after {d}?", "and {m} more days?"], ("weekday", "n + m"), n=Whole(2, 20), m=Whole(2, 15)),
    W(["it's {d_low}", "what day will it be {n} days from now?"], ("weekday", "n"), n=Whole(2, 30)),
    W(["Today is {d}, I think.", "So what was the day {n} days ago?"], ("weekday", "-n"), n=Whole(2, 30)),
    W(["{d} plus {n} days?", "And a day later?"], ("weekday", "n + 1"), n=Whole(2, 25)),
    W(["Count {n} days back from {d}.", "And 2 days before that?"], ("weekday", "-n - 2"), n=Whole(2, 25)),
    W(["today's {d_low}. what day is it in {n} days?", "ok and one week after that?"], ("weekday", "n + 7"), n=Whole(2, 20)),
    G(["If today's {d}, which day is it in {n} days?", "It will be {x}.", "And {m} days later?"], ("weekday", "n + m"), n=Whole(2, 20), m=Whole(2, 12), x=DayPlus("n")),
    G(["my exam is {n} days after {d}. what day?", "{x}", "results come {m} days after the exam, what day is that"], ("weekday", "n + m"), n=Whole(2, 20), m=Whole(2, 20), x=DayPlus("n")),
    W(["{n} days after {dd}, what's the date?", "Then another {m} days on?"], ("date", "n + m"), n=Whole(2, 15), m=Whole(2, 15)),
    W(["it is {dd} today", "what was the date {n} days ago?"], ("date", "-n"), n=Whole(2, 28)),
    W(["Today is the {dd_ukth}.", "My holiday starts in {n} days. What date is that?"], ("date", "n"), n=Whole(3, 28)),
    W(["which date is {n} days before {dd}", "and {m} days before that one?"], ("date", "-n - m"), n=Whole(2, 15), m=Whole(2, 15)),
    G(["What date is {n} days after {dd}?", "That is {x}.", "And the day after?"], ("date", "n + 1"), n=Whole(2, 25), x=DatePlus("n")),
    W(["hello, i'm {she_low}", "whats my name?"], ("contains", ["{she}"])),
    W(["My name is {he}, by the way.", "What is {a} + {b}?", "Thanks. And what was my name again?"], ("contains", ["{he}"]), a=Whole(5, 60), b=Whole(5, 60)),
    W(["Good morning, this is {she} speaking.", "Do you remember who I am?"], ("contains", ["{she}"])),
    W(["people call me {he}", "which day comes after {day}?", "and what do people call me?"], ("contains", ["{he}"])),
    G(["I'm {she}. Nice to meet you!", "Hi {she}! What can I do for you?", "Can you repeat my name?"], ("contains", ["{she}"])),
    G(["hi my names {he_low}", "Hello! How can I help you?", "what name did i tell you"], ("contains", ["{he}"])),
    G(["{she} is my name.", "Hello {she}!", "what is the opposite of {word}?", "The opposite of {word} is {x}.", "And who am I?"], ("contains", ["{she}"]), x=Opposite("word")),
    W(["opposite of {word} please", "now spell that word"], ("spell_opposite", "")),
    G(["which word is the opposite of {word}?", "{x}", "Could you spell it?"], ("spell_opposite", ""), x=Opposite("word")),
    G(["What's the opposite of {word}?", "It's {x}.", "spell that out letter by letter"], ("spell_opposite", ""), x=Opposite("word")),
    W(["I have a word for you: {w}", "Spell it."], ("spell", "{w}")),
    W(["we learned the word {w} at school today", "how is it spelt?"], ("spell", "{w}")),
    W(["the next word is {w}", "count the {l}'s in it"], ("letters", "")),
    W(["How do you write {w}, letter by letter?", "And how many {l}'s did you use?"], ("letters", "")),
    G(["spell {w} for me", "{x}", "how many of those letters are {l}?"], ("letters", ""), x=Spelled("w")),
    W(["my word is {word}", "what's the opposite of it?"], ("fact", "opposite")),
    G(["spell the word {word} please", "{x}", "ok what is the opposite of that word"], ("fact", "opposite"), "len(word) > 2", x=Spelled("word")),
    W(["Capital of {country}?", "What about {country2}?"], ("fact2", "capital")),
    W(["tell me the opposite of {word}", "and the opposite of {word2}?"], ("fact2", "opposite")),
    W(["I'm going to {country} on holiday.", "What's the capital there?"], ("fact", "capital")),
    W(["{she} was born in {y}. How old does she turn in {z}?", "And {k} years later?"], ("number", "z - y + k"), "z > y + 5", y=Whole(1950, 2012), z=Whole(2020, 2035), k=Whole(2, 20)),
    W(["My son is {m} and my daughter is {n} years older. How old is my daughter?", "How old will she be {k} years from now?"], ("number", "m + n + k"), m=Whole(4, 20), n=Whole(2, 9), k=Whole(2, 20)),
    W(["i am {m} years old", "how old will i be in {n} years?"], ("number", "m + n"), m=Whole(12, 70), n=Whole(2, 30)),
]
# fmt: on


def main() -> None:
    items = suite()
    out = Path(__file__).with_name(OUT)
    out.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), "utf-8")
    for category, entries in CATEGORIES.items():
        count = sum(item["category"] == category for item in items)
        print(f"{category:13} {len(entries):3} wordings {count:4} items")


if __name__ == "__main__":
    main()
