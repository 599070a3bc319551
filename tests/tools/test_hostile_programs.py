"""Programs that mean harm: none gets out of the sandbox, and none passes for right.

Those that are refused with an exception are run one after the other in one program; the others have a sandbox each.
"""

import re
from pathlib import Path

import psutil
import pytest

from gradus.tools.sandbox import Limits, run_program

works = pytest.mark.usefixtures("sandboxed")

# Each must raise. `call(number, ...)` makes a system call past Python's own wrappers, and raises where it is refused.
REFUSED = {
    # Processes and programs
    "fork": "os.fork()",
    "fork bomb": "while True: os.fork()",
    "multiprocessing": "import multiprocessing as m\nm.Process(target=print).start()",
    "subprocess": "import subprocess; subprocess.run(['/bin/ls'])",
    "the own python again": "os.execv(sys.executable, [sys.executable])",
    "exec of the loader": "os.execv('/lib64/ld-linux-x86-64.so.2', ['x'])",
    "exec of a descriptor": "call(322, os.open(sys.executable, os.O_RDONLY), b'', 0, 0, 0x1000)",
    "posix_spawn": "os.posix_spawn(sys.executable, [sys.executable], {})",
    "shell": "assert os.system('true') == 0",
    "the C library's fork": "assert libc.fork() >= 0",
    "vfork": "call(58)",
    "clone3": "call(435, 0, 0)",
    "a process of its own session": "os.setsid()",
    "another process group": "os.setpgid(0, 0)",
    # Other processes
    "signal the first process": "os.kill(1, 9)",
    "signal everything": "os.kill(-1, 9)",
    "signal the tests": "os.kill(os.getppid(), 9)",
    "signal by descriptor": "call(434, os.getppid(), 0)",
    "the tests' limits": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "read the tests' memory": "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "write the tests' memory": "call(311, os.getppid(), 0, 0, 0, 0, 0)",
    "a descriptor of the tests": "call(438, 3, 0, 0)",
    "compare with the tests": "call(312, os.getpid(), os.getppid(), 0, 0, 0)",
    "memory of the tests": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    # Network
    "tcp socket": "import socket; socket.socket()",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "the host of a virtual machine": "import socket; socket.socket(socket.AF_VSOCK)",
    "the kernel's cryptography": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "socketpair": "import socket; socket.socketpair()",
    "abstract unix socket": "import socket; socket.socket(1, 1).connect('\\0/tmp/dbus-x')",
    "web": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:80', timeout=1)",
    "name lookup": "import socket; socket.create_connection(('localhost', 22), timeout=1)",
    "the C library's socket": "assert libc.socket(2, 1, 0) >= 0",
    # Files
    "passwords": "open('/etc/passwd')",
    "home": "assert os.listdir('/home') + os.listdir('/root/.ssh')",
    "its own environment": "open('/proc/self/environ')",
    "its own memory as a file": "open('/proc/self/mem', 'r+b')",
    "the first process": "open('/proc/1/mem')",
    "memory device": "open('/dev/mem')",
    "disks": "open('/dev/sda', 'rb')",
    "terminal": "open('/dev/tty')",
    "kernel settings": "open('/sys/kernel/mm/transparent_hugepage/enabled')",
    "containers": "os.stat('/run/docker.sock'); os.stat('/var/run/docker.sock')",
    "message bus": "os.stat('/run/dbus/system_bus_socket')",
    "logs": "os.listdir('/var/log')",
    "write here": "open('x.txt', 'w')",
    "write to tmp": "open('/tmp/x.txt', 'w')",
    "write to shared memory": "open('/dev/shm/x', 'w')",
    "append to the library": "open(os.__file__, 'a')",
    "open for both": "os.open(os.__file__, os.O_RDWR)",
    "open by another call": "call(437, -100, b'/lib', 0, 24)",
    "open by handle": "call(304, 3, 0, 0)",
    "create by an old call": "call(85, b'/x', 0o600)",
    "write through memory": "import mmap; mmap.mmap(os.open(os.__file__, os.O_RDONLY), 0, prot=mmap.PROT_WRITE)",
    "temporary file": "import tempfile; tempfile.NamedTemporaryFile()",
    "file without a name": "os.open('/', os.O_TMPFILE | os.O_RDWR)",
    "make a folder": "os.mkdir('/lib/x')",
    "make a device": "os.mknod('/x', 0o600 | 0o020000, os.makedev(1, 1))",
    "make a pipe with a name": "os.mkfifo('/x')",
    "remove": "os.remove(os.__file__)",
    "rename": "os.rename(os.__file__, '/x')",
    "cut off": "os.truncate(os.__file__, 0)",
    "symbolic link": "os.symlink('/etc', '/x')",
    "hard link": "os.link(os.__file__, '/x')",
    "change the mode": "os.chmod(os.__file__, 0o777)",
    "change the owner": "os.chown('/', 0, 0)",
    "change the times": "os.utime(os.__file__, (0, 0))",
    "change attributes": "os.setxattr(os.__file__, 'user.x', b'1')",
    "watch files": "call(294, 0)",
    "watch all files": "call(300, 0, 0)",
    "lock a file": "import fcntl; fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX)",
    "copy in the kernel": "os.sendfile(1, os.open(os.__file__, os.O_RDONLY), 0, 100)",
    # Mounts and namespaces
    "change the root": "os.chroot('/lib')",
    "turn the root": "call(155, b'/', b'/')",
    "mount": "call(165, b'x', b'/', b'tmpfs', 0, 0)",
    "unmount": "call(166, b'/', 2)",
    "mount by descriptor": "call(430, b'tmpfs', 0)",
    "a new user namespace": "call(272, 0x10000000)",
    "enter a namespace": "call(308, 3, 0)",
    # Rights and limits
    "become root": "os.setuid(0)",
    "become another group": "os.setgid(0)",
    "more groups": "os.setgroups([0])",
    "capabilities": "call(126, 0, 0)",
    "file rights of root": "call(122, 0)",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "more files": "resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6))",
    "larger files": "resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))",
    "core dumps": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "more time": "resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))",
    "priority": "os.nice(-5)",
    "real time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "memory that stays": "call(151, 3)",
    "a looser filter": "assert libc.prctl(22, 0, 0, 0, 0) == 0",
    "a filter that asks": "call(317, 1, 8, 0)",
    "a death unnoticed": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
    # Kernel
    "io_uring": "call(425, 8, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "performance counters": "call(298, 0, 0, -1, -1, 0)",
    "page faults": "call(323, 0)",
    "keys": "call(250, 0, 0, 0)",
    "a new key": "call(248, b'user', b'x', b'y', 1, -3)",
    "kernel log": "call(103, 3, 0, 0)",
    "kernel module": "call(175, 0, 0, b'')",
    "another kernel": "call(246, 0, 0, 0, 0)",
    "reboot": "call(169, 0xFEE1DEAD, 672274793, 0x1234567)",
    "swap": "call(167, b'/x', 0)",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "the host's name": "import socket; socket.sethostname('x')",
    "ports": "call(172, 3)",
    "segments": "call(154, 1, 0, 0)",
    "fixed addresses": "call(135, 0x0040000)",
    "type into the terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    "pseudo terminal": "os.openpty()",
    # What outlives a program
    "shared memory": "from multiprocessing import shared_memory as s; s.SharedMemory(create=True, size=4096)",
    "shared memory by key": "call(29, 1, 4096, 0o1600)",
    "semaphores by key": "call(64, 1, 1, 0o1600)",
    "messages by key": "call(68, 1, 0o1600)",
    "message queue": "call(240, b'x', 0o102, 0o600, 0)",
    "memory file": "os.memfd_create('x')",
    "secret memory": "call(447, 0)",
    "a timer of the kernel": "call(222, 0, 0, 0)",
    # Too much
    "all of the memory": "bytearray(10**9)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(2**20))",
    "a large number": "1 << 2**33",
    "a compressed bomb": "import zlib\nb = bytes(2**26)\nwhile True: b = zlib.decompress(zlib.compress(b * 2))",
    "endless recursion": "def f(): f()\nf()",
    "many files": "x = [open(os.__file__) for _ in range(100)]",
    "standard input": "assert input()",
}  # fmt: skip

_RUNNER = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(*arguments):
    ctypes.set_errno(0)
    if libc.syscall(*[ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def attempt(code):
    try:
        exec(code, dict(ctypes=ctypes, os=os, resource=resource, sys=sys, libc=libc, call=call))
    except BaseException as error:
        return type(error).__name__
    return None
"""


@works
def test_what_is_forbidden_is_refused():
    tests = f"done = [name for name, code in {REFUSED!r}.items() if attempt(code) is None]\nassert not done, done"
    outcome = run_program(_RUNNER, tests, Limits(seconds=120.0))
    assert outcome.passed, outcome
    assert len(REFUSED) >= 100
    # The names are not refused whatever they do.
    allowed = run_program(_RUNNER, "assert attempt('os.getpid(); call(39)') is None\nassert attempt('1 / 0')")
    assert allowed.passed, allowed


_CODE = (
    "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write({code!r})\n"
    "ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
)
# Each ends its program, one way or another, before its tests are reached.
ENDING = {
    "a null pointer": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "kill itself": "import signal; signal.raise_signal(9)",
    "a call of 32 bits": _CODE.format(code=b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"),
    "a call of the x32 convention": _CODE.format(code=b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"),
    "many threads": "import threading as t, time\nwhile True: t.Thread(target=time.sleep, args=(60,)).start()",
    "a pattern without end": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "a power without end": "9 ** 9 ** 9",
    "deaf to signals": "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except OSError: pass\nwhile True: pass",
    "the tests by another signal": "import ctypes, os, time\np = os.getppid()\n"
    "ctypes.CDLL(None).syscall(234, p, p, 9)\ntime.sleep(60)",
    "output without end": "while True: print('x' * 1000)",
}  # fmt: skip


@works
@pytest.mark.parametrize("name", ENDING)
def test_the_sandbox_holds(name):
    outcome = run_program(ENDING[name], "print('unharmed')", Limits(seconds=1.0))
    assert outcome.ending in {"failed", "timeout", "too_much_output"}, outcome
    assert "unharmed" not in outcome.output


@works
def test_nothing_is_left_running():
    before = psutil.Process().children(recursive=True)
    program = (
        "import threading, time, atexit, signal\natexit.register(time.sleep, 60)\n"
        "signal.setitimer(signal.ITIMER_REAL, 50)\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "f = lambda x: x"
    )
    assert run_program(program, "assert f(1) == 1").passed
    assert psutil.Process().children(recursive=True) == before


# Each would pass a check that looked at exit codes, at output, at how results compare, or that shared an interpreter
# with them.
TESTS = (
    "assert f(1) == [2] or f(1) == 2\nassert abs(f(2) - 3) < 1e-6\nassert math.isclose(f(3), 4) and len([f(4)]) == 1"
)
_MARKS = {
    "<says>": (
        "import json, math, os\ndef says(*messages):\n    for m in messages:\n"
        "        t = m if isinstance(m, bytes) else json.dumps(m).encode()\n"
        "        for fd in range(3, 16):\n            try: os.write(fd, len(t).to_bytes(8, 'big') + t)\n"
        "            except OSError: pass\n"
    ),
    "<outermost>": "import os, sys\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\n",
    "<null>": "\0",
}


def _cheats():
    """The programs of cheats.txt by name."""
    text = Path(__file__).with_name("cheats.txt").read_text(encoding="utf-8")
    for mark, meant in _MARKS.items():
        text = text.replace(mark, meant)
    programs = re.split(r"^=== (.*)\n", re.sub(r"^# .*\n", "", text, flags=re.M), flags=re.M)[1:]
    return dict(zip(programs[::2], programs[1::2], strict=True))


CHEATS = _cheats()


@works
@pytest.mark.parametrize("name", CHEATS)
def test_nothing_but_passing_passes(name):
    outcome = run_program(CHEATS[name], TESTS, Limits(seconds=1.0))
    assert not outcome.passed, outcome


@works
def test_a_program_cannot_end_a_loop_over_its_cases():
    tests = "assert all(map(lambda case: f(case) == case + 1, [1, 2]))"
    assert not run_program("def f(x): raise StopIteration", tests).passed
    assert run_program("def f(x): return x + 1", tests).passed
    assert run_program("g = iter([1])", "assert next(g) == 1\nassert next(g, None) is None").passed


@works
def test_what_cheats_are_held_against_can_be_passed():
    outcome = run_program("import math\ndef f(x):\n    return x + 1", TESTS)
    assert outcome.passed, outcome
    assert len(CHEATS) >= 60
