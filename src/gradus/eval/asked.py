"""One item of a benchmark as a model is asked, and what the model says: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens and what stands before them, at least one of each."""

    context: Sequence[int]
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """logp: of all tokens together, in nats; is_greedy: whether each was the likeliest; num_tokens: counted ones."""

    logp: float
    is_greedy: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One item.

    id: the item's in its set; context, choices: as a reader is shown them; question: a continuation for each choice, or
    the windows of a document; lengths: characters of each choice, or words and bytes of the document; gold: number of
    the right choice; cluster: what items that are not independent share, such as a passage, "" for none.
    """

    id: str
    context: str
    choices: tuple[str, ...]
    question: tuple[Continuation, ...]
    lengths: tuple[int, ...]
    gold: int
    cluster: str = ""
    is_document: bool = False
