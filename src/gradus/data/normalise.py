"""Text normalisation that leaves code and mathematics alone.

Changed: line ends, vertical tabs and form feeds become "\\n"; other control characters go (tabs and newlines
stay); a byte order mark at the start, blank lines around the text and white space at its end go; the rest is
put into Unicode form NFC. Nothing else: case, punctuation, symbols, indentation and inner blank lines stay.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_END = re.compile("\r\n?|[\x0b\x0c]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
# The same in UTF-8, where looking is four times as fast: of one byte, and of two.
_CONTROL_BYTES = bytes([*range(0x09), *range(0x0E, 0x20), 0x7F])
_WIDE_CONTROL = re.compile(b"\xc2[\x80-\x9f]")
_BYTE_ORDER_MARK = "\ufeff"
_LEADING_BLANK_LINES = re.compile(r"\A(?:\ufeff|[^\S\n]*\n)+")


def normalise_text(text: str) -> str:
    """The normal form of a text; applying it twice changes nothing more."""
    if "\r" in text or "\x0b" in text or "\x0c" in text:
        text = _LINE_END.sub("\n", text)
    if _has_control(text):
        text = _CONTROL.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.rstrip()
    if text[:1].isspace() or text.startswith(_BYTE_ORDER_MARK):
        text = _LEADING_BLANK_LINES.sub("", text)
    return text


def _has_control(text: str) -> bool:
    data = text.encode("utf-8", "surrogatepass")
    return len(data.translate(None, _CONTROL_BYTES)) < len(data) or _WIDE_CONTROL.search(data) is not None
