"""Pack plans: nothing lost, nothing too long, equal to one-by-one best-fit decreasing."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradus.conversation.messages import Conversation
from gradus.conversation.records import import_records
from gradus.core.errors import DataError
from gradus.data.pack import PackPlan, pack_plan, unpacked_plan
from gradus.data.pack_tight import least_rows, tight_rows


def rows_of(plan: PackPlan) -> list[list[int]]:
    """The lengths in each row."""
    pairs = zip(plan.row_starts[:-1], plan.row_starts[1:], strict=True)
    return [plan.length[a:b].tolist() for a, b in pairs]


def slow_best_fit_decreasing(lengths: list[int], row_length: int) -> list[list[int]]:
    """One piece at a time: the row with the least free space that holds it, else a new row."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in rows if row_length - sum(r) >= length]
        if fitting:
            min(fitting, key=lambda r: row_length - sum(r)).append(length)
        else:
            rows.append([length])
    return rows


def every_token_once(plan: PackPlan, lengths: list[int]) -> None:
    seen = [np.zeros(n, dtype=int) for n in lengths]
    for document, offset, length in zip(plan.document, plan.offset, plan.length, strict=True):
        assert offset + length <= lengths[document]
        seen[document][offset : offset + length] += 1
    assert all((s == 1).all() for s in seen)
    assert all(sum(r) <= plan.row_length for r in rows_of(plan))
    assert all(len(r) for r in rows_of(plan))


@given(st.lists(st.integers(1, 70), max_size=80), st.integers(1, 40))
def test_fragments_place_every_token_once_and_no_row_overflows(lengths: list[int], row_length: int) -> None:
    every_token_once(pack_plan(lengths, row_length), lengths)


@given(st.integers(1, 40).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=80))))
def test_whole_keeps_documents_whole_and_loses_none(case: tuple[int, list[int]]) -> None:
    row_length, lengths = case
    plan = pack_plan(lengths, row_length, "whole")
    every_token_once(plan, lengths)
    assert sorted(plan.document.tolist()) == list(range(len(lengths)))


@settings(max_examples=200)
@given(st.integers(1, 30).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=60))))
def test_rows_fill_as_in_one_by_one_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    row_length, lengths = case
    # Which of two rows with equal free space is taken is open, so the contents of equal rows may be swapped.
    fast = [sum(r) for r in rows_of(pack_plan(lengths, row_length, "whole"))]
    slow = [sum(r) for r in slow_best_fit_decreasing(lengths, row_length)]
    assert sorted(fast) == sorted(slow)


def test_a_case_worked_by_hand() -> None:
    # 7 and 3 fill a row, 6 and 4 another, the second 4 opens a third and takes the 2.
    plan = pack_plan([4, 7, 2, 6, 3, 4], 10, "whole")
    assert [sorted(r) for r in rows_of(plan)] == [[3, 7], [4, 6], [2, 4]]
    assert plan.num_tokens == 26
    assert plan.fill_fraction == pytest.approx(26 / 30)
    # Positions attended: 1 + 2 + ... + n for each piece of n.
    assert plan.mean_context == pytest.approx((10 + 28 + 3 + 21 + 6 + 10) / 26)
    assert plan.statistics()["documents"] == 6


def test_a_long_document_gives_full_rows_and_a_rest() -> None:
    plan = pack_plan([25], 10)
    assert list(zip(plan.offset.tolist(), plan.length.tolist(), strict=True)) == [(0, 10), (10, 10), (20, 5)]


def slow_best_fit_cropping(lengths: list[int], row_length: int, choice: int) -> list[list[tuple[int, int]]]:
    """Rows of (document, tokens): the longest that fits, the first of equals; else the shortest, cut."""
    waiting = list(enumerate(lengths))
    ready = [waiting.pop(0) for _ in range(min(choice, len(waiting)))]
    rows = []
    while ready:
        row, space = [], row_length
        while space and ready:
            fitting = [one for one in ready if one[1] <= space]
            longest = max((length for _, length in fitting), default=0)
            shortest = min(length for _, length in ready)
            wanted = longest or shortest
            one = next(one for one in ready if one[1] == wanted)
            ready.remove(one)
            row.append((one[0], min(one[1], space)))
            space -= row[-1][1]
            if waiting:
                ready.append(waiting.pop(0))
        rows.append(row)
    return rows


@given(st.lists(st.integers(1, 70), max_size=80), st.integers(1, 40), st.integers(1, 90))
def test_cropping_fills_rows_as_the_one_by_one_algorithm(lengths: list[int], row_length: int, choice: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradus.data.pack._CROP_CHOICE", choice)
        plan = pack_plan(lengths, row_length, "crop")
    pairs = zip(plan.row_starts[:-1], plan.row_starts[1:], strict=True)
    found = [list(zip(plan.document[a:b].tolist(), plan.length[a:b].tolist(), strict=True)) for a, b in pairs]
    assert found == slow_best_fit_cropping(lengths, row_length, choice)
    # All rows are full but those at the end, and what was cut off a document is in no row.
    assert all(sum(row) == row_length for row in rows_of(plan)[:-1]) or not lengths
    assert plan.offset.tolist() == [0] * len(lengths)
    assert sorted(plan.document.tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize(("mean", "spread"), [(6.5, 1.2), (4.7, 0.6), (3.0, 0.5)])
def test_realistic_lengths_fill_at_least_99_percent(mean: float, spread: float) -> None:
    lengths = np.random.default_rng(0).lognormal(mean, spread, 20_000).astype(int) + 1
    plan = pack_plan(lengths, 512)
    assert plan.fill_fraction >= 0.99
    assert plan.num_tokens == lengths.sum()


def test_the_same_lengths_give_the_same_plan() -> None:
    lengths = np.random.default_rng(1).integers(1, 900, 3000)
    first, second = pack_plan(lengths, 256), pack_plan(lengths, 256)
    for name in ("row_starts", "document", "offset", "length"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_a_mixture_places_repeated_documents_as_often_as_asked() -> None:
    plan = pack_plan([3, 5, 4], 8, "whole", documents=[2, 0, 0, 2, 2])
    assert sorted(plan.document.tolist()) == [0, 0, 2, 2, 2]
    assert plan.num_tokens == 3 * 2 + 4 * 3


def test_a_document_longer_than_the_row_is_refused_when_kept_whole() -> None:
    expected = r"2 documents are longer than the row of 8 tokens \(document 1 has 9\)"
    with pytest.raises(DataError, match=expected):
        pack_plan([8, 9, 20], 8, "whole")


def test_a_document_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="document 1 has 0 tokens"):
        pack_plan([3, 0], 8)


def test_no_documents_give_no_rows() -> None:
    plan = pack_plan([], 8)
    assert (plan.num_rows, plan.num_pieces, plan.fill_fraction) == (0, 0, 0.0)


def test_an_unpacked_plan_has_one_document_a_row() -> None:
    plan = unpacked_plan([4, 9, 2])
    assert rows_of(plan) == [[4], [9], [2]]
    assert plan.row_length == 9


# Tight packing


@given(st.integers(1, 40).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=80))))
def test_tight_loses_no_document_and_never_needs_more_rows(case: tuple[int, list[int]]) -> None:
    row_length, lengths = case
    plan = pack_plan(lengths, row_length, "tight")
    every_token_once(plan, lengths)
    assert sorted(plan.document.tolist()) == list(range(len(lengths)))
    assert plan.num_rows <= pack_plan(lengths, row_length, "whole").num_rows


@given(st.integers(1, 40).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=80))))
def test_the_search_itself_places_every_document_once(case: tuple[int, list[int]]) -> None:
    row_length, lengths = case
    rows = tight_rows(np.array(lengths, dtype=np.int64), row_length)
    filled = np.bincount(rows, weights=lengths) if lengths else np.zeros(0)
    assert len(rows) == len(lengths)
    assert (filled <= row_length).all()
    assert (filled > 0).all()


def fewest_rows(lengths: list[int], row_length: int) -> int:
    """By trying every row for every document."""
    best = len(lengths)

    def place(index: int, rows: list[int]) -> None:
        nonlocal best
        if len(rows) >= best:
            return
        if index == len(lengths):
            best = len(rows)
            return
        for r in range(len(rows)):
            if rows[r] + lengths[index] <= row_length:
                place(index + 1, [*rows[:r], rows[r] + lengths[index], *rows[r + 1 :]])
        place(index + 1, [*rows, lengths[index]])

    place(0, [])
    return best


@settings(max_examples=150)
@given(st.integers(4, 20).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), min_size=1, max_size=8))))
def test_the_bound_is_never_above_the_fewest_rows(case: tuple[int, list[int]]) -> None:
    row_length, lengths = case
    fewest = fewest_rows(sorted(lengths, reverse=True), row_length)
    assert least_rows(np.array(lengths, dtype=np.int64), row_length) <= fewest
    assert pack_plan(lengths, row_length, "tight").num_rows >= fewest


@pytest.fixture(scope="module")
def conversation_lengths() -> NDArray[np.int64]:
    """About how many tokens real conversations have: a quarter of their characters and a few for each message."""
    folder = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GRADUS_DATA")
    names = (
        "alpaca/alpaca_en_demo.json",
        "instruct_small/gpteacher_roleplay.json.gz",
        "instruct_small/rasbt_instruction-data.json",
        "multiturn/fastchat_dummy_conversation.json",
        "gsm8k/train.jsonl.gz",
    )
    found = [row for name in names for row in import_records(folder / name) if isinstance(row, Conversation)]
    return np.array([sum(5 + len(m.content) // 4 for m in row.messages) for row in found], dtype=np.int64)


# 128 is measured with real token counts alone (bench/pack_conversations.py): with these rough ones most documents are
# between a third and a half of that row, where the bound counts room that no third document fits into.
@pytest.mark.parametrize("row_length", [192, 256, 384, 512, 1024, 4096, 16384])
def test_rows_of_real_conversations_are_within_a_thousandth_of_the_bound(
    conversation_lengths: NDArray[np.int64], row_length: int
) -> None:
    lengths = conversation_lengths[conversation_lengths <= row_length]
    plan = pack_plan(lengths, row_length, "tight")
    assert sorted(plan.document.tolist()) == list(range(len(lengths)))
    assert least_rows(lengths, row_length) / plan.num_rows >= 0.999
