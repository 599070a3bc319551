"""Rows for a longer context: long documents once and whole, short ones to their share."""

import numpy as np
import pytest

from gradus.core.errors import DataError
from gradus.data.long_documents import long_rows

LENGTHS = np.array([10, 200, 300, 64, 5, 90, 128, 30, 31, 32, 33, 500], dtype=np.int64)


def pieces_of(rows):
    plan = rows.plan
    return [(int(d), int(o), int(n)) for d, o, n in zip(plan.document, plan.offset, plan.length, strict=True)]


def test_long_documents_come_once_and_are_cut_only_where_no_row_holds_them():
    rows = long_rows(LENGTHS, 128, least_tokens=128, long_fraction=1.0, seed=0)
    assert {document for document, _, _ in pieces_of(rows)} == {1, 2, 6, 11}
    assert rows.plan.num_tokens == rows.long_tokens == 200 + 300 + 128 + 500
    whole = [piece for piece in pieces_of(rows) if piece[2] == 128]
    # 500 gives three full rows, 300 two, 200 and 128 one each.
    assert len(whole) == 7
    counts = np.diff(rows.plan.row_starts)
    assert sum(counts == 1) >= 7


def test_a_document_that_fits_into_a_row_is_never_cut():
    rows = long_rows(LENGTHS, 256, least_tokens=90, long_fraction=0.5, seed=0)
    for document, offset, length in pieces_of(rows):
        if LENGTHS[document] <= 256:
            assert (offset, length) == (0, LENGTHS[document])


def test_short_documents_take_the_rest_of_the_tokens():
    lengths = np.array([1000] * 20 + [10] * 5000, dtype=np.int64)
    rows = long_rows(lengths, 1000, least_tokens=1000, long_fraction=0.8, seed=3)
    assert rows.statistics()["long_fraction"] == pytest.approx(0.8, abs=0.001)
    assert rows.statistics()["long_documents"] == 20
    again = long_rows(lengths, 1000, least_tokens=1000, long_fraction=0.8, seed=3)
    other = long_rows(lengths, 1000, least_tokens=1000, long_fraction=0.8, seed=4)
    assert pieces_of(again) == pieces_of(rows) != pieces_of(other)


def test_too_few_short_documents_leave_a_higher_share_which_is_told():
    rows = long_rows(LENGTHS, 128, least_tokens=128, long_fraction=0.1, seed=0)
    assert rows.statistics()["long_fraction"] == pytest.approx(1128 / LENGTHS.sum())


def test_no_long_document_is_an_error_that_tells_the_longest():
    with pytest.raises(DataError, match="no document has 501 tokens, the longest of 12 has 500; lower"):
        long_rows(LENGTHS, 128, least_tokens=501, long_fraction=0.5, seed=0)
