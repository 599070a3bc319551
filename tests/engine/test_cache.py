"""The slot cache against a list of lists."""

import pytest
import torch

from gradus.engine.cache import SlotCache

HEADS, WIDTH = 2, 3


def make_cache(num_slots: int = 3, context: int = 512) -> SlotCache:
    return SlotCache(
        num_layers=2,
        num_slots=num_slots,
        num_kv_heads=HEADS,
        head_dim=WIDTH,
        context=context,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def marked(*values: float) -> torch.Tensor:
    """(N, heads, width) tensors that name their token."""
    return torch.tensor(values)[:, None, None].expand(-1, HEADS, WIDTH).contiguous()


def test_a_step_returns_each_rows_own_past_and_masks_the_rest() -> None:
    cache = make_cache()
    slots = torch.tensor([0, 0, 1])
    positions = torch.tensor([0, 1, 0])
    for layer in range(2):
        cache.fill(layer, slots, positions, marked(1, 2, 7), marked(-1, -2, -7))
    cache.begin_step(torch.tensor([2, 1]), longest=3)
    keys, values, mask = cache.append(1, marked(3, 8), marked(-3, -8))
    assert keys.shape == (2, HEADS, 3, WIDTH)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 3], [7, 8, 0]]
    assert torch.equal(values, -keys)
    assert mask.tolist() == [[[[True, True, True]]], [[[True, True, False]]]]


def test_moving_a_slot_copies_its_past_in_every_layer() -> None:
    cache = make_cache()
    for layer in range(2):
        cache.fill(layer, torch.tensor([2, 2]), torch.tensor([0, 1]), marked(4, 5), marked(4, 5))
    cache.move(source=2, target=0, length=2)
    assert cache.keys[:, 0, 0, :2, 0].tolist() == [[4, 5], [4, 5]]
    assert cache.values[:, 0, 1, :2, 2].tolist() == [[4, 5], [4, 5]]


def test_growing_keeps_what_is_stored_and_stops_at_the_context() -> None:
    cache = make_cache(context=300)
    cache.fill(0, torch.tensor([1]), torch.tensor([127]), marked(9), marked(9))
    cache.reserve(129)
    assert cache.capacity == 256
    cache.reserve(257)
    assert cache.capacity == 300
    assert cache.keys[0, 1, 0, 127, 0] == 9
    assert cache.num_bytes == 2 * 2 * 3 * HEADS * 300 * WIDTH * 4
    with pytest.raises(AssertionError, match="301 positions"):
        cache.reserve(301)


def test_masked_positions_are_finite_so_that_weight_zero_silences_them() -> None:
    cache = make_cache()
    cache.begin_step(torch.tensor([0, 5]), longest=6)
    keys, values, _ = cache.append(0, marked(1, 1), marked(1, 1))
    assert torch.isfinite(keys).all()
    assert torch.isfinite(values).all()
