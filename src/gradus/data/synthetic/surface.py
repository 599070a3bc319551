"""The last touch on a user turn: greetings, politeness, casing, punctuation, light typos.

Only carrier words of a fixed table are misspelt, so names, numbers and words to be spelt stay as they are.
"""

from __future__ import annotations

import random
import re

from gradus.data.synthetic.grammar import load_grammar

_TYPOS: dict[str, tuple[str, ...]] = {
    "what": ("wat", "waht", "wht"),
    "what's": ("whats", "wats", "what is", "what s"),
    "whats": ("what's",),
    "how": ("hw", "hwo"),
    "many": ("mny", "manny"),
    "much": ("mch", "muhc"),
    "the": ("teh", "th", "hte"),
    "is": ("iz", "si"),
    "please": ("pls", "plz", "pleas", "plese"),
    "calculate": ("calcualte", "caculate", "calc", "calulate"),
    "you": ("u", "yuo"),
    "your": ("ur", "youre"),
    "are": ("r", "ar"),
    "will": ("wil", "wll"),
    "be": ("b",),
    "and": ("adn", "an", "nd"),
    "for": ("fr", "fro"),
    "times": ("tiems", "time"),
    "answer": ("anwser", "answr"),
    "spell": ("spel", "sepll"),
    "letters": ("leters", "lettrs"),
    "letter": ("leter", "lettr"),
    "word": ("wrod", "wrd"),
    "day": ("dya", "da"),
    "days": ("dyas", "day"),
    "date": ("dtae", "dat"),
    "after": ("aftr", "afte"),
    "before": ("befor", "b4"),
    "today": ("tody", "2day", "todya"),
    "tomorrow": ("tomorow", "tmrw", "tommorow", "tommorrow"),
    "from": ("frm", "form"),
    "percent": ("pecent", "precent"),
    "discount": ("discout", "dicount"),
    "total": ("totl", "toal"),
    "capital": ("captial", "capitol"),
    "opposite": ("oposite", "opposit", "oppsite"),
    "name": ("nam", "nmae"),
    "who": ("hwo", "whos"),
    "can": ("cn", "cna"),
    "tell": ("tel",),
    "me": ("mee",),
    "old": ("odl",),
    "born": ("bron",),
    "plus": ("pluss",),
    "minus": ("minuse",),
    "divided": ("devided", "divded"),
    "multiplied": ("multiplyed", "mulitplied"),
    "subtract": ("substract", "subract"),
    "does": ("dose", "dos"),
    "have": ("hav", "ahve"),
    "there": ("thre", "their"),
    "that": ("taht", "tht"),
    "this": ("tihs", "ths"),
}
_WORD = re.compile(r"[A-Za-z']+|[^A-Za-z']+")
_END = "?.! "


_SHORT = (
    ("I am ", "I'm "),
    ("it is ", "it's "),
    ("It is ", "It's "),
    ("what is ", "what's "),
    ("What is ", "What's "),
    ("who is ", "who's "),
    ("we are ", "we're "),
    ("you are ", "you're "),
    ("they are ", "they're "),
    ("I have got ", "I've got "),
    ("do not ", "don't "),
    ("does not ", "doesn't "),
    ("cannot ", "can't "),
    (" would like", "'d like"),
    ("that is ", "that's "),
    ("there are ", "there're "),
    ("there is ", "there's "),
    (" is now ", "'s now "),
)


def dress(text: str, rng: random.Random, *, case: bool = True, frame: bool = True) -> str:
    """One everyday variant of a question.

    case: False where capital letters carry meaning (names); frame: False leaves out greetings and thanks (they would be
    read as the request itself).
    """
    if frame:
        text = _framed(text, rng)
    draw = rng.random()
    if draw < 0.20:
        if case:
            text = text.lower()
    else:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.25:
        long, short = _SHORT[int(rng.random() * len(_SHORT))]
        text = text.replace(long, short)
    if ".?" in text or ",?" in text:
        text = text.replace(".?", ".").replace(",?", "?")
    draw = rng.random()
    if draw < 0.30:
        text = text.rstrip(_END)
    elif draw < 0.33:
        text = text.rstrip(_END) + ("??" if text.endswith("?") else "...")
    elif draw < 0.35:
        text = text.replace("'", "")
    if rng.random() < 0.02:
        text = _with_typo(text, rng)
    return text


_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeio](?!ne\b|nce\b)|u(?!ni|s|ti|ro)|hour\b)[a-z]?)")


def with_articles(text: str) -> str:
    """`a` before a vowel becomes `an`: nouns are filled into templates that say `a`."""
    return _ARTICLE.sub(r"\1n ", text)


def _framed(text: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw >= 0.14:
        return text
    bank = load_grammar("surface")
    if draw < 0.07:
        opener = bank.text("opener", rng)
        keep = text[:2] in ("I ", "I'") or text[:1].isdigit() or not text[:2].istitle()
        body = text if opener[-1] in ".!?:" or keep else text[:1].lower() + text[1:]
        return f"{opener} {body}"
    if draw < 0.12:
        closer = bank.text("closer", rng)
        body = text.rstrip(_END)
        if closer[0] == ",":
            return f"{body}{closer}"
        end = text[len(body) :].strip() or "."
        return f"{body}{end} {closer}"
    return f"{bank.text('opener', rng)} {text}" if draw < 0.13 else f"{text} {bank.text('aside', rng)}"


def _with_typo(text: str, rng: random.Random) -> str:
    words = _WORD.findall(text)
    places = [index for index, word in enumerate(words) if word.lower() in _TYPOS]
    if not places:
        return text
    index = places[int(rng.random() * len(places))]
    variants = _TYPOS[words[index].lower()]
    words[index] = variants[int(rng.random() * len(variants))]
    return "".join(words)
