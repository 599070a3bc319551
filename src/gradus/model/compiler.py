"""Whether torch.compile can work here: what it needs of a machine besides torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import torch


def compiler_problem(device: torch.device) -> str | None:
    """What stands against compiling for a device, None where nothing does that is known beforehand.

    On CUDA that takes Triton, which knows GPUs from compute capability 7.0 on, and a C compiler; on a processor a C++
    compiler.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < (7, 0):
            return f"Triton needs a GPU of compute capability 7.0 or later, found {major}.{minor}"
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed; run: pip install triton"
        return _no_compiler("CC", ("cc", "gcc", "clang"), "C")
    if device.type == "cpu":
        return _no_compiler("CXX", ("clang++" if sys.platform == "darwin" else "g++",), "C++")
    return f"nothing is compiled for the device {device.type}, only for cuda and cpu"


def _no_compiler(variable: str, usual: tuple[str, ...], language: str) -> str | None:
    asked = os.environ.get(variable)
    if any(shutil.which(name) for name in ((asked,) if asked else usual)):
        return None
    sought = f"{variable}={asked}" if asked else ", ".join(usual)
    return f"no {language} compiler was found ({sought}); install one, or name it with {variable}"
