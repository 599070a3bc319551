"""Which artifact a name stands for, and the record of what was deployed under it. Torch-free.

HOME/deployed.json    {"chat": {"given": "quickstart/chat", "now": {...}, "before": {...}}}

A server that is started again with the same words for a name goes on with what was deployed under it; other words on
the command line are a new decision, and win.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradus.core.errors import ConfigError
from gradus.core.files import write_atomic


@dataclass(frozen=True)
class ModelSource:
    """Where a served model comes from.

    name: by which clients ask for it. reference: as the user wrote it. label: what that means now (roadmap/stage).
    stage, kind: of the artifact it lies in; '' for a folder that is none. fingerprint: of that artifact, or ''.
    """

    name: str
    reference: str
    label: str
    folder: Path
    tokenizer: Path
    stage: str = ""
    kind: str = ""
    fingerprint: str = ""

    def to_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}

    @staticmethod
    def from_json(row: dict[str, str]) -> ModelSource:
        return ModelSource(**{**row, "folder": Path(row["folder"]), "tokenizer": Path(row["tokenizer"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Deployment:
    """given: what the server was told to serve when it was started. before: what a rollback goes back to."""

    given: str
    now: ModelSource
    before: ModelSource | None


class Deployments:
    """The record of a home."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, name: str) -> Deployment | None:
        """What was deployed under a name. Errors: ConfigError where the record cannot be read."""
        row = self._rows().get(name)
        if row is None:
            return None
        before = row.get("before")
        return Deployment(
            row["given"], ModelSource.from_json(row["now"]), ModelSource.from_json(before) if before else None
        )

    def sources(self) -> list[ModelSource]:
        """Everything that is deployed, or can be gone back to. Errors: ConfigError where the record cannot be read."""
        found = [self.find(name) for name in self._rows()]
        return [source for one in found if one is not None for source in (one.now, one.before) if source is not None]

    def record(self, name: str, deployment: Deployment) -> None:
        """Keep what is deployed under a name now."""
        rows = self._rows()
        rows[name] = {
            "given": deployment.given,
            "now": deployment.now.to_json(),
            "before": deployment.before.to_json() if deployment.before else None,
        }
        write_atomic(self._path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    def _rows(self) -> dict[str, Any]:
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path}: cannot be read ({error}); move it away to start without it") from None
        if not isinstance(rows, dict):
            raise ConfigError(f"{self._path}: expected a JSON object; move it away to start without it")
        return rows
