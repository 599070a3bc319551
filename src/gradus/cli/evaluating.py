"""`gradus eval`: ask benchmarks or look for artifacts, show a table, write the result."""

from __future__ import annotations

import json as json_format
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradus.cli.walking import stopping
from gradus.core.comparison import named_measures
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.core.machine import machine_facts, software_versions
from gradus.core.quantity import format_seconds
from gradus.core.terminal import harmless
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of
from gradus.roadmap.models import ModelReference, resolve_model, resolve_stage
from gradus.roadmap.progress import live_progress
from gradus.roadmap.table import text_table

if TYPE_CHECKING:
    from gradus.eval.audit import AuditResult
    from gradus.eval.results import Result

SHOWN_SAMPLES = 5


def audit_model(
    model: str, home: Path, samples: int, prompts: Path | None, temperature: float, seed: int, out: Path | None
) -> None:
    """Draw answers, print the rate of each artifact and the first answers with one.

    prompts: a file of conversations in any shape that pools take; None asks questions from the templates.
    """
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import import_records
    from gradus.data.synthetic.config import ConversationSettings
    from gradus.data.synthetic.conversations import conversations

    def rows() -> Iterator[Conversation]:
        if prompts is None:
            return conversations(ConversationSettings(rows=samples), seed, "probe")
        return (row for row in import_records(prompts) if isinstance(row, Conversation))

    found = resolve_model(model, home)
    from gradus.engine.load import load_engine
    from gradus.engine.sampling import Sampling
    from gradus.eval.audit import audit, questions

    asked = questions(rows, samples)
    sampling = Sampling(temperature=temperature, seed=seed)
    engine = load_engine(found.folder, tokenizer_folder=found.tokenizer)
    with stopping(), live_progress().task("audit", samples, "answers") as task:
        result = audit(
            engine, asked, samples, sampling, model=found.label, on_progress=lambda done, _: task.update(done)
        )
    typer.echo(audit_text(result))
    if out is not None:
        write_atomic(out, json_format.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n")
        typer.echo(f"written to {out}")


def audit_text(result: AuditResult) -> str:
    """The rate of each kind with its upper bound, and the first answers with an artifact."""
    measures = result.measures()
    rows = [
        [name, f"{measure['successes']}/{measure['n']}", f"{measure['value']:.1%}", f"{measure['upper']:.1%}"]
        for name, measure in measures.items()
        if name != "clean"
    ]
    lines = [
        f"artifacts in {len(result.samples)} answers of {result.model} in {format_seconds(result.seconds)}",
        "",
        text_table(["artifact", "answers", "share", "95 % upper bound"], rows, right=(1, 2, 3)),
    ]
    for sample in [sample for sample in result.samples if sample.kinds][:SHOWN_SAMPLES]:
        lines += [
            "",
            f"{sample.id}: {', '.join(sample.kinds)}: {sample.excerpt!r}",
            f"  answer: {harmless(sample.answer)}",
        ]
    return "\n".join(lines)


def evaluate_tasks(
    model: str,
    names: Sequence[str],
    home: Path,
    settings: BenchmarkSettings,
    corpus: str | None,
    out: Path | None,
) -> None:
    """Score benchmarks and print the table; what is done is kept beside `out` until all is.

    corpus: a corpus stage whose documents the items are looked for in.
    """
    names = [name.strip() for name in names]
    check_tasks(names, settings)
    documents = resolve_stage(corpus, home, "corpus").path if corpus is not None else None
    for name in names:
        files_of(name, settings)
    found = resolve_model(model, home)
    from gradus.data.corpus import read_corpus
    from gradus.engine.load import load_engine
    from gradus.eval.contamination import check_contamination, with_contamination
    from gradus.eval.task_run import gathered, run_tasks

    if documents is not None:
        check_contamination(names, settings)
    engine = load_engine(found.folder, tokenizer_folder=found.tokenizer)
    journals = out.with_name(f".{out.name}.part") if out is not None else None
    with stopping(), live_progress().task("tasks", None, "items") as task:
        asked = run_tasks(
            engine,
            names,
            settings,
            label=found.label,
            identity=_model_identity(found),
            journals=journals,
            on_progress=lambda name, done, total: task.update(done, total=total, info=name),
        )
        results = dict(asked)
    if documents is not None:
        texts = (document.text for document in read_corpus(documents, "train"))
        results = with_contamination(results, settings, texts)
    measures = gathered(results)
    typer.echo(task_text(found.label, measures, results))
    if out is not None and journals is not None:
        record = {
            "model": found.label,
            "measures": measures,
            "tasks": {name: result.to_json() for name, result in results.items()},
            "machine": machine_facts(),
            "software": software_versions(),
        }
        write_atomic(out, json_format.dumps(record, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(journals)
        typer.echo(f"written to {out}")


def _model_identity(found: ModelReference) -> str:
    """Where the weights lie and when they were written: enough to tell whether an interrupted run can go on."""
    files = sorted(path for path in found.folder.iterdir() if path.is_file())
    return digest([[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def task_text(model: str, measures: Mapping[str, Any], results: Mapping[str, Result]) -> str:
    """Every measure with its interval, a line each; where a corpus was looked through, also without what is in it."""
    rows = []
    for name, measure in named_measures(measures).items():
        is_share = "successes" in measure or name.rpartition(".")[2].startswith(("acc", "pass@"))
        show = _percent if is_share else _plain
        row = [
            name,
            f"{measure['n']:,}",
            show(measure["value"]),
            f"[{show(measure['lower'])}, {show(measure['upper'])}]" if "lower" in measure else "none",
        ]
        clean = measure.get("clean")
        rows.append([*row, *([f"{measure['contaminated']:,}", show(clean["value"])] if clean else ["", ""])])
    header = ["measure", "items", "value", "95 % interval", "in the corpus", "without those"]
    if not any(row[-1] for row in rows):
        header, rows = header[:4], [row[:4] for row in rows]
    seconds = sum(result.seconds for result in results.values())
    table = text_table(header, rows, right=(1, 2, 4, 5)[: 2 + 2 * (len(header) > 4)])
    notes = [note for result in results.values() for note in result.notes()]
    return "\n".join([f"{model}, {format_seconds(seconds)}\n\n{table}", *(["", *notes] if notes else [])])


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _plain(value: float) -> str:
    return f"{value:.4g}"
