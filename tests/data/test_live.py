"""Training on text that is tokenised on the way: every token once an epoch, the same steps after any resume."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradus.core.errors import DataError
from gradus.data.live import LiveRows
from gradus.data.loader import TextLoader
from gradus.model.batch import IGNORE, Batch
from gradus.tokenizer.encoder import open_encoder
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

TEXTS = [" ".join(f"w{i}x{j}" for j in range(1 + i * 7 % 40)) for i in range(90)]
Open = Callable[..., LiveRows]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards in row groups of eight documents."""
    paths = []
    for part in range(3):
        texts = TEXTS[part * 30 : part * 30 + 30]
        paths.append(tmp_path / f"{part:05d}.parquet")
        pq.write_table(pa.table({"text": texts, "source": ["s"] * len(texts)}), paths[-1], row_group_size=8)
    return paths


class Counting:
    """An encoder that counts its batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.inner, self.batches = open_encoder(tokenizer, "tiktoken"), 0

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        self.batches += 1
        return self.inner.encode(texts)


def live(shards: list[Path], tokenizer: Tokenizer, **options) -> LiveRows:
    return LiveRows(shards, tokenizer, 32, **{"seed": 3, "block_bytes": 1500} | options)


def rows_of(batches: list[Batch]) -> list[tuple[int, ...]]:
    found = []
    for batch in batches:
        for a, b in pairwise(batch.documents.bounds if not batch.padding else batch.documents.bounds[:-1]):
            assert batch.documents.positions[a:b].tolist() == list(range(b - a))
            found.append((*batch.tokens[a:b].tolist(), -1, *batch.targets[a:b].tolist()))
        assert batch.targets[batch.num_tokens :].tolist() == [IGNORE] * batch.padding
    return found


def test_every_token_and_target_comes_once_an_epoch(shards: list[Path], tokenizer: Tokenizer) -> None:
    separator = tokenizer.special(END_OF_TEXT)
    ids = [[separator, *tokenizer.encode(text)] for text in TEXTS]
    expected = sorted(token for document in ids for token in document)
    with live(shards, tokenizer) as rows:
        assert len(rows.blocks) > 5
        loader = TextLoader(rows, rows_per_step=1, micro_rows=1)
        found = [[], []]
        for step in range(10_000):
            if rows._turn_of(step) >= 2 * len(rows.blocks):
                break
            epoch = rows._turn_of(step) // len(rows.blocks)
            for piece in rows_of(loader.batches(step)):
                tokens, targets = piece[: piece.index(-1)], piece[piece.index(-1) + 1 :]
                assert tokens[1:] == targets[:-1]
                found[epoch] += tokens
    assert sorted(found[0]) == sorted(found[1]) == expected
    assert found[0] != found[1]


@pytest.mark.parametrize("with_notes", [True, False])
def test_steps_are_the_same_after_a_resume_for_any_ranks(
    shards: list[Path], tokenizer: Tokenizer, tmp_path: Path, with_notes: bool
) -> None:
    notes = tmp_path / "rows.txt" if with_notes else None
    with live(shards, tokenizer, notes=notes) as rows:
        through = TextLoader(rows, rows_per_step=8, micro_rows=8)
        expected = {step: rows_of(through.batches(step)) for step in range(40)}
    for resumed_at, world, micro_rows in ((0, 2, 4), (7, 8, 1), (31, 1, 3)):
        opened = [live(shards, tokenizer, notes=notes) for _ in range(world)]
        for step in range(resumed_at, min(resumed_at + 9, 40)):
            together = []
            for rank, rows in enumerate(opened):
                loader = TextLoader(rows, rows_per_step=8, micro_rows=micro_rows, rank=rank, world=world)
                together += rows_of(loader.batches(step))
            assert sorted(together) == sorted(expected[step])
        for rows in opened:
            rows.__exit__()


def test_what_came_before_is_not_encoded_again_after_a_resume(
    shards: list[Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    notes = tmp_path / "rows.txt"
    with live(shards, tokenizer, notes=notes) as rows:
        TextLoader(rows, rows_per_step=8, micro_rows=8).batches(20)
    with notes.open("a") as file:
        file.write("5 ")  # a killed run's last line
    encoder = Counting(tokenizer)
    with live(shards, tokenizer, notes=notes, encoder=encoder) as rows:
        TextLoader(rows, rows_per_step=8, micro_rows=8).batches(20)
    # The blocks of the step and the one ahead.
    assert encoder.batches <= 3
    with live(shards, tokenizer, notes=notes, seed=4, encoder=encoder) as rows:
        assert rows._notes.rows == {}


def test_a_bookmark_continues_the_text_and_is_refused_for_other_text(shards: list[Path], tokenizer: Tokenizer) -> None:
    with live(shards, tokenizer) as rows:
        first = TextLoader(rows, rows_per_step=6, micro_rows=6)
        expected = rows_of([b for step in (4, 5) for b in first.batches(step)])
        bookmark = first.bookmark(4)
    with live(shards, tokenizer) as rows:
        second = TextLoader(rows, rows_per_step=4, micro_rows=4, begin=bookmark)
        assert rows_of([b for step in range(3) for b in second.batches(step)]) == expected
    with (
        live(shards[:2], tokenizer) as rows,
        pytest.raises(DataError, match="bookmark at row 24 belongs to other data"),
    ):
        TextLoader(rows, rows_per_step=4, micro_rows=4, begin=bookmark)


def test_damaged_and_empty_shards_are_told(tmp_path: Path, shards: list[Path], tokenizer: Tokenizer) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:-20])
    with pytest.raises(DataError, match=r"00001\.parquet: damaged corpus shard"):
        live(shards, tokenizer)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), empty)
    with pytest.raises(DataError, match="1 corpus shards hold no documents"):
        live([empty], tokenizer)
