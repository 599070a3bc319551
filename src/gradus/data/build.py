"""Building a corpus: portions of the sources are prepared side by side, the whole decides, shards are written.

Three passes: prepare.py reads, normalises and judges every portion by itself; here the portions are taken in order
and it is decided which documents stay (duplicates, limits, near-duplicates); finish.py writes the shards of every
portion. A portion that is done survives a kill, and the result is the same in any number of processes.

A corpus may extend an earlier one: that one's files come first, byte by byte as they are, and what it holds is not
taken again. `exact/N/` and `near/N/` are what generation N of a corpus leaves for the next one to compare with.
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
from gradus.core.files import inherit_files, write_atomic
from gradus.core.fingerprint import digest
from gradus.data.corpus import COUNTS, DROPS, EXACT, NEAR, SPLITS, corpus_counts
from gradus.data.decontaminate import DecontaminateSettings, Decontaminator
from gradus.data.drops import DROP_SUMMARY, DropLog
from gradus.data.exact_duplicates import ExactDuplicates
from gradus.data.finish import Fate, finish_portion
from gradus.data.holdout import check_sides
from gradus.data.lengths import counted_length_statistics, merged_counts
from gradus.data.limits import TextLimit
from gradus.data.minhash import MinHashSettings
from gradus.data.near_duplicates import INDEX, find_near_duplicates, read_index
from gradus.data.portions import Portion, portions_of
from gradus.data.prepare import PrepareSettings, prepare_portion
from gradus.data.prepared import FATES, KEPT_FACTS, PortionFiles, read_columns
from gradus.data.shard_tasks import ShardTask
from gradus.data.sources import AnySource, shard_tasks, source_limit
from gradus.data.worker import run_jobs

_SCRATCH = "scratch"
_LENGTHS = "{}.lengths.npy"
_INHERITED = (*SPLITS, DROPS, EXACT, NEAR)


def build_corpus(
    sources: Sequence[AnySource],
    out: Path,
    *,
    roadmap_dir: Path,
    settings: PrepareSettings | None = None,
    dedup: Literal["exact", "none"] = "exact",
    unique_urls: bool = False,
    decontaminate: DecontaminateSettings | None = None,
    extends: Path | None = None,
    validation_fraction: float = 0.01,
    seed: int = 0,
    processes: int = 1,
    on_ray: bool = False,
    raw_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Read the sources and write the corpus into `out`; returns the counts (also in `corpus.json`).

    Of equal texts (and addresses, where `unique_urls`) the first stays, of near-duplicates (where settings.minhash)
    the longest. decontaminate: evaluation sets whose items no document may hold. extends: an earlier corpus, whose
    documents come first and stay as they are. The validation side depends on a document's text alone; the seed is for
    synthetic sources and the order of remote shards. raw_dir: where remote shards are stored by a source that asks for
    it. An interrupted build of the same sources and settings goes on where it stopped, and the result is the same with
    any number of processes, or on a Ray cluster (on_ray).
    on_progress: called now and then with (documents read, UTF-8 bytes kept).
    Errors: DataError, also where a side would be empty.
    """
    settings = settings or PrepareSettings()
    before = corpus_counts(extends) if extends else None
    generation = before["generations"] if before else 0
    tasks = [task for number, source in enumerate(sources) for task in shard_tasks(source, roadmap_dir, seed, number)]
    portions = list(portions_of(tasks, before["portions"] if before else 0))
    identity = [[_content_of(task) for task in tasks], settings, dedup, unique_urls, validation_fraction, before]
    identity.append(decontaminate)
    folder = _begin(out, identity, extends)
    limits = [source_limit(source) for source in sources]
    exact = None
    if dedup == "exact":
        earlier = [out / EXACT / str(number) for number in range(generation)]
        exact = ExactDuplicates(out / EXACT / str(generation), against=earlier, by_url=unique_urls)
    decision = _Decision(folder, limits, exact, unique_urls)

    def job(portion: Portion, limit: TextLimit) -> dict[str, Any]:
        bounds = [limit.documents, limit.text_bytes]
        raw = str(raw_dir) if raw_dir else None
        places = {"folder": str(folder), "roadmap_dir": str(roadmap_dir), "raw_dir": raw, "evaluation_items": items}
        return {**portion.to_json(), **places, "settings": judged, "limit": bounds}

    judged = settings.model_dump(mode="json")
    items = _evaluation_items(folder, decontaminate, roadmap_dir)
    by_number = {portion.number: portion for portion in portions}
    jobs = (job(portion, limits[portion.source]) for portion in portions if not decision.is_full(portion.source))
    processes, log = min(processes, len(portions)), folder / "workers.log"
    for prepared in run_jobs(prepare_portion, jobs, processes, log, on_progress, on_ray):
        portion = by_number[prepared["number"]]
        if decision.is_full(portion.source):
            continue  # it was prepared ahead, before the limit was known to be reached
        decision.settle(prepared, portion.source)
        if not prepared["whole"] and not decision.is_full(portion.source):
            # Some of what it held is elsewhere in the corpus too.
            decision.settle(prepare_portion(job(portion, TextLimit()), _unseen), portion.source)
    if exact is not None:
        exact.close()
    if settings.minhash is not None:
        decision.drop_near_duplicates(out / NEAR, generation, settings.minhash)
    places = {"folder": str(folder), "out": str(out), "validation_fraction": validation_fraction}
    finishing = ({**places, "number": number, "last": last} for number, last in decision.taken.items())
    counts = _Counts(folder, decision, extends, len(portions))
    for finished in run_jobs(finish_portion, finishing, processes, log, on_ray=on_ray):
        counts.add(finished)
    if on_progress is not None:
        on_progress(decision.read, decision.kept_bytes)
    result = counts.write(out, validation_fraction)
    shutil.rmtree(folder)
    write_atomic(out / COUNTS, json.dumps(result, ensure_ascii=False, indent=1))
    return result


def _content_of(task: ShardTask) -> dict[str, Any]:
    """What decides the texts of a shard, and not how it is reached: a restart may read it from elsewhere."""
    return {key: value for key, value in task.to_json().items() if key not in {"raw", "location"}}


def _evaluation_items(folder: Path, decontaminate: DecontaminateSettings | None, roadmap_dir: Path) -> str | None:
    """The index of what must not be in a text, made once for all processes."""
    if decontaminate is None:
        return None
    path = folder / "evaluation-items.npz"
    if not path.exists():
        Decontaminator(decontaminate, roadmap_dir).save(path)
    return str(path)


def _unseen(documents: int, text_bytes: int) -> None:
    """Progress of work that was counted before."""


def _begin(out: Path, identity: Any, extends: Path | None) -> Path:
    """The folder of the build: as an interrupted build of the same thing left it, or new."""
    folder = out / _SCRATCH
    mark = folder / "identity"
    if not (mark.is_file() and mark.read_text() == digest(identity)):
        # The counts make the folder a corpus; those of an earlier build go first.
        (out / COUNTS).unlink(missing_ok=True)
        for name in (*_INHERITED, _SCRATCH):
            shutil.rmtree(out / name, ignore_errors=True)
        folder.mkdir(parents=True)
        if extends is not None:
            inherit_files(extends, out, _INHERITED)
        write_atomic(mark, digest(identity))
    return folder


class _Decision:
    """Decides, portion by portion in order, which prepared documents are taken."""

    def __init__(
        self, folder: Path, limits: Sequence[TextLimit], exact: ExactDuplicates | None, unique_urls: bool
    ) -> None:
        self._folder, self._limits, self._exact, self._unique_urls = folder, limits, exact, unique_urls
        self._taken_of = [[0, 0] for _ in limits]  # documents and bytes of each source
        self._fates: dict[int, NDArray[np.uint8]] = {}  # of portions that were read in part
        # Portion -> the position after which nothing of it is taken.
        self.taken: dict[int, int | None] = {}
        self._read: dict[int, int] = {}
        self._masked: dict[int, dict[str, int]] = {}

    @property
    def read(self) -> int:
        """Texts that were read, up to each source's limit."""
        return sum(self._read.values())

    @property
    def masked(self) -> Counter[str]:
        """What was replaced in the portions that were taken, behind a limit too."""
        total: Counter[str] = Counter()
        for counts in self._masked.values():
            total.update(counts)
        return total

    @property
    def kept_bytes(self) -> int:
        """UTF-8 bytes of all documents that are taken."""
        return sum(size for _, size in self._taken_of)

    def is_full(self, source: int) -> bool:
        """Whether the source's limit is reached."""
        return self._limits[source].reached(*self._taken_of[source])

    def settle(self, prepared: dict[str, Any], source: int) -> None:
        """Decide about one portion's documents. One that was settled in part goes on where it ended."""
        number = prepared["number"]
        files = PortionFiles(self._folder, number)
        facts: NDArray[Any] = np.load(files[KEPT_FACTS], allow_pickle=False)
        sizes = facts["bytes"].astype(np.int64)
        [ids, *urls] = read_columns(files, "id", *(["url"] if self._unique_urls else []))
        fates = np.full(len(facts), Fate.NOT_TAKEN, np.uint8)
        row = len(settled := self._fates.pop(number, np.zeros(0, np.uint8)))
        fates[:row] = settled
        taken = self._taken_of[source]
        while row < len(facts) and not self.is_full(source):
            end = row + self._room(source, sizes[row:])
            fates[row:end] = self._judge(ids[row:end], urls[0][row:end] if urls else None)
            is_kept = fates[row:end] == Fate.KEPT
            taken[0] += int(is_kept.sum())
            taken[1] += int(sizes[row:end][is_kept].sum())
            row = end
        position = int(facts["position"][row - 1]) if self.is_full(source) else None
        if position is None and not prepared["whole"]:
            self._fates[number] = fates
        np.save(files[FATES], fates, allow_pickle=False)
        self.taken[number] = position
        self._read[number] = prepared["read"] if position is None else position + 1
        self._masked[number] = prepared["masked"]

    def _room(self, source: int, sizes: NDArray[np.int64]) -> int:
        """How many documents can be taken at least one of which is needed, and none too many."""
        limit, (documents, size) = self._limits[source], self._taken_of[source]
        room = len(sizes)
        if limit.documents is not None:
            room = min(room, limit.documents - documents)
        if limit.text_bytes is not None:
            room = min(room, 1 + int(np.searchsorted(np.cumsum(sizes), limit.text_bytes - size)))
        return room

    def _judge(self, ids: list[str], urls: list[str] | None) -> list[Fate]:
        if self._exact is None:
            return [Fate.KEPT] * len(ids)
        fates = {None: Fate.KEPT, "duplicate": Fate.DUPLICATE, "duplicate_url": Fate.DUPLICATE_URL}
        return [fates[reason] for reason in self._exact.add(ids, urls)]

    def drop_near_duplicates(self, folder: Path, generation: int, settings: MinHashSettings) -> None:
        """Decide about the documents that most of another one's text is in."""
        fates = {number: np.load(PortionFiles(self._folder, number)[FATES]) for number in self.taken}
        out = folder / str(generation)
        if not (out / INDEX).exists():
            find_near_duplicates(
                [PortionFiles(self._folder, number)["sketch"] for number in self.taken],
                out,
                settings,
                against=[folder / str(number) for number in range(generation)],
                excluded=[fate != Fate.KEPT for fate in fates.values()],
            )
        index = read_index(out, settings)
        for shard, (number, fate) in enumerate(fates.items()):
            fate[index.removed(shard)] = Fate.NEAR_DUPLICATE
            np.save(PortionFiles(self._folder, number)[FATES], fate, allow_pickle=False)


class _Counts:
    """Adds up what the portions came to, after what an earlier corpus held."""

    def __init__(self, folder: Path, decision: _Decision, extends: Path | None, portions: int) -> None:
        self.drops = DropLog()
        self._folder = folder
        self._least = 1.0  # position of a document in train
        self._sides: dict[str, dict[str, Any]] = {
            split: {"documents": 0, "bytes": 0, "shards": 0, "by_source": {}} for split in SPLITS
        }
        self._lengths: dict[str, NDArray[np.int64]] = {split: np.zeros((2, 0), dtype=np.int64) for split in SPLITS}
        self._read, self._portions, self._generations = decision.read, portions, 1
        self._masked = decision.masked
        if extends is not None:
            before = corpus_counts(extends)
            self._read += before["read"]
            self._portions += before["portions"]
            self._generations += before["generations"]
            self._masked.update(before["masked"])
            self.drops.merge(json.loads((extends / DROP_SUMMARY).read_text(encoding="utf-8")))
            for split in SPLITS:
                self._add_side(split, before[split], extends / _LENGTHS.format(split))

    def add(self, finished: dict[str, Any]) -> None:
        """One finished portion's counts."""
        self.drops.merge(finished["drops"])
        self._least = min(self._least, finished["least"])
        files = PortionFiles(self._folder, finished["number"])
        for split in SPLITS:
            self._add_side(split, finished[split], files[_LENGTHS.format(split)])

    def _add_side(self, split: str, counts: dict[str, Any], lengths: Path) -> None:
        side = self._sides[split]
        for key in ("documents", "bytes", "shards"):
            side[key] += counts[key]
        for source, values in counts["by_source"].items():
            whole = side["by_source"].setdefault(source, {"documents": 0, "bytes": 0})
            for key, value in values.items():
                whole[key] += value
        self._lengths[split] = merged_counts([self._lengths[split], np.load(lengths, allow_pickle=False)])

    def write(self, out: Path, validation_fraction: float) -> dict[str, Any]:
        """Write the summaries but for the counts, which are returned; DataError where a side must not be empty."""
        self._refuse_empty_sides(validation_fraction)
        for split, side in self._sides.items():
            np.save(out / _LENGTHS.format(split), self._lengths[split], allow_pickle=False)
            side["by_source"] = dict(sorted(side["by_source"].items()))
            side["document_bytes"] = counted_length_statistics(*self._lengths[split])
        self.drops.write(out / DROP_SUMMARY)
        return {
            "read": self._read,
            "kept": sum(side["documents"] for side in self._sides.values()),
            "dropped": dict(sorted(self.drops.by_reason.items())),
            "masked": dict(sorted(self._masked.items())),
            "portions": self._portions,
            "generations": self._generations,
            **self._sides,
        }

    def _refuse_empty_sides(self, fraction: float) -> None:
        train, validation = (self._sides[split]["documents"] for split in SPLITS)
        if not train + validation:
            raise DataError(
                f"the sources hold no usable document: {self._read} read, dropped {self.drops.summary_with_sample()}"
            )
        advice = '; of a few long texts, split = "paragraphs" makes more documents'
        check_sides(train, validation, "documents", fraction, self._least, advice)
