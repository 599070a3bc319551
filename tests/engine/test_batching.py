"""Continuous batching against a full forward pass for every token."""

from collections import deque

import pytest
import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from gradus.engine.batching import DecodeBatch
from gradus.engine.decoding import decode_streams
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import Sampling, sample, sampling_batch
from gradus.model.batch import Documents
from gradus.model.config import ModelConfig
from gradus.model.transformer import Transformer, build_model

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 60
CONTEXT = 160


def small_model(num_kv_heads: int = 2) -> Transformer:
    """Random weights of a scale that makes every past token matter to the next."""
    config = ModelConfig(
        depth=3,
        width=32,
        num_heads=2,
        num_kv_heads=num_kv_heads,
        head_dim=16,
        mlp_width=64,
        vocab_size=VOCAB,
        context=CONTEXT,
    )
    model = build_model(config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


class Stream:
    """A stream that stops after `length` tokens; forced: {number of sampled tokens: tokens to force then}."""

    def __init__(
        self,
        prompt: list[int],
        length: int,
        sampling: Sampling | None = None,
        forced: dict[int, list[int]] | None = None,
    ) -> None:
        self.prompt_ids = prompt
        self.sampling = sampling or Sampling()
        self.plan = forced or {}
        self.length = length
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = self.num_cached_tokens = 0
        self.out: list[int] = []
        self.ran_out = False
        self.num_logprobs: int | None = None
        self.logprobs: list[TokenLogprobs | None] = []

    def waits(self) -> bool:
        return False

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self.logprobs.append(logprobs)
        self.out.append(token)
        self.num_sampled += 1
        self.forced.extend(self.plan.get(self.num_sampled, []))
        self.finished = self.num_sampled >= self.length

    def run_out(self) -> None:
        self.ran_out = self.finished = True


@torch.no_grad()
def slow_tokens(model: Transformer, stream: Stream) -> list[int]:
    """The same by a full pass over the whole sequence for each token."""
    sequence, out = list(stream.prompt_ids), []
    while len(out) < stream.length:
        hidden = model(torch.tensor(sequence), Documents.of_lengths([len(sequence)]))
        logits = model.head(hidden[-1:])
        out.append(int(sample(logits, sampling_batch([stream.sampling], VOCAB, logits.device), [len(out)])))
        sequence += [out[-1], *stream.plan.get(len(out), [])]
    return out


def run(model: Transformer, streams: list[Stream], num_slots: int) -> None:
    run_batch(DecodeBatch(model, num_slots, VOCAB), streams)


def run_batch(batch: DecodeBatch, streams: list[Stream]) -> None:
    waiting = list(streams)
    while waiting or batch.num_live:
        if waiting and batch.num_free:
            batch.join([waiting.pop(0) for _ in range(min(batch.num_free, len(waiting)))])
        batch.step()


def mixed_streams() -> list[Stream]:
    generator = torch.Generator().manual_seed(1)
    streams = []
    for i in range(11):
        prompt = torch.randint(0, VOCAB, (1 + 3 * i,), generator=generator).tolist()
        rule = Sampling(temperature=1.0, top_k=20 if i % 3 == 0 else None, seed=i) if i % 2 else Sampling()
        forced = {2: [5, 6, 7, 8], 4: [1]} if i % 4 == 1 else {}
        streams.append(Stream(prompt, 3 + (7 * i) % 13, rule, forced))
    return streams


@pytest.mark.parametrize("num_kv_heads", [1, 2])
@pytest.mark.parametrize("num_slots", [1, 4, 16])
def test_batched_decoding_equals_a_full_pass_for_every_token(num_slots: int, num_kv_heads: int) -> None:
    model = small_model(num_kv_heads)
    streams = mixed_streams()
    run(model, streams, num_slots)
    for stream in streams:
        assert stream.out == slow_tokens(model, stream)


def test_a_stream_ends_when_its_context_is_full() -> None:
    model = small_model()
    stream = Stream(list(range(20)), length=1000)
    run(model, [stream, Stream([1, 2], length=4)], num_slots=2)
    assert stream.ran_out
    # The last sampled token needs no position of its own.
    assert len(stream.out) == CONTEXT - 20 + 1
    assert stream.out == slow_tokens(model, Stream(list(range(20)), len(stream.out)))[: len(stream.out)]


def test_a_stream_may_finish_on_the_token_of_its_prefill() -> None:
    model = small_model()
    batch = DecodeBatch(model, 3, VOCAB)
    short, long = Stream([1, 2, 3], length=1), Stream([4, 5], length=3)
    assert batch.join([short, long]) == [short]
    assert batch.num_live == 1
    assert batch.step() == []
    assert batch.step() == [long]
    assert long.out == slow_tokens(model, long)


def test_no_streams_need_no_decoding_whatever_the_model_attends_to() -> None:
    windowed = small_model().config.model_copy(update={"window_pattern": "SL", "window": 8})
    assert not windowed.attends_to_all_alone
    model = build_model(windowed, torch.Generator().manual_seed(0))
    assert list(decode_streams(model, [], VOCAB)) == []


def test_tokens_beyond_the_tokenizer_are_never_sampled() -> None:
    model = small_model()
    batch = DecodeBatch(model, 1, vocab_size=7)
    stream = Stream([1], length=50, sampling=Sampling(temperature=5.0))
    batch.join([stream])
    while batch.num_live:
        batch.step()
    assert max(stream.out) < 7


def test_long_prompts_are_prefilled_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradus.engine.batching.PREFILL_TOKENS", 40)
    model = small_model()
    streams = mixed_streams()
    run(model, streams, 11)
    for stream in streams:
        assert stream.out == slow_tokens(model, stream)


def test_repetition_is_penalised_as_over_the_whole_sequence() -> None:
    """Against a full pass for each token and transformers' processor over prompt, forced and sampled tokens."""
    model = small_model()
    for rule in (Sampling(repetition_penalty=1.6), Sampling(temperature=1.0, repetition_penalty=1.6, seed=4)):
        stream = Stream([3, 1, 4, 1, 5], 20, rule, forced={2: [9, 9, 8]})
        run(model, [Stream([7, 7], 9), stream, Stream([1, 2, 3], 30)], num_slots=2)
        sequence, out = [3, 1, 4, 1, 5], []
        while len(out) < 20:
            with torch.no_grad():
                logits = model.head(model(torch.tensor(sequence), Documents.of_lengths([len(sequence)]))[-1:])
            logits = RepetitionPenaltyLogitsProcessor(1.6)(torch.tensor([sequence]), logits)
            out.append(int(sample(logits, sampling_batch([rule], VOCAB, logits.device), [len(out)])))
            sequence += [out[-1], *stream.plan.get(len(out), [])]
        assert stream.out == out


def test_log_probabilities_are_those_of_the_model_itself() -> None:
    model = small_model()
    heat = Sampling(temperature=2.0, top_k=5, repetition_penalty=1.3, seed=1)
    streams = [Stream([1, 2, 3], 6, heat, forced={2: [5, 6]}), Stream([4], 6), Stream([9, 8], 6)]
    streams[0].num_logprobs, streams[2].num_logprobs = 3, 0
    run(model, streams, num_slots=3)
    assert streams[1].logprobs == [None] * 6
    sequence = [1, 2, 3]
    for number, (token, told) in enumerate(zip(streams[0].out, streams[0].logprobs, strict=True), start=1):
        with torch.no_grad():
            hidden = model(torch.tensor(sequence), Documents.of_lengths([len(sequence)]))
            expected = torch.log_softmax(model.head(hidden[-1:])[0], dim=-1)
        assert told is not None
        assert told.token == token
        assert told.logprob == pytest.approx(float(expected[token]), abs=1e-4)
        best = expected.topk(3)
        assert [token for token, _ in told.top] == best.indices.tolist()
        assert [logprob for _, logprob in told.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        sequence += [token, *streams[0].plan.get(number, [])]
    assert all(told is not None and told.top == () for told in streams[2].logprobs)


def test_a_cancelled_stream_leaves_its_slot_and_disturbs_nobody() -> None:
    model = small_model()
    first, second, later = Stream([1, 2, 3], 12), Stream([4, 5], 12), Stream([6], 5)
    batch = DecodeBatch(model, 2, VOCAB)
    batch.join([first, second])
    batch.step()
    first.finished = True
    assert batch.step() == [first]
    assert len(first.out) == 2
    assert batch.num_free == 1
    batch.join([later])
    while batch.num_live:
        batch.step()
    for stream in (second, later):
        assert stream.out == slow_tokens(model, stream)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_streams_that_share_their_beginning_decode_as_if_alone(num_kv_heads: int) -> None:
    model = small_model(num_kv_heads)
    beginning = [3, 1, 4, 1, 5, 9, 2, 6]
    streams = mixed_streams()
    for stream in streams:
        stream.prompt_ids = beginning + stream.prompt_ids
    batch = DecodeBatch(model, 4, VOCAB, beginning)
    run_batch(batch, streams)
    for stream in streams:
        assert stream.out == slow_tokens(model, stream)


def test_the_shared_beginning_counts_in_the_context() -> None:
    model = small_model()
    stream = Stream(list(range(20)), length=1000)
    run_batch(DecodeBatch(model, 2, VOCAB, list(range(12))), [stream])
    assert stream.ran_out
    assert len(stream.out) == CONTEXT - 20 + 1


@pytest.mark.parametrize("row_tile", [None, 4])
def test_a_request_that_comes_to_no_numbers_harms_nobody_beside_or_after_it(row_tile: int | None) -> None:
    model = small_model()

    def run(*, overflows: bool) -> list[list[int]]:
        """What three streams say beside and after one of NaN, which the second takes the slot of."""
        batch = DecodeBatch(model, 2, VOCAB, row_tile=row_tile)
        bad = Stream(list(range(30)), 12, Sampling(temperature=1.0, top_p=0.9))
        first, second, third = Stream([5, 6, 7], 30), Stream([9], 40, Sampling(temperature=1.0)), Stream([4, 8], 40)
        for stream in (bad, first):
            batch.enter(stream)
        for _ in range(4):
            batch.step()
        if overflows:
            with torch.inference_mode():
                for stored in (*batch.slots.cache.keys, *batch.slots.cache.values):
                    stored[0, :, :30] = torch.nan
        while not bad.finished:
            batch.step()
        batch.step()
        batch.enter(second)
        while not first.finished:
            batch.step()
        batch.step()
        batch.enter(third)
        while not (second.finished and third.finished):
            batch.step()
        return [first.out, second.out, third.out]

    assert run(overflows=True) == run(overflows=False)
