"""The text of a web page: its title and what a reader would read, in time that grows with the page's length only.

A scanner of our own, because on hostile markup the standard library's parser (Python 3.11: minutes for 60 kB of
"<a <a") and selectolax 1.0 (400,000 open elements) did not come to an end. It knows tags, quotes, comments and
raw text, and builds no tree. A search that fails ends the scan or is not repeated.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_HIDDEN = frozenset(
    ("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "nav", "footer", "form")
)
_RAW = frozenset(("script", "style", "textarea", "title", "iframe", "noscript"))  # no tags are inside
_BLOCKS = frozenset(
    (
        *(
            "p",
            "div",
            "section",
            "article",
            "main",
            "header",
            "aside",
            "blockquote",
            "figure",
            "figcaption",
            "ul",
            "ol",
        ),
        *(
            "li",
            "dl",
            "dt",
            "dd",
            "table",
            "tr",
            "pre",
            "br",
            "hr",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "title",
            "body",
        ),
    )
)
_MARKS = {"li": "- ", "td": " | ", "th": " | ", **{f"h{level}": "#" * level + " " for level in range(1, 7)}}
_VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "wbr", "source", "area", "base", "col", "embed"))

_NAME = re.compile(r"</?([a-zA-Z][^\s/>\"'<]{0,40})")
_STOPS = re.compile(r"=\s*[\"']|>")
_NOT_SHOWN = re.compile(r"""\shidden(?=[\s=/]|$)|\saria-hidden\s*=\s*["']?true""", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"&#\d{8,};?")
_MOST_ATTRIBUTES = 4000  # characters of them that are looked at


def page_text(markup: str, most_characters: int) -> tuple[str, str]:
    """(title, text) of a page, read until there is that much text or a little more."""
    title, pieces, characters = "", [], 0
    hiding, depth = "", 0  # the element whose inside is not shown, and how many of its name are open
    preformatted = 0
    for tag, name, text in _tokens(markup):
        if hiding:
            if name == hiding:
                depth += 1 if tag == "open" else -1
                hiding = hiding if depth > 0 else ""
            continue
        if tag == "open" and name not in _VOID and (name in _HIDDEN or _NOT_SHOWN.search(text)):
            hiding, depth = name, 1
            continue
        if tag == "text":
            if name == "title":
                title = title or text
                continue
            piece = text if preformatted else re.sub(r"\s+", " ", text)
        else:
            preformatted = max(0, preformatted + (name == "pre") * (1 if tag == "open" else -1))
            piece = ("\n" if name in _BLOCKS else "") + (_MARKS.get(name, "") if tag == "open" else "")
        pieces.append(piece)
        characters += len(piece)
        # White space goes below; twice as much is surely enough.
        if characters > 2 * most_characters:
            break
    return " ".join(_unescaped(title).split()), tidy_text(_unescaped("".join(pieces)))


def _tokens(markup: str) -> Iterator[tuple[str, str, str]]:
    """("text", element of raw text or "", text), ("open", name, attributes) and ("close", name, "")."""
    at = 0
    while (begin := markup.find("<", at)) >= 0:
        if begin > at:
            yield "text", "", markup[at:begin]
        if markup.startswith(("<!", "<?"), begin):
            mark = "-->" if markup.startswith("<!--", begin) else ">"
            end = markup.find(mark, begin + 2)
            if end < 0:
                return
            at = end + len(mark)
            continue
        found = _NAME.match(markup, begin)
        if found is None:
            yield "text", "", "<"
            at = begin + 1
            continue
        name, end = found[1].lower(), _end_of_tag(markup, found.end())
        if end < 0:
            return
        at = end + 1
        if markup[begin + 1] == "/":
            yield "close", name, ""
            continue
        yield "open", name, markup[found.end() : min(end, found.end() + _MOST_ATTRIBUTES)]
        if name in _RAW:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(markup, at)
            if closing is None:
                return
            yield "text", name, markup[at : closing.start()]
            at = closing.start()
    yield "text", "", markup[at:]


def _end_of_tag(markup: str, at: int) -> int:
    """Where a tag ends; a ">" in a quoted value is no end. -1 where the page ends first."""
    while (found := _STOPS.search(markup, at)) is not None:
        if found[0] == ">":
            return found.start()
        closing = markup.find(found[0][-1], found.end())
        at = closing + 1 if closing >= 0 else found.end()
    return -1


def _unescaped(text: str) -> str:
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text))


def tidy_text(text: str) -> str:
    """Without white space at the ends of lines, and with one empty line at most."""
    lines = [line.strip(" \t\r\f\v") if not line.startswith("    ") else line.rstrip() for line in text.split("\n")]
    kept = [line for line in lines if line.strip() not in {"-", "|"}]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
