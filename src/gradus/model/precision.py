"""Who computes a model that only answers, and what its weights are held in.

In a file of its own, so that `--help` loads no more.
"""

from typing import Literal

DecodePrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
"""auto: what is fastest on the machine without rounding as coarse as int8's, which is for processors."""

Backend = Literal["torch", "llamacpp"]
"""torch: our own; llamacpp: llama.cpp, on the processor."""
