"""Asking a model MT-bench and having a judge rate it; answers survive interruptions in a journal, judgements are kept.

Answers are drawn at the temperature of their category, unless the settings name one for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path

from gradus.conversation.messages import Conversation, Message
from gradus.core.fingerprint import digest
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Request
from gradus.eval.benchmarks import BenchmarkSettings
from gradus.eval.generative_result import NO_ROOM
from gradus.eval.generative_run import fits
from gradus.eval.journal import Journal, SharedWork
from gradus.eval.judging import LOWEST, JudgeModel, Rating
from gradus.eval.mt_bench import MT_BENCH, TEMPERATURES, TURNS, MtQuestion, judge_prompts, mt_bench_questions
from gradus.eval.mt_bench_result import MtAnswer, MtBenchResult, MtItem
from gradus.train.parallel import World

_LOT = 16  # questions that are answered at once, and then kept


def run_mt_bench(
    engine: Engine,
    settings: BenchmarkSettings,
    *,
    label: str = "",
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MtBenchResult:
    """Arguments as of `run_tasks`; the settings name a judge. Errors: as of `run_tasks` and of `JudgeModel.ratings`."""
    assert settings.judge is not None
    began = time.monotonic()
    questions = mt_bench_questions(settings.folder, settings.subset)
    asked = digest([[asdict(question) for question in questions], settings.decoding()])
    journal = Journal(journals, digest([identity, asked])) if journals is not None else None
    writing = SharedWork(len(questions), journal, world)
    for begin in range(0, len(writing.todo), _LOT):
        found = _answered(engine, {n: questions[n] for n in writing.todo[begin : begin + _LOT]}, settings)
        writing.keep({n: [astuple(answer) for answer in both] for n, both in found.items()})
    answers = [tuple(MtAnswer(*answer) for answer in both) for both in writing.everything()]
    # Judgements are kept by what was asked, in a file of their own.
    rating = SharedWork(len(questions), world=world)
    rated = _rated({n: questions[n] for n in rating.todo}, answers, settings.judge, on_progress)
    rating.keep({n: [astuple(answer) for answer in both] for n, both in rated.items()})
    items = tuple(
        MtItem(question, tuple(MtAnswer(*answer) for answer in both))
        for question, both in zip(questions, rating.everything(), strict=True)
    )
    how = settings.chosen() | {"judge": settings.judge.settings.model} | settings.decoding()
    return MtBenchResult(MT_BENCH, label, items, asked, round(time.monotonic() - began, 3), how)


def _answered(
    engine: Engine, questions: Mapping[int, MtQuestion], settings: BenchmarkSettings
) -> dict[int, tuple[MtAnswer, ...]]:
    """Both answers to each question; one that does not fit into the context is empty, and so is what follows it."""
    conversations = {number: Conversation(()) for number in questions}
    found: dict[int, list[MtAnswer]] = {number: [] for number in questions}
    for turn in range(TURNS):
        requests: dict[int, Request] = {}
        for number, question in questions.items():
            messages = (*conversations[number].messages, Message("user", question.turns[turn]))
            request = _request(question, turn, Conversation(messages), settings)
            if any(answer.finish_reason == NO_ROOM for answer in found[number]) or not fits(engine, request):
                found[number].append(MtAnswer("", NO_ROOM))
            else:
                requests[number] = request
        replies = engine.generate(list(requests.values()))
        for (number, request), reply in zip(requests.items(), replies, strict=True):
            found[number].append(MtAnswer(reply.turn.answer, reply.finish_reason))
            conversations[number] = Conversation((*request.conversation.messages, *reply.turn.messages))
    return {number: tuple(answers) for number, answers in found.items()}


def _request(question: MtQuestion, turn: int, conversation: Conversation, settings: BenchmarkSettings) -> Request:
    stream = int(digest([settings.seed, question.id, turn])[:16], 16)
    return Request(
        conversation,
        think=settings.think,
        tools=settings.tools or None,
        sampling=Sampling(temperature=settings.temperature or TEMPERATURES[question.category], seed=stream),
        max_tokens=settings.max_tokens,
    )


def _rated(
    questions: Mapping[int, MtQuestion],
    answers: Sequence[Sequence[MtAnswer]],
    judge: JudgeModel,
    on_progress: Callable[[int, int], None] | None,
) -> dict[int, tuple[MtAnswer, ...]]:
    """The answers with their ratings; one that found no room has the lowest without being shown to the judge."""
    places, prompts = [], []
    for number, question in questions.items():
        shown = judge_prompts(question, [answer.text for answer in answers[number]])
        for turn, prompt in enumerate(shown):
            if answers[number][turn].finish_reason != NO_ROOM:
                places.append((number, turn))
                prompts.append(prompt)
    told = None if on_progress is None else lambda done, total: on_progress(done // TURNS, total // TURNS)
    ratings = dict(zip(places, judge.ratings(prompts, told), strict=True))
    unasked = Rating(LOWEST, "not asked: the conversation did not fit into the context")
    found = {}
    for number in questions:
        rated = [ratings.get((number, turn), unasked) for turn in range(TURNS)]
        found[number] = tuple(
            replace(answer, rating=rating.value, judgement=rating.text)
            for answer, rating in zip(answers[number], rated, strict=True)
        )
    return found
