"""Benchmarks by name: where their files lie and how their items are asked. Without torch; `task_run` asks a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradus.conversation.formats.wire import Format
from gradus.core.errors import ConfigError, DataError, did_you_mean
from gradus.data.benchmarks import benchmark_rows, json_rows, row_files
from gradus.eval import bfcl
from gradus.eval.aggregate import Part, weighted_sum
from gradus.eval.asked import Asked
from gradus.eval.bfcl_multi_turn import BFCL_MULTI_TURN, function_files, multi_turn_parts
from gradus.eval.bfcl_multi_turn import CATEGORIES as MULTI_TURN_CATEGORIES
from gradus.eval.core_bundle import bundle_folder
from gradus.eval.core_metric import CORE_TASKS, core_asked, core_file
from gradus.eval.generative import GENERATIVE, Problem, num_turns, problems_of
from gradus.eval.judging import JudgeModel
from gradus.eval.letters import LETTER_TASKS, asked_letters, letter_choices
from gradus.eval.mt_bench import MT_BENCH, TURNS, mt_bench_files, mt_bench_questions
from gradus.eval.perplexity import asked_documents
from gradus.eval.task_items import wikitext_pages, wikitext_text
from gradus.eval.tasks import TASKS, Limit, Measure, Subset, asked, evenly_spread, task_files, task_items_of
from gradus.tools.toolbox import ToolBox

CORE = "core"
BUNDLE = "core_bundle"
_WIKITEXT_FILE = "wikitext2/test.txt"
WIKITEXT = "wikitext2"
CHATCORE = "chatcore"
# Source: nanochat, whose ChatCORE this is; each with the accuracy of guessing.
CHATCORE_BASELINES = {"arc_easy": 0.25, "arc_challenge": 0.25, "mmlu": 0.25, "gsm8k": 0.0, "humaneval": 0.0}
GROUPS: dict[str, tuple[str, ...]] = {
    bfcl.BFCL: bfcl.CATEGORIES, BFCL_MULTI_TURN: MULTI_TURN_CATEGORIES, CHATCORE: tuple(CHATCORE_BASELINES)
}  # fmt: skip
"""Tasks that go by GROUP.MEMBER, together or each by itself."""
KNOWN = (*(name for name in (*TASKS, *GENERATIVE) if "." not in name), CORE, MT_BENCH, WIKITEXT, *GROUPS)


@dataclass(frozen=True)
class BenchmarkSettings:
    """How tasks are asked. folder: of evaluation sets.

    bundle: CORE's, as `bundle_folder` has it, None for `core_bundle` in the folder. limit: items of each task, None for
    all, at even distances in its files; subset_seed: drawn instead, one from each stretch. bos: begin every text
    with the end-of-text token, as in training; CORE always does. Of tasks through the chat format: shots, worked
    examples before each item; multiturn, each a turn of the conversation, or all in the one message; think, whether
    answers think first (True), not (False), or as the model likes (None). Of those whose answers are written:
    samples, answers to each item; temperature, 0 for the likeliest token; seed, of drawing; max_tokens, of an
    answer; tools, declared and run. judge: who rates MT-bench.
    Errors: ConfigError for several samples at temperature 0, which would all be the same.
    """

    folder: Path | None = None
    bundle: Path | str | None = None
    limit: int | None = None
    bos: bool = False
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    tools: tuple[str, ...] = ()
    think: bool | None = None
    shots: int = 0
    multiturn: bool = True
    judge: JudgeModel | None = None
    subset_seed: int | None = None

    def __post_init__(self) -> None:
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"{self.samples} samples of each item at temperature 0 would all be the same; set a temperature, such "
                "as 0.8, or take one sample"
            )

    @property
    def subset(self) -> Limit:
        """Which items are asked."""
        return self.limit if self.limit is None or self.subset_seed is None else Subset(self.limit, self.subset_seed)

    def chosen(self) -> dict[str, Any]:
        """Which items are asked, for records."""
        seed = {} if self.subset_seed is None else {"subset_seed": self.subset_seed}
        return {"limit": self.limit} | seed

    def decoding(self) -> dict[str, Any]:
        """How answers are written, for records."""
        names = ("samples", "temperature", "seed", "max_tokens")
        return {name: getattr(self, name) for name in names} | {"tools": list(self.tools)} | self.asking()

    def asking(self) -> dict[str, Any]:
        """How tasks through the chat format are asked, for records."""
        return {name: getattr(self, name) for name in ("think", "shots", "multiturn")}


def check_tasks(names: Sequence[str], settings: BenchmarkSettings) -> None:
    """Errors: ConfigError naming every unknown task, every one that cannot be asked in this way, or an unknown tool."""
    problems = [_unknown(name) for name in names if name not in KNOWN and name not in tasks_meant(GROUPS)]
    if settings.shots and not problems:
        able = [name for name in (*LETTER_TASKS, *GENERATIVE) if _has_examples(name)]
        problems = [
            f'task "{name}": no worked examples are known for it (they are for {", ".join(able)})'
            for name in tasks_meant(names)
            if name not in able
        ]
    if MT_BENCH in names and settings.judge is None:
        problems.append(f'task "{MT_BENCH}" needs a judge: the base_url and model of a service that rates its answers')
    if problems:
        raise ConfigError(problems)
    ToolBox().schemas(settings.tools)


def _unknown(name: str) -> str:
    group, _, member = name.partition(".")
    if group == bfcl.BFCL:
        for beginning, why in bfcl.REFUSED.items():
            if member.startswith(beginning):
                return f'task "{name}" is not asked here: {why} (asked are {", ".join(bfcl.CATEGORIES)})'
    near = [name for name in GROUPS if name.startswith(group)]
    known = [*KNOWN, *tasks_meant(near)]
    return f'unknown task "{name}"{did_you_mean(name, known)} (known: {", ".join(known)})'


def _has_examples(name: str) -> bool:
    return name in LETTER_TASKS or (name in GENERATIVE and GENERATIVE[name].examples is not None)


def tasks_meant(names: Iterable[str]) -> list[str]:
    """The tasks by name, groups spread out, each once, in order."""
    spread = [[f"{name}.{member}" for member in GROUPS[name]] if name in GROUPS else [name] for name in names]
    return list(dict.fromkeys(task for tasks in spread for task in tasks))


def group_measures(group: str, measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of a group over all its members, none where one is missing. measures: of each member's accuracy."""
    if any(member not in measures for member in GROUPS[group]):
        return {}
    if group == CHATCORE:
        weights = {m: 1 / len(CHATCORE_BASELINES) / (1 - guessed) for m, guessed in CHATCORE_BASELINES.items()}
        parts = {"centred": {m: Part(weights[m], guessed) for m, guessed in CHATCORE_BASELINES.items()}}
    elif group == BFCL_MULTI_TURN:
        parts = multi_turn_parts()
    else:
        parts = bfcl.bfcl_parts({member: measures[member]["n"] for member in GROUPS[group]})
    return {name: weighted_sum(found, measures) for name, found in parts.items()}


def files_of(name: str, settings: BenchmarkSettings) -> list[Path]:
    """What a task, or each of a group, reads. Errors: DataError for what is missing."""
    if name in GROUPS:
        return list(dict.fromkeys(path for task in tasks_meant([name]) for path in files_of(task, settings)))
    if name == WIKITEXT:
        return row_files(WIKITEXT, settings.folder, _WIKITEXT_FILE)
    if name == MT_BENCH:
        return mt_bench_files(settings.folder)
    if name in GENERATIVE or name in LETTER_TASKS:
        task = GENERATIVE[name] if name in GENERATIVE else LETTER_TASKS[name]
        if task.set is None:
            return []
        files = row_files(task.set, settings.folder, task.file)
        if name in GENERATIVE and GENERATIVE[name].dialogue is not None:
            files += function_files(settings.folder)
        return files + (row_files(task.set, settings.folder, task.examples) if settings.shots else [])
    if name != CORE:
        return task_files(name, settings.folder)
    return list(dict.fromkeys(core_file(task, _bundle(settings)) for task in CORE_TASKS))


def _bundle(settings: BenchmarkSettings) -> Path:
    if settings.bundle is not None:
        return bundle_folder(settings.bundle)
    if settings.folder is None:
        raise DataError(
            "CORE: no bundle is set; give its folder, archive or name on the Hub (core_bundle, --bundle) or a folder "
            f"of evaluation sets that holds {BUNDLE}"
        )
    return settings.folder / BUNDLE


def asked_of(
    name: str, form: Format, settings: BenchmarkSettings, context: int
) -> Iterator[tuple[str, tuple[Measure, ...], list[Asked]]]:
    """(name, what is measured, items) of a task by log-likelihood; of CORE its 22 tasks as "core.<task>".

    Errors: DataError, also where files hold no item.
    """
    tokenizer = form.tokenizer
    if name in LETTER_TASKS:
        choices = asked_letters(name, form, settings.folder, settings.subset, **settings.asking())
        yield name, ("acc",), _some(name, choices)
        return
    if name == WIKITEXT:
        documents = asked_documents(_wikitext(settings), tokenizer, context)
        yield name, ("document_perplexity",), _some(name, documents)
        return
    if name != CORE:
        items = task_items_of(name, settings.folder, settings.subset)
        yield name, TASKS[name].measures, _some(name, asked(items, tokenizer, settings.bos))
        return
    bundle = _bundle(settings)
    for task in CORE_TASKS:
        rows = [row for _, row in json_rows(core_file(task, bundle))]
        items_of_core = _some(f"{CORE}.{task}", core_asked(task, rows, tokenizer, settings.subset))
        wanted: Measure = "acc_greedy" if len(items_of_core[0].question) == 1 else "acc_mean"
        yield f"{CORE}.{task}", (wanted,), items_of_core


def problems_asked(name: str, settings: BenchmarkSettings) -> list[tuple[str, Problem]]:
    """(id, problem) of a task whose answers are written. Errors: DataError."""
    return problems_of(name, settings.folder, settings.subset, shots=settings.shots, multiturn=settings.multiturn)


def _some(name: str, items: list[Asked]) -> list[Asked]:
    if not items:
        raise DataError(f'task "{name}": no item in its files; fetch them again')
    return items


def _wikitext(settings: BenchmarkSettings) -> list[tuple[str, str, str]]:
    """(id, text as it was written, text as it is published) of the articles of the test side."""
    lines = [found.row["text"] for found in benchmark_rows(WIKITEXT, settings.folder, _WIKITEXT_FILE)]
    pages = wikitext_pages("\n".join(lines) + "\n")
    chosen = evenly_spread(len(pages), settings.subset)
    return [(str(number + 1), wikitext_text(pages[number]), pages[number]) for number in chosen]


def num_items(name: str, settings: BenchmarkSettings) -> dict[str, int]:
    """How many right or wrong items each task counts, by the name that its measures begin with. Errors: DataError."""
    found = {}
    for task in tasks_meant([name]):
        if task in GENERATIVE:
            found[task] = len(problems_asked(task, settings))
        elif task in LETTER_TASKS:
            found[task] = len(letter_choices(task, settings.folder, settings.subset))
        elif task in TASKS:
            rows = sum(1 for _ in benchmark_rows(TASKS[task].set, settings.folder, TASKS[task].file))
            found[task] = len(evenly_spread(rows, settings.subset))
    return found


def num_answers(name: str, settings: BenchmarkSettings) -> int:
    """How many answers a task has a model write, for plans. Errors: DataError."""
    if name == MT_BENCH:
        return TURNS * len(mt_bench_questions(settings.folder, settings.subset))
    tasks = [task for task in tasks_meant([name]) if task in GENERATIVE]
    turns = [num_turns(GENERATIVE[task], problem) for task in tasks for _, problem in problems_asked(task, settings)]
    return sum(turns) * settings.samples


def num_characters(name: str, settings: BenchmarkSettings) -> float:
    """About how many characters a task has a model read, for plans. Errors: DataError."""
    if name in GROUPS:
        return sum(num_characters(task, settings) for task in tasks_meant([name]))
    if name == WIKITEXT:
        return float(sum(len(told) for _, told, _ in _wikitext(settings)))
    if name == MT_BENCH:
        questions = mt_bench_questions(settings.folder, settings.subset)
        return float(sum(len(turn) for question in questions for turn in question.turns))
    if name in GENERATIVE:
        problems = problems_asked(name, settings)
        return float(sum(problem.num_characters for _, problem in problems) * settings.samples)
    if name in LETTER_TASKS:
        return float(sum(len(choice.prompt) for _, choice in letter_choices(name, settings.folder, settings.subset)))
    if name != CORE:
        items = task_items_of(name, settings.folder, settings.subset)
        return float(sum(len(item.pairs[0][0]) + sum(len(told) for _, told in item.pairs) for _, item in items))
    total = 0.0
    for task, entry in CORE_TASKS.items():
        rows = [row for _, row in json_rows(core_file(task, _bundle(settings)))]
        mean = sum(len(str(row)) for row in rows) / max(1, len(rows))
        asked = len(rows) if settings.limit is None else min(len(rows), settings.limit)
        total += asked * mean * (1 + entry.shots)
    return total
