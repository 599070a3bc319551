"""Tasks whose answers are written: published labels, what is asked, resuming, several answers, mistakes."""

import gzip
import json
import os
from pathlib import Path

import pytest

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Message
from gradus.core.comparison import named_measures
from gradus.core.errors import ConfigError, DataError
from gradus.core.gate import Gate, find_measure, judge
from gradus.engine.engine import Engine
from gradus.engine.turn import PromptTooLongError, Reply
from gradus.eval import generative
from gradus.eval.benchmarks import BenchmarkSettings
from gradus.eval.generative import GENERATIVE, Problem, gsm8k, problems_of
from gradus.eval.generative_result import Answer, Answered, GenerativeResult, pass_at
from gradus.eval.generative_run import run_generative
from gradus.eval.task_run import gathered, run_tasks
from gradus.tools import sandbox

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))


works = pytest.mark.usefixtures("sandboxed")


class Scripted:
    """An engine that answers by a function of the question, and notes what it was asked."""

    def __init__(self, answer, stop_after=None):  # type: ignore[no-untyped-def]
        self.answer, self.stop_after = answer, stop_after
        self.asked: list[str] = []

    def check(self, request) -> None:  # type: ignore[no-untyped-def]
        if "much too long" in request.conversation.messages[-1].content:
            raise PromptTooLongError("the prompt holds 9 tokens")

    def generate(self, requests, on_reply):  # type: ignore[no-untyped-def]
        for index, request in enumerate(requests):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.check(request)
            prompt = request.conversation.messages[-1].content
            self.asked.append(prompt)
            message = Message("assistant", self.answer(prompt, request.sampling.seed), "the thinking: #### 1")
            on_reply(index, Reply(AssistantTurn((message,)), 7, 9))


def write(folder: Path, name: str, rows: list[dict]) -> None:  # type: ignore[type-arg]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {n} and 2?", "answer": f"{n}+2=<<{n}+2={n + 2}>>\n#### {n + 2}"} for n in range(40)]
    write(tmp_path, "gsm8k/test.jsonl", rows)
    return tmp_path


def published(name: str) -> list[dict]:  # type: ignore[type-arg]
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set GRADUS_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def said(text: str) -> AssistantTurn:
    return AssistantTurn((Message("assistant", text),))


def added(prompt: str, seed: int) -> str:
    """Right but for the numbers that end with 3."""
    number = int(prompt.split()[2])
    return f"{number} + 2 = {number + 2}\n#### {number + 2 + (number % 10 == 3)}"


def test_the_published_solutions_of_gsm8k_get_their_published_labels() -> None:
    seen = 0
    for row in published("gsm8k/example_model_solutions.jsonl.gz"):
        # This file writes the last line as "A: 18", the data set itself as "#### 18".
        problem = gsm8k({"question": row["question"], "answer": row["ground_truth"].replace("\nA: ", "\n#### ")})
        for key in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            solution = row[key]["solution"].replace("\nA: ", "\n#### ")
            assert (GENERATIVE["gsm8k"].judges["acc"](problem, said(solution)) is None) == row[key]["is_correct"], row[
                "question"
            ]
            seen += 1
    assert seen == 4 * 660


def test_what_is_asked_is_the_question_and_how_to_end(folder: Path) -> None:
    (key, problem), *_ = problems_of("gsm8k", folder, 1)
    assert (key, problem.reference) == ("1", "2")
    assert problem.prompt == (
        'What is 0 and 2?\n\nWork it out step by step. End with a line "#### N", where N is the final number.'
    )


def test_svamp_asks_story_and_question_and_compares_values(folder: Path) -> None:
    row = {"ID": "chal-1", "Body": "Each pack costs 76 dollars", "Question": "How much?", "Answer": 51.0}
    write(folder, "svamp/SVAMP.json", [row, row | {"ID": "chal-2", "Answer": 22090603.0}])
    (key, one), (_, other) = problems_of("svamp", folder)
    assert (key, one.reference) == ("chal-1", "51")
    assert one.prompt.startswith("Each pack costs 76 dollars How much?\n\nWork it out")
    fault = GENERATIVE["svamp"].judges["acc"]
    faults = [fault(one, said(text)) for text in ("#### 51.0", "so\n#### 51.", "#### 5", "51")]
    assert faults == [None, None, "5, expected 51", "no final answer, expected 51"]
    assert fault(other, said("#### 22,090,603.00")) is None
    assert GENERATIVE["svamp"].judges["acc_last"](one, said("It costs 51 dollars.")) is None


def test_aqua_lists_its_options_and_asks_for_a_letter(folder: Path) -> None:
    row = {"question": "2 + 3?", "options": ["A)4", "B)5", "C)6", "D)7", "E)8"], "correct": "B", "rationale": ""}
    write(folder, "aqua/test.json", [row])
    ((key, problem),) = problems_of("aqua", folder)
    assert (key, problem.reference) == ("test:1", "B")
    assert problem.prompt == (
        "2 + 3?\n\nA)4\nB)5\nC)6\nD)7\nE)8\n\n"
        'Work it out step by step. End with a line "#### X", where X is the letter of the right option.'
    )
    fault = GENERATIVE["aqua"].judges["acc"]
    texts = ("so\n#### B", "#### (B)", "#### B)5", "#### C\n#### B", "#### Because of B", "B", "#### 5")
    assert [fault(problem, said(text)) is None for text in texts] == [True, True, True, False, False, False, False]
    assert fault(problem, said("#### A")) == "A, expected B"
    write(folder, "aqua/test.json", [row | {"correct": "F"}])
    with pytest.raises(DataError, match="answer F of 5 options"):
        problems_of("aqua", folder)


def test_mathematics_is_judged_by_the_last_box(folder: Path) -> None:
    row = {"context": "Half of one?", "answer": "\\frac{1}{2}", "chain_of_thought": "", "category": "algebra"}
    write(folder, "core_bundle/extra/math.jsonl", [row])
    ((key, problem),) = problems_of("math", folder)
    assert (key, problem.reference) == ("1", "\\frac{1}{2}")
    assert problem.prompt == ("Half of one?\n\nWork it out step by step. Put the final answer into \\boxed{}.")
    fault = GENERATIVE["math"].judges["acc"]
    assert fault(problem, said("First \\boxed{3}, no: $\\boxed{0.5}$.")) is None
    assert fault(problem, said("\\boxed{\\dfrac12}")) is None
    assert fault(problem, said("\\boxed{2}")) == "2, expected \\frac{1}{2}"
    assert fault(problem, said("It is 1/2.")) == "no final answer, expected \\frac{1}{2}"


def test_the_published_solutions_of_mathematics_are_right() -> None:
    rows = published("core_bundle/extra/math.jsonl.gz")
    problems = problems_of("math", DATA)
    assert len(rows) == len(problems) == 2460
    for row, (_, problem) in zip(rows, problems, strict=True):
        assert GENERATIVE["math"].judges["acc"](problem, said(row["chain_of_thought"])) is None, row


def test_answers_are_judged_and_thinking_is_not(folder: Path) -> None:
    found = run_generative(Scripted(added), "gsm8k", BenchmarkSettings(folder))
    measures = {"tasks": gathered({"gsm8k": found})}
    assert list(named_measures(measures)) == ["tasks.gsm8k.acc", "tasks.gsm8k.acc_last"]
    acc = find_measure(measures, "tasks.gsm8k.acc")
    assert (acc["successes"], acc["n"]) == (36, 40)
    assert [key for key, value in acc["items"].items() if not value] == ["4", "14", "24", "34"]
    assert judge(Gate(measure="tasks.gsm8k.acc", bound="lower", at_least=0.7), measures).passed
    silent = run_generative(Scripted(lambda *_: "So it is 2."), "gsm8k", BenchmarkSettings(folder))
    assert silent.measures()["acc"]["value"] == 0
    assert silent.measures()["acc_last"]["successes"] == 1
    entry = found.to_json()["items"][3]
    assert entry["answers"][0] == {
        "answer": "3 + 2 = 5\n#### 6", "thinking": "the thinking: #### 1", "finish_reason": "stop", "tokens": 7,
        "acc": 0, "acc_last": 0, "reasons": ["6, expected 5", "6, expected 5"],
    }  # fmt: skip
    assert (entry["reference"], entry["acc"]) == ("5", 0)


def test_what_was_answered_before_an_interruption_is_not_asked_again(folder: Path, tmp_path: Path) -> None:
    settings = BenchmarkSettings(folder)
    with pytest.raises(KeyboardInterrupt):
        run_generative(Scripted(added, stop_after=35), "gsm8k", settings, identity="m", journals=tmp_path / "j")
    rest = Scripted(added)
    found = run_generative(rest, "gsm8k", settings, identity="m", journals=tmp_path / "j")
    assert len(rest.asked) == 8  # two lots of 16 were kept
    assert found.measures() == run_generative(Scripted(added), "gsm8k", settings).measures()
    for identity, more in (("other", settings), ("m", BenchmarkSettings(folder, max_tokens=9))):
        again = Scripted(added)
        run_generative(again, "gsm8k", more, identity=identity, journals=tmp_path / "j")
        assert len(again.asked) == 40


def test_several_answers_are_drawn_apart_and_scored_by_their_share(folder: Path) -> None:
    seeds = set()

    def half(prompt: str, seed: int) -> str:
        seeds.add(seed)
        return added(prompt, seed) if len(seeds) % 2 else "I do not know."

    settings = BenchmarkSettings(folder, limit=10, samples=4, temperature=0.8)
    found = run_generative(Scripted(half), "gsm8k", settings)
    assert len(seeds) == 40
    acc = found.measures()["acc"]
    assert set(acc["items"].values()) == {0.5}
    assert (acc["value"], acc["n"], acc["standard_error"]) == (0.5, 10, 0.0)
    assert (acc["lower"], acc["upper"]) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_a_question_that_does_not_fit_is_wrong_and_says_why(folder: Path) -> None:
    write(folder, "gsm8k/test.jsonl", [{"question": f"much too long {n}"[n:], "answer": "#### 3"} for n in range(2)])
    found = run_generative(Scripted(lambda *_: "#### 3"), "gsm8k", BenchmarkSettings(folder))
    assert [item.answers[0].finish_reason for item in found.items] == ["context", "stop"]
    assert found.measures()["acc"]["successes"] == 1
    assert found.notes() == ["gsm8k: 1 of 2 questions do not fit into the model's context and count as wrong"]


def test_a_real_model_is_asked_and_the_answer_does_not_depend_on_the_others(engine: Engine, folder: Path) -> None:
    few, more = (
        dict(run_tasks(engine, ["gsm8k"], BenchmarkSettings(folder, limit=limit, max_tokens=12)))["gsm8k"]
        for limit in (2, 4)
    )
    answers = {item.id: item.answers for item in more.items}  # type: ignore[union-attr]
    assert all(item.answers == answers[item.id] for item in few.items)  # type: ignore[union-attr]
    assert {item.answers[0].num_tokens for item in more.items} == {12}  # type: ignore[union-attr]


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer() -> None:
    assert pass_at(1, 5, 2) == pytest.approx(2 / 5)
    # Of the ten pairs from five answers three hold none of the two right ones.
    assert pass_at(2, 5, 2) == pytest.approx(7 / 10)
    assert (pass_at(4, 5, 2), pass_at(5, 5, 0), pass_at(3, 3, 3)) == (1.0, 0.0, 1.0)


def test_programs_are_measured_by_pass_at_k() -> None:
    answers = [Answer("", "", "stop", 1, {"passes": None if n < 3 else "failed"}) for n in range(12)]
    item = Answered("x", Problem("", ""), tuple(answers))
    found = GenerativeResult("t", "m", (item,), "").values()
    assert {name: value["x"] for name, value in found.items()} == {
        "pass@1": pytest.approx(0.25), "pass@10": 1.0, "pass@12": 1.0
    }  # fmt: skip


ADD = {
    "task_id": "HumanEval/0", "entry_point": "add_twice", "canonical_solution": "    return twice(a) + twice(b)\n",
    "prompt": 'import math\n\ndef twice(a):\n    return 2 * a\n\ndef add_twice(a, b):\n    """ 2a + 2b """\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 6\n",
}  # fmt: skip


def test_what_stands_before_a_function_stands_before_the_answer(folder: Path) -> None:
    write(folder, "humaneval/HumanEval.jsonl", [ADD])
    ((key, problem),) = problems_of("humaneval", folder)
    assert key == "HumanEval/0"
    assert problem.before == "import math\n\ndef twice(a):\n    return 2 * a\n\n"
    assert problem.prompt == (
        "Complete this Python function. Answer with the whole program in one ```python block.\n\n"
        f"```python\n{ADD['prompt'].strip()}\n```"
    )
    row = {"task_id": 11, "text": "Write f.", "code": "def f(): return 1", "test_setup_code": "import math",
           "test_list": ["assert f() == 1", "assert f() < math.pi"]}  # fmt: skip
    write(folder, "mbpp/mbpp_test.jsonl", [row])
    ((key, problem),) = problems_of("mbpp", folder)
    assert (key, problem.tests) == ("11", "import math\nassert f() == 1\nassert f() < math.pi")
    assert problem.prompt == (
        "Write f. Your code should pass these tests:\n\nassert f() == 1\nassert f() < math.pi\n\n"
        "Answer with the whole program in one ```python block."
    )
    write(folder, "humaneval/HumanEval.jsonl", [ADD | {"entry_point": "other"}])
    with pytest.raises(DataError, match="no function other in the prompt"):
        problems_of("humaneval", folder)


@works
def test_a_program_passes_by_its_tests_alone(folder: Path) -> None:
    write(folder, "humaneval/HumanEval.jsonl", [ADD | {"task_id": f"HumanEval/{n}"} for n in range(5)])
    answers = iter(
        [
            "It doubles:\n```python\ndef add_twice(a, b):\n    return twice(a) + twice(b)\n```\nDone.",
            "def add_twice(a, b):\n    return math.floor(2 * (a + b))",
            "```python\ndef add_twice(a, b):\n    return a + b\n```",
            "```python\nimport sys\nsys.exit(0)\n```",
            "I cannot.",
        ]
    )
    found = run_tasks(Scripted(lambda *_: next(answers)), ["humaneval"], BenchmarkSettings(folder))  # type: ignore[arg-type]
    ((_, result),) = found
    measures = result.measures()
    assert list(measures) == ["pass@1"]
    assert list(measures["pass@1"]["items"].values()) == [1, 1, 0, 0, 0]
    reasons = [item["answers"][0]["reasons"] for item in result.to_json()["items"]]
    assert reasons[2:4] == [["failed: AssertionError"], ["failed: SystemExit: 0"]]
    assert "SyntaxError" in reasons[4][0]


@works
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("humaneval", 164), ("mbpp", 500)])
def test_the_published_solutions_pass_as_answers(name: str, number: int) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there; set GRADUS_DATA")
    solutions = {problem.prompt: problem.reference for _, problem in problems_of(name, DATA)}
    engine = Scripted(lambda prompt, _: f"Here it is.\n```python\n{solutions[prompt]}\n```")
    found = run_generative(engine, name, BenchmarkSettings(DATA)).measures()["pass@1"]  # type: ignore[arg-type]
    assert (found["successes"], found["n"]) == (number, number)


def test_programs_are_refused_before_anything_is_asked_where_they_cannot_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise sandbox.SandboxError("bubblewrap cannot make a sandbox here")

    monkeypatch.setattr(generative, "require_sandbox", missing)
    engine = Scripted(added)
    with pytest.raises(sandbox.SandboxError, match="cannot make a sandbox"):
        list(run_tasks(engine, ["gsm8k", "humaneval"], BenchmarkSettings(folder)))  # type: ignore[arg-type]
    assert not engine.asked


def test_mistakes_are_told_before_anything_is_asked(folder: Path) -> None:
    with pytest.raises(ConfigError, match="4 samples of each item at temperature 0 would all be the same"):
        BenchmarkSettings(folder, samples=4)
    write(folder, "gsm8k/test.jsonl", [{"question": "?", "answer": "5"}])
    with pytest.raises(DataError, match=r"test\.jsonl:1: not a row of \"gsm8k\" .*no \"#### N\" in the answer"):
        problems_of("gsm8k", folder)
    (folder / "gsm8k/test.jsonl").write_text("")
    with pytest.raises(DataError, match='task "gsm8k": its file holds no item'):
        problems_of("gsm8k", folder)
