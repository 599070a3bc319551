"""Finding keys that open accounts: those of known services, private keys, and random values that are called so.

Sources of the forms: the services' own documents, as gathered in GitHub's list of secret scanning patterns. The test
for randomness follows detect-secrets (entropy of characters) and keeps words out.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_-")
# What a key begins with, and what follows. Nothing is looked for where the beginning does not occur.
_FORMS = tuple(
    (start, re.compile(rest + r"(?![A-Za-z0-9_-])"))
    for start, rest in (
        ("AKIA", r"[0-9A-Z]{16}"),
        ("ASIA", r"[0-9A-Z]{16}"),
        ("AIza", r"[0-9A-Za-z_-]{35}"),
        ("ghp_", r"[A-Za-z0-9]{36,255}"),
        ("gho_", r"[A-Za-z0-9]{36,255}"),
        ("ghu_", r"[A-Za-z0-9]{36,255}"),
        ("ghs_", r"[A-Za-z0-9]{36,255}"),
        ("ghr_", r"[A-Za-z0-9]{36,255}"),
        ("github_pat_", r"[A-Za-z0-9_]{22,255}"),
        ("glpat-", r"[A-Za-z0-9_-]{20,255}"),
        ("xoxa-", r"[A-Za-z0-9-]{10,255}"),
        ("xoxb-", r"[A-Za-z0-9-]{10,255}"),
        ("xoxp-", r"[A-Za-z0-9-]{10,255}"),
        ("xoxr-", r"[A-Za-z0-9-]{10,255}"),
        ("xoxs-", r"[A-Za-z0-9-]{10,255}"),
        ("sk-", r"(?=[A-Za-z_-]{0,40}[0-9])[A-Za-z0-9_-]{32,255}"),
        ("sk_live_", r"[0-9A-Za-z]{24,255}"),
        ("rk_live_", r"[0-9A-Za-z]{24,255}"),
        ("hf_", r"[A-Za-z0-9]{34,255}"),
        ("npm_", r"[A-Za-z0-9]{36}"),
        ("pypi-AgE", r"[A-Za-z0-9_-]{50,255}"),
        ("eyJ", r"[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}"),
    )
)
_FENCE = "-----"
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----")
_LEAST_BODY = 32
_NAMES = ("key", "token", "secret", "password", "passwd")
_ASSIGNED = re.compile(
    r"(?:key|token|secret|password|passwd)[\"'\]]{0,2}\s{0,8}(?:=>|:=|=|:)\s{0,8}[\"']([A-Za-z0-9+/_=.~-]{20,200})[\"']",
    re.IGNORECASE,
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"(?:0x)?[0-9a-f]+", re.IGNORECASE)
_WORD = re.compile(r"[a-z]{8}|[A-Z]{8}")
_LEAST_DIGITS = 3
# Bits a character; random text of 20 characters has about 4, of hexadecimal digits about 3.
_LEAST_BITS, _LEAST_HEXADECIMAL_BITS = 3.6, 3.0


def find_keys(text: str) -> list[tuple[int, int]]:
    """Spans of keys, in order; of a private key, what stands between its first and its last line."""
    spans = [*_of_known_forms(text), *_private_keys(text), *_assigned(text)]
    spans.sort()
    separate: list[tuple[int, int]] = []
    for span in spans:
        if not separate or span[0] >= separate[-1][1]:
            separate.append(span)
    return separate


def _occurrences(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place != -1:
        yield place
        place = text.find(part, place + len(part))


def _of_known_forms(text: str) -> Iterator[tuple[int, int]]:
    for start, rest in _FORMS:
        for place in _occurrences(text, start):
            # Inside a longer name it is no key; and so each run of characters is read once.
            if place and text[place - 1] in _NAME_CHARACTERS:
                continue
            match = rest.match(text, place + len(start))
            if match is not None:
                yield place, match.end()


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    for place in _occurrences(text, "-----BEGIN "):
        match = _PRIVATE_KEY.match(text, place)
        end = -1 if match is None else text.find(_FENCE, match.end())
        if match is not None and text.startswith("-----END ", end) and end - match.end() >= _LEAST_BODY:
            body = text[match.end() : end]
            start = match.end() + len(body) - len(body.lstrip())
            yield start, start + len(body.strip())


def _assigned(text: str) -> Iterator[tuple[int, int]]:
    for name in _NAMES:
        for written in (name, name.capitalize(), name.upper()):
            for place in _occurrences(text, written):
                match = _ASSIGNED.match(text, place)
                is_public = text[max(0, place - 7) : place].lower().rstrip("_-").endswith(("pub", "public"))
                if match is not None and not is_public and _is_random(match.group(1)):
                    yield match.span(1)


def _is_random(value: str) -> bool:
    if sum(map(str.isdigit, value)) < _LEAST_DIGITS or not any(map(str.isalpha, value)):
        return False
    if _UUID.fullmatch(value) or _WORD.search(value):
        return False
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())
    return bits >= (_LEAST_HEXADECIMAL_BITS if _HEXADECIMAL.fullmatch(value) else _LEAST_BITS)
