"""Suite results: counts and Wilson bounds by hand, and the shape of the results file."""

import json
import math
from dataclasses import replace

import pytest

from gradus.core.gate import Gate, judge
from gradus.core.statistics import wilson
from gradus.eval.result import ItemResult, SampleResult, SuiteResult, passed_measure, suite_measures


def sample(*reasons: str, answer: str = "x") -> SampleResult:
    return SampleResult(reasons, answer, "hm", ({"name": "t", "arguments": {}, "result": "1"},), "stop", 3)


def items(category: str, outcomes: list[bool]) -> tuple[ItemResult, ...]:
    return tuple(
        ItemResult(f"{category}-{i}", category, (sample(*([] if ok else ["calls: did not"])),))
        for i, ok in enumerate(outcomes)
    )


def test_wilson_bounds_of_32_in_33_are_the_published_ones() -> None:
    found = passed_measure(items("a", [True] * 32 + [False]))
    assert (found["n"], found["successes"]) == (33, 32)
    assert found["value"] == pytest.approx(32 / 33)
    assert (round(found["lower"], 3), round(found["upper"], 3)) == (0.847, 0.995)
    # sqrt(32/33 x 1/33 / 33) = 5.656854 / 33 / 5.744563
    assert found["standard_error"] == pytest.approx(0.029840, abs=1e-6)


def test_a_suite_without_items_proves_nothing() -> None:
    assert passed_measure(()) == {
        "value": 0.0,
        "n": 0,
        "successes": 0,
        "lower": 0.0,
        "upper": 1.0,
        "standard_error": 0.0,
    }


def test_the_file_has_total_categories_and_items_in_order() -> None:
    result = SuiteResult("s", "m", items("percent", [True, False]) + items("age", [True]))
    data = json.loads(json.dumps(result.to_json()))
    assert list(data) == ["suite", "model", "total", "categories", "loops", "items"]
    assert list(data["categories"]) == ["percent", "age"]
    assert data["total"]["successes"] == 2
    assert data["categories"]["percent"]["value"] == 0.5
    assert data["items"][1] == {
        "id": "percent-1",
        "category": "percent",
        "passed": False,
        "reasons": ["calls: did not"],
        "answer": "x",
        "thinking": "hm",
        "calls": [{"name": "t", "arguments": {}, "result": "1"}],
    }


@pytest.mark.parametrize(("num_passed", "passed"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_an_item_passes_when_more_than_half_of_its_samples_do(num_passed: int, passed: bool) -> None:
    samples = tuple(sample(*([] if i < num_passed else ["stops: no"])) for i in range(4))
    item = ItemResult("i", "c", samples)
    assert item.passed is passed
    entry = item.to_json()
    assert (entry["samples"], entry["samples_passed"]) == (4, num_passed)
    assert bool(entry["reasons"]) is not passed


def test_several_samples_give_a_pass_rate_whose_interval_knows_that_they_are_alike() -> None:
    # 10 probes of 4 samples: 5 pass all four, 5 none, so that 40 answers tell no more than 10.
    alike = [
        ItemResult(f"i{n}", "c", tuple(sample(*([] if n < 5 else ["stops: no"])) for _ in range(4))) for n in range(10)
    ]
    measures = SuiteResult("s", "m", tuple(alike)).measures()
    rate = measures["pass_rate"]["total"]
    assert (rate["value"], rate["n"], rate["clusters"]) == (0.5, 40, 10)
    # Each cluster's residuals sum to 2: sqrt(10 x 2^2) / 40, the standard error of 10 coin flips.
    assert rate["standard_error"] == pytest.approx(math.sqrt(0.25 / 10))
    assert (rate["lower"], rate["upper"]) == pytest.approx(wilson(5, 10))
    assert rate["items"]["i0"] == 1.0
    mixed = [ItemResult(f"i{n}", "c", (sample(), sample("stops: no"))) for n in range(10)]
    rate = SuiteResult("s", "m", tuple(mixed)).measures()["pass_rate"]["c"]
    # One half of each probe: never wider than 20 independent answers.
    assert (rate["lower"], rate["upper"]) == pytest.approx(wilson(10, 20))
    assert "pass_rate" not in SuiteResult("s", "m", items("a", [True])).measures()
    every = SuiteResult("s", "m", tuple(ItemResult(f"i{n}", "c", (sample(), sample())) for n in range(10)))
    assert every.measures()["pass_rate"]["total"]["lower"] == pytest.approx(wilson(10, 10)[0])


def test_looping_replies_are_counted_with_the_bound_of_three_in_n() -> None:
    none = SuiteResult("s", "m", items("a", [True] * 30)).measures()["loops"]["replies"]
    assert (none["successes"], none["upper"]) == (0, pytest.approx(0.1))
    looping = replace(sample(), loop="3 words 9 times over")
    data = SuiteResult("s", "m", (ItemResult("i", "c", (looping,)),)).to_json()
    assert data["loops"]["successes"] == 1
    assert data["items"][0]["loop"] == "3 words 9 times over"


def test_measures_carry_items_for_the_paired_test_of_a_gate() -> None:
    before = SuiteResult("s", "m", items("a", [True] * 8 + [False] * 2)).measures()
    after = SuiteResult("s", "m", items("a", [False] * 8 + [True] * 2)).measures()
    assert after["total"]["items"]["a-0"] == 0
    assert after["a"]["n"] == 10
    verdict = judge(Gate(measure="total", not_worse_than="before"), after, {"before": before})
    assert "2 won, 8 lost of 10 shared items" in verdict.text


def test_a_file_is_read_back_as_the_measures_that_it_was_written_from() -> None:
    for samples in (1, 3):
        passes = [sample() if n % 3 else sample("no") for n in range(4 * samples)]
        found = tuple(
            ItemResult(f"i{n}", "ab"[n % 2], tuple(passes[n * samples : (n + 1) * samples])) for n in range(4)
        )
        mixed = (*found, ItemResult("once", "b", (sample(),)))
        result = SuiteResult("s", "m", mixed)
        assert suite_measures(json.loads(json.dumps(result.to_json()))) == result.measures()
