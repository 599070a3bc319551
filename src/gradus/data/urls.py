"""One form for the many spellings of one web address, so that a page crawled twice is known as one.

Beyond the equivalences of RFC 3986, section 6.2 (case, percent-encoding, dot segments, default ports), what
crawls of one page usually differ in goes too: the scheme, a leading "www.", a user name, the fragment, a
trailing slash, tracking parameters and the order of parameters. What is no http(s) address stays as it is.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

URLS_VERSION = 1

_TRACKING = re.compile(r"(?:utm_\w+|gclid|fbclid|msclkid|dclid|yclid|mc_[ce]id|igshid|_ga)(?:=|$)", re.IGNORECASE)
_WWW = re.compile(r"\A(?:www\.)+")
_ESCAPE = re.compile("%[0-9a-fA-F]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normalise_url(url: str) -> str:
    """The common form, without a scheme; applying it to `"http://" + form` gives the form again."""
    stripped = url.strip()
    if not stripped.lower().startswith(("http://", "https://")):
        return stripped
    try:
        parts = urlsplit(stripped)
        port = parts.port
    except ValueError:  # a bracket or a port that is none
        return stripped
    host = _WWW.sub("", (parts.hostname or "").rstrip("."))
    if port is not None and port not in (80, 443):
        host = f"{host}:{port}"
    path = _without_dots(_escapes(parts.path)).rstrip("/")
    parameters = [p for p in _escapes(parts.query).split("&") if p and not _TRACKING.match(p)]
    return host + path + ("?" + "&".join(sorted(parameters)) if parameters else "")


def _escapes(text: str) -> str:
    """Percent-encoding in upper case, and none where none is needed."""

    def plain(found: re.Match[str]) -> str:
        character = chr(int(found.group()[1:], 16))
        return character if character in _UNRESERVED else found.group().upper()

    # A malformed "%%36%31" shows another escape when it is undone.
    while (after := _ESCAPE.sub(plain, text)) != text:
        text = after
    return text


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, for an absolute path."""
    if "/." not in path:
        return path
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "".join("/" + segment for segment in kept)
