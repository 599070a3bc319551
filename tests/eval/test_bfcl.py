"""BFCL: verdicts of the official checker, what is asked, scores of the leaderboard, categories that are refused."""

import json
import os
import random
from pathlib import Path

import bfcl_calls
import pytest
from seeded_bundle import write_seeded_bundle

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Message, ToolCall
from gradus.core.comparison import compare_measures, paired_test
from gradus.core.errors import ConfigError, DataError
from gradus.core.statistics import clustered_proportion, proportion
from gradus.engine.load import load_engine
from gradus.eval import bfcl
from gradus.eval.aggregate import Part, weighted_sum
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of, num_answers, num_characters, tasks_meant
from gradus.eval.bfcl_check import calls_fault
from gradus.eval.bfcl_source import java_value, javascript_value
from gradus.eval.generative import problems_of
from gradus.eval.task_run import gathered, run_tasks

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = Path(__file__).parent / "golden" / "bfcl_verdicts.json"
published = pytest.mark.skipif(not (DATA / "bfcl").is_dir(), reason=f"{DATA}/bfcl is not there; set GRADUS_DATA")

ADD = {
    "name": "math.add", "description": "Adds.",
    "parameters": {"type": "dict", "required": ["a"], "properties": {
        "a": {"type": "float", "description": "One."},
        "names": {"type": "array", "items": {"type": "string"}, "description": "Many."},
        "where": {"type": "dict", "description": "A place.", "properties": {"city": {"type": "any"}}},
    }},
}  # fmt: skip
RIGHT = [
    {"math.add": {"a": [2.0], "names": [["Ann", "Bo"], ""], "where": [{"city": ["Rome", "rom"], "zip": [""]}, ""]}}
]


def call(name="math.add", **arguments):
    return ToolCall("1", name, arguments)


def turn(*calls):
    return AssistantTurn((Message("assistant", "", tool_calls=calls),), "calls" if calls else "stop")


@published
def test_verdicts_equal_those_of_the_official_checker_on_right_and_on_spoiled_calls() -> None:
    golden = json.loads(GOLDEN.read_text())["verdicts"]
    seen = right = 0
    for category in bfcl_calls.CATEGORIES:
        verdicts = iter(golden[category])
        for row, rights in bfcl_calls.questions(DATA, category):
            question = row | {bfcl.BESIDE: {"ground_truth": rights}}
            for calls in bfcl_calls.cases(row, rights):
                fault = bfcl.fault(question, turn(*(ToolCall("1", *one) for one in calls)))
                assert (fault is None) == (next(verdicts) == "1"), (row["id"], calls, fault)
                seen, right = seen + 1, right + (fault is None)
        assert next(verdicts, None) is None
    assert (seen, right) == (12505, 6744)


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        ([call(a=2)], None),
        ([call(a=2.0, names=["ann", "B.O"], where={"city": "ROM"})], None),
        ([call(a="2")], "a = '2', expected one of [2.0]"),
        ([call(a=2, names=["Bo", "Ann"])], "names = ['Bo', 'Ann'], expected one of [['Ann', 'Bo'], '']"),
        ([call(a=2, names=[])], None),
        ([call(a=2, where={"city": "Rome", "street": "x"})], "where = {'city': 'Rome', 'street': 'x'}, expected "),
        ([call(names=["Ann", "Bo"])], "lacks the required argument a"),
        ([call(a=2, b=3)], "unexpected argument b"),
        ([call("add", a=2)], "calls add, expected math.add"),
        ([call(a=2), call(a=2)], "2 calls, expected 1"),
        ([], "0 calls, expected 1"),
    ],
)  # fmt: skip
def test_a_fault_says_what_was_called_and_what_was_expected(calls, fault) -> None:  # type: ignore[no-untyped-def]
    found = calls_fault(calls, [ADD], RIGHT, "python")
    assert found == fault or (fault is not None and found is not None and found.startswith(fault))


def test_calls_side_by_side_may_stand_in_any_order() -> None:
    rights = [{"math.add": {"a": [number]}} for number in (1, 2, 3)]
    assert calls_fault([call(a=3), call(a=1), call(a=2)], [ADD], rights, "python") is None
    found = calls_fault([call(a=3), call(a=1), call(a=1)], [ADD], rights, "python")
    assert found == "no call is math.add as expected: a = 3, expected one of [2]; a = 1, expected one of [2]"


def test_values_are_read_from_source_text() -> None:
    assert java_value("new ArrayList<>(Arrays.asList(1L, 2L))", "ArrayList", "long") == [1, 2]
    assert java_value('new HashMap<String, Object>() {{ put("a", 1.5); put("b", true); }}', "HashMap") == {
        "a": 1.5, "b": True
    }  # fmt: skip
    assert [java_value("7", kind) for kind in ("integer", "long", "float", "double")] == [7, "7", "7", 7.0]
    assert javascript_value("[[1, 2], ['a', true]]", "array") == [[1, 2], ["a", True]]
    assert javascript_value("{'k': [1, 2]}", "dict") == {"k": [1, 2]}
    assert javascript_value("someVariable", "array") == "someVariable"


def test_what_a_model_repeats_without_end_is_judged_at_once() -> None:
    # A table of 60 rows without its end could be parted into rows in 2^60 ways.
    table = "[" + ",".join(["[1,2]"] * 60)
    assert javascript_value(f"{table} x", "array") == ["[1", 2]
    assert javascript_value(f"{table}]", "array") == [[1, 2]] * 60
    assert javascript_value("[[1],\n[2]]", "array") == [[1], [2]]
    digits = "7" * 5000  # more than Python reads as a number
    assert java_value(digits, "integer") == digits
    assert java_value(digits + "L", "long") == digits
    fault = calls_fault([call(a=10**400)], [ADD], RIGHT, "python")
    assert fault is not None
    assert fault.startswith("a = 1000")


def test_only_whether_there_is_a_call_counts_where_none_is_right() -> None:
    for item_id, faults in {
        "irrelevance_1": (None, "calls math.add, expected no call"),
        "live_irrelevance_2-0-0": (None, "calls math.add, expected no call"),
        "live_relevance_3-0-0": ("no call", None),
    }.items():
        assert tuple(bfcl.fault({"id": item_id}, turn(*calls)) for calls in ([], [call()])) == faults


def test_tools_are_told_with_json_types_and_the_language() -> None:
    row = {"id": "simple_python_0", "question": [[{"role": "user", "content": "Add!"}]], "function": [ADD]}
    asked = bfcl.question(row)
    assert asked.messages == (Message("user", "Add!"),)
    (tool,) = asked.tools
    assert (tool.name, tool.description) == (
        "math.add", "Adds. Note that the provided function is in Python 3 syntax."
    )  # fmt: skip
    assert tool.parameters["type"] == "object"
    assert tool.parameters["properties"]["a"] == {
        "type": "number", "format": "float", "description": "One. This is a float type value."
    }  # fmt: skip
    assert tool.parameters["properties"]["where"]["properties"] == {"city": {"type": "string"}}
    lists = {"type": "ArrayList", "items": {"type": "long"}, "description": "Ids."}
    java = ADD | {"parameters": {"type": "dict", "required": [], "properties": {"ids": lists}}}
    (tool,) = bfcl.question(row | {"id": "simple_java_0", "function": [java]}).tools
    assert tool.parameters["properties"]["ids"] == {
        "type": "string",
        "description": "Ids. This is Java ArrayList type parameter in string representation. The list elements are of "
        "type long; they are not in string representation.",
    }


@published
def test_every_published_question_can_be_asked_and_its_files_are_known() -> None:
    settings = BenchmarkSettings(DATA)
    counts = [num_answers(name, settings) for name in tasks_meant(["bfcl"])]
    assert counts == [400, 100, 50, 200, 200, 200, 240, 258, 1053, 16, 24, 884, 16]
    assert num_answers("bfcl", settings) == sum(counts)
    assert num_characters("bfcl", BenchmarkSettings(DATA, limit=2)) > 26 * 100
    assert len([path for path in files_of("bfcl", settings) if path.parent.name == "bfcl"]) == 13
    asked = dict(problems_of("bfcl.live_irrelevance", DATA))
    assert [m.role for m in asked["live_irrelevance_0-0-0"].earlier] in ([], ["system"])
    assert any(problem.earlier for problem in asked.values())


@published
def test_a_model_is_asked_and_the_leaderboards_figures_stand_beside_the_categories(tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_seeded_bundle(tmp_path)
    engine = load_engine(tmp_path)
    names = ["bfcl.irrelevance", "bfcl.live_relevance"]
    found = dict(run_tasks(engine, names, BenchmarkSettings(DATA, limit=2, max_tokens=8)))
    measures = gathered(found)["bfcl"]
    # A model that has learned nothing calls nothing, and its context holds few of these questions.
    assert list(measures) == ["irrelevance", "live_relevance"]
    assert measures["live_relevance"]["acc"]["value"] == 0
    entry = found["bfcl.irrelevance"].to_json()["items"][0]
    assert entry["reference"] == "no call"


def test_figures_are_means_as_on_the_leaderboard_and_pair_by_item() -> None:
    draw = random.Random(0)

    def measure(n):  # type: ignore[no-untyped-def]
        items = {str(k): draw.randrange(2) for k in range(n)}
        return proportion(sum(items.values()), n) | {"items": items}

    sizes = dict(zip(bfcl.CATEGORIES, (4, 2, 3, 5, 6, 7, 8, 9, 10, 3, 2, 5, 4), strict=True))
    one, two = ({name: measure(n) for name, n in sizes.items()} for _ in range(2))
    v = {name: found["value"] for name, found in one.items()}
    parts = bfcl.bfcl_parts(sizes)
    figures = {name: weighted_sum(part, one) for name, part in parts.items()}
    simple = (v["simple_python"] + v["simple_java"] + v["simple_javascript"]) / 3
    expected = (simple + v["multiple"] + v["parallel"] + v["parallel_multiple"]) / 4
    assert figures["non_live"]["value"] == pytest.approx(expected)
    right = sum(sum(one[name]["items"].values()) for name in bfcl.LIVE)
    assert figures["live"]["value"] == pytest.approx(right / 24)
    assert figures["live"]["n"] == 24
    assert figures["all_irrelevance"]["value"] == pytest.approx((v["irrelevance"] + v["live_irrelevance"]) / 2)
    # One task alone has its own interval, and none right is not surely 0.
    assert weighted_sum({"multiple": Part(1.0)}, one)["upper"] == pytest.approx(one["multiple"]["upper"])
    none = {name: proportion(0, n) | {"items": {}} for name, n in sizes.items()}
    assert 0.05 < weighted_sum(parts["non_live"], none)["upper"] < 0.5
    other = weighted_sum(parts["non_live"], two)
    paired = paired_test(figures["non_live"]["items"], other["items"])
    assert paired is not None
    assert paired.gain == pytest.approx(other["value"] - figures["non_live"]["value"])


def test_what_is_not_asked_is_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name, why in {
        "bfcl.memory": "its questions need a memory",
        "bfcl.web_search": "its questions need the live web",
    }.items():
        with pytest.raises(ConfigError, match=rf'task "{name}" is not asked here: {why}.*\(asked are simple_python, '):
            check_tasks([name], BenchmarkSettings())
    with pytest.raises(ConfigError, match=r'unknown task "bfcl\.paralel"; did you mean "bfcl\.parallel"'):
        check_tasks(["bfcl.paralel"], BenchmarkSettings())
    (tmp_path / "bfcl").mkdir()
    (tmp_path / "bfcl/BFCL_v4_parallel.json").write_text(
        json.dumps({"id": "parallel_0", "question": [], "function": []})
    )
    with pytest.raises(DataError, match=r"BFCL_v4_parallel\.json:1: not a row of \"bfcl\""):
        problems_of("bfcl.parallel", tmp_path)


def test_items_that_are_alike_in_a_task_are_so_in_its_group() -> None:
    """Ten passages of five questions each, all right or all wrong: the group resolves as little as the task."""
    draw = random.Random(3)
    right = [[draw.random() < 0.5 for _ in range(10)] for _ in range(2)]
    clusters = {str(n): n // 5 for n in range(50)}
    found = []
    for passages in right:
        items = {key: int(passages[cluster]) for key, cluster in clusters.items()}
        acc = clustered_proportion(list(items.values()), list(clusters.values()))
        found.append({"squad": acc | {"items": items, "item_clusters": clusters}})
    group = [weighted_sum({"squad": Part(2.0, 0.25)}, one) for one in found]
    for one, measures in zip(group, found, strict=True):
        assert one["value"] == pytest.approx(2 * (measures["squad"]["value"] - 0.25))
        assert one["standard_error"] == pytest.approx(2 * measures["squad"]["standard_error"])
        assert one["upper"] - one["value"] == pytest.approx(
            2 * (measures["squad"]["upper"] - measures["squad"]["value"])
        )
    (alone,) = compare_measures({"a": found[0]["squad"]}, {"a": found[1]["squad"]})
    (grouped,) = compare_measures({"a": group[0]}, {"a": group[1]})
    assert grouped.resolvable == pytest.approx(2 * alone.resolvable)  # type: ignore[operator]
    group[0].pop("item_clusters")
    (apart,) = compare_measures({"a": group[0]}, {"a": group[1]})
    assert apart.resolvable < 0.6 * grouped.resolvable  # type: ignore[operator]
