"""Conversations as trees of replies (OASST): from each root, the path of the best-ranked replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradus.conversation.messages import Conversation, Message, messages_from_json
from gradus.conversation.record_values import RowError, list_of
from gradus.core.errors import DataError

Row = Mapping[str, Any]


def best_path_of_tree(row: Row) -> Conversation:
    """The best path of one exported tree, {message_tree_id, prompt: {text, role, replies: [...]}}."""
    messages: list[Message] = []
    node: object = row["prompt"]
    while isinstance(node, Mapping):
        messages.append(_message(node))
        found = list_of(node.get("replies"), "replies", least=0)
        replies = [r for r in found if isinstance(r, Mapping) and _is_kept(r)]
        node = min(replies, key=_rank, default=None)
    return _up_to_answer(messages, str(row.get("message_tree_id") or ""))


def message_forest(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Conversation | DataError]]:
    """(line of its first message, the best path of each tree or why it has none) of messages linked by their parents'
    ids. What is left of a tree whose beginning is missing is one with a RowError, whatever hangs on it.
    """
    children: dict[str, list[tuple[int, Row]]] = {}
    roots, names = [], set()
    for line, row in rows:
        names.add(_node_id(row))
        parent = row.get("parent_message_id", row.get("parent_id"))
        if parent:
            children.setdefault(str(parent), []).append((line, row))
        else:
            roots.append((line, row))
    for line, row in roots:
        try:
            yield line, _path_from(row, children)
        except DataError as error:
            yield line, error
    for parent, replies in children.items():
        if parent not in names:
            for line, row in replies:
                name = _node_id(row)
                yield line, RowError("missing_parent", f"message {name} answers {parent}, which is not there")


def _path_from(row: Row, children: Mapping[str, list[tuple[int, Row]]]) -> Conversation:
    messages: list[Message] = []
    name = _node_id(row)
    node: Row | None = row
    seen: set[str] = set()
    while node is not None:
        messages.append(_message(node))
        node_id = _node_id(node)
        if node_id in seen:
            raise DataError(f"message {node_id} is its own ancestor")
        seen.add(node_id)
        replies = [reply for _, reply in children.get(node_id, ()) if _is_kept(reply)]
        node = min(replies, key=_rank, default=None)
    return _up_to_answer(messages, name)


def _up_to_answer(messages: list[Message], name: str) -> Conversation:
    """The messages up to the last answer."""
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise DataError("the tree holds no answer")
    return Conversation(tuple(messages), id=name)


def _node_id(row: Row) -> str:
    return str(row.get("user_message_id", row.get("message_id")) or "")


def _is_kept(reply: Row) -> bool:
    return not reply.get("deleted") and reply.get("review_result") is not False


def _rank(reply: Row) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, int | float) else float("inf")


def _message(node: Row) -> Message:
    role = {"prompter": "user", "assistant": "assistant"}.get(str(node.get("role")))
    if role is None:
        raise DataError(f"unknown role {node.get('role')!r}")
    return messages_from_json([{"role": role, "content": node.get("text")}], "message")[0]
