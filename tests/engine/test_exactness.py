"""What a request is answered in fp32 with a fixed number of slots: the same to the last bit, whoever comes and goes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gradus.engine.batching import DecodeBatch
from gradus.engine.exactness import exact_row_tile
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.prefix_cache import Block, PrefixCache, beginning_key, block_key
from gradus.engine.sampling import Sampling
from gradus.engine.slots import CHUNK_TOKENS
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model

VOCAB = 60
BEGINNING = beginning_key("")
PLAIN = {"depth": 2, "width": 32, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16, "mlp_width": 64}
SHAPES = {
    "plain": PLAIN,
    "three heads a key": PLAIN | {"num_heads": 3, "num_kv_heads": 1},
    "windows and looks back": PLAIN
    | {"family": "custom", "window_pattern": "SL", "window": 70, "smear": True, "wave_kernel": 3, "spectral_length": 5},
}


@pytest.fixture(
    params=[1, pytest.param(2, marks=pytest.mark.slow)],  # two wait for each other where others use the machine
    ids=["one thread", "two threads"],
)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def small_model(shape: str) -> Transformer:
    """Random weights of a scale that makes every past token matter to the next."""
    model = build_model(model_config(SHAPES[shape], VOCAB, 400), torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return model


class Stream:
    """What one request does, drawn by its number: prompt, sampling, forced tokens, a wait for them, its end."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        shared = [draw.randrange(3)] * draw.choice([0, 64, 130, 192])
        self.prompt_ids = shared + [draw.randrange(VOCAB) for _ in range(draw.choice([1, 5, 63, 64, 100]))]
        heat = draw.choice([0.0, 1.0, 1.0])
        self.sampling = Sampling(
            temperature=heat, top_k=draw.choice([None, 9]), seed=number, repetition_penalty=draw.choice([1.0, 1.2])
        )
        self.length = draw.randrange(1, 25)
        self.forced_at = {draw.randrange(1, 9): [draw.randrange(VOCAB) for _ in range(draw.choice([2, 40, 70]))]}
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = self.num_cached_tokens = 0
        self.num_logprobs = 1
        self.delay = 0
        self.out: list[int] = []
        self.bits: list[float] = []

    def waits(self) -> bool:
        self.delay -= 1
        return self.delay > 0

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        assert logprobs is not None
        self.out.append(token)
        self.bits.append(logprobs.logprob)
        self.num_sampled += 1
        self.finished = self.num_sampled >= self.length
        if forced := self.forced_at.get(self.num_sampled):
            self.forced.extend(forced)
            self.delay = self.num_sampled

    def run_out(self) -> None:
        self.finished = True


def told(stream: Stream) -> tuple[list[int], list[float]]:
    return stream.out, stream.bits


@torch.no_grad()
def slow_tokens(model: Transformer, stream: Stream) -> list[float]:
    """Log-probabilities of what a stream sampled, by one full pass."""
    sequence, places = list(stream.prompt_ids), []
    for number, token in enumerate(stream.out, start=1):
        places.append(len(sequence) - 1)
        sequence += [token, *stream.forced_at.get(number, [])]
    logits = model.head(model(torch.tensor(sequence), Documents.of_lengths([len(sequence)])))
    logp = torch.log_softmax(logits[:, :VOCAB], dim=-1)
    return [float(logp[place, token]) for place, token in zip(places, stream.out, strict=True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_random_joins_waits_and_cancels_change_no_bit_of_an_answer(shape: str, threads: int) -> None:
    model = small_model(shape)
    num_slots = 11
    tile = exact_row_tile(model, num_slots)

    def new_batch(prefixes: PrefixCache | None) -> DecodeBatch:
        return DecodeBatch(model, num_slots, VOCAB, row_tile=tile, prefixes=prefixes)

    alone = [Stream(number) for number in range(28)]
    for stream in alone:
        batch = new_batch(None)
        batch.enter(stream)
        while batch.num_live:
            batch.step()
    for stream in alone[::7]:
        assert stream.bits == pytest.approx(slow_tokens(model, stream), abs=2e-4)
    draw = random.Random(threads)
    together = [Stream(number) for number in range(28)]
    cancelled = draw.sample(together, 5)
    # So few bytes that blocks come and go.
    prefixes = PrefixCache(20 * 2 * 2 * 2 * CHUNK_TOKENS * 16 * 4)
    batch = new_batch(prefixes)
    waiting = draw.sample(together, 28)
    while waiting or batch.num_live:
        if waiting and batch.num_free and draw.random() < 0.4:
            for _ in range(min(draw.randrange(1, 5), batch.num_free, len(waiting))):
                batch.enter(waiting.pop())
        batch.step()
        for stream in cancelled:
            if stream.num_sampled > 2:
                stream.finished = True
    for stream, solo in zip(together, alone, strict=True):
        count = len(stream.out)
        assert count == len(solo.out) or stream in cancelled
        assert told(stream) == (solo.out[:count], solo.bits[:count])
    found = sum(stream.num_cached_tokens for stream in together)
    assert found > 300
    assert prefixes.num_bytes <= prefixes.max_bytes


def test_where_products_of_few_rows_differ_every_step_computes_all_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("plain")
    assert exact_row_tile(model, 1) == 1
    assert exact_row_tile(model, 20) in (1, 4, 8)
    linear = torch.nn.functional.linear

    def rough(x: Tensor, weight: Tensor) -> Tensor:
        return linear(x, weight) * (1 + 1e-6 * (len(x) < 24))

    monkeypatch.setattr("gradus.engine.exactness.F.linear", rough)
    assert exact_row_tile(model, 20) == 24
    model.compute_dtype = torch.bfloat16
    assert exact_row_tile(model, 20) is None


def test_the_longest_unused_prompt_is_forgotten_first_and_from_its_end() -> None:
    def block(number: int) -> Block:
        return Block([(torch.full((25,), float(number)), torch.zeros(24))], {"look": torch.zeros(1)})  # 200 bytes

    cache = PrefixCache(1000)
    keys = []
    for number in range(3):
        keys.append(block_key(keys[-1] if keys else BEGINNING, [number] * 4))
        cache.put(keys, block(number))
    other = [block_key(BEGINNING, [9]), block_key(block_key(BEGINNING, [9]), [9])]
    for place in range(2):
        cache.put(other[: place + 1], block(9))
    assert (len(cache), cache.num_bytes) == (5, 1000)
    cache.put([block_key(BEGINNING, [5])], block(5))
    assert [cache.get(key) is not None for key in keys] == [True, True, False]
    cache.used(keys[:2])
    cache.put([block_key(BEGINNING, [6])], block(6))
    assert [cache.get(key) is not None for key in (*keys[:2], *other)] == [True, True, True, False]
    cache.put([block_key(BEGINNING, [7])], Block([(torch.zeros(999), torch.zeros(999))]))
    assert cache.num_bytes <= 1000
    assert cache.get(block_key(BEGINNING, [7])) is None
    assert block_key(BEGINNING, [1, 2]) != block_key(BEGINNING, [1, 3])
    assert block_key(keys[0], [1, 2]) != block_key(keys[1], [1, 2])
