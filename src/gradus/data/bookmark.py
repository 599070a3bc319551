"""The place of a run in its data: one integer, and what it is a place in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradus.core.errors import DataError
from gradus.core.files import write_atomic


@dataclass(frozen=True)
class Bookmark:
    """`row` rows of the endless sequence have been trained on; `data` names the sequence, part by part.

    The parts: the token shard set and its generation, row length, packing, seed, weights.
    """

    row: int
    data: Mapping[str, Any]

    def require(self, data: Mapping[str, Any]) -> None:
        """DataError naming each part in which `data` is another sequence."""
        names = sorted({*self.data, *data})
        other = [name for name in names if self.data.get(name) != data.get(name)]
        if other:
            parts = "; ".join(
                f"{name}: {_shown(self.data.get(name))}, found {_shown(data.get(name))}" for name in other
            )
            raise DataError(
                f"the bookmark at row {self.row:,} belongs to other data ({parts}); continue on the data that it was "
                "made on, or begin without it"
            )

    def write(self, path: Path) -> None:
        """Keep the bookmark as JSON."""
        write_atomic(path, json.dumps({"row": self.row, "data": dict(self.data)}, indent=1) + "\n")


def read_bookmark(path: Path) -> Bookmark:
    """The bookmark kept at `path`. Errors: DataError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Bookmark(int(content["row"]), dict(content["data"]))
    except FileNotFoundError:
        raise DataError(f"{path}: no bookmark here") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a bookmark ({error})") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:17] + "..."
