"""Language filters: what they keep, odd characters, missing packages, unknown languages."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import ConfigError, MissingPackageError
from gradus.data.filters.table import filter_named

ENGLISH = "The river ran slowly past the old town, and nobody who lived there had ever seen it freeze in winter. "
FRENCH = "La rivière coulait lentement devant la vieille ville, et personne ne l'avait jamais vue gelée en hiver. "
GERMAN = "Der Fluss floss langsam an der alten Stadt vorbei, und niemand hatte ihn je im Winter gefroren gesehen. "


def rule(entry: str | dict[str, Any], text: str) -> str | None:
    reason = filter_named(entry).reason(text)
    return reason and reason.name


@pytest.mark.parametrize("identifier", ["pycld2", "py3langid"])
def test_english_stays_and_other_languages_go(identifier: str) -> None:
    pytest.importorskip(identifier)
    entry = {"name": "english", "identifier": identifier}
    assert rule(entry, ENGLISH) is None
    assert rule(entry, FRENCH) == rule(entry, GERMAN) == "english.other_language"


def test_several_languages_may_be_kept_and_count_together() -> None:
    pytest.importorskip("pycld2")
    both = {"name": "language", "languages": ["en", "fr"], "min_confidence": 0.9}
    assert rule(both, ENGLISH + FRENCH) is None
    assert rule(both, GERMAN) == "language.other_language"
    assert rule({"name": "english", "min_confidence": 0.9}, ENGLISH + FRENCH) == "english.mixed"


def test_what_is_of_no_language_goes_unless_told_otherwise() -> None:
    pytest.importorskip("pycld2")
    for text in ("", "3.14", "\x00\x01"):
        assert rule("english", text) == "english.unidentified"
        assert rule({"name": "english", "keep_unidentified": True}, text) is None


def test_tags_and_symbols_of_code_are_text() -> None:
    pytest.importorskip("pycld2")
    code = 'for (int i = 0; i < n; ++i) { total += values[i]; }  // add up all the values\n<p class="x">\n'
    assert rule("english", ENGLISH + code) is None


@pytest.mark.parametrize("odd", ["\x00", "\x07", "\x0b", "\x7f", "\x85", "\ud800", "\ufdd0", "\ufffe", "\U0010ffff"])
def test_characters_that_the_identifier_refuses_change_nothing(odd: str) -> None:
    pytest.importorskip("pycld2")
    assert rule("english", ENGLISH + odd + ENGLISH) is None
    assert rule("english", FRENCH + odd + FRENCH) == "english.other_language"


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_makes_an_identifier_fail(text: str) -> None:
    pytest.importorskip("pycld2")
    filter_named("english").reason(text)


def test_every_character_is_identified_or_replaced() -> None:
    pytest.importorskip("pycld2")
    english = filter_named("english")
    for start in range(0, 0x110000, 0x400):
        english.reason("".join(map(chr, range(start, start + 0x400))))


@pytest.mark.parametrize(("identifier", "extra"), [("pycld2", "gradus[data]"), ("py3langid", "py3langid")])
def test_a_missing_package_is_named_with_its_install_line(
    identifier: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == identifier]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [_Without(identifier), *sys.meta_path])
    with pytest.raises(MissingPackageError, match=identifier) as caught:
        filter_named({"name": "english", "identifier": identifier})
    assert extra in str(caught.value)


class _Without:
    """An environment in which one package is not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self._package)


def test_an_unknown_language_is_refused_with_the_nearest() -> None:
    pytest.importorskip("pycld2")
    with pytest.raises(ConfigError, match=r'pycld2 knows no language "zh-Hans"; did you mean "zh-Hant"\?'):
        filter_named({"name": "language", "languages": ["zh-Hans"]})
    with pytest.raises(ConfigError, match='missing key "languages"'):
        filter_named("language")


def test_the_identifier_and_its_version_are_part_of_the_fingerprint() -> None:
    pytest.importorskip("pycld2")
    pytest.importorskip("py3langid")
    one, other = filter_named("english"), filter_named({"name": "english", "identifier": "py3langid"})
    assert one.fingerprint != other.fingerprint
    assert "pycld2 0." in one.identity()["package"]


def test_of_a_long_text_its_beginning_middle_and_end_are_looked_at() -> None:
    mostly_german = GERMAN * 60 + ENGLISH * 400 + GERMAN * 60
    whole = filter_named({"name": "english", "max_characters": None})
    parts = filter_named({"name": "english", "max_characters": 3000})
    assert whole.reason(mostly_german) is None
    found = parts.reason(mostly_german)
    assert found is not None
    assert found.name in ("english.mixed", "english.other_language")
    assert parts.reason(ENGLISH * 400) is None
    assert whole.fingerprint != parts.fingerprint
