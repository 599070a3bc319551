"""The simulated services that BFCL's conversations act on, in a process of their own: what calls give, and verdicts.

The services (file system, trading, travel and so on) are those of the package bfcl-eval, whose other packages none of
them needs. Nothing that a model wrote is run as Python: a call is a name out of the services' public methods and plain
JSON arguments. What a method then does, such as a power of nine digits by nine, is bounded in time and memory by the
process, which holds nothing: every request names a scenario and all calls so far, and is played from the beginning.

A conversation is right when after each turn with right calls the services stand as the right calls leave them, and what
those calls give is among what the model's calls have given so far. Source: the checker of bfcl-eval (version 4), whose
verdicts these equal.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, BinaryIO, cast

from gradus.core.errors import GradusError, MissingPackageError

PACKAGE = "bfcl-eval"
_CODE = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
SERVICES = {
    "GorillaFileSystem": "gorilla_file_system", "MathAPI": "math_api", "MessageAPI": "message_api",
    "TwitterAPI": "posting_api", "TicketAPI": "ticket_api", "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking", "VehicleControlAPI": "vehicle_control",
}  # fmt: skip
"""The module of each, which its functions are published under, too."""
_STATELESS = ("MathAPI",)
_SECONDS = 20.0  # of one request, which takes milliseconds
_START_SECONDS = 120.0  # of the process, which imports the package: seconds, and many on a busy machine
_ORPHAN_SECONDS = 60
_MEMORY_BYTES = 2**30
_SHOWN = 200  # characters of what was expected

Call = Mapping[str, Any]
"""{"name", "arguments"}; of right calls also "values", which are given without a name."""


class ServicesError(GradusError):
    """The services cannot be used."""


class CallTooMuchError(GradusError):
    """A call takes more time or memory than there is for it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a conversation begins. services: of `SERVICES`, in their order; config: what each is loaded with."""

    services: tuple[str, ...]
    config: Mapping[str, Any]
    long_context: bool = False


def services_version() -> str:
    """Of the package. Errors: MissingPackageError."""
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        found = None
    if found is None or find_spec("bfcl_eval") is None:
        # What it asks for (an exact numpy, clients of ten vendors) fits beside nothing and is not used.
        raise MissingPackageError(PACKAGE, options="--no-deps")
    return found


class Services:
    """The process, begun when it is needed and again after a call that was too much for it. Close it at the end."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        """seconds: that one request may take."""
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *reason: object) -> None:
        self._end()

    def results(self, scenario: Scenario, calls: Sequence[Call]) -> list[str]:
        """What each of the calls gives, one after the other. Errors: ServicesError, CallTooMuchError."""
        found: list[str] = self._ask({"scenario": asdict(scenario), "calls": calls})
        # JSON can spell halves of characters, which no tokenizer reads.
        return [text.encode("utf-8", "replace").decode() for text in found]

    def fault(
        self, scenario: Scenario, turns: Sequence[Sequence[Sequence[Call]]], rights: Sequence[Sequence[Call]]
    ) -> str | None:
        """As `fault_of`. Errors: ServicesError, CallTooMuchError."""
        found: str | None = self._ask({"scenario": asdict(scenario), "turns": turns, "rights": rights})
        return found

    def _ask(self, request: Mapping[str, Any]) -> Any:
        process = self._running()
        requests = cast("BinaryIO", process.stdin)
        with suppress(BrokenPipeError):
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        line = self._line(process, self._seconds)
        if line is None:
            raise CallTooMuchError(f"a call to the simulated services took longer than {self._seconds:g} s")
        if not line:
            raise CallTooMuchError("the simulated services did not survive a call")
        answer = json.loads(line)
        if "broke" in answer:
            raise ServicesError(f"the services of {PACKAGE} cannot do with this scenario ({answer['broke']})")
        return answer["answer"]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C reaches the caller alone, which then ends it.
                start_new_session=True,
            )
            if not self._line(self._process, _START_SECONDS):
                raise ServicesError(
                    f"the services of {PACKAGE} do not start, for what is written above; install it again: "
                    f"pip install --no-deps --force-reinstall {PACKAGE}"
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """What it answers: None where it takes too long, nothing where it has ended. Either way it is over."""
        answers = cast("BinaryIO", process.stdout)
        line = answers.readline() if select.select([answers], [], [], seconds)[0] else None
        if not line:
            self._end()
        return line

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            with suppress(BrokenPipeError):
                cast("BinaryIO", self._process.stdin).close()
            cast("BinaryIO", self._process.stdout).close()
            self._process = None


# The process's side


def results_of(scenario: Scenario, calls: Sequence[Call]) -> list[str]:
    """What each of the calls gives, one after the other."""
    methods = _methods(_opened(scenario))
    return [_result(methods, call) for call in calls]


def fault_of(
    scenario: Scenario, turns: Sequence[Sequence[Sequence[Call]]], rights: Sequence[Sequence[Call]]
) -> str | None:
    """What is wrong with a conversation.

    turns: of each turn the calls of each answer that had any; rights: of each turn the right calls, none where there is
    nothing to call for. A conversation that was cut short has fewer turns.
    """
    if len(turns) != len(rights):
        return f"turn {len(turns)} does not come to an end"
    services, wanted = _opened(scenario), _opened(scenario)
    methods, right_methods = _methods(services), _methods(wanted)
    given: list[str] = []
    for number, (answers, right) in enumerate(zip(turns, rights, strict=True), start=1):
        given += [_result(methods, call) for calls in answers for call in calls]
        expected = [_result(right_methods, call) for call in right]
        if not right:
            continue
        if not answers:
            return f"turn {number}: no call, expected {', '.join(call['name'] for call in right)}"
        if difference := _difference(services, wanted):
            return f"turn {number}: {difference}"
        left = list(given)
        for text in expected:
            if text not in left:
                return f"turn {number}: no call gave {_shown(text)}"
            left.remove(text)
    return None


def _difference(services: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first thing that is not as it should be."""
    for name, service in wanted.items():
        found = vars(services[name])
        for key, value in vars(service).items():
            if not key.startswith("_") and found.get(key) != value:
                return f"{name}.{key} is {_shown(found.get(key))}, expected {_shown(value)}"
    return None


def _opened(scenario: Scenario) -> dict[str, Any]:
    """The services by name, as the scenario has them. Errors: KeyError for one that is not simulated."""
    found = {}
    for name in scenario.services:
        found[name] = getattr(import_module(f"{_CODE}.{SERVICES[name]}"), name)()
        if name not in _STATELESS:
            config = deepcopy(scenario.config.get(name, {}))  # the services change what they are given
            found[name]._load_scenario(config, long_context=scenario.long_context)
    return found


def _methods(services: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """What may be called: public methods, of the last service where several have the name."""
    return {
        name: method
        for service in services.values()
        for name, method in inspect.getmembers(service, inspect.ismethod)
        if not name.startswith("_")
    }


def _result(methods: Mapping[str, Callable[..., Any]], call: Call) -> str:
    """What a call gives, as a model is told."""
    if call["name"] not in methods:
        return f"Error during execution: name '{call['name']}' is not defined"
    try:
        found = methods[call["name"]](*call.get("values", ()), **call["arguments"])
        return found if isinstance(found, str) else _told(found)
    except Exception as error:  # noqa: BLE001 (whatever a service raises is what the call gives)
        return f"Error during execution: {error}"


def _told(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found)
    try:
        return json.dumps(found)
    except (TypeError, ValueError):  # some hold objects
        return str(found)


def _shown(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # Python spells out no number of more than 4,300 digits
        return "a number too long to be written"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def serve() -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a service prints is no answer
    for module in SERVICES.values():
        import_module(f"{_CODE}.{module}")
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))

    def send(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    send({"answer": None})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.alarm(_ORPHAN_SECONDS)  # for a caller that is gone: some calls let no other signal through Python
        try:
            send({"answer": _answered(Scenario(**request.pop("scenario")), request)})
        except MemoryError:
            raise  # a call left too much behind: the caller is told by our end
        except Exception as error:  # noqa: BLE001 (told to the caller, which raises)
            send({"broke": f"{type(error).__name__}: {error}"})
        signal.alarm(0)


def _answered(scenario: Scenario, request: Mapping[str, Any]) -> list[str] | str | None:
    if "calls" in request:
        return results_of(scenario, request["calls"])
    try:
        return fault_of(scenario, request["turns"], request["rights"])
    except (RecursionError, MemoryError):
        return "the services were left in a state that is too deep or too large to compare"


if __name__ == "__main__":
    serve()
