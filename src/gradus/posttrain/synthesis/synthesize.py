"""All rows of all tasks: many in flight, judged, each question once; what is rejected is kept with its reason.

A row depends on its task, its number and the seed alone, and what the teacher answered is kept; so a walk that was
interrupted anywhere asks only for what is missing, and more rows of a task leave the ones before them as they are.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradus.conversation.messages import Conversation
from gradus.data.decontaminate import Decontaminator
from gradus.posttrain.synthesis.disjoint import probes_in
from gradus.posttrain.synthesis.judge import judge_conversation
from gradus.posttrain.synthesis.material import Material
from gradus.posttrain.synthesis.tasks import TASKS, draw_brief
from gradus.posttrain.synthesis.teacher import TRIES_PER_ROW, Rejected, Teacher
from gradus.tools.endpoint import Endpoint
from gradus.tools.in_flight import in_flight

SOURCE = "teacher"
# A task whose rows are mostly rejected ends with fewer than were asked for.
_MOST_ATTEMPTS = 1.5
_ANSWER_CHARACTERS = 2000


@dataclass(frozen=True)
class SynthesisSettings:
    """counts: rows by task. tries: of a row that is rejected. tools_fraction: of the rows without calls, those that
    declare the tools all the same."""

    counts: Mapping[str, int]
    seed: int
    tries: int = 2
    tools_fraction: float = 0.5

    def __post_init__(self) -> None:
        assert 1 <= self.tries <= TRIES_PER_ROW


@dataclass(frozen=True)
class RejectedTry:
    """One try at a row that was not taken."""

    task: str
    row: int
    attempt: int
    reason: str
    detail: str
    answer: str

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task, "row": self.row, "attempt": self.attempt, "reason": self.reason,
            "detail": self.detail, "answer": self.answer[:_ANSWER_CHARACTERS],
        }  # fmt: skip


@dataclass
class SynthesisResult:
    """Rows in the order of tasks and numbers; every rejected try; rows that were attempted, by task."""

    rows: list[Conversation] = field(default_factory=list)
    rejected: list[RejectedTry] = field(default_factory=list)
    attempted: Counter[str] = field(default_factory=Counter)

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """Most frequent first."""
        counted = Counter(one.reason for one in self.rejected)
        return dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0])))

    @property
    def rows_by_task(self) -> dict[str, int]:
        return dict(Counter(row.source.partition("/")[2] for row in self.rows))


@dataclass(frozen=True)
class _Outcome:
    row: Conversation | None
    rejected: tuple[RejectedTry, ...]


_Key = tuple[str, int]
Watcher = Callable[[SynthesisResult], None]


async def synthesize(
    endpoint: Endpoint,
    material: Material,
    settings: SynthesisSettings,
    probes: Decontaminator | None = None,
    watch: Watcher | None = None,
) -> SynthesisResult:
    """Write the rows. probes: what no question may have in it. watch: called with what there is so far.

    Errors: BudgetError when the money is spent, after what is on its way has arrived; EndpointError where the service
    cannot be used. What was answered is kept in either case.
    """
    outcomes: dict[_Key, _Outcome] = {}
    next_row = dict.fromkeys(settings.counts, 0)
    seen = SynthesisResult()  # what is shown on the way

    async def write(key: _Key) -> _Outcome:
        return await _write_row(endpoint, material, settings, *key)

    while True:
        result = _collect(settings, outcomes, probes)
        wanted: list[_Key] = []
        for task, count in settings.counts.items():
            missing = count - result.rows_by_task.get(task, 0)
            end = min(next_row[task] + missing, round(count * _MOST_ATTEMPTS))
            wanted += [(task, row) for row in range(next_row[task], end)]
            next_row[task] = max(next_row[task], end)
        if not wanted:
            return result
        seen.rows, seen.rejected = list(result.rows), list(result.rejected)

        def show(key: _Key, outcome: _Outcome) -> None:
            seen.rows += [outcome.row] if outcome.row is not None else []
            seen.rejected += outcome.rejected
            if watch is not None:
                watch(seen)

        outcomes |= await in_flight(wanted, write, endpoint.settings.concurrency, show)


async def _write_row(
    endpoint: Endpoint, material: Material, settings: SynthesisSettings, task: str, row: int
) -> _Outcome:
    rejected: list[RejectedTry] = []
    for attempt in range(settings.tries):
        try:
            brief = draw_brief(task, settings.seed, row, material)
            found = await TASKS[task].write(brief, material, Teacher(endpoint, row, attempt))
            found = _labelled(found, settings, task, row)
            judge_conversation(found, TASKS[task].allowed)
            return _Outcome(found, tuple(rejected))
        except Rejected as error:
            rejected.append(RejectedTry(task, row, attempt, error.reason, error.detail, error.answer))
    return _Outcome(None, tuple(rejected))


def _labelled(found: Conversation, settings: SynthesisSettings, task: str, row: int) -> Conversation:
    """With its source and id, and the tools it declares: all where one is called, else for some rows."""
    calls = any(message.tool_calls for message in found.messages)
    # Evenly among the rows, without a draw of its own.
    share = settings.tools_fraction
    declares = calls or int((row + 1) * share) > int(row * share)
    return replace(
        found, tools=found.tools if declares else (), source=f"{SOURCE}/{task}", id=f"{task}-{settings.seed}-{row}"
    )


def _collect(
    settings: SynthesisSettings, outcomes: Mapping[_Key, _Outcome], probes: Decontaminator | None
) -> SynthesisResult:
    """Outcomes in the order of tasks and numbers, repeated questions and those of probes taken out."""
    result = SynthesisResult()
    seen: set[str] = set()
    keys = [key for task in settings.counts for key in sorted(k for k in outcomes if k[0] == task)]
    found = [(key, row) for key in keys if (row := outcomes[key].row) is not None]
    contaminated = probes_in([question_text(row) for _, row in found], probes)
    places = {key: contaminated[number] for number, (key, _) in enumerate(found)}
    for key in keys:
        outcome = outcomes[key]
        result.attempted[key[0]] += 1
        result.rejected += outcome.rejected
        if outcome.row is None:
            continue
        question = plain_question(outcome.row)
        if places[key]:
            result.rejected.append(RejectedTry(*key, 0, "in_probe_suite", places[key], question))
        elif question in seen:
            result.rejected.append(RejectedTry(*key, 0, "repeated_question", "", question))
        else:
            seen.add(question)
            result.rows.append(outcome.row)
    return result


def plain_question(row: Conversation) -> str:
    """All user turns, without regard to case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", question_text(row).casefold()))


def question_text(row: Conversation) -> str:
    """All user turns, one below the other."""
    return "\n".join(message.content for message in row.messages if message.role == "user")


def rejected_lines(rejected: Sequence[RejectedTry]) -> Iterator[str]:
    """As JSON lines, for the file that an artifact keeps them in."""
    for one in rejected:
        # What a service says, in an error or between escapes, may hold half pairs, which no file takes.
        text = json.dumps(one.to_json(), ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
        yield text + "\n"
