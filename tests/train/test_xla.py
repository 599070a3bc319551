"""Training on an XLA device against the same training on a processor. Needs torch_xla (make test-xla)."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("torch_xla") is None:
    pytest.skip("torch_xla is not installed (make test-xla)", allow_module_level=True)
os.environ.setdefault("PJRT_DEVICE", "CPU")

import torch_xla  # noqa: F401  (before any backward pass: autograd counts devices then)
import xla_training as tiny

from gradus.core.errors import ConfigError
from gradus.model.batch import IGNORE
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.model.weights import load_model, to_stored
from gradus.model.xla import num_compiled, open_xla, placed, send_work
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.session import Session
from gradus.train.checkpoint import open_checkpoint
from gradus.train.losses import next_token_loss
from gradus.train.parallel import World
from gradus.train.sharding import whole_weights

SPEEDRUN = {"depth": 2, "width": 64, "head_dim": 16, "family": "speedrun", "window": 20}


@pytest.fixture(scope="module")
def xla():
    return open_xla()


@pytest.fixture(scope="module")
def unbroken(xla, tmp_path_factory):
    """(reports of a processor, reports of XLA, graphs compiled by then, its model, its checkpoints) in fp32."""
    folder = tmp_path_factory.mktemp("unbroken")
    models = []
    expected = list(tiny.reports("cpu"))
    found, graphs = [], []
    for report in tiny.reports(xla, folder=folder, seen=models.append):
        found.append(report)
        graphs.append(num_compiled())
    return expected, found, graphs, models[0], folder


def test_twenty_steps_in_fp32_are_those_of_a_processor(unbroken):
    expected, found, *_ = unbroken
    assert len(found) == tiny.STEPS
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], rel=2e-6)
    assert [r.grad_norm for r in found] == pytest.approx([r.grad_norm for r in expected], rel=2e-5)
    assert [r.tokens for r in found] == [r.tokens for r in expected]
    assert found[-1].loss < 0.5 * found[0].loss


def test_a_step_is_one_graph_that_is_compiled_once(unbroken):
    *_, graphs, _, _ = unbroken
    # The weights as they were drawn, the step, and the tally set back; neither rates nor batches nor saving add to it.
    assert graphs[0] == graphs[-1]
    assert graphs[0] <= 3


def test_another_family_in_bf16_keeps_near_and_to_one_graph(xla):
    expected = [r.loss for r in tiny.reports("cpu", "bf16", table=SPEEDRUN)]
    found, graphs = [], []
    for report in tiny.reports(xla, "bf16", table=SPEEDRUN):
        found.append(report.loss)
        graphs.append(num_compiled())
    assert found == pytest.approx(expected, rel=0.02)
    assert graphs[0] == graphs[-1]


def test_a_processor_reads_its_checkpoints_and_goes_on(unbroken, tmp_path):
    expected, _, _, model, folder = unbroken
    checkpoint = open_checkpoint(folder / "step-00000018")
    (tmp_path / checkpoint.path.name).symlink_to(checkpoint.path)
    continued = list(tiny.reports("cpu", folder=tmp_path))
    assert [r.step for r in continued] == [18, 19, 20]
    assert [r.loss for r in continued] == pytest.approx([r.loss for r in expected[17:]], rel=2e-6)
    with whole_weights(model, World()) as whole:
        assert whole.device.type == "cpu"
        stored = to_stored(load_model(folder / "step-00000020"))
        assert all(torch.equal(stored[name], tensor) for name, tensor in to_stored(whole).items())


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(unbroken, xla, tmp_path):
    folder = unbroken[-1]
    assert len(list(islice(tiny.reports(xla, folder=tmp_path), 14))) == 14
    resumed = list(tiny.reports(xla, folder=tmp_path))
    assert (resumed[0].step, resumed[0].resumed) == (12, True)
    for name in ("model.safetensors", "optimizer.safetensors", "extra.safetensors"):
        assert (tmp_path / "step-00000020" / name).read_bytes() == (folder / "step-00000020" / name).read_bytes()


def test_a_resumed_process_compiles_its_step_once(unbroken, tmp_path):
    folder = unbroken[-1]
    shutil.copytree(folder / "step-00000018", tmp_path / "step-00000018")
    at_step_18, at_step_19, at_step_20 = run_program(1, tmp_path)["graphs"]
    assert at_step_19 - at_step_18 <= 2  # the step, and the tally set back
    assert at_step_20 == at_step_19


def test_a_loss_that_is_nan_costs_one_step(unbroken, xla):
    calls = []

    def poisoned(model, batch):
        calls.append(batch)
        factor = torch.tensor(torch.nan if len(calls) == 8 else 1.0)
        total, count, metrics = next_token_loss(model, batch)
        return total * placed(factor, batch.tokens.device), count, metrics

    def run(device):
        calls.clear()
        graphs, found = [], []
        for report in tiny.reports(device, loss=poisoned):
            found.append(report)
            graphs.append(num_compiled())
        return found, graphs

    expected, _ = run("cpu")
    found, graphs = run(xla)
    assert found[-1].skipped == expected[-1].skipped == 1
    assert [r.loss for r in found if r.step != 4] == pytest.approx([r.loss for r in expected if r.step != 4], rel=2e-6)
    assert found[3].loss is None
    assert graphs[0] == graphs[-1]


def test_a_measured_loss_is_that_of_a_processor(xla):
    model = build_model(model_config(tiny.PORTABLE, tiny.VOCAB, tiny.ROW), torch.Generator().manual_seed(3))
    twin = build_model(model.config, torch.Generator().manual_seed(3), xla)
    batch = tiny.batch_of(0, 0)
    with torch.no_grad():
        expected, count, _ = next_token_loss(model, batch)
        found, its_count, _ = next_token_loss(twin, batch.to(xla))
        send_work(xla)
    assert int(its_count) == int(count) == int((batch.targets != IGNORE).sum())
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_a_model_whose_shapes_vary_is_refused(xla):
    session = Session(World(), xla, MachineSettings(device="xla"))
    config = model_config(tiny.PORTABLE | {"num_experts": 4, "expert_width": 32}, tiny.VOCAB, tiny.ROW)
    with pytest.raises(ConfigError, match="num_experts"):
        build_model(config, torch.Generator(), xla, prepare=session.prepare)


def run_program(devices, folder=""):
    """The run of tests/train/xla_training.py on so many chips, in a process of its own."""
    file = Path(__file__).with_name("xla_training.py")
    environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, file, folder], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_chips_share_rows_and_train_as_one(unbroken):
    found = run_program(2)
    assert found["devices"] == 2
    assert "devices=[2]" in found["layout"]
    assert found["losses"] == pytest.approx([r.loss for r in unbroken[0]], rel=2e-6)
    assert found["graphs"][0] == found["graphs"][-1]
