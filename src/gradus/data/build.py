"""Building a corpus: portions of the sources are prepared side by side, the whole decides, shards are written.

Three passes: prepare.py reads, normalises and judges every portion by itself; here the portions are taken in order
and it is decided which documents stay (duplicates, limits); finish.py writes the shards of every portion. A portion
that is done survives a kill, and the result is the same in any number of processes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.data.corpus import COUNTS, DROPS, SPLITS
from gradus.data.dedup import SeenHashes
from gradus.data.drops import DropLog
from gradus.data.finish import Fate, finish_portion
from gradus.data.lengths import counted_length_statistics, merged_counts
from gradus.data.limits import TextLimit
from gradus.data.portions import Portion, portions_of
from gradus.data.prepare import PortionFiles, PrepareSettings, prepare_portion
from gradus.data.sources import AnySource, shard_tasks, source_limit
from gradus.data.worker import run_jobs

_SCRATCH = "scratch"


def build_corpus(
    sources: Sequence[AnySource],
    out: Path,
    *,
    roadmap_dir: Path,
    settings: PrepareSettings | None = None,
    dedup: Literal["exact", "none"] = "exact",
    validation_fraction: float = 0.01,
    seed: int = 0,
    processes: int = 1,
    raw_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Read the sources and write the corpus into `out`; returns the counts (also in `corpus.json`).

    Exact duplicates keep the first. The validation side depends on a document's text alone; the seed is for
    synthetic sources and the order of remote shards. raw_dir: where remote shards are stored by a source that asks
    for it. An interrupted build of the same sources and settings goes on where it stopped, and the result is the same
    with any number of processes. on_progress: called now and then with (documents read, UTF-8 bytes kept).
    Errors: DataError, also where a side would be empty.
    """
    settings = settings or PrepareSettings()
    tasks = [task for number, source in enumerate(sources) for task in shard_tasks(source, roadmap_dir, seed, number)]
    portions = list(portions_of(tasks))
    processes = min(processes, len(portions))
    folder = _begin(out, [[task.to_json() for task in tasks], settings, dedup, validation_fraction])
    log = folder / "workers.log"
    limits = [source_limit(source) for source in sources]
    decision = _Decision(folder, limits, SeenHashes(folder / "hashes") if dedup == "exact" else None)

    def job(portion: Portion, limit: TextLimit) -> dict[str, Any]:
        bounds = [limit.documents, limit.text_bytes]
        raw = str(raw_dir) if raw_dir else None
        places = {"folder": str(folder), "roadmap_dir": str(roadmap_dir), "raw_dir": raw}
        return {**portion.to_json(), **places, "settings": judged, "limit": bounds}

    judged = settings.model_dump(mode="json")
    jobs = (job(portion, limits[portion.source]) for portion in portions if not decision.is_full(portion.source))
    for prepared in run_jobs(prepare_portion, jobs, processes, log, on_progress):
        portion = portions[prepared["number"]]
        if decision.is_full(portion.source):
            continue  # it was prepared ahead, before the limit was known to be reached
        if not prepared["whole"] and not decision.would_fill(prepared, portion.source):
            # Some of what it held is elsewhere in the corpus too.
            prepared = prepare_portion(job(portion, TextLimit()), _unseen)
        decision.settle(prepared, portion.source)
    finishing = (
        {
            "folder": str(folder),
            "out": str(out),
            "number": number,
            "last": last,
            "validation_fraction": validation_fraction,
        }
        for number, last in decision.taken.items()
    )
    counts = _Counts(folder, decision)
    for finished in run_jobs(finish_portion, finishing, processes, log):
        counts.add(finished)
    result = counts.result(validation_fraction)
    if on_progress is not None:
        on_progress(decision.read, decision.kept_bytes)
    counts.drops.write(out / "drops.json")
    shutil.rmtree(folder)
    write_atomic(out / COUNTS, json.dumps(result, ensure_ascii=False, indent=1))
    return result


def _unseen(documents: int, text_bytes: int) -> None:
    """Progress of work that was counted before."""


def _begin(out: Path, identity: Any) -> Path:
    """The folder of the build: as an interrupted build of the same thing left it, or new."""
    folder = out / _SCRATCH
    mark = folder / "identity"
    if not (mark.is_file() and mark.read_text() == digest(identity)):
        # The counts make the folder a corpus; those of an earlier build go first.
        (out / COUNTS).unlink(missing_ok=True)
        for name in (*SPLITS, DROPS, _SCRATCH):
            shutil.rmtree(out / name, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomic(mark, digest(identity))
    shutil.rmtree(folder / "hashes", ignore_errors=True)
    return folder


class _Decision:
    """Decides, portion by portion in order, which prepared documents are taken."""

    def __init__(self, folder: Path, limits: Sequence[TextLimit], seen: SeenHashes | None) -> None:
        self._folder, self._limits, self._seen = folder, limits, seen
        self._taken_of = [[0, 0] for _ in limits]  # documents and bytes of each source
        # Portion -> the position after which nothing of it is taken.
        self.taken: dict[int, int | None] = {}
        self.read = 0
        self.masked: Counter[str] = Counter()  # in everything prepared, what stands behind a limit too

    @property
    def kept_bytes(self) -> int:
        """UTF-8 bytes of all documents that are taken."""
        return sum(size for _, size in self._taken_of)

    def is_full(self, source: int) -> bool:
        """Whether the source's limit is reached."""
        return self._limits[source].reached(*self._taken_of[source])

    def would_fill(self, prepared: dict[str, Any], source: int) -> bool:
        """Whether the documents of a portion bring the source to its limit."""
        facts, is_new = self._facts(prepared)
        documents, size = self._taken_of[source]
        return self._limits[source].reached(
            documents + int(is_new.sum()), size + int(facts["bytes"][is_new].sum(dtype=np.int64))
        )

    def settle(self, prepared: dict[str, Any], source: int) -> None:
        """Decide about one portion's documents."""
        facts, is_new = self._facts(prepared)
        last = self._last_row(facts["bytes"], is_new, source)
        fates = np.where(is_new, Fate.KEPT, Fate.DUPLICATE).astype(np.uint8)
        fates[last + 1 :] = Fate.NOT_TAKEN
        taken = fates == Fate.KEPT
        if self._seen is not None:
            self._seen.add_hashes(facts["hash"][taken])
        self._taken_of[source][0] += int(taken.sum())
        self._taken_of[source][1] += int(facts["bytes"][taken].sum(dtype=np.int64))
        number = prepared["number"]
        np.save(PortionFiles(self._folder, number)["fates.npy"], fates, allow_pickle=False)
        position = int(facts["position"][last]) if self.is_full(source) else None
        self.taken[number] = position
        self.masked.update(prepared["masked"])
        self.read += prepared["read"] if position is None else position + 1

    def _facts(self, prepared: dict[str, Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What is known of the portion's documents, and which of them are new to the corpus."""
        files = PortionFiles(self._folder, prepared["number"])
        facts: NDArray[Any] = np.load(files["kept.npy"], allow_pickle=False)
        is_new = np.ones(len(facts), dtype=bool) if self._seen is None else self._seen.are_new(facts["hash"])
        return facts, is_new

    def _last_row(self, sizes: NDArray[Any], is_new: NDArray[np.bool_], source: int) -> int:
        """The row that reaches the source's limit, or the last row."""
        limit, (documents, size) = self._limits[source], self._taken_of[source]
        last = len(sizes) - 1
        if limit.documents is not None:
            last = min(last, int(np.searchsorted(documents + np.cumsum(is_new), limit.documents)))
        if limit.text_bytes is not None:
            reached = size + np.cumsum(sizes * is_new, dtype=np.int64)
            last = min(last, int(np.searchsorted(reached, limit.text_bytes)))
        return last


class _Counts:
    """Adds up what the portions came to."""

    def __init__(self, folder: Path, decision: _Decision) -> None:
        self.drops = DropLog()
        self._folder, self._read, self._masked = folder, decision.read, decision.masked
        self._least = 1.0  # position of a document in train
        self._sides: dict[str, dict[str, Any]] = {
            split: {"documents": 0, "bytes": 0, "shards": 0, "by_source": {}} for split in SPLITS
        }
        self._lengths: dict[str, NDArray[np.int64]] = {split: np.zeros((2, 0), dtype=np.int64) for split in SPLITS}

    def add(self, finished: dict[str, Any]) -> None:
        self.drops.merge(finished["drops"])
        self._least = min(self._least, finished["least"])
        files = PortionFiles(self._folder, finished["number"])
        for split, side in self._sides.items():
            for key in ("documents", "bytes", "shards"):
                side[key] += finished[split][key]
            for source, counts in finished[split]["by_source"].items():
                whole = side["by_source"].setdefault(source, {"documents": 0, "bytes": 0})
                for key, value in counts.items():
                    whole[key] += value
            lengths = np.load(files[f"{split}.lengths.npy"], allow_pickle=False)
            self._lengths[split] = merged_counts([self._lengths[split], lengths])

    def result(self, validation_fraction: float) -> dict[str, Any]:
        """Everything, JSON-ready. Errors: DataError where a side is empty that should not be."""
        self._refuse_empty_sides(validation_fraction)
        for split, side in self._sides.items():
            side["by_source"] = dict(sorted(side["by_source"].items()))
            side["document_bytes"] = counted_length_statistics(*self._lengths[split])
        return {
            "read": self._read,
            "kept": sum(side["documents"] for side in self._sides.values()),
            "dropped": dict(sorted(self.drops.by_reason.items())),
            "masked": dict(sorted(self._masked.items())),
            **self._sides,
        }

    def _refuse_empty_sides(self, fraction: float) -> None:
        documents = {split: side["documents"] for split, side in self._sides.items()}
        if not any(documents.values()):
            sample = self.drops.first_sample()
            raise DataError(
                f"the sources hold no usable document: {self._read} read, dropped {self.drops.summary()}"
                + (f" (first: {sample})" if sample else "")
            )
        if fraction > 0 and not documents["validation"]:
            raise DataError(
                f"validation_fraction = {fraction:g} holds out none of {documents['train']} documents; "
                f"set it above {self._least:.4f} for at least one, or to 0 for none; "
                'of a few long texts, split = "paragraphs" makes more documents'
            )
        if not documents["train"]:
            raise DataError(
                f"validation_fraction = {fraction:g} holds out all {documents['validation']} documents "
                "and leaves none to train on; set it lower"
            )
