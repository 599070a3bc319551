"""The closed tables: everything a synthetic `direct` or `identity` answer may know.

A tiny model learns these by heart, so the tables are small, exact, and shared by whoever writes questions about them.
Every word stands in one opposite pair only, so that "the opposite of X" has one answer in both directions.
"""

from __future__ import annotations

from typing import NamedTuple

CAPITALS: dict[str, str] = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "England": "London",
    "Ireland": "Dublin",
    "Scotland": "Edinburgh",
    "Netherlands": "Amsterdam",
    "Belgium": "Brussels",
    "Austria": "Vienna",
    "Switzerland": "Bern",
    "Poland": "Warsaw",
    "Greece": "Athens",
    "Sweden": "Stockholm",
    "Norway": "Oslo",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Iceland": "Reykjavik",
    "Hungary": "Budapest",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Croatia": "Zagreb",
    "Serbia": "Belgrade",
    "Ukraine": "Kyiv",
    "Russia": "Moscow",
    "Turkey": "Ankara",
    "Egypt": "Cairo",
    "Morocco": "Rabat",
    "Kenya": "Nairobi",
    "Nigeria": "Abuja",
    "Ghana": "Accra",
    "Ethiopia": "Addis Ababa",
    "India": "New Delhi",
    "Pakistan": "Islamabad",
    "Nepal": "Kathmandu",
    "China": "Beijing",
    "Japan": "Tokyo",
    "South Korea": "Seoul",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Indonesia": "Jakarta",
    "Australia": "Canberra",
    "New Zealand": "Wellington",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Brazil": "Brasilia",
    "Argentina": "Buenos Aires",
    "Peru": "Lima",
}

OPPOSITES: tuple[tuple[str, str], ...] = (
    ("hot", "cold"),
    ("big", "small"),
    ("up", "down"),
    ("fast", "slow"),
    ("happy", "sad"),
    ("light", "dark"),
    ("high", "low"),
    ("old", "young"),
    ("rich", "poor"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("open", "closed"),
    ("full", "empty"),
    ("clean", "dirty"),
    ("loud", "quiet"),
    ("early", "late"),
    ("tall", "short"),
    ("thick", "thin"),
    ("strong", "weak"),
    ("day", "night"),
    ("good", "bad"),
    ("correct", "wrong"),
    ("true", "false"),
    ("first", "last"),
    ("inside", "outside"),
    ("above", "below"),
    ("near", "far"),
    ("before", "after"),
    ("always", "never"),
    ("begin", "end"),
    ("start", "stop"),
    ("push", "pull"),
    ("win", "lose"),
    ("buy", "sell"),
    ("give", "take"),
    ("love", "hate"),
    ("laugh", "cry"),
    ("remember", "forget"),
    ("arrive", "depart"),
    ("come", "go"),
    ("enter", "exit"),
    ("float", "sink"),
    ("rise", "fall"),
    ("accept", "refuse"),
    ("build", "destroy"),
    ("find", "hide"),
    ("ask", "answer"),
    ("teach", "learn"),
    ("sit", "stand"),
    ("asleep", "awake"),
    ("alive", "dead"),
    ("safe", "dangerous"),
    ("kind", "cruel"),
    ("polite", "rude"),
    ("smooth", "rough"),
    ("sharp", "blunt"),
    ("sweet", "sour"),
    ("tight", "loose"),
    ("wide", "narrow"),
    ("deep", "shallow"),
    ("cheap", "expensive"),
    ("easy", "difficult"),
    ("simple", "complex"),
    ("same", "different"),
    ("possible", "impossible"),
    ("visible", "invisible"),
    ("public", "private"),
    ("front", "back"),
    ("top", "bottom"),
    ("left", "right"),
    ("north", "south"),
    ("east", "west"),
    ("summer", "winter"),
    ("friend", "enemy"),
    ("victory", "defeat"),
    ("beautiful", "ugly"),
    ("war", "peace"),
    ("more", "less"),
    ("maximum", "minimum"),
    ("success", "failure"),
)
"""Eighty pairs, asked in both directions."""

DAYS: tuple[str, ...] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTH_LENGTHS: dict[str, int] = {
    "January": 31,
    "February": 28,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}
"""Days of each month, in order, in a year that is not a leap year."""

MONTHS: tuple[str, ...] = tuple(MONTH_LENGTHS)


class Count(NamedTuple):
    """`whole` `verb` `number` `part`: "a spider has 8 legs", "a week has 7 days"."""

    part: str
    whole: str
    number: int


COUNTS: tuple[Count, ...] = (
    Count("legs", "a spider", 8),
    Count("legs", "an insect", 6),
    Count("legs", "a dog", 4),
    Count("legs", "a cat", 4),
    Count("legs", "a bird", 2),
    Count("legs", "a horse", 4),
    Count("legs", "an ant", 6),
    Count("legs", "a snake", 0),
    Count("arms", "an octopus", 8),
    Count("wings", "a bird", 2),
    Count("wings", "a butterfly", 4),
    Count("eyes", "a person", 2),
    Count("fingers", "a hand", 5),
    Count("toes", "a foot", 5),
    Count("wheels", "a car", 4),
    Count("wheels", "a bicycle", 2),
    Count("wheels", "a tricycle", 3),
    Count("sides", "a triangle", 3),
    Count("sides", "a square", 4),
    Count("sides", "a pentagon", 5),
    Count("sides", "a hexagon", 6),
    Count("sides", "an octagon", 8),
    Count("faces", "a cube", 6),
    Count("days", "a week", 7),
    Count("days", "a year", 365),
    Count("days", "a leap year", 366),
    Count("weeks", "a year", 52),
    Count("months", "a year", 12),
    Count("hours", "a day", 24),
    Count("minutes", "an hour", 60),
    Count("seconds", "a minute", 60),
    Count("years", "a decade", 10),
    Count("years", "a century", 100),
    Count("letters", "the English alphabet", 26),
    Count("things", "a dozen", 12),
    Count("cents", "a dollar", 100),
    Count("centimetres", "a metre", 100),
    Count("metres", "a kilometre", 1000),
    Count("grams", "a kilogram", 1000),
    Count("strings", "a violin", 4),
    Count("players", "a football team", 11),
    Count("cards", "a deck", 52),
    Count("planets", "the solar system", 8),
    Count("colours", "a rainbow", 7),
    Count("continents", "the world", 7),
)

COLOURS: dict[str, str] = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "coal": "black",
    "a banana": "yellow",
    "a strawberry": "red",
    "a carrot": "orange",
    "a lemon": "yellow",
    "a tomato": "red",
    "a cherry": "red",
    "blood": "red",
    "milk": "white",
    "chocolate": "brown",
    "a polar bear": "white",
    "a flamingo": "pink",
    "an elephant": "grey",
    "a frog": "green",
    "a crow": "black",
    "the sun": "yellow",
    "a pumpkin": "orange",
    "a leaf": "green",
    "the sea": "blue",
    "salt": "white",
    "a fire engine": "red",
    "a cucumber": "green",
    "an eggplant": "purple",
    "a lime": "green",
    "a pea": "green",
    "a swan": "white",
    "cotton": "white",
    "mud": "brown",
}

GREETING_REPLIES: tuple[str, ...] = (
    "Hello! How can I help you?",
    "Hi! What can I do for you?",
)
THANKS_REPLIES: tuple[str, ...] = (
    "You're welcome!",
    "You're welcome! Glad I could help.",
)
FAREWELL_REPLIES: tuple[str, ...] = (
    "Goodbye! Have a nice day.",
    "Goodbye! Come back any time.",
)
WELLBEING_REPLIES: tuple[str, ...] = ("I'm doing well, thank you! How can I help you?",)
"""Answers to "how are you?"."""


class IdentityFact(NamedTuple):
    """What an identity answer says; `replies` hold {name} and {maker}, `holds` what a right answer must contain."""

    replies: tuple[str, ...]
    holds: tuple[str, ...]


IDENTITY: dict[str, IdentityFact] = {
    "name": IdentityFact(("My name is {name}.", "I'm {name}."), ("{name}",)),
    "what": IdentityFact(("I'm {name}, a small AI assistant.",), ("assistant",)),
    "maker": IdentityFact(("I was made by {maker}.",), ("{maker}",)),
    "abilities": IdentityFact(
        ("I can do arithmetic, percentages, dates and weekdays, spell words, count letters and answer questions.",),
        ("arithmetic",),
    ),
    "human": IdentityFact(("I'm {name}, an AI assistant, not a human.",), ("AI", "not a human")),
    "call": IdentityFact(("You can call me {name}.",), ("{name}",)),
}
