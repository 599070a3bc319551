"""Runs inside the sandbox, given as text to its Python: a program in one process, its tests in another.

Standard input holds a line of JSON for the program (its text, limits, the filter of system calls), one with the tests,
and one with the nonce, which is written as the last thing when all tests have passed. The process that runs the program
is split off before the second line is read, so that neither what the tests expect nor the nonce is ever in it: whatever
it does to its interpreter, all that it can give to the tests are answers to calls.

Answers are plain data. Functions, classes and other objects of the program have stand-ins in the tests, which can be
called, read and iterated, and are equal to nothing but themselves; functions of the tests can be handed over. The names
that tests use are the program's, but for those that they define themselves, modules of Python's library, and built-in
functions as long as the tests use any other name of the program (a task may well ask for a function called `sum`).
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib
import json
import os
import resource
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn, cast

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LENGTH = 8  # bytes of a message's length, before it
_PLAIN_INT = 2**62  # larger ones are spelled in base 16, which has no limit on digits
_SHOWN = 500  # characters of an exception


# What both processes say


class _EndedError(BaseException):
    """The other process is gone, which no test may take for an exception of the program."""


def _line(descriptor: int) -> bytes:
    """Bytes up to the end of a line, read one at a time: what follows must stay in the pipe."""
    found = bytearray()
    while not found.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        found += byte
    return bytes(found)


def _send(descriptor: int, message: Any) -> None:
    text = json.dumps(message).encode()
    left = memoryview(len(text).to_bytes(_LENGTH, "big") + text)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except BrokenPipeError:
        raise _EndedError from None


def _receive(descriptor: int) -> Any:
    return json.loads(_bytes(descriptor, int.from_bytes(_bytes(descriptor, _LENGTH), "big")))


def _bytes(descriptor: int, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        part = os.read(descriptor, min(count - len(found), 2**16))
        if not part:
            raise _EndedError
        found += part
    return bytes(found)


def _encoded(value: Any, refer: Callable[[Any], Any]) -> Any:
    """A value as JSON: text, numbers, booleans and None as they are, all else as [kind, content]."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_PLAIN_INT < value < _PLAIN_INT else ["int", hex(value)]
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    for kind, base in _SEQUENCES.items():
        if isinstance(value, base):
            return [kind, [_encoded(item, refer) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[_encoded(key, refer), _encoded(item, refer)] for key, item in value.items()]]
    for kind, (base, spell, _) in _SPELLED.items():
        if isinstance(value, base):
            return [kind, spell(value)]
    return refer(value)


def _decoded(found: Any, referred: Callable[[str, int], Any]) -> Any:
    """What `_encoded` wrote. referred: what stands for an object of the other process, or is one's own."""
    if not isinstance(found, list):
        return found
    kind, content = found
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_decoded(item, referred) for item in content)
    if kind == "dict":
        return {_decoded(key, referred): _decoded(item, referred) for key, item in content}
    return _SPELLED[kind][2](content) if kind in _SPELLED else referred(kind, content)


def _raised(error: BaseException) -> dict[str, Any]:
    return {"raised": [type(error).__name__, str(error)[:_SHOWN]]}


_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_SPELLED: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "int": (int, hex, lambda text: int(text, 16)),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "bytearray": (bytearray, bytearray.hex, bytearray.fromhex),
    "complex": (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    "decimal": (Decimal, str, Decimal),
    "fraction": (Fraction, str, Fraction),
    "range": (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
}


# The program's process

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "attribute": getattr, "bool": bool, "item": lambda value, key: value[key], "len": len, "list": list, "next": next,
    "repr": repr, "set": setattr, "str": str,
}  # fmt: skip


def _run_program(program: str, requests: int, answers: int) -> NoReturn:
    """Run the program, then answer what the tests ask of it until they say that it is over."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    kept: list[Any] = []
    places: dict[int, int] = {}  # in `kept`, by id

    def refer(value: Any) -> list[Any]:
        if id(value) not in places:
            places[id(value)] = len(kept)
            kept.append(value)
        return ["object", places[id(value)]]

    def referred(kind: str, place: int) -> Any:
        return kept[place] if kind == "object" else partial(call_test, place)

    def call_test(place: int, *values: Any, **named: Any) -> Any:
        """A function of the tests, which they handed over."""
        told = [_encoded(value, refer) for value in values]
        told_named = {key: _encoded(value, refer) for key, value in named.items()}
        _send(answers, {"test": place, "values": told, "named": told_named})
        answer = serve()
        if "raised" in answer:
            raise _exception(*answer["raised"])
        return _decoded(answer["value"], referred)

    def reply(work: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = work()
        except _EndedError:
            raise
        except BaseException as error:  # noqa: BLE001, whatever a program raises is told
            answer = _raised(error)
            with suppress(Exception):
                sys.stdout.flush()  # the tests may end here, and what was printed before it helps to see why
        _send(answers, answer)

    def execute() -> dict[str, Any]:
        exec(compile(program, "program", "exec"), vars(module))  # noqa: S102, what a sandbox is for
        return {}

    def look_up(names: list[str]) -> dict[str, Any]:
        found = vars(module)
        return {"value": {name: _encoded(found[name], refer) for name in names if name in found}}

    def operate(kind: str, target: int, values: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        arguments = [_decoded(value, referred) for value in values]
        if kind != "call":
            return {"value": _encoded(_OPERATIONS[kind](kept[target], *arguments), refer)}
        found = kept[target](*arguments, **{key: _decoded(value, referred) for key, value in named.items()})
        changed = {}
        for place, (value, argument) in enumerate(zip(values, arguments, strict=True)):
            if isinstance(argument, list | bytearray | set | dict) and (now := _encoded(argument, refer)) != value:
                changed[place] = now
        return {"value": _encoded(found, refer), "changed": changed}

    def serve() -> dict[str, Any]:
        """Answer requests until there is one that asks for nothing, and return it."""
        while True:
            request: dict[str, Any] = _receive(requests)
            if "names" in request:
                reply(partial(look_up, **request))
            elif "kind" in request:
                reply(partial(operate, **request))
            else:
                return request

    reply(execute)
    serve()
    sys.stdout.flush()
    os._exit(0)


# The tests' process


class _Program:
    """The other process, as the tests reach it."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._functions: list[Callable[..., Any]] = []  # of the tests, that the program was given

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Errors: what the program raised."""
        _send(self._requests, request)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = _receive(self._answers)
        while "test" in found:
            _send(self._requests, self._called(**found))
            found = _receive(self._answers)
        if "raised" in found:
            raise _exception(*found["raised"])
        return found

    def operate(self, kind: str, target: int, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        told = [_encoded(value, self._reference) for value in values]
        told_named = {key: _encoded(value, self._reference) for key, value in named.items()}
        answer = self.ask({"kind": kind, "target": target, "values": told, "named": told_named})
        for place, content in answer.get("changed", {}).items():
            _refill(values[int(place)], self.decoded(content))
        return self.decoded(answer["value"])

    def decoded(self, content: Any) -> Any:
        return _decoded(content, self._referred)

    def _referred(self, kind: str, place: int) -> Any:
        if kind != "object":
            raise AssertionError("a result of a kind that there is not")
        return _StandIn(self, place)

    def _reference(self, value: Any) -> list[Any]:
        if isinstance(value, _StandIn):
            return ["object", vars(value)["_StandIn__place"]]
        if not callable(value):
            raise TypeError(f"a test cannot hand {type(value).__name__} to a program")
        self._functions.append(value)
        return ["function", len(self._functions) - 1]

    def _called(self, test: int, values: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        """What a function of the tests gives to the program."""
        try:
            arguments = {key: self.decoded(value) for key, value in named.items()}
            found = self._functions[test](*map(self.decoded, values), **arguments)
            return {"value": _encoded(found, self._reference)}
        except Exception as error:  # noqa: BLE001, the program is told
            return _raised(error)


class _StandIn:
    """An object of the program. Only itself is equal to it: what the program says of equality counts for nothing."""

    __program: _Program
    __place: int

    def __init__(self, program: _Program, place: int) -> None:
        vars(self).update(_StandIn__program=program, _StandIn__place=place)

    def __ask(self, kind: str, *values: Any, **named: Any) -> Any:
        return self.__program.operate(kind, self.__place, values, named)

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self.__ask("call", *values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__ask("attribute", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__ask("set", name, value)

    def __bool__(self) -> bool:
        return bool(self.__ask("bool"))

    def __len__(self) -> int:
        return int(self.__ask("len"))

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.__ask("list")))

    def __next__(self) -> Any:
        try:
            return self.__ask("next")
        except Exception as error:
            if type(error).__name__ == StopIteration.__name__:
                raise StopIteration from None
            raise

    def __getitem__(self, key: Any) -> Any:
        return self.__ask("item", key)

    def __repr__(self) -> str:
        return str(self.__ask("repr"))

    def __str__(self) -> str:
        return str(self.__ask("str"))

    def __hash__(self) -> int:
        return hash(self.__place)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _StandIn):
            return self.__place == other.__place
        raise AssertionError("a result that is no plain value")

    def __lt__(self, other: object) -> bool:
        raise AssertionError("a result that is no plain value")

    __le__ = __gt__ = __ge__ = __lt__


def _refill(target: Any, content: Any) -> None:
    """What a call made of a list, a set or an object that it was given."""
    if isinstance(target, list | bytearray):
        target[:] = content
    elif isinstance(target, set | dict):
        target.clear()
        target.update(content)


def _exception(name: str, text: str) -> Exception:
    """The built-in one of that name, or one that is called so.

    Some cannot be made of a text alone; StopIteration would end a loop over the tests' cases and leave the rest out.
    """
    found = getattr(builtins, name, None)
    special = UnicodeError, StopIteration
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, special):
        return found(text)
    return cast("Exception", type(name, (Exception,), {})(text))


def _run_tests(tests: str, program: _Program) -> None:
    """Errors: what the program or a test raises."""
    tree = ast.parse(tests, "tests")
    program.answer()
    namespace: dict[str, Any] = {"__name__": "tests"}
    names, modules = _names_of(tree)
    found = program.ask({"names": names})["value"]
    for name in names:  # and no other, whatever it tells
        if name in found:
            namespace[name] = importlib.import_module(name) if name in modules else program.decoded(found[name])
    exec(compile(tree, "tests", "exec"), namespace)  # noqa: S102
    sys.stdout.flush()


def _names_of(tree: ast.Module) -> tuple[list[str], set[str]]:
    """The names that tests have from the program, and those among them that are modules of Python's library.

    A name that the tests define is theirs from there on, wherever else they use it.
    """
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read.add(node.value.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    free = loaded - bound
    modules = free & read & sys.stdlib_module_names
    own = free - modules - vars(builtins).keys()
    wanted = modules | (loaded - vars(builtins).keys()) | (set() if own else free)
    return sorted(wanted), modules


# Both


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _filter_system_calls(instructions: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = Program(len(instructions) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")


def _confine(payload: dict[str, Any]) -> None:
    _limit(payload["limits"])
    _filter_system_calls(bytes.fromhex(payload["filter"]))


def main() -> None:
    payload = json.loads(_line(0))
    (requests_end, requests), (answers, answers_end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(requests)
        os.close(answers)
        empty, closed = os.pipe()
        os.close(closed)
        os.dup2(empty, 0)
        os.close(empty)
        _confine(payload)
        os.write(1, b"\n")  # the sandbox stands
        try:
            _run_program(payload["program"], requests_end, answers_end)
        except _EndedError:
            os._exit(0)
    os.close(requests_end)
    os.close(answers_end)
    _confine(payload)
    try:
        _run_tests(json.loads(_line(0)), _Program(requests, answers))
        _send(requests, {})
        if os.read(answers, 1):
            raise AssertionError("the program says what it was not asked for")
    except _EndedError:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 1)
    except BaseException as error:  # noqa: BLE001, whatever is raised is a failure
        os.write(2, f"{type(error).__name__}: {error}"[:_SHOWN].encode("utf-8", "replace"))
        os._exit(1)
    os.write(1, b"\n" + _line(0))
    os._exit(0)


main()
