"""The number format is a function of the machine, never of how busy it is."""

import pytest
import torch

from gradus.train import precision
from gradus.train.precision import compute_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("flags", "dtype"), [(["avx512_bf16"], torch.bfloat16), ([], torch.float32)])
def test_auto_follows_the_processors_instructions(monkeypatch, flags, dtype):
    monkeypatch.setattr(precision, "bf16_instructions", lambda: flags)
    assert compute_dtype("auto", CPU) == dtype


def test_a_stated_format_is_used_as_stated(monkeypatch):
    monkeypatch.setattr(precision, "bf16_instructions", list)
    assert compute_dtype("bf16", CPU) == torch.bfloat16
    assert compute_dtype("fp32", CPU) == torch.float32
