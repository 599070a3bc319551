"""Two processes that share a model by rows train as one does, whatever the model is made of."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPERTS = {"num_experts": 4, "expert_width": 24, "router": "sigmoid", "balance": "bias", "shared_experts": 1}
TABLES = {
    "experts": EXPERTS,
    "psann": {"family": "psann", "wave_kernel": 3, "spectral_length": 5},
    "speedrun": {"family": "speedrun", "window": 4},
}


@pytest.mark.parametrize(
    ("name", "wrapping"), [("experts", "none"), ("experts", "full"), ("psann", "selective"), ("speedrun", "full")]
)
def test_a_shared_model_trains_as_a_whole_one(tmp_path: Path, name: str, wrapping: str) -> None:
    command = [sys.executable, HERE / "sharded_families.py", json.dumps(TABLES[name]), wrapping, tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 2))
    assert one[-1] < one[0]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4
