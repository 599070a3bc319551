"""The slot cache against plain attention over each row's own list."""

import pytest
import torch
from torch import Tensor

from gradus.engine.cache import SlotCache
from gradus.engine.reading import PrefixedFill, SlotReading
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
                self.cache.fill(layer, Documents.of_lengths([len(keys)]), slot, keys, values)

    def draw(self, count: int, heads: int = KV_HEADS) -> Tensor:
        return torch.randn(count, heads, WIDTH, generator=self.generator)

    def step(self) -> None:
        """One token for every row, compared in both layers."""
        count = len(self.rows[0])
        self.cache.begin_step(range(count), [len(keys) for keys, _ in self.rows[0]])
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
    rows.cache.move(source=2, target=0)
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
    filling = PrefixedFill(rows.cache, documents, first_slot=2)
    queries, keys, values = rows.draw(24, HEADS), rows.draw(24), rows.draw(24)
    out = filling.attend(1, queries, keys, values)
    for slot, start, end in ((2, 0, 3), (3, 3, 4), (4, 4, 24)):
        torch.testing.assert_close(rows.cache.keys[1][slot, :, : end - start].transpose(0, 1), keys[start:end])
        for place in range(start, end):
            seen = (
                torch.cat([beginning, part[start : place + 1]])
                for beginning, part in zip(rows.prefix[1], (keys, values), strict=True)
            )
            torch.testing.assert_close(out[place], plain(queries[place], *seen))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("window", [None, 1, 5, 64, 90])
def test_chunks_and_steps_in_any_slots_see_what_their_window_says_and_hold_no_more(
    window: int | None, exact: bool
) -> None:
    """Three slots are read in chunks of odd sizes and stepped, not all at once, far beyond the window."""
    draw = torch.Generator().manual_seed(3)
    cache = SlotCache(
        num_layers=2,
        num_slots=4,
        num_kv_heads=KV_HEADS,
        head_dim=WIDTH,
        context=400,
        dtype=torch.float32,
        device=torch.device("cpu"),
        windows=[window, None],
        exact=exact,
    )
    lines = {slot: torch.randn(3, 330, HEADS, WIDTH, generator=draw) for slot in (0, 1, 3)}
    lengths = dict.fromkeys(lines, 0)

    def check(layer: int, slot: int, place: int, out: Tensor) -> None:
        queries, keys, values = lines[slot]
        first = 0 if layer or window is None else max(0, place + 1 - window)
        seen = [part[first : place + 1, :KV_HEADS] for part in (keys, values)]
        torch.testing.assert_close(out, plain(queries[place], *seen))

    for count in (1, 70, 3, 64, 100, 41):
        for slot, (queries, keys, values) in lines.items():
            start = lengths[slot]
            part = slice(start, start + count)
            reading = SlotReading(cache, slot, start, count)
            for layer in range(2):
                out = reading.attend(layer, queries[part], keys[part, :KV_HEADS], values[part, :KV_HEADS])
                for place in range(start, start + count, 13):
                    check(layer, slot, place, out[place - start])
            lengths[slot] += count
        for slots in ([0, 1, 3], [1, 3], [3]):
            held = [lengths[slot] for slot in slots]
            cache.begin_step(slots, held)
            q, k, v = (torch.stack([lines[s][i][n] for s, n in zip(slots, held, strict=True)]) for i in range(3))
            q, k, v = (torch.cat([part, part[:1]]) for part in (q, k, v))  # a row that is nobody's
            for layer in range(2):
                out = cache.attend(layer, q, k[:, :KV_HEADS], v[:, :KV_HEADS])
                assert len(out) == len(slots) + 1
                for row, slot in enumerate(slots):
                    check(layer, slot, lengths[slot], out[row])
            for slot in slots:
                lengths[slot] += 1
    cache.move(3, 0)
    lines[0], lengths[0] = lines[3], lengths[3]
    cache.begin_step([0], [lengths[0]])
    q, k, v = (part[lengths[0]][None] for part in lines[0])
    for layer in range(2):
        check(layer, 0, lengths[0], cache.attend(layer, q, k[:, :KV_HEADS], v[:, :KV_HEADS])[0])
    assert cache.capacity == 400
    ring = 400 if window is None else 64 * -(-window // 64)
    assert cache.num_bytes == cache.most_bytes == 2 * 4 * KV_HEADS * WIDTH * 4 * (400 + ring)
