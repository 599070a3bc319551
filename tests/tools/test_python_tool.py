"""python: what is printed comes back, nothing of the machine can be reached, and nothing lasts; in both runtimes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gradus.conversation.messages import ToolCall
from gradus.core.errors import MissingPackageError
from gradus.tools.python_tool import MOST_CHARACTERS, python_tool
from gradus.tools.sandbox import Limits, SandboxError
from gradus.tools.toolbox import ToolBox


@pytest.fixture(scope="module", params=["monty", "sandbox"])
def runtime(request: pytest.FixtureRequest) -> Iterator[tuple[str, ToolBox]]:
    try:
        with python_tool(request.param, Limits(60.0, 2**27, 2**14)) as tool:
            yield request.param, ToolBox({"python": tool})
    except (MissingPackageError, SandboxError) as error:
        pytest.skip(str(error))


def run(box: ToolBox, code: str) -> str:
    return box.run(ToolCall("c", "python", {"code": code})).content


def test_what_is_printed_comes_back(runtime):
    name, box = runtime
    assert run(box, "import math\nprint(math.comb(10, 3), 'café')") == "120 café"
    assert run(box, "x = 5") == "(nothing was printed)"
    # Where the interpreter gives a last value, it is shown too.
    assert run(box, "print('a')\n[n * n for n in range(4)]") == ("a\n[0, 1, 4, 9]" if name == "monty" else "a")
    failed = run(box, "print('a')\n1/0")
    assert failed.startswith("error: a\n")
    assert "ZeroDivisionError" in failed
    assert "\x1b" not in run(box, "print('\\x1b[2J')")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("print(1", "SyntaxError"),
        ("x = 'a' * 10**10", "MemoryError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("(" * 5000, "nest"),
        ("open('/etc/passwd').read()", "Error"),
        ("open('/tmp/x', 'w').write('x')", "Error"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "Error"),
        ("import subprocess\nsubprocess.run(['ls'])", "Error"),
        ("import gradus", "Error"),
        ("", "empty code"),
        ("x" * 20_001, "code longer than 20000 characters"),
    ],
)
def test_what_goes_wrong_or_is_not_allowed_is_told(runtime, code, text):
    answer = run(runtime[1], code)
    assert answer.startswith("error: ")
    assert text in answer
    assert len(answer) < MOST_CHARACTERS + 100


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("while True: pass", ("TimeoutError", "took longer")),
        ("while True: print('abcdefgh')", ("",)),  # the one for the time, the other for the output
    ],
)
def test_code_without_end_is_ended(runtime, code, texts):
    with python_tool(runtime[0], Limits(0.5, 2**27, 2**14)) as tool:
        answer = run(ToolBox({"python": tool}), code)
    assert answer.startswith("error: ")
    assert any(text in answer for text in texts)
    assert len(answer) < MOST_CHARACTERS + 100


def test_nothing_of_one_call_is_left_for_the_next(runtime):
    run(runtime[1], "secret = 42")
    assert "NameError" in run(runtime[1], "print(secret)")


def test_a_runtime_that_is_not_installed_is_an_error_and_not_replaced(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    told = r'"pydantic-monty" is needed .* pip install "gradus\[tools\]"'
    with pytest.raises(MissingPackageError, match=told), python_tool("monty"):
        pass
