"""What this run stands on and what it takes: machine facts, versions, memory and processor time. Torch-free."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "gradus", "torch", "numpy", "tokenizers", "tiktoken", "safetensors", "pyarrow", "zstandard",
    "jinja2", "jsonschema", "pydantic", "typer", "rich", "huggingface_hub", "psutil",
)  # fmt: skip


LOOPBACK = "127.0.0.1"
"""The address at which a machine reaches itself, and nobody else does."""


def machine_facts() -> dict[str, Any]:
    """System, processor, usable cores, memory in bytes, and bf16 instructions as plain JSON."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "bf16": bf16_instructions(),
    }


def software_versions() -> dict[str, str | None]:
    """Python and every core package; None where one is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = package_version(package)
    return versions


def package_version(package: str) -> str | None:
    """The installed version of a distribution, None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores this process may run on, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def processor_name() -> str:
    """The processor's marketing name where the system tells it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache
def bf16_instructions() -> list[str]:
    """The processor's bf16 instruction sets (avx512_bf16, amx_bf16, bf16 on Arm); [] where unknown."""
    for line in _cpuinfo():
        if line.lower().startswith(("flags", "features")):
            flags = line.split(":", 1)[1].split()
            return [flag for flag in ("avx512_bf16", "amx_bf16", "bf16", "svebf16") if flag in flags]
    return []


def gpu_names() -> list[str]:
    """The NVIDIA devices that the driver knows, by their marketing names; [] where there are none or it is hidden."""
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = file.read_text(errors="replace").splitlines()
        found += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]
    return found


def has_apple_gpu() -> bool:
    """Whether this is a Mac with a chip of Apple's own, whose GPU torch calls "mps"."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


class ProcessTree:
    """This process and all that it started, directly or not."""

    _LISTED_FOR_SECONDS = 5.0

    def __init__(self) -> None:
        import psutil

        self._own = psutil.Process()
        self._others: list[Any] = []
        self._listed = float("-inf")

    def _processes(self) -> list[Any]:
        # Finding children reads the whole process table, a thousand times the work of asking one process.
        now = time.monotonic()
        if now - self._listed > self._LISTED_FOR_SECONDS:
            self._listed, self._others = now, self._own.children(recursive=True)
        return [self._own, *self._others]

    def usage(self) -> tuple[int, float]:
        """(resident bytes, processor seconds of those that live), over all of them.

        Pages that several processes share, such as libraries, count in each.
        """
        import psutil

        memory, seconds = 0, 0.0
        for process in self._processes():
            try:
                memory += process.memory_info().rss
                times = process.cpu_times()
            except psutil.Error:
                continue  # it has just ended
            seconds += times.user + times.system
        return memory, seconds


class PeakMemory:
    """The most memory that the process tree was seen to have, looked at in the background."""

    def __init__(self, every_seconds: float = 0.5) -> None:
        self.bytes = 0
        self._every = every_seconds
        self._ended = threading.Event()
        self._tree = ProcessTree()

    def look(self) -> int:
        """Look now; returns the most so far."""
        self.bytes = max(self.bytes, self._tree.usage()[0])
        return self.bytes

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self.look()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look every now and then while the block runs."""
        thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []
