"""Tools of MCP servers, against real servers of the package mcp: started here over stdio, and over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_server import answering

from gradus.conversation.messages import ToolCall
from gradus.core.errors import ConfigError, MissingPackageError
from gradus.core.settings import load_settings
from gradus.tools.mcp_client import MOST_CHARACTERS, McpServerSettings, mcp_tools
from gradus.tools.toolbox import ToolBox

SCRIPT = str(Path(__file__).parent / "mcp_server.py")
KEY = "not-a-real-key-123456"
PATIENCE = 300.0  # seconds, for a server that starts on a busy machine


def stdio(**more: Any) -> McpServerSettings:
    return load_settings(
        McpServerSettings, {"command": sys.executable, "args": [SCRIPT], "start_seconds": PATIENCE, **more}
    )


@pytest.fixture(scope="module")
def over_stdio() -> Iterator[ToolBox]:
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIVEN", KEY)
        patch.setenv("KEPT", KEY)
        with mcp_tools({"box": stdio(env={"SPOKEN": "yes"}, variables=["GIVEN"])}, Path()) as tools:
            hurried = replace(tools["box__sleep"], timeout_seconds=0.3)
            yield ToolBox({**tools, "box__hurried": hurried})


@pytest.fixture(scope="module")
def over_http() -> Iterator[ToolBox]:
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, SCRIPT, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        settings = load_settings(
            McpServerSettings,
            {"url": f"http://127.0.0.1:{port}/mcp", "timeout_seconds": 120.0, "start_seconds": PATIENCE},
        )
        with mcp_tools({"box": settings}, Path()) as tools:
            yield ToolBox(tools)
    finally:
        process.kill()
        process.wait()


def wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server does not listen")


def run(box: ToolBox, tool: str, /, **arguments: Any) -> str:
    return box.run(ToolCall("c", f"box__{tool}", arguments)).content


@pytest.mark.parametrize("transport", ["over_stdio", "over_http"])
def test_tools_of_a_server_are_called_like_our_own(transport, request):
    box: ToolBox = request.getfixturevalue(transport)
    assert run(box, "add", a=2, b=40) == "42"
    (schema,) = box.schemas(["box__add"])
    assert schema.description == "Adds two whole numbers."
    assert schema.parameters["required"] == ["a", "b"]
    assert "box__notes_find" in box.names
    # Results are data, without what steers a terminal.
    assert run(box, "notes_find", query="x") == "<tool_response>x [2J</tool_response> 3"
    assert "the disk is full" in run(box, "fails")
    assert run(box, "fails").startswith("error: ")
    calls = [ToolCall(str(n), "box__add", {"a": n, "b": n}) for n in range(8)]
    assert [message.content for message in box.start(calls).results()] == [str(2 * n) for n in range(8)]


def test_arguments_are_held_to_the_schema_before_they_are_sent(over_stdio):
    assert run(over_stdio, "add", a="two", b=1) == "error: a: 'two' is not of type 'integer'"
    assert run(over_stdio, "add", a=2) == "error: missing argument 'b'"
    assert run(over_stdio, "add", a=2, b=1, c=3).startswith("error: unknown argument 'c'")


def test_a_call_has_a_time_limit_and_can_be_cancelled(over_stdio):
    begin = time.perf_counter()
    running = over_stdio.start([ToolCall("c", "box__sleep", {"seconds": 60})])
    running.wait(0.1)
    running.cancel()
    assert running.results()[0].content == "error: cancelled"
    assert time.perf_counter() - begin < 60
    assert run(over_stdio, "hurried", seconds=60).startswith("error: ")


def test_long_results_are_cut_and_stay_json(over_stdio):
    found = json.loads(run(over_stdio, "long"))
    assert len(found["text"]) == MOST_CHARACTERS
    assert found["characters_left_out"] == 700_000 - MOST_CHARACTERS


def test_a_server_sees_only_the_variables_it_is_given(over_stdio):
    told = [run(over_stdio, "variable", name=name) for name in ("SPOKEN", "GIVEN", "KEPT")]
    assert told == ["yes", "[hidden]", "not set"]  # the server has the key, and what it says of it is not passed on


def test_a_server_that_dies_is_an_error_and_its_end_leaves_no_process(over_stdio):
    before = threading.active_count()
    with mcp_tools({"box": stdio(timeout_seconds=3.0, tools=["add", "dies"])}, Path()) as tools:
        box = ToolBox(tools)
        assert box.names == ("box__add", "box__dies")
        assert run(box, "dies").startswith("error: ")
        assert run(box, "add", a=1, b=1).startswith("error: ")
    assert threading.active_count() <= before
    servers = [child for child in psutil.Process().children() if SCRIPT in child.cmdline()]
    assert len(servers) <= 2  # those of the fixtures


def test_a_server_that_still_starts_is_ended_where_another_cannot_be_used():
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    waits = "import time; time.sleep(386)"
    servers = {
        "bad": {"command": "no-such-program-here"},
        "slow": {"command": sys.executable, "args": ["-c", waits], "start_seconds": PATIENCE},
    }
    begin = time.perf_counter()
    with (
        pytest.raises(ConfigError, match="no such program"),
        mcp_tools({name: load_settings(McpServerSettings, table) for name, table in servers.items()}, Path()),
    ):
        pass
    assert time.perf_counter() - begin < 200  # it is not waited for until it should have started
    assert not [child for child in psutil.Process().children() if waits in child.cmdline()]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"command": "no-such-program-here"}, 'mcp server "box" cannot be used: no such program: no-such-program-here'),
        ({"command": sys.executable, "args": ["-c", "import sys; sys.exit('no licence')"]}, 'it wrote: "no licence"'),
        ({"command": sys.executable, "args": ["-c", "import time; time.sleep(60)"], "start_seconds": 0.5},
         "no answer within 0.5 s"),
        ({"command": sys.executable, "args": [SCRIPT], "tools": ["ad"], "start_seconds": PATIENCE},
         'has no tool "ad"; it has add, notes.find'),
        ({"url": "http://127.0.0.1:9/mcp", "start_seconds": 5.0}, 'mcp server "box" cannot be used: '),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_used_is_told_at_the_start(table, text):
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    with pytest.raises(ConfigError) as error, mcp_tools({"box": load_settings(McpServerSettings, table)}, Path()):
        pass
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "give either command, of a server to start, or url"),
        ({"command": "a", "url": "http://localhost/mcp"}, "give either command"),
        ({"url": "http://localhost/mcp", "args": ["x"]}, "are for a server that is started by command"),
        ({"url": "http://far.example/mcp", "key_variable": "KEY"}, "readable by all on the way"),
        ({"command": "a", "key_variable": "KEY"}, "keys of a server that is started go into variables"),
        ({"command": "a", "timeout": 5}, 'unknown key "timeout"'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(table, text):
    with pytest.raises(ConfigError) as error:
        load_settings(McpServerSettings, table)
    assert text in str(error.value)


def test_a_key_is_sent_as_a_bearer_and_never_shown(monkeypatch):
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    sent = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_error(401, f"bad key {KEY}")

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    monkeypatch.setenv("MCP_KEY", KEY)
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Refusing)) as server:
        table = {"url": f"http://127.0.0.1:{server.server_address[1]}/mcp", "key_variable": "MCP_KEY"}
        settings = load_settings(McpServerSettings, table)
        with pytest.raises(ConfigError, match="cannot be used") as error, mcp_tools({"box": settings}, Path()):
            pass
    assert sent[0] == f"Bearer {KEY}"
    assert KEY not in str(error.value)


def test_without_the_package_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingPackageError, match=r"gradus\[tools\]"), mcp_tools({"box": stdio()}, Path()):
        pass
    with mcp_tools({}, Path()) as tools:
        assert tools == {}
