"""Finding public IP addresses in text that may as well be code, with versions, section numbers and times in it.

Every search looks at a bounded part of the text around a number, so that the time is linear in the text.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", re.ASCII)
_NOT_BEFORE_IPV4 = re.compile(r"[\w.+^~-]\Z|(?<!/)/\Z|[=!<>~]=\s?\Z")
_NOT_AFTER_IPV4 = re.compile(r"\w|[.+-]\w")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|vers|version|release|rev|revision|build|firmware|kernel|driver|oid|sec|sect|section|chapter"
    r"|appendix|clause|annex|figure|fig|table|rfc|item|rule)s?|_version_*|§)[\s.:=\"'(]{0,6}\Z",
    re.IGNORECASE,
)
# At most one word stands between, on the same line: "DNS server at 8.8.8.8".
_ADDRESS_BEFORE = re.compile(
    r"\b(?:ip|ips|ipv4|address|addresses|addr|host|hosts|server|servers|nameserver|dns|resolver|ping|ssh|telnet|curl"
    r"|wget|inet|subnet|gateway|client|peer|proxy|router|route)[^\w\n]{1,4}(?:\w{1,12}[^\w\n]{1,3})?\Z|//\Z|@\Z",
    re.IGNORECASE,
)
_ADDRESS_AFTER = re.compile(r":\d{2,5}\b|/\d{1,2}\b|[ \t]{1,2}(?:ip|address|host|server)\b", re.ASCII | re.IGNORECASE)
_VERSION_WINDOW, _ADDRESS_WINDOW = 24, 32
# A version or a section number has small parts; of public addresses fewer than one in a hundred does.
_SMALL_PART = 32


def find_ipv4(text: str) -> list[tuple[int, int]]:
    """Spans of public IPv4 addresses that are no version and no section number."""
    if text.count(".") < 3:
        return []
    return [match.span() for match in _IPV4.finditer(text) if _is_address(text, *match.span())]


def _is_address(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - _VERSION_WINDOW) : start]
    if _NOT_BEFORE_IPV4.search(before) or _NOT_AFTER_IPV4.match(text, end) or _VERSION_BEFORE.search(before):
        return False
    try:
        address = IPv4Address(text[start:end])
    except AddressValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    if sum(part >= _SMALL_PART for part in address.packed) >= 2:
        return True
    before = text[max(0, start - _ADDRESS_WINDOW) : start]
    return bool(_ADDRESS_BEFORE.search(before) or _ADDRESS_AFTER.match(text, end))


# Global unicast addresses begin with the bits 001 (RFC 4291, section 2.4).
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,35}")
_BESIDE_IPV6 = re.compile(r"[\w.:]")
_LEAST_GROUPS = 3  # `2000::3` is a slice


def find_ipv6(text: str) -> list[tuple[int, int]]:
    """Spans of public IPv6 addresses."""
    if text.count(":") < 3:
        return []
    spans: list[tuple[int, int]] = []
    for match in _IPV6.finditer(text):
        start, end = match.span()
        if text[end - 1] == ":" and text[end - 2] != ":":
            end -= 1  # the colon of a sentence or a port's
        elif end < len(text) and text[end].isalnum():
            continue
        found = text[start:end]
        if sum(map(bool, found.split(":"))) < _LEAST_GROUPS or (start and _BESIDE_IPV6.match(text, start - 1)):
            continue
        try:
            if IPv6Address(found).is_global:
                spans.append((start, end))
        except AddressValueError:
            continue
    return spans
