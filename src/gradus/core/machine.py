"""What this run stands on: machine facts and package versions, read without importing torch."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "gradus", "torch", "numpy", "tokenizers", "tiktoken", "safetensors", "pyarrow", "zstandard",
    "jinja2", "jsonschema", "pydantic", "typer", "rich", "huggingface_hub", "psutil",
)  # fmt: skip


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


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []
