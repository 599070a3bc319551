"""The engine as a service, against solo runs: whoever else is answered, cancelled or fails meanwhile."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.conversation.formats.wire import CallReady, TextDelta, ThinkDelta
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ToolError
from gradus.engine.batching import DecodeBatch
from gradus.engine.continuation import Beginning, Continued, continue_all
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.service import EngineService, Failed, QueueFullError, ServiceClosedError, ServiceEvent
from gradus.engine.turn import Done, PromptTooLongError, Reply, Request, ToolResult
from gradus.model.frozen import freeze
from gradus.model.transformer import Transformer, build_model
from gradus.tools.calculator import calculate
from gradus.tools.deadline import Deadline
from gradus.tools.toolbox import Tool, ToolBox

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]


def question(conversation: Conversation, **options: object) -> Request:
    """The conversation up to its last user message."""
    last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
    return Request(replace(conversation, messages=conversation.messages[: last + 1]), **options)  # type: ignore[arg-type]


class Heard:
    """The events of one request."""

    def __init__(self) -> None:
        self._events: queue.Queue[ServiceEvent] = queue.Queue()
        self.events: list[ServiceEvent] = []
        self.deliver = self._events.put

    def next(self) -> ServiceEvent:
        self.events.append(self._events.get(timeout=120))
        return self.events[-1]

    def last(self) -> ServiceEvent:
        while not isinstance(self.next(), Done | Continued | Failed):
            pass
        assert self._events.empty()
        return self.events[-1]

    def reply(self) -> Reply:
        last = self.last()
        assert isinstance(last, Done), last
        return last.reply


@pytest.fixture
def service(memorised: Memory) -> Iterator[EngineService]:
    service = EngineService(memorised[0], num_slots=3, max_waiting=40)
    yield service
    service.close()


def load_copy(model: Transformer, compute_dtype: torch.dtype) -> Transformer:
    """The same weights, made ready to decode in another dtype."""
    copy = build_model(model.config, torch.Generator(), compute_dtype=compute_dtype)
    copy.load_state_dict(model.state_dict())
    freeze(copy)
    return copy


def test_every_request_is_answered_as_alone_while_more_wait_than_there_are_slots(
    memorised: Memory, service: EngineService
) -> None:
    engine, known = memorised
    requests = [
        question(conversation, sampling=Sampling(temperature=heat, seed=seed), max_tokens=40)
        for seed, conversation in enumerate(known.values())
        for heat in (0.0, 2.5)
    ]
    alone = [engine.generate([request])[0] for request in requests]
    heard = [Heard() for _ in requests]
    for request, listener in zip(requests, heard, strict=True):
        service.submit(request, listener.deliver)
    assert [listener.reply() for listener in heard] == alone
    stats = service.stats()
    assert (stats.num_requests, stats.num_finished, stats.num_live, stats.num_waiting) == (10, 10, 0, 0)
    assert stats.num_sampled_tokens == sum(reply.num_tokens for reply in alone)
    assert stats.num_prompt_tokens == sum(reply.num_prompt_tokens for reply in alone)
    assert (stats.num_cancelled, stats.num_failed) == (0, 0)


def test_events_come_in_the_order_of_what_was_written(memorised: Memory, service: EngineService) -> None:
    engine, known = memorised
    heard = Heard()
    service.submit(question(known["product"]), heard.deliver)
    assert heard.reply() == engine.generate([question(known["product"])])[0]
    kinds = [type(event) for event in heard.events]
    assert kinds.index(ThinkDelta) < kinds.index(CallReady) < kinds.index(ToolResult) < kinds.index(TextDelta)


def test_tokens_are_gone_on_from_beside_conversations(memorised: Memory, service: EngineService) -> None:
    engine, known = memorised
    prompt = engine.open_turn(question(known["name"])).prompt_ids
    rule = Sampling(temperature=1.5, seed=2)
    beginnings = [
        Beginning(prompt, Sampling(), 30, stops=("<|im_end|>",), logprobs=1),
        Beginning(prompt, Sampling(), 30, until=(" Ada",)),
        Beginning(prompt, rule, 9),
    ]
    heard = [Heard() for _ in beginnings]
    for beginning, listener in zip(beginnings, heard, strict=True):
        service.submit(beginning, listener.deliver)
    ends = [listener.last() for listener in heard]
    texts = ["".join(e.text for e in listener.events if isinstance(e, TextDelta)) for listener in heard]
    assert texts == [end.text for end in ends if isinstance(end, Continued)]
    assert texts[:2] == ["You are Ada.", "You are"]
    assert texts == continue_all(engine.model, engine.tokenizer, beginnings)
    assert [end.finish_reason for end in ends if isinstance(end, Continued)] == ["stop", "stop", "length"]
    assert isinstance(ends[0], Continued)
    assert len(ends[0].logprobs) == ends[0].num_tokens
    with pytest.raises(PromptTooLongError):
        service.submit(Beginning([1] * 600, rule, 9), heard[0].deliver)


def test_a_cancelled_request_ends_and_leaves_its_slot_live_or_waiting(memorised: Memory) -> None:
    engine, known = memorised
    service = EngineService(engine, num_slots=1, max_waiting=3)
    live, waiting, later = Heard(), Heard(), Heard()
    # Hot enough to ramble on until the context is full.
    endless = question(known["greeting"], sampling=Sampling(temperature=9.0, seed=3), max_tokens=10_000)
    ticket = service.submit(endless, live.deliver)
    live.next()
    second = service.submit(endless, waiting.deliver)
    service.submit(question(known["name"]), later.deliver)
    second.cancel()
    assert waiting.reply().finish_reason == "cancelled"
    ticket.cancel()
    ticket.cancel()
    partial = live.reply()
    assert partial.finish_reason == "cancelled"
    assert 0 < partial.num_tokens < 400
    assert later.reply().turn.messages[-1].content == "You are Ada."
    service.close()


def test_a_full_queue_a_long_prompt_and_a_closed_service_refuse_at_once(memorised: Memory) -> None:
    engine, known = memorised
    service = EngineService(engine, num_slots=1, max_waiting=1)
    gate = threading.Event()
    held = Heard()

    def hold(event: ServiceEvent) -> None:
        gate.wait(120)
        held.deliver(event)

    service.submit(question(known["product"]), hold)
    while service.stats().num_waiting:
        pass
    waiting = Heard()
    service.submit(question(known["name"]), waiting.deliver)
    with pytest.raises(QueueFullError, match="1 requests wait for one of 1 slots, as many as may"):
        service.submit(question(known["name"]), waiting.deliver)
    gate.set()
    assert held.reply().finish_reason == waiting.reply().finish_reason == "stop"
    with pytest.raises(PromptTooLongError):
        service.submit(Request(Conversation((Message("user", "why " * 5000),))), held.deliver)
    service.close()
    with pytest.raises(ServiceClosedError, match="shutting down"):
        service.submit(question(known["name"]), waiting.deliver)


def test_without_a_queue_free_slots_are_still_to_be_had(memorised: Memory) -> None:
    engine, known = memorised
    service = EngineService(engine, num_slots=2, max_waiting=0)
    heard = [Heard(), Heard()]
    for listener in heard:  # the second comes before the thread has looked at the first, or after
        service.submit(question(known["product"]), listener.deliver)
    assert [listener.reply().finish_reason for listener in heard] == ["stop", "stop"]
    service.close()


def test_no_parameter_of_one_request_ends_the_others(memorised: Memory, service: EngineService) -> None:
    engine, known = memorised
    beside, odd = Heard(), Heard()
    service.submit(question(known["product"]), beside.deliver)
    service.submit(question(known["name"], sampling=Sampling(temperature=1.0, top_k=10**30), max_tokens=3), odd.deliver)
    assert beside.reply() == engine.generate([question(known["product"])])[0]
    assert odd.reply() == engine.generate(
        [question(known["name"], sampling=Sampling(temperature=1.0, top_k=engine.tokenizer.vocab_size), max_tokens=3)]
    )[0]  # fmt: skip


def test_an_engine_that_cannot_go_on_tells_everybody_and_takes_no_more(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, known = memorised
    service = EngineService(engine, num_slots=1)
    gate = threading.Event()
    held, waiting = Heard(), Heard()

    def hold(event: ServiceEvent) -> None:
        gate.wait(120)
        held.deliver(event)

    def broken(*given: object, **more: object) -> None:
        raise RuntimeError("the device is gone")

    service.submit(question(known["product"]), hold)
    service.submit(question(known["name"]), waiting.deliver)
    monkeypatch.setattr(Transformer, "decode", broken)
    monkeypatch.setattr(service, "_new_batch", broken)
    gate.set()
    for listener in (held, waiting):
        last = listener.last()
        assert isinstance(last, Failed)
        assert "the device is gone" in str(last.error)
    assert service.is_broken
    with pytest.raises(ServiceClosedError, match="the engine broke \\(RuntimeError\\)"):
        service.submit(question(known["name"]), waiting.deliver)
    assert (service.stats().num_failed, service.stats().num_live) == (2, 0)
    service.close()


def test_closing_waits_for_what_was_taken_and_cancels_what_is_late(memorised: Memory) -> None:
    engine, known = memorised
    heard = [Heard() for _ in range(5)]
    service = EngineService(engine, num_slots=2)
    for listener in heard:
        service.submit(question(known["product"]), listener.deliver)
    service.close(drain_seconds=120)
    assert {listener.reply().finish_reason for listener in heard} == {"stop"}
    service = EngineService(engine, num_slots=1)
    for listener in (heard := [Heard() for _ in range(9)]):
        service.submit(question(known["product"]), listener.deliver)
    service.close()
    assert heard[-1].reply().finish_reason == "cancelled"


def test_what_fails_in_one_request_ends_that_one_and_in_the_model_all_that_are_live(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, known = memorised
    service = EngineService(engine, num_slots=3)

    def broken(event: ServiceEvent) -> None:
        raise RuntimeError("nobody there")

    monkeypatch.setattr(engine.toolbox, "start", lambda calls, *_: 1 / 0)
    bad, deaf, good = Heard(), Heard(), Heard()
    service.submit(question(known["product"]), bad.deliver)
    service.submit(question(known["name"]), broken)
    service.submit(question(known["name"]), good.deliver)
    assert good.reply().turn.messages[-1].content == "You are Ada."
    failed = bad.last()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ZeroDivisionError)
    assert any(isinstance(event, CallReady) for event in bad.events)  # what was said before is told before

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "decode", out_of_memory)
        for listener in (bad, deaf):
            service.submit(question(known["coffee"]), listener.deliver)
        for listener in (bad, deaf):
            failed = listener.last()
            assert isinstance(failed, Failed)
            assert "out of memory" in str(failed.error)
    service.submit(question(known["name"]), good.deliver)
    assert good.reply().turn.messages[-1].content == "You are Ada."
    assert service.stats().num_failed == 4
    service.close()


def slow_engine(engine: Engine, answer: Callable[[Mapping[str, Any], Deadline], str], timeout_seconds: float) -> Engine:
    """The same model with a calculator of another kind, in threads of its own."""
    tools = ToolBox({CALCULATOR.name: Tool(CALCULATOR, answer, timeout_seconds)})
    return Engine(engine.model, engine.tokenizer, engine.form, tools)


def test_others_go_on_while_calls_run_side_by_side_and_late_results_are_told_as_such(memorised: Memory) -> None:
    engine, known = memorised
    gate = threading.Event()
    started = threading.Semaphore(0)

    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        started.release()
        gate.wait(120)
        return calculate(arguments["expression"])

    service = EngineService(slow_engine(engine, answer, 120.0), num_slots=3)
    two, other, given_up = Heard(), Heard(), Heard()
    service.submit(question(known["two"]), two.deliver)
    ticket = service.submit(question(known["product"]), given_up.deliver)
    for _ in range(3):  # both calls of one message and the other's, none of which is answered yet
        assert started.acquire(timeout=120)
    service.submit(question(known["name"]), other.deliver)
    assert other.reply().turn.messages[-1].content == "You are Ada."
    steps = service.stats().num_sampled_tokens
    ticket.cancel()
    assert given_up.reply().finish_reason == "cancelled"
    assert service.stats().num_sampled_tokens == steps  # nobody took a step
    gate.set()
    assert two.reply() == engine.generate([question(known["two"])])[0]
    service.close()

    hanging = threading.Event()
    service = EngineService(slow_engine(engine, lambda *_: str(hanging.wait(120)), 0.05), num_slots=2)
    service.submit(question(known["product"]), other.deliver)
    late = other.reply()
    assert late.turn.messages[1].content == "error: it took longer than 0.05 s"
    assert late.turn.messages[2].role == "assistant"
    hanging.set()
    service.close()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_clients_that_come_go_call_and_leave_at_random_hear_what_they_would_hear_alone(
    memorised: Memory, seed: int
) -> None:
    """Conversations with calls, thinking under a budget, hot ones, stop strings, constraints; in any order."""
    engine, known = memorised
    draw = random.Random(seed)

    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        time.sleep(draw.choice([0.0, 0.01]))
        try:
            return calculate(arguments["expression"]) + "=" * 40  # long enough to be read as a chunk
        except KeyError as error:
            raise ToolError("no expression") from error

    slow = slow_engine(engine, answer, 120.0)
    system = Message("system", "Be brief. " * 30)  # a beginning of several chunks that many share

    def request(number: int) -> Request:
        one = random.Random(number)
        conversation = one.choice(list(known.values()))
        if one.random() < 0.6:
            conversation = replace(conversation, messages=(system, *conversation.messages))
        return question(
            conversation,
            sampling=Sampling(temperature=one.choice([0.0, 1.0, 2.5]), seed=number),
            max_tokens=one.choice([5, 30, 60]),
            think_budget=one.choice([None, 3]),
            stop=one.choice([(), ("you", "a")]),
            constrain=one.choice([None, None, "calls", "turn"]),
        )

    solo: dict[int, Reply] = {}
    service = EngineService(slow, num_slots=5, prefix_bytes=0)
    for number in range(24):
        heard = Heard()
        service.submit(request(number), heard.deliver)
        solo[number] = heard.reply()
    service.close()
    service = EngineService(slow, num_slots=5)
    clients: list[tuple[int, Heard, bool]] = []
    for number in draw.sample(range(24), 24) * 2:
        heard, leaves = Heard(), draw.random() < 0.2
        ticket = service.submit(request(number), heard.deliver)
        clients.append((number, heard, leaves))
        if draw.random() < 0.5:
            time.sleep(draw.random() * 0.02)
        if leaves:
            ticket.cancel()
    for number, heard, leaves in clients:
        reply = heard.reply()
        if leaves and reply.finish_reason == "cancelled":
            assert reply.ids == solo[number].ids[: len(reply.ids)]
        else:
            assert reply == solo[number]
    stats = service.stats()
    assert (stats.num_live, stats.num_waiting, stats.num_failed) == (0, 0, 0)
    assert stats.num_cached_tokens > 500
    service.close()


@pytest.mark.parametrize("compute_dtype", [torch.float32, torch.bfloat16])
def test_the_next_turn_of_a_conversation_finds_what_was_read_and_in_narrow_sums_what_was_answered(
    memorised: Memory, compute_dtype: torch.dtype
) -> None:
    engine = memorised[0]
    model = load_copy(engine.model, compute_dtype)
    service = EngineService(Engine(model, engine.tokenizer, engine.form, engine.toolbox), num_slots=2)
    rule = Sampling(temperature=9.0, seed=1)

    def answered(prompt: list[int], **options: str) -> tuple[list[int], int]:
        """The tokens of an answer, and how many of the prompt were found."""
        heard = Heard()
        ticket = service.submit(Beginning(prompt, rule, 150, stops=(), logprobs=0), heard.deliver, **options)
        end = heard.last()
        assert isinstance(end, Continued)
        return [one.token for one in end.logprobs], ticket.num_cached_tokens

    first = [7] * 100
    reply, found = answered(first)
    assert (len(reply), found) == (150, 0)
    second = [*first, *reply, *[9] * 70]
    # 250 tokens were there, of which the last one sampled was never read; 64 of the prompt were read at once.
    assert answered(second)[1] == (64 if compute_dtype == torch.float32 else 192)
    assert answered(second)[1] == 256
    assert answered(second, account="another")[1] == 0
    # In another slot, where blocks are copied, as in the one that kept them.
    alone, found = answered(second, account="another")
    ticket = service.submit(Beginning([3], rule, 400, stops=()), Heard().deliver)
    assert (answered(second, account="another"), found) == ((alone, 256), 256)
    ticket.cancel()
    service.close()


def test_an_exact_service_that_nobody_asks_reads_its_answers_for_the_next_turn(memorised: Memory) -> None:
    service = EngineService(memorised[0], num_slots=2)
    hot = Sampling(temperature=9.0, seed=1)
    heard = Heard()
    service.submit(Request(Conversation((Message("user", "hello"),)), sampling=hot, max_tokens=200), heard.deliver)
    reply = heard.reply()
    asked = Beginning([*reply.prompt_ids, *reply.ids, *[9] * 70], hot, 10, stops=(), logprobs=1)
    assert len(reply.prompt_ids) < 64 < 192 < len(asked.ids) - 70
    limit = time.monotonic() + 120
    while service.stats().prefix_bytes < 3 * 64 * 2 * 2 * 32 * 4 and time.monotonic() < limit:
        time.sleep(0.01)
    ends = []
    for account in ("", "another"):  # the latter finds nothing
        ticket = service.submit(asked, heard.deliver, account)
        ends.append(heard.last())
        assert (ticket.num_cached_tokens >= 192) == (account == "")
    assert ends[0] == ends[1]
    service.close()


def test_a_service_that_keeps_nothing_reads_no_answer_again(memorised: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    enter = DecodeBatch.enter
    monkeypatch.setattr(DecodeBatch, "enter", lambda *given: entered.append(given[2]) or enter(*given))
    service = EngineService(memorised[0], num_slots=2, prefix_bytes=0)
    request = Request(Conversation((Message("user", "hello"),)), sampling=Sampling(temperature=9.0), max_tokens=200)
    for account in ("ada", "bob"):
        heard = Heard()
        service.submit(request, heard.deliver, account)
        heard.reply()
        time.sleep(0.1)
    service.close()
    assert entered == ["ada", "bob"]


def test_slots_that_grew_give_their_memory_back_when_nobody_asks_for_long(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradus.engine.service.IDLE_SECONDS", 0.05)
    service = EngineService(memorised[0], num_slots=2)
    before = service.stats().cache_bytes
    asked = Beginning([7] * 300, Sampling(), 5, stops=())
    ends = []
    for number_found in (0, 256):
        heard, meanwhile = Heard(), []

        def deliver(event: ServiceEvent, heard: Heard = heard, meanwhile: list[int] = meanwhile) -> None:
            meanwhile.append(service.stats().cache_bytes)
            heard.deliver(event)

        ticket = service.submit(asked, deliver)
        ends.append(heard.last())
        assert meanwhile[-1] > before
        assert ticket.num_cached_tokens == number_found
        limit = time.monotonic() + 120
        while service.stats().cache_bytes > before and time.monotonic() < limit:
            time.sleep(0.01)
        assert service.stats().cache_bytes == before
    assert ends[0] == ends[1]
    service.close()


def test_nothing_is_done_over_and_over_while_calls_run_and_an_answer_waits_to_be_read_again(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, known = memorised
    gate, started = threading.Event(), threading.Event()

    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        started.set()
        gate.wait(120)
        return calculate(arguments["expression"])

    steps: list[int] = []
    step = DecodeBatch.step
    monkeypatch.setattr(DecodeBatch, "step", lambda batch: steps.append(1) or step(batch))
    service = EngineService(slow_engine(engine, answer, 120.0), num_slots=2)
    calling, other = Heard(), Heard()
    service.submit(question(known["product"]), calling.deliver)
    assert started.wait(120)
    service.submit(question(known["name"]), other.deliver)
    other.reply()
    time.sleep(0.1)
    before = len(steps)
    time.sleep(0.2)
    assert len(steps) - before < 5
    gate.set()
    calling.reply()
    service.close()
