"""Arithmetic of the nanochat comparison: held-out rows, bits per byte, budgets, the verdict over seeds."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])


def test_every_token_of_a_document_is_scored_once_in_both_layouts() -> None:
    from nanochat_windows import windows

    documents = [np.arange(1, 8), np.array([9])]
    for layout in ("stream", "start"):
        rows = windows(documents, start=0, context=3, layout=layout)
        assert rows.targets[rows.targets >= 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 9]
        assert rows.inputs.shape == rows.targets.shape == (4, 3)


def test_a_later_row_begins_with_the_token_before_it_or_with_the_start_token() -> None:
    from nanochat_windows import windows

    documents = [np.arange(1, 8)]
    assert windows(documents, 0, 3, "stream").inputs[:, 0].tolist() == [0, 3, 6]
    assert windows(documents, 0, 3, "start").inputs[:, 0].tolist() == [0, 0, 0]


def test_a_model_that_gives_each_byte_one_bit_has_one_bit_per_byte() -> None:
    from nanochat_windows import bits_per_byte

    token_bytes = np.array([0, 2, 3])
    targets = np.array([[1, 2, -1]])
    assert bits_per_byte(5 * math.log(2), targets, token_bytes) == pytest.approx(1.0)


def test_documents_of_a_stream_lose_their_start_tokens_only() -> None:
    from nanochat_windows import split_documents

    stream = np.array([0, 5, 6, 0, 7])
    assert [part.tolist() for part in split_documents(stream, np.array([0, 3]))] == [[5, 6], [7]]


def test_a_budget_is_rate_times_seconds_in_whole_steps() -> None:
    from nanochat_bpb import steps_for

    assert steps_for(rate=5_000, seconds=300, tokens_per_step=4096) == 366
    assert steps_for(rate=1, seconds=1, tokens_per_step=4096) == 1


def test_the_verdict_needs_a_gap_wider_than_the_spread_of_seeds() -> None:
    from nanochat_bpb import summarise

    def runs(side: str, figures: list[float]) -> list[dict[str, object]]:
        return [{"side": side, "budget_seconds": 300, "bpb": figure} for figure in figures]

    (clear,) = summarise(runs("nanochat", [2.0, 2.01]) + runs("gradus", [1.9, 1.91]))
    assert clear["gap"] == pytest.approx(0.1)
    assert clear["better_by_more_than_spread"] is True
    (unclear,) = summarise(runs("nanochat", [2.0, 2.2]) + runs("gradus", [1.95, 1.96]))
    assert unclear["better_by_more_than_spread"] is False


def test_step_times_and_parameter_counts_are_read_from_the_printed_lines() -> None:
    from nanochat_throughput import parameter_counts, step_seconds, tokens_per_second

    output = "wte                     : 2,097,152\nstep 00001 | loss: 9.0 | dt: 820.50ms | tok/sec: 4,990\n"
    assert step_seconds(output) == [pytest.approx(0.8205)]
    assert parameter_counts(output) == {"wte": 2_097_152}
    assert tokens_per_second([0.5, 1.0, 2.0], 4096) == 4096


def test_the_split_is_by_hash_and_stops_at_the_cap() -> None:
    from nanochat_split import is_held_back, split

    texts = [f"document {i}" for i in range(2000)]
    train, validation, dropped = split([*texts, texts[0]], cap_bytes=100)
    assert 5 < len([text for text in texts if is_held_back(text)]) < 50
    assert all(is_held_back(text) for text in validation)
    assert sum(len(text) for text in validation) <= 100
    assert len(train) + len(validation) + dropped == 2000


def test_the_idle_fraction_lies_between_zero_and_one() -> None:
    from bench_record import idle_fraction

    assert 0.0 <= idle_fraction(0.05) <= 1.0
