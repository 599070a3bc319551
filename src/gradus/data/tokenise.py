"""Documents to token shards: in this process from any documents, or shard by shard of a corpus in many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.data.corpus import damage_told
from gradus.data.document import Document
from gradus.data.token_manifest import set_facts
from gradus.data.token_task import TaskWriter, TokenTask
from gradus.data.token_writer import SHARD_TOKENS, TokenAppend, TokenWriter
from gradus.data.worker import Job, Report, run_here
from gradus.tokenizer.encoder import Encoder, EncoderName, open_encoder
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

RunJobs = Callable[[Job, Iterable[dict[str, Any]]], Iterable[dict[str, Any]]]
"""Runs a job, a function at the top of a module, on each of its JSON arguments; results in their order."""

# Text that is encoded at a time. Its ids take as much again.
BATCH_BYTES = 1 << 20
_BATCH_DOCUMENTS = 4096


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Documents to encode together. sizes: UTF-8 bytes of each text."""

    texts: list[str]
    sources: list[str]
    sizes: list[int]


def write_token_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    out: Path,
    *,
    split: str,
    shard_tokens: int = SHARD_TOKENS,
    batch_bytes: int = BATCH_BYTES,
    append: bool = False,
    encoder: Encoder | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Encode documents into `out`/`split` in the stream layout; returns the manifest's counts.

    Holds about three times `batch_bytes` (more for a single longer document). append: a new generation of the set
    that is there; otherwise an earlier side of the same name is replaced. encoder: chosen by itself if None.
    """
    separator = tokenizer.special(END_OF_TEXT)
    writer = TokenWriter(out, split, "stream", tokenizer, separator=separator, shard_tokens=shard_tokens, append=append)
    encoder = encoder or open_encoder(tokenizer)
    _encode(_batches(documents, batch_bytes), encoder, writer.add, on_progress)
    return writer.close()


def _encode(
    batches: Iterable[TextBatch], encoder: Encoder, add: Callable[..., None], report: Report | None
) -> tuple[int, int]:
    """Encode and write; documents and bytes done."""
    num_documents = num_bytes = 0
    for batch in batches:
        add(encoder.encode(batch.texts), batch.sources, batch.sizes)
        num_documents, num_bytes = num_documents + len(batch.texts), num_bytes + sum(batch.sizes)
        if report is not None:
            report(num_documents, num_bytes)
    return num_documents, num_bytes


def _batches(documents: Iterable[Document], batch_bytes: int) -> Iterator[TextBatch]:
    batch, size = TextBatch([], [], []), 0
    for document in documents:
        batch.texts.append(document.text)
        batch.sources.append(document.source)
        batch.sizes.append(len(document.text.encode("utf-8", errors="surrogatepass")))
        size += batch.sizes[-1]
        if size >= batch_bytes or len(batch.texts) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = TextBatch([], [], []), 0
    if batch.texts:
        yield batch


def shard_facts(shard: Path) -> list[Any]:
    """[name, bytes, documents of each row group, their bytes] of a parquet shard, from its footer."""
    with damage_told(shard), pq.ParquetFile(shard) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        sizes = [[getattr(group, name) for group in groups] for name in ("num_rows", "total_byte_size")]
        return [shard.name, shard.stat().st_size, *sizes]


def shard_batches(shard: Path, batch_bytes: int = BATCH_BYTES) -> Iterator[TextBatch]:
    """The documents of one parquet shard of a corpus, in order. Errors: DataError where it is damaged."""
    with damage_told(shard), pq.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            yield from _parts(file.read_row_group(group, columns=["text", "source"]), batch_bytes)


def _parts(table: pa.Table, batch_bytes: int) -> Iterator[TextBatch]:
    sizes = pc.binary_length(table["text"]).to_pylist()
    first = size = 0
    for index, one in enumerate(sizes, 1):
        size += one
        if size >= batch_bytes or index == len(sizes):
            part = table.slice(first, index - first)
            yield TextBatch(part["text"].to_pylist(), part["source"].to_pylist(), sizes[first:index])
            first, size = index, 0


def tokenise_shards(
    shards: Sequence[Path],
    tokenizer_folder: Path,
    out: Path,
    *,
    split: str,
    filters: str = "",
    generation: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    encoder: EncoderName = "auto",
    threads: int | None = None,
    run_jobs: RunJobs | None = None,
    on_progress: Report | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Encode the parquet shards of a corpus into a token shard set, a task a shard; its counts, and notices to show.

    The files are the same whatever runs the jobs, and in whatever order; tasks that an interrupted run finished are
    not done again. filters: fingerprint of the corpus that the shards belong to. generation: see TokenAppend.
    threads: of each job, all cores if None. run_jobs: runs them in other processes; here, one by one, if None.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    facts = set_facts(tokenizer, "stream", tokenizer.special(END_OF_TEXT))
    names = [f"{shard.parent.name}/{shard.name}" for shard in shards]
    content = digest([shard_facts(shard) for shard in shards])
    append = TokenAppend(
        out, split, facts, names, filters=filters, content=content, shard_tokens=shard_tokens, generation=generation
    )
    of_task = dict(zip((task.number for task in append.tasks), shards, strict=False))
    arguments = (
        {
            "label": task.source_shard,
            "task": task.to_json(),
            "shard": str(of_task[task.number]),
            "tokenizer": str(tokenizer_folder),
            "encoder": encoder,
            "threads": threads,
        }
        for task in append.pending
    )
    run = run_jobs or partial(run_here, on_progress=on_progress)
    notices = {result["notice"] for result in run(tokenise_shard, arguments) if result["notice"]}
    return append.commit(), sorted(notices)


def tokenise_shard(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The job of one task: read its corpus shard, encode, write, mark as finished."""
    task = TokenTask.from_json(arguments["task"])
    encoder = _encoder_of(arguments["tokenizer"], task.facts.tokenizer, arguments["encoder"], arguments["threads"])
    with TaskWriter(task) as writer:
        documents, size = _encode(shard_batches(Path(arguments["shard"])), encoder, writer.add, report)
        writer.finish()
    return {"task": task.number, "documents": documents, "bytes": size, "notice": encoder.notice}


@lru_cache(maxsize=1)
def _encoder_of(folder: str, expected: str, name: EncoderName, threads: int | None) -> Encoder:
    """The encoder of a folder's tokenizer, kept from one job of a process to the next."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.digest != expected:
        raise DataError(f"{folder}: not the tokenizer that this append began with; run again")
    return open_encoder(tokenizer, name, threads=threads)
