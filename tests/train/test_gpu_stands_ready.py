"""What a GPU would see of a training step, on machines without one: tensors that have shapes, dtypes and devices alone.

On meta, which takes every way that is not a CPU's own, nothing of a step may be read back or wait to be copied: a GPU
would stand still. As fake CUDA tensors a step goes through variable-length attention and the fused kernels; that needs
a build of torch that knows CUDA, such as PyPI's for Linux.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradus.model import attention, compiler
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.compiler import compiler_problem
from gradus.model.config import model_config
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer, build_model
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World
from gradus.train.precision import LossScale
from gradus.train.sharding import can_compile, prepare_model
from gradus.train.step import train_step

VOCAB = 96
WIDE = {"depth": 2, "width": 128, "head_dim": 32, "num_kv_heads": 2}
EXPERTS = {"num_experts": 4, "expert_width": 64, "router": "sigmoid", "balance": "bias", "shared_experts": 1}
TABLES = {
    "dense": WIDE,
    "stretched": WIDE | {"rope_scaling": {"factor": 4.0, "original_context": 64}},
    "experts": WIDE | EXPERTS,
    "experts with a capacity": WIDE | EXPERTS | {"capacity_factor": 1.25},
    "psann": WIDE | {"family": "psann", "wave_kernel": 3, "spectral_length": 5},
    "speedrun": WIDE | {"family": "speedrun", "window": 48},
}
OPTIMIZERS = {"muon": {}, "adamw": {"matrix": "adamw"}, "adafactor": {"matrix": "adafactor", "rest": "adafactor"}}


class Waits(TorchDispatchMode):
    """Collects operations that make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.name()
        tensors = [value for value in (*args, out) if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        reads = name in {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
        copies = name in {"aten::_to_copy", "aten::copy_"} and len(devices) > 1
        if (reads and devices != {"cpu"}) or (
            copies and not kwargs.get("non_blocking") and not any(value is True for value in args)
        ):
            self.found.append(f"{name} {sorted(devices)}")
        return out


def host_batch() -> Batch:
    tokens = torch.zeros(256, dtype=torch.int64)
    targets = tokens.clone()
    targets[100:130] = IGNORE
    return Batch(tokens, targets, Documents.of_lengths([100, 30, 120, 6]), padding=6)


def batch_with_shared_prefixes() -> Batch:
    whole = host_batch()
    targets = torch.full_like(whole.targets, IGNORE)
    for answer in (slice(60, 100), slice(120, 130), slice(180, 250)):
        targets[answer] = 0
    batch = share_prefixes(replace(whole, targets=targets), torch.device("cpu"))
    assert batch.documents.shared is not None
    return batch


def step(
    device: torch.device, table: dict[str, object], settings: dict[str, object], dtype: torch.dtype, batch: Batch
) -> Waits:
    with device:
        model = Transformer(model_config(table, VOCAB, 256))
    model.compute_dtype = dtype
    optimizer = build_optimizer(model, OptimizerSettings(**settings))
    scale = LossScale(device) if dtype == torch.float16 else None
    with Waits() as waits:
        done = train_step(
            model,
            optimizer,
            [batch.to(device)] * 2,
            next_token_loss,
            step=0,
            lr_scale=1.0,
            guard=Guard(GuardSettings(), device),
            world=World(),
            loss_scale=scale,
        )
    assert done.skipped.device.type == device.type
    assert done.loss_sum.dtype == done.tokens.dtype == torch.float64
    return waits


@pytest.mark.parametrize("made", [host_batch, batch_with_shared_prefixes])
@pytest.mark.parametrize("name", list(TABLES))
def test_a_step_reads_nothing_back_and_waits_for_no_copy(name: str, made: Callable[[], Batch]) -> None:
    assert step(torch.device("meta"), TABLES[name], {}, torch.bfloat16, made()).found == []


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_no_optimizer_and_no_format_waits(optimizer: str, dtype: torch.dtype) -> None:
    assert step(torch.device("meta"), WIDE, OPTIMIZERS[optimizer], dtype, host_batch()).found == []


def test_what_waits_would_be_seen() -> None:
    with Waits() as waits:
        torch.zeros(3).to("meta")
    assert waits.found == ["aten::_to_copy ['cpu', 'meta']"]


@pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch knows no CUDA")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("dense", torch.bfloat16),
        ("dense", torch.float16),
        ("stretched", torch.bfloat16),
        ("experts", torch.bfloat16),
        ("speedrun", torch.bfloat16),
    ],
)
def test_a_forward_pass_and_an_update_on_fake_cuda_tensors_fit_together(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's backward pass asks for a device that is there; without it gradients are zeros of their parameters' make.
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    monkeypatch.setattr(attention, "has_varlen", lambda device: True)
    batch = host_batch()
    _ = batch.supervised, batch.documents.index  # worked out while there are numbers
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert step(torch.device("cuda", 0), TABLES[name], {}, dtype, batch).found == []


def test_auto_compiles_where_there_is_a_gpu_triton_and_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: name == "triton" or None)
    monkeypatch.setattr(compiler.shutil, "which", lambda name: "/usr/bin/gcc")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cuda = torch.device("cuda", 0)
    assert can_compile(cuda)
    assert not can_compile(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert not can_compile(cuda)
    assert "capability 7.0 or later, found 6.1" in (compiler_problem(cuda) or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in (compiler_problem(cuda) or "")
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    assert not can_compile(cuda)
    assert "no C compiler was found (cc, gcc, clang)" in (compiler_problem(cuda) or "")


def test_layers_are_compiled_for_training_and_plain_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compiled(function, fullgraph):
        return lambda *inputs: (calls.append(function.__name__), function(*inputs))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    model = build_model(model_config(WIDE, VOCAB, 256), torch.Generator())
    prepare_model(model, World(), compile=True)
    with torch.no_grad():
        next_token_loss(model, host_batch())
    assert calls == []
    next_token_loss(model, host_batch())
    assert calls == ["heads", "feed_forward"] * 2


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", ["dense", "speedrun"])
def test_twelve_layers_share_a_few_compiled_graphs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler gives up on a function that it would have to compile for the ninth time.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    model = build_model(model_config(TABLES[name] | {"depth": 12}, VOCAB, 256), torch.Generator())
    prepare_model(model, World(), compile=True)
    for lengths in ([100, 156], [60, 60], [10, 20, 30]):
        tokens = torch.zeros(sum(lengths), dtype=torch.int64)
        next_token_loss(model, Batch(tokens, tokens, Documents.of_lengths(lengths)))[0].backward()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 6


@pytest.mark.parametrize(
    ("width", "dtype", "is_one_call"),
    [(64, torch.bfloat16, True), (192, torch.float16, True), (20, torch.bfloat16, False), (256, torch.bfloat16, False),
     (64, torch.float32, False)],
)  # fmt: skip
def test_heads_that_variable_length_attention_cannot_take_go_another_way(
    width: int, dtype: torch.dtype, is_one_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(attention, "has_varlen", lambda device: True)
    monkeypatch.setattr(attention, "_attention_varlen", lambda *inputs: calls.append(inputs))
    with FakeTensorMode(allow_non_fake_inputs=True):
        heads = torch.empty(4, 10, width, dtype=dtype, device="cuda")
        attention.attention(heads, 2, Documents([0, 10], torch.arange(10, device="cuda")))
    assert bool(calls) == is_one_call
