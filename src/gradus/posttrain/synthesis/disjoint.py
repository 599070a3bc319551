"""Questions that must not be trained on, since a probe suite asks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradus.core.files import expand_path
from gradus.data.decontaminate import DecontaminateSettings, Decontaminator


def probe_check(suites: Sequence[str], roadmap_dir: Path) -> Decontaminator | None:
    """What finds the probes of some suites: short ones as a whole, half of a longer one's runs of eight words.

    None without suites. Errors: DataError, ConfigError of a suite.
    """
    if not suites:
        return None
    sets = tuple(str(expand_path(path, roadmap_dir)) for path in suites)
    looked_for = DecontaminateSettings(sets=sets, ngram=8, math_ngram=8, min_words=4, min_distinct_words=3)
    return Decontaminator(looked_for, roadmap_dir)


def probes_in(questions: Sequence[str], probes: Decontaminator | None) -> list[str]:
    """For each question the probe that it has in it, '' where there is none."""
    if probes is None or not questions:
        return [""] * len(questions)
    return ["" if found is None else f"{found.set}: {found.item}" for found in probes.check(questions)]
