"""Comparing two results: verdicts by hand, against exact tests, and how often chance alone is called a difference."""

import itertools
import math
import random

import pytest

from gradus.core.comparison import compare_measures, named_measures, paired_test
from gradus.core.gate import Gate, judge
from gradus.core.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    clustered_standard_error,
    mcnemar_exact,
    normal_p,
    proportion,
    sign_flip_exact,
)


def measure(right: list[int], **more: object) -> dict[str, object]:
    return proportion(sum(right), len(right)) | {"items": {str(i): v for i, v in enumerate(right)}} | more


def test_right_and_wrong_items_are_paired_exactly() -> None:
    first, second = [0] * 12 + [1] * 28, [1] * 11 + [0] * 1 + [1] * 26 + [0] * 2
    (found,) = compare_measures({"acc": measure(first)}, {"acc": measure(second)})
    assert found.p == mcnemar_exact(2, 11)
    assert (found.verdict, found.text) == ("better", "11 won, 2 lost of 40 shared items")
    (back,) = compare_measures({"acc": measure(second)}, {"acc": measure(first)})
    assert (back.verdict, back.p) == ("worse", found.p)
    (same,) = compare_measures({"acc": measure(first)}, {"acc": measure(first)})
    assert (same.verdict, same.p) == ("not resolved", 1.0)
    # 3 in 40 may differ by the rule of three.
    assert same.resolvable == pytest.approx(2.80 * math.sqrt(3) / 40)


def test_the_resolvable_difference_is_found_four_times_in_five() -> None:
    draw = random.Random(5)
    n, changed = 1000, 0.2
    (found,) = compare_measures(
        {"a": measure([0, 1] * (n // 2))}, {"a": measure([int(i % 2 != (draw.random() < changed)) for i in range(n)])}
    )
    assert found.resolvable is not None
    # Of 20 % items that differ, so many more are won than lost that the difference is the resolvable one.
    share = (1 + found.resolvable / changed) / 2
    seen = 0
    for _ in range(400):
        differ = [draw.random() < changed for _ in range(n)]
        won = sum(d and draw.random() < share for d in differ)
        seen += mcnemar_exact(sum(differ) - won, won) < 0.05
    assert seen / 400 == pytest.approx(0.8, abs=0.07)


def test_nats_are_better_when_fewer() -> None:
    draw = random.Random(1)
    first = {str(i): draw.gauss(5, 2) for i in range(300)}
    second = {key: value - 0.3 + draw.gauss(0, 0.5) for key, value in first.items()}
    many = paired_test(first, second, lower_is_better=True)
    few = paired_test(dict(list(first.items())[:40]), second, lower_is_better=True)
    assert many is not None
    assert few is not None
    assert many.gain == pytest.approx(0.3, abs=0.1)
    assert many.p < 1e-6
    assert few.shared == 40
    assert few.p < 0.01
    assert many.won > many.lost
    ppl = {"value": 9.0, "n": 300, "lower_is_better": True}
    (found,) = compare_measures({"p": ppl | {"items": first}}, {"p": ppl | {"items": second}})
    assert found.verdict == "better"


def test_without_shared_items_standard_errors_decide() -> None:
    def one(value: float, error: float) -> dict[str, object]:
        return {"value": value, "n": 100, "standard_error": error}

    (found,) = compare_measures({"a": one(0.5, 0.03)}, {"a": one(0.6, 0.04)})
    assert found.p == pytest.approx(normal_p(2.0))
    assert found.verdict == "better"
    assert found.resolvable == pytest.approx(2.80 * 0.05)
    (found,) = compare_measures({"a": one(0.5, 0.0)}, {"a": one(0.6, 0.0)})
    assert (found.verdict, found.text) == ("not resolved", "no shared items and no standard errors")
    assert compare_measures({"a": one(1, 1)}, {"b": one(1, 1)}) == []


def test_chance_is_called_a_difference_once_in_twenty_at_most_about() -> None:
    draw = random.Random(9)
    false = 0
    for _ in range(300):
        first = {str(i): draw.gauss(0, 1) for i in range(22)}
        second = {key: value + draw.gauss(0, 0.4) for key, value in first.items()}
        found = paired_test(first, second)
        assert found is not None
        false += found.p < 0.05
    # 22 tasks make a bootstrap a little too sure: 6 to 7 in a hundred.
    assert false / 300 < 0.1


def test_a_bootstrap_finds_the_interval_of_a_known_mean() -> None:
    draw = random.Random(2)
    values = [draw.gauss(1.0, 2.0) for _ in range(100)]
    low, high, p = bootstrap_mean(values)
    mean = sum(values) / 100
    error = math.sqrt(sum((v - mean) ** 2 for v in values)) / 100
    assert low == pytest.approx(mean - 1.96 * error, abs=0.06)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.06)
    assert p == bootstrap_mean(values)[2]
    assert bootstrap_mean([1.0, 1.0])[2] < 0.001


def test_a_gate_pairs_nats_of_passages() -> None:
    items = {str(i): 5.0 + i % 7 for i in range(50)}
    before = {"ppl": {"value": 20.0, "n": 50, "lower_is_better": True, "items": items}}
    worse = {
        "ppl": before["ppl"] | {"value": 24.0, "items": {k: v + 0.2 + 0.01 * (int(k) % 3) for k, v in items.items()}}
    }
    gate = Gate(measure="ppl", not_worse_than="base")
    assert judge(gate, before, {"base": worse}).passed
    verdict = judge(gate, worse, {"base": before})
    assert not verdict.passed
    assert verdict.text.startswith("ppl is worse than base: 0 won, 50 lost of 50 shared items, p = 0.0002")


def test_measures_are_named_by_their_tables() -> None:
    found = named_measures({"tasks": {"piqa": {"acc": {"value": 0.5}}}, "bpb": {"value": 1.0}, "tokens": 4})
    assert list(found) == ["tasks.piqa.acc", "bpb"]


def test_signs_of_single_items_are_mcnemar_and_of_clusters_every_change_of_sign() -> None:
    for lost, won in ((2, 11), (0, 5), (4, 4), (0, 0), (1, 0)):
        assert sign_flip_exact([-1] * lost + [1] * won) == pytest.approx(mcnemar_exact(lost, won))
    sums = [3, -1, 2, 0, 4, -2]
    every = [sum(s * d for s, d in zip(signs, sums, strict=True)) for signs in itertools.product((-1, 1), repeat=6)]
    assert sign_flip_exact(sums) == pytest.approx(sum(abs(one) >= 6 for one in every) / 64)
    # 2,000 clusters are no trouble, and far from balance there is next to no doubt.
    assert sign_flip_exact([1, 2] * 1000) < 1e-12


def test_items_that_share_a_passage_are_compared_by_their_clusters() -> None:
    draw = random.Random(2)
    called_by_items = called_by_clusters = 0
    for _ in range(300):
        # Ten questions on each of twelve passages; on a passage one model or the other knows all, by chance alone.
        first = [int(draw.random() < 0.5) for _ in range(12)]
        right = [value for value in first for _ in range(10)]
        other = [draw.choice((value, 1 - value)) for value in first]
        wrong = [value for value in other for _ in range(10)]
        clusters = {str(n): n // 10 for n in range(120)}
        one, two = measure(right), measure(wrong)
        (plain,) = compare_measures({"acc": one}, {"acc": two})
        (grouped,) = compare_measures({"acc": one | {"item_clusters": clusters}}, {"acc": two})
        called_by_items += plain.verdict != "not resolved"
        called_by_clusters += grouped.verdict != "not resolved"
    assert called_by_clusters / 300 < 0.05
    assert called_by_items / 300 > 0.3
    found = paired_test(one["items"], two["items"], clusters=clusters)  # type: ignore[arg-type]
    gains = [b - a for a, b in zip(right, wrong, strict=True)]
    assert found is not None
    assert found.standard_error == pytest.approx(clustered_standard_error(gains, [n // 10 for n in range(120)]))


def numbers(values: list[float], clusters: list[int] | None = None) -> dict[str, object]:
    grouped = {} if clusters is None else {"item_clusters": {str(i): c for i, c in enumerate(clusters)}}
    return {"value": sum(values) / len(values), "items": {str(i): v for i, v in enumerate(values)}} | grouped


@pytest.mark.parametrize(
    ("gains", "clusters", "verdict", "p"),
    [
        ([0.1, 0.3, 0.2], [0, 0, 0], "not resolved", 1.0),  # one cluster
        ([0.7, 0.7], [0, 1], "not resolved", 0.5),
        ([0.7, 0.7], None, "not resolved", 0.5),
        ([0.7, 0.7, 0.0, 0.0], None, "not resolved", 0.5),  # what does not differ tells nothing
        ([0.7] * 6, [0, 1, 2, 3, 4, 5], "better", 2 / 64),
        ([0.7] * 6, None, "better", 2 / 64),
        ([-0.7] * 12, [n // 2 for n in range(12)], "worse", 2 / 64),
    ],
)
def test_a_few_numbers_that_differ_alike_are_no_surer_than_their_signs(
    gains: list[float], clusters: list[int] | None, verdict: str, p: float
) -> None:
    base = [5.1 + n for n in range(len(gains))]
    second = [b + g for b, g in zip(base, gains, strict=True)]
    (found,) = compare_measures({"m": numbers(base, clusters)}, {"m": numbers(second, clusters)})
    assert (found.verdict, found.p) == (verdict, pytest.approx(p))
    if clusters is not None:
        assert found.resolvable is None  # no error can be told where all differ alike


def test_a_ratio_of_sums_is_as_sure_as_its_documents_are_many() -> None:
    draw = random.Random(4)
    sizes = [draw.randrange(50, 500) for _ in range(400)]
    nats = [size * draw.gauss(1.4, 0.2) for size in sizes]
    low, high, error = bootstrap_ratio(nats, sizes)
    mean = sum(nats) / sum(sizes)
    residuals = sum((n - mean * s) ** 2 for n, s in zip(nats, sizes, strict=True))
    assert error == pytest.approx(math.sqrt(residuals) / sum(sizes), rel=0.1)  # the delta method
    assert low < mean < high
    assert (high - low) / error == pytest.approx(2 * 1.96, rel=0.1)
    assert bootstrap_ratio(nats, sizes) == (low, high, error)
    with pytest.raises(ValueError, match="0 and 0 values"):
        bootstrap_ratio([], [])
