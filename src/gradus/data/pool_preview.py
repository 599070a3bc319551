"""What filters would take from a pool of conversations, each judged by itself, without writing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gradus.conversation.messages import Conversation
from gradus.conversation.records import Quarantined
from gradus.data.conversation_filters import Judge
from gradus.data.drops import DropLog, Dropped
from gradus.data.pool import conversation_faults, question_of


def preview_filters(
    rows: Iterable[Conversation | Quarantined],
    filters: Sequence[tuple[str, Judge]],
    samples: int = 3,
    *,
    calls_may_end: bool = False,
) -> dict[str, Any]:
    """Counts of every filter over all sound conversations; JSON-ready.

    {read, sound, kept, filters: {name: {removed, alone, reasons}}, by_source: {source: {sound, kept, removed by
    filter}}, unsound: {reason: count}, samples: {reason: [...]}}. removed: by this filter, whatever the others say;
    alone: by this one and no other; samples: the first of each reason, with the conversation's question.
    """
    removed: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {name: Counter() for name, _ in filters}
    by_source: dict[str, Counter[str]] = {}
    taken, unsound = DropLog(samples), DropLog(samples)
    read = 0
    for row in rows:
        read += 1
        if isinstance(row, Quarantined):
            unsound.add(row.source or row.file, Dropped(row.kind, f"{row.file}:{row.line}", row.reason))
            continue
        faults = conversation_faults(row, calls_may_end=calls_may_end)
        if faults:
            unsound.add(row.source, Dropped(faults[0].reason, row.id, faults[0].detail, question_of(row)))
            continue
        found = [(name, fault) for name, judge in filters if (fault := judge(row)) is not None]
        counts = by_source.setdefault(row.source, Counter())
        counts.update(["sound", *(["kept"] if not found else []), *(name for name, _ in found)])
        for name, fault in found:
            removed[name] += 1
            reasons[name][fault.reason] += 1
            where = "" if fault.message_index is None else f"message {fault.message_index}: "
            taken.add(row.source, Dropped(fault.reason, row.id, where + fault.detail, question_of(row)))
        if len(found) == 1:
            alone[found[0][0]] += 1
    names = ["sound", "kept", *(name for name, _ in filters)]
    sound = sum(counts["sound"] for counts in by_source.values())
    return {
        "read": read,
        "sound": sound,
        "kept": sum(counts["kept"] for counts in by_source.values()),
        "filters": {
            name: {"removed": removed[name], "alone": alone[name], "reasons": dict(reasons[name])}
            for name, _ in filters
        },
        "by_source": {s: {name: c[name] for name in names if c[name]} for s, c in sorted(by_source.items())},
        "unsound": dict(sorted(unsound.by_reason.items())),
        "samples": taken.to_json()["samples"],
    }
