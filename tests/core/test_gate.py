"""Gates and the statistics under them, against arithmetic by hand."""

import math

import pytest

from gradus.core.comparison import named_measures
from gradus.core.errors import ConfigError
from gradus.core.gate import Gate, find_measure, judge, reachable_bound, unreachable_bound, without_items
from gradus.core.statistics import fault_rate, mcnemar_exact, standard_error, wilson
from gradus.roadmap.report_measures import plain_results

MEASURES = {
    "probes": {"total": {"value": 0.97, "n": 33, "successes": 32}, "weekday": {"value": 0.5, "n": 10}},
    "bpb": 1.9,
}


def test_wilson_agrees_with_the_published_example():
    low, high = wilson(32, 33)
    assert low == pytest.approx(0.847, abs=5e-4)
    assert high == pytest.approx(0.995, abs=5e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson(11, 10)


def test_mcnemar_is_twice_the_binomial_tail():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 * 0.5**5)
    assert mcnemar_exact(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar_exact(3, 3) == 1.0


def test_standard_errors_by_hand():
    assert standard_error([1, 2, 3, 4]) == pytest.approx(math.sqrt(5 / 3 / 4))
    assert standard_error([2]) == 0.0
    assert standard_error([1, 0, 1, 0]) == pytest.approx(math.sqrt((4 * 0.25) / 3 / 4))


def test_a_value_gate_passes_and_fails_with_its_figures():
    verdict = judge(Gate(measure="probes.total", at_least=0.95), MEASURES)
    assert verdict.passed
    assert verdict.text == "probes.total = 0.97 (n = 33) is at least 0.95"
    verdict = judge(Gate(measure="bpb", at_most=1.5), MEASURES)
    assert not verdict.passed
    assert verdict.text == "bpb = 1.9 is above 1.5"


def test_a_bound_gate_uses_the_interval_and_says_when_it_is_out_of_reach():
    verdict = judge(Gate(measure="probes.total", bound="lower", at_least=0.84), MEASURES)
    assert verdict.passed
    assert verdict.text == "lower bound of probes.total = 0.8468 (n = 33) is at least 0.84"
    verdict = judge(Gate(measure="probes.total", bound="lower", at_least=0.95), MEASURES)
    assert not verdict.passed
    assert "no result can reach it with 33 items" in verdict.text
    assert reachable_bound(33) < 0.95 < reachable_bound(100)


def test_a_bound_without_a_count_is_an_error():
    with pytest.raises(ConfigError, match='"bpb", which was measured without a count; use bound = "value"'):
        judge(Gate(measure="bpb", bound="upper", at_most=2), MEASURES)


def test_regression_is_judged_on_shared_items():
    def measured(right):
        items = {str(i): int(i < right) for i in range(20)}
        return {"probes": {"total": {"value": right / 20, "n": 20, "items": items}}}

    gate = Gate(measure="probes.total", not_worse_than="sft")
    verdict = judge(gate, measured(10), {"sft": measured(20)})
    assert not verdict.passed
    assert verdict.text == "probes.total is worse than sft: 0 won, 10 lost of 20 shared items, p = 0.00195"
    assert judge(gate, measured(18), {"sft": measured(20)}).passed
    assert judge(gate, measured(20), {"sft": measured(10)}).passed
    with pytest.raises(ConfigError, match='no results of stage "sft" to compare with; did you mean "sft2"'):
        judge(gate, measured(20), {"sft2": measured(10)})


def test_an_unpaired_loss_may_not_rise():
    gate = Gate(measure="bpb", at_most=3, not_worse_than="base")
    assert not judge(gate, MEASURES, {"base": {"bpb": 1.8}}).passed
    assert judge(gate, MEASURES, {"base": {"bpb": 2.0}}).passed


def test_measures_are_named_by_dots_and_slips_are_answered():
    assert list(named_measures(MEASURES, numbers=True)) == ["probes.total", "probes.weekday", "bpb"]
    assert find_measure(MEASURES, "bpb") == {"value": 1.9}
    with pytest.raises(ConfigError, match=r'no measure "probes\.totl" in the results; did you mean "probes\.total"'):
        find_measure(MEASURES, "probes.totl")
    with pytest.raises(ConfigError, match=r'"probes" holds several measures; name one of probes\.total'):
        find_measure(MEASURES, "probes")


def test_a_part_of_a_name_may_hold_dots():
    measures = {"rows": {"a.jsonl": 3, "a": {"b": 4}}}
    named = named_measures(measures, numbers=True)
    assert [find_measure(measures, name) for name in named] == list(named.values()) == [{"value": 3}, {"value": 4}]


def test_a_gate_without_a_condition_is_refused():
    with pytest.raises(ValueError, match="needs a condition"):
        Gate(measure="bpb")


def test_a_rating_below_its_bar_is_not_said_to_be_out_of_reach() -> None:
    rated = {"score": {"value": 5.5, "n": 80, "lower": 5.1, "upper": 5.9}}
    verdict = judge(Gate(measure="score", bound="lower", at_least=5.4), rated)
    assert (verdict.passed, verdict.text) == (False, "lower bound of score = 5.1 (n = 80) is below 5.4")


def test_records_leave_out_what_a_measure_has_for_each_item() -> None:
    measure = {"value": 0.5, "n": 2, "clusters": 1, "items": {"a": 1, "b": 0}, "item_clusters": {"a": 0, "b": 0}}
    assert without_items(measure) == {"value": 0.5, "n": 2, "clusters": 1}
    assert plain_results({"squad": {"acc": measure}}) == {"squad": {"acc": {"value": 0.5, "n": 2, "clusters": 1}}}


def test_a_bar_that_so_many_items_cannot_reach_is_known_before() -> None:
    reach = wilson(50, 50)[0]
    assert unreachable_bound(Gate(measure="a", bound="lower", at_least=reach), 50) is None
    assert unreachable_bound(Gate(measure="a", bound="lower", at_least=0.95), 50) == (
        'gate on "a": the lower bound of 50 items comes to 0.9286 at best, and at_least = 0.95 is asked: no result can '
        'pass; ask more items, set another bar, or write bound = "value"'
    )
    # 100 answers without a fault have the bound 3 / 100, and Wilson's of as many would be 0.037.
    passing = Gate(measure="a", bound="upper", at_most=0.03)
    assert judge(passing, {"a": fault_rate(0, 100)}).passed
    assert unreachable_bound(passing, 100) is None
    assert unreachable_bound(passing, 99) is not None
    assert unreachable_bound(Gate(measure="a", at_least=0.99), 5) is None
