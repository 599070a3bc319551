"""What was left out, and why: every drop has a reason, is counted, and the first few of each are kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradus.core.files import write_atomic

DROP_SUMMARY = "drops.json"
_EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Dropped:
    """One text, row or file that goes no further.

    reason: a short name to count by; place: file and line, or id; detail: one sentence; excerpt: its start;
    source: its label, where the reader knows it.
    """

    reason: str
    place: str
    detail: str = ""
    excerpt: str = ""
    source: str = ""


def excerpt_of(text: str) -> str:
    """The start of a text; lone surrogates, which no file can hold, are replaced."""
    return text[:_EXCERPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


class DropLog:
    """Counts by reason and by source, with the first `samples` of each reason kept."""

    def __init__(self, samples: int = 20) -> None:
        self._most = samples
        self.by_reason: Counter[str] = Counter()
        self.by_source: dict[str, Counter[str]] = {}
        self._samples: dict[str, list[dict[str, str]]] = {}

    @property
    def total(self) -> int:
        return self.by_reason.total()

    def add(self, source: str, dropped: Dropped) -> None:
        self.by_reason[dropped.reason] += 1
        self.by_source.setdefault(source, Counter())[dropped.reason] += 1
        kept = self._samples.setdefault(dropped.reason, [])
        if len(kept) < self._most:
            kept.append({**asdict(dropped), "source": source, "excerpt": excerpt_of(dropped.excerpt)})

    def to_json(self) -> dict[str, Any]:
        """{total, by_reason, by_source, samples}."""
        return {
            "total": self.total,
            "by_reason": dict(sorted(self.by_reason.items())),
            "by_source": {s: dict(sorted(c.items())) for s, c in sorted(self.by_source.items())},
            "samples": dict(sorted(self._samples.items())),
        }

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another log's `to_json` holds, behind what is here."""
        self.by_reason.update(other["by_reason"])
        for source, counts in other["by_source"].items():
            self.by_source.setdefault(source, Counter()).update(counts)
        for reason, samples in other["samples"].items():
            kept = self._samples.setdefault(reason, [])
            kept += samples[: self._most - len(kept)]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        write_atomic(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1))

    def summary(self) -> str:
        """ "12 duplicate, 3 empty", most frequent first; "nothing" where nothing was dropped."""
        return dropped_text(self.by_reason) or "nothing"

    def summary_with_sample(self) -> str:
        """The summary, and behind it the first kept drop where there is one."""
        for samples in self._samples.values():
            first = f"{samples[0]['place']}: {samples[0]['reason']} {samples[0]['detail']}".rstrip()
            return f"{self.summary()} (first: {first})"
        return self.summary()


def dropped_text(by_reason: Mapping[str, int]) -> str:
    """ "12 duplicate, 3 empty", most frequent first."""
    listed = sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in listed)
