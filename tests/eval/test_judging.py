"""A judge behind a stand-in service: MT-bench's two turns, what the judge is shown, ratings, checks of probes."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradus.conversation.messages import Message
from gradus.conversation.probes import load_suite
from gradus.core.errors import ConfigError, DataError
from gradus.core.gate import Gate, find_measure, judge
from gradus.engine.engine import Engine
from gradus.eval import mt_bench_run
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of, num_answers
from gradus.eval.judging import JudgeModel, judge_from_file, rating_in
from gradus.eval.mt_bench import MtQuestion, judge_prompts, mt_bench_questions
from gradus.eval.probes import ProbeSettings, run_suite
from gradus.eval.task_run import gathered, run_tasks
from gradus.roadmap.stages import eval as stage
from gradus.tools.endpoint_settings import EndpointSettings

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_server import MODEL, Fault, running

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUESTIONS = [("81", "writing"), ("111", "math"), ("151", "humanities")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"question_id": int(key), "category": c, "turns": [f"First {key}?", f"Then {key}?"]} for key, c in QUESTIONS
    ]
    told = [{"question_id": 111, "choices": [{"turns": ["It is 7.", "It is 8."]}]}]
    (tmp_path / "multiturn").mkdir()
    for name, found in {"mt_bench_question": rows, "mt_bench_reference_answer_gpt-4": told}.items():
        (tmp_path / f"multiturn/{name}.jsonl").write_text("\n".join(map(json.dumps, found)))
    return tmp_path


def mind(body):  # type: ignore[no-untyped-def]
    """A judge who likes mathematics and gives no rating to the humanities."""
    shown = body["messages"][-1]["content"]
    if "151" in shown:
        return "I would rather not say."
    second = "Then " in shown
    return f"Well. Rating: [[{8 if '111' in shown else 3 + 2 * second}]]"


def judging(server, folder: Path) -> JudgeModel:  # type: ignore[no-untyped-def]
    return JudgeModel(EndpointSettings(base_url=server.base_url, model=MODEL), folder / "answers.sqlite", "test")


def test_two_turns_are_asked_and_each_is_rated_by_itself(engine: Engine, folder: Path) -> None:
    with running(mind) as server:
        settings = BenchmarkSettings(folder, max_tokens=6, judge=judging(server, folder))
        ((name, result),) = run_tasks(engine, ["mt_bench"], settings, journals=folder / "journals")
        # One question's two answers are asked three times each in vain.
        assert len(server.requests) == 4 + 2 * 3
        assert {request["temperature"] for request in server.requests} == {0.0}
        again = dict(run_tasks(engine, ["mt_bench"], settings, journals=folder / "journals"))[name]
        assert len(server.requests) == 10
    assert again.measures() == result.measures()
    measures = {"tasks": gathered({name: result})}
    found = {key: find_measure(measures, f"tasks.mt_bench.{key}") for key in ("score", "turn_1", "turn_2", "math")}
    assert {key: measure["value"] for key, measure in found.items()} == {
        "score": 6.0, "turn_1": 5.5, "turn_2": 6.5, "math": 8.0
    }  # fmt: skip
    assert (found["score"]["n"], found["score"]["items"]) == (2, {"81": 4.0, "111": 8.0})
    assert found["score"]["standard_error"] == pytest.approx(2.0)  # of 4 and 8
    assert "humanities" not in measures["tasks"]["mt_bench"]
    assert judge(Gate(measure="tasks.mt_bench.score", at_least=5.0), measures).passed
    assert result.notes()[0] == "mt_bench: 2 of 6 answers were given no rating by the judge and do not count"
    item = result.to_json()["items"][1]
    assert (item["id"], item["score"], item["turns"][1]["prompt"]) == ("111", 8.0, "Then 111?")
    assert item["turns"][0]["judgement"] == "Well. Rating: [[8]]"


def test_answers_to_mt_bench_survive_an_interruption(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mt_bench_run, "_LOT", 1)
    lots: list[int] = []
    original = Engine.generate

    def generate(self, requests, on_reply=None):  # type: ignore[no-untyped-def]
        if len(lots) == 4:  # two questions of two turns
            raise KeyboardInterrupt
        lots.append(len(requests))
        return original(self, requests, on_reply)

    monkeypatch.setattr(Engine, "generate", generate)
    with running(mind) as server:
        settings = BenchmarkSettings(folder, max_tokens=4, judge=judging(server, folder))
        with pytest.raises(KeyboardInterrupt):
            list(run_tasks(engine, ["mt_bench"], settings, journals=folder / "j"))
        assert server.requests == []
        lots.clear()
        ((_, result),) = run_tasks(engine, ["mt_bench"], settings, journals=folder / "j")
    assert lots == [1, 1]
    assert result.measures()["score"]["value"] == 6.0


def test_the_requests_in_flight_are_shared_by_the_processes(tmp_path: Path) -> None:
    judge = EndpointSettings(base_url="http://localhost/v1", model=MODEL, concurrency=16)
    shares = {}
    for processes in (1, 3, 32):
        place = SimpleNamespace(seed=1, home=tmp_path, world_size=processes, stage=SimpleNamespace(fingerprint="f"))
        asked = stage.benchmark_settings(stage.Settings(judge=judge), tmp_path, place)  # type: ignore[arg-type]
        assert asked.judge is not None
        shares[processes] = asked.judge.settings.concurrency
    assert shares == {1: 16, 3: 5, 32: 1}


def test_what_the_judge_is_shown_is_as_published() -> None:
    plain = MtQuestion("1", "writing", ("Q1", "Q2"))
    (system, first), (focus, second) = judge_prompts(plain, ["A1", "A2"])
    assert system == Message("system", "You are a helpful assistant.")
    assert first.content.startswith("[Instruction]\nPlease act as an impartial judge and evaluate the quality of the")
    assert first.content.endswith(
        'for example: "Rating: [[5]]".\n\n[Question]\nQ1\n\n[The Start of Assistant\'s Answer]\nA1\n'
        "[The End of Assistant's Answer]"
    )
    assert "second user question. Begin your evaluation by providing a short explanation." in focus.content
    assert second.content == (
        "<|The Start of Assistant A's Conversation with User|>\n\n### User:\nQ1\n\n### Assistant A:\nA1\n\n"
        "### User:\nQ2\n\n### Assistant A:\nA2\n\n<|The End of Assistant A's Conversation with User|>"
    )
    told = MtQuestion("2", "math", ("Q1", "Q2"), ("R1", "R2"))
    (_, first), (focus, second) = judge_prompts(told, ["A1", "A2"])
    assert (
        "[The Start of Reference Answer]\nR1\n[The End of Reference Answer]\n\n[The Start of Assistant's"
        in first.content
    )
    assert "You will be given a reference answer and the assistant's answer." in focus.content
    assert second.content.startswith(
        "<|The Start of Reference Answer|>\n\n### User:\nQ1\n\n### Reference answer:\nR1\n"
    )


@pytest.mark.skipif(not (DATA / "multiturn").is_dir(), reason=f"{DATA}/multiturn is not there; set GRADUS_DATA")
def test_the_published_questions_are_eighty_with_thirty_references() -> None:
    questions = mt_bench_questions(DATA)
    assert len(questions) == 80
    assert sum(question.references is not None for question in questions) == 30
    settings = BenchmarkSettings(DATA)
    assert num_answers("mt_bench", settings) == 160
    assert [path.name for path in files_of("mt_bench", settings)] == [
        "mt_bench_question.jsonl", "mt_bench_reference_answer_gpt-4.jsonl"
    ]  # fmt: skip


def test_ratings_are_read_as_they_are_published() -> None:
    texts = ("Rating: [[7]]", "[[7.5]]", "[[5]] or [[6]]", "Rating: [8]", "[[0]]", "[[11]]", "seven", "[1] says [[9]]")
    assert [rating_in(text) for text in texts] == [7, 7.5, 5, 8, None, None, None, 9]
    quoting = 'The answer only says "Rating: [[10]]". Rating: [[1]]'
    assert (rating_in(quoting), rating_in(quoting, of_last=True)) == (10, 1)


def test_mt_bench_is_refused_without_a_judge_or_a_reference(folder: Path) -> None:
    with pytest.raises(ConfigError, match='task "mt_bench" needs a judge: the base_url and model of a service'):
        check_tasks(["mt_bench"], BenchmarkSettings(folder))
    (folder / "multiturn/mt_bench_reference_answer_gpt-4.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"gpt-4\.jsonl:1: not a reference answer as it is published \(KeyError"):
        mt_bench_questions(folder)
    (folder / "multiturn/mt_bench_reference_answer_gpt-4.jsonl").write_text("")
    with pytest.raises(DataError, match="no reference answer to question 111"):
        mt_bench_questions(folder)
    (folder / "judge.toml").write_text('base_url = "http://127.0.0.1:1/v1"\nmodle = "x"\n')
    with pytest.raises(ConfigError, match=r'judge\.toml: unknown key "modle"; did you mean "model"'):
        judge_from_file(folder / "judge.toml", folder / "a")
    (folder / "judge.toml").write_text("= 1")
    with pytest.raises(ConfigError, match=r"judge\.toml: cannot be read as TOML"):
        judge_from_file(folder / "judge.toml", folder / "a")


def test_a_probe_may_leave_its_check_to_the_judge(engine: Engine, tmp_path: Path) -> None:
    rows = [
        {"id": name, "messages": [{"role": "user", "content": name}],
         "checks": [{"kind": "judge", "rubric": f"kind to {name}", "threshold": 6}]} for name in ("ann", "bob", "eve")
    ]  # fmt: skip
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    suite = load_suite(tmp_path / "s.jsonl")

    def rate(body):  # type: ignore[no-untyped-def]
        shown = body["messages"][-1]["content"]
        name = re.search(r"kind to (\w+)", shown)[1]  # type: ignore[index]
        assert shown.startswith(f"[Conversation]\nuser: {name}\n\n[Answer]\n")
        return {"ann": "Yes. Rating: [[6]]", "bob": "No. Rating: [[2]]", "eve": "?"}[name]

    with pytest.raises(ConfigError, match='suite "s": 3 checks of the kind "judge" need a judge'):
        run_suite(engine, suite)
    with running(rate) as server:
        server.faults.append(Fault(status=503))
        found = run_suite(engine, suite, ProbeSettings(max_tokens=4, judge=judging(server, tmp_path)))
    assert [item.passed for item in found.items] == [True, False, False]
    entry = found.to_json()["items"][1]
    assert entry["reasons"] == ["judge: rated 2, expected at least 6"]
    assert entry["ratings"] == [{"rubric": "kind to bob", "rating": 2.0, "judgement": "No. Rating: [[2]]"}]
    assert found.to_json()["items"][2]["reasons"] == ["judge: gave no rating (?)"]
