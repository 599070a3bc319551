"""Asking a model conversations whose calls act on simulated services: round by round, many conversations at once.

In every round each conversation that is under way gets one answer of the model. An answer with calls is followed by
what these give, one without by the user's next turn. Conversations share no state, so that each can be kept as it ends
and does not depend on what else is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradus.conversation.messages import Conversation, Message
from gradus.core.fingerprint import digest
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.eval.benchmarks import BenchmarkSettings
from gradus.eval.bfcl_multi_turn import MOST_ROUNDS, Dialogue
from gradus.eval.bfcl_services import Call, CallTooMuchError, Services
from gradus.eval.generative import ACC
from gradus.eval.generative_result import NO_ROOM, Answer

_DOES_NOT_FIT = "the conversation does not fit into the context"


@dataclass
class _UnderWay:
    """A conversation so far.

    answers: of each turn begun, the calls of each answer that had any; shown: calls with their results, for the record.
    """

    dialogue: Dialogue
    seeds: tuple[Any, ...]
    messages: list[Message] = field(default_factory=list)
    answers: list[list[list[Call]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    num_tokens: int = 0
    finish_reason: str = "stop"

    def begin_turn(self) -> None:
        self.messages += self.dialogue.turns[len(self.answers)]
        self.answers.append([])

    @property
    def calls(self) -> list[Call]:
        return [call for turn in self.answers for answer in turn for call in answer]

    def request(self, settings: BenchmarkSettings) -> Request:
        turn = len(self.answers) - 1
        seed = random_seed(*self.seeds, turn, len(self.answers[turn]))
        return Request(
            Conversation(tuple(self.messages), self.dialogue.tools[turn]),
            think=settings.think,
            sampling=Sampling(temperature=settings.temperature, seed=seed),
            max_tokens=settings.max_tokens,
            max_calls=0,  # they are run here
        )

    def take(self, reply: Reply, services: Services) -> bool:
        """Hear an answer; whether the conversation goes on. Errors: ServicesError, CallTooMuchError."""
        turn = reply.turn
        self.messages += turn.messages
        self.num_tokens += reply.num_tokens
        self.finish_reason = turn.finish_reason
        self.thinking += [turn.thinking] if turn.thinking else []
        if not turn.calls:
            self.texts.append(turn.answer)
            if len(self.answers) == len(self.dialogue.turns):
                return False
            self.begin_turn()
            return True
        self.answers[-1].append([{"name": call.name, "arguments": call.arguments} for call in turn.calls])
        results = services.results(self.dialogue.scenario, self.calls)[-len(turn.calls) :]
        for call, result in zip(turn.calls, results, strict=True):
            self.messages.append(Message("tool", result, tool_call_id=call.id))
            told = {"turn": len(self.answers), "name": call.name, "arguments": call.arguments, "result": result}
            self.shown.append(told)
        return len(self.answers[-1]) <= MOST_ROUNDS

    def judged(self, services: Services) -> Answer:
        """What came of it. Errors: ServicesError, CallTooMuchError."""
        return self.ended(services.fault(self.dialogue.scenario, self.answers, self.dialogue.rights))

    def ended(self, fault: str | None) -> Answer:
        text, thinking = "\n\n".join(self.texts), "\n\n".join(self.thinking)
        return Answer(text, thinking, self.finish_reason, self.num_tokens, {ACC: fault}, tuple(self.shown))


def ask_dialogues(
    engine: Engine,
    dialogues: Mapping[int, tuple[tuple[Any, ...], Dialogue]],
    settings: BenchmarkSettings,
    keep: Callable[[dict[int, Answer]], None],
) -> None:
    """Hold conversations; `keep` gets what came of them, by their numbers, as they end.

    dialogues: each with what tells its random stream from others'. What does not fit into the context ends a
    conversation, which is then not right, and so does a call that is too much for the services. Errors: ServicesError.
    """
    waiting = list(dialogues.items())[::-1]
    under_way: dict[int, _UnderWay] = {}
    with Services() as services:
        while waiting or under_way:
            while waiting and len(under_way) < engine.max_batch:
                number, (seeds, dialogue) = waiting.pop()
                under_way[number] = _UnderWay(dialogue, seeds)
                under_way[number].begin_turn()
            ended: dict[int, Answer] = {}
            requests: dict[int, Request] = {}
            for number, found in under_way.items():
                requests[number] = found.request(settings)
                try:
                    engine.check(requests[number])
                except PromptTooLongError:
                    del requests[number]
                    found.finish_reason = NO_ROOM
                    ended[number] = found.ended(_DOES_NOT_FIT)
            replies = engine.generate(list(requests.values()))
            for number, reply in zip(requests, replies, strict=True):
                found = under_way[number]
                try:
                    if not found.take(reply, services):
                        ended[number] = found.judged(services)
                except CallTooMuchError as error:
                    ended[number] = found.ended(str(error))
            under_way = {number: found for number, found in under_way.items() if number not in ended}
            keep(ended)


def random_seed(*parts: Any) -> int:
    """Of the random stream of an answer: the same wherever and beside whatever it is asked."""
    return int(digest(list(parts))[:16], 16)
