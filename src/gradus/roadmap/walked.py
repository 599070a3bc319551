"""What an earlier walk knew of a stage's files, for a machine that does not have them (after `gradus pull`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradus.core.errors import ArtifactError
from gradus.core.run_record import read_run_record
from gradus.core.settings import Settings

Walked = Mapping[str, Any]


def walked_stages(run_dir: Path) -> dict[str, Walked]:
    """The stages of the last walk by name, as its record has them; {} where there is none that can be read."""
    try:
        return {str(stage["name"]): stage for stage in read_run_record(run_dir)["stages"]}
    except (OSError, ArtifactError):
        return {}


def walked_sources(before: Walked, kind: str, settings: Settings) -> dict[str, str]:
    """The digests that a stage's files had then; {} where it was walked with other settings, or not at all."""
    same = before.get("kind") == kind and before.get("settings") == settings.model_dump(mode="json", by_alias=True)
    return dict(before.get("sources") or {}) if same else {}
