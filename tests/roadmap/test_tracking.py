"""Experiment trackers: what a walk logs reaches each of them, by stand-ins that keep what they are given."""

import json
import sys
import types
from typing import ClassVar

import pytest
from small_stages import PROSE, Stopping, base_of, tokens_of, write_lines

from gradus.core.errors import ConfigError, GradusError, MissingPackageError
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.tracking import TrackSettings, tracking

TRACK = '[track]\nto = ["tensorboard", "wandb"]\n'


class Writer:
    """TensorBoard's SummaryWriter, as far as it is used: events by folder; a purge hides those from its step on."""

    events: ClassVar[dict] = {}

    def __init__(self, log_dir, purge_step=None):
        self.kept = self.events.setdefault(log_dir.name, [])
        self.kept[:] = [event for event in self.kept if event[1] < purge_step]
        self.closed = False

    def add_scalar(self, tag, value, step):
        assert not self.closed
        self.kept.append((tag, step, value))

    def close(self):
        self.closed = True


class WandbRun:
    def __init__(self, **given):
        self.given, self.axes, self.logged, self.finished = given, {}, [], False

    def define_metric(self, names, step_metric):
        self.axes[names] = step_metric

    def log(self, figures):
        self.logged.append(figures)

    def finish(self):
        self.finished = True


@pytest.fixture
def trackers(monkeypatch):
    """Stand-ins in place of the packages; the wandb runs that were begun."""
    runs = []
    wandb = types.ModuleType("wandb")
    wandb.Error = type("Error", (Exception,), {})
    wandb.init = lambda **given: runs.append(WandbRun(**given)) or runs[-1]
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer
    Writer.events = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return runs


def test_an_interrupted_walk_leaves_each_tracker_with_every_step_once(tmp_path, trackers):
    write_lines(tmp_path, 300)
    file = tmp_path / "small.toml"
    stages = PROSE + tokens_of(280) + base_of(8) + "log_every = 1\nsave_every = 3\nevaluate_every = 4\n"
    file.write_text('name = "small"\n' + TRACK + stages)
    with pytest.raises(KeyboardInterrupt):
        walk(load_roadmap(file), tmp_path, Stopping(5 * 256))
    result = walk(load_roadmap(file), tmp_path, QuietProgress())
    lines = [json.loads(line) for line in (result.artifacts["base"].path / "metrics.jsonl").read_text().splitlines()]
    trained = {line["step"]: line["loss"] for line in lines if line["event"] == "train"}
    assert sorted(trained) == list(range(1, 9))
    losses = [(step, value) for tag, step, value in Writer.events["base"] if tag == "loss"]
    assert losses == list(trained.items())
    assert [value for tag, _, value in Writer.events["base"] if tag == "results/loss"] == [trained[8]]
    evaluated = [line for line in lines if line["event"] == "evaluate"]
    assert {step for tag, step, _ in Writer.events["base"] if tag == "bpb"} >= {line["step"] for line in evaluated}
    first, second = trackers
    assert first.given["id"] == second.given["id"]
    assert second.given["resume"] == "allow"
    assert second.given["config"]["base"]["context"] == 128
    assert second.finished
    assert second.axes["base/*"] == "base/step"
    said = {figures["base/step"]: figures["base/loss"] for figures in second.logged if "base/lr" in figures}
    assert said.items() <= trained.items()


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_made(tmp_path, roadmap_file, toys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    roadmap_file.write_text(roadmap_file.read_text().replace("seed = 1\n", 'seed = 1\n[track]\nto = ["wandb"]\n', 1))
    with pytest.raises(MissingPackageError, match=r'"wandb" is needed .*; run: pip install "gradus\[tracking\]"'):
        walk(load_roadmap(roadmap_file), tmp_path / "home", QuietProgress())
    assert toys == []


def test_a_tracker_that_refuses_says_how_to_go_on(tmp_path, trackers, monkeypatch):
    def refuse(**given):
        raise sys.modules["wandb"].Error("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    settings = TrackSettings(to=("wandb",))
    refusal = pytest.raises(GradusError, match=r"wandb: no API key; log in with .*WANDB_MODE=offline")
    with refusal, tracking(settings, "toy", tmp_path, {}):
        pass


def test_only_finite_numbers_are_sent(tmp_path, trackers):
    figures = {"loss": 1.5, "nan": float("nan"), "inf": float("inf"), "event": "train", "known": True, "n": 3}
    with tracking(TrackSettings(to=("wandb", "wandb")), "toy", tmp_path, {}) as track:
        track("chat", 7, figures)
    (run,) = trackers
    assert run.logged == [{"chat/loss": 1.5, "chat/n": 3.0, "chat/step": 7}]
    with tracking(None, "toy", tmp_path, {}) as track:
        track("chat", 7, figures)


def test_a_tracker_that_fails_later_is_told_and_left_and_the_others_go_on(tmp_path, trackers, monkeypatch):
    def broken(run, figures):
        raise ConnectionError("no route")

    monkeypatch.setattr(WandbRun, "log", broken)
    said = []
    settings = TrackSettings(to=("wandb", "tensorboard"))
    with tracking(settings, "toy", tmp_path, {}, said.append) as track:
        track("base", 1, {"loss": 2.0})
        track("base", 2, {"loss": 1.0})
    assert said == ["  warning: wandb failed and gets no more of this walk: no route"]
    assert Writer.events["base"][-2:] == [("loss", 1, 2.0), ("loss", 2, 1.0)]


def test_an_unknown_tracker_is_refused_with_the_known_ones(roadmap_file, toys):
    with pytest.raises(ConfigError, match=r"tensorboard.*wandb.*trackio"):
        load_roadmap(roadmap_file, ['track.to=["comet"]'])
    assert load_roadmap(roadmap_file, ['track.to=["wandb"]']).track.to == ("wandb",)
    plain, tracked = load_roadmap(roadmap_file), load_roadmap(roadmap_file, ['track.to=["wandb"]'])
    assert [s.fingerprint for s in plain.stages] == [s.fingerprint for s in tracked.stages]
