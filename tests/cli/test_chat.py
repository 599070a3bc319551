"""Chat: what is shown where, and what slash commands do, with an engine that plays a script."""

import io
import json

import pytest

from gradus.cli.chatting import COMMANDS, ChatOptions, ChatSession, converse, run_command, show
from gradus.cli.screen import PlainScreen, TerminalScreen
from gradus.conversation.checks import AssistantTurn
from gradus.conversation.formats.wire import CallReady, Problem, TextDelta, ThinkDelta
from gradus.conversation.messages import Message, ToolCall
from gradus.core.errors import ConfigError, DataError
from gradus.engine.turn import Done, Reply, ToolResult
from gradus.tools.toolbox import ToolBox

CALL = ToolCall("call_1", "calculator", {"expression": "2 + 3"})


class ScriptedEngine:
    """Answers every request alike: a thought, a call, an answer that counts the requests."""

    def __init__(self):
        self.toolbox = ToolBox()
        self.requests = []
        self.fails = False

    def stream(self, request):
        self.requests.append(request)
        if self.fails:
            raise DataError("the prompt is too long")
        yield ThinkDelta("Add ")
        yield ThinkDelta("them.")
        yield CallReady(CALL)
        yield ToolResult(Message("tool", "5", tool_call_id="call_1"))
        yield TextDelta("\nIt is ")
        yield TextDelta(f"{len(self.requests)}.")
        messages = (
            Message("assistant", "", "Add them.", (CALL,)),
            Message("tool", "5", tool_call_id="call_1"),
            Message("assistant", f"It is {len(self.requests)}."),
        )
        yield Done(Reply(AssistantTurn(messages, "stop"), num_tokens=9, num_prompt_tokens=9))


@pytest.fixture
def session():
    return ChatSession(ScriptedEngine(), ChatOptions())


@pytest.fixture
def screen():
    return PlainScreen(io.StringIO())


def written(screen):
    return screen._stream.getvalue()


def test_a_pipe_gets_the_answers_alone(session, screen):
    converse(session, screen, ["What is 2 + 3?", "", "And now?"])
    assert written(screen) == "It is 1.\nIt is 2.\n"
    assert [m.role for m in session.messages] == ["user", "assistant", "tool", "assistant"] * 2


def test_a_terminal_shows_thinking_dim_and_calls_in_panels(session):
    from rich.console import Console

    stream = io.StringIO()
    show(session.ask("What is 2 + 3?"), TerminalScreen(Console(file=stream, force_terminal=True, width=60)))
    text = stream.getvalue()
    assert "\x1b[2;3mAdd" in text
    assert " calculator " in text
    assert "╭─" in text
    assert "2 + 3" in text
    assert "It is " in text


def test_each_turn_sees_the_ones_before_and_draws_anew(session, screen):
    session.options = ChatOptions(system="Be short.", temperature=0.5, think=True)
    converse(session, screen, ["one", "two"])
    first, second = session.engine.requests
    assert [m.content for m in first.conversation.messages] == ["Be short.", "one"]
    assert [m.role for m in second.conversation.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert first.think is True
    assert first.tools == ("calculator",)
    assert first.sampling.temperature == 0.5
    session.options = ChatOptions(min_p=0.1, repetition_penalty=1.3, stop=("x",), think_budget=4, constrain="calls")
    request = session._request(first.conversation.messages[-1], 1.0)
    assert (request.stop, request.think_budget, request.constrain) == (("x",), 4, "calls")
    assert (request.sampling.min_p, request.sampling.repetition_penalty) == (0.1, 1.3)
    session.options = ChatOptions(repetition_penalty=0.0)
    with pytest.raises(ConfigError, match="repetition_penalty"):
        session._request(first.conversation.messages[-1], 1.0)
    assert first.sampling.seed != second.sampling.seed


def test_switches_are_set_by_commands(session, screen):
    converse(session, screen, ["/think on", "/tools off", "/temperature 0.3", "/system Be kind.", "hi"])
    (request,) = session.engine.requests
    assert (request.think, request.tools, request.sampling.temperature) == (True, (), 0.3)
    assert request.conversation.messages[0].content == "Be kind."
    converse(session, screen, ["/think auto", "/tools calculator", "/system", "/clear", "hi"])
    request = session.engine.requests[-1]
    assert (request.think, request.tools) == (None, ("calculator",))
    assert [m.content for m in request.conversation.messages] == ["hi"]


def test_regenerate_replaces_the_last_answer(session, screen):
    converse(session, screen, ["one", "two", "/regenerate"])
    assert [m.content for m in session.messages if m.role == "user"] == ["one", "two"]
    assert session.messages[-1].content == "It is 3."
    assert session.engine.requests[-1].sampling.temperature > 0


def test_a_failed_regenerate_keeps_the_conversation(session, screen, capsys):
    converse(session, screen, ["one"])
    before = list(session.messages)
    session.engine.fails = True
    converse(session, screen, ["/regenerate"])
    assert session.messages == before
    assert "the prompt is too long" in capsys.readouterr().err


def test_a_conversation_is_saved_as_a_row_that_reads_back(session, screen, tmp_path):
    from gradus.conversation.messages import Conversation

    converse(session, screen, ["one", f"/save {tmp_path / 'c.jsonl'}"])
    row = Conversation.from_json(json.loads((tmp_path / "c.jsonl").read_text()))
    assert [m.content for m in row.messages] == [m.content for m in session.messages]
    assert row.tools[0].name == "calculator"
    with pytest.raises(ConfigError, match="cannot be written"):
        run_command(session, screen, f"/save {tmp_path}/no/c.jsonl")


def test_quit_ends_and_help_lists_every_command(session, screen, capsys):
    converse(session, screen, ["/help", "/quit", "never asked"])
    assert session.engine.requests == []
    listed = capsys.readouterr().err
    assert all(f"/{name}" in listed for name in COMMANDS if name != "help")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/thnk on", 'no command /thnk; did you mean "think"?'),
        ("/think maybe", '/think takes on, off or auto, found "maybe"'),
        ("/temperature hot", '/temperature takes a number from 0, found "hot"'),
        ("/tools calculater", 'no tool "calculater"; did you mean "calculator"?'),
        ("/regenerate", "nothing to regenerate yet"),
        ("/save", "/save takes a file name"),
    ],
)
def test_wrong_commands_are_answered_and_the_conversation_goes_on(session, screen, capsys, line, message):
    converse(session, screen, [line, "hello"])
    assert message in capsys.readouterr().err
    assert written(screen) == "It is 1.\n"
    assert session.tool_names() == ("calculator",)


def test_an_interrupted_answer_is_forgotten(session, screen, capsys):
    def interrupted(request):
        yield TextDelta("It ")
        raise KeyboardInterrupt

    session.engine.stream = interrupted
    converse(session, screen, ["one"])
    assert session.messages == []
    assert "stopped" in capsys.readouterr().err


def test_malformed_output_is_told_beside_the_answer(screen, capsys):
    reply = Reply(AssistantTurn((Message("assistant", "Hm"),), "length"), num_tokens=1, num_prompt_tokens=1)
    show((event for event in [Problem("thinking never closed"), TextDelta("Hm"), Done(reply)]), screen)
    assert written(screen) == "Hm\n"
    noted = capsys.readouterr().err
    assert "thinking never closed" in noted
    assert "cut off" in noted
