"""`gradus doctor`: what this machine has, what is missing, and the line that installs it. Torch-free."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from gradus.cli.walking import print_json
from gradus.core.machine import gpu_names, has_apple_gpu, machine_facts, package_version, software_versions
from gradus.core.quantity import format_bytes
from gradus.core.run_record import walked_runs

LEAST_PYTHON = (3, 11)
LEAST_MEMORY_BYTES = 2 * 2**30
LEAST_DISK_BYTES = 2 * 2**30


def checkup(home: Path) -> dict[str, Any]:
    """Facts and problems as plain JSON."""
    machine, software = machine_facts(), software_versions()
    existing = next(folder for folder in (home, *home.resolve().parents) if folder.exists())
    disk = shutil.disk_usage(existing)
    problems = []
    if sys.version_info < LEAST_PYTHON:
        problems.append("Python 3.11 or newer is needed")
    problems += [
        f"{name} is not installed: pip install {name}" for name, version in software.items() if version is None
    ]
    if machine["memory_bytes"] < LEAST_MEMORY_BYTES:
        problems.append(f"little memory: {format_bytes(machine['memory_bytes'])}; quickstart takes up to 2 GiB")
    if disk.free < LEAST_DISK_BYTES:
        problems.append(f"little disk space at {existing}: {format_bytes(disk.free)} free")
    return {
        "machine": machine,
        "gpus": gpu_names(),
        "apple_gpu": has_apple_gpu(),
        "software": software,
        "torch_xla": package_version("torch_xla"),
        "extras": {extra: _missing(extra) for extra in _extras()},
        "home": {"path": str(home.resolve()), "free_bytes": disk.free, "runs": walked_runs(home)},
        "problems": problems,
    }


def _extras() -> list[str]:
    try:
        return metadata.metadata("gradus").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def _gpus(found: dict[str, Any]) -> str:
    if found["apple_gpu"]:
        return 'Apple, used with [machine] device = "mps" (experimental: docs/mac.md)'
    return ", ".join(found["gpus"]) or "none"


def _missing(extra: str) -> list[str]:
    """Packages of an optional group that are not installed."""
    names = []
    for requirement in metadata.requires("gradus") or []:
        package, _, marker = requirement.partition(";")
        if f"extra == '{extra}'" in marker or f'extra == "{extra}"' in marker:
            name = package.strip()
            for end in "[<>=!~ ":
                name = name.split(end)[0]
            if package_version(name) is None:
                names.append(name)
    return names


def print_checkup(home: Path, as_json: bool) -> None:
    """Print the check-up; exits with 1 where something is wrong."""
    found = checkup(home)
    if as_json:
        print_json(found)
    else:
        typer.echo(checkup_text(found))
    if found["problems"]:
        raise typer.Exit(1)


def checkup_text(found: dict[str, Any]) -> str:
    """The check-up as a person reads it."""
    machine, software = found["machine"], found["software"]
    bf16 = ", ".join(machine["bf16"]) if machine["bf16"] else "no (fp32 is used)"
    lines = [
        f"system     {machine['system']} ({machine['architecture']})",
        f"processor  {machine['processor']}, {machine['cores']} cores usable",
        f"bf16       {bf16}",
        f"gpu        {_gpus(found)}",
        f"memory     {format_bytes(machine['memory_bytes'])}",
        f"home       {found['home']['path']} ({format_bytes(found['home']['free_bytes'])} free)",
        f"runs       {', '.join(found['home']['runs']) or 'none yet'}",
        "",
        *(f"{name:<16} {version or 'missing'}" for name, version in software.items()),
        f"{'torch_xla':<16} {found['torch_xla'] or 'not installed (only for TPU: docs/tpu.md)'}",
        "",
    ]
    for extra, missing in found["extras"].items():
        state = f'missing {", ".join(missing)}: pip install "gradus[{extra}]"' if missing else "installed"
        lines.append(f"extra [{extra}]: {state}")
    lines += ["", *(f"problem: {text}" for text in found["problems"])]
    if not found["problems"]:
        lines.append("all is well")
    return "\n".join(lines)
