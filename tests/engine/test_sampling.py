"""Sampling against slow references and hand arithmetic."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gradus.core.temperature import LEAST_TEMPERATURE
from gradus.engine.sampling import Sampling, penalise, sample, sampling_batch, uniforms

CPU = torch.device("cpu")
MASK = 2**64 - 1


def slow_mix(z: int) -> int:
    """SplitMix64's finaliser on Python integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_splitmix(state: int, count: int) -> list[int]:
    """The first outputs of the generator seeded with `state`."""
    return [slow_mix((state + (i + 1) * 0x9E3779B97F4A7C15) & MASK) for i in range(count)]


def draw_many(logits: list[float], rule: Sampling, count: int) -> np.ndarray:
    """Tokens of `count` successive draws of one request."""
    table = torch.tensor([logits]).expand(count, -1).contiguous()
    columns = sampling_batch([rule] * count, len(logits), CPU)
    return sample(table, columns, list(range(count))).numpy()


def test_the_slow_generator_gives_the_published_outputs() -> None:
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert slow_splitmix(1234567, 5) == published


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_uniforms_are_splitmix64_seeded_by_a_mixed_seed(seed: int) -> None:
    state = slow_mix((seed + 0x9E3779B97F4A7C15) & MASK)
    expected = [(bits >> 11) * 2.0**-53 for bits in slow_splitmix(state, 4)]
    got = uniforms(np.full(4, seed, dtype=np.uint64), np.arange(4, dtype=np.uint64))
    assert got.tolist() == expected


def test_temperature_zero_is_argmax_and_ties_fall_to_the_lower_id() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [9.0, -1.0, 2.0]])
    rows = [Sampling(), Sampling(temperature=0.0, top_k=3, seed=7)]
    assert sample(logits, sampling_batch(rows, 3, CPU), [0, 5]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 1e-38), ("temperature", 1e39), ("temperature", math.inf), ("repetition_penalty", 1e-40)],
)
def test_what_makes_logits_infinite_is_refused(name: str, value: float) -> None:
    # A distribution of infinite logits has no numbers, and the token drawn from it was one behind the vocabulary.
    with pytest.raises(ValueError, match=name):
        Sampling(**{name: value})


def test_the_least_temperature_draws_the_likeliest() -> None:
    rows = [Sampling(temperature=LEAST_TEMPERATURE, seed=seed, top_k=top_k) for seed in range(4) for top_k in (None, 2)]
    logits = torch.tensor([[-2000.0, 2000.0, -math.inf, 1999.0]]).expand(len(rows), 4)
    assert sample(logits, sampling_batch(rows, 4, CPU), [0] * len(rows)).tolist() == [1] * len(rows)


def test_frequencies_follow_the_tempered_softmax() -> None:
    logits, temperature, count = [1.0, 0.0, -1.0, 2.0], 0.7, 20_000
    weights = [math.exp(value / temperature) for value in logits]
    expected = np.array(weights) / sum(weights)
    tokens = draw_many(logits, Sampling(temperature=temperature, seed=3), count)
    got = np.bincount(tokens, minlength=4) / count
    # Five standard errors of a proportion.
    assert np.all(np.abs(got - expected) < 5 * np.sqrt(expected * (1 - expected) / count))


def test_top_k_keeps_the_k_most_likely_with_their_proportions() -> None:
    logits, count = [0.0, math.log(3.0), -0.1, math.log(2.0)], 20_000
    got = np.bincount(draw_many(logits, Sampling(temperature=1.0, top_k=2, seed=1), count), minlength=4)
    assert got[0] == 0
    assert got[2] == 0
    assert abs(got[1] / count - 0.6) < 5 * math.sqrt(0.24 / count)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    logits = [math.log(share) for share in (0.1, 0.5, 0.15, 0.25)]
    assert set(draw_many(logits, Sampling(temperature=1.0, top_p=0.5), 500)) == {1}
    assert set(draw_many(logits, Sampling(temperature=1.0, top_p=0.51), 500)) == {1, 3}
    assert set(draw_many(logits, Sampling(temperature=1.0, top_p=0.8), 500)) == {1, 2, 3}
    assert set(draw_many(logits, Sampling(temperature=1.0, top_p=1.0), 500)) == {0, 1, 2, 3}


def slow_choice(logits: list[float], rule: Sampling, uniform: float) -> int:
    """One row by loops over Python floats."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    order = order[: rule.top_k or len(order)]
    weights = [math.exp((logits[token] - logits[order[0]]) / rule.temperature) for token in order]
    total, before, kept = sum(weights), 0.0, []
    for token, weight in zip(order, weights, strict=True):
        if not kept or before / total < (rule.top_p or 2.0):
            kept.append((token, weight))
        before += weight
    target = uniform * sum(weight for _, weight in kept)
    for token, weight in kept:
        if target < weight:
            return token
        target -= weight
    return kept[-1][0]


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=9),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.sampled_from([0.13, 0.47, 0.91]),
    seed=st.integers(0, 2**64 - 1),
)
def test_limited_sampling_equals_a_loop_over_one_row(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    top_k = len(logits) if top_k is None and top_p is None else top_k
    rule = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    draws = uniforms(np.full(5, seed, dtype=np.uint64), np.arange(5, dtype=np.uint64))
    assert draw_many(logits, rule, 5).tolist() == [slow_choice(logits, rule, float(u)) for u in draws]


def transformers_probabilities(logits: torch.Tensor, rule: Sampling, seen: list[int]) -> torch.Tensor:
    """What transformers would draw from, its processors in the order in which `generate` has them."""
    processors: list[object] = [RepetitionPenaltyLogitsProcessor(rule.repetition_penalty)]
    processors.append(TemperatureLogitsWarper(rule.temperature))
    processors += [TopKLogitsWarper(rule.top_k)] if rule.top_k else []
    processors += [TopPLogitsWarper(rule.top_p)] if rule.top_p else []
    processors += [MinPLogitsWarper(rule.min_p)] if rule.min_p else []
    scores = logits[None].clone()
    for processor in processors:
        scores = processor(torch.tensor([seen]), scores)  # type: ignore[operator]
    return torch.softmax(scores[0].double(), dim=-1)


@pytest.mark.parametrize("top_k", [None, 9])
@pytest.mark.parametrize("top_p", [None, 0.8])
@pytest.mark.parametrize("min_p", [None, 0.07, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.7, 0.6])
def test_draws_invert_the_distribution_that_transformers_makes(
    top_k: int | None, top_p: float | None, min_p: float | None, penalty: float
) -> None:
    logits = torch.randn(40, generator=torch.Generator().manual_seed(int(10 * penalty))) * 2
    rule = Sampling(temperature=0.8, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty, seed=5)
    seen = torch.zeros(40, dtype=torch.bool)
    seen[[1, 2, 3, 30]] = True
    expected = transformers_probabilities(logits, rule, seen.nonzero()[:, 0].tolist())
    penalised = penalise(logits, seen, penalty)
    got = draw_many(penalised.tolist(), rule, 200)
    assert set(got.tolist()) <= set(expected.nonzero()[:, 0].tolist())
    # Limited rows go through the tokens by falling probability, whole ones by id.
    is_limited = any(limit is not None for limit in (top_k, top_p, min_p))
    order = torch.sort(penalised, descending=True, stable=True).indices if is_limited else torch.arange(40)
    cumulative = expected[order].cumsum(0)
    numbers = uniforms(np.full(200, 5, dtype=np.uint64), np.arange(200, dtype=np.uint64))
    wanted = order[torch.searchsorted(cumulative, torch.from_numpy(numbers), right=True).clamp(max=39)]
    assert (torch.from_numpy(got) == wanted).float().mean() > 0.98  # transformers' softmax is in single precision


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 50, generator=generator)
    rows = [
        Sampling(temperature=0.9, seed=11),
        Sampling(),
        Sampling(temperature=1.3, top_p=0.9, seed=11),
        Sampling(temperature=0.2, top_k=5, seed=4),
        Sampling(temperature=2.0, seed=5),
        Sampling(temperature=1.0, top_k=3, top_p=0.5, seed=6),
    ]
    draws = [0, 1, 2, 3, 4, 5]
    together = sample(logits, sampling_batch(rows, 50, CPU), draws).tolist()
    columns = [sampling_batch([row], 50, CPU) for row in rows]
    alone = [int(sample(logits[i : i + 1], columns[i], [draws[i]])) for i in range(6)]
    assert together == alone


def test_successive_draws_and_neighbouring_seeds_look_unrelated() -> None:
    first = uniforms(np.zeros(4000, dtype=np.uint64), np.arange(4000, dtype=np.uint64))
    second = uniforms(np.ones(4000, dtype=np.uint64), np.arange(4000, dtype=np.uint64))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.08
    assert all(a != b for a, b in pairwise(first))


def test_a_row_of_certain_tokens_never_yields_an_impossible_one() -> None:
    logits = [-math.inf, 0.0, -math.inf]
    for rule in (Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.9)):
        assert set(draw_many(logits, rule, 300)) == {1}
