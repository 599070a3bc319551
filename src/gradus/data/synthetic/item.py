"""Item: one problem with its wording, its worked answer and its checks, before it becomes a conversation.

A problem's canonical key (operation and values; for facts known by heart the question itself) decides by a salted hash
whether the problem belongs to the training side or to the probe side, so the two are disjoint by construction. What
goes on from earlier problems has a key of its own, and trains none of the earlier ones that are the probe side's.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Side = Literal["train", "probe"]
Check = dict[str, Any]

PROBE_PERCENT = 10
_SALT = b"gradus synthetic problems, first split:"


@dataclass(frozen=True, slots=True)
class Turn:
    """A user turn and the reply it should get.

    thinking: None for replies without thinking. calculation: an expression for the calculator; `{result}` in the
    answer stands for what the calculator gave last. further: expressions asked for after the result of the first.
    checks: probe checks of the reply; where the answer states a result, those that follow from it are added when
    it is run. train: False for an earlier turn that only sets the scene. key: of the problem that it answers, as where
    that stands alone; "" for what never does.
    """

    user: str
    answer: str
    thinking: str | None = None
    calculation: str | None = None
    checks: tuple[Check, ...] = ()
    train: bool = True
    further: tuple[str, ...] = ()
    key: str = ""

    @property
    def expressions(self) -> tuple[str, ...]:
        """Every expression for the calculator, in order."""
        return () if self.calculation is None else (self.calculation, *self.further)


@dataclass(frozen=True, slots=True)
class Item:
    """key: the problem; turns: at least one, the checks of the last are the item's."""

    category: str
    key: str
    turns: tuple[Turn, ...]

    def is_of(self, side: Side) -> bool:
        """Whether it may stand on that side."""
        if side_of(self.key) != side:
            return False
        return side == "probe" or not any(t.train and t.key and side_of(t.key) == "probe" for t in self.turns)


@dataclass(frozen=True, slots=True)
class Persona:
    """Who the assistant says it is."""

    name: str
    maker: str


Generator = Callable[[random.Random, Persona], Item]


def side_of(key: str) -> Side:
    """The side of the split that a problem belongs to: about one in ten is a probe."""
    # CRC-32 is spread well enough for a split and five times faster than a cryptographic hash.
    return "probe" if zlib.crc32(_SALT + key.encode("utf-8")) % 100 < PROBE_PERCENT else "train"


T = TypeVar("T")


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """A uniform choice; faster than `Random.choice`."""
    return options[int(rng.random() * len(options))]


def between(rng: random.Random, low: int, high: int) -> int:
    """A uniform whole number from `low` to `high`, both included; faster than `Random.randint`."""
    return low + int(rng.random() * (high - low + 1))
