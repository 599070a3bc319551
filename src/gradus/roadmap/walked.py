"""What an earlier walk knew of a stage's files, for a machine that does not have them (after `gradus pull`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradus.core.home import RUN_RECORD
from gradus.core.settings import Settings

Walked = Mapping[str, Any]


def walked_stages(run_dir: Path) -> dict[str, Walked]:
    """The stages of the last walk by name, as its record has them; {} where there is none that can be read."""
    try:
        record = json.loads((run_dir / RUN_RECORD).read_text(encoding="utf-8"))
        return {str(stage["name"]): stage for stage in record["stages"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def walked_sources(before: Walked, kind: str, settings: Settings) -> dict[str, str]:
    """The digests that a stage's files had then; {} where it was walked with other settings, or not at all."""
    same = before.get("kind") == kind and before.get("settings") == settings.model_dump(mode="json", by_alias=True)
    return dict(before.get("sources") or {}) if same else {}
