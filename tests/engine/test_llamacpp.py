"""llama.cpp behind the engine (make test-peers): the same replies as our own model gives, token by token in fp32."""

import random
from dataclasses import replace

import pytest
import torch

from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import GenerationError
from gradus.engine import llamacpp, llamacpp_library
from gradus.engine.continuation import Beginning, continue_all
from gradus.engine.engine import Engine
from gradus.engine.llamacpp import LlamaCppModel
from gradus.engine.sampling import Sampling
from gradus.engine.service import EngineService
from gradus.engine.turn import Done, Request
from gradus.model.portable import portable_form

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed (make test-peers)")
pytest.importorskip("gguf", reason="gguf is not installed (make test-peers)")
from gradus.release.gguf_file import write_gguf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def both(memorised, tmp_path_factory):
    """(our engine, one on llama.cpp with the same weights, the conversations that both know by heart)."""
    engine, known = memorised
    file = tmp_path_factory.mktemp("gguf") / "memorised.gguf"
    write_gguf(file, portable_form(engine.model), engine.tokenizer, "f32", "memorised")
    other = Engine(LlamaCppModel(file), engine.tokenizer, engine.form, engine.toolbox, engine.max_batch)
    return engine, other, known


def question(conversation, **options):
    """The conversation up to its last user message."""
    last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
    return Request(replace(conversation, messages=conversation.messages[: last + 1]), **options)


def streamed(engine, request):
    *events, done = engine.stream(request)
    assert isinstance(done, Done)
    return done.reply, events


def without_logprobs(reply):
    return replace(reply, logprobs=())


def test_fifty_prompts_are_answered_as_by_our_own_model(both):
    ours, theirs, known = both
    draw = random.Random(0)
    words = [word for c in known.values() for message in c.messages for word in message.content.split()]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(50)]
    requests = [Request(Conversation((Message("user", text),)), max_tokens=40) for text in texts]
    assert theirs.generate(requests) == ours.generate(requests)


def test_calls_thinking_stops_constraints_and_draws_are_ours(both):
    ours, theirs, known = both
    hot = Sampling(temperature=1.5, top_p=0.9, repetition_penalty=1.1)
    requests = [question(conversation, logprobs=2) for conversation in known.values()]
    requests += [
        question(conversation, sampling=hot.model_copy(update={"seed": seed}), max_tokens=60, think_budget=3)
        for seed, conversation in enumerate(known.values())
    ]
    requests.append(question(known["greeting"], stop=("are",)))
    requests.append(question(known["product"], sampling=hot, constrain="turn", max_tokens=60))
    requests.append(question(known["two"], sampling=hot, must_call=True, single_call=True, max_calls=1, max_tokens=90))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"enum": ["a", "b"]}}, "required": ["n"]}
    requests.append(question(known["coffee"], sampling=hot, answer_schema=schema, think_budget=5, max_tokens=90))
    expected, found = ours.generate(requests), theirs.generate(requests)
    assert [without_logprobs(reply) for reply in found] == [without_logprobs(reply) for reply in expected]
    told = [
        [[one.logprob for reply in side for one in reply.logprobs] for side in (expected, found)],
        [[best[1] for reply in side for one in reply.logprobs for best in one.top] for side in (expected, found)],
    ]
    for mine, other in told:
        torch.testing.assert_close(torch.tensor(other), torch.tensor(mine), rtol=1e-4, atol=1e-4)
    for request, reply in zip(requests, expected, strict=True):
        mine, heard = streamed(ours, request), streamed(theirs, request)
        assert heard[1] == mine[1]
        assert without_logprobs(heard[0]) == without_logprobs(reply)


def test_tokens_are_gone_on_from_behind_a_beginning_that_all_share(both):
    ours, theirs, _ = both
    shared = ours.tokenizer.encode("Both: They are 2 and 4, 8 together. " * 4)
    beginnings = [
        Beginning([*shared, *ours.tokenizer.encode(f"{number} café")], Sampling(), max_tokens=20)
        for number in range(20)
    ]
    assert continue_all(theirs.decoder, theirs.tokenizer, beginnings) == continue_all(
        ours.decoder, ours.tokenizer, beginnings
    )


def test_requests_join_and_leave_in_company_and_the_next_turn_is_not_read_again(both, monkeypatch):
    ours, theirs, known = both
    monkeypatch.setattr(llamacpp, "_FIRST_ROOM", 32)  # so that room grows under way
    monkeypatch.setattr(llamacpp_library, "_CELLS", 32)
    requests = [question(conversation, max_tokens=m) for m in (5, 60) for conversation in known.values()] * 2
    expected = ours.generate(requests)
    service = EngineService(theirs, num_slots=3, max_waiting=40)
    room_bytes = service.stats().cache_bytes
    try:
        heard = [[] for _ in requests]
        tickets = [service.submit(request, events.append) for request, events in zip(requests, heard, strict=True)]
        service.close(drain_seconds=60)
    finally:
        service.close()
    assert [events[-1].reply for events in heard] == expected
    assert sum(ticket.num_cached_tokens for ticket in tickets) > 0
    assert service.stats().cache_bytes > room_bytes

    first = question(known["product"])
    reply, _ = streamed(theirs, first)
    messages = (*first.conversation.messages, *reply.turn.messages, Message("user", "hello"))
    again = replace(first, conversation=replace(first.conversation, messages=messages))
    turn = theirs.open_turn(again)
    batch = llamacpp.LlamaCppSlots(theirs.decoder, 1)
    _, found = batch.prefill(0, [turn.prompt_ids])
    assert found[0] > len(reply.prompt_ids)  # what it answered is found too
    batch.leave(0)
    assert batch.open(0, turn.prompt_ids, "another account") == 0
    del batch
    assert streamed(theirs, again)[0].ids == streamed(ours, again)[0].ids


def test_what_it_cannot_do_is_refused_by_name(both, tmp_path):
    _, theirs, _ = both
    with pytest.raises(GenerationError, match=r"llama\.cpp answers, and does not score texts here"):
        _ = theirs.model
    with pytest.raises(GenerationError, match="at most 255 at once, found 1000 slots"):
        EngineService(theirs, num_slots=1000)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(GenerationError, match=r"does not load bad.gguf: \S"):
        LlamaCppModel(tmp_path / "bad.gguf")
