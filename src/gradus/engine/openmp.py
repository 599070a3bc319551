"""Giving back the OpenMP workers that a thread no longer needs.

GNU's OpenMP, which torch for Linux brings, keeps a pool of workers for every thread that ever computed in parallel.
Once there are more workers than processors, idle ones sleep at once instead of waiting awake for some milliseconds,
and to wake them for each product of a decode step takes as long as the product (EXPERIMENTS.md). So whoever has built
or loaded a model and hands it to another thread gives its own workers back.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch

_PAUSE_SOFT = 1
"""OpenMP 5.0, section 3.2.44: the pool goes, and is made anew at the next parallel region."""


def release_workers() -> None:
    """End the workers of the calling thread, outside of parallel work; nothing where there is no GNU OpenMP."""
    openmp = _gnu_openmp()
    if openmp is not None:
        openmp.omp_pause_resource(_PAUSE_SOFT, openmp.omp_get_initial_device())


@cache
def _gnu_openmp() -> ctypes.CDLL | None:
    """The library that torch has loaded."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    beside = (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")
    for name in (*map(str, beside), "libgomp.so.1"):
        try:
            found = ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
        except OSError:  # not that one
            continue
        if hasattr(found, "omp_pause_resource"):
            return found
    return None
