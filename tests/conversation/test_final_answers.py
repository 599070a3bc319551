"""Final answers: GSM8K's rule against its published labels, boxed answers, and which values are the same."""

import gzip
import json
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest

from gradus.conversation.code_blocks import program_of
from gradus.conversation.final_answers import boxed_answer, gsm8k_answer, last_value, number, same_value, stated_answer

DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_the_published_gsm8k_solutions_get_their_published_labels():
    path = DATA / "gsm8k" / "example_model_solutions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there; set GRADUS_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    seen = 0
    for row in rows:
        # This file writes the last line as "A: 18", the data set itself as "#### 18".
        gold = gsm8k_answer(row["ground_truth"].replace("\nA: ", "\n#### "))
        for key in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            found = gsm8k_answer(row[key]["solution"].replace("\nA: ", "\n#### "))
            assert (found is not None and found == gold) == row[key]["is_correct"], row["question"]
            seen += 1
    assert seen == 4 * len(rows) > 2000


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so it is\n#### 18", "18"),
        ("#### 1,234.50 dollars", "1234.50"),
        ("#### -3", "-3"),
        ("#### 5\n#### 6\n#### 7", "5"),
        ("####5", None),
        ("the answer is 5", None),
        ("#### ten", None),
    ],
)
def test_gsm8k_takes_the_first_number_behind_four_hashes(text, answer):
    assert gsm8k_answer(text) == answer


def test_a_reference_states_its_number_as_gsm8k_or_as_imported_rows_do():
    assert stated_answer("9 * 2 = 18.\n#### 18") == "18"
    assert stated_answer("9 * 2 = 18.\nThe answer is 1,018.") == "1018"
    assert stated_answer("9 * 2 = 18.\nThe answer is 2.5.") == "2.5"
    assert stated_answer("The answer is 5. Or not.") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{1}, no: \boxed{ 2 }", "2"),
        (r"\fbox{x}", "x"),
        (r"\boxed {3}", "3"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{}", ""),
        ("42", None),
        (r"\boxed{{{", None),
    ],
)
def test_the_last_complete_box_counts(text, answer):
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("42", "42.0"), ("1,234", "1234"), (r"\frac{1}{2}", "0.5"), (r"\dfrac12", "1/2"), (r"-\frac{3}{4}", "-.75"),
        ("50%", "50.0"), (r"50\%", "50"), (r"12.5 \%", r"\frac{25}{2}"),
        ("$7$", "7."), (r"\$18.90", "18.9"), ("x=5", "5"), ("1e3", "1000"),
        (r"(1, \frac{1}{2})", "(1,0.5)"), (r"\text{east}", "east"), (r"\left( 3, 4 \right)", "(3,4)"),
        (r"90^\circ", "90"), ("90°", r"90^{\circ}"), (r"(6, 235^\circ)", "(6,235)"), (r"10\%", "10"),
        (r"25 \text{ ft}", "25"), (r"15\mbox{ cm}^2", "15.0"), (r"\$5$", "5"),
        (r"8\sqrt{3} \text { square inches}", r"8\sqrt{3}"),
        ("2\\sqrt{3}", r"2 \sqrt{3}"), ("−3", "-3"),
    ],
)  # fmt: skip
def test_the_same_value_in_another_spelling_is_the_same(one, other):
    assert same_value(one, other)
    assert same_value(other, one)


def test_the_published_math_solutions_are_right():
    path = DATA / "core_bundle" / "extra" / "math.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there; set GRADUS_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) > 2000
    for row in rows:
        boxed = boxed_answer(row["chain_of_thought"])
        assert boxed is not None
        assert same_value(boxed, row["answer"]), row


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("42", "43"), ("", ""), ("", "0"), ("1/2", "2"), ("1 or 2", "1"), ("1, 2, 3", "1"), ("(1, 2)", "[1, 2]"),
        ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("1/0", "1/0.0"), (r"\frac{1}{0}", "5"), ("x", "y"),
        ("nan", "0"), ("inf", "1e999"), ("__import__('os')", "1"), ("9**9", "387420489"), ("1/2/3", "6"), ("٣", "3"),
        (r"50\%", r"\frac{1}{2}"), ("100%", "1"), (r"25\text{ ft}", "26"), (r"\text{ a}", r"\text{ b}"), ("%", "%"),
        (r"5\!:\!30\text{ a.m.}", r"5\!:\!30\text{ p.m.}"),
    ],
)  # fmt: skip
def test_another_value_is_another(one, other):
    assert not same_value(one, other)


def test_numbers_are_exact():
    assert number("0.1") == Fraction(1, 10)
    assert number(r"\frac{22}{7}") == Fraction(22, 7)
    assert number("12,34") is None
    assert last_value("between 3 and 1,200.5") == "2401/2"
    assert last_value("none") is None


@pytest.mark.parametrize("text", ["9" * 10**6, "1e999", "(" * 10**5, "\\boxed{" * 10**4, "{" * 10**5, "-" * 10**5])
def test_hostile_text_takes_no_time(text):
    began = time.thread_time()  # not the clock: the machine may be busy
    assert not same_value(text, "1")
    boxed_answer(text)
    assert time.thread_time() - began < 15


def test_a_program_is_the_last_closed_block_or_all():
    assert program_of("a\n```python\nx = 1\n```\nor\n```py\ny = 2\n```\nSo.\n```py\nz") == "y = 2\n"
    assert program_of("x = 1") == "x = 1"
    assert program_of("```python\nx = 1") == "```python\nx = 1"


@pytest.mark.parametrize("text", ["```a\n" * 20000, "```a\nx\n```\n" + "```a\n" * 20000, "```\n" * 20000])
def test_openings_without_end_take_no_time(text):
    began = time.thread_time()
    program_of(text)
    assert time.thread_time() - began < 15
