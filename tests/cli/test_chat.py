"""Chat: what is shown where, and what slash commands do, with an engine that plays a script."""

import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import threading
import time

import pytest
from teacher_server import MODEL, Fault, running

from gradus.cli.chatting import ChatModel, ChatOptions, ChatSession, converse, show
from gradus.cli.remote_chat import remote_loader
from gradus.cli.screen import PlainScreen, TerminalScreen
from gradus.cli.slash_commands import COMMANDS, completions, run_command
from gradus.cli.word_wrap import WordWrap
from gradus.conversation.checks import AssistantTurn
from gradus.conversation.formats.wire import CallReady, Problem, TextDelta, ThinkDelta
from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.core.errors import ConfigError, DataError, EndpointError
from gradus.engine.turn import Done, Reply, ToolResult
from gradus.tools.running import RunningCalls
from gradus.tools.toolbox import Tool, ToolBox

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
    request = session._request([first.conversation.messages[-1]], 1.0)
    assert (request.stop, request.think_budget, request.constrain) == (("x",), 4, "calls")
    assert (request.sampling.min_p, request.sampling.repetition_penalty) == (0.1, 1.3)
    session.options = ChatOptions(repetition_penalty=0.0)
    with pytest.raises(ConfigError, match="repetition_penalty"):
        session._request([first.conversation.messages[-1]], 1.0)
    assert first.sampling.seed != second.sampling.seed


def test_a_line_that_is_no_utf8_is_refused_and_the_next_is_answered(session, screen, capsys):
    # It told of the tokenizer and of a line of Python.
    converse(session, screen, ["caf\udce9", "two"])
    assert [m.content for m in session.messages if m.role == "user"] == ["two"]
    expected = "what was typed or sent is not UTF-8 text (byte 0xe9); set the terminal or the file to UTF-8"
    assert expected in capsys.readouterr().err


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


def stopped_after(*events):
    """An engine's stream that Ctrl-C ends behind these events."""

    def stream(request):
        yield from events
        raise KeyboardInterrupt

    return stream


def test_a_stopped_answer_is_kept_as_far_as_it_came(session, screen, capsys):
    result = ToolResult(Message("tool", "5", tool_call_id="call_1"))
    session.engine.stream = stopped_after(
        ThinkDelta("\nAdd."), CallReady(CALL), result, TextDelta("It "), TextDelta("is")
    )
    converse(session, screen, ["one"])
    assert session.messages == [
        Message("user", "one"),
        Message("assistant", "", "Add.", (CALL,)),
        Message("tool", "5", tool_call_id="call_1"),
        Message("assistant", "It is"),
    ]
    assert written(screen) == "It is\n"
    assert "(stopped; what was said is kept)" in capsys.readouterr().err
    # A call that was not answered would be half a turn; and what was never answered is as if never asked.
    for events in ((CallReady(CALL),), ()):
        kept = list(session.messages)
        session.engine.stream = stopped_after(*events)
        converse(session, screen, ["two", "/regenerate"])
        assert session.messages == kept
    assert "nothing was said yet" in capsys.readouterr().err


def test_calls_that_were_not_run_are_no_part_of_the_conversation(session, screen):
    calling = Message("assistant", "One moment.", None, (CALL,))

    def stream(request):
        yield TextDelta("One moment.")
        yield CallReady(CALL)
        yield Done(Reply(AssistantTurn((calling,), "calls"), num_tokens=9, num_prompt_tokens=9))

    session.engine.stream = stream
    converse(session, screen, ["one"])
    assert session.messages == [Message("user", "one"), Message("assistant", "One moment.")]


def test_an_earlier_message_is_asked_anew(session, screen, capsys):
    converse(session, screen, ["one", "two", "three", "/edit 2 another two"])
    assert [m.content for m in session.messages if m.role == "user"] == ["one", "another two"]
    converse(session, screen, ["/edit and the last", "/edit 7 x", "/edit 1", "/history"])
    assert [m.content for m in session.messages if m.role == "user"] == ["one", "and the last"]
    noted = capsys.readouterr().err
    assert "/edit takes the number of one of your messages, 1 to 2, found 7" in noted
    assert "nothing to ask; the conversation stays as it was" in noted
    assert "2 user     and the last" in noted


def test_a_saved_conversation_is_gone_on_with(session, screen, tmp_path, capsys):
    file = tmp_path / "c.jsonl"
    one = "one\u2028and more"  # what some take for the end of a line
    converse(session, screen, ["/system Be kind.", one, f"/save {file}", "/clear", "/system", f"/load {file}", "two"])
    last = session.engine.requests[-1].conversation.messages
    assert [m.content for m in last] == ["Be kind.", one, "", "5", "It is 1.", "two"]
    before = list(session.messages)
    for text, message in (
        ("{", "no conversation as /save writes it"),
        ('{"messages": 3}', "no conversation as /save writes it"),
        ("{}\n{}", "expected one conversation in one line, found 2"),
    ):
        file.write_text(text)
        converse(session, screen, [f"/load {file}"])
        assert message in capsys.readouterr().err
    converse(session, screen, [f"/load {tmp_path}/none", "/load"])
    assert "cannot be read (No such file" in capsys.readouterr().err
    assert session.messages == before


def test_another_model_goes_on_with_the_conversation(session, screen, capsys):
    converse(session, screen, ["/model later"])
    assert "/model takes a name" in capsys.readouterr().err
    other = ScriptedEngine()
    session.load = lambda name: ChatModel(other, f"{name}: 1 M parameters")
    converse(session, screen, ["one", "/model later", "two", "/stats"])
    assert [m.content for m in other.requests[0].conversation.messages] == ["one", "", "5", "It is 1.", "two"]
    noted = capsys.readouterr().err
    assert "later: 1 M parameters. The conversation goes on." in noted
    assert "9 tokens in 0.0 s" in noted
    assert "behind a prompt of 9" in noted


def on_terminal(width):
    from rich.console import Console

    stream = io.StringIO()
    return stream, TerminalScreen(Console(file=stream, width=width, color_system=None, force_terminal=True))


def test_what_a_model_says_does_not_steer_the_terminal():
    stream, screen = on_terminal(60)
    call = CallReady(ToolCall("call_1", "calc\x1b[2J", {"a": "\x1b]0;title\x07"}))
    result = ToolResult(Message("tool", "\x1b[31m[bold]5", tool_call_id="call_1"))
    events = [ThinkDelta("\x1b[1A"), call, result, Problem("\x9b31m\ud800"), TextDelta("a\x1b[2Kb[/bold]")]
    show((event for event in events), screen)
    screen.end()
    text = stream.getvalue()
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\ud800"}
    assert "[31m[bold]5" in text
    assert "b[/bold]" in text


def test_every_call_has_its_own_result_and_long_results_are_cut():
    stream, screen = on_terminal(60)
    calls = [ToolCall(f"call_{i}", "calculator", {"expression": f"{i} + 1"}) for i in (1, 2)]
    results = [ToolResult(Message("tool", text)) for text in ("two", "\n".join(str(i) for i in range(30)))]
    show((event for event in [*map(CallReady, calls), *results]), screen)
    text = stream.getvalue()
    assert "1 + 1 → two" in text
    assert "2 + 1 → 0" in text
    assert "… 18 more lines" in text


@pytest.mark.parametrize("width", [12, 40])
def test_streamed_lines_break_between_words(width):
    text = "The quick brown fox jumps over the lazy dog.\n\n  indented, and 一二三四五六七八九十一二三四五六 so on"
    for size in (1, 3, 1000):
        wrap = WordWrap(width)
        shown = "".join(wrap.push(text[i : i + size]) for i in range(0, len(text), size)) + wrap.finish()
        assert shown.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
        english = shown[: shown.index("indented")].splitlines()
        assert max(map(len, english)) <= width
        assert {word for line in english for word in line.split()} <= set(text.split())


def test_what_may_follow_is_completed(session):
    assert completions(session, "/th") == ["/think "]
    assert completions(session, "/reg") == ["/regenerate"]
    assert completions(session, "/think o") == ["/think on", "/think off"]
    assert completions(session, "/tools calculator,c") == ["/tools calculator,calculator"]
    assert completions(session, "/load x") is None
    assert completions(session, "/nothing x") == []


def test_a_remote_model_is_asked_with_what_the_api_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret-value")
    call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "2 + 3"}'}}

    def mind(body):
        if body["messages"][-1]["role"] == "tool":
            return f"It is {body['messages'][-1]['content']}."
        return {"content": "", "reasoning_content": "Add.", "tool_calls": [call]}

    with running(mind) as server:
        load = remote_loader(server.base_url, ToolBox(), "SOME_KEY", None)
        options = ChatOptions(temperature=None, top_p=0.5, stop=("x",), think=True, max_tokens=9)
        session = ChatSession(load(MODEL).engine, options, load)
        screen = PlainScreen(io.StringIO())
        converse(session, screen, ["What is 2 + 3?"])
        assert written(screen) == "It is 5.\n"
        assert [m.role for m in session.messages] == ["user", "assistant", "tool", "assistant"]
        assert session.messages[1] == Message(
            "assistant", "", "Add.", (ToolCall("a", "calculator", {"expression": "2 + 3"}),)
        )
        assert session.stats.num_tokens > 0
        first = server.requests[0]
        assert not {"temperature", "seed"} & first.keys()
        assert (first["top_p"], first["stop"], first["max_tokens"]) == (0.5, ["x"], 9)
        assert first["chat_template_kwargs"] == {"enable_thinking": True}
        assert first["tools"][0]["function"]["name"] == "calculator"
        assert server.keys[0] == "Bearer secret-value"
        seeded = remote_loader(server.base_url, ToolBox(), None, None, sends_seed=True)(MODEL)
        list(ChatSession(seeded.engine, ChatOptions(temperature=1.0, seed=5, tools="off")).ask("hm"))
        assert (server.requests[-1]["temperature"], server.requests[-1]["seed"]) == (1.0, 6)
        session.options = ChatOptions(top_k=3, constrain="calls")
        with pytest.raises(ConfigError, match="top_k, constrain: not part of the API"):
            list(session.ask("hm"))
        session.options = ChatOptions(tools="off")
        server.faults = [Fault(status=401)]
        with pytest.raises(EndpointError, match="refuses the key"):
            list(session.ask("hm"))
    with pytest.raises(ConfigError, match="expected an address"):
        remote_loader("localhost", ToolBox(), None, None)("m")


def test_ctrl_c_while_a_remote_model_waits_for_a_tool_ends_the_tool(monkeypatch):
    told = threading.Event()

    def look(arguments, deadline):
        try:
            while deadline.seconds_left():
                time.sleep(0.01)
        finally:
            told.set()

    def interrupt(running):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunningCalls, "results", interrupt)
    toolbox = ToolBox({"look": Tool(ToolSchema("look", "looks", {"type": "object"}), look, timeout_seconds=600.0)})
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    with running(lambda body: {"content": "", "tool_calls": [call]}) as server:
        model = remote_loader(server.base_url, toolbox, None, None)(MODEL)
        with pytest.raises(KeyboardInterrupt):
            list(ChatSession(model.engine, ChatOptions(temperature=None)).ask("Look."))
    assert told.wait(120)


def test_a_terminal_keeps_what_is_typed_and_ctrl_c_stops_a_reply(tmp_path):
    """The whole command on a pseudo-terminal of 40 columns, with a remote model that takes its time."""
    with running(lambda body: "The quick brown fox jumps on to the lazy dog. And over it. " * 200) as server:
        server.event_delay = 0.002
        terminal = Terminal(["chat", "--url", server.base_url, "--model", MODEL], 40, {"XDG_STATE_HOME": str(tmp_path)})
        terminal.expect("Ctrl-D")
        terminal.type('"""one\n', "… ")
        terminal.type('two"""\n', "over")  # of the second sentence: the first line is whole
        terminal.type("\x03", "what was said is kept")
        terminal.type("/hist\t\n", "two")
        terminal.type("/edit\n", "two")
        # readline misses a signal that comes between its drawing and its waiting
        assert any(terminal.came("nothing to ask", 3.0, typed="\x03") for _ in range(20))
        terminal.type("/q\t\n", "")
        assert terminal.ended() == 0
    assert server.requests[0]["messages"][-1]["content"] == "one\ntwo"
    lines = [line.rstrip() for line in terminal.text.splitlines()]
    assert "The quick brown fox jumps on to the lazy" in lines
    history = tmp_path / "gradus" / "chat_history"
    assert history.read_text().splitlines() == ['"""one', 'two"""', "/history", "/edit", "/quit"]
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700


class Terminal:
    """The gradus command on a pseudo-terminal."""

    def __init__(self, arguments, columns, environment):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.pop("COLUMNS", None)
            # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # Given whole: readline may have put the size of the tests' own terminal into what would be inherited.
            every = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1", **environment}
            os.execve(sys.executable, [sys.executable, "-m", "gradus.cli.main", *arguments], every)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.text = ""
        self._seen = 0  # characters up to the end of what was last expected
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def type(self, text, then):
        os.write(self.file, text.encode())
        self.expect(then)

    def expect(self, text, seconds=180.0):
        """Read until the text stands in what came since."""
        assert self.came(text, seconds), f"no {text!r} in {self.text[self._seen :]!r}"

    def came(self, text, seconds, typed=""):
        """Whether the text comes within so many seconds after something is typed."""
        os.write(self.file, typed.encode())
        end = time.monotonic() + seconds
        while (at := self.text.find(text, self._seen)) < 0:
            if time.monotonic() > end:
                return False
            if select.select([self.file], [], [], 0.2)[0]:
                try:
                    piece = self._decoder.decode(os.read(self.file, 4096))
                except OSError:
                    raise AssertionError(f"it ended before {text!r}: {self.text!r}") from None
                self.text += re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", piece)
        self._seen = at + len(text)
        return True

    def ended(self):
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(self.file, 4096):
                pass
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_malformed_output_is_told_beside_the_answer(screen, capsys):
    reply = Reply(AssistantTurn((Message("assistant", "Hm"),), "length"), num_tokens=1, num_prompt_tokens=1)
    show((event for event in [Problem("thinking never closed"), TextDelta("Hm"), Done(reply)]), screen)
    assert written(screen) == "Hm\n"
    noted = capsys.readouterr().err
    assert "thinking never closed" in noted
    assert "cut off" in noted
