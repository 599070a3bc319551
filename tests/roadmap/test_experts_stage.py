"""Experts one after the other: files by index, a merged model, kills, frozen trunks, routers that are held to it."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_stages import PROSE, tokens_of, write_lines

from gradus.core.errors import ArtifactError, ConfigError, GateFailedError, GradusError
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.expert_files import (
    expert_parameters,
    load_expert,
    load_shared,
    merged_model,
    save_expert,
    save_shared,
    single_expert_config,
)
from gradus.model.transformer import build_model
from gradus.model.weights import load_model
from gradus.roadmap.metrics import Evaluation, StepLines
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_measures import counting_lines
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import experts
from gradus.roadmap.training import follow
from gradus.train import loop
from gradus.train.parallel import World

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = (
    """\
name = "moe"
seed = 3

[machine]
threads = 1

"""
    + PROSE
    + tokens_of(285)
)
EXPERTS = """
[[stage]]
name = "parts"
kind = "experts"
tokens = "tokens"
model = { depth = 2, width = 32, head_dim = 16, num_experts = 3, expert_width = 32 }
context = 64
horizon = "10 steps"
batch_tokens = 512
save_every = 4
evaluate_every = 5
log_every = 2
samples = []
"""
ROUTED = """
[[stage]]
name = "base"
kind = "pretrain"
tokens = "tokens"
from = "parts"
continue_data = true
context = 64
horizon = "12 steps"
batch_tokens = 512
samples = []
"""
TABLE = {"depth": 2, "width": 32, "head_dim": 16, "num_experts": 3, "expert_width": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moe")
    write_lines(folder, 400)
    walked(folder, HEAD + EXPERTS)
    return folder


def walked(folder, text, *overrides, home="home"):
    file = folder / "moe.toml"
    file.write_text(text)
    return walk(load_roadmap(file, overrides), folder / home, progress=QuietProgress())


def artifact(folder, stage, home="home"):
    return (folder / home / "runs" / "moe" / stage).resolve()


def results(folder, stage, home="home"):
    return json.loads((artifact(folder, stage, home) / "manifest.json").read_text())["results"]


def test_every_expert_is_a_file_and_is_measured_behind_the_last_trunk(folder):
    made = artifact(folder, "parts")
    assert sorted(p.name for p in (made / "experts").iterdir()) == [f"{i}.safetensors" for i in range(3)]
    assert set(load_file(made / "experts" / "1.safetensors")) == {
        f"blocks.{layer}.{part}" for layer in range(2) for part in ("gate_up", "down")
    }
    found = results(folder, "parts")
    single = [found["experts"][str(i)]["bpb"] for i in range(3)]
    assert found["bpb"] == min(single)
    assert found["best_expert"] == single.index(min(single))
    assert found["steps"] == 30
    assert found["computed_tokens"] == found["tokens"]
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "train"]
    assert steps == list(range(2, 31, 2))
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses[-1] < losses[0] - 0.5
    # It begins with a trunk that has learned.
    assert losses[5] < losses[0] - 0.2


def test_every_expert_in_the_merged_model_computes_what_it_computed_alone(folder):
    made = artifact(folder, "parts")
    merged = load_model(made / "model")
    assert merged.config.num_experts == 3
    tokens = torch.arange(30)
    for index in range(3):
        alone = build_model(single_expert_config(merged.config), torch.Generator())
        load_shared(made, alone)
        load_expert(made, index, alone)
        everywhere = merged_model(made, merged.config, torch.Generator())
        # One expert in all places: whom a router asks, and at which weights, is then the same.
        with torch.no_grad():
            for block in everywhere.blocks:
                for name in ("expert_gate_up", "expert_down"):
                    stacked = getattr(block.experts, name)
                    stacked.copy_(stacked.chunk(3)[index].repeat(3, 1))
        documents = Documents.of_lengths([30])
        assert torch.allclose(everywhere(tokens, documents), alone(tokens, documents), atol=1e-5)


class Killed(Exception):
    """Stands for a kill -9."""


@pytest.mark.parametrize("after", [3, 10, 14, 27])
def test_a_killed_run_ends_with_the_same_weights_and_lines(folder, after, monkeypatch):
    steps = 0
    advance = loop._Run.advance

    def counted(self, *args):
        nonlocal steps
        if steps == after:
            raise Killed
        steps += 1
        return advance(self, *args)

    home = f"killed-{after}"
    monkeypatch.setattr(loop._Run, "advance", counted)
    with pytest.raises(Killed):
        walked(folder, HEAD + EXPERTS, home=home)
    monkeypatch.undo()
    walked(folder, HEAD + EXPERTS, home=home)
    for name in ("shared.safetensors", "experts/0.safetensors", "experts/2.safetensors", "model/model.safetensors"):
        ours, whole = artifact(folder, "parts", home) / name, artifact(folder, "parts") / name
        assert ours.read_bytes() == whole.read_bytes()

    def lines(home):
        found = [
            json.loads(line) for line in (artifact(folder, "parts", home) / "metrics.jsonl").read_text().splitlines()
        ]
        return [(line["event"], line["step"], line.get("loss"), line.get("bpb")) for line in found]

    assert lines(home) == lines("home")


def test_what_one_expert_refused_and_passed_over_stands_among_the_steps_of_all(tmp_path, monkeypatch):
    def report(step, **changes):
        counts = {"tokens": 10 * step, "computed": 10 * step, "skipped": 0, "rollbacks": 0, "data_step": step}
        flags = {"logged": True, "saved": False, "evaluate": False}
        rest = {"loss": 1.0, "metrics": {}, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 1.0}
        return loop.StepReport(step=step, steps=10, **rest | counts | flags | changes)

    returned = {"skipped": 3, "rollbacks": 1, "passed_over": ((5, 2, 2, 5),)}
    by_expert = [[report(4), report(10, skipped=1)], [report(4), report(3, **returned), report(10, **returned)]]
    monkeypatch.setattr(experts, "_begin", lambda work, index: None)
    monkeypatch.setattr(experts, "_save", lambda work, index, done: None)
    monkeypatch.setattr(experts, "_reports", lambda work, index: by_expert[index])
    place = SimpleNamespace(
        work=tmp_path, scratch=tmp_path, progress=QuietProgress(), record=lambda **m: None, follow=lambda *line: None
    )
    work = SimpleNamespace(place=place, count=2, steps=10)
    last = follow(experts._all_reports(work), place, SimpleNamespace(world=World()), lambda: Evaluation({}))
    assert (last.step, last.tokens, last.skipped, last.rollbacks) == (20, 200, 4, 1)
    assert last.passed_over == ((15, 12, 12, 15),)
    counting, windows = counting_lines(StepLines(tmp_path / "metrics.jsonl").lines())
    assert [line["step"] for line in counting] == [4, 10, 13, 20]
    assert windows == [{"from": 12, "to": 15, "data_steps": [12, 15]}]


def test_a_frozen_trunk_is_that_of_the_first_expert(folder):
    walked(folder, HEAD + EXPERTS, "parts.trunk=freeze", home="frozen")
    frozen = artifact(folder, "parts", "frozen")
    # With one expert fewer to come the first is the same.
    trained = load_file(artifact(folder, "parts") / "experts" / "0.safetensors")
    assert all(torch.equal(trained[n], t) for n, t in load_file(frozen / "experts" / "0.safetensors").items())
    shared, later = (
        load_file(frozen / "shared.safetensors"),
        load_file(artifact(folder, "parts") / "shared.safetensors"),
    )
    assert not torch.equal(shared["embedding"], later["embedding"])
    first, last = (load_file(frozen / "experts" / f"{i}.safetensors") for i in (0, 2))
    assert not torch.equal(first["blocks.0.gate_up"], last["blocks.0.gate_up"])
    merged = load_model(frozen / "model")
    assert torch.equal(merged.embedding, shared["embedding"])


def test_routers_are_trained_next_and_held_to_the_best_expert(folder):
    text = HEAD + EXPERTS + ROUTED
    walked(folder, text, "base.horizon=30 steps")
    found = results(folder, "base")
    assert found["gain_over_best_expert"] == pytest.approx(results(folder, "parts")["bpb"] - found["bpb"])
    assert found["gain_over_best_expert"] > 0
    with pytest.raises(GateFailedError, match=r"gain_over_best_expert = -.* is below 0"):
        walked(folder, text, "base.horizon=2 steps", "base.optimizer.matrix_lr=0.9", "base.optimizer.embed_lr=0.9")


def test_only_pretraining_takes_experts_whose_routers_know_nothing(folder):
    chat = """
[[stage]]
name = "mid"
kind = "midtrain"
from = "parts"
tokens = "tokens"
mixture = [{ source = "talk" }]
"""
    (folder / "bad.toml").write_text(HEAD + EXPERTS + chat)
    with pytest.raises(GradusError, match='but stage "parts" makes an experts artifact'):
        load_roadmap(folder / "bad.toml", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": None, "expert_width": None}, "there are no experts to train; set num_experts"),
        ({"dense_layers": 1}, "dense_layers 1; experts are trained alone where every layer has them"),
        ({"shared_experts": 1, "router": "sigmoid", "balance": "bias"}, "shared_experts 1; experts are trained alone"),
    ],
)
def test_models_whose_experts_cannot_be_trained_alone_are_refused(changes, message):
    table = {key: value for key, value in (TABLE | changes).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        single_expert_config(model_config(table, 285, 64))


def test_files_of_another_shape_are_refused_by_name(tmp_path):
    config = single_expert_config(model_config(TABLE, 285, 64))
    model = build_model(config, torch.Generator())
    save_shared(tmp_path, model)
    save_expert(tmp_path, 0, model)
    assert set(expert_parameters(model)) == {f"blocks.{i}.{part}" for i in range(2) for part in ("gate_up", "down")}
    narrow = build_model(single_expert_config(model_config(TABLE | {"expert_width": 16}, 285, 64)), torch.Generator())
    with pytest.raises(ArtifactError, match=r"experts/0\.safetensors: blocks\.0\.gate_up has shape \(64, 32\)"):
        load_expert(tmp_path, 0, narrow)
    shallow = build_model(single_expert_config(model_config(TABLE | {"depth": 1}, 285, 64)), torch.Generator())
    with pytest.raises(ArtifactError, match=r"holds other parts than the model has: blocks\.1\."):
        load_shared(tmp_path, shallow)
    more_tokens = build_model(single_expert_config(model_config(TABLE, 300, 64)), torch.Generator())
    with pytest.raises(ArtifactError, match=r"embedding has shape \(285, 32\), expected \(300, 32\)"):
        load_shared(tmp_path, more_tokens)
    with pytest.raises(ArtifactError, match=r"1\.safetensors is missing"):
        load_expert(tmp_path, 1, model)
    save_file({"x": torch.zeros(1)}, tmp_path / "experts" / "0.safetensors")
    with pytest.raises(ArtifactError, match="holds other parts"):
        load_expert(tmp_path, 0, model)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('keep_best = "bpb"', "checkpoints of single experts are for resuming alone"),
        ("keep_checkpoints = 0", "go at the end"),
        ('scaling = "auto"', "the horizon law is not known"),
        ('optimizer = "warm"', "every expert begins with fresh weights"),
        ('trunk = "thaw"', "trunk"),
    ],
)
def test_settings_that_mean_nothing_for_single_experts_are_refused(tmp_path, line, message):
    write_lines(tmp_path, 20)
    text = EXPERTS.replace("batch_tokens = 512\n", "") + line + "\n"
    (tmp_path / "bad.toml").write_text(HEAD + text)
    with pytest.raises(ConfigError, match=message):
        load_roadmap(tmp_path / "bad.toml", ())
