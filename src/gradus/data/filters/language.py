"""Keeping texts of some languages, as an identifier sees them: pycld2, or py3langid where the user names it.

Sources: CLD2 (Sites 2013); langid.py (Lui and Baldwin 2012). The least confidence is that of FineWeb (Penedo et al.
2024, section 3.3), which measured it with fastText.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from gradus.core.errors import ConfigError, MissingPackageError, did_you_mean
from gradus.core.settings import Settings
from gradus.data.filters.filter import Reason, TextFilter

# What CLD2 calls invalid: control characters, surrogates and noncharacters.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)


class Language(Settings):
    """languages: codes of the languages to keep, as the identifier writes them ("en", "de", "zh").

    identifier: "pycld2" (extra `data`) or "py3langid" (a package by itself).
    min_confidence: for pycld2 the share of the text that is of these languages, for py3langid the probability.
    keep_unidentified: whether a text that is of no language for sure, such as a short formula, stays.
    max_characters: of a longer text so many are looked at, from its beginning, middle and end; None looks at all.
    """

    languages: tuple[str, ...] = Field(min_length=1)
    identifier: Literal["pycld2", "py3langid"] = "pycld2"
    min_confidence: float = Field(default=0.65, ge=0, le=1)
    keep_unidentified: bool = False
    max_characters: int | None = Field(default=8192, ge=300)


class English(Language):
    """`Language` for English."""

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)


class LanguageFilter(TextFilter[Language]):
    """Texts of other languages go. Errors: MissingPackageError, ConfigError for a language that is not known."""

    name = "language"
    settings_class = Language

    def __init__(self, settings: Language, folder: Path = Path()) -> None:
        super().__init__(settings, folder)
        self._identifier = _IDENTIFIERS[settings.identifier](frozenset(settings.languages))
        for language in settings.languages:
            if language not in self._identifier.known:
                hint = did_you_mean(language, self._identifier.known)
                raise ConfigError(f'filter "{self.name}": {settings.identifier} knows no language "{language}"{hint}')

    def identity(self) -> Mapping[str, Any]:
        return {"package": f"{self.settings.identifier} {version(self.settings.identifier)}"}

    def judge_text(self, text: str) -> Reason | None:
        language, confidence = self._identifier.identify(_looked_at(text, self.settings.max_characters))
        if language is None:
            return None if self.settings.keep_unidentified else self.drop("unidentified")
        if language not in self.settings.languages:
            return self.drop("other_language", f"{language}, {confidence:.2f}")
        if confidence < self.settings.min_confidence:
            return self.drop("mixed", f"{language}, {confidence:.2f}, at least {self.settings.min_confidence:g}")
        return None


def _looked_at(text: str, most: int | None) -> str:
    """A text, or three equal parts of a longer one."""
    if most is None or len(text) <= most:
        return text
    size = most // 3
    middle = (len(text) - size) // 2
    return "\n".join(text[start : start + size] for start in (0, middle, len(text) - size))


class EnglishFilter(LanguageFilter):
    """`LanguageFilter` by the name that most corpora ask for."""

    name = "english"
    settings_class = English


class _Identifier(ABC):
    """known: the codes it may answer with."""

    known: frozenset[str]

    @abstractmethod
    def identify(self, text: str) -> tuple[str | None, float]:
        """(the language, or None where it is uncertain; the confidence that the text is of a wanted language)."""


class _Cld2(_Identifier):
    def __init__(self, wanted: frozenset[str]) -> None:
        self._cld2 = _package("pycld2", "data")
        self._wanted = wanted
        self.known = frozenset(code for _, code in self._cld2.LANGUAGES if not code.startswith("xx"))

    def identify(self, text: str) -> tuple[str | None, float]:
        try:
            found = self._cld2.detect(text, isPlainText=True)
        except (self._cld2.error, UnicodeEncodeError):
            found = self._cld2.detect(_REFUSED.sub(" ", text), isPlainText=True)
        is_reliable, _, details = found
        shares = {code: percent / 100 for _, code, percent, _ in details if code != "un"}
        if not is_reliable or not shares:
            return None, 0.0
        share = sum(shares[code] for code in self._wanted & shares.keys())
        # Several wanted languages in one text count together.
        language = max(self._wanted & shares.keys() if share else shares, key=lambda code: (shares[code], code))
        return language, share or shares[language]


class _Langid(_Identifier):
    def __init__(self, wanted: frozenset[str]) -> None:
        langid = _package("py3langid.langid", None)
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        self._classify = identifier.classify
        self.known = frozenset(identifier.labels)

    def identify(self, text: str) -> tuple[str | None, float]:
        language, confidence = self._classify(text)
        # Without a feature every language is equally likely.
        return (None, 0.0) if confidence * len(self.known) < 2 else (language, confidence)


_IDENTIFIERS: dict[str, type[_Cld2] | type[_Langid]] = {"pycld2": _Cld2, "py3langid": _Langid}


def _package(name: str, extra: str | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        raise MissingPackageError(package, extra) from None
