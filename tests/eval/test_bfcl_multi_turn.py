"""BFCL's conversations: verdicts of the official checker, what is asked turn by turn, harmful calls, resuming."""

import json
import os
from importlib import metadata
from pathlib import Path

import bfcl_conversations
import pytest
from bfcl_stand_in import write_stand_in
from seeded_bundle import write_seeded_bundle

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.core.errors import ConfigError, DataError, MissingPackageError
from gradus.engine.load import load_engine
from gradus.engine.turn import Turn
from gradus.eval import bfcl_services
from gradus.eval.benchmarks import BenchmarkSettings, check_tasks, files_of, num_answers, num_characters, num_items
from gradus.eval.bfcl_multi_turn import MOST_ROUNDS, dialogue_of, right_call
from gradus.eval.bfcl_services import CallTooMuchError, Scenario, Services, ServicesError
from gradus.eval.generative import problems_of
from gradus.eval.generative_run import run_generative
from gradus.eval.task_run import gathered, run_tasks
from gradus.tokenizer.training import train_tokenizer
from gradus.tools.toolbox import ToolBox

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = Path(__file__).parent / "golden" / "bfcl_conversations.json"
published = pytest.mark.skipif(not (DATA / "bfcl").is_dir(), reason=f"{DATA}/bfcl is not there; set GRADUS_DATA")


def _is_installed() -> bool:
    try:
        metadata.version(bfcl_services.PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


installed = pytest.mark.skipif(
    not _is_installed(), reason="bfcl-eval is not installed (pip install --no-deps bfcl-eval)"
)
SCENARIO = Scenario(("GorillaFileSystem", "MathAPI"), {"GorillaFileSystem": {"folders": ["a"]}})


def call(name, /, **arguments):  # type: ignore[no-untyped-def]
    return {"name": name, "arguments": arguments}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    write_stand_in(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    return tmp_path / "site"


@pytest.fixture(scope="module")
def form():  # type: ignore[no-untyped-def]
    return HermesFormat(
        train_tokenizer(["what is there? done: I have updated some more functions"] * 5, vocab_size=300)
    )


# Verdicts


def _compare(every: int) -> tuple[int, int]:
    """Cases of every n-th conversation, and how many are right; each as the official checker has it."""
    golden = json.loads(GOLDEN.read_text())["verdicts"]
    seen = right = 0
    with Services() as services:
        for category in bfcl_conversations.CATEGORIES:
            found = bfcl_conversations.conversations(DATA, category)
            cases = len(golden[category]) // len(found)
            for number in range(0, len(found), every):
                row, sources, names = found[number]
                rights = [list(map(right_call, turn)) for turn in sources]
                scenario = Scenario(tuple(row["involved_classes"]), row["initial_config"], category == "long_context")
                verdicts = golden[category][number * cases : (number + 1) * cases]
                played = bfcl_conversations.cases(row, sources, names)
                for (kind, turns), verdict in zip(played, verdicts, strict=True):
                    fault = services.fault(scenario, turns, rights)
                    assert (fault is None) == (verdict == "1"), (row["id"], kind, fault)
                    seen, right = seen + 1, right + (fault is None)
    return seen, right


@published
@installed
def test_verdicts_equal_those_of_the_official_checker_on_right_and_on_spoiled_conversations() -> None:
    assert _compare(every=20) == (480, 268)


@published
@installed
@pytest.mark.slow
def test_verdicts_equal_those_of_the_official_checker_on_all_conversations() -> None:
    assert _compare(every=1) == (9600, 5414)


class Scripted:
    """An engine that answers by a function of the messages so far; what it says is read by the format itself."""

    max_batch = 3

    def __init__(self, answer, form, stop_after=None, context=6000):  # type: ignore[no-untyped-def]
        self.answer, self.form, self.stop_after, self.context = answer, form, stop_after, context
        self.requests = []  # type: ignore[var-annotated]

    def turn(self, request):  # type: ignore[no-untyped-def]
        return Turn(request, self.form, ToolBox(), self.context)

    def check(self, request) -> None:  # type: ignore[no-untyped-def]
        self.turn(request)

    def generate(self, requests):  # type: ignore[no-untyped-def]
        if self.stop_after is not None and len(self.requests) >= self.stop_after:
            raise KeyboardInterrupt
        self.requests.append(requests)
        return [self.reply(request) for request in requests]

    def reply(self, request):  # type: ignore[no-untyped-def]
        """An answer that is text, or a list of calls (name, arguments)."""
        said = self.answer(request.conversation)
        calls = () if isinstance(said, str) else tuple(ToolCall("1", *one) for one in said)
        message = Message("assistant", said if isinstance(said, str) else "", tool_calls=calls)
        whole = self.form.render(Conversation((Message("user", "?"), message)))
        turn = self.turn(request)
        for token in whole.ids[whole.mask].tolist():
            turn.push(token)
        return turn.reply()


def oracle(dialogues, form):  # type: ignore[no-untyped-def]
    """A model that makes the right calls, one an answer, and then says that it is done."""
    by_first = {dialogue.turns[0][0].content: dialogue for dialogue in dialogues}

    def answer(conversation):  # type: ignore[no-untyped-def]
        messages = conversation.messages
        dialogue = by_first[messages[0].content]
        turn = sum(message.role == "user" for message in messages) - 1
        begun = max(place for place, message in enumerate(messages) if message.role == "user")
        made = sum(len(message.tool_calls) for message in messages[begun:])
        if made == len(dialogue.rights[turn]):
            return f"done with turn {turn + 1}"
        right = dialogue.rights[turn][made]
        names = next(list(t.parameters["properties"]) for t in conversation.tools if t.name == right["name"])
        return [(right["name"], dict(zip(names, right["values"], strict=False)) | right["arguments"])]

    return Scripted(answer, form, context=60_000)


@published
@installed
def test_a_model_that_makes_the_right_calls_has_every_conversation_right(form) -> None:  # type: ignore[no-untyped-def]
    settings = BenchmarkSettings(DATA, limit=5)
    measures = {}
    for category in bfcl_conversations.CATEGORIES:
        name = f"bfcl_multi_turn.{category}"
        dialogues = [dialogue_of(problem.row) for _, problem in problems_of(name, DATA, 5)]
        result = run_generative(oracle(dialogues, form), name, settings)  # type: ignore[arg-type]
        assert [item.answers[0].faults for item in result.items] == [{"acc": None}] * 5
        assert result.settings["services"].startswith("bfcl-eval 20")
        answer = result.to_json()["items"][0]["answers"][0]
        assert {"turn", "name", "arguments", "result"} == set(answer["calls"][0])
        assert answer["answer"].startswith("done with turn 1\n\ndone with turn 2")
        measures[name] = result
    found = gathered(measures)["bfcl_multi_turn"]
    assert found["overall"]["value"] == 1.0
    assert found["overall"]["n"] == 20


# What is asked


@published
def test_every_published_conversation_can_be_asked_without_the_services() -> None:
    settings = BenchmarkSettings(DATA)
    assert num_items("bfcl_multi_turn", settings) == {
        f"bfcl_multi_turn.{category}": 200 for category in bfcl_conversations.CATEGORIES
    }
    assert num_answers("bfcl_multi_turn", settings) == 734 + 934 + 934 + 734
    assert num_characters("bfcl_multi_turn.base", BenchmarkSettings(DATA, limit=2)) > 2 * 5000
    files = [path.name for path in files_of("bfcl_multi_turn", settings)]
    assert {"math_api.json", "BFCL_v4_multi_turn_base.json.gz"} < set(files)
    told = dict(problems_of("bfcl_multi_turn.miss_func", DATA, 1))["multi_turn_miss_func_0"]
    dialogue = dialogue_of(told.row)
    # The third turn needs `sort`, which is told in the fourth.
    assert [[tool.name for tool in tools].count("sort") for tools in dialogue.tools] == [0, 0, 0, 1, 1]
    assert [len(tools) for tools in dialogue.tools] == [31, 31, 31, 32, 32]
    assert dialogue.turns[3] == (
        Message("user", "I have updated some more functions you can choose from. What about now?"),
    )
    assert dialogue.rights[2:4] == ((), (right_call("sort('final_report.pdf')"),))
    tool = next(tool for tool in dialogue.tools[0] if tool.name == "cd")
    assert tool.parameters["type"] == "object"
    assert " Note that the provided function is in Python 3 syntax. The response field has the following schema: {" in (
        tool.description
    )
    assert " Note that" not in dialogue.tools[3][-1].description


def _tool(name, *parameters):  # type: ignore[no-untyped-def]
    properties = {key: {"type": "string", "description": key} for key in parameters}
    return {
        "name": name, "description": f"{name}.", "response": {"type": "dict"},
        "parameters": {"type": "dict", "properties": properties, "required": list(parameters)},
    }  # fmt: skip


def _write_set(folder: Path, rows: int = 4) -> None:
    """Conversations of two turns, or of three where `mkdir` is held back."""
    functions = {"gorilla_file_system": [_tool("ls"), _tool("mkdir", "name")], "math_api": [_tool("power", "base")]}
    for name in bfcl_services.SERVICES.values():
        path = folder / f"bfcl/multi_turn_func_doc/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in functions.get(name, [])))
    (folder / "bfcl/possible_answer").mkdir()
    for category in ("base", "miss_func"):
        questions, rights = [], []
        for number in range(rows):
            row = {
                "id": f"multi_turn_{category}_{number}",
                "question": [
                    [{"role": "user", "content": f"Make {number}."}], [{"role": "user", "content": "What is there?"}]
                ],
                "initial_config": {"GorillaFileSystem": {"folders": ["a"]}},
                "involved_classes": ["GorillaFileSystem", "MathAPI"],
            }  # fmt: skip
            right = [[f"mkdir('{number}')"], ["ls()"]]
            if category == "miss_func":
                row["missed_function"] = {"1": ["mkdir"]}
                row["question"].insert(1, [])  # type: ignore[attr-defined]
                right.insert(0, [])
            questions.append(row)
            rights.append({"id": row["id"], "ground_truth": right})
        for place, found in (("", questions), ("possible_answer/", rights)):
            path = folder / f"bfcl/{place}BFCL_v4_multi_turn_{category}.json"
            path.write_text("".join(json.dumps(row) + "\n" for row in found))


def _right(conversation):  # type: ignore[no-untyped-def]
    """Right, of the conversations that `_write_set` writes."""
    messages = conversation.messages
    if messages[-1].role == "tool":
        return "done"
    if messages[-1].content == "What is there?":
        return [("ls", {})]
    number = messages[0].content.removeprefix("Make ").removesuffix(".")
    return [("mkdir", {"name": number})]


def _faults(folder, answer, form, category="base"):  # type: ignore[no-untyped-def]
    engine = Scripted(answer, form)
    result = run_generative(engine, f"bfcl_multi_turn.{category}", BenchmarkSettings(folder))  # type: ignore[arg-type]
    return [item.answers[0].faults["acc"] for item in result.items], engine, result


def test_a_conversation_goes_from_calls_to_results_to_the_next_turn(tmp_path, stand_in, form) -> None:  # type: ignore[no-untyped-def]
    _write_set(tmp_path)
    faults, engine, result = _faults(tmp_path, _right, form)
    assert faults == [None] * 4
    assert result.settings["services"] == "bfcl-eval 0.stand.in"
    # Three at once; the fourth begins when one has ended.
    assert [len(requests) for requests in engine.requests] == [3, 3, 3, 3, 1, 1, 1, 1]
    first = engine.requests[3][0]
    assert [message.role for message in first.conversation.messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant", "tool",
    ]  # fmt: skip
    assert first.conversation.messages[-1].content == '{"folders": ["a", "0"]}'
    assert first.conversation.messages[-1].tool_call_id == first.conversation.messages[-2].tool_calls[0].id
    assert first.max_calls == 0
    assert len({request.sampling.seed for requests in engine.requests for request in requests}) == 16
    answer = result.items[0].answers[0]
    assert answer.text == "done\n\ndone"
    assert answer.calls[0] == {"turn": 1, "name": "mkdir", "arguments": {"name": "0"}, "result": "None"}


def test_what_a_conversation_lacks_is_told(tmp_path, stand_in, form) -> None:  # type: ignore[no-untyped-def]
    _write_set(tmp_path, rows=1)

    def fault(answer, category="base"):  # type: ignore[no-untyped-def]
        return _faults(tmp_path, answer, form, category)[0][0]

    def with_last(*calls):  # type: ignore[no-untyped-def]
        return lambda told: list(calls) if told.messages[-1].content == "What is there?" else _right(told)

    assert fault(lambda told: "no") == "turn 1: no call, expected mkdir"
    assert fault(with_last(("mkdir", {"name": "0"}))).startswith('turn 2: no call gave {"folders": ["a", "0"]}')
    assert fault(with_last(("ls", {}), ("mkdir", {"name": "b"}))) == (
        "turn 2: GorillaFileSystem.folders is ['a', '0', 'b'], expected ['a', '0']"
    )
    assert fault(with_last(("rm", {}), ("ls", {}))) is None  # more calls than are needed do no harm
    # A call in the turn that lacks the function: it is not told, yet it is there, as on the leaderboard.
    assert fault(_right, "miss_func") is None
    late = lambda told: "no such thing" if len(told.messages) == 1 else _right(told)  # noqa: E731
    assert fault(late, "miss_func") is None
    assert fault(lambda told: [("ls", {})]) == "turn 1 does not come to an end"
    rounds = _faults(tmp_path, lambda told: [("ls", {})], form)[1].requests
    assert len(rounds) == MOST_ROUNDS + 1
    # Cut short in the last turn it is judged all the same, as on the leaderboard.
    assert fault(lambda told: [("ls", {})] if len(told.messages) >= 5 else _right(told)) is None
    assert fault(lambda told: [("say", {"text": "." * 5_000})]) == "the conversation does not fit into the context"


def test_calls_are_names_and_values_and_never_code(tmp_path, stand_in) -> None:  # type: ignore[no-untyped-def]
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    names = [
        code, f"ls() or {code}", "__import__", "eval", "print", "exit", "_secret", "_load_scenario", "__init__",
        "__class__", "folders", "GorillaFileSystem.ls", "ls\n", "ls ", "ls(", "",
    ]  # fmt: skip
    with Services() as services:
        found = services.results(SCENARIO, [call(name) for name in names])
        assert found == [f"Error during execution: name '{name}' is not defined" for name in names]
        assert services.results(SCENARIO, [call("say", text=code)]) == [code]
        for arguments in ({code: 1}, {"a b": 1}, {"self": 1}, {"text": 1, "__class__": 2}, {"text": "x", "*": []}):
            (told,) = services.results(SCENARIO, [{"name": "say", "arguments": arguments}])
            assert told.startswith("Error during execution: "), arguments
        assert services.results(SCENARIO, [call("say", text="\ud800é\x00")]) == ["?é\x00"]
        assert services.results(SCENARIO, [call("mkdir", name="a"), call("mkdir")]) == [
            '{"error": "a exists"}',
            "Error during execution: GorillaFileSystem.mkdir() missing 1 required positional argument: 'name'",
        ]
        # Nothing is left over from one request to the next, and lists are not shared.
        assert services.results(SCENARIO, [call("mkdir", name="b"), call("ls")])[1] == '{"folders": ["a", "b"]}'
        assert services.results(SCENARIO, [call("ls")]) == ['{"folders": ["a"]}']
    assert not mark.exists()


def test_a_call_that_is_too_much_ends_its_conversation_and_no_other(tmp_path, stand_in, form) -> None:  # type: ignore[no-untyped-def]
    with Services(seconds=4.0) as services:
        with pytest.raises(CallTooMuchError, match=r"took longer than 4 s"):
            services.results(SCENARIO, [call("power", base=9**9, exponent=9**9)])
        with pytest.raises(CallTooMuchError, match=r"did not survive a call"):
            services.results(SCENARIO, [call("end")])
        (told,) = services.results(SCENARIO, [call("fill", gigabytes=2)])
        assert told.startswith("Error during execution")
        found = services.fault(SCENARIO, [[[call("count", times=10**4299)]]], [[call("ls")]])
        assert found == "turn 1: GorillaFileSystem.counted is a number too long to be written, expected 10"
        with pytest.raises(ServicesError, match=r"cannot do with this scenario \(KeyError"):
            services.results(Scenario(("Nonsense",), {}), [])
        assert services.results(SCENARIO, [call("ls")]) == ['{"folders": ["a"]}']
    _write_set(tmp_path, rows=2)
    ending = lambda told: [("end", {})] if told.messages[0].content == "Make 0." else _right(told)  # noqa: E731
    assert _faults(tmp_path, ending, form)[0] == ["the simulated services did not survive a call", None]
    (stand_in / "bfcl_eval/eval_checker/multi_turn_eval/func_source_code/ticket_api.py").write_text("1 / 0")
    with pytest.raises(ServicesError, match="do not start"):
        _faults(tmp_path, _right, form)


def test_conversations_that_have_ended_are_not_held_again(tmp_path, stand_in, form) -> None:  # type: ignore[no-untyped-def]
    _write_set(tmp_path)
    settings = BenchmarkSettings(tmp_path)
    where = {"journals": tmp_path / "journals", "identity": "model"}
    with pytest.raises(KeyboardInterrupt):
        run_generative(Scripted(_right, form, stop_after=5), "bfcl_multi_turn.base", settings, **where)  # type: ignore[arg-type]
    engine = Scripted(_right, form)
    again = run_generative(engine, "bfcl_multi_turn.base", settings, **where)  # type: ignore[arg-type]
    assert {request.conversation.messages[0].content for (request,) in engine.requests} == {"Make 3."}
    whole = run_generative(Scripted(_right, form), "bfcl_multi_turn.base", settings)  # type: ignore[arg-type]
    assert again.to_json()["items"] == whole.to_json()["items"]


def test_a_model_is_asked(tmp_path, stand_in) -> None:  # type: ignore[no-untyped-def]
    write_seeded_bundle(tmp_path / "model")
    _write_set(tmp_path)
    results = dict(run_tasks(load_engine(tmp_path / "model"), ["bfcl_multi_turn.base"], BenchmarkSettings(
        tmp_path, max_tokens=4, samples=2, temperature=1.0
    )))  # fmt: skip
    measures = gathered(results)["bfcl_multi_turn"]
    assert list(measures) == ["base"]
    assert measures["base"]["acc"]["value"] == 0
    assert measures["base"]["acc"]["n"] == 4
    assert [len(item.answers) for item in results["bfcl_multi_turn.base"].items] == [2] * 4  # type: ignore[union-attr]


def test_what_cannot_be_asked_is_refused_before_anything_is(tmp_path, monkeypatch, stand_in) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ConfigError, match=r'unknown task "bfcl\.multi_turn_base"; did you mean "bfcl_multi_turn\.base"'
    ):
        check_tasks(["bfcl.multi_turn_base"], BenchmarkSettings())
    _write_set(tmp_path, rows=1)
    monkeypatch.setattr(bfcl_services, "PACKAGE", "bfcl-eval-that-nobody-has")
    with pytest.raises(MissingPackageError, match="run: pip install --no-deps bfcl-eval-that-nobody-has"):
        next(run_tasks(None, ["bfcl_multi_turn"], BenchmarkSettings(tmp_path)))  # type: ignore[arg-type]
    path = tmp_path / "bfcl/BFCL_v4_multi_turn_base.json"
    row = json.loads(path.read_text())
    for change, told in (
        ({"involved_classes": ["Bank"]}, r"unknown service 'Bank' \(known: GorillaFileSystem, "),
        ({"question": row["question"][:1]}, "right calls of 2 turns to 1 turns"),
        ({"missed_function": {"1": ["fly"]}}, "not a row of .*KeyError: 'fly'"),
    ):
        path.write_text(json.dumps(row | change))
        with pytest.raises(DataError, match=told):
            problems_of("bfcl_multi_turn.base", tmp_path)
    with pytest.raises(ValueError, match="is no call of a function"):
        right_call("__import__('os').system('ls')")
    (tmp_path / "bfcl/multi_turn_func_doc/math_api.json").unlink()
    with pytest.raises(DataError, match=r"no file bfcl/multi_turn_func_doc/math_api\.json \(or \.gz\)"):
        problems_of("bfcl_multi_turn.base", tmp_path)
