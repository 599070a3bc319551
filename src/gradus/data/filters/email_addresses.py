"""Finding email addresses in text that may as well be code.

The search starts at each "@" and looks at a bounded part of the text around it, so that the time is linear in the
text whatever it holds.
"""

from __future__ import annotations

import re
import string

_LOCAL_CHARACTERS = string.ascii_letters + string.digits + "._%+-"
_MOST_LOCAL_CHARACTERS = 64  # RFC 5321, section 4.5.3.1.1
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
# After what looks like a domain these make it an attribute: `a @ b.it(...)` written without spaces.
_CODE_AFTER_DOMAIN = tuple("([_=")
# Domains of countries (IANA), and of the others those that people have addresses in, without those that are usual
# names of attributes ("name").
_COUNTRIES = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf
cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg
gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn
kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na
nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh
si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve
vg vi vn vu wf ws ye yt za zm zw
"""
_OTHERS = """
com org net edu gov mil int info biz aero coop museum jobs mobi travel asia app dev online tech blog cloud email xyz
club shop news agency systems solutions digital company academy university science foundation institute
"""
_COUNTRY_DOMAINS, _OTHER_DOMAINS = frozenset(_COUNTRIES.split()), frozenset(_OTHERS.split())
_RESERVED_DOMAIN = re.compile(r"(?:.*\.)?example\.(?:com|net|org|edu)", re.IGNORECASE)  # RFC 2606
_SERVICE_NAMES = frozenset({"git", "hg", "svn"})  # git@host:path is how programs write an address


def find_emails(text: str) -> list[tuple[int, int]]:
    """Spans of email addresses, but for reserved domains and those of version control."""
    spans: list[tuple[int, int]] = []
    done = 0
    at = text.find("@")
    while at != -1:
        span = _email_around(text, at, done)
        if span is not None:
            spans.append(span)
            done = span[1]
        at = text.find("@", max(at + 1, done))
    return spans


def _email_around(text: str, at: int, done: int) -> tuple[int, int] | None:
    domain = _DOMAIN.match(text, at + 1)
    if domain is None:
        return None
    before = text[max(done, at - _MOST_LOCAL_CHARACTERS - 1) : at]
    local = before[len(before.rstrip(_LOCAL_CHARACTERS)) :].lstrip(".-+%")
    if not local or len(local) > _MOST_LOCAL_CHARACTERS or local.endswith(".") or local.lower() in _SERVICE_NAMES:
        return None
    labels = domain.group().split(".")
    top = labels[-1].lower()
    is_known = top in _OTHER_DOMAINS or (top in _COUNTRY_DOMAINS and len(labels[-2]) > 1)
    is_one_case = labels[-1].islower() or labels[-1].isupper() or labels[-1].istitle()
    if not (is_known and is_one_case) or any(not label or label[0] == "-" or label[-1] == "-" for label in labels):
        return None
    if text.startswith(_CODE_AFTER_DOMAIN, domain.end()) or _RESERVED_DOMAIN.fullmatch(domain.group()):
        return None
    return at - len(local), domain.end()
