"""ChatCORE and worked examples: what stands in the prompt, which letter counts, tools, thinking, the golden figure."""

import json
import math
from pathlib import Path

import pytest
import torch

from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ConfigError
from gradus.data.synthetic.item import side_of
from gradus.engine.engine import Engine
from gradus.eval import generative_run
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of, group_measures, num_characters
from gradus.eval.generative import problems_of
from gradus.eval.generative_result import GenerativeResult
from gradus.eval.letters import Choice, asked_letters, with_examples
from gradus.eval.spelling import is_spelled
from gradus.eval.task_run import gathered, run_tasks
from gradus.model.batch import Documents

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    choices = ["the mat", "a cat", "he", "all of it"]
    rows = [{"id": f"q{n}", "question": f"What is {n}?", "choices": choices, "gold": n % 4} for n in range(6)]
    cells = [[f"Is it {n}?", "one", "two", "three", "four", "ABCD"[n % 4]] for n in range(5)]
    sums = [
        {"question": f"What is {n} and 2?", "answer": f"It is <<{n}+2={n + 2}>>{n + 2}.\n#### {n + 2}"}
        for n in range(4)
    ]
    program = {"task_id": "HumanEval/0", "entry_point": "f", "prompt": "def f():\n",
               "canonical_solution": "    return 1\n", "test": "def check(c):\n    assert c() == 1\n"}  # fmt: skip
    options = ["A)1", "B)2", "C)3", "D)4", "E)5"]
    aqua = [{"question": "1+1?", "options": options, "correct": "B", "rationale": "Add them. "}]
    files = {f"arc/arc_{kind}_{split}": rows for kind in ("easy", "challenge") for split in ("test", "train")}
    files |= {"gsm8k/test": sums, "gsm8k/train": sums[::-1], "humaneval/HumanEval": [program]}
    for name, found in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    for name in ("test/anatomy_test", "test/virology_test", "dev/anatomy_dev", "dev/virology_dev"):
        (tmp_path / "mmlu/data" / name).parent.mkdir(parents=True, exist_ok=True)
        lines = [",".join([f"{name[:3]} {row[0]}", *row[1:]]) for row in cells]
        (tmp_path / "mmlu/data" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for split in ("test", "dev"):
        (tmp_path / "aqua").mkdir(exist_ok=True)
        (tmp_path / f"aqua/{split}.json").write_text("\n".join(map(json.dumps, aqua)))
    return tmp_path


def test_the_published_figures_give_the_published_score() -> None:
    accuracy = {"arc_easy": 0.3876, "arc_challenge": 0.2807, "mmlu": 0.3151, "gsm8k": 0.0455, "humaneval": 0.0854}
    measures = {
        name: {"value": value, "n": 100, "standard_error": 0.01, "lower": 0.0, "upper": 1.0, "items": {"a": value}}
        for name, value in accuracy.items()
    }
    found = group_measures("chatcore", measures)["centred"]
    assert found["value"] == pytest.approx(0.0884, abs=5e-5)
    # Three of five errors are spread by centring.
    assert found["standard_error"] == pytest.approx(0.01 / 5 * math.sqrt(3 / 0.75**2 + 2))
    assert group_measures("chatcore", {"mmlu": measures["mmlu"]}) == {}


def test_a_letter_is_asked_for_where_the_answer_begins(engine: Engine, folder: Path) -> None:
    how = {"shots": 0, "multiturn": True}
    item = asked_letters("chatcore.arc_easy", engine.form, folder, 1, think=None, **how)[0]  # type: ignore[arg-type]
    prompt = (
        "Multiple Choice question: What is 0?\n- the mat=A\n- a cat=B\n- he=C\n- all of it=D\n\n"
        "Respond only with the letter of the correct answer."
    )
    assert Choice("What is 0?", ["the mat", "a cat", "he", "all of it"], 0).prompt == prompt == item.context
    tokenizer = engine.tokenizer
    assert [tokenizer.decode(c.tokens) for c in item.question] == ["A", "B", "C", "D"]
    assert all(len(c.tokens) == 1 for c in item.question)
    assert item.question[0].context == engine.form.render_prompt(Conversation((Message("user", prompt),))).tolist()
    direct = asked_letters("chatcore.arc_easy", engine.form, folder, 1, think=False, **how)[0]  # type: ignore[arg-type]
    ids = engine.form.render_prompt(Conversation((Message("user", prompt),)), False).tolist()
    assert direct.question[0].context == ids
    assert ids != item.question[0].context


def test_worked_examples_are_turns_or_stand_in_the_one_message(engine: Engine, folder: Path) -> None:
    turns = with_examples("new", [("one", "1"), ("two", "2")], True)
    assert [(m.role, m.content) for m in turns] == [
        ("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2"), ("user", "new")
    ]  # fmt: skip
    assert with_examples("new", [("one", "1"), ("two", "2")], False) == (
        Message("user", "one\n\n1\n\ntwo\n\n2\n\nnew"),
    )
    (_, one), *_ = problems_of("gsm8k", folder, 1, shots=2)
    assert [m.content for m in one.earlier[1::2]] == ["It is 5.\n#### 5", "It is 4.\n#### 4"]
    assert one.earlier[0].content.startswith("What is 3 and 2?\n\nWork it out")
    assert one.prompt.startswith("What is 0 and 2?")
    (_, one), *_ = problems_of("aqua", folder, 1, shots=1, multiturn=False)
    assert "Add them.\n#### B\n\n1+1?" in one.prompt
    # Those of MMLU are of the item's own subject.
    items = asked_letters("chatcore.mmlu", engine.form, folder, None, shots=1, multiturn=False, think=None)
    assert len({item.context.split("\n")[0] for item in items}) == 1
    assert "dev Is it 0?" in items[7].context
    assert items[7].id == "virology_test:3"


def test_chatcore_asks_all_five_and_their_items_pair(engine: Engine, folder: Path) -> None:
    results = dict(run_tasks(engine, ["chatcore"], BenchmarkSettings(folder, limit=4, max_tokens=4)))
    assert list(results) == [f"chatcore.{name}" for name in ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval")]
    measures = gathered(results)["chatcore"]
    assert measures["centred"]["n"] == 17
    mean = sum(measures["centred"]["items"].values()) / 17
    assert mean == pytest.approx(measures["centred"]["value"])
    # By hand: the letter with the highest logit where the answer begins.
    result = results["chatcore.arc_easy"]
    for item in result.items:
        tokens = torch.tensor(item.question[0].context)  # type: ignore[union-attr]
        with torch.inference_mode():
            logits = engine.model.head(engine.model(tokens, Documents.of_lengths([len(tokens)], tokens.device)))[-1]
        likeliest = int(logits[[c.tokens[0] for c in item.question]].argmax())  # type: ignore[union-attr]
        assert result.verdicts()["acc"][item.id] == int(likeliest == item.gold)  # type: ignore[union-attr]
    assert num_characters("chatcore", BenchmarkSettings(folder)) > 1000
    assert folder / "gsm8k/train.jsonl" not in files_of("gsm8k", BenchmarkSettings(folder))
    assert folder / "gsm8k/train.jsonl" in files_of("gsm8k", BenchmarkSettings(folder, shots=1))


def test_tools_and_thinking_reach_the_model(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = Engine.generate

    def generate(self, requests, on_reply=None):  # type: ignore[no-untyped-def]
        asked.extend(requests)
        return original(self, requests, on_reply)

    monkeypatch.setattr(Engine, "generate", generate)
    settings = BenchmarkSettings(folder, limit=1, max_tokens=4, tools=("calculator",), think=True, shots=1)
    found = generative_run.run_generative(engine, "gsm8k", settings)
    assert (asked[0].tools, asked[0].think) == (("calculator",), True)
    assert [m.role for m in asked[0].conversation.messages] == ["user", "assistant", "user"]
    assert isinstance(found, GenerativeResult)
    assert found.settings["tools"] == ["calculator"]
    assert (found.settings["think"], found.settings["shots"]) == (True, 1)
    with pytest.raises(ConfigError, match='unknown tool "calculater"; known are calculator; did you mean "calculator"'):
        check_tasks(["gsm8k"], BenchmarkSettings(folder, tools=("calculater",)))
    with pytest.raises(
        ConfigError, match=r'task "humaneval": no worked examples are known for it \(they are for chatcore'
    ):
        check_tasks(["humaneval"], BenchmarkSettings(folder, shots=3))


def test_words_to_spell_and_letters_to_count_are_none_that_templates_train_on() -> None:
    spelling, counts = dict(problems_of("spelling", None)), dict(problems_of("letter_counts", None))
    assert len(spelling) == len(counts) == 256
    assert all(side_of(f"spelling|{word}") == "probe" for word in spelling)
    for key, problem in counts.items():
        word, letter = key.split(":")
        assert problem.reference == str(word.count(letter))
        assert problem.prompt == f"How many times does the letter {letter} stand in the word {word}?"
    shares = [sum(problem.reference == count for problem in counts.values()) / 256 for count in ("0", "1", "2")]
    assert 0.1 < shares[0] < 0.25
    assert shares[1] + shares[2] > 0.7
    assert problems_of("spelling", None, 3) == problems_of("spelling", None, 3)


@pytest.mark.parametrize(
    ("answer", "spelled"),
    [
        ("c-a-t", True), ("C, A, T.", True), ("It is c a t!", True), ("The word cat: C - A - T", True),
        ("cat", False), ("c-a-a-t", False), ("c-a-t-s", False), ("s-c-a-t", False), ("t-a-c", False), ("", False),
        ("c a t s", False), ("C A T", True), ("I see: c, a, t. Is it?", True),
        ("1. c\n2. a\n3. t", False),
    ],
)  # fmt: skip
def test_a_word_is_spelled_where_its_letters_stand_one_by_one(answer: str, spelled: bool) -> None:
    assert is_spelled(answer, "cat") == spelled
