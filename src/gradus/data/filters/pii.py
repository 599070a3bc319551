"""Masking what tells who a person is or opens their accounts: email and IP addresses, keys, telephone numbers.

Source of masking emails and public IP addresses: FineWeb (Penedo et al. 2024, section 3.7). What is put in their place
is reserved for documentation (RFC 2606, 5737 and 3849), so that masking twice changes nothing more. Whatever could as
well be code, a formula, a version or a section number stays.
"""

from __future__ import annotations

from collections.abc import Callable

from gradus.core.settings import Settings
from gradus.data.filters.email_addresses import find_emails
from gradus.data.filters.filter import Masker
from gradus.data.filters.ip_addresses import find_ipv4, find_ipv6
from gradus.data.filters.secret_keys import find_keys
from gradus.data.filters.telephone import find_phones

Span = tuple[int, int]


class Pii(Settings):
    """emails, ips, keys, phones: which kinds are masked. *_mask: what stands in their place.

    ips: public ones only. keys: of known services, private keys, and random values that are called key, token,
    secret or password. phones: off by default, since many numbers look alike.
    """

    emails: bool = True
    ips: bool = True
    keys: bool = True
    phones: bool = False
    email_mask: str = "email@example.com"
    ipv4_mask: str = "192.0.2.1"
    ipv6_mask: str = "2001:db8::1"
    key_mask: str = "MASKED_KEY"
    phone_mask: str = "555-0100"


class PiiMasker(Masker[Pii]):
    """Counts by "key", "email", "ip" and "phone"."""

    name = "pii"
    settings_class = Pii

    def mask(self, text: str) -> tuple[str, dict[str, int]]:
        chosen = self.settings
        counts: dict[str, int] = {}
        steps: tuple[tuple[bool, str, Callable[[str], list[Span]], str], ...] = (
            (chosen.keys, "key", find_keys, chosen.key_mask),
            (chosen.emails, "email", find_emails, chosen.email_mask),
            (chosen.ips, "ip", find_ipv4, chosen.ipv4_mask),
            (chosen.ips, "ip", find_ipv6, chosen.ipv6_mask),
            (chosen.phones, "phone", find_phones, chosen.phone_mask),
        )
        for is_chosen, kind, find, mask in steps:
            if is_chosen and (spans := find(text)):
                text = _replaced(text, spans, mask)
                counts[kind] = counts.get(kind, 0) + len(spans)
        return text, counts


def _replaced(text: str, spans: list[Span], mask: str) -> str:
    """The text with increasing, separate spans replaced."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += (text[done:start], mask)
        done = end
    return "".join((*parts, text[done:]))
