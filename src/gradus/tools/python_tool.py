"""The tool python: a model's code in, what it printed and its last value out; run by Monty, or by CPython in a sandbox.

Monty (pydantic-monty) is an interpreter of a part of Python without files, network or processes of any kind, in worker
processes of its own. The sandbox (sandbox.py) runs all of CPython and its library under bubblewrap. Which of them runs
is a setting; where one is missing that is an error, and the other is not taken in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from gradus.conversation.messages import ToolSchema
from gradus.core.errors import MissingPackageError, ToolError
from gradus.core.terminal import harmless
from gradus.tools.deadline import Deadline
from gradus.tools.sandbox import Limits, require_sandbox, run_program
from gradus.tools.toolbox import Tool

if TYPE_CHECKING:
    from pydantic_monty import Monty

Runtime = Literal["monty", "sandbox"]
PYTHON = ToolSchema(
    "python",
    "Runs Python code and returns what it prints.",
    {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "Print what is to be seen."}},
        "required": ["code"],
    },
)
LIMITS = Limits(seconds=5.0, memory_bytes=2**27, output_bytes=2**16)
MOST_CHARACTERS = 4000  # of a result
_MOST_CODE_CHARACTERS = 20_000
_MOST_WORKERS = 4
_SPARE_SECONDS = 15.0  # for a worker to be there, and to be ended, on a busy machine too


@contextmanager
def python_tool(runtime: Runtime, limits: Limits = LIMITS) -> Iterator[Tool]:
    """The tool, as long as the context lasts. Errors: MissingPackageError; SandboxError where there can be none."""
    seconds = limits.seconds + 2 * _SPARE_SECONDS
    if runtime == "sandbox":
        require_sandbox()
        yield Tool(PYTHON, _answering(lambda code: _by_sandbox(code, limits)), seconds)
        return
    try:
        from pydantic_monty import Monty
    except ImportError:
        raise MissingPackageError("pydantic-monty", "tools") from None
    # A worker serves one call: nothing of one conversation is left for another.
    with Monty(
        min_processes=0,
        max_processes=_MOST_WORKERS,
        max_checkouts_per_worker=1,
        checkout_timeout=_SPARE_SECONDS,
        request_timeout=limits.seconds + _SPARE_SECONDS,
    ) as pool:
        yield Tool(PYTHON, _answering(lambda code: _by_monty(pool, code, limits)), seconds)


def _answering(run: Callable[[str], str]) -> Callable[[Mapping[str, Any], Deadline], str]:
    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        code: str = arguments["code"]
        if not code.strip():
            raise ToolError("empty code")
        if len(code) > _MOST_CODE_CHARACTERS:
            raise ToolError(f"code longer than {_MOST_CODE_CHARACTERS} characters")
        return _shown(run(code)) or "(nothing was printed)"

    return answer


def _shown(text: str) -> str:
    """The beginning and the end of a long text, where results and errors are."""
    text = harmless(text).strip("\n")
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


def _by_monty(pool: Monty, code: str, limits: Limits) -> str:
    import pydantic_monty as monty

    printed = monty.CollectString(limits.output_bytes)
    bounds: monty.ResourceLimits = {"max_feed_duration_secs": limits.seconds, "max_memory": limits.memory_bytes}
    try:
        with pool.checkout(limits=bounds, os_policy={"sleep": "zero"}) as session:
            value = session.feed_run(code, print_callback=printed)
    except monty.MontyCrashedError as error:
        how = "took too long" if error.timed_out else "ended its interpreter"
        raise ToolError(f"the code {how}") from None
    except monty.MontyConversionError:
        value = None  # a last value that is no plain data
    except (monty.MontyRuntimeError, monty.MontySyntaxError) as error:
        raise ToolError(_shown(f"{printed.output}{error.display()}")) from None
    except TimeoutError:
        raise ToolError("no worker is free; try again") from None
    return str(printed.output) + ("" if value is None else repr(value))


def _by_sandbox(code: str, limits: Limits) -> str:
    outcome = run_program(code, "", limits)
    if outcome.ending == "timeout":
        raise ToolError(f"the code took longer than {limits.seconds:g} s")
    if outcome.ending == "too_much_output":
        raise ToolError(f"the code printed more than {limits.output_bytes:,} bytes")
    if outcome.ending == "failed":
        raise ToolError(_shown(outcome.output + outcome.errors))
    return outcome.output
