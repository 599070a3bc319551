"""What may follow what: a model that continues text comes from one that does, of the same shape and optimizer.

Pretraining from a fine-tuned model forgets what was learned last, and another depth would leave the parent's layers
where they do not belong; both were paid for by others. They are errors unless the author allows them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.core.errors import ConfigError
from gradus.model.config import LoraSettings, ModelConfig
from gradus.train.config import OptimizerSettings

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
        if moved := parent.moved_by_depth(written.depth):
            return (
                f"`model` with depth {written.depth} would change what the {parent.depth} layers of the model of "
                f"`from` compute, whose {', '.join(moved)} go by a layer's place among all; leave `model` out, or "
                "train another shape from fresh weights"
            )
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


def context_problem(parent: ModelConfig, context: int) -> str:
    """'' or why a model cannot be trained on rows longer than the context that it is made for."""
    if context <= parent.context:
        return ""
    return (
        f'"context": rows of {context:,} tokens are longer than the context of the model of `from`, '
        f"{parent.context:,}; write context = {parent.context} or less, or give the model a longer one first (a stage "
        'of kind "extend")'
    )


def optimizer_facts(settings: OptimizerSettings) -> dict[str, Any]:
    """What an optimizer's state depends on, as a fact of the stage that it trains."""
    return {"matrix": settings.matrix, "rest": settings.rest, "variance": settings.variance_beta is not None}


def refuse_warm(settings: OptimizerSettings, parent: Mapping[str, Any], lora: LoraSettings | None = None) -> None:
    """ConfigError where the state of the parent's optimizer cannot be taken over. parent: its facts, {} for none.

    lora: adapters that are trained in place of the weights, which begin without any state.
    """
    if settings.state == "fresh":
        return
    fix = 'write optimizer = "fresh", which begins with moments of zero'
    if not parent:
        raise ConfigError(f'optimizer = "warm" takes over the state of `from`; name that stage, or {fix}')
    if parent.get("makes") == "import":
        raise ConfigError(f'optimizer = "warm": a model that was imported comes without optimizer state; {fix}')
    if lora is not None:
        raise ConfigError(f'optimizer = "warm": fresh adapters (lora) have no state to take over; {fix}')
    if parent.get("makes") == "experts":
        raise ConfigError(
            'optimizer = "warm": each expert was trained with an optimizer of its own, and the routers with none, so '
            f"there is no state for all of them; {fix}"
        )
    if parent.get("lora"):
        raise ConfigError(
            f'optimizer = "warm": the stage of `from` trained adapters (lora) alone, and its state is theirs; {fix}'
        )
    if "optimizer" not in parent:
        return  # the parent is not planned yet; its checkpoint tells
    kept, wanted = parent["optimizer"], optimizer_facts(settings)
    if kept is None:
        raise ConfigError(
            'optimizer = "warm": the stage of `from` keeps no checkpoint (keep_checkpoints = 0), and so no state; '
            f"{fix}, or let it keep one"
        )
    if wanted["matrix"] != "muon" or kept["matrix"] != "muon":
        kept, wanted = ({k: v for k, v in facts.items() if k != "variance"} for facts in (kept, wanted))
    if kept != wanted:
        raise ConfigError(
            f'optimizer = "warm": the state of `from` is that of {_listed(kept)}, and this stage trains with '
            f"{_listed(wanted)}; make them the same, or {fix}"
        )


def _listed(facts: Mapping[str, Any]) -> str:
    named = [f'{key} = "{facts[key]}"' for key in ("matrix", "rest")]
    if "variance" in facts:
        named.append("variance_beta" if facts["variance"] else "no variance_beta")
    return ", ".join(named)
