"""The PII masker: what is masked, what looks like it and stays, and that masking twice changes nothing more."""

import random
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import ConfigError
from gradus.data.filters.table import masker_named

TOKEN = "".join(random.Random(0).choices(string.ascii_letters + string.digits, k=64))


def mask(text: str, **settings: Any) -> tuple[str, dict[str, int]]:
    return masker_named({"name": "pii", **settings}).mask(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ada.lovelace@engine.org.", "Write to email@example.com."),
        ("<a.b+c@mail.uni-bonn.de>, x", "<email@example.com>, x"),
        ("mailto:j_doe99@corp.co.uk?subject=x", "mailto:email@example.com?subject=x"),
        ("ADA@ENGINE.COM und ß@x", "email@example.com und ß@x"),
        ("a@b.org;c@d.net", "email@example.com;email@example.com"),
        ("from 203.0.112.77 port 22", "from 192.0.2.1 port 22"),
        ("http://93.184.216.34:8080/x", "http://192.0.2.1:8080/x"),
        ("the DNS server at 8.8.8.8 answers", "the DNS server at 192.0.2.1 answers"),
        ("ping 8.8.4.4, then", "ping 192.0.2.1, then"),
        ("route to 11.0.0.8/30 via", "route to 192.0.2.1/30 via"),
        ("over 2a00:1450:4001:81b::200e.", "over 2001:db8::1."),
        ("[2606:4700:4700::1111]:53", "[2001:db8::1]:53"),
    ],
)
def test_addresses_are_masked(text: str, masked: str) -> None:
    found, counts = mask(text)
    assert found == masked
    assert sum(counts.values()) == masked.count("example.com") + masked.count("192.0.2.1") + masked.count("db8::1")


@pytest.mark.parametrize(
    "text",
    [
        # Reserved, private, or no address
        "someone@example.com and x@mail.example.org",
        "git@github.com:user/repo.git and user@localhost",
        "10.0.0.1 192.168.1.254 127.0.0.1 172.16.3.4 0.0.0.0 255.255.255.255 224.0.0.251 192.0.2.1",
        "fe80::1 ::1 2001:db8::42 fc00::7:8:9",
        # Code and mathematics
        "@dataclass\nclass A: pass\n@app.route('/x')",
        "y = W@x.T + A@B.mT + q@k.at(0) + (a@b.it).is_(c)",
        "npm i lodash@4.17.21 @types/node@20.1.0 left-pad@latest",
        "x[2000::3], a[1::2], std::vector<abc::def>::at, 3fff::T",
        "p = 0.1.2.3 if v>=1.2.3.4 else '==100.200.3.4'",
        r"\begin{align} a_{i,j}^2 &= \frac{1}{2}\|x\|_2^2 \\ & = 3.14159265 \end{align}",
        "E[x] = \\sum_i p_i x_i $ 5 * 3 / 2 + 1 < 10 > 2 # comment",
        # Versions, sections, dates, times, numbers
        "version 103.45.67.89, v 93.184.216.34, kernel 5.10.127.99-generic, 100.64.39.40-beta, 93.184.216.34.5",
        "__version__ = '100.64.33.44'",
        "3.2.1.4 Results\n\nsee section 93.34.45.56 and 1.2.3.4.5\n\n11.8.4.1. Configuring the server",
        "the server.\n\n11.8.4.1. Configuring",
        "2024-01-15 12:30:45 15.01.2024 1:02:03 0001:02:03 10:20:30:40:50:60",
        "1.3.6.1.4.1.311 and 00:1a:2b:3c:4d:5e and 300.400.500.600 and 01.02.03.04",
        "Mozilla/5.0 Chrome/120.64.99.109 Safari/537.36",
        # No secrets
        "api_key = 'your_api_key_goes_right_here' and password: \"correct horse battery\"",
        "token = 'aaaaaaaaaaaaaaaaaaaaaaaa' ; key = '123e4567-e89b-12d3-a456-426614174000'",
        'the key: "created_at_timestamp_2020" and task-risk-sk-learn',
        f"pubkey: '{TOKEN}' and public_key = '{TOKEN}'",
        f"sha256 = '{TOKEN}' and {TOKEN}",
        "+1 212 736 5000",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask(text) == (text, {})


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("aws_access_key_id = ", "AKIA" + TOKEN[:16].upper(), "\n"),
        ("Authorization: token ", "ghp_" + TOKEN[:36], " "),
        ("", "github_pat_" + TOKEN[:40], "."),
        ("PRIVATE-TOKEN: ", "glpat-" + TOKEN[:20], "\n"),
        ("'", "xoxb-123456789012-" + TOKEN[:12], "'"),
        ("OPENAI_API_KEY=", "sk-proj-" + TOKEN[:48], "\n"),
        ("stripe: ", "sk_live_" + TOKEN[:24], ","),
        ("?key=", "AIza" + TOKEN[:35], "&x=1"),
        ("login(", "hf_" + TOKEN[:34], ")"),
        ("", "eyJ" + TOKEN[:20] + ".eyJ" + TOKEN[:30] + "." + TOKEN[:43], ""),
        ("api_key = '", TOKEN[:32], "'"),
        ('"Secret": "', TOKEN[:24] + "==", '"'),
        ("DB_PASSWORD: '", TOKEN[:20], "'"),
        ('secret_token => "', "4f3c2a1b9d8e7f60" * 2, '"'),
        ("-----BEGIN RSA PRIVATE KEY-----\n", TOKEN + "\n" + TOKEN, "\n-----END RSA PRIVATE KEY-----"),
    ],
)
def test_keys_are_masked_and_what_stands_around_them_stays(before: str, key: str, after: str) -> None:
    assert mask(before + key + after) == (before + "MASKED_KEY" + after, {"key": 1})


@pytest.mark.parametrize(
    "number",
    ["+44 20 7946 0958", "+1 (212) 736-5000", "(212) 736-5000", "212-736-5000", "212.736.5000", "+49-89-636-48018"],
)
def test_telephone_numbers_are_masked_where_asked(number: str) -> None:
    assert mask(f"call {number}, please") == (f"call {number}, please", {})
    assert mask(f"call {number}, please", phones=True) == ("call 555-0100, please", {"phone": 1})


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15 and 2024-10-2055, 12.10.2024, 1999-2003",
        "x = 212-736-50001 + 5212-736-5000 - 3.212.736.5000",
        "pi = 3.141.592.6535, 100-200-3000, ISBN 978-0-306-40615-7",
        "+12345, +1.5e10, a+44 20, 1 + 44 20 79 46",
    ],
)
def test_numbers_that_are_none_stay_where_telephone_numbers_are_masked(text: str) -> None:
    assert mask(text, phones=True) == (text, {})


def test_kinds_can_be_left_out_and_masks_chosen() -> None:
    text = "ada@engine.org 203.0.112.77"
    assert mask(text, emails=False) == ("ada@engine.org 192.0.2.1", {"ip": 1})
    assert mask(text, ips=False, email_mask="[EMAIL]") == ("[EMAIL] 203.0.112.77", {"email": 1})
    assert mask("", phones=True) == ("", {})
    with pytest.raises(ConfigError, match='unknown key "email"; did you mean "emails"'):
        masker_named({"name": "pii", "email": True})


PARTS = st.sampled_from(
    [
        *("ada@engine.org", "@", ".", "203.0.112.77", "::", "2a00:1450:4001:81b::200e", "1.", "a", " ", "\n", "key='"),
        *(
            "'",
            "sk-",
            TOKEN[:32],
            "-----BEGIN PRIVATE KEY-----",
            "-----END ",
            "+1 212 736 5000",
            "é",
            "\ud800",
            "漢@x.de",
        ),
        *("=", "/", "212-736-5000", "(", ")"),
    ]
)


@given(st.one_of(st.lists(PARTS, max_size=25).map("".join), st.text(st.characters(exclude_categories=()))))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once, counts = mask(text, phones=True)
    assert mask(once, phones=True) == (once, {})
    assert (once == text) == (not counts)


@given(st.lists(PARTS, max_size=25).map("".join))
def test_line_feeds_and_brackets_stay_where_they_are(text: str) -> None:
    masked, _ = mask(text.replace("-----BEGIN PRIVATE KEY-----", ""))
    assert masked.count("\n") == text.count("\n")
