"""Two processes that share a model by rows train as one does, whatever the model is made of."""

import json
from pathlib import Path

import pytest
import torch
from warm_start import WarmStart

from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.train.losses import next_token_loss
from gradus.train.parallel import World
from gradus.train.sharding import prepare_model

HERE = Path(__file__).parent
EXPERTS = {"num_experts": 4, "expert_width": 24, "router": "sigmoid", "balance": "bias", "shared_experts": 1}
TABLES = {
    "experts": EXPERTS,
    "psann": {"family": "psann", "wave_kernel": 3, "spectral_length": 5},
    "speedrun": {"family": "speedrun", "window": 4},
}
# Zero weights back to the residual would hide all adapters but one.
LORA = {"lora": {"rank": 3, "alpha": 6.0}, "family": "portable", "init": "xavier"}


@pytest.mark.parametrize(
    ("name", "wrapping"),
    [("experts", "none"), ("experts", "full"), ("psann", "selective"), ("speedrun", "full"), ("lora", "full")],
)
def test_a_shared_model_trains_as_a_whole_one(warm: WarmStart, tmp_path: Path, name: str, wrapping: str) -> None:
    done = warm.run([HERE / "sharded_families.py", json.dumps((TABLES | {"lora": LORA})[name]), wrapping, tmp_path])
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 2))
    assert one[-1] < one[0]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", list(TABLES))
def test_a_compiled_model_has_the_loss_and_gradients_of_one_that_is_not(name: str) -> None:
    tokens = torch.randint(50, (33,), generator=torch.Generator().manual_seed(0))
    found = []
    for compiled in (False, True):
        config = model_config({"depth": 1, "width": 32, "head_dim": 16} | TABLES[name], 50, 64)
        model = build_model(config, torch.Generator().manual_seed(0))
        prepare_model(model, World(), compile=compiled)
        batch = Batch(tokens[:-1], tokens[1:], Documents.of_lengths([12, 20]))
        loss = next_token_loss(model, batch)[0]
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters()]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-6)
    for mine, wanted in zip(found[1][1], found[0][1], strict=True):
        assert torch.allclose(mine, wanted, atol=1e-4)
