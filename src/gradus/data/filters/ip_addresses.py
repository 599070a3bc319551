"""Finding public IP addresses in text that may as well be code, with versions, section numbers and times in it.

Every search looks at a bounded part of the text around a number, so that the time is linear in the text.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", re.ASCII)
_NOT_BEFORE_IPV4 = re.compile(r"[\w.+^~-]\Z|(?<!/)/\Z|[=!<>~]=\s?\Z")
_NOT_AFTER_IPV4 = re.compile(r"\w|[.+-]\w")
_WORD = re.compile(r"\w+")
_WINDOW = 32
_VERSIONS = """
v ver vers version versions release releases rev revision build firmware kernel driver oid sec sect section sections
chapter chapters appendix clause annex figure fig table rfc item rule
"""
_ADDRESSES = """
ip ips ipv4 address addresses addr host hosts server servers nameserver dns resolver ping ssh telnet curl wget inet
subnet gateway client peer proxy router route
"""
# The word before a version or a section number; one of the two words before an address, "DNS server at 8.8.8.8".
_VERSION_WORDS, _ADDRESS_WORDS = frozenset(_VERSIONS.split()), frozenset(_ADDRESSES.split())
_ADDRESS_AFTER = re.compile(r":\d{2,5}\b|/\d{1,2}\b|[ \t]{1,2}(?:ip|address|host|server)\b", re.ASCII | re.IGNORECASE)
# A version or a section number has small parts; of public addresses fewer than one in a hundred does.
_SMALL_PART = 32


def find_ipv4(text: str) -> list[tuple[int, int]]:
    """Spans of public IPv4 addresses that are no version and no section number."""
    if text.count(".") < 3:
        return []
    return [match.span() for match in _IPV4.finditer(text) if _is_address(text, *match.span())]


def _is_address(text: str, start: int, end: int) -> bool:
    if _NOT_AFTER_IPV4.match(text, end) or _NOT_BEFORE_IPV4.search(text[max(0, start - 3) : start]):
        return False
    before = text[max(0, start - _WINDOW) : start].rpartition("\n")[2]
    words = [word.strip("_").lower() for word in _WORD.findall(before)[-2:]]
    if (words and words[-1] in _VERSION_WORDS) or "§" in before[-2:]:
        return False
    parts = text[start:end].split(".")
    if sum(int(part) >= _SMALL_PART for part in parts) < 2:
        is_called_so = before.endswith(("//", "@")) or not _ADDRESS_WORDS.isdisjoint(words)
        if not is_called_so and not _ADDRESS_AFTER.match(text, end):
            return False
    try:
        address = IPv4Address(text[start:end])
    except AddressValueError:
        return False
    return address.is_global and not address.is_multicast


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
