"""Evaluation sets as texts: every shape of row by hand, the real files, and clear refusals."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gradus.core.errors import DataError
from gradus.data.benchmarks import BENCHMARK_TEXTS, BenchmarkItem, read_benchmark


def write(folder: Path, name: str, *rows: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def texts_of(folder: Path, name: str, file: str, row: Any) -> tuple[str, ...]:
    write(folder, file, row)
    [item] = read_benchmark(name, folder)
    return item.texts


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.mark.parametrize(
    ("name", "file", "row", "expected"),
    [
        ("gsm8k", "gsm8k/test.jsonl", {"question": LONG, "answer": "#### 3"}, (LONG,)),
        ("gsm8k", "gsm8k/test.jsonl", {"question": "1 + 2?", "answer": "#### 3"}, ("1 + 2?", "1 + 2? #### 3")),
        (
            "arc",
            "arc/arc_easy_test.jsonl",
            {"id": "x", "question": "What?", "choices": ["a", "b"], "gold": 1},
            ("What?", "What? b", "What? a b"),
        ),
        (
            "boolq",
            "core_bundle/boolq.jsonl",
            {"query": f"Passage: {LONG}\nQuestion: is it?\nAnswer:", "choices": ["no", "yes"], "gold": 0},
            (LONG, "is it?", "is it? no", "is it? no yes"),
        ),
        (
            "commonsense_qa",
            "core_bundle/commonsense_qa.jsonl",
            {"query": "Question: Where?\nChoices:\nA. here\nB. there\nAnswer:", "choices": ["A", "B"], "gold": 0},
            ("Where?", "Where? A", "Where? A B", "Where? A. here B. there"),
        ),
        (
            "commonsense_qa:train",
            "commonsense_qa_train/train_rand_split.jsonl",
            {
                "id": "x",
                "answerKey": "B",
                "question": {
                    "stem": "Where?",
                    "choices": [{"label": "A", "text": "here"}, {"label": "B", "text": "there"}],
                },
            },
            ("Where?", "Where? there", "Where? here there"),
        ),
        (
            "piqa",
            "piqa/valid.jsonl",
            {"goal": "Rest", "sol1": "sit", "sol2": "run"},
            ("Rest", "Rest sit", "Rest run", "Rest sit run"),
        ),
        (
            "winogrande",
            "winogrande/dev.jsonl",
            {"sentence": "So _ won.", "option1": "Ann", "option2": "Bo", "answer": "2"},
            ("So _ won.", "So Ann won.", "So Bo won."),
        ),
        ("svamp", "svamp/SVAMP.json", {"ID": "c-1", "Body": "Two.", "Question": "How many?"}, ("Two. How many?",)),
        ("aqua", "aqua/test.json", {"question": "x?", "options": ["A)1", "B)2"]}, ("x?", "x? A)1 B)2")),
        ("humaneval", "humaneval/HumanEval.jsonl", {"task_id": "HumanEval/0", "prompt": "def f():"}, ("def f():",)),
        ("mbpp", "mbpp/mbpp_test.jsonl", {"task_id": 3, "text": "Add.", "code": "x + y"}, ("Add.", "Add. x + y")),
        (
            "bfcl",
            "bfcl/BFCL_v4_x.json",
            {"id": "x", "question": [[{"role": "system", "content": "S"}, {"role": "user", "content": "one"}],
                                     [{"role": "user", "content": "two"}]]},
            ("one two",),
        ),
        ("lambada", "lambada/lambada_openai.jsonl", {"context": LONG, "continuation": "end"}, (LONG,)),
        (
            "core_bundle",
            "core_bundle/winograd.jsonl",
            {"context_options": ["So Ann", "So Bo"], "continuation": "won.", "gold": 1},
            ("So Ann won.", "So Bo won."),
        ),
        (
            "core_bundle",
            "core_bundle/jeopardy.jsonl",
            {"context": "WORLD HISTORY: He flew", "continuation": "Byrd"},
            ("He flew", "He flew Byrd"),
        ),
        ("core_extra", "core_bundle/extra/human_eval.jsonl", {"task_id": "H/1", "prompt": "def g():"}, ("def g():",)),
        (
            "core_math",
            "core_bundle/extra/math.jsonl",
            {"context": "2 + 2", "answer": 4, "chain_of_thought": "so"},
            ("2 + 2", "2 + 2 4"),
        ),
    ],
)  # fmt: skip
def test_the_texts_of_a_row(tmp_path: Path, name: str, file: str, row: Any, expected: tuple[str, ...]) -> None:
    assert texts_of(tmp_path, name, file, row) == expected


def test_tables_with_quoted_lines_and_paragraphs_of_text(tmp_path: Path) -> None:
    (tmp_path / "mmlu/data/test").mkdir(parents=True)
    (tmp_path / "mmlu/data/test/law_test.csv").write_text('"Is it,\n""so""?",no,yes,perhaps,never,B\n')
    assert list(read_benchmark("mmlu", tmp_path)) == [
        BenchmarkItem("law_test:1", ('Is it,\n"so"?', 'Is it,\n"so"? yes', 'Is it,\n"so"? no yes perhaps never'))
    ]
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2/test.txt.gz").write_bytes(gzip.compress(b" = Title = \n \n The <unk> ran . \n"))
    assert [(item.id, item.texts) for item in read_benchmark("wikitext2", tmp_path)] == [
        ("test:1", (" = Title = ",)),
        ("test:3", (" The   ran . ",)),
    ]


def test_ids_name_the_file_and_the_row(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a"}
    write(tmp_path, "gsm8k/test.jsonl", row, row | {"id": "own"}, row | {"task_id": 7})
    assert [item.id for item in read_benchmark("gsm8k", tmp_path)] == ["test:1", "test:own", "test:7"]


def test_training_rows_are_read_only_when_asked_for(tmp_path: Path) -> None:
    for split in ("test", "train"):
        write(tmp_path, f"gsm8k/{split}.jsonl", {"question": split, "answer": "a"})
    assert [item.texts[0] for item in read_benchmark("gsm8k", tmp_path)] == ["test"]
    assert [item.texts[0] for item in read_benchmark("gsm8k:train", tmp_path)] == ["train"]
    # Also from the benchmark's own folder, or one file.
    assert [item.texts[0] for item in read_benchmark("gsm8k", tmp_path / "gsm8k")] == ["test"]
    assert [item.texts[0] for item in read_benchmark("gsm8k", tmp_path / "gsm8k" / "train.jsonl")] == ["train"]


def test_an_instruction_that_all_rows_share_gives_no_item_away(tmp_path: Path) -> None:
    rows = [{"context": f"Copy the word.\nInput: word{i}\nOutput:", "continuation": "x"} for i in range(30)]
    write(tmp_path, "core_bundle/copy.jsonl", *rows)
    items = list(read_benchmark("core_bundle", tmp_path))
    assert items[3].texts == ("word3", "Copy the word. word3 x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gsm8", "", r'no benchmark "gsm8"; did you mean "gsm8k"\?; known: aqua, arc, '),
        ("gsm8k:validation", "", r'benchmark "gsm8k" has no split "validation"; it has test, train'),
        ("gsm8k", None, r'benchmark "gsm8k": no file like gsm8k/test.jsonl\* \(.* holds none\); fetch it there'),
        ("gsm8k", "", r'benchmark "gsm8k": its files in .* hold no row'),
        ("gsm8k", "{broken\n", r"test.jsonl: not JSON \(.*\); fetch it again"),
        (
            "gsm8k",
            '{"query": "x"}\n',
            r"test.jsonl:1: not a row of this benchmark \(KeyError: 'question'\); found query",
        ),
        ("gsm8k", '["x"]\n', r"test.jsonl:1: not a row of this benchmark \(TypeError"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "gsm8k").mkdir()
        (tmp_path / "gsm8k" / "test.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_benchmark(name, tmp_path))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q"}' * 50)[:-12])
    with pytest.raises(DataError, match=r"test.jsonl.gz: cannot be read as text \(.*\); fetch it again"):
        list(read_benchmark("gsm8k", tmp_path))


@pytest.mark.parametrize("name", BENCHMARK_TEXTS)
def test_real_files_are_read(real_data: Path, name: str) -> None:
    """Every row, with ids of its own and a text; rows as the data's SOURCE.md counts them."""
    items = list(read_benchmark(name, real_data))
    assert len({item.id for item in items}) == len(items)
    assert sum(not item.texts for item in items) <= 0.01 * len(items)
    counted = {
        "aqua": 247,
        "arc": 290 + 1159 + 155 + 594,
        "boolq": 1672,
        "commonsense_qa": 603,
        "gsm8k": 660,
        "hellaswag": 533,
        "humaneval": 164,
        "lambada": 2554,
        "mbpp": 500,
        "openbookqa": 249,
        "piqa": 943,
        "svamp": 1000,
        "winogrande": 635,
    }
    assert len(items) == counted.get(name, len(items)) > 0
