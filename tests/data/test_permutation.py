"""The stateless shuffle is a bijection for every size and looks like a shuffle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.permutation import permutation_keys, permute, permuted, unpermute


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 1000))
def test_every_index_is_hit_exactly_once(size: int, seed: int, epoch: int) -> None:
    image = permute(np.arange(size), size, permutation_keys(seed, epoch))
    assert sorted(image.tolist()) == list(range(size))


@given(st.integers(1, 2**40), st.integers(0, 100))
def test_one_index_alone_goes_where_it_goes_in_company(size: int, seed: int) -> None:
    keys = permutation_keys(seed)
    indices = np.array([0, size // 2, size - 1])
    together = permute(indices, size, keys)
    assert [int(permute(np.array([i]), size, keys)[0]) for i in indices] == together.tolist()
    assert together.min() >= 0
    assert together.max() < size


def test_seeds_and_epochs_give_different_orders() -> None:
    names = [(seed, epoch) for seed in range(5) for epoch in range(5)]
    orders = {tuple(permute(np.arange(50), 50, permutation_keys(*name)).tolist()) for name in names}
    assert len(orders) == 25


def test_first_elements_are_uniform_over_many_seeds() -> None:
    # 4,000 draws over 10 cells: chi-square with 9 degrees of freedom, 0.999 quantile 27.9.
    counts = np.zeros(10)
    for seed in range(4000):
        counts[permute(np.array([0]), 10, permutation_keys(seed))[0]] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 27.9


@given(st.integers(1, 3000), st.integers(0, 9))
def test_every_index_finds_back_to_where_it_came_from(size: int, seed: int) -> None:
    keys = permutation_keys(seed)
    there = permute(np.arange(size), size, keys)
    assert unpermute(there, size, keys).tolist() == list(range(size))


@given(st.integers(1, 20_000), st.integers(0, 9), st.data())
def test_stretches_that_are_kept_give_the_same_order(size: int, seed: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert permuted(index, size, "name", seed).tolist() == permute(index, size, permutation_keys("name", seed)).tolist()


def test_the_order_is_pinned() -> None:
    # A changed permutation would change every training run; this fails if it does.
    assert permute(np.arange(8), 8, permutation_keys(1, 0)).tolist() == PINNED


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.9"):
        permute(np.array([10]), 10, permutation_keys(0))


PINNED = [1, 7, 6, 4, 5, 3, 0, 2]
