"""Evaluation sets by name: their items as questions with answers, read from files in a benchmarks folder.

Each set is an entry of `BENCHMARKS`: its files (each also found as `.gz`) under the folder, and a function from a
row to an item. What an item says is what would give it away, without the frame of a prompt ("Question:", letters of
choices): the question with the right answer. Where the answer is read from a passage (BoolQ, CoQA, SQuAD) the passage
is not part of it: to have read Wikipedia is not to have seen the test (Brown et al. 2020, section 4).

A set can also be a file of the user's: a probe suite (.jsonl or .toml), or JSON lines with a `text` each.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradus.conversation.checks import AnswerContains, AnswerNumber, ExactlyOneOf
from gradus.conversation.probes import Probe, load_suite
from gradus.core.compression import COMPRESSION_DAMAGE, decompressed
from gradus.core.errors import DataError, did_you_mean
from gradus.data import benchmark_rows as rows

FOLDER_VARIABLE = "GRADUS_BENCHMARKS"
_PATH_SUFFIXES = (".jsonl", ".jsonl.gz", ".toml")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item. id: unique in its set; question may be empty (an item that is one text), answer too."""

    id: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        """Both, one after the other."""
        return f"{self.question}\n{self.answer}".strip()


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One row. id: of its item; place: file and line or number of the row, for messages."""

    id: str
    place: str
    row: rows.Row


@dataclass(frozen=True, slots=True)
class Benchmark:
    """An evaluation set. files: under the benchmarks folder, "*" in a name for many; one row function for all."""

    files: tuple[str, ...]
    row: Callable[[rows.Row], rows.QuestionAnswer]
    is_mathematics: bool = False
    id_key: str | None = None
    beside: str | None = None
    """A file or folder with more of each row, joined by line or by id; see `_records`."""


_CORE = (
    "agi_eval_lsat_ar", "arc_challenge", "arc_easy", "bigbench_cs_algorithms", "bigbench_dyck_languages",
    "bigbench_language_identification", "bigbench_operators", "bigbench_qa_wikidata", "bigbench_repeat_copy_logic",
    "boolq", "commonsense_qa", "copa", "coqa", "hellaswag", "jeopardy", "lambada_openai", "openbook_qa", "piqa",
    "squad", "winograd", "winogrande",
)  # fmt: skip
_CORE_EXTRA = (
    "aqua", "bigbench_logical_deduction", "bigbench_misconceptions", "bigbench_strategy_qa",
    "bigbench_understanding_fables", "gsm8k", "human_eval", "math", "math_qa", "simple_arithmetic_nospaces",
    "simple_arithmetic_withspaces", "siqa", "svamp", "triviaqa_sm_sub",
)  # fmt: skip
_CORE_MATHEMATICS = frozenset(
    {"aqua", "gsm8k", "math", "math_qa", "svamp", "simple_arithmetic_nospaces", "simple_arithmetic_withspaces"}
)
_ANSWERED_FROM_A_PASSAGE = frozenset({"boolq", "coqa", "squad"})


def _core(stem: str, folder: str) -> Benchmark:
    row = rows.core_from_passage if stem in _ANSWERED_FROM_A_PASSAGE else rows.core
    return Benchmark((f"core_bundle/{folder}{stem}.jsonl",), row, stem in _CORE_MATHEMATICS)


BENCHMARKS: dict[str, Benchmark] = {
    "aqua": Benchmark(("aqua/test.json", "aqua/dev.json"), rows.aqua, is_mathematics=True),
    "arc_challenge": Benchmark(("arc/arc_challenge_test.jsonl", "arc/arc_challenge_val.jsonl"), rows.core, id_key="id"),
    "arc_easy": Benchmark(("arc/arc_easy_test.jsonl", "arc/arc_easy_val.jsonl"), rows.core, id_key="id"),
    "bfcl": Benchmark(("bfcl/BFCL_v4_*.json",), rows.bfcl, id_key="id", beside="possible_answer"),
    "boolq_train": Benchmark(("boolq_train/train.jsonl",), rows.core_from_passage),
    "commonsense_qa_train": Benchmark(
        ("commonsense_qa_train/train_rand_split.jsonl",), rows.commonsense_qa, id_key="id"
    ),
    "gsm8k": Benchmark(("gsm8k/test.jsonl",), rows.gsm8k, is_mathematics=True),
    "hellaswag": Benchmark(("hellaswag/hellaswag_val.jsonl",), rows.core, id_key="ind"),
    "humaneval": Benchmark(("humaneval/HumanEval.jsonl",), rows.core, id_key="task_id"),
    "lambada": Benchmark(("lambada/lambada_openai.jsonl",), rows.core),
    "math_train": Benchmark(("reasoning/math_train_problem_answer.jsonl",), rows.math, is_mathematics=True),
    "mbpp": Benchmark(("mbpp/mbpp_test.jsonl",), rows.mbpp, id_key="task_id"),
    "mmlu": Benchmark(("mmlu/data/test/*.csv", "mmlu/data/val/*.csv"), rows.mmlu),
    "mt_bench": Benchmark(("multiturn/mt_bench_question.jsonl",), rows.turns, id_key="question_id"),
    "openbookqa_train": Benchmark(("openbookqa_train/train.jsonl",), rows.core, id_key="id"),
    "piqa": Benchmark(("piqa/valid.jsonl",), rows.piqa, beside="valid-labels.lst"),
    "svamp": Benchmark(("svamp/SVAMP.json",), rows.svamp, is_mathematics=True, id_key="ID"),
    "vicuna_bench": Benchmark(("multiturn/vicuna_bench_question.jsonl",), rows.turns, id_key="question_id"),
    "wikitext2": Benchmark(("wikitext2/test.txt", "wikitext2/valid.txt"), rows.plain),
    "winogrande": Benchmark(("winogrande/dev.jsonl",), rows.winogrande),
    **{f"core_{stem}": _core(stem, "") for stem in _CORE},
    **{f"core_{stem}": _core(stem, "extra/") for stem in _CORE_EXTRA},
}
GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(BENCHMARKS),
    "arc": ("arc_challenge", "arc_easy"),
    "core": tuple(f"core_{stem}" for stem in _CORE),
    "core_extra": tuple(f"core_{stem}" for stem in _CORE_EXTRA),
    "math": ("core_math",),
}
"""Names that stand for several sets."""


def benchmark_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The sets that are meant, groups spread out, each once, in order. Errors: DataError for an unknown name."""
    found: list[str] = []
    for name in names:
        if name not in GROUPS and name not in BENCHMARKS and not _is_path(name):
            known = [*BENCHMARKS, *GROUPS]
            raise DataError(
                f'unknown evaluation set "{name}"{did_you_mean(name, known)} (known: {", ".join(sorted(known))}; or '
                f"give a file that ends in {', '.join(_PATH_SUFFIXES)})"
            )
        found += GROUPS.get(name, (name,))
    return tuple(dict.fromkeys(found))


def is_mathematics(name: str) -> bool:
    """Whether a set is one of mathematics, whose items are looked for by shorter n-grams."""
    return name in BENCHMARKS and BENCHMARKS[name].is_mathematics


def benchmark_items(name: str, folder: Path | None, roadmap_dir: Path = Path()) -> Iterator[BenchmarkItem]:
    """The items of a set by its name, from the benchmarks folder, or by its path, from the roadmap's.

    Errors: DataError for an unknown name, a missing folder or file, or a row that is not as it should be; ConfigError
    for a probe suite that is wrong.
    """
    (name,) = benchmark_names((name,)) if name not in GROUPS else (name,)
    if name in GROUPS:
        raise DataError(f'"{name}" stands for several evaluation sets: {", ".join(GROUPS[name])}; read them one by one')
    if name not in BENCHMARKS:
        yield from _items_of_file(roadmap_dir / Path(name).expanduser())
        return
    for found in benchmark_rows(name, folder):
        question, answer = read_row(name, found, BENCHMARKS[name].row)
        if question or answer:
            yield BenchmarkItem(found.id, question, answer)


def benchmark_rows(name: str, folder: Path | None, pattern: str | None = None) -> Iterator[BenchmarkRow]:
    """The rows of a known set as they stand in its files, with the ids of its items.

    pattern: of the set's files only these, such as "arc/arc_easy_test.jsonl"; None reads all. Errors: DataError for a
    missing folder or file.
    """
    if folder is None:
        raise DataError(
            f'evaluation set "{name}": no benchmarks folder is set; set {FOLDER_VARIABLE} or the key "folder" to the '
            f"folder that holds {BENCHMARKS[name].files[0]}"
        )
    benchmark = BENCHMARKS[name]
    many = len(benchmark.files) > 1 or "*" in benchmark.files[0]
    for one in benchmark.files if pattern is None else (pattern,):
        for path in _paths(folder, one, name):
            stem = path.name.split(".")[0]
            for number, row in _records(path, benchmark):
                label = str(number)
                if benchmark.id_key is not None:
                    # A row without its id is no row of the set; whoever reads it says so.
                    label = str(row.get(benchmark.id_key))
                elif many:
                    label = f"{stem}:{number}"
                yield BenchmarkRow(label, f"{path}:{number}", row)


def read_row(name: str, found: BenchmarkRow, read: Callable[[rows.Row], Read]) -> Read:
    """What a function makes of a row. Errors: DataError with the row's place where it is not as it is published."""
    try:
        benchmark = BENCHMARKS[name]
        if benchmark.id_key is not None:
            found.row[benchmark.id_key]
        return read(found.row)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f'{found.place}: not a row of "{name}" as it is published ({type(error).__name__}: {error}); '
            "fetch the file again"
        ) from error


def benchmarks_folder(folder: str | None, roadmap_dir: Path) -> Path | None:
    """The folder that is set, or that GRADUS_BENCHMARKS names; a relative one starts at the roadmap's."""
    chosen = folder if folder is not None else os.environ.get(FOLDER_VARIABLE)
    return roadmap_dir / Path(chosen).expanduser() if chosen else None


def benchmark_files(name: str, folder: Path | None, roadmap_dir: Path = Path()) -> list[Path]:
    """The files that a set's items are read from, for digests. Errors: as `benchmark_items`."""
    if name not in BENCHMARKS:
        return [roadmap_dir / Path(name).expanduser()]
    return row_files(name, folder)


def row_files(name: str, folder: Path | None, pattern: str | None = None) -> list[Path]:
    """The files that `benchmark_rows` reads, those beside them included. Errors: DataError."""
    if folder is None:
        raise DataError(f'evaluation set "{name}": no benchmarks folder is set; set {FOLDER_VARIABLE}')
    benchmark = BENCHMARKS[name]
    patterns = benchmark.files if pattern is None else (pattern,)
    found = [path for one in patterns for path in _paths(folder, one, name)]
    if benchmark.beside is not None:
        places = {path.parent / benchmark.beside for path in found}
        found += sorted(file for place in places for file in (place.rglob("*") if place.is_dir() else [place]))
    return [path for path in found if path.is_file()]


def sets_in(folder: Path) -> tuple[str, ...]:
    """The sets whose files are all in a benchmarks folder."""

    def is_there(pattern: str) -> bool:
        return any(next(folder.glob(pattern + end), None) is not None for end in ("", ".gz"))

    return tuple(name for name, benchmark in BENCHMARKS.items() if all(map(is_there, benchmark.files)))


def _is_path(name: str) -> bool:
    return name.lower().endswith(_PATH_SUFFIXES)


def _paths(folder: Path, pattern: str, name: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f'evaluation set "{name}": {folder} is no folder; set {FOLDER_VARIABLE} or the key "folder" to the folder '
            f"that holds {pattern}"
        )
    found = {path.name.removesuffix(".gz"): path for end in (".gz", "") for path in folder.glob(pattern + end)}
    if not found:
        raise DataError(
            f'evaluation set "{name}": no file {pattern} (or .gz) in {folder}; put it there, or take the set '
            "off the list"
        )
    return [found[file] for file in sorted(found)]


# Files


def _records(path: Path, benchmark: Benchmark) -> Iterator[tuple[int, rows.Row]]:
    """(line, row) of a file; `rows.BESIDE` holds what `benchmark.beside` adds.

    beside: a file of lines, or a folder that holds a file of the same name, whose rows are joined by `id`. A file
    that the folder lacks adds nothing: some items have no answer to give.
    """
    stem = path.name.removesuffix(".gz")
    if stem.endswith(".txt"):
        for number, line in enumerate(_text(path).splitlines(), start=1):
            yield number, {"text": line}
    elif stem.endswith(".csv"):
        for number, cells in enumerate(csv.reader(io.StringIO(_text(path))), start=1):
            yield number, {"cells": cells}
    else:
        more = _rows_beside(path, benchmark) if benchmark.beside is not None else None
        for number, row in json_rows(path):
            if more is not None:
                row[rows.BESIDE] = more.get(row.get("id", number))
            yield number, row


def _rows_beside(path: Path, benchmark: Benchmark) -> dict[object, Any]:
    place = path.parent / str(benchmark.beside)
    if not place.suffix:
        stem = path.name.removesuffix(".gz")
        chosen = next((place / name for name in (stem, stem + ".gz") if (place / name).is_file()), None)
        return {row.get("id"): row for _, row in json_rows(chosen)} if chosen is not None else {}
    if not place.is_file():
        raise DataError(f"{place}: no such file, which belongs to {path.name}; fetch it again")
    return dict(enumerate(_text(place).splitlines(), start=1))


def json_rows(path: Path) -> Iterator[tuple[int, rows.Row]]:
    """(line, row) of JSON lines, or (number, row) of one array; also compressed by gzip. Errors: DataError."""
    text = _text(path)
    if text.lstrip().startswith("["):
        # One array: rows are numbered, not lines.
        yield from enumerate(_objects(_json(text, path, 1), path, 1), start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            (row,) = _objects([_json(line, path, number)], path, number)
            yield number, row


def _json(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: not JSON ({error}); fetch the file again or mend the line") from error


def _objects(found: list[Any], path: Path, line: int) -> list[rows.Row]:
    if not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path}:{line}: expected an object {{...}} a row")
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as raw, decompressed(raw, path.name) as stream:
            return stream.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; name one that exists") from error
    except (OSError, *COMPRESSION_DAMAGE) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


# Sets by path


def _items_of_file(path: Path) -> Iterator[BenchmarkItem]:
    if path.suffix != ".toml":
        found = list(json_rows(path))
        if not found or all("checks" not in row for _, row in found):
            yield from _text_items(path, found)
            return
    for probe in load_suite(path).probes:
        yield BenchmarkItem(probe.id, _asked(probe), " ".join(_expected(probe)))


def _text_items(path: Path, found: list[tuple[int, rows.Row]]) -> Iterator[BenchmarkItem]:
    if not found:
        raise DataError(f"{path}: holds no item; give JSON lines with a text each, or a probe suite")
    for number, row in found:
        if not isinstance(row.get("text"), str):
            raise DataError(
                f'{path}:{number}: expected a row {{"text": "..."}} or a probe, found keys {", ".join(row)}'
            )
        yield BenchmarkItem(str(row.get("id", number)), "", row["text"])


def _asked(probe: Probe) -> str:
    if probe.turns is not None:
        return "\n".join(probe.turns)
    return "\n".join(str(m["content"]) for m in probe.messages or () if m["role"] == "user")


def _expected(probe: Probe) -> Iterator[str]:
    """The answer where the checks spell it; of several right ones the first."""
    for check in probe.checks:
        match check:
            case AnswerContains(any=some, all=every):
                yield from (some or ())[:1]
                yield from every or ()
            case AnswerNumber(value=value):
                yield str(value)
            case ExactlyOneOf(value=value):
                yield value
            case _:
                pass
