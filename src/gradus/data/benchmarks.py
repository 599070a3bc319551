"""Evaluation sets as texts: which files of a benchmark hold its rows, and what in a row gives the item away.

`BENCHMARK_TEXTS` names the benchmarks; adding one is an entry, and a function from a row to its texts where no
present one fits. An item's texts are alternatives: a document that holds one of them holds the item. A question that
is long enough stands for itself; a short one, which prose may hold by chance, is also joined to its answer and to its
choices. Labels ("Question:", "Passage:") and lettered choices are the layout of a prompt and not part of the text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradus.core.errors import DataError, did_you_mean

Texts = tuple[str, ...]
TRAIN = "train"
# Words from which a question stands for itself: the n of the usual 13-gram.
_LONG_QUESTION = 13
# A text that this many rows of a file share, and this share of them, is the benchmark's instruction.
_TEMPLATE_ROWS, _TEMPLATE_FRACTION = 10, 0.05

_WORD = re.compile(r"[^\W_]+")
_LABEL = re.compile(
    r"^[ \t]*(?:(?:preceding |final )?questions?|passage|title|background|context|choices|sentence|statement"
    r"|input|output|answer|q|a|(?-i:[A-Z][A-Z0-9 &'\".!,-]{3,})):",
    re.MULTILINE | re.IGNORECASE,
)
_CHOICE = re.compile(r"^[ \t]*[A-J][.)]+[ \t]+.*$", re.MULTILINE)


@dataclass(frozen=True)
class BenchmarkItem:
    """One row. id: its file and its own id or line; texts: alternatives, any of which gives the item away."""

    id: str
    texts: Texts


@dataclass(frozen=True)
class Benchmark:
    """splits: patterns of files below the folder of benchmarks; texts: of one row; ngram: see `decontaminate`."""

    splits: Mapping[str, tuple[str, ...]]
    texts: Callable[[Any], Texts]
    ngram: int = 13


def read_benchmark(name: str, folder: Path) -> Iterator[BenchmarkItem]:
    """The items of a benchmark, of all splits but training; "name:split" is one split, training or not.

    folder: the folder of benchmarks, the benchmark's own folder, or one file. Errors: DataError for an unknown name,
    where no file is found, and where a file is not what the benchmark's files look like.
    """
    plain, _, split = name.partition(":")
    benchmark = BENCHMARK_TEXTS.get(plain)
    if benchmark is None:
        known = ", ".join(BENCHMARK_TEXTS)
        raise DataError(f'no benchmark "{plain}"{did_you_mean(plain, BENCHMARK_TEXTS)}; known: {known}')
    if split and split not in benchmark.splits:
        raise DataError(f'benchmark "{plain}" has no split "{split}"; it has {", ".join(benchmark.splits)}')
    splits = [split] if split else [known for known in benchmark.splits if known != TRAIN]
    found = 0
    for path in _files(plain, [pattern for one in splits for pattern in benchmark.splits[one]], folder):
        rows = [(number, _texts(benchmark, row, f"{path}:{number}"), row) for number, row in _rows(path)]
        shared = Counter(text for _, texts, _ in rows for text in set(texts))
        most = max(_TEMPLATE_ROWS, _TEMPLATE_FRACTION * len(rows))
        for number, texts, row in rows:
            found += 1
            yield BenchmarkItem(f"{_stem(path)}:{_id(row, number)}", tuple(t for t in texts if shared[t] <= most))
    if not found:
        raise DataError(f'benchmark "{name}": its files in {folder} hold no row')


# Files


def _files(name: str, patterns: Sequence[str], folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    # The folder of benchmarks, or this one's own.
    for tried in (patterns, [pattern.partition("/")[2] for pattern in patterns]):
        found = sorted({path for pattern in tried for path in folder.glob(pattern) if path.is_file()})
        if found:
            return found
    where = f"{folder} holds none" if folder.is_dir() else f"there is no folder {folder}"
    raise DataError(
        f'benchmark "{name}": no file like {" or ".join(patterns)} ({where}); fetch it there, or name its file'
    )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _rows(path: Path) -> list[tuple[int, Any]]:
    """(line, row) of a file: JSON lines or a list, CSV without a header, or lines of text; also compressed by gzip."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); fetch it again") from error
    kind = Path(path.name.removesuffix(".gz")).suffix
    lines = text.split("\n")
    if kind == ".csv":
        return [(number, row) for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1) if row]
    if kind == ".txt":
        return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    try:
        if text.lstrip().startswith("["):
            return list(enumerate(json.loads(text), start=1))
        return [(number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); fetch it again") from error


def _texts(benchmark: Benchmark, row: Any, place: str) -> Texts:
    try:
        return tuple(dict.fromkeys(text for text in benchmark.texts(row) if text.strip()))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        shown = ", ".join(map(str, row)) if isinstance(row, Mapping) else str(row)[:100]
        raise DataError(
            f"{place}: not a row of this benchmark ({type(error).__name__}: {error}); found {shown}"
        ) from error


def _id(row: Any, number: int) -> str:
    if isinstance(row, Mapping):
        for key in ("id", "ID", "task_id", "ind"):
            if isinstance(row.get(key), str | int):
                return str(row[key])
    return str(number)


# Texts of a row


def _asked(question: str, *endings: str) -> Texts:
    """The parts of a question as it is asked; where it is short, also joined to each ending (answer, choices)."""
    parts = [part.strip() for part in _LABEL.split(_CHOICE.sub("", question))]
    parts = [part for part in parts if part]
    is_long = [len(_WORD.findall(part)) >= _LONG_QUESTION for part in parts]
    if not parts or is_long[-1]:
        return tuple(parts)
    # Beside a long passage the question is the last part.
    asked = parts[-1] if any(is_long) else " ".join(parts)
    choices = " ".join(_CHOICE.findall(question))
    return (*parts, *(f"{asked} {ending}" for ending in (*endings, choices) if ending))


def _question_and_answer(row: Any) -> Texts:
    return _asked(row["question"], str(row["answer"]))


def _choices(row: Any) -> Texts:
    """Of a row with the place of the right choice, if that is known."""
    choices = [str(choice) for choice in row["choices"]]
    right = [choices[row["gold"]]] if isinstance(row.get("gold"), int) else []
    return _asked(row["question"] if "question" in row else row["query"], *right, " ".join(choices))


def _aqua(row: Any) -> Texts:
    return _asked(row["question"], " ".join(row["options"]))


def _mmlu(row: Any) -> Texts:
    question, *choices, right = row
    return _asked(question, choices["ABCD".index(right)], " ".join(choices))


def _piqa(row: Any) -> Texts:
    return _asked(row["goal"], row["sol1"], row["sol2"], f"{row['sol1']} {row['sol2']}")


def _winogrande(row: Any) -> Texts:
    sentence = row["sentence"]
    return (sentence, *(sentence.replace("_", row[option]) for option in ("option1", "option2")))


def _svamp(row: Any) -> Texts:
    return (f"{row['Body']} {row['Question']}",)


def _commonsense(row: Any) -> Texts:
    """The original rows; evaluation rows have the shape of the CORE bundle."""
    if "query" in row:
        return _choices(row)
    question = row["question"]
    choices = {choice["label"]: choice["text"] for choice in question["choices"]}
    return _asked(question["stem"], choices[row["answerKey"]], " ".join(choices.values()))


def _prompt(row: Any) -> Texts:
    return (row["prompt"],)


def _mbpp(row: Any) -> Texts:
    return _asked(row["text"], row["code"])


def _calls(row: Any) -> Texts:
    """What the user says, over all turns."""
    return (" ".join(message["content"] for turn in row["question"] for message in turn if message["role"] == "user"),)


def _paragraph(row: Any) -> Texts:
    # Unknown words are words of the source.
    return (row.replace("<unk>", " "),)


def _core(row: Any) -> Texts:
    """The shapes of the CORE bundle: choices, a continuation, an answer, several contexts, code."""
    if "context_options" in row:
        return tuple(f"{context} {row['continuation']}" for context in row["context_options"])
    if "query" in row:
        return _choices(row)
    if "prompt" in row:
        return _prompt(row)
    return _asked(row["context"], str(row["continuation"] if "continuation" in row else row["answer"]))


def _files_of(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.jsonl*" for name in names)


def _split_files(benchmark: str) -> dict[str, tuple[str, ...]]:
    return {split: (f"{benchmark}/*_{short}.jsonl*",) for split, short in _SHORT.items()}


_SHORT = {"test": "test", "validation": "val", TRAIN: "train"}
_CORE = "core_bundle"
_EXTRA = f"{_CORE}/extra"
_MATH = ("aqua", "gsm8k", "math", "math_qa", "simple_arithmetic_nospaces", "simple_arithmetic_withspaces", "svamp")
BENCHMARK_TEXTS: dict[str, Benchmark] = {
    "aqua": Benchmark({"test": ("aqua/test.json*",), "validation": ("aqua/dev.json*",)}, _aqua, ngram=8),
    "arc": Benchmark(_split_files("arc"), _choices),
    "bfcl": Benchmark({"test": ("bfcl/BFCL_v*.json*",)}, _calls),
    "boolq": Benchmark({"validation": _files_of(f"{_CORE}/boolq"), TRAIN: _files_of("boolq_train/train")}, _choices),
    "commonsense_qa": Benchmark(
        {"validation": _files_of(f"{_CORE}/commonsense_qa"), TRAIN: _files_of("commonsense_qa_train/train*")},
        _commonsense,
    ),
    "core_bundle": Benchmark({"test": _files_of(f"{_CORE}/*")}, _core),
    "core_extra": Benchmark(
        {"test": _files_of(*(f"{_EXTRA}/{name}" for name in ("bigbench_*", "human_eval", "siqa", "triviaqa_*")))}, _core
    ),
    "core_math": Benchmark({"test": _files_of(*(f"{_EXTRA}/{name}" for name in _MATH))}, _core, ngram=8),
    "gsm8k": Benchmark(
        {"test": _files_of("gsm8k/test"), TRAIN: _files_of("gsm8k/train")}, _question_and_answer, ngram=8
    ),
    "hellaswag": Benchmark({"validation": _files_of("hellaswag/hellaswag_val")}, _choices),
    "humaneval": Benchmark({"test": _files_of("humaneval/HumanEval")}, _prompt),
    "lambada": Benchmark({"test": _files_of("lambada/lambada*")}, _core),
    "mbpp": Benchmark({"test": _files_of("mbpp/mbpp_test")}, _mbpp),
    "mmlu": Benchmark(
        {"test": ("mmlu/data/test/*.csv",), "validation": ("mmlu/data/val/*.csv",), "dev": ("mmlu/data/dev/*.csv",)},
        _mmlu,
    ),
    "openbookqa": Benchmark(
        {"test": _files_of(f"{_CORE}/openbook_qa"), TRAIN: _files_of("openbookqa_train/train")}, _choices
    ),
    "piqa": Benchmark({"validation": _files_of("piqa/valid"), TRAIN: _files_of("piqa/train")}, _piqa),
    "svamp": Benchmark({"test": ("svamp/SVAMP.json*",)}, _svamp, ngram=8),
    "wikitext2": Benchmark({"test": ("wikitext2/test.txt*",), "validation": ("wikitext2/valid.txt*",)}, _paragraph),
    "winogrande": Benchmark(
        {"validation": _files_of("winogrande/dev"), TRAIN: _files_of("winogrande/train*")}, _winogrande
    ),
}
