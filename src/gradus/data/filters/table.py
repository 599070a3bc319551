"""The filters and maskers by name. Adding one is its file and its entry here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.settings import Settings, load_settings
from gradus.data.filters.c4 import C4Filter
from gradus.data.filters.custom import FunctionFilter, load_custom
from gradus.data.filters.filter import Filter, Masker
from gradus.data.filters.fineweb import FineWebFilter
from gradus.data.filters.gopher import GopherFilter
from gradus.data.filters.gopher_quality import GopherQualityFilter
from gradus.data.filters.gopher_repetition import GopherRepetitionFilter
from gradus.data.filters.language import EnglishFilter, LanguageFilter
from gradus.data.filters.length import LengthFilter
from gradus.data.filters.lines import LinesFilter
from gradus.data.filters.perplexity import PerplexityFilter
from gradus.data.filters.pii import PiiMasker
from gradus.data.filters.symbols import SymbolsFilter

FilterEntry = str | dict[str, Any]
"""A filter or masker as settings name it: its name, or a table of its name and settings."""

FILTERS: dict[str, type[Filter[Any]]] = {
    "english": EnglishFilter,
    "language": LanguageFilter,
    "length": LengthFilter,
    "lines": LinesFilter,
    "symbols": SymbolsFilter,
    "gopher": GopherFilter,
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "c4": C4Filter,
    "fineweb": FineWebFilter,
    "perplexity": PerplexityFilter,
}
MASKERS: dict[str, type[Masker[Any]]] = {"pii": PiiMasker}


def filter_named(entry: str | Mapping[str, Any], folder: Path = Path(), where: str = "") -> Filter[Any]:
    """The filter of a name, or of a table of its "name" and settings.

    folder: where relative paths in the settings begin, and where modules of outside filters may lie; where: the
    place of the entry, for messages.
    Errors: ConfigError with the nearest name, or with all that is wrong with the settings; MissingPackageError.
    """
    name, settings = _parts(entry, "filter", where)
    if ":" in name:
        found = load_custom(name, folder)
        if isinstance(found, FunctionFilter):
            if settings:
                raise ConfigError(
                    _said(where, f'filter "{name}": a function takes no settings, found {_keys(settings)}')
                )
            return found
        return found(_load(found.settings_class, settings, name, where), folder)
    kind = FILTERS.get(name)
    if kind is None:
        raise ConfigError(_said(where, _unknown(name, "filter", FILTERS, "masker", MASKERS)))
    return kind(_load(kind.settings_class, settings, name, where), folder)


def masker_named(entry: str | Mapping[str, Any], where: str = "") -> Masker[Any]:
    """The masker of a name, or of a table of its "name" and settings. Errors: ConfigError."""
    name, settings = _parts(entry, "masker", where)
    kind = MASKERS.get(name)
    if kind is None:
        raise ConfigError(_said(where, _unknown(name, "masker", MASKERS, "filter", FILTERS)))
    return kind(_load(kind.settings_class, settings, name, where))


def filter_settings(entry: str | Mapping[str, Any], where: str = "") -> Settings:
    """The checked settings of an entry, without loading packages, models or outside code. Errors: ConfigError."""
    name, settings = _parts(entry, "filter", where)
    if ":" in name:
        return Settings()
    kind = FILTERS.get(name)
    if kind is None:
        raise ConfigError(_said(where, _unknown(name, "filter", FILTERS, "masker", MASKERS)))
    return _load(kind.settings_class, settings, name, where)


def _parts(entry: str | Mapping[str, Any], what: str, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    name = entry.get("name")
    if not isinstance(name, str):
        raise ConfigError(_said(where, f'a {what} is a name or a table with the key "name", found {dict(entry)}'))
    return name, {key: value for key, value in entry.items() if key != "name"}


def _load(cls: type[Settings], settings: dict[str, Any], name: str, where: str) -> Settings:
    """Settings of a filter; `false` turns off a rule that None turns off, for which TOML has no word."""
    rules = {key for key, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
    settings = {key: None if value is False and key in rules else value for key, value in settings.items()}
    return load_settings(cls, settings, _said(where, f'"{name}"'))


def _unknown(name: str, what: str, known: Mapping[str, Any], other: str, others: Mapping[str, Any]) -> str:
    if name in others:
        return f'"{name}" is a {other}, not a {what}; list it under the {other}s'
    return f'unknown {what} "{name}"; known are {", ".join(known)}{did_you_mean(name, known)}'


def _keys(settings: Mapping[str, Any]) -> str:
    return ", ".join(f'"{key}"' for key in settings)


def _said(where: str, text: str) -> str:
    return f"{where}: {text}" if where else text
