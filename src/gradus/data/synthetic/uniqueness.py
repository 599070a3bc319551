"""How many of a set of conversations are different: the measure that templates are judged by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gradus.conversation.messages import Conversation


@dataclass(frozen=True, slots=True)
class Uniqueness:
    """Shares of different ones among all rows.

    conversations: whole rows; questions: all user turns of a row together; last_questions: the last user turn alone;
    by_category: `questions` by source.
    """

    rows: int
    conversations: float
    questions: float
    last_questions: float
    by_category: dict[str, float]


def uniqueness(conversations: Iterable[Conversation]) -> Uniqueness:
    """Count different rows and user turns, exactly as written."""
    rows = 0
    whole: set[tuple[object, ...]] = set()
    questions: dict[str, set[str]] = defaultdict(set)
    last: set[str] = set()
    by_source: dict[str, int] = defaultdict(int)
    for conversation in conversations:
        rows += 1
        users = [message.content for message in conversation.messages if message.role == "user"]
        whole.add(
            tuple((message.role, message.content, message.reasoning_content) for message in conversation.messages)
        )
        questions[conversation.source].add("\n".join(users))
        last.add(users[-1])
        by_source[conversation.source] += 1
    shares = {source: len(questions[source]) / count for source, count in sorted(by_source.items())}
    return Uniqueness(
        rows=rows,
        conversations=len(whole) / rows,
        questions=len(set().union(*questions.values())) / rows,
        last_questions=len(last) / rows,
        by_category=shares,
    )
