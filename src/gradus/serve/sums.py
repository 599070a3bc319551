"""What a user's turn asks to be calculated, as an expression of the calculator; nothing where it asks for no sum.

A turn is a sum where nothing is left of it once the words of asking are taken away, or where an expression stands in
it that can be nothing else. Dates, telephone numbers, ranges, versions and scores are no sums, and an expression is
taken whole or not at all: the calculator itself says whether it is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gradus.core.errors import ToolError
from gradus.tools.calculator import calculate

_MOST_CHARACTERS = 200
_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_MONEY = rf"[$€£₹]?\s?({_NUMBER})"
_NAMES = "sqrt|sin|cos|tan|asin|acos|atan|log10|log2|log|ln|exp|abs|min|max|sum|round|floor|ceil|mod|pow"

_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {
    word: str(number)
    for number, word in enumerate(
        re.findall(
            r"\S+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty",
        )
    )
} | {word: str(10 * number) for number, word in enumerate(_TENS, 3)}
_WORD = re.compile(rf"\b({'|'.join(sorted(_WORDS, key=len, reverse=True))})\b")
_PARTS = {"half": "1/2", "a third": "1/3", "one third": "1/3", "two thirds": "2/3", "a quarter": "1/4",
          "one quarter": "1/4", "three quarters": "3/4", "a fifth": "1/5", "a tenth": "1/10"}  # fmt: skip

# Around a sum, and no part of it.
_BEFORE = re.compile(
    r"(?:(?:what(?:'s| is| are| do you get(?: for| when you)?| would be)|how much (?:is|are)|calculate|compute|"
    r"evaluate|resolve|find|work out|figure out|solve|do|tell me|give me|can you|could you|please|and|then|now|"
    r"so|ok(?:ay)?|hey|hi|hmm|well|the (?:value|result|answer)(?: of| to)?|following(?: problem| expression| sum)?|"
    r"just|quickly|also|hypotenuse|result|answer|what about|how about|"
    r"(?:a|the)(?! (?:third|quarter|fifth|tenth)))\b[\s,:]*)+"
)
_AFTER = re.compile(
    r"[\s,]*(?:(?:\s|\b)(?:please|then|for me|equals?(?: to)?(?: what)?|as a (?:decimal|number|fraction)|makes?|"
    r"exactly|roughly|approximately|now|again|worth|in total|altogether|what)|[=?.\s,]|(?<!\d)!)+$"
)
_SPELLED = tuple(
    (re.compile(pattern), sign)
    for pattern, sign in (
        (r"\s*\b(?:plus|added to)\b\s*", " + "),
        (r"\s*\b(?:minus|less|take away)\b\s*", " - "),
        (r"\s*\b(?:times|multiplied by)\b\s*", " * "),
        (r"(?<=[\d)])\s*x\s*(?=[\d(])", " * "),
        (r"\s*\b(?:divided by|over)\b\s*", " / "),
        (r"\s*\bto the power (?:of\s*)?", " ^ "),
        (r"\s*\bsquared\b", "^2"),
        (r"\s*\bcubed\b", "^3"),
        (r"\s*\b(?:percent|per cent|pct)\b", "%"),
        (r"\b(?:the )?square root of\s*", "sqrt "),
        (r"\b(?:the )?cube root of\s*", "cbrt "),
    )
)
_TALKS_OF = re.compile(r"^(?:why|explain|how come|prove|is|are|does|write|translate)\b")
_NO_SUM = re.compile(
    r"\b\d{1,4}([-/.])\d{1,2}\1\d{1,4}\b"  # a date, or the version of something
    r"|(?<![\d.])\d{3}-\d{3,4}\b|\+\d{2,3}[ -]\d{2,}"  # a telephone number
    r"|\b\d{1,2}:\d{2}\b"
    r"|\b\d+(?:\.\d+)?-\d+(?:\.\d+)?\b(?!\s*[*/+^=)])(?=\s+[a-z])"  # a range of something
)
_CODE = re.compile(
    r"[`{};]|\b(?:print|return|def|for|import|select)\b.*[(=:]|\b[a-z_]\w*\s*=[^=]|(?<![a-z])[a-z]\s*[\^*+/]|[\^*+/]\s*[a-z]\b(?!\()"
)
_RUN = re.compile(rf"(?<![\w.])(?:(?:{_NAMES})\s*\(|[-\d.(])(?:[\d\s.,()+*/^%-]|(?:{_NAMES}|of|pi)\b)*[\d)%]")
_OPERATES = re.compile(rf"[\d)%]\s*(?:\*\*?|\+|\^|//?|of\b)\s*[-(.\da-z]|[\d)%]\s+-\s+[-(.\da-z]|\b(?:{_NAMES})\s*\(")
_SIGN_ALONE = re.compile(r"^-?\d[\d.,]*\s*-\s*\d")


def expression_in(text: str, last_result: str | None = None) -> str | None:
    """The expression that a turn asks for; None where it asks for none.

    last_result: the number that the answer before ended in, which "times 2" goes on from.
    """
    if len(text) > _MOST_CHARACTERS or not any(c.isdigit() for c in _WORD.sub("0", text.lower())):
        return None
    text = " ".join(text.lower().translate(_PLAIN).split())
    if _NO_SUM.search(text) or _TALKS_OF.match(text):
        return None
    for piece in [text, *re.split(r"[?!;]\s+|,\s+(?=and\b|then\b|calculate\b)", text)[::-1]]:
        core = _core(piece)
        for found in (_phrase(core), _whole(core, piece != core), _continued(core, last_result)):
            if found is not None:
                return found
    return None if _CODE.search(text) else _run(text)


_PLAIN = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "’": "'", "\u00a0": " "})


def _core(text: str) -> str:
    """The turn without the words of asking."""
    found = _BEFORE.match(text)
    return _AFTER.sub("", text[found.end() :] if found else text).strip(" ,:=?")


def _checked(expression: str) -> str | None:
    """The expression, where the calculator has a value for it."""
    try:
        calculate(expression)
    except ToolError:
        return None
    return expression


def _whole(core: str, asked: bool) -> str | None:
    """A turn that is an expression from end to end. asked: words of asking stood around it."""
    text = _symbols(core)
    if _CODE.search(text) or not _operates(text, asked):
        return None
    return _checked(text)


def _symbols(text: str) -> str:
    for words, part in _PARTS.items():
        text = re.sub(rf"\b{words} of\b", f"{part} of", text)
    text = _WORD.sub(lambda found: _WORDS[found[1]], text)
    for pattern, sign in _SPELLED:
        text = pattern.sub(sign, text)
    text = re.sub(r"[$€£₹](?=\d)", "", text)
    text = re.sub(rf"sqrt ({_NUMBER})", r"sqrt(\1)", text)
    text = re.sub(rf"cbrt ({_NUMBER})", r"(\1)^(1/3)", text)
    text = re.sub(rf"({_NUMBER}) mod ({_NUMBER})", r"mod(\1, \2)", text)
    # A percentage that is added to something is one of that.
    text = re.sub(rf"^({_NUMBER}) ([+-]) ({_NUMBER})\s?%$", r"\1 * (1 \2 \3%)", text)
    return re.sub(r"^(\d{1,2})!$", _factorial, text).strip()


def _factorial(found: re.Match[str]) -> str:
    return " * ".join(str(n) for n in range(1, max(1, int(found[1])) + 1))


def _operates(text: str, asked: bool) -> bool:
    """Whether something is done to numbers; a hyphen alone is more often a range or a score."""
    if _SIGN_ALONE.match(text) and not re.search(r"[*+^/(]", text):
        return asked or re.search(r"\d\s+-\s+\d", text) is not None
    return _OPERATES.search(text) is not None


def _continued(core: str, last_result: str | None) -> str | None:
    """Something done to the last result: "times 2", "plus 10", "divide that by 3"."""
    if last_result is None:
        return None
    text = re.sub(
        r"^(?:divide|multiply)(?: (?:it|that|this))? by", lambda m: "/" if m[0].startswith("d") else "*", core
    )
    text = re.sub(r"^(?:add|subtract) (?=[\d$])", lambda m: "+ " if m[0].startswith("a") else "- ", text)
    text = _symbols(text)
    if not re.match(rf"^[*/+-]\s*{_NUMBER}(?:\s*%)?$", text):
        return None
    return _checked(_symbols(f"{last_result} {text}"))


def _run(text: str) -> str | None:
    """An expression inside a turn that says more, where it can be nothing else; the longest."""
    text = re.sub(r"(?<=[\d)])\s*x\s*(?=[\d(])", " * ", re.sub(r"[$€£₹](?=\d)", "", text))
    ends_whole = re.compile(r"\s*(?:[*/+^]|=\s*[^\s?]|[a-z]\b)")
    runs = [run[0].strip(" ,.") for run in _RUN.finditer(text) if not ends_whole.match(text, run.end())]
    for run in sorted(runs, key=len, reverse=True):
        if _OPERATES.search(run) and re.search(r"[*+^(]|\s[-/]\s|of", run):
            return _checked(run)
    return None


_UNITS = {
    ("mile", "km"): "{0} * 1.609344", ("km", "mile"): "{0} / 1.609344", ("inch", "cm"): "{0} * 2.54",
    ("cm", "inch"): "{0} / 2.54", ("ft", "m"): "{0} * 0.3048", ("m", "ft"): "{0} / 0.3048",
    ("lb", "kg"): "{0} * 0.45359237", ("kg", "lb"): "{0} / 0.45359237", ("oz", "g"): "{0} * 28.349523125",
    ("g", "oz"): "{0} / 28.349523125", ("c", "f"): "{0} * 9 / 5 + 32", ("f", "c"): "({0} - 32) * 5 / 9",
    ("gal", "l"): "{0} * 3.785411784", ("l", "gal"): "{0} / 3.785411784", ("km", "m"): "{0} * 1000",
    ("m", "km"): "{0} / 1000", ("h", "min"): "{0} * 60", ("min", "h"): "{0} / 60",
}  # fmt: skip
_SPELLINGS = {
    "mile": "miles?|mi", "km": "kms?|kilomet(?:er|re)s?", "inch": "inch(?:es)?", "cm": "cms?|centimet(?:er|re)s?",
    "ft": "ft|foot|feet", "m": "m|met(?:er|re)s?", "lb": "lbs?|pounds?", "kg": "kgs?|kilograms?|kilos?",
    "oz": "oz|ounces?", "g": "g|grams?", "c": "°?c|(?:degrees |° ?)?c(?:elsius)?",
    "f": "°?f|(?:degrees |° ?)?f(?:ahrenheit)?", "gal": "gal|gallons?", "l": "l|lit(?:er|re)s?", "h": "h|hours?",
    "min": "min|minutes?",
}  # fmt: skip
_CONVERSION = re.compile(r"(?:convert\s+)?(-?[\d.,]*\d)\s*(.+?)\s+(?:to|in|into|as)\s+(.+)")


def _phrase(core: str) -> str | None:
    """Sums that are said in words of their own."""
    core = re.sub(r"(?<=\d),(?=\d{3}\b)", "", core)
    for pattern, write in _PHRASES:
        if found := pattern.fullmatch(core):
            return _checked(write(found))
    if found := _CONVERSION.fullmatch(core):
        form = _UNITS.get((_unit(found[2]), _unit(found[3])))
        return _checked(form.format(found[1])) if form else None
    return None


def _unit(word: str) -> str:
    return next((unit for unit, names in _SPELLINGS.items() if re.fullmatch(names, word)), "")


def _listed(text: str) -> str | None:
    """Numbers in a row as arguments."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    rest = re.sub(r"-?\d+(?:\.\d+)?|\band\b|[,\s]", "", text)
    return ", ".join(numbers) if len(numbers) >= 2 and not rest else None


def _over_list(name: str) -> Callable[[re.Match[str]], str]:
    def write(found: re.Match[str]) -> str:
        row = _listed(found[1])
        if row is None:
            return ""
        count = len(row.split(", "))
        return f"sum({row}) / {count}" if name == "mean" else f"{name}({row})"

    return write


_IN_MONEY = "(?: (?:dollars?|euros?|pounds?))"
# A thing by what it costs: without the currency the number may as well be how many there are.
_PRICED = rf"(?:[$€£₹]\s?({_NUMBER})|({_NUMBER})[ -](?:dollar|euro|pound)s?) [a-z ]{{1,30}}?"
_RATE = rf"({_NUMBER})\s?(?:%|percent)"
_PHRASES = tuple(
    (re.compile(pattern), write)
    for pattern, write in (
        (rf"(?:add|sum) {_MONEY} (?:and|to|with) {_MONEY}", lambda m: f"{m[1]} + {m[2]}"),
        (rf"subtract {_MONEY} from {_MONEY}", lambda m: f"{m[2]} - {m[1]}"),
        (rf"multiply {_MONEY} (?:by|and|with) {_MONEY}", lambda m: f"{m[1]} * {m[2]}"),
        (rf"divide {_MONEY} by {_MONEY}", lambda m: f"{m[1]} / {m[2]}"),
        (r"(?:average|mean) of (.+)", _over_list("mean")),
        (r"sum of (.+)", _over_list("sum")),
        (r"(?:maximum|largest) of (.+)", _over_list("max")),
        (r"(?:minimum|smallest) of (.+)", _over_list("min")),
        (rf"(?:an? )?{_RATE} tip (?:on|for) {_MONEY}(?: dollars| euros| pounds)?", lambda m: f"{m[1]}% of {m[2]}"),
        (rf"{_RATE} (?:of|on) {_MONEY}(?: dollars| euros| pounds)?", lambda m: f"{m[1]}% of {m[2]}"),
        (rf"{_MONEY} (?:with|after) (?:an? )?{_RATE} (?:discount|off)", lambda m: f"{m[1]} * (1 - {m[2]}%)"),
        (rf"(?:(?:take|knock) )?(?:an? )?{_RATE} (?:off(?: of)?|discount (?:on|off|of)|less than) {_MONEY}{_IN_MONEY}?",
         lambda m: f"{m[2]} * (1 - {m[1]}%)"),
        (rf"{_RATE} off(?: of)? (?:an? |the )?{_PRICED}", lambda m: f"{m[2] or m[3]} * (1 - {m[1]}%)"),
        (rf"(?:(?:what|how much) (?:do|will|would) i pay for )?(?:an? |the )?{_PRICED} (?:at|with) (?:an? )?{_RATE} "
         r"(?:off|discount)",
         lambda m: f"{m[1] or m[2]} * (1 - {m[3]}%)"),
        (rf"{_RATE} more than {_MONEY}{_IN_MONEY}?", lambda m: f"{m[2]} * (1 + {m[1]}%)"),
        (rf"({'|'.join(_PARTS)}) off(?: of)? {_MONEY}{_IN_MONEY}?", lambda m: f"{m[2]} * (1 - {_PARTS[m[1]]})"),
        (rf"(?:what )?percent(?:age)? of {_MONEY} is {_MONEY}", lambda m: f"{m[2]} / {m[1]} * 100"),
        (rf"{_MONEY} (?:is what|as a) percent(?:age)? of {_MONEY}", lambda m: f"{m[1]} / {m[2]} * 100"),
        (rf"percent(?:age)? (?:change|increase|decrease|growth|drop) from {_MONEY} to {_MONEY}",
         lambda m: f"percent_change({m[1]}, {m[2]})"),
        (rf"(?:do |for )?({_NUMBER}) [a-z ]{{2,30}}(?:cost )?(?:at|for) {_MONEY} (?:each|apiece|per \w+)",
         lambda m: f"{m[1]} * {m[2]}"),
        (rf"compound interest:? what will {_MONEY} (?:be worth|become|grow to) at {_RATE} (?:for|over|after) "
         rf"({_NUMBER}) years?",
         lambda m: f"{m[1]} + compound_interest({m[1]}, {m[2]}, {m[3]})"),
        (rf"(simple|compound) interest(?: on|:)?[a-z, ]*{_MONEY}[a-z ]* at {_RATE}[a-z ]* (?:for|over|after) "
         rf"({_NUMBER}) years?",
         lambda m: f"{m[1]}_interest({m[2]}, {m[3]}, {m[4]})"),
    )
)  # fmt: skip


def last_number(text: str) -> str | None:
    """The number that an answer ends in, such as "42" of "12 * 3 + 6 = 42."."""
    found = re.findall(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?", text[-200:])
    return found[-1].replace(",", "") if found else None
