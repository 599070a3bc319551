"""The system calls that a sandboxed program may make, as a filter of the Linux kernel (seccomp, classic BPF).

Everything that is not named is refused with "not permitted": new processes and programs, sockets, mounts, tracing, new
namespaces, io_uring, keys. Opening files is for reading alone, a clone is for threads alone, limits are the program's
own alone. Signals (tgkill, fcntl) reach what is in the sandbox's process namespace and nothing else: the process of the
tests, which a signal can only make fail. For x86-64; numbers are those of its unistd_64.h. Source: kernel
documentation, userspace-api/seccomp_filter.
"""

from __future__ import annotations

import struct

_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000  # numbers from here on are of another calling convention

ALLOWED = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23, "sched_yield": 24, "mremap": 25,
    "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38,
    "getpid": 39, "exit": 60, "wait4": 61, "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89, "gettimeofday": 96,
    "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107,
    "getegid": 108, "getppid": 110, "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "time": 201, "futex": 202,
    "sched_getaffinity": 204, "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "newfstatat": 262,
    "readlinkat": 267, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "dup3": 292,
    "pipe2": 293, "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "faccessat2": 439,
}  # fmt: skip
_OPEN, _OPENAT, _CLONE, _CLONE3, _PRLIMIT64 = 2, 257, 56, 435, 302
_WRITING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # access mode, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE
_CLONE_THREAD = 0x00010000

# Instructions of classic BPF, and what a filter answers.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def seccomp_filter() -> bytes:
    """The filter as struct sock_filter[], 8 bytes an instruction."""
    found = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, _ARCHITECTURE, 1, 0),
        _instruction(_ANSWER, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_AT_LEAST, _X32, 0, 1),
        _instruction(_ANSWER, _KILL),
    ]
    for number in sorted(ALLOWED.values()):
        found += [_instruction(_EQUAL, number, 0, 1), _instruction(_ANSWER, _ALLOW)]
    for number, argument in ((_OPEN, 1), (_OPENAT, 2)):
        found += [
            _instruction(_EQUAL, number, 0, 5),
            _instruction(_LOAD, _ARGUMENTS_AT + 8 * argument),
            _instruction(_AND, _WRITING),
            _instruction(_EQUAL, 0, 0, 1),
            _instruction(_ANSWER, _ALLOW),
            _instruction(_ANSWER, _REFUSE | _EPERM),
        ]
    found += [
        _instruction(_EQUAL, _CLONE, 0, 4),
        _instruction(_LOAD, _ARGUMENTS_AT),
        _instruction(_ANY_BIT, _CLONE_THREAD, 0, 1),
        _instruction(_ANSWER, _ALLOW),
        _instruction(_ANSWER, _REFUSE | _EPERM),
        # Of process 0, which is the caller.
        _instruction(_EQUAL, _PRLIMIT64, 0, 4),
        _instruction(_LOAD, _ARGUMENTS_AT),
        _instruction(_EQUAL, 0, 0, 1),
        _instruction(_ANSWER, _ALLOW),
        _instruction(_ANSWER, _REFUSE | _EPERM),
        # Its flags lie in memory, where a filter cannot look; without it the C library takes clone.
        _instruction(_EQUAL, _CLONE3, 0, 1),
        _instruction(_ANSWER, _REFUSE | _ENOSYS),
        _instruction(_ANSWER, _REFUSE | _EPERM),
    ]
    return b"".join(found)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
