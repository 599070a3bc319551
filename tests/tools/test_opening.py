"""Tools by name: what is there without being named, what a file of tools says, and what is missing told at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradus.cli.main import app
from gradus.cli.tools import opened_tools
from gradus.conversation.messages import Message, ToolCall
from gradus.core.errors import ConfigError, GradusError
from gradus.tools.opening import ToolSettings, open_toolbox, read_tool_settings
from gradus.tools.passages import TitledText
from gradus.tools.search_index import build_index

ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    build_index(tmp_path / "notes.index", [TitledText("Bees", "bees.md", "A hive has one queen.")])
    return tmp_path / "notes.index"


def test_what_reaches_out_is_there_only_when_it_is_named(index):
    with opened_tools("all", None, None) as box:
        assert box.names == ("calculator",)
    with opened_tools("all", index, None) as box:
        assert box.names == ("calculator", "web_search")
        assert "one queen" in box.run(ToolCall("c", "web_search", {"query": "queen"})).content
    with opened_tools(" fetch , calculator ", None, None) as box:
        assert box.names == ("fetch", "calculator")
        refused = box.run(ToolCall("c", "fetch", {"url": "http://localhost/"})).content
        assert refused == "error: localhost is no public address; only pages of the public internet are fetched"


def test_a_file_of_tools_says_what_they_need(index):
    file = index.with_name("tools.toml")
    file.write_text('index = "notes.index"\nmax_calls = 1\n')
    with opened_tools("web_search,calculator", None, file) as box:
        assert "one queen" in box.run(ToolCall("c", "web_search", {"query": "queen"})).content
        earlier = [Message("tool", "1", tool_call_id="a")]
        (answer,) = box.start([ToolCall("c", "calculator", {"expression": "1"})], earlier).results()
        assert answer.content.startswith("error: all 1 tool calls of this conversation are spent")


@pytest.mark.parametrize(
    ("names", "text", "told"),
    [
        ("calc", "", 'no tool "calc"; did you mean "calculator"?'),
        ("web_search", "", "web_search needs something to search"),
        ("mcp:files", "[mcp.file]\ncommand = 'x'", 'no MCP server "files"; did you mean "file"?'),
        ("all", "pyton = 'monty'", 'unknown key "pyton"; did you mean "python"?'),
        ("all", "python = 'cpython'", '"python": expected one of monty, sandbox, found "cpython"'),
        ("all", "index = 'a'\n[web_search]\nservice = 'tavily'", "give one of index and web_search"),
        ("all", "[mcp.'a b']\ncommand = 'x'", 'mcp: "a b" is no name of a server'),
        ("all", "[mcp", "tools.toml: "),
        ("all", "index = 'none.index'", "no such index"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_told_at_once(tmp_path, names, text, told):
    file = tmp_path / "tools.toml"
    file.write_text(text)
    with pytest.raises(GradusError) as error, opened_tools(names, None, file):
        pass
    assert told in str(error.value)


def test_an_index_is_not_named_twice(index):
    file = index.with_name("tools.toml")
    file.write_text('index = "notes.index"')
    with pytest.raises(ConfigError, match="says already what web_search looks in"), opened_tools("all", index, file):
        pass
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tool_settings(index.with_name("none.toml"))


def test_the_page_on_tools_shows_files_that_can_be_read(tmp_path):
    page = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```toml\n(.*?)^```$", page, re.S | re.M)
    assert len(shown) >= 5
    for text in shown:
        (tmp_path / "tools.toml").write_text(text)
        assert read_tool_settings(tmp_path / "tools.toml") != ToolSettings()


def test_the_command_line_tells_a_wrong_name_before_the_model_is_looked_for():
    done = CliRunner().invoke(app, ["chat", "--model", "none", "--tools", "serch"])
    assert 'no tool "serch"' in str(done.exception)


def test_nothing_is_opened_that_was_not_asked_for():
    with open_toolbox([], ToolSettings(), Path()) as box:
        assert box.names == ()
