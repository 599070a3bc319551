"""The slot cache against plain attention over each row's own list."""

import pytest
import torch
from torch import Tensor

from gradus.engine.cache import SlotCache
from gradus.model.batch import Documents

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS, KV_HEADS, WIDTH = 4, 2, 3


def make_cache(num_slots: int = 8, context: int = 512, prefix: list[tuple[Tensor, Tensor]] | None = None) -> SlotCache:
    return SlotCache(
        num_layers=2,
        num_slots=num_slots,
        num_kv_heads=KV_HEADS,
        head_dim=WIDTH,
        context=context,
        dtype=torch.float32,
        device=torch.device("cpu"),
        prefix=prefix,
    )


def plain(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """query: (H, D); keys, values: (S, Hk, D). Returns (H D,)."""
    keys, values = (part.repeat_interleave(HEADS // KV_HEADS, dim=1) for part in (keys, values))
    weights = torch.softmax(torch.einsum("hd,shd->hs", query, keys), dim=-1)
    return torch.einsum("hs,shd->hd", weights, values).flatten()


class Rows:
    """Rows kept as plain lists beside the cache."""

    def __init__(self, lengths: list[int], prefix_length: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.prefix = [(self.draw(prefix_length), self.draw(prefix_length)) for _ in range(2)]
        self.cache = make_cache(prefix=self.prefix if prefix_length else None)
        self.rows = [[(self.draw(n), self.draw(n)) for n in lengths] for _ in range(2)]
        for layer in range(2):
            for slot, (keys, values) in enumerate(self.rows[layer]):
                self.cache.reserve(len(keys))
                slots = torch.full((len(keys),), slot)
                self.cache.fill(layer, slots, torch.arange(len(keys)), keys, values)

    def draw(self, count: int, heads: int = KV_HEADS) -> Tensor:
        return torch.randn(count, heads, WIDTH, generator=self.generator)

    def step(self) -> None:
        """One token for every row, compared in both layers."""
        count = len(self.rows[0])
        self.cache.begin_step([len(keys) for keys, _ in self.rows[0]])
        for layer in range(2):
            queries, keys, values = self.draw(count, HEADS), self.draw(count), self.draw(count)
            out = self.cache.attend(layer, queries, keys, values)
            for i, (old_keys, old_values) in enumerate(self.rows[layer]):
                self.rows[layer][i] = (
                    torch.cat([old_keys, keys[i : i + 1]]),
                    torch.cat([old_values, values[i : i + 1]]),
                )
                whole = (torch.cat(pair) for pair in zip(self.prefix[layer], self.rows[layer][i], strict=True))
                torch.testing.assert_close(out[i], plain(queries[i], *whole))


@pytest.mark.parametrize("prefix_length", [0, 5])
@pytest.mark.parametrize("chunk_rows", [2, 32])
def test_every_row_attends_to_the_beginning_and_its_own_past(
    monkeypatch: pytest.MonkeyPatch, prefix_length: int, chunk_rows: int
) -> None:
    monkeypatch.setattr("gradus.engine.cache._CHUNK_ROWS", chunk_rows)
    rows = Rows([7, 1, 4, 3, 9], prefix_length)
    for _ in range(3):
        rows.step()


def test_a_moved_row_goes_on_in_its_new_slot() -> None:
    rows = Rows([7, 1, 4], 2)
    rows.step()
    rows.cache.move(source=2, target=0, length=5)
    for layer in range(2):
        rows.rows[layer] = [rows.rows[layer][2], rows.rows[layer][1]]
    rows.step()


def test_slots_grow_while_rows_do() -> None:
    rows = Rows([62, 3], 0)
    assert rows.cache.capacity == 64
    for _ in range(4):
        rows.step()
    assert rows.cache.capacity == 128
    assert rows.cache.num_bytes == 2 * 2 * 8 * KV_HEADS * 128 * WIDTH * 4


def test_the_beginning_takes_its_part_of_the_context() -> None:
    beginning = torch.zeros(100, KV_HEADS, WIDTH)
    cache = make_cache(context=300, prefix=[(beginning, beginning)] * 2)
    assert (cache.prefix_length, cache.limit) == (100, 200)
    cache.reserve(129)
    assert cache.capacity == 200
    with pytest.raises(AssertionError, match="201 positions do not fit, at most 200 do"):
        cache.reserve(201)


def test_a_prefill_behind_the_beginning_is_stored_and_attends_causally() -> None:
    rows = Rows([], 5)
    documents = Documents.of_lengths([3, 1, 20])
    filling = rows.cache.filling(documents, first_slot=2)
    queries, keys, values = rows.draw(24, HEADS), rows.draw(24), rows.draw(24)
    out = filling.attend(1, queries, keys, values)
    for slot, start, end in ((2, 0, 3), (3, 3, 4), (4, 4, 24)):
        torch.testing.assert_close(rows.cache.keys[1, slot, :, : end - start].transpose(0, 1), keys[start:end])
        for place in range(start, end):
            seen = (
                torch.cat([beginning, part[start : place + 1]])
                for beginning, part in zip(rows.prefix[1], (keys, values), strict=True)
            )
            torch.testing.assert_close(out[place], plain(queries[place], *seen))
