"""Preference pairs from a model's own answers: sample each prompt, judge, pair a pass with a fail.

A sample passes when its turn breaks no rule of the validator, was well-formed and satisfies the prompt's
checks. Where no sample passes, the reference answer is what is chosen, and that is counted. Every sample that
fails and every prompt that gives no pair is counted by reason. Same model, prompts and seed: same pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Pair
from gradus.core.fingerprint import digest
from gradus.core.settings import Settings
from gradus.core.temperature import DrawingTemperature
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.posttrain.prompts import PairPrompt, artifact_reasons, judge


class PairSettings(Settings):
    """samples: answers for each prompt, drawn at `temperature` (and top_k, top_p) from `seed`.

    reject_artifacts: an answer that holds an artifact (conversation.artifacts) fails, and so does such a reference.
    """

    samples: int = Field(default=4, ge=1)
    temperature: DrawingTemperature = 0.8
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    max_calls: int = Field(default=4, ge=0)
    reject_artifacts: bool = False


@dataclass(frozen=True)
class PairResult:
    """The pairs in the order of their prompts, and what was counted on the way.

    counts: prompts, samples, samples_passed, pairs, chosen_sampled, chosen_reference. failures: samples by
    reason. skipped: prompts that gave no pair, by reason.
    """

    pairs: tuple[Pair, ...]
    counts: dict[str, int]
    failures: dict[str, int]
    skipped: dict[str, int]


def make_pairs(
    engine: Engine,
    prompts: Sequence[PairPrompt],
    settings: PairSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairResult:
    """Sample, judge and pair. on_progress: called with (samples done, all samples)."""
    skipped: Counter[str] = Counter()
    asked: list[PairPrompt] = []
    requests: list[Request] = []
    for index, prompt in enumerate(prompts):
        drawn = [sample_request(prompt, settings, index, sample) for sample in range(settings.samples)]
        try:
            engine.check(drawn[0])
        except PromptTooLongError:
            skipped["prompt_too_long"] += 1
            continue
        asked.append(prompt)
        requests += drawn
    done = 0

    def count(index: int, reply: Reply) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, len(requests))

    replies = engine.generate(requests, count)
    failures: Counter[str] = Counter()
    counts: Counter[str] = Counter(prompts=len(prompts), samples=len(replies))
    pairs = []
    for place, prompt in enumerate(asked):
        first = place * settings.samples
        turns = [reply.turn for reply in replies[first : first + settings.samples]]
        reasons = [judge(prompt, turn) for turn in turns]
        if settings.reject_artifacts:
            reasons = [found + artifact_reasons(turn.messages) for found, turn in zip(reasons, turns, strict=True)]
            if artifact_reasons(prompt.reference):
                prompt = replace(prompt, reference=())
        failures.update(reason for found in reasons for reason in set(found))
        counts["samples_passed"] += sum(not found for found in reasons)
        pair = _pair(prompt, turns, reasons)
        if isinstance(pair, str):
            skipped[pair] += 1
            continue
        pairs.append(pair)
        counts["chosen_sampled" if [] in reasons else "chosen_reference"] += 1
    counts["pairs"] = len(pairs)
    names = ("prompts", "samples", "samples_passed", "pairs", "chosen_sampled", "chosen_reference")
    return PairResult(tuple(pairs), {name: counts[name] for name in names}, _by_count(failures), _by_count(skipped))


def sample_request(prompt: PairPrompt, settings: PairSettings, index: int, sample: int) -> Request:
    """The request for one sample of a prompt, drawn from a stream of its own."""
    stream = digest([settings.seed, index, prompt.conversation.id, sample])
    return Request(
        prompt.conversation,
        sampling=Sampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=int(stream[:16], 16),
        ),
        max_tokens=settings.max_tokens,
        max_calls=settings.max_calls,
    )


def _pair(prompt: PairPrompt, turns: Sequence[AssistantTurn], reasons: Sequence[list[str]]) -> Pair | str:
    """The first pass with the first fail, or why there is none."""
    passed = [turn for turn, found in zip(turns, reasons, strict=True) if not found]
    failed = [turn for turn, found in zip(turns, reasons, strict=True) if found]
    if not failed:
        return "all_passed"
    # What was cut short or malformed would be rendered as something that the model did not say.
    whole = [turn for turn in failed if turn.finish_reason == "stop" and not turn.problems]
    if not whole:
        return "no_whole_rejection"
    chosen = passed[0].messages if passed else prompt.reference
    if not chosen:
        return "none_passed"
    if chosen == whole[0].messages:
        return "reference_fails_its_checks"
    conversation = prompt.conversation
    return Pair(conversation, chosen, whole[0].messages, conversation.source, conversation.id)


def _by_count(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda entry: (-entry[1], entry[0])))
