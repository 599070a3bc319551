"""Batches in rows of one length, and what reads them on XLA: against documents one by one. No torch_xla is needed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.model.attention import _attention_in_rows, attention
from gradus.model.batch import IGNORE, Batch, Documents, in_rows

ROW = 16
ROWS_OF_LENGTHS = st.lists(
    st.lists(st.integers(1, ROW), min_size=1, max_size=5).filter(lambda row: sum(row) <= ROW), min_size=1, max_size=5
)


def packed(rows):
    """Rows of documents as the loader lays them: end to end, what is left over at the end."""
    lengths = [length for row in rows for length in row]
    padding = ROW * len(rows) - sum(lengths)
    documents = Documents.of_lengths([*lengths, padding] if padding else lengths)
    tokens = torch.arange(1, ROW * len(rows) + 1)
    targets = torch.where(tokens % 5 == 0, IGNORE, tokens + 100)
    if padding:
        tokens[-padding:], targets[-padding:] = 0, IGNORE
    return Batch(tokens, targets, Documents(documents.bounds, documents.positions, ROW), {}, padding)


def real_documents(batch):
    """(tokens, targets) of each document that is no padding."""
    spans = zip(batch.documents.bounds, batch.documents.bounds[1:], strict=False)
    found = [(batch.tokens[a:b].tolist(), batch.targets[a:b].tolist()) for a, b in spans]
    return [part for part in found if part[0][0] != 0]


@settings(max_examples=60, deadline=None)
@given(ROWS_OF_LENGTHS)
def test_every_document_stands_whole_in_one_row_and_none_is_lost(rows):
    batch = packed(rows)
    found = in_rows(batch)
    assert real_documents(found) == real_documents(batch)
    assert found.num_tokens == batch.num_tokens
    assert found.tokens.shape == found.targets.shape == found.documents.positions.shape == batch.tokens.shape
    for start, end in zip(found.documents.bounds, found.documents.bounds[1:], strict=False):
        assert start // ROW == (end - 1) // ROW
        assert found.documents.positions[start:end].tolist() == list(range(end - start))


@pytest.mark.parametrize("window", [None, 5])
def test_attention_in_rows_equals_attention_by_documents(window):
    batch = in_rows(packed([[7, 2], [16], [1, 4, 9], [3]]))
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(4 + 2 * 2, len(batch.tokens), 8, generator=generator, requires_grad=True)
    outs = [call(heads, 4, batch.documents, window) for call in (attention, _attention_in_rows)]
    gradients = [torch.autograd.grad(out.square().sum(), heads)[0] for out in outs]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*gradients)


def test_tokens_of_rows_that_are_full_stay_where_they_are():
    batch = packed([[16], [4, 12]])
    assert torch.equal(in_rows(batch).tokens, batch.tokens)
