"""Pools: conversations or preference pairs as JSON lines, valid, each once, with a validation side.

On disk: `train.jsonl` and `validation.jsonl` (a row a line), `pool.json` with the counts, `drops.json` with
what was left out and why. The side is decided by the first user message, so that two answers to one question
are never on different sides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gradus.conversation.messages import Conversation, JsonObject, Message, Pair
from gradus.conversation.records import Quarantined
from gradus.conversation.validate import Violation, violations
from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.core.fingerprint import digest
from gradus.data.conversation_filters import Judge
from gradus.data.corpus import SPLITS, Split
from gradus.data.drops import DROP_SUMMARY, DropLog, Dropped
from gradus.data.holdout import check_sides, holdout_position
from gradus.data.lengths import length_statistics

Row = TypeVar("Row", Conversation, Pair)


def write_pool(
    folder: Path,
    conversations: Iterable[Conversation | Quarantined],
    validation_fraction: float = 0.01,
    *,
    dedup: bool = True,
    filters: Sequence[Judge] = (),
    calls_may_end: bool = False,
) -> dict[str, Any]:
    """Write the valid conversations into `folder`; returns the counts (also in `pool.json`).

    Left out and counted: rows that could not be read, rows that break an invariant (by its reason), rows that a filter
    names a reason for, exact duplicates (the first stays). calls_may_end: a conversation may end with calls that have
    no results. Errors: DataError where a side would be empty.
    """

    def faults(conversation: Conversation) -> list[Violation]:
        return conversation_faults(conversation, filters, calls_may_end)

    return _write(folder, conversations, validation_fraction, dedup, faults, _conversation_content)


def conversation_faults(
    conversation: Conversation, filters: Sequence[Judge] = (), calls_may_end: bool = False
) -> list[Violation]:
    """Every broken rule of a conversation; of a sound one, what the first filter that rejects it found."""
    found = violations(conversation)
    if calls_may_end and conversation.messages and conversation.messages[-1].tool_calls:
        found = [violation for violation in found if violation.reason != "unfinished"]
    if not found:
        first = next((fault for judge in filters if (fault := judge(conversation)) is not None), None)
        found = [first] if first is not None else []
    return found


def read_pool(folder: Path, split: Split) -> Iterator[Conversation]:
    """The conversations of one side, in the order written. Errors: DataError with the line."""
    return _read(folder, split, Conversation.from_json)


def answered_rows(folder: Path, split: Split) -> Iterator[Conversation]:
    """Those of one side that end with an answer, so that their last question can be asked again."""
    return (row for row in read_pool(folder, split) if row.messages[-1].role == "assistant")


def write_pairs(
    folder: Path,
    pairs: Iterable[Pair | Quarantined],
    validation_fraction: float = 0.01,
    *,
    dedup: bool = True,
) -> dict[str, Any]:
    """As `write_pool`, for preference pairs. A rejected answer may be broken; a chosen one may not."""
    return _write(folder, pairs, validation_fraction, dedup, _pair_violations, _pair_content)


def read_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """The pairs of one side, in the order written. Errors: DataError with the line."""
    return _read(folder, split, Pair.from_json)


def question_of(row: Conversation | Pair) -> str:
    """What a row's side is decided by: its first user message, without regard to case and white space."""
    messages = row.messages if isinstance(row, Conversation) else row.prompt.messages
    first = next((m.content for m in messages if m.role == "user"), "")
    return " ".join(first.casefold().split())


def _write(
    folder: Path,
    rows: Iterable[Row | Quarantined],
    validation_fraction: float,
    dedup: bool,
    faults: Callable[[Row], list[Violation]],
    content: Callable[[Row], JsonObject],
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pool.json").unlink(missing_ok=True)
    drops = DropLog()
    sides = {split: _Side() for split in SPLITS}
    seen: set[bytes] = set()
    num_read, least_position = 0, 1.0
    with ExitStack() as stack:
        files = {s: stack.enter_context((folder / f"{s}.jsonl").open("w", encoding="utf-8")) for s in SPLITS}
        for row in rows:
            num_read += 1
            dropped = _fault_of(row, num_read, faults)
            if dropped is not None or isinstance(row, Quarantined):
                source = row.source or row.file if isinstance(row, Quarantined) else row.source
                drops.add(source, dropped or Dropped("unreadable", source))
                continue
            identity = bytes.fromhex(digest(content(row))[:32])
            if dedup and identity in seen:
                drops.add(row.source, Dropped("duplicate", _place(row, num_read), "", question_of(row)))
                continue
            seen.add(identity)
            position = holdout_position(question_of(row))
            split: Split = "validation" if position < validation_fraction else "train"
            if split == "train":
                least_position = min(least_position, position)
            files[split].write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
            sides[split].add(row)
    for split in SPLITS:
        fsync_file(folder / f"{split}.jsonl")
    train, validation = sides["train"].rows, sides["validation"].rows
    if not train + validation:
        raise DataError(f"the pool has no usable row: {num_read} read, dropped {drops.summary_with_sample()}")
    check_sides(train, validation, "rows", validation_fraction, least_position)
    counts: dict[str, Any] = {
        "read": num_read,
        "kept": sum(side.rows for side in sides.values()),
        "dropped": dict(sorted(drops.by_reason.items())),
        "dropped_by_source": {s: dict(sorted(c.items())) for s, c in sorted(drops.by_source.items())},
        **{split: side.counts() for split, side in sides.items()},
    }
    drops.write(folder / DROP_SUMMARY)
    write_atomic(folder / "pool.json", json.dumps(counts, ensure_ascii=False, indent=1))
    return counts


def _fault_of(row: Row | Quarantined, number: int, faults: Callable[[Row], list[Violation]]) -> Dropped | None:
    """Why a row is left out, by its first fault; None for a sound one."""
    if isinstance(row, Quarantined):
        return Dropped(row.kind, f"{row.file}:{row.line}", row.reason)
    found = faults(row)
    if not found:
        return None
    first = found[0]
    where = "" if first.message_index is None else f"message {first.message_index}: "
    return Dropped(first.reason, _place(row, number), where + first.detail, question_of(row))


def _place(row: Conversation | Pair, number: int) -> str:
    return row.id or f"row {number}"


def _pair_violations(pair: Pair) -> list[Violation]:
    found = []
    if not pair.prompt.messages or pair.prompt.messages[-1].role not in ("user", "tool"):
        found.append(Violation("order", None, "a pair's prompt ends with a user message or a tool result"))
    if pair.chosen == pair.rejected:
        found.append(Violation("same_answers", None, "chosen and rejected are equal"))
    if not pair.rejected:
        found.append(Violation("no_answer", None, "there is no rejected message"))
    return found + violations(_chosen_side(pair))


def _chosen_side(pair: Pair) -> Conversation:
    return replace(pair.prompt, messages=(*pair.prompt.messages, *pair.chosen))


def _conversation_content(conversation: Conversation) -> JsonObject:
    """What makes two rows the same: all but where they come from."""
    row = conversation.to_json()
    return {key: value for key, value in row.items() if key not in ("source", "id")}


def _pair_content(pair: Pair) -> JsonObject:
    row = pair.to_json()
    return {
        "prompt": _conversation_content(pair.prompt),
        "chosen": row["chosen"],
        "rejected": row["rejected"],
    }


class _Side:
    """The counts of one side."""

    def __init__(self) -> None:
        self.rows = 0
        self._kinds: Counter[str] = Counter()
        self._by_source: Counter[str] = Counter()
        self._questions: set[bytes] = set()
        self._turns: list[int] = []

    def add(self, row: Conversation | Pair) -> None:
        whole = row if isinstance(row, Conversation) else _chosen_side(row)
        messages = whole.messages
        self.rows += 1
        self._by_source[row.source] += 1
        self._questions.add(bytes.fromhex(digest(question_of(row))[:32]))
        self._turns.append(sum(m.role == "user" for m in messages))
        self._kinds["messages"] += len(messages)
        self._kinds["with_thinking"] += any(m.reasoning_content for m in messages)
        self._kinds["with_calls"] += any(m.tool_calls for m in messages)
        self._kinds["with_thinking_and_calls"] += _thinks_and_calls(messages)

    def counts(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "messages": self._kinds["messages"],
            "with_thinking": self._kinds["with_thinking"],
            "with_calls": self._kinds["with_calls"],
            "with_thinking_and_calls": self._kinds["with_thinking_and_calls"],
            "different_questions": len(self._questions),
            "turns": length_statistics(self._turns),
            "by_source": dict(sorted(self._by_source.items())),
        }


def _thinks_and_calls(messages: Sequence[Message]) -> bool:
    """Whether thinking and a call share one turn of the assistant."""
    thinks = False
    for message in messages:
        if message.role == "user":
            thinks = False
        thinks = thinks or bool(message.reasoning_content)
        if thinks and message.tool_calls:
            return True
    return False


def _read(folder: Path, split: Split, from_json: Callable[[Any], Row]) -> Iterator[Row]:
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise DataError(f"{folder}: no pool here ({path.name} is missing)")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield from_json(json.loads(line))
            except (ValueError, DataError) as error:
                raise DataError(f"{path}:{number}: damaged pool row ({error}); build the pool again") from error
