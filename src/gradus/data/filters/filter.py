"""What a filter and a masker are, and running several filters over texts.

A filter says why a text should go, or nothing; it never changes a text. A masker changes a text and says how
often. Both are named, have frozen settings and a fingerprint of all that decides what they do.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

from gradus.core.fingerprint import digest, file_digest
from gradus.core.settings import Settings, SettingsType
from gradus.data.filters.batch import TextBatch

# Texts are judged in batches of about so much: enough to share the work, little enough for the processor's cache.
_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a text goes no further. name: "filter.rule", to count by; detail: the figure and its limit."""

    name: str
    detail: str = ""


class Filter(ABC, Generic[SettingsType]):
    """Judges texts: for each a reason to drop it, or None."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    settings_class: ClassVar[type[Settings]]

    def __init__(self, settings: SettingsType, folder: Path = Path()) -> None:
        """folder: where relative paths in the settings begin."""
        self.settings = settings
        self.folder = folder

    @abstractmethod
    def judge(self, batch: TextBatch) -> list[Reason | None]:
        """One answer for each text of the batch."""

    def __call__(self, texts: Sequence[str]) -> list[Reason | None]:
        """One answer for each text, in memory that the longest text bounds."""
        return first_reasons([self], texts)

    def reason(self, text: str) -> Reason | None:
        """The answer for one text; many at once are quicker."""
        return self([text])[0]

    def identity(self) -> Mapping[str, Any]:
        """What decides the answers besides version and settings: models, other packages.

        A key that is also a setting stands in its place in the fingerprint.
        """
        return {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of name, version, settings and identity; paths are not part of it, what stands there is.

        Of a class from outside also of the file it stands in: its author need not know of `version`.
        """
        identity = dict(self.identity())
        module = type(self).__module__
        if module.partition(".")[0] != __name__.partition(".")[0]:
            source = getattr(sys.modules.get(module), "__file__", None)
            identity["class"] = [f"{module}:{type(self).__qualname__}", file_digest(Path(source)) if source else None]
        return _fingerprint("filter", self.name, self.version, self.settings, identity)

    def drop(self, rule: str, detail: str = "") -> Reason:
        """A reason of this filter."""
        return Reason(f"{self.name}.{rule}", detail)


class TextFilter(Filter[SettingsType]):
    """A filter that gains nothing from seeing texts together."""

    @abstractmethod
    def judge_text(self, text: str) -> Reason | None:
        """The answer for one text."""

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        return [self.judge_text(text) for text in batch.texts]


class Masker(ABC, Generic[SettingsType]):
    """Replaces parts of texts."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    settings_class: ClassVar[type[Settings]]

    def __init__(self, settings: SettingsType) -> None:
        self.settings = settings

    @abstractmethod
    def mask(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with parts replaced, and how many of each kind; kinds that were not met are left out."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of name, version and settings."""
        return _fingerprint("masker", self.name, self.version, self.settings, {})


def _fingerprint(kind: str, name: str, version: int, settings: Settings, identity: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in settings.model_dump(mode="json").items() if key not in identity}
    return digest({"kind": kind, "name": name, "version": version, "settings": plain, "identity": dict(identity)})


def first_reasons(filters: Sequence[Filter[Any]], texts: Sequence[str]) -> list[Reason | None]:
    """For each text the reason of the first filter that drops it, or None where all keep it.

    A filter sees only what those before it kept, so the cheap ones belong first. Words are split once.
    """
    reasons: list[Reason | None] = []
    for batch in batches(texts):
        reasons += judge_in_turn(filters, batch)
    return reasons


def judge_in_turn(filters: Sequence[Filter[Any]], batch: TextBatch) -> list[Reason | None]:
    """`first_reasons` of one batch."""
    reasons: list[Reason | None] = [None] * len(batch.texts)
    left = list(range(len(batch.texts)))
    for judge in filters:
        for position, reason in zip(left, judge.judge(batch), strict=True):
            reasons[position] = reason
        kept = [index for index, position in enumerate(left) if reasons[position] is None]
        left = [left[index] for index in kept]
        if not left:
            break
        batch = batch.select(kept)
    return reasons


def batches(texts: Sequence[str]) -> Iterator[TextBatch]:
    """The texts in order, some at a time; a long one by itself."""
    start, size = 0, 0
    for position, text in enumerate(texts):
        if size and size + len(text) > _BATCH_CHARACTERS:
            yield TextBatch(texts[start:position])
            start, size = position, 0
        size += len(text)
    if start < len(texts):
        yield TextBatch(texts[start:])
