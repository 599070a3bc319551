"""The artifact audit: how often a model's own answers hold artifacts, over seeded samples.

Kinds are those of conversation.artifacts, found in the answers (loops also in the thinking), and what went wrong with
the turn itself: thinking that never closed, other malformed markup, no stop token. A rate of 0 in n has 3 / n as its
upper bound (the rule of three: 0 in 100 means below 3 %), any other the Wilson interval's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradus.conversation.artifacts import ARTIFACTS, find_artifacts, find_loops
from gradus.conversation.checks import AssistantTurn, ThinkClosed
from gradus.conversation.messages import Conversation
from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.core.statistics import fault_rate, wilson
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.eval.journal import Journal, SharedWork
from gradus.eval.tasks import evenly_spread_over
from gradus.train.parallel import World

UNCLOSED_THINK, MALFORMED, MISSING_STOP = "unclosed_think", "malformed", "missing_stop"
LOOP = "loop"
_EXCERPT = 80
_THINK_CLOSED = ThinkClosed(kind="think_closed")
KINDS = (*ARTIFACTS, UNCLOSED_THINK, MALFORMED, MISSING_STOP)


@dataclass(frozen=True)
class AuditedSample:
    """One answer: the prompt's id and number of the sample, the kinds found in it, and where the first one stands."""

    id: str
    kinds: tuple[str, ...]
    answer: str
    excerpt: str


@dataclass(frozen=True)
class AuditResult:
    """All samples of one model."""

    model: str
    samples: tuple[AuditedSample, ...]
    seconds: float = 0.0
    decoding: dict[str, Any] = field(default_factory=dict)

    def measures(self) -> dict[str, Any]:
        """What a gate can name: "clean", and the rate of "any" and of each kind.

        "clean", the share of answers without any artifact, has 0 or 1 by item for paired tests (higher is better).
        """
        n = len(self.samples)
        found = {"any": fault_rate(sum(bool(sample.kinds) for sample in self.samples), n)}
        for kind in KINDS:
            found[kind] = fault_rate(sum(kind in sample.kinds for sample in self.samples), n)
        clean = n - int(found["any"]["successes"])
        low, high = wilson(clean, n)
        items = {sample.id: int(not sample.kinds) for sample in self.samples}
        measure = {"value": clean / n, "n": n, "successes": clean, "lower": low, "upper": high, "items": items}
        return {"clean": measure} | found

    def to_json(self) -> dict[str, Any]:
        """`{"model", "rates", "samples"}`."""
        samples = [{"id": s.id, "kinds": list(s.kinds), "answer": s.answer, "excerpt": s.excerpt} for s in self.samples]
        rates = {name: measure for name, measure in self.measures().items() if name != "clean"}
        return {"model": self.model, "decoding": self.decoding, "rates": rates, "samples": samples}


def turn_artifacts(turn: AssistantTurn) -> list[tuple[str, str]]:
    """(kind, excerpt) of everything that is wrong with an assistant's turn, in the order of KINDS by message."""
    found: list[tuple[str, str]] = []
    for message in turn.messages:
        if message.role == "assistant":
            found += _told(message.content)
            found += _told(message.reasoning_content or "", (LOOP,))
    unclosed = _THINK_CLOSED.failure(turn)
    if unclosed is not None:
        found.append((UNCLOSED_THINK, unclosed))
    found += [(MALFORMED, problem) for problem in turn.problems if problem != unclosed]
    if turn.finish_reason != "stop":
        found.append((MISSING_STOP, f"ended by {turn.finish_reason}"))
    return found


def _told(text: str, kinds: tuple[str, ...] = tuple(ARTIFACTS)) -> list[tuple[str, str]]:
    """(kind, excerpt) in the order of the text, of a loop with its period and repeats."""
    found = [(item.start, item.kind, item.excerpt) for item in find_artifacts(text, kinds) if item.kind != LOOP]
    if LOOP in kinds:
        found += [(loop.start, LOOP, f"{loop}: {text[loop.start : loop.end][:_EXCERPT]}") for loop in find_loops(text)]
    return [(kind, excerpt) for _, kind, excerpt in sorted(found, key=lambda item: item[0])]


def questions(rows: Callable[[], Iterable[Conversation]], at_most: int) -> list[Conversation]:
    """Conversations up to their last user message, of each source its share; rows without one are left out.

    rows: gives them from the beginning, twice, so that none is held but those that are chosen.
    """
    chosen = set(evenly_spread_over([one.source for one in _without_last_answer(rows())], at_most))
    return [one for number, one in enumerate(_without_last_answer(rows())) if number in chosen]


def _without_last_answer(rows: Iterable[Conversation]) -> Iterator[Conversation]:
    for conversation in rows:
        last = max((i for i, message in enumerate(conversation.messages) if message.role == "user"), default=-1)
        if last >= 0:
            yield replace(conversation, messages=conversation.messages[: last + 1])


def audit(
    engine: Engine,
    prompts: Sequence[Conversation],
    num_samples: int,
    sampling: Sampling,
    *,
    model: str = "",
    max_tokens: int = 256,
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> AuditResult:
    """Draw `num_samples` answers, the prompts in turn, and look through them.

    prompts: conversations that end with a user message. sampling: its seed starts the stream of each sample. Prompts
    longer than the model's context are passed over. identity, journals, world: as of `run_tasks`. Errors: DataError
    where none is left.
    """
    if not prompts:
        raise DataError("there is nothing to ask: no conversation with a user message was found; name other prompts")
    begin = time.perf_counter()
    asked: list[tuple[str, Request]] = []
    rounds = -(-num_samples // len(prompts))
    for number in range(rounds):
        for prompt in prompts[: num_samples - number * len(prompts)]:
            stream = digest([sampling.seed, prompt.id, number])
            drawn = sampling.model_copy(update={"seed": int(stream[:16], 16)})
            request = Request(prompt, sampling=drawn, max_tokens=max_tokens)
            try:
                engine.check(request)
            except PromptTooLongError:
                continue
            asked.append((f"{prompt.id}#{number}", request))
    if not asked:
        raise DataError(f"none of {len(prompts)} prompts can be asked: each is as long as the model's context")
    decoding = sampling.model_dump() | {"max_tokens": max_tokens}
    prompted = [[name, request.conversation.to_json()] for name, request in asked]
    journal = None if journals is None else Journal(journals, digest([identity, prompted, decoding]))
    work = SharedWork(len(asked), journal, world, on_progress)

    def take(index: int, reply: Reply) -> None:
        found = turn_artifacts(reply.turn)
        kinds = tuple(dict.fromkeys(kind for kind, _ in found))
        work.keep({work.todo[index]: [kinds, reply.turn.answer, found[0][1] if found else ""]})

    engine.generate([asked[number][1] for number in work.todo], take)
    samples = tuple(
        AuditedSample(name, tuple(kinds), answer, excerpt)
        for (name, _), (kinds, answer, excerpt) in zip(asked, work.everything(), strict=True)
    )
    return AuditResult(model, samples, time.perf_counter() - begin, decoding)
