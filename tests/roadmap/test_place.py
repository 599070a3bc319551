"""Places keep their clock across kills; progress reads well in a log; sources and tables."""

import io
import json
import math

import pytest
import torch

from gradus.core.errors import TrainingError
from gradus.core.ledger import Ledger
from gradus.roadmap import place as place_module
from gradus.roadmap import progress as progress_module
from gradus.roadmap.place import MachineSettings, Place
from gradus.roadmap.progress import LiveProgress, PlainProgress, QuietProgress, counted
from gradus.roadmap.session import decoding_device, training_session
from gradus.roadmap.sources import file_sources, matching_files
from gradus.roadmap.stage import SourceError, Stage, StageSettings
from gradus.roadmap.table import text_table


@pytest.fixture
def stage():
    return Stage(name="prose", kind="corpus", settings=StageSettings(), seed=7, fingerprint="cd" * 32, references={})


@pytest.fixture
def make_place(tmp_path, stage):
    def make(**more):
        work = tmp_path / "artifacts" / "corpus-cdcdcdcdcdcdcdcd.work"
        work.mkdir(parents=True, exist_ok=True)
        return Place(stage=stage, work=work, roadmap_dir=tmp_path, home=tmp_path, **more)

    return make


def test_working_time_of_a_killed_walk_counts(make_place, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(place_module.time, "monotonic", lambda: clock[0])
    first = make_place()
    clock[0] += 30
    first.tick()
    clock[0] = 500.0
    second = make_place()
    assert second.seconds == 30.0
    clock[0] += 5
    assert second.commit({}).manifest.seconds == 35.0


def test_a_commit_carries_the_stage_and_removes_scratch(make_place, stage):
    place = make_place(parents={"corpus": ["ef" * 32]}, stage_version=3)
    (place.scratch / "state").write_text("half way")
    (place.work / "text.txt").write_text("word")
    artifact = place.commit({"documents": 1})
    manifest = artifact.manifest
    assert (manifest.name, manifest.seed, manifest.stage_version) == ("prose", 7, 3)
    assert manifest.parents == {"corpus": ["ef" * 32]}
    assert sorted(p.name for p in artifact.path.iterdir()) == ["manifest.json", "text.txt"]


def test_other_ranks_write_nothing(make_place, tmp_path):
    place = make_place(rank=1, world_size=2, ledger=Ledger(tmp_path / "ledger.jsonl"))
    place.record(step=1, loss=2.0)
    place.tick()
    artifact = place.commit({"documents": 1})
    assert artifact.results == {"documents": 1}
    assert not artifact.path.exists()
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize(("processes", "threads"), [(1, 4), (2, 2), (8, 1)])
def test_processes_share_the_threads_while_they_train(make_place, processes, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with training_session(make_place(world_size=processes)):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("gpus", "processes", "problem"),
    [(0, 1, r'torch sees no CUDA device here; set device = "cpu"'), (1, 2, "torch sees 1; set processes to at most 1")],
)
def test_a_gpu_that_is_not_there_is_named_before_anything_else(make_place, monkeypatch, gpus, processes, problem):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    place = make_place(machine=MachineSettings(device="cuda"), rank=processes - 1, world_size=processes)
    with pytest.raises(TrainingError, match=problem), training_session(place):
        pass


def test_a_stage_begins_with_a_gpu_that_has_nothing_of_the_stage_before(make_place, monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("set_device", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: done.append((name, *device)))
    gpu = torch.device("cuda", 0)
    with training_session(make_place()) as session:
        assert session.device == gpu
    assert done == [("set_device", gpu), ("empty_cache",), ("reset_peak_memory_stats", gpu)]
    assert decoding_device(make_place()) == gpu
    assert decoding_device(make_place(machine=MachineSettings(device="cpu"))) == torch.device("cpu")


def test_a_measurement_goes_to_the_ledger_with_its_stage(make_place, tmp_path):
    place = make_place(ledger=Ledger(tmp_path / "ledger.jsonl"))
    place.record(step=5, loss=2.5)
    (line,) = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert (line["event"], line["stage"], line["step"], line["loss"]) == ("measure", "prose", 5, 2.5)


def test_a_measure_that_is_no_number_is_refused_with_its_stage(make_place, tmp_path):
    place = make_place(ledger=Ledger(tmp_path / "ledger.jsonl"))
    with pytest.raises(TrainingError, match=r'^stage "prose": step 5: loss is nan, .* at a lower learning rate$'):
        place.record(step=5, loss=math.nan)
    with pytest.raises(TrainingError, match=r'^stage "prose": tasks\.0\.value is inf, '):
        place.commit({"tasks": [{"value": math.inf}]})
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with PlainProgress(stream).task("training", 1000, "tok") as task:
        for step in range(1, 5):
            clock[0] += 6
            task.update(step * 250, info=f"loss {5 - step}")
    assert stream.getvalue().splitlines() == [
        "  training 500/1,000 tok, about 12 s left  loss 3",
        "  training 1,000/1,000 tok  loss 1",
        "  training 1,000/1,000 tok in 24 s  loss 1",
    ]


def test_what_an_earlier_walk_did_does_not_shorten_the_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with PlainProgress(stream).task("training", 1000, "tok") as task:
        for done in (700, 800):
            clock[0] += 30
            task.update(done)
    assert stream.getvalue().splitlines()[:2] == [
        "  training 700/1,000 tok",
        "  training 800/1,000 tok, about 1 m 0 s left",
    ]


def test_a_terminal_gets_live_bars():
    from rich.console import Console

    stream = io.StringIO()
    progress = LiveProgress(Console(file=stream, force_terminal=True, width=120))
    with progress.task("training", 100, "tok") as task:
        task.update(50, info="loss 2.0")
        progress.line("[not markup]")
        task.update(advance=50)
    assert "training" in stream.getvalue()
    assert "100/100 tok" in stream.getvalue()
    assert "[not markup]" in stream.getvalue()


def test_every_update_ticks_the_clock():
    for progress in (QuietProgress(), PlainProgress(io.StringIO())):
        ticks = []
        progress.tick = lambda ticks=ticks: ticks.append(1)
        with progress.task("rows") as task:
            assert list(counted(range(130), task)) == list(range(130))
        assert len(ticks) == 3


def test_files_are_found_by_name_pattern_and_folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.txt", "b/1.txt", "b/.hidden", "3.txt"):
        (tmp_path / name).write_text(name)
    assert [p.name for p in matching_files("b", tmp_path)] == ["1.txt", "2.txt"]
    assert [p.name for p in matching_files("**/*.txt", tmp_path)] == ["3.txt", "1.txt", "2.txt"]
    assert matching_files("nothing", tmp_path) == []
    before = file_sources([(("path",), "b")], tmp_path)
    (tmp_path / "b" / "1.txt").write_text("other")
    assert file_sources([(("path",), "b")], tmp_path) != before
    with pytest.raises(SourceError) as caught:
        file_sources([(("a",), "4.txt"), (("b",), "c/*.txt")], tmp_path)
    assert [p.path for p in caught.value.problems] == [("a",), ("b",)]


def test_a_table_aligns_its_columns():
    assert text_table(["a", "n"], [["long", "1"], ["x", "200"]], right=(1,)) == (
        "a       n\n----  ---\nlong    1\nx     200"
    )
