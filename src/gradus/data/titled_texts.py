"""Files on this machine as documents to search in: each text with a title and what a reader finds it by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gradus.data.drops import DropLog, Dropped
from gradus.data.files import FilesSource
from gradus.data.normalise import normalise_text
from gradus.data.sources import read_source
from gradus.tools.passages import TitledText

_HEADING = re.compile(r"\A\s*#+\s+(.+)")
_MOST_TITLE = 120


def titled_texts(path: str, folder: Path, drops: DropLog) -> Iterator[TitledText]:
    """The documents of a file, pattern or folder, in a fixed order. Errors: DataError where nothing matches.

    drops: takes what cannot be read. A title is the record's own, a Markdown text's first heading, or the file's name.
    """
    for found in read_source(FilesSource(path=path, damaged="keep"), folder, seed=0):
        if isinstance(found, Dropped):
            drops.add(found.source, found)
            continue
        text = normalise_text(found.text)
        meta = found.meta
        heading = _HEADING.match(text)
        title = str(meta.get("title") or "") or (heading[1] if heading else Path(found.place.split(":")[0]).stem)
        url = str(meta.get("url") or "") or found.place
        yield TitledText(" ".join(_unicode(title).split())[:_MOST_TITLE], _unicode(url), _unicode(text))


def _unicode(text: str) -> str:
    """What can be written: half pairs, as of a file name that is not UTF-8, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
