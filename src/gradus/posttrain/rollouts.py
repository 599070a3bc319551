"""Rollouts: groups of sampled answers, judged, as training batches of the model that sampled them.

A rollout is a pure function of (seed, number of the rollout, weights): which prompts comes from the order of rows,
every sample has a random stream of its own, and rewards are pure. So a run that was killed rolls out the same again.
Of several processes each takes its own prompts; what is counted is summed over all of them.

Trained are the tokens that the model chose, the stop token among them, exactly as they were sampled: text that was
read and written again could be other tokens. Prompts and tool results are read, not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, Literal

import torch
from pydantic import Field

from gradus.core.fingerprint import digest
from gradus.core.settings import Settings
from gradus.core.temperature import DrawingTemperature
from gradus.data.order import RowOrder
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.mps import sum_dtype
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer
from gradus.posttrain.grpo import ADVANTAGE, group_advantages, with_policy
from gradus.posttrain.rewards import REWARD_KINDS, Reward, Scored, score
from gradus.posttrain.tasks import Task
from gradus.train.parallel import World
from gradus.train.sharding import whole_weights

# What is summed over samples, groups and processes, in all and for each kind of reward.
_OF_KINDS = tuple(f"{kind}_{what}" for kind in REWARD_KINDS for what in ("samples", "score", "square", "passed"))
_SUMS = (
    *("samples", "groups", "reward", "reward_square", "passed", "tokens", "truncated", "same_reward", "too_long"),
    *("trained_samples", "trained_tokens", *_OF_KINDS),
)


class RolloutSettings(Settings):
    """group_size: answers to each prompt. truncated: what becomes of answers that a limit cut off: "mask" leaves them
    out of training, their reward still counts in the mean of their group; "penalise" trains them with a reward of 0.
    """

    group_size: int = Field(default=8, ge=2)
    prompts_per_rollout: int = Field(default=16, ge=1)
    micro_samples: int = Field(default=32, ge=1)
    temperature: DrawingTemperature = 1.0
    max_tokens: int = Field(default=256, ge=1)
    max_calls: int = Field(default=4, ge=0)
    truncated: Literal["mask", "penalise"] = "mask"
    advantage_scale: Literal["std", "none"] = "std"
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """Tasks that are judged alike."""

    tasks: Sequence[Task]
    rewards: Sequence[Reward]


@dataclass(frozen=True)
class Sample:
    """One answer: what was said, what it earned, and its advantage over its group."""

    task: Task
    reply: Reply
    scored: Scored
    truncated: bool
    advantage: float = 0.0


@dataclass(frozen=True)
class Rollout:
    """batches: what is trained on, at least one. sums: counted over all processes. samples: this process's."""

    batches: list[Batch]
    sums: dict[str, float]
    samples: list[Sample] = field(repr=False)


class Rollouts:
    """`rollout(number)` for prompts of several sources, each as often as it has tasks."""

    def __init__(
        self, engine: Engine, reference: Transformer, sources: Sequence[Source], settings: RolloutSettings, world: World
    ) -> None:
        self.engine, self.reference, self.settings, self.world = engine, reference, settings, world
        self._tasks = [(task, source.rewards) for source in sources for task in source.tasks]
        self.order = RowOrder(
            len(self._tasks),
            settings.seed,
            settings.prompts_per_rollout,
            settings.prompts_per_rollout,
            world.rank,
            world.size,
        )

    def rollout(self, number: int) -> Rollout:
        """Sample, judge, compare within groups, and lay out what is trained on. All processes call it together."""
        rows = [int(row) for part in self.order.micro_batches(number) for row in part]
        sums = dict.fromkeys(_SUMS, 0.0)
        with whole_weights(self.engine.model, self.world):
            groups = self._groups(rows, number, sums)
        samples = [sample for group in groups for sample in self._compared(group, sums)]
        for sample in samples:
            _count(sample, sums)
        trained = [s for s in samples if s.advantage and not (s.truncated and self.settings.truncated == "mask")]
        sums["trained_samples"] = len(trained)
        sums["trained_tokens"] = sum(s.reply.num_tokens for s in trained)
        batches = list(self._batches(trained))
        device = self.engine.model.device
        totals = torch.tensor([sums[name] for name in _SUMS], dtype=sum_dtype(device), device=device)
        self.world.sum_([totals])
        return Rollout(batches, dict(zip(_SUMS, totals.tolist(), strict=True)), samples)

    def _groups(self, rows: Sequence[int], number: int, sums: dict[str, float]) -> list[list[Sample]]:
        """The answers to each prompt, judged. A prompt that leaves no room to answer is counted."""
        asked: list[int] = []
        requests: list[Request] = []
        for row in rows:
            drawn = [self._request(row, number, index) for index in range(self.settings.group_size)]
            try:
                self.engine.check(drawn[0])
            except PromptTooLongError:
                sums["too_long"] += 1
                continue
            asked.append(row)
            requests += drawn
        size = self.settings.group_size
        replies = self.engine.generate(requests)
        judged = _judged([self._tasks[row] for row in asked for _ in range(size)], replies)
        samples = [self._sample(*entry) for entry in judged]
        return [samples[first : first + size] for first in range(0, len(samples), size)]

    def _request(self, row: int, number: int, index: int) -> Request:
        settings = self.settings
        stream = digest([settings.seed, number, row, index])
        return Request(
            self._tasks[row][0].prompt.conversation,
            # The whole distribution: what top-k or top-p leave out would have a probability in training and none here.
            sampling=Sampling(temperature=settings.temperature, seed=int(stream[:16], 16)),
            max_tokens=settings.max_tokens,
            max_calls=settings.max_calls,
        )

    def _sample(self, task: Task, reply: Reply, scored: Scored) -> Sample:
        truncated = reply.finish_reason == "length"
        if truncated and self.settings.truncated == "penalise":
            scored = Scored(0.0, dict.fromkeys(scored.scores, 0.0))
        return Sample(task, reply, scored, truncated)

    def _compared(self, group: list[Sample], sums: dict[str, float]) -> list[Sample]:
        """The group with its advantages; all 0 where every answer earned the same, which is counted."""
        rewards = [sample.scored.reward for sample in group]
        advantages = group_advantages(rewards, self.settings.advantage_scale)
        sums["groups"] += 1
        sums["same_reward"] += not any(advantages)
        return [replace(sample, advantage=value) for sample, value in zip(group, advantages, strict=True)]

    def _batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        """Micro-batches with all that the loss needs; of a process that has none, one in which nothing counts.

        As many on every process: the reference may be sharded, and is gathered by all together.
        """
        size, model = self.settings.micro_samples, self.engine.model
        device = model.device
        num_mine = -(-len(samples) // size)
        for index in range(max(1, self.world.most(num_mine))):
            part = samples[index * size : (index + 1) * size]
            batch = share_prefixes(_batch(part) if part else _idle_batch(), device).to(device)
            complete = with_policy(batch, model, self.reference, self.settings.temperature)
            if part or index == 0:
                yield complete


def _judged(
    asked: Sequence[tuple[Task, Sequence[Reward]]], replies: Sequence[Reply]
) -> list[tuple[Task, Reply, Scored]]:
    """Every reply with its rewards; programs run several at a time, each in a process of its own."""
    tasks = [task for task, _ in asked]
    with ThreadPoolExecutor(4) as pool:
        turns = [reply.turn for reply in replies]
        scored = pool.map(score, [rewards for _, rewards in asked], tasks, turns)
        return list(zip(tasks, replies, scored, strict=True))


def _count(sample: Sample, sums: dict[str, float]) -> None:
    reward = sample.scored.reward
    sums["samples"] += 1
    sums["reward"] += reward
    sums["reward_square"] += reward * reward
    sums["passed"] += sample.scored.passed
    sums["tokens"] += sample.reply.num_tokens
    sums["truncated"] += sample.truncated
    for kind, value in sample.scored.scores.items():
        sums[f"{kind}_samples"] += 1
        sums[f"{kind}_score"] += value
        sums[f"{kind}_square"] += value * value
        sums[f"{kind}_passed"] += value == 1.0


def _batch(samples: Sequence[Sample]) -> Batch:
    """The samples end to end, each a document: prompt and answer, targets where the model chose."""
    tokens: list[int] = []
    targets: list[int] = []
    lengths = []
    for sample in samples:
        reply = sample.reply
        ids = [*reply.prompt_ids, *reply.ids]
        chosen = [*repeat(False, len(reply.prompt_ids)), *reply.sampled]
        # The last token predicts nothing that counts.
        while not chosen[-1]:  # results of a call that the context had no room for
            ids.pop()
            chosen.pop()
        targets += [token if is_chosen else IGNORE for token, is_chosen in zip(ids[1:], chosen[1:], strict=True)]
        targets.append(IGNORE)
        tokens += ids
        lengths.append(len(ids))
    advantages = torch.tensor([sample.advantage for sample in samples], dtype=torch.float32)
    return Batch(torch.tensor(tokens), torch.tensor(targets), Documents.of_lengths(lengths), {ADVANTAGE: advantages})


def _idle_batch() -> Batch:
    """One token without a target: every process takes part in every step, and reports the same metrics."""
    token = torch.zeros(1, dtype=torch.int64)
    return Batch(token, torch.full_like(token, IGNORE), Documents([0, 1], token), {ADVANTAGE: torch.zeros(1)})


def rollout_figures(sums: dict[str, float]) -> dict[str, Any]:
    """What was counted, as means and shares of all samples or groups; one entry for each kind of reward that occurs."""
    samples, groups = max(1.0, sums["samples"]), max(1.0, sums["groups"])
    found: dict[str, Any] = {
        "reward": sums["reward"] / samples,
        "reward_std": _deviation(sums["reward"], sums["reward_square"], samples),
        "pass_rate": sums["passed"] / samples,
        "answer_tokens": sums["tokens"] / samples,
        "truncated_fraction": sums["truncated"] / samples,
        "dropped_groups_fraction": sums["same_reward"] / groups,
    }
    for kind in REWARD_KINDS:
        number = sums[f"{kind}_samples"]
        if number:
            found[f"reward/{kind}"] = sums[f"{kind}_score"] / number
            found[f"reward_std/{kind}"] = _deviation(sums[f"{kind}_score"], sums[f"{kind}_square"], number)
            found[f"pass_rate/{kind}"] = sums[f"{kind}_passed"] / number
    return found


def rollout_counts(sums: dict[str, float]) -> dict[str, int]:
    """What was counted, in whole numbers."""
    names = ("samples", "groups", "passed", "truncated", "same_reward", "too_long", "trained_samples", "trained_tokens")
    return {name: round(sums[name]) for name in names}


def _deviation(total: float, squares: float, number: float) -> float:
    return float(max(0.0, squares / number - (total / number) ** 2) ** 0.5)


def evaluate_tasks(
    engine: Engine, sources: Sequence[Source], settings: RolloutSettings, on_sample: Callable[[Sample], None]
) -> dict[str, float]:
    """The likeliest answer to every task, judged: mean reward and the share that passed, in all and by kind."""
    asked: list[tuple[Task, Sequence[Reward]]] = []
    requests: list[Request] = []
    for source in sources:
        for task in source.tasks:
            request = Request(task.prompt.conversation, max_tokens=settings.max_tokens, max_calls=settings.max_calls)
            try:
                engine.check(request)
            except PromptTooLongError:
                continue
            asked.append((task, source.rewards))
            requests.append(request)
    sums = dict.fromkeys(_SUMS, 0.0)
    for task, reply, scored in _judged(asked, engine.generate(requests)):
        sample = Sample(task, reply, scored, reply.finish_reason == "length")
        _count(sample, sums)
        on_sample(sample)
    figures = rollout_figures(sums)
    return {f"held_back_{name}": figures[name] for name in ("reward", "pass_rate") if sums["samples"]}


def sample_line(sample: Sample) -> dict[str, Any]:
    """A sample as samples.jsonl shows it."""
    turn = sample.reply.turn
    return {
        "prompt": sample.task.prompt.conversation.messages[-1].content,
        "thinking": turn.thinking,
        "calls": [{"name": call.name, "arguments": call.arguments} for call in turn.calls],
        "answer": turn.answer,
        "reward": sample.scored.reward,
        "scores": sample.scored.scores,
    }
