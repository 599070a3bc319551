"""CORE: 22 tasks of the DCLM paper, each accuracy centred on what guessing scores, and their mean.

Source: Li et al. 2024, "DataComp-LM", section 4.1 and its evaluation code; items and shots are drawn, rendered and cut
as nanochat does, whose scores are published beside GPT-2's. Two sets of baselines are in use and both are reported.
A bundle is a folder with one file of JSON lines for each task, wherever in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradus.core.errors import DataError
from gradus.core.statistics import Z95
from gradus.eval.asked import Asked, Continuation
from gradus.eval.results import Result
from gradus.eval.tasks import Limit, Subset, evenly_spread
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

ORDER_SEED, SHOTS_SEED = 1337, 1234
_ANSWER = "\nAnswer: "
_PASSAGE_CHARACTERS = 200  # contexts that begin with the same so many are of one passage


@dataclass(frozen=True, slots=True)
class CoreTask:
    """files: names that its file goes by in bundles, without ending; v1, v2: accuracy of guessing.

    passages: whether several questions are asked on one passage.
    """

    files: tuple[str, ...]
    shots: int
    v1: float
    v2: float
    delimiter: str = " "
    passages: bool = False


def _task(name: str, shots: int, v1: float = 0.0, v2: float | None = None, delimiter: str = " ") -> CoreTask:
    return CoreTask((name,), shots, v1, v1 if v2 is None else v2, delimiter)


CORE_TASKS: dict[str, CoreTask] = {
    "hellaswag_zeroshot": CoreTask(("hellaswag",), 0, 0.25, 0.25),
    "jeopardy": CoreTask(("jeopardy", "jeopardy_all"), 10, 0.0, 0.0, _ANSWER),
    "bigbench_qa_wikidata": _task("bigbench_qa_wikidata", 10),
    "arc_easy": _task("arc_easy", 10, 0.25, delimiter=_ANSWER),
    "arc_challenge": _task("arc_challenge", 10, 0.25, delimiter=_ANSWER),
    "copa": _task("copa", 0, 0.5),
    "commonsense_qa": _task("commonsense_qa", 10, 0.20, 0.403),
    "piqa": _task("piqa", 10, 0.5, delimiter=_ANSWER),
    "openbook_qa": _task("openbook_qa", 0, 0.25),
    "lambada_openai": _task("lambada_openai", 0),
    "hellaswag": _task("hellaswag", 10, 0.25),
    "winograd": CoreTask(("winograd", "winograd_wsc"), 0, 0.5, 0.5),
    "winogrande": _task("winogrande", 0, 0.5),
    "bigbench_dyck_languages": _task("bigbench_dyck_languages", 10),
    "agi_eval_lsat_ar": _task("agi_eval_lsat_ar", 3, 0.20, 0.25),
    "bigbench_cs_algorithms": _task("bigbench_cs_algorithms", 10),
    "bigbench_operators": _task("bigbench_operators", 10),
    "bigbench_repeat_copy_logic": _task("bigbench_repeat_copy_logic", 10),
    "squad": CoreTask(("squad",), 10, 0.0, 0.0, passages=True),
    "coqa": CoreTask(("coqa",), 0, 0.0, 0.0, passages=True),
    "boolq": _task("boolq", 10, 0.62, delimiter=_ANSWER),
    "bigbench_language_identification": _task("bigbench_language_identification", 10, 0.091, 0.25),
}


def core_scores(accuracy: Mapping[str, float]) -> dict[str, float]:
    """{"v1", "v2"} of the accuracies of all tasks. Errors: KeyError where one is missing."""
    return {
        version: sum(centred(accuracy[name], getattr(task, version)) for name, task in CORE_TASKS.items())
        / len(CORE_TASKS)
        for version in ("v1", "v2")
    }


def centred(accuracy: float, baseline: float) -> float:
    """0 for guessing, 1 for all right."""
    return (accuracy - baseline) / (1 - baseline)


def core_file(name: str, bundle: Path) -> Path:
    """A task's file in a bundle. Errors: DataError where there is none, or more than one."""
    if not bundle.is_dir():
        raise DataError(f"CORE: {bundle} is no folder; give the folder of the evaluation bundle")
    names = [f"{stem}.jsonl{end}" for stem in CORE_TASKS[name].files for end in ("", ".gz")]
    found = sorted(path for file in names for path in bundle.rglob(file))
    if len(found) != 1:
        there = f"more than one ({', '.join(map(str, found))})" if found else "none"
        raise DataError(f'CORE task "{name}": expected one file {" or ".join(names)} in {bundle}, found {there}')
    return found[0]


def core_asked(name: str, rows: Sequence[dict[str, Any]], tokenizer: Tokenizer, limit: Limit = None) -> list[Asked]:
    """The items of a task in the order they are drawn, at most the first `limit`, shots taken from all of them.

    rows: of the bundle's file, in its order. Errors: DataError for a row of no known shape.
    """
    task = CORE_TASKS[name]
    order = list(range(len(rows)))
    random.Random(ORDER_SEED).shuffle(order)
    found = []
    # As published, the first of the order; another subset is drawn from all of it.
    chosen = evenly_spread(len(order), limit) if isinstance(limit, Subset) else range(len(order))[:limit]
    for number in chosen:
        at = order[number]
        draw = random.Random(SHOTS_SEED + number)
        others = draw.sample(range(len(rows) - 1), min(task.shots, len(rows) - 1))
        shots = [rows[order[other if other < number else other + 1]] for other in others]
        try:
            found.append(_asked(str(at + 1), rows[at], shots, task, tokenizer))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(
                f'CORE task "{name}", row {at + 1}: not a row of a bundle ({type(error).__name__}: {error}); '
                "fetch the bundle again"
            ) from error
    return found


def _asked(
    label: str, row: dict[str, Any], shots: Sequence[dict[str, Any]], task: CoreTask, tokenizer: Tokenizer
) -> Asked:
    delimiter = task.delimiter
    shape = "schema" if "context_options" in row else "choices" if "choices" in row else "continuation"
    before = "".join(f"{delimiter.join(_worked(shot, shape))}\n\n" for shot in shots)
    end = tokenizer.special(END_OF_TEXT)
    gold: int = 0
    if shape == "continuation":
        context, answer = _worked(row, shape)
        # A space at the end would be part of the answer's first token.
        texts, choices = [(before + context + delimiter).strip(), before + context + delimiter + answer], (answer,)
    elif shape == "choices":
        gold, choices = row["gold"], tuple(row["choices"])
        texts = [before + row["query"] + delimiter + choice for choice in choices]
    else:
        gold, choices = row["gold"], tuple(row["context_options"])
        texts = [before + choice + delimiter + row["continuation"] for choice in choices]
    tokens = [[end, *ids] for ids in tokenizer.encode_lists(texts)]
    if shape == "continuation":
        cuts, tokens = [min(len(tokens[0]), len(tokens[1]) - 1)], tokens[1:]
    elif shape == "choices":
        cuts = [_common(tokens)] * len(tokens)
    else:
        suffix = _common([ids[::-1] for ids in tokens])
        cuts = [len(ids) - suffix for ids in tokens]
    if not 0 <= gold < len(choices):
        raise IndexError(f"answer {gold} of {len(choices)} choices")
    question = tuple(Continuation(ids[:cut], ids[cut:]) for ids, cut in zip(tokens, cuts, strict=True))
    cluster = row["context"][:_PASSAGE_CHARACTERS] if task.passages else ""
    return Asked(label, texts[0], choices, question, tuple(map(len, choices)), gold, cluster)


def _worked(row: dict[str, Any], shape: str) -> tuple[str, str]:
    """A row's question and right answer, as shown in a worked example."""
    if shape == "schema":
        return row["context_options"][row["gold"]], row["continuation"]
    if shape == "choices":
        return row["query"], row["choices"][row["gold"]]
    return row["context"].strip(), row["continuation"]


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens that all begin with, short of the shortest's last."""
    most = min(map(len, sequences)) - 1
    first = sequences[0]
    return next((i for i in range(most) if any(s[i] != first[i] for s in sequences)), most)


def core_measures(results: Mapping[str, Result]) -> dict[str, Any]:
    """ "v1" and "v2", and the measures of each task by its name.

    The standard error is that of the questions, the tasks taken as they are; "items" are the tasks, by which two models
    are compared.
    """
    measures = {name: results[name].measures() for name in CORE_TASKS}
    scores = core_scores({name: measure["acc"]["value"] for name, measure in measures.items()})
    found: dict[str, Any] = {}
    for version, value in scores.items():
        errors = [
            measures[name]["acc"]["standard_error"] / (1 - getattr(task, version)) for name, task in CORE_TASKS.items()
        ]
        error = math.sqrt(sum(e * e for e in errors)) / len(errors)
        spread = Z95 * error
        n = sum(measure["acc"]["n"] for measure in measures.values())
        items = {name: centred(measures[name]["acc"]["value"], getattr(t, version)) for name, t in CORE_TASKS.items()}
        found[version] = {
            "items": items,
            "value": value, "n": n, "standard_error": error, "lower": value - spread, "upper": value + spread,
        }  # fmt: skip
    return found | measures
