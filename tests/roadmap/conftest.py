"""Toy stage kinds, so that the walk is tested without any room below it."""

import sys
import types
from pathlib import Path

import pytest

from gradus.core.errors import DataError
from gradus.roadmap import kinds
from gradus.roadmap.sources import file_sources
from gradus.roadmap.stage import Estimate, Input, StageSettings

sys.path.insert(0, str(Path(__file__).parent))  # for walked_run

RUNS: list[str] = []


class TextSettings(StageSettings):
    words: int = 3
    path: str | None = None
    fail: str | None = None

    def smoke(self):
        return self.model_copy(update={"words": 1})


class PoolSettings(StageSettings):
    rows: int = 2


class Entry(StageSettings):
    source: str
    epochs: float = 1.0


class ModelSettings(StageSettings):
    epochs: float = 2.0
    mixture: tuple[Entry, ...] = ()
    score: float = 0.9


def text_sources(settings, roadmap_dir):
    return file_sources([(("path",), settings.path)], roadmap_dir) if settings.path else {}


def run_text(stage, inputs, place):
    RUNS.append(stage.name)
    settings = stage.settings
    (place.work / "text.txt").write_text("word " * settings.words)
    if settings.fail == "error":
        raise DataError("row 3 is not text")
    if settings.fail == "interrupt":
        (place.scratch / "state").write_text("half way")
        raise KeyboardInterrupt
    return place.commit({"documents": settings.words, "bytes": 5 * settings.words})


def run_pool(stage, inputs, place):
    RUNS.append(stage.name)
    (place.work / "rows.txt").write_text("row\n" * stage.settings.rows)
    return place.commit({"conversations": stage.settings.rows})


def run_model(stage, inputs, place):
    RUNS.append(stage.name)
    with place.progress.task("steps", 2, "steps") as task:
        for step in range(2):
            task.update(step + 1, info=f"loss {1 / (step + 1):.2f}")
    place.record(step=2, loss=0.5)
    folder = place.work / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    score = stage.settings.score
    items = {str(i): int(i < round(score * 100)) for i in range(100)}
    total = {"value": score, "n": 100, "successes": round(score * 100), "items": items}
    return place.commit({"probes": {"fresh": {"total": total, "categories": {"weekday": {"value": 1.0, "n": 9}}}}})


def toy_module(name, settings, makes, inputs, run, sources, estimate):
    module = types.ModuleType(f"toy_{name}")
    module.VERSION, module.MAKES, module.INPUTS, module.Settings = 1, makes, inputs, settings
    module.sources = sources
    module.plan = lambda settings, inputs, device, stage: estimate
    module.run = run
    return module


@pytest.fixture
def toys(monkeypatch):
    """The kinds corpus, synthesize, sft as toys; a list of the stages that really ran."""
    none = lambda settings, roadmap_dir: {}  # noqa: E731
    made = {
        "corpus": toy_module("corpus", TextSettings, "corpus", (), run_text, text_sources,
                             Estimate(seconds=1, facts={"documents": 3})),
        "synthesize": toy_module("synthesize", PoolSettings, "pool", (), run_pool, none, Estimate(seconds=2)),
        "sft": toy_module(
            "sft", ModelSettings, "sft",
            (Input("from", ("sft",), required=False), Input("corpus", ("corpus",)),
             Input("pools", ("pool",), many=True, required=False),
             Input("mixture[].source", ("pool",), outside=("files",))),
            run_model, none,
            Estimate(seconds=60, steps=100, tokens=1e6, parameters=100_000, flops=6e11, memory_bytes=2**20)),
    }  # fmt: skip
    for kind, module in made.items():
        monkeypatch.setitem(kinds.KINDS, kind, module.__name__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    RUNS.clear()
    return RUNS


ROADMAP = """\
name = "toy"
seed = 1

[[stage]]
name = "prose"
kind = "corpus"
words = 4

[[stage]]
name = "talk"
kind = "synthesize"

[[stage]]
name = "chat"
kind = "sft"
corpus = "prose"
mixture = [
  { source = "talk", epochs = 2 },
]

[[stage.gate]]
measure = "probes.fresh.total"
at_least = 0.8
"""


@pytest.fixture
def roadmap_file(tmp_path, toys):
    """A toy roadmap on disk."""
    file = tmp_path / "toy.toml"
    file.write_text(ROADMAP)
    return file
