"""Rollouts: what is trained of an answer, how groups are compared, what is counted, and that all of it repeats."""

import pytest
import torch

from gradus.conversation.checks import AnswerNumber
from gradus.conversation.messages import Conversation, Message
from gradus.model.batch import IGNORE
from gradus.posttrain.grpo import ADVANTAGE, ENTROPY, OLD_LOGP, REFERENCE_LOGP
from gradus.posttrain.prompts import PairPrompt, prompt_from_conversation
from gradus.posttrain.rewards import ChecksReward, RegexReward
from gradus.posttrain.rollouts import (
    Rollouts,
    RolloutSettings,
    Source,
    _batch,
    evaluate_tasks,
    rollout_counts,
    rollout_figures,
)
from gradus.posttrain.tasks import Task
from gradus.train.parallel import World

pytestmark = pytest.mark.usefixtures("one_thread")

ALWAYS = RegexReward(kind="regex", pattern="")


@pytest.fixture
def roll(memorised):
    """Rollouts over the named conversations, every answer drawn at a low temperature unless told otherwise."""
    engine, conversations = memorised

    def made(*names, rewards=(ALWAYS,), **options):
        tasks = [Task(prompt_from_conversation(conversations[name]), source="known") for name in names]
        settings = {"group_size": 2, "prompts_per_rollout": len(names), "temperature": 0.05, "max_tokens": 200}
        sources = [Source(tasks, rewards)]
        return Rollouts(engine, engine.model, sources, RolloutSettings(**settings | options), World())

    return made


class _ByTokens(RegexReward):
    """Pays for what the tokens add up to: groups differ as soon as two answers do."""

    def score(self, task, turn):
        return float(len(turn.answer) % 2)


def test_stop_tokens_are_trained_and_tool_results_are_not(roll, memorised):
    engine, conversations = memorised
    rollout = roll("product").rollout(0)
    reply = rollout.samples[0].reply
    assert reply.turn.answer == "12 * 3 = 36."
    batch = _batch(rollout.samples)
    start, end = batch.documents.bounds[:2]
    targets = batch.targets[start:end]
    # The row that training on this conversation would have: the same ids, the same mask.
    whole = engine.form.render(conversations["product"])
    ids = batch.tokens[start:end].tolist()
    assert ids == whole.ids[: len(ids)].tolist()
    chosen = targets != IGNORE
    expected = torch.from_numpy(whole.mask[1 : len(ids)])
    # The prompt of `think = true` opens the block, which the row counts as the model's own.
    opened = len(reply.prompt_ids) - 1
    assert torch.equal(chosen[opened:-1], expected[opened:])
    assert not chosen[:opened].any()
    text = engine.tokenizer.decode(targets[chosen].tolist())
    assert text.count("<|im_end|>") == 2
    assert "<tool_response>" not in text
    assert "<tool_call>" in text


def test_a_rollout_repeats_and_another_number_or_seed_is_another(roll):
    names = ("product", "greeting", "coffee", "name")
    first, again = (roll(*names, temperature=1.5).rollout(3) for _ in range(2))
    ids = [sample.reply.ids for sample in first.samples]
    assert ids == [sample.reply.ids for sample in again.samples]
    assert first.sums == again.sums
    assert ids != [s.reply.ids for s in roll(*names, temperature=1.5).rollout(4).samples]
    assert ids != [s.reply.ids for s in roll(*names, temperature=1.5, seed=1).rollout(3).samples]


def test_a_rollout_is_by_the_weights_of_its_step(roll, memorised):
    model = memorised[0].model
    before = roll("coffee").rollout(0)
    kept = model.norm.detach().clone()
    try:
        with torch.no_grad():
            model.norm.mul_(-1)
        changed = roll("coffee").rollout(0)
    finally:
        with torch.no_grad():
            model.norm.copy_(kept)
    assert [s.reply.ids for s in before.samples] != [s.reply.ids for s in changed.samples]
    assert [s.reply.ids for s in before.samples] == [s.reply.ids for s in roll("coffee").rollout(0).samples]


def test_samples_of_a_prompt_differ_among_themselves(roll):
    samples = roll("coffee", temperature=2.0, group_size=6).rollout(0).samples
    assert len({sample.reply.ids for sample in samples}) > 3


def test_groups_that_earn_alike_are_left_out_and_counted(roll):
    rollout = roll("product", "greeting").rollout(0)
    counts = rollout_counts(rollout.sums)
    assert (counts["groups"], counts["same_reward"], counts["samples"], counts["passed"]) == (2, 2, 4, 4)
    assert counts["trained_samples"] == counts["trained_tokens"] == 0
    (only,) = rollout.batches
    assert len(only.supervised) == 0
    assert {ADVANTAGE, OLD_LOGP, REFERENCE_LOGP, ENTROPY} == only.extra.keys()


def test_groups_that_differ_are_trained_with_advantages_that_add_up_to_nothing(roll):
    rewards = (_ByTokens(kind="regex", pattern=""),)
    rollout = roll("coffee", "name", rewards=rewards, temperature=2.0, group_size=8, micro_samples=3, max_tokens=24,
                   truncated="penalise").rollout(0)  # fmt: skip
    by_task = {}
    for sample in rollout.samples:
        by_task.setdefault(sample.task.id or sample.task.prompt, []).append(sample)
    for group in by_task.values():
        assert sum(sample.advantage for sample in group) == pytest.approx(0, abs=1e-6)
    trained = [sample for sample in rollout.samples if sample.advantage]
    assert rollout.sums["trained_samples"] == len(trained) > 3
    assert [len(batch.documents.lengths) for batch in rollout.batches[:-1]] == [3] * (len(rollout.batches) - 1)
    assert sum(len(batch.supervised) for batch in rollout.batches) == rollout.sums["trained_tokens"]
    found = torch.cat([batch.extra[ADVANTAGE] for batch in rollout.batches])
    assert found.tolist() == pytest.approx([sample.advantage for sample in trained])


@pytest.mark.parametrize("policy", ["mask", "penalise"])
def test_answers_that_a_limit_cut_off_are_masked_or_earn_nothing(roll, policy):
    rewards = (_ByTokens(kind="regex", pattern=""),)
    rollout = roll("coffee", rewards=rewards, temperature=1.5, group_size=16, max_tokens=48, truncated=policy).rollout(
        0
    )
    cut = [sample for sample in rollout.samples if sample.reply.finish_reason == "length"]
    assert 0 < len(cut) == rollout_counts(rollout.sums)["truncated"] < 16
    trained = sum(sample.advantage != 0 for sample in rollout.samples)
    if policy == "mask":
        assert rollout.sums["trained_samples"] == sum(s.advantage != 0 and not s.truncated for s in rollout.samples)
        assert any(sample.scored.reward for sample in cut)
    else:
        assert rollout.sums["trained_samples"] == trained
        assert not any(sample.scored.reward for sample in cut)


def test_a_prompt_that_fills_the_context_is_left_out_and_counted(memorised):
    engine, _ = memorised
    long = Conversation((Message("user", "word " * 2000),), id="long")
    task = Task(PairPrompt(long, (AnswerNumber(kind="answer_number", value=1),)), source="known")
    settings = RolloutSettings(group_size=2, prompts_per_rollout=1)
    sources = [Source([task], (ChecksReward(kind="checks"),))]
    rollout = Rollouts(engine, engine.model, sources, settings, World()).rollout(0)
    assert rollout_counts(rollout.sums)["too_long"] == 1
    assert rollout.samples == []
    assert rollout_figures(rollout.sums)["reward"] == 0.0
    assert evaluate_tasks(engine, sources, settings, lambda sample: None) == {}


def test_figures_are_means_by_kind(roll):
    rewards = (ALWAYS.model_copy(update={"weight": 0.5}), ChecksReward(kind="checks"))
    figures = rollout_figures(roll("product", "greeting", rewards=rewards).rollout(0).sums)
    assert figures["reward/regex"] == 1.0
    assert figures["reward"] == pytest.approx(0.5 + figures["reward/checks"])
    assert figures["pass_rate"] == figures["pass_rate/checks"]
    assert figures["reward_std/regex"] == 0.0
    assert "reward/math" not in figures


def test_held_back_tasks_get_their_likeliest_answer(memorised):
    engine, conversations = memorised
    tasks = [Task(prompt_from_conversation(conversations[name])) for name in ("product", "greeting")]
    seen = []
    found = evaluate_tasks(engine, [Source(tasks, (ChecksReward(kind="checks"),))], RolloutSettings(), seen.append)
    assert found == {"held_back_reward": 1.0, "held_back_pass_rate": 1.0}
    assert [sample.reply.turn.answer for sample in seen] == ["12 * 3 = 36.", "Hello! How are you?"]
