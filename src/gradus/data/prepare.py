"""The first pass over a corpus: one portion of its raw shards, read, normalised, judged and hashed.

What is kept stands in `<number>.arrow` in the order it was read, what later passes decide by in `<number>.kept.npy`;
what is dropped in `<number>.drops.arrow`. `<number>.json` is written last: with it the portion is complete and is not
read again. A portion depends on nothing but its shards and the settings, so portions run anywhere, in any order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradus.core.files import fsync_file, write_atomic
from gradus.core.settings import Settings
from gradus.data.decontaminate import Decontaminator
from gradus.data.document import Document, encoded_id
from gradus.data.drops import Dropped
from gradus.data.filters.filter import Reason, first_reasons
from gradus.data.filters.table import FilterEntry, filter_named, masker_named
from gradus.data.limits import TextLimit
from gradus.data.minhash import MinHashSettings
from gradus.data.normalise import normalise_text
from gradus.data.prepared import DROP_SCHEMA, KEPT_DTYPE, KEPT_FACTS, KEPT_SCHEMA, Left, PortionFiles, drop_rows
from gradus.data.shard_reading import read_shard
from gradus.data.shard_tasks import RawText, ShardTask
from gradus.data.sketches import SketchWriter
from gradus.data.worker import Report

# Texts are judged together in batches of at most so many, or so many characters: what filters work out about a
# batch this small stays in the processor's cache, which makes them half as fast again as with eight times as much.
_BATCH_TEXTS = 1024
_BATCH_CHARACTERS = 1 << 20
_MOST_RANK = (1 << 32) - 1
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


class PrepareSettings(Settings):
    """What decides about a text on its own; the settings of stage `corpus` of the same names."""

    normalise: bool = True
    min_characters: int = 1
    filters: tuple[FilterEntry, ...] = ()
    mask: tuple[FilterEntry, ...] = ()
    minhash: MinHashSettings | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that goes on. place: where it stood; position: its number among all that was read; size: bytes."""

    document: Document
    place: str
    position: int
    size: int


def prepare_portion(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Prepare a portion: {folder, number, tasks, raw_dir, roadmap_dir, evaluation_items, settings, limit}.

    The result: {number, read, bytes_read, masked, limit, whole}. limit: [documents, bytes] that are enough, each or
    null; duplicates inside the portion do not count. read: texts met, dropped ones included; bytes_read: UTF-8 bytes
    of what was kept; whole: whether all was read.
    Errors: DataError.
    """
    files = PortionFiles(Path(job["folder"]), job["number"])
    if files["json"].exists():
        done: dict[str, Any] = json.loads(files["json"].read_text(encoding="utf-8"))
        if done["whole"] or done["limit"] == job["limit"]:
            report(done["read"], done["bytes_read"])
            return done
    raw_dir = Path(job["raw_dir"]) if job["raw_dir"] else None
    tasks = [ShardTask.from_json(task) for task in job["tasks"]]
    texts = (found for task in tasks for found in read_shard(task, raw_dir=raw_dir))
    settings = PrepareSettings.model_validate(job["settings"])
    items = Path(job["evaluation_items"]) if job["evaluation_items"] else None
    judge = TextJudge(settings, Path(job["roadmap_dir"]), items)
    sketch = SketchWriter(files["sketch"], settings.minhash) if settings.minhash else None
    with closing(texts):
        counts = _prepare(texts, judge, TextLimit(*job["limit"]), files, sketch, report)
    done = {"number": files.number, "limit": job["limit"], **counts}
    write_atomic(files["json"], json.dumps(done))
    return done


def _prepare(
    texts: Iterator[RawText | Dropped],
    judge: TextJudge,
    limit: TextLimit,
    files: PortionFiles,
    sketch: SketchWriter | None,
    report: Report,
) -> dict[str, Any]:
    read = bytes_read = 0
    enough = _Enough(limit)
    facts: list[NDArray[Any]] = []
    with (
        pa.OSFile(str(files["arrow"]), "wb") as kept_file,
        pa.ipc.new_file(kept_file, KEPT_SCHEMA, options=_LZ4) as kept_writer,
        pa.OSFile(str(files["drops.arrow"]), "wb") as drop_file,
        pa.ipc.new_file(drop_file, DROP_SCHEMA, options=_LZ4) as drop_writer,
    ):
        for batch in _batches(texts, enough):
            kept, left = judge(batch, read)
            if kept:
                kept_writer.write_batch(_kept_rows(kept))
                facts.append(np.array([(one.size, one.position) for one in kept], KEPT_DTYPE))
                if sketch is not None:
                    # Of near-duplicates the longest stays.
                    sketch.add(
                        [one.document.text for one in kept],
                        [one.document.id for one in kept],
                        [min(one.size, _MOST_RANK) for one in kept],
                    )
            if left:
                drop_writer.write_batch(drop_rows(left))
            read += len(batch)
            bytes_read += sum(one.size for one in kept)
            enough.add(kept)
            report(read, bytes_read)
    np.save(files[KEPT_FACTS], np.concatenate(facts) if facts else np.zeros(0, KEPT_DTYPE), allow_pickle=False)
    for ending in ("arrow", "drops.arrow", KEPT_FACTS):
        fsync_file(files[ending])
    if sketch is not None:
        sketch.close()
    masked = dict(sorted(judge.masked.items()))
    return {"read": read, "bytes_read": bytes_read, "masked": masked, "whole": not enough.is_reached}


class _Enough:
    """Whether the documents of a portion are as many as its source may give."""

    def __init__(self, limit: TextLimit) -> None:
        self._limit = limit
        self._ids: set[str] = set()
        self._size = 0

    def add(self, kept: Sequence[Kept]) -> None:
        if self._limit.is_bound:
            for one in kept:
                self._size += 0 if one.document.id in self._ids else one.size
                self._ids.add(one.document.id)

    @property
    def is_reached(self) -> bool:
        return self._limit.reached(len(self._ids), self._size)

    @property
    def batch_texts(self) -> int:
        """How many texts to take at once: no more than could be wanted."""
        wanted = self._limit.documents
        return _BATCH_TEXTS if wanted is None else max(1, min(_BATCH_TEXTS, wanted - len(self._ids)))

    @property
    def batch_characters(self) -> int:
        """At how many characters a batch is full."""
        wanted = self._limit.text_bytes
        return _BATCH_CHARACTERS if wanted is None else min(_BATCH_CHARACTERS, wanted - self._size)


@dataclass(frozen=True, slots=True)
class _Readable:
    """A text in its normal form. position: its number among all that was read; encoded: in UTF-8."""

    position: int
    raw: RawText
    text: str
    encoded: bytes


class TextJudge:
    """Decides about texts one by one: normalises, filters, looks for evaluation items, masks.

    masked: what was replaced so far, by kind. evaluation_items: the index of what must not be in a text, if any.
    """

    def __init__(self, settings: PrepareSettings, roadmap_dir: Path, evaluation_items: Path | None = None) -> None:
        self._settings = settings
        self._decontaminator = Decontaminator.load(evaluation_items) if evaluation_items else None
        self._filters = [filter_named(entry, roadmap_dir) for entry in settings.filters]
        self._maskers = [masker_named(entry) for entry in settings.mask]
        self.masked: Counter[str] = Counter()

    def __call__(self, found: Sequence[RawText | Dropped], first: int) -> tuple[list[Kept], list[Left]]:
        """What becomes of each text, in order; `first` is the position of the first."""
        left: list[Left] = []
        passed: list[_Readable] = []
        for position, raw in enumerate(found, start=first):
            text = raw if isinstance(raw, Dropped) else self._readable(raw, position)
            if isinstance(text, Dropped):
                left.append(Left(text, position))
            else:
                passed.append(text)
        for find in (self._filtered, self._contaminated):
            reasons = find([one.text for one in passed])
            for one, reason in zip(passed, reasons, strict=True):
                if reason is not None:
                    dropped = Dropped(reason.name, one.raw.place, reason.detail, one.text, one.raw.source)
                    left.append(Left(dropped, one.position, encoded_id(one.encoded)))
            passed = [one for one, reason in zip(passed, reasons, strict=True) if reason is None]
        left.sort(key=lambda one: one.position)
        return [self._kept(one) for one in passed], left

    def _filtered(self, texts: list[str]) -> list[Reason | None]:
        return first_reasons(self._filters, texts) if self._filters else [None] * len(texts)

    def _contaminated(self, texts: list[str]) -> list[Reason | None]:
        if self._decontaminator is None:
            return [None] * len(texts)
        return [
            None if found is None else Reason(f"contaminated.{found.set}", f"{found.coverage:.0%} of item {found.item}")
            for found in self._decontaminator.check(texts)
        ]

    def _readable(self, raw: RawText, position: int) -> _Readable | Dropped:
        """The text in its normal form, or why it is no document."""
        text = normalise_text(raw.text) if self._settings.normalise else raw.text

        def dropped(reason: str, detail: str = "") -> Dropped:
            return Dropped(reason, raw.place, detail, text, raw.source)

        if not text.strip():
            return dropped("empty")
        if len(text) < self._settings.min_characters:
            return dropped("too_short", f"{len(text)} characters, fewer than {self._settings.min_characters}")
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError as error:
            return dropped("invalid_unicode", f"lone surrogate at position {error.start}")
        return _Readable(position, raw, text, encoded)

    def _kept(self, one: _Readable) -> Kept:
        text, encoded = one.text, one.encoded
        for masker in self._maskers:
            text, counts = masker.mask(text)
            self.masked.update(counts)
        if self._maskers:
            encoded = text.encode("utf-8")
        document = Document(text, encoded_id(encoded), one.raw.source, one.raw.meta)
        return Kept(document, one.raw.place, one.position, len(encoded))


def _batches(found: Iterator[RawText | Dropped], enough: _Enough) -> Iterator[list[RawText | Dropped]]:
    """The texts in batches, until they end or are enough; `enough` is told of each batch before the next is taken."""
    while not enough.is_reached:
        batch: list[RawText | Dropped] = []
        size = 0
        for one in islice(found, enough.batch_texts):
            batch.append(one)
            size += len(one.text) if isinstance(one, RawText) else 0
            if size >= enough.batch_characters:
                break
        if not batch:
            return
        yield batch


def _kept_rows(kept: Sequence[Kept]) -> pa.RecordBatch:
    columns = {
        "id": [one.document.id for one in kept],
        "text": [one.document.text for one in kept],
        "source": [one.document.source for one in kept],
        "meta": [json.dumps(dict(one.document.meta)) for one in kept],
        "place": [one.place for one in kept],
        "url": [str(one.document.meta.get("url", "")) for one in kept],
    }
    return pa.RecordBatch.from_pydict(columns, schema=KEPT_SCHEMA)
