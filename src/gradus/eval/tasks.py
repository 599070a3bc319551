"""The table of benchmarks scored by log-likelihood, and their items ready for a model.

An entry names its evaluation set (data/benchmarks.py), which of its files are the evaluation split, how a row becomes
texts, and what is measured. Definitions are lm-eval's: a choice is right by `acc` when its log-likelihood is the
highest, by `acc_norm` when that divided by its number of characters is; the first of equals wins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import benchmark_rows, read_row, row_files
from gradus.eval import task_items
from gradus.eval.asked import Asked, Continuation
from gradus.eval.task_items import TextItem
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")

Measure = Literal["acc", "acc_norm", "acc_mean", "acc_greedy", "perplexity", "document_perplexity"]


@dataclass(frozen=True)
class Task:
    """A benchmark. set: of `BENCHMARKS`; file: its evaluation split among the set's files.

    measures: "acc_greedy" is called acc too: every token of the continuation is the likeliest. examples: worked
    examples before each item, the first so many of its subject.
    """

    set: str
    item: Callable[[Row], TextItem]
    measures: tuple[Measure, ...] = ("acc", "acc_norm")
    file: str | None = None
    by_subject: bool = False
    examples: int = 0


MMLU_TEST, MMLU_EXAMPLES = "mmlu/data/test/*.csv", "mmlu/data/dev/*.csv"

TASKS: dict[str, Task] = {
    "arc_challenge": Task("arc_challenge", task_items.arc, file="arc/arc_challenge_test.jsonl"),
    "arc_easy": Task("arc_easy", task_items.arc, file="arc/arc_easy_test.jsonl"),
    "boolq": Task("core_boolq", task_items.boolq, ("acc",)),
    "commonsense_qa": Task("core_commonsense_qa", task_items.commonsense_qa, ("acc",)),
    "hellaswag": Task("hellaswag", task_items.hellaswag),
    "lambada_openai": Task("lambada", task_items.lambada, ("acc_greedy", "perplexity")),
    "mmlu": Task("mmlu", task_items.mmlu, ("acc",), MMLU_TEST, by_subject=True),
    "mmlu_5shot": Task("mmlu", task_items.mmlu, ("acc",), MMLU_TEST, by_subject=True, examples=5),
    "openbookqa": Task("core_openbook_qa", task_items.openbookqa),
    "piqa": Task("piqa", task_items.piqa),
    "winogrande": Task("winogrande", task_items.winogrande, ("acc",)),
}


@dataclass(frozen=True, slots=True)
class Subset:
    """At most so many items, drawn by a seed."""

    at_most: int
    seed: int


Limit = int | Subset | None
"""How many items are asked at most, None for all; an int takes them at even distances."""


def evenly_spread(count: int, limit: Limit) -> list[int]:
    """Numbers of the items that are asked, in order.

    As many from each stretch of the set, so that subjects and sources that stand together keep their share: the first
    of each stretch, or of a Subset one drawn from it.
    """
    at_most = limit.at_most if isinstance(limit, Subset) else limit
    if at_most is None or at_most >= count:
        return list(range(count))
    begins = [place * count // at_most for place in range(at_most + 1)]
    if not isinstance(limit, Subset):
        return begins[:-1]
    draw = random.Random(f"{limit.seed} of {count}")
    return [draw.randrange(begin, end) for begin, end in pairwise(begins)]


def spread_items(items: Callable[[], Iterable[T]], at_most: int | None) -> list[T]:
    """Of items, which `items` gives anew, those that are asked: counted first, since all may not fit into memory."""
    if at_most is None:
        return list(items())
    chosen = set(evenly_spread(sum(1 for _ in items()), at_most))
    return [item for number, item in enumerate(items()) if number in chosen]


def evenly_spread_over(groups: Sequence[Hashable], at_most: int | None) -> list[int]:
    """Numbers of the items that are asked, in order: of each group its share, wherever its items stand."""
    rank = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    by_group = sorted(range(len(groups)), key=lambda number: rank[groups[number]])
    return sorted(by_group[place] for place in evenly_spread(len(groups), at_most))


def task_items_of(name: str, folder: Path | None, limit: Limit = None) -> list[tuple[str, TextItem]]:
    """(id, texts) of a task's items, at most `limit`. Errors: DataError for files that are missing or wrong."""
    task = TASKS[name]
    rows = list(benchmark_rows(task.set, folder, task.file))
    introductions = _Introductions(task, folder)
    found = []
    for number in evenly_spread(len(rows), limit):
        item = read_row(task.set, rows[number], task.item)
        before = introductions.before(rows[number].id)
        pairs = tuple((before + context, told) for context, told in item.pairs)
        found.append((rows[number].id, TextItem(pairs, item.choices, item.gold)))
    return found


class _Introductions:
    """What stands before an item: the description of its subject and worked examples, read once."""

    def __init__(self, task: Task, folder: Path | None) -> None:
        self._task = task
        self._examples: dict[str, list[str]] = {}
        if task.examples:
            for found in benchmark_rows(task.set, folder, MMLU_EXAMPLES):
                item = read_row(task.set, found, task.item)
                context, answer = item.pairs[item.gold]
                self._examples.setdefault(task_items.mmlu_subject(found.id), []).append(context + answer)

    def before(self, item_id: str) -> str:
        if not self._task.by_subject:
            return ""
        subject = task_items.mmlu_subject(item_id)
        examples = self._examples.get(subject, [])[: self._task.examples]
        return task_items.mmlu_introduction(subject) + "".join(f"{example}\n\n" for example in examples)


def asked(items: Sequence[tuple[str, TextItem]], tokenizer: Tokenizer, bos: bool = False) -> list[Asked]:
    """Items in tokens, a context and its continuation encoded together and cut where the context alone ends.

    Spaces at the end of a context belong to what follows. bos: begin with the end-of-text token, after which documents
    stand in training; without it only an empty context does. Source: lm-eval, `TemplateLM._encode_pair`.
    """
    pairs = [(context.rstrip(), context + told) for _, item in items for context, told in item.pairs]
    # Choices share their context.
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    ids = dict(zip(texts, tokenizer.encode_lists(texts), strict=True))
    encoded = iter(pairs)
    end = [tokenizer.special(END_OF_TEXT)]
    found = []
    for item_id, item in items:
        question = []
        for _ in item.pairs:
            before, whole = (ids[text] for text in next(encoded))
            # A continuation has a token whatever its text melts into.
            cut = min(len(before), len(whole) - 1)
            first = end if bos or cut == 0 else []
            question.append(Continuation([*first, *whole[:cut]], whole[cut:]))
        lengths = tuple(map(len, item.choices))
        found.append(Asked(item_id, item.pairs[0][0], item.choices, tuple(question), lengths, item.gold))
    return found


def task_files(name: str, folder: Path | None) -> list[Path]:
    """The files that a task reads, for digests. Errors: DataError."""
    task = TASKS[name]
    found = row_files(task.set, folder, task.file)
    return found + (row_files(task.set, folder, MMLU_EXAMPLES) if task.examples else [])
