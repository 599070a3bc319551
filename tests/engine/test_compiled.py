"""Steps of fixed shape, compiled and captured: the tokens of plain steps, whoever joins, waits, leaves and grows."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradus.core.errors import ConfigError
from gradus.engine import compiled
from gradus.engine.batching import DecodeBatch
from gradus.engine.cache import SlotCache
from gradus.engine.compiled import compile_steps
from gradus.engine.decoding import GreedyStream, decode_streams
from gradus.engine.exactness import exact_row_tile
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.prefix_cache import PrefixCache
from gradus.model.config import model_config
from gradus.model.frozen import freeze
from gradus.model.transformer import Transformer, build_model

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB, CONTEXT = 60, 300
PLAIN = {"depth": 2, "width": 32, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16, "mlp_width": 64}
WINDOWS = PLAIN | {"family": "custom", "window_pattern": "SL", "window": 70}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": PLAIN | {"rope_scaling": {"factor": 4.0, "original_context": 64}},
    "three heads a key": PLAIN | {"num_heads": 3, "num_kv_heads": 1},
    "windows and looks back": WINDOWS | {"smear": True, "wave_kernel": 3, "spectral_length": 5},
}


def small_model(shape: dict[str, Any]) -> Transformer:
    """Random weights of a scale that makes every past token matter to the next."""
    model = build_model(model_config(shape, VOCAB, CONTEXT), torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    freeze(model)
    return model


class Stream(GreedyStream):
    """Greedy tokens, with a rest at every so many steps."""

    def __init__(self, prompt: list[int], count: int, rests_every: int) -> None:
        super().__init__(prompt, count)
        self._rests_every, self._asked = rests_every, 0
        self.num_logprobs = 0
        self.told: list[float] = []

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        assert logprobs is not None
        self.told.append(logprobs.logprob)
        super().push(token)

    def waits(self) -> bool:
        self._asked += 1
        return self._rests_every > 0 and self._asked % self._rests_every == 0


def streams() -> list[Stream]:
    """Of lengths on all sides of 64, 128 and 256, some of which begin alike."""
    draw = random.Random(5)
    shared = [draw.randrange(VOCAB) for _ in range(128)]
    made = []
    for number, (length, count) in enumerate([(3, 45), (60, 20), (190, 80), (1, 9), (130, 30), (20, 60), (140, 5)]):
        prompt = shared[: length - 2] + [draw.randrange(VOCAB) for _ in range(max(2, length - 128))]
        made.append(Stream(prompt[:length], count, rests_every=4 if number % 2 else 0))
    return made


def answers(model: Transformer) -> list[tuple[list[int], list[float]]]:
    """What all say, and how likely that was, in five slots: two together, the rest one by one, the first cancelled."""
    all_streams = streams()
    batch = DecodeBatch(model, 5, VOCAB, prefixes=PrefixCache(2**20))
    with torch.inference_mode():  # what was never stored is no number
        for stored in (*batch.slots.cache.keys, *batch.slots.cache.values):
            stored.fill_(torch.nan)
    waiting = list(all_streams)
    batch.join([waiting.pop(0), waiting.pop(0)])
    steps = 0
    while waiting or batch.num_live:
        if waiting and batch.num_free and steps % 3 == 0:
            batch.enter(waiting.pop(0))
        batch.step()
        steps += 1
        if all_streams[0].num_sampled == 30:
            all_streams[0].finished = True
    assert batch.slots.is_grown
    return [(stream.tokens, stream.told) for stream in all_streams]


def assert_alike(found: list[tuple[list[int], list[float]]], expected: list[tuple[list[int], list[float]]]) -> None:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.fixture
def plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of fixed shape without a compiler, which takes long."""
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: function)


class Recorded:
    """What a CUDA graph does, on a processor: the same operations again, on the memory that they were recorded with."""

    made = 0

    def __init__(self, device: torch.device) -> None:
        self._graphs: list[weakref.ref[_Recorder]] = []

    def captured(self, work: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        Recorded.made += 1
        # torch's allocator asserts it of memory that several graphs share.
        assert not self._graphs or any(graph() is not None for graph in self._graphs), "the memory is given up"
        with _Recorder() as recorder:
            out = work()
        self._graphs.append(weakref.ref(recorder))
        for changed, before in reversed(recorder.changed):  # while it is captured, nothing is done
            changed.copy_(before)
        return recorder.replay, out


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func.name() not in {"aten::_local_scalar_dense", "aten::nonzero"}, "the host would wait"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.changed.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, out in self.operations:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or done in place
                        old.copy_(new)


@pytest.mark.parametrize("name", SHAPES)
def test_steps_of_fixed_shape_say_what_plain_ones_say(name: str, plain_layers: None) -> None:
    model = small_model(SHAPES[name])
    expected = answers(model)
    compile_steps(model)
    assert_alike(answers(model), expected)


@pytest.mark.parametrize("name", ["plain", "windows and looks back"])
def test_a_graph_of_a_step_repeated_says_the_same(
    name: str, plain_layers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(SHAPES[name])
    expected = answers(model)
    compile_steps(model)
    monkeypatch.setattr(compiled, "GRAPHS", {"cpu": Recorded})
    monkeypatch.setattr(Recorded, "made", 0)
    assert_alike(answers(model), expected)
    # 1, 2, 4 and 5 rows at 64, 128, 256 and 300 places, in three caches.
    assert 4 <= Recorded.made <= 16


class Crossings(TorchDispatchMode):
    """Collects operations on tensors of two devices, and those that read from one: a CUDA graph can hold neither."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
        if len(devices) > 1 or func.name() in {"aten::_local_scalar_dense", "aten::nonzero"}:
            self.found.append(func.name())
        return out


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_stays_on_its_device(name: str) -> None:
    """On meta, where every way is another device's than the host's."""
    config = model_config(SHAPES[name], VOCAB, CONTEXT)
    with torch.device("meta"):
        model = Transformer(config)
    freeze(model)
    cache = SlotCache.of_model(model, 4)
    step = compiled._FixedStep(model, cache, 4, 64, None)
    with Crossings() as crossings:
        hidden = step._run()
    assert hidden.shape == (4, 32)
    assert crossings.found == []
    with crossings:
        torch.zeros(3).to("meta")
    assert crossings.found == ["aten::_to_copy"]


def test_streams_behind_a_common_beginning_say_the_same(plain_layers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(PLAIN)

    def told() -> list[list[int]]:
        draw = random.Random(1)
        beginning = [draw.randrange(VOCAB) for _ in range(40)]
        asked = [GreedyStream([*beginning, number, 3], 20 + number) for number in range(9)]
        list(decode_streams(model, asked, VOCAB, max_batch=4))
        return [stream.tokens for stream in asked]

    expected = told()
    compile_steps(model)
    assert told() == expected
    monkeypatch.setattr(compiled, "GRAPHS", {"cpu": Recorded})
    assert told() == expected


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


# torch's compiler warns of what it does itself, and made errors, its warnings stop it.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_steps_say_what_plain_ones_say_and_are_compiled_twice() -> None:
    model = small_model(WINDOWS | {"num_kv_heads": 1})
    expected = answers(model)
    compile_steps(model)
    compiled_at_first = counters["stats"]["unique_graphs"]
    assert_alike(answers(model), expected)
    # Two parts of a layer, for one row and for more; layers share them, and no length is compiled for.
    assert compiled_at_first == counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("family", ["psann", "speedrun"])
def test_families_whose_layers_differ_are_compiled_a_few_times(family: str) -> None:
    model = small_model(PLAIN | {"family": family, "depth": 4})
    expected = answers(model)
    compile_steps(model)
    assert_alike(answers(model), expected)
    # Some layers of speedrun have value embeddings: the part before attention is of two kinds there.
    assert counters["stats"]["unique_graphs"] == (6 if family == "speedrun" else 4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_fresh_compiler")
def test_many_models_in_one_process_are_all_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: compile_with(function, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=2):  # eight by default, which takes longer to fill
        for width in (64, 80):
            compile_steps(small_model(PLAIN | {"mlp_width": width}))
    assert counters["stats"]["unique_graphs"] == 4 * 2


def test_what_cannot_be_compiled_is_refused_by_name(plain_layers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(PLAIN)
    packed = small_model(PLAIN)
    freeze(packed, int8=True)
    with pytest.raises(ConfigError, match=r"for weights in fp32 on a processor \(--dtype fp32\)"):
        compile_steps(packed)
    experts = small_model(PLAIN | {"num_experts": 4, "expert_width": 32, "experts_per_token": 2})
    with pytest.raises(ConfigError, match="a model with experts are not compiled"):
        compile_steps(experts)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler was found \(CXX=no-such-compiler\); install one"):
        compile_steps(model)
    monkeypatch.delenv("CXX")
    assert exact_row_tile(model, 8) is not None
    compile_steps(model)
    assert exact_row_tile(model, 8) is None


def test_what_the_compiler_stumbles_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("fatal error: Python.h: no such file\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: stumble)
    with pytest.raises(ConfigError, match=r"cannot be compiled here: fatal error: Python\.h: no such file; leave"):
        compile_steps(small_model(PLAIN))
