"""What may follow what: a model that continues text comes from one that does, of the same shape.

Pretraining from a fine-tuned model forgets what was learned last, and another depth would leave the parent's layers
where they do not belong; both were paid for by others. They are errors unless the author allows them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.model.config import ModelConfig

# Artifact kinds of models that have learned to answer.
FINE_TUNED = ("sft", "dpo", "grpo")


def fine_tuned_problem(parent: Mapping[str, Any], allowed: bool) -> str:
    """'' or why continuing text from this parent is refused. parent: its facts, `makes` and `trained` among them."""
    chat = parent.get("makes") in FINE_TUNED or parent.get("trained") == "chat"
    if not chat or allowed:
        return ""
    made = f"an {parent['makes']} stage" if parent["makes"] in ("sft", "import") else f"a {parent['makes']} stage"
    return (
        f"`from` is a fine-tuned model ({made}); continuing text from it forgets what it learned last: start from its "
        "base, or set allow_fine_tuned = true"
    )


def shape_problem(parent: ModelConfig, written: ModelConfig, other_depth: bool) -> str:
    """'' or why a model of the shape that the author wrote cannot begin with the parent's weights."""
    if other_depth and written.depth >= parent.depth:
        written = written.model_copy(update={"depth": parent.depth})
    ours, theirs = written.model_dump(), parent.model_dump()
    # Their values follow from the data and the rows, not from what the author calls the model.
    other = [key for key in ours if key not in ("vocab_size", "context") and ours[key] != theirs[key]]
    if not other:
        return ""
    listed = ", ".join(f"{key} {theirs[key]}, not {ours[key]}" for key in other)
    if "depth" in other and ours["depth"] < theirs["depth"]:
        hint = "a model is never made shallower"
    elif other[0] == "depth":
        hint = "or set allow_other_depth = true: new layers go above the parent's"
    else:
        hint = "train another shape from fresh weights"
    return f"`model` is not the shape of the model of `from`: that has {listed}; leave `model` out, {hint}"
