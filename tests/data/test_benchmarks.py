"""Evaluation sets: rows as they are published, every set of the real data with its number of items, and mistakes."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gradus.core.errors import ConfigError, DataError
from gradus.data.benchmarks import BENCHMARKS, GROUPS, benchmark_items, benchmark_names, is_mathematics

# As the folders' own descriptions say: rows, of the evaluation splits where a set has several.
NUM_ITEMS = {
    "aqua": 247,
    "arc_challenge": 594 + 155,
    "arc_easy": 1159 + 290,
    "bfcl": None,  # its description counts line feeds, one fewer than rows in most files
    "boolq_train": 9427,
    "commonsense_qa_train": 9741,
    "gsm8k": 660,
    "hellaswag": 533,
    "humaneval": 164,
    "lambada": 2554,
    "math_train": 7434,
    "mbpp": 500,
    "mmlu": 7015 + 799,
    "mt_bench": 80,
    "openbookqa_train": 4952,
    "piqa": 943,
    "svamp": 1000,
    "vicuna_bench": 80,
    "wikitext2": 4026,  # 3760 + 4358 lines, of which the others are blank or headings
    "winogrande": 635,
}


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_set_reads_with_its_number_of_items(name: str, real_data: Path) -> None:
    items = list(benchmark_items(name, real_data))
    assert len({item.id for item in items}) == len(items)
    assert all(item.text == item.text.strip() != "" for item in items)
    wanted = NUM_ITEMS.get(name)
    if name.startswith("core_"):
        file = BENCHMARKS[name].files[0].removeprefix("core_bundle/")
        described = (real_data / "core_bundle/SOURCE.md").read_text(encoding="utf-8")
        wanted = int(re.findall(rf"^\| {re.escape(file)}(?:\.gz)? \| (\d+) ", described, re.MULTILINE)[0])
    assert wanted is None or len(items) == wanted


def core_row(**row: Any) -> tuple[str, str]:
    return BENCHMARKS["core_piqa"].row(row)


def test_an_item_is_its_question_and_its_right_answer_without_the_frame() -> None:
    assert core_row(query="Question: Why?\n", choices=["no", "yes"], gold=1) == ("Why?", "yes")
    assert core_row(context="The country of X is", continuation="Y") == ("The country of X is", "Y")
    assert core_row(context="Question: What?\nAnswer:", answer="That", aliases=["It"]) == ("What?", "That")
    lettered = "Context: It rained.\nQuestion: Why?\nChoices:\nA. clouds\nB. wind\nAnswer:"
    assert core_row(query=lettered, choices=["A", "B"], gold=0) == ("It rained.\nWhy?", "clouds")
    schema = {"context_options": ["the cup", "the jug"], "continuation": "is big.", "gold": 1}
    assert core_row(**schema) == ("", "the jug is big.")
    assert core_row(prompt="def f():\n", canonical_solution="    return 1\n") == ("def f():\n", "    return 1\n")


def test_a_passage_that_the_answer_is_read_from_is_left_out() -> None:
    row = BENCHMARKS["core_coqa"].row
    context = "Passage: Long ago.\n\nPreceding questions:\n\nQuestion: When?\nAnswer: Ago\n\nFinal question:\n\n"
    assert row({"context": f"{context}Question: Who?\nAnswer:", "continuation": "She"}) == ("Who?", "She")


def test_rows_of_single_sets() -> None:
    def read(name: str, **row: Any) -> tuple[str, str]:
        return BENCHMARKS[name].row(row)

    options = ["A)3 apples", "B)4"]
    assert read("aqua", question="How many?", options=options, correct="A") == ("How many?", "3 apples")
    worked = "2 and 2 is <<2+2=4>>4.\n#### 4"
    assert read("gsm8k", question="Sum?", answer=worked) == ("Sum?", "2 and 2 is 4.\n 4")
    assert read("mmlu", cells=["Which?", "a", "b", "c", "d", "C"]) == ("Which?", "c")
    assert read("svamp", Body="Ann had 3.", Question="Now?", Answer=51.0) == ("Ann had 3. Now?", "51")
    sentence = "Ann thanked Eve because _ helped."
    assert read("winogrande", sentence=sentence, option1="Ann", option2="Eve", answer="2") == (
        "",
        "Ann thanked Eve because Eve helped.",
    )
    assert read("wikitext2", text=" = = Life = = \n") == ("", "")


def test_answers_in_another_file_are_joined(tmp_path: Path) -> None:
    (tmp_path / "piqa").mkdir()
    rows = [{"goal": f"goal {n}", "sol1": "one", "sol2": "two"} for n in range(2)]
    (tmp_path / "piqa/valid.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"valid-labels\.lst: no such file, which belongs to valid\.jsonl"):
        list(benchmark_items("piqa", tmp_path))
    (tmp_path / "piqa/valid-labels.lst").write_text("1\n0\n")
    assert [item.text for item in benchmark_items("piqa", tmp_path)] == ["goal 0\ntwo", "goal 1\none"]
    (tmp_path / "bfcl/possible_answer").mkdir(parents=True)
    question = [[{"role": "user", "content": "Play it."}]]
    (tmp_path / "bfcl/BFCL_v4_x.json").write_text(json.dumps({"id": "x_0", "question": question}))
    answer = json.dumps({"id": "x_0", "ground_truth": [{"play": {}}]}).encode()
    (tmp_path / "bfcl/possible_answer/BFCL_v4_x.json.gz").write_bytes(gzip.compress(answer))
    (item,) = benchmark_items("bfcl", tmp_path)
    assert (item.id, item.question, item.answer) == ("x_0", "Play it.", '[{"play": {}}]')


def test_groups_are_spread_out_and_each_set_is_named_once() -> None:
    assert benchmark_names(("arc_easy", "arc", "mine.jsonl")) == ("arc_easy", "arc_challenge", "mine.jsonl")
    assert set(benchmark_names(("all",))) == set(BENCHMARKS)
    assert all(name in BENCHMARKS for names in GROUPS.values() for name in names)
    assert {name for name in BENCHMARKS if is_mathematics(name)} >= {"gsm8k", "aqua", "svamp", "core_math"}
    assert not is_mathematics("mmlu")
    assert not is_mathematics("mine.jsonl")


def test_a_set_can_be_a_file_of_texts_or_a_probe_suite(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 7}\n')
    found = list(benchmark_items("texts.jsonl", None, tmp_path))
    assert [(item.id, item.text) for item in found] == [("1", "one"), ("7", "two")]
    toml = """
        [[probe]]
        id = "sum"
        messages = [
            {role = "user", content = "What is 2 + 2?"}, {role = "assistant", content = "4."},
            {role = "user", content = "And 3 + 3?"},
        ]
        checks = [{kind = "answer_number", value = 6}, {kind = "answer_contains", any = ["six", "half a dozen"]}]
    """
    (tmp_path / "suite.toml").write_text(toml)
    (item,) = benchmark_items("suite.toml", None, tmp_path)
    assert (item.id, item.question, item.answer) == ("sum", "What is 2 + 2?\nAnd 3 + 3?", "6 six")
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(DataError, match=r'bad\.jsonl:2: expected a row \{"text": .* or a probe, found keys txt'):
        list(benchmark_items("bad.jsonl", None, tmp_path))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no item"):
        list(benchmark_items("empty.jsonl", None, tmp_path))
    (tmp_path / "probe.jsonl").write_text('{"id": "x", "turns": ["a"], "checks": []}\n')
    with pytest.raises(ConfigError, match=r"probe\.jsonl:1"):
        list(benchmark_items("probe.jsonl", None, tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mmmlu", r'unknown evaluation set "mmmlu"; did you mean "mmlu"\? \(known: all, aqua, '),
        (
            "zzz",
            r'unknown evaluation set "zzz" \(known: .*; or give a file that ends in \.jsonl, \.jsonl\.gz, \.toml\)',
        ),
        ("none.jsonl", r"none\.jsonl: no such file"),
        ("core", r'"core" stands for several evaluation sets: core_agi_eval_lsat_ar, '),
        ("gsm8k", r'"gsm8k": no file gsm8k/test\.jsonl \(or \.gz\) in .*; put it there, or take the set off the list'),
        ("svamp", r"SVAMP\.json:1: not JSON \("),
        (
            "mbpp",
            r'mbpp_test\.jsonl:1: not a row of "mbpp" as it is published \(KeyError: .text.\); fetch the file again',
        ),
        ("humaneval", r"HumanEval\.jsonl\.gz: cannot be read \("),
    ],
)
def test_mistakes_are_told_with_the_place_and_the_fix(name: str, message: str, tmp_path: Path) -> None:
    for folder in ("svamp", "mbpp", "humaneval"):
        (tmp_path / folder).mkdir()
    (tmp_path / "svamp/SVAMP.json").write_text("[{")
    (tmp_path / "mbpp/mbpp_test.jsonl").write_text('{"task_id": 1}\n')
    (tmp_path / "humaneval/HumanEval.jsonl.gz").write_bytes(gzip.compress(b"x" * 100)[:-12])
    with pytest.raises(DataError, match=message):
        list(benchmark_items(name, tmp_path, tmp_path))


def test_a_missing_benchmarks_folder_is_told_with_how_to_set_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no benchmarks folder is set; set GRADUS_BENCHMARKS or the key .folder. to the"
    ):
        list(benchmark_items("gsm8k", None))
    with pytest.raises(DataError, match=r"nowhere is no folder; set GRADUS_BENCHMARKS .* that holds gsm8k/test\.jsonl"):
        list(benchmark_items("gsm8k", tmp_path / "nowhere"))
