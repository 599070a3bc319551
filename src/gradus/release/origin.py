"""What is known of where an exported model comes from, for its card and its check. Gathered in roadmap/, told here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LineageStep:
    """One stage on the way from raw text. summary: what it made, in a few words."""

    name: str
    kind: str
    fingerprint: str
    summary: str


@dataclass(frozen=True)
class DataSource:
    """What a stage read from outside. licence: as its publisher states it, "" where nobody said; dataset: its name on
    the Hub, "" for other sources; reference: where it is."""

    stage: str
    name: str
    licence: str = ""
    dataset: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Measured:
    """A result of an evaluation with its 95 % interval. value, lower, upper: a share of n, or another quantity."""

    stage: str
    measure: str
    value: float
    lower: float
    upper: float
    n: int | None


@dataclass(frozen=True)
class Origin:
    """name: of the model, for its user; fingerprint: of its artifact, "" for a bare folder; trained: "base" for a model
    that goes on with text, "chat" for one that answers; base_models: imported ones it began from; documents: text of
    its own training data that was held back, empty where none is at hand; text: what they are."""

    name: str
    fingerprint: str = ""
    trained: str = "chat"
    seed: int | None = None
    lineage: tuple[LineageStep, ...] = ()
    sources: tuple[DataSource, ...] = ()
    base_models: tuple[str, ...] = ()
    results: tuple[Measured, ...] = ()
    documents: tuple[str, ...] = ()
    text: str = ""
