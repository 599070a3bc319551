"""Quantities with units, and figures written for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity, format_bytes, format_count, format_seconds, parse_quantity


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("20 tokens/param", 20, "tokens/param"),
        ("4e19 flops", 4e19, "flops"),
        ("5_000 steps", 5000, "steps"),
        ("3B tokens", 3e9, "tokens"),
        ("100 M tokens", 1e8, "tokens"),
        ("1.5 epochs", 1.5, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("2k documents", 2000, "documents"),
        ("40 GB", 4e10, "bytes"),
        ("1.5 tb", 1.5e12, "bytes"),
        ("5M bytes", 5e6, "bytes"),
    ],
)
def test_the_accepted_forms_are_read(text, value, unit):
    assert parse_quantity(text) == Quantity(value, unit)


@pytest.mark.parametrize("text", ["", "20", "tokens", "-3 steps", "0 steps", "3 x steps", "1e999 flops", "3k GB"])
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError):
        parse_quantity(text)


def test_the_error_names_the_accepted_forms():
    with pytest.raises(ConfigError, match='cannot read "twenty" as a quantity; write one of "20 tokens/param", "4e19'):
        parse_quantity("twenty")


def test_a_unit_can_be_refused_where_it_makes_no_sense():
    with pytest.raises(ConfigError, match='"3 steps": the unit must be tokens or documents here, found steps'):
        parse_quantity("3 steps", ("tokens", "documents"))


@pytest.mark.parametrize(
    "text", ["2.5 steps", "0.4 steps", "1.0005k steps", "25e-1 steps", "1e-30 steps", "0.5 documents"]
)
def test_half_a_step_is_no_step(text):
    with pytest.raises(ConfigError, match=r'"[^"]+": expected a whole number of (steps|documents)'):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1.5k steps", 1500), ("1.005k steps", 1005), ("2.0 steps", 2), ("1e40 steps", 1e40)]
)
def test_a_whole_number_of_steps_may_be_written_with_a_point(text, value):
    assert parse_quantity(text) == Quantity(value, "steps")


@given(st.integers(1, 10**14), st.sampled_from(["steps", "documents"]))
def test_a_printed_count_reads_back(value, unit):
    assert parse_quantity(str(Quantity(float(value), unit))) == Quantity(float(value), unit)


@given(st.floats(1e-3, 1e30), st.sampled_from(["tokens", "flops", "tokens/param", "epochs", "bytes"]))
def test_a_printed_quantity_reads_back(value, unit):
    read = parse_quantity(str(Quantity(value, unit)))
    assert read.unit == unit
    assert read.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (7, "7"), (1234, "1,234"), (12_345, "12.3 k"), (999_960, "1 M"), (1_200_000, "1.2 M"),
        (3e9, "3 B"), (4e19, "4e+19"), (0.25, "0.25"), (2280.4, "2,280"), (999_999_999_999, "1 T"),
    ],
)  # fmt: skip
def test_counts_read_well(value, text):
    assert format_count(value) == text


def test_seconds_and_bytes_read_well():
    assert [format_seconds(s) for s in (0.25, 8.12, 59.6, 200, 7500, 100_000)] == [
        "0.25 s", "8.1 s", "1 m 0 s", "3 m 20 s", "2 h 5 m", "1 d 3 h",
    ]  # fmt: skip
    assert [format_bytes(b) for b in (512, 1536, 2 * 2**30)] == ["512 B", "1.5 KiB", "2.0 GiB"]
