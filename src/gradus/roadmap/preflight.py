"""What is worth a warning before a model is fine-tuned or extended, never an error.

Said when it starts, and when it is planned as far as a plan knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def separate_habits(pools: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning where a mixture shows thinking and calls, and never both in one turn of the assistant.

    pools: the results of each. A model learns from such a mixture that it does one or the other.
    """
    sides = [results.get("counts", {}).get("train", {}) for results in pools.values()]
    if not all("with_thinking_and_calls" in side for side in sides):
        return []
    thinking, calls, both = (
        sum(int(side[key]) for side in sides) for key in ("with_thinking", "with_calls", "with_thinking_and_calls")
    )
    if both or not (thinking and calls):
        return []
    return [
        f"{thinking:,} conversations think and {calls:,} call tools, and in none do both share a turn: the model will "
        "do one or the other; add conversations that think before they call"
    ]


def long_conversations(lengths: Mapping[str, Any], row_length: int, policy: str) -> list[str]:
    """A warning where the 99th percentile of whole conversations does not fit; lengths: as `length_statistics`."""
    if not lengths["count"] or lengths["quantiles"]["p99"] <= row_length:
        return []
    p99, most = lengths["quantiles"]["p99"], lengths["quantiles"]["max"]
    return [
        f"the 99th percentile of the conversations is {p99:,} tokens (the longest {most:,}), more than the trained "
        f'context of {row_length:,}: what is longer meets length_policy = "{policy}"; extend the context first, or '
        "use shorter conversations"
    ]


def larger_batch(
    micro_rows: int, row_length: int, parent: Mapping[str, Any], parent_model: Mapping[str, Any]
) -> list[str]:
    """A warning where one forward pass holds more tokens than the parent's did; parent: the settings of its stage.

    micro_rows: rows of a pass as they come. Nothing is said of a parent that was not trained here, nor of a single row,
    which no setting makes shorter.
    """
    context = parent.get("row_length") or parent.get("context") or parent_model.get("context")
    if parent.get("micro_rows") is None or context is None:
        return []
    before = int(parent["micro_rows"]) * min(int(context), int(parent_model.get("context", context)))
    now = micro_rows * row_length
    if now <= before or micro_rows == 1:
        return []
    fitting = max(1, before // row_length)
    return [
        f"micro_rows = {micro_rows} rows of {row_length:,} tokens are {now:,} tokens in one forward pass, more than "
        f"the {before:,} of the stage it starts from: memory may not suffice; micro_rows = {fitting} is no larger, "
        "at the same batch_tokens"
    ]


def said(warnings: Sequence[str]) -> list[str]:
    """The lines as a walk shows them."""
    return [f"  warning: {warning}" for warning in warnings]
