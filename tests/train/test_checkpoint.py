"""Checkpoints are whole or not there, and a bad disk never costs an older one."""

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny_training import model_and_optimizer

from gradus.core.errors import ArtifactError, TrainingError
from gradus.model import tensor_files
from gradus.model.config import LoraSettings
from gradus.model.lora import add_adapters, init_adapters
from gradus.model.weights import load_model
from gradus.train.checkpoint import Checkpoints, open_checkpoint
from gradus.train.parallel import World
from gradus.train.saving import Part, Saving


def save(checkpoints: Checkpoints, step: int, seed: int = 0) -> Path:
    model, optimizer = model_and_optimizer(seed)
    return checkpoints.save(step, model, optimizer, {"step": step}, {"tokens": torch.tensor(step)})


def test_a_checkpoint_comes_back_whole_and_is_a_model_folder(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, identity="run")
    assert checkpoints.latest() is None
    path = save(checkpoints, 7)
    found = checkpoints.latest()
    assert found is not None
    assert (found.step, found.state["step"], int(found.extra()["tokens"])) == (7, 7, 7)
    model, optimizer = model_and_optimizer(seed=5)
    found.load_weights(model)
    found.load_optimizer(optimizer)
    expected, _ = model_and_optimizer()
    folder_model = load_model(path)
    for name, value in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), value)
        assert torch.equal(folder_model.get_parameter(name), value)


def test_adapters_are_not_left_behind_by_a_model_without_them(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    add_adapters(model, LoraSettings(rank=2))
    init_adapters(model, torch.Generator().manual_seed(0))
    Checkpoints(tmp_path).save(1, model, optimizer, {"step": 1}, {})
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    with pytest.raises(ArtifactError, match=r"its adapters would be left behind"):
        found.load_weights(model_and_optimizer()[0])


def test_the_newest_stay_and_at_least_two(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3, 10):
        save(checkpoints, step)
    assert checkpoints.steps() == [3, 10]
    wide = Checkpoints(tmp_path, keep=3)
    save(wide, 11)
    save(wide, 12)
    assert wide.steps() == [10, 11, 12]
    assert sorted(path.name for path in tmp_path.iterdir()) == [wide.path(step).name for step in (10, 11, 12)]


def test_the_best_by_a_measure_and_protected_ones_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, protect=[2], best_by="bpb")
    for step, bpb in ((1, 1.5), (2, 1.4), (3, 1.2), (4, 1.3), (5, 1.3), (6, 1.25)):
        save(checkpoints, step)
        checkpoints.note(step, {"bpb": bpb, "loss": 9.0})
        if step == 1:
            (checkpoints.path(1) / "protected").touch()
    assert checkpoints.steps() == [1, 2, 3, 5, 6]
    assert (tmp_path / "best").resolve() == checkpoints.path(3)
    # Another process knows as much.
    again = Checkpoints(tmp_path, best_by="bpb")
    (checkpoints.path(1) / "protected").unlink()
    save(again, 7)
    again.note(7, {"bpb": 1.0})
    assert again.steps() == [6, 7]
    assert (tmp_path / "best").resolve() == again.path(7)
    with pytest.raises(TrainingError, match='keep_best = "bpb" is no measure of this stage; there are: loss'):
        again.note(7, {"loss": 1.0})


def test_saving_in_the_background_keeps_what_was_there_when_it_began(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, background=True)
    model, optimizer = model_and_optimizer()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    checkpoints.save(1, model, optimizer, {"step": 1}, {"tokens": torch.tensor(1)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    checkpoints.finish()
    found = checkpoints.latest()
    assert found is not None
    found.load_weights(model)
    for name, value in before.items():
        assert torch.equal(model.get_parameter(name), value), name


def test_a_failure_in_the_background_is_told_at_the_next_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, background=True)
    save(checkpoints, 1)
    checkpoints.finish()

    def full(*rest: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", full)
        save(checkpoints, 2)
        with pytest.raises(TrainingError, match=r"the disk is full, step 2 .* intact \(steps 1\)"):
            save(checkpoints, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    save(checkpoints, 3)
    checkpoints.finish()
    assert checkpoints.steps() == [1, 3]


class OneOfTwo(World):
    """A process of two that agree by a barrier, or of which the other is gone."""

    def __init__(self, rank: int, votes: dict[int, bool], meeting: threading.Barrier | None) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "votes", votes)
        object.__setattr__(self, "meeting", meeting)

    sharers = property(lambda self: 2)
    sharer = property(lambda self: self.rank)

    def all_agree(self, ok: bool) -> bool:
        if self.meeting is None:
            raise RuntimeError("Connection closed by peer")
        self.votes[self.rank] = ok
        self.meeting.wait()
        agreed = all(self.votes.values())
        self.meeting.wait()
        return agreed


def saving_of(folder: Path, world: World) -> Saving:
    work = folder / "step-00000032.tmp-0000abcd"
    work.mkdir(exist_ok=True)
    tensors = {f"w{world.rank}": torch.ones(4)}
    return Saving(work, folder / "step-00000032", Part({"model.safetensors": tensors}), world, background=True)


def test_a_process_does_nothing_in_the_folder_after_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The main process may rename the folder as soon as the last report is there: here it always has by the time that
    # the other goes on.
    def slow(move: Callable[..., None]) -> Callable[..., None]:
        def act(source: Path, target: Path, **rest: int) -> None:
            move(source, target, **rest)
            deadline = time.monotonic() + 60
            while Path(target).name == "report-1.json" and not (tmp_path / "step-00000032").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

        return act

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, slow(getattr(os, name)))
    votes: dict[int, bool] = {}
    meeting = threading.Barrier(2)
    both = [saving_of(tmp_path, OneOfTwo(rank, votes, meeting)) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(saving.finish) for saving in both]:
            ended.result()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000032"]
    assert (tmp_path / "step-00000032" / "manifest.json").exists()


def test_a_process_does_not_wait_for_the_part_of_one_that_is_gone(tmp_path: Path) -> None:
    saving = saving_of(tmp_path, OneOfTwo(0, {}, None))
    told: list[str] = []

    def finish() -> None:
        try:
            saving.finish()
        except RuntimeError as error:
            told.append(str(error))

    waiting = threading.Thread(target=finish, daemon=True)
    waiting.start()
    waiting.join(60)
    saving.abandon()  # so that a failure ends
    assert told == ["Connection closed by peer"]
    assert list(tmp_path.iterdir()) == []


DAMAGES = {
    "torn weights": lambda path: (path / "model.safetensors").write_bytes(b"x" * 10),
    "flipped byte": lambda path: flip(path / "optimizer.safetensors"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "torn manifest": lambda path: (path / "manifest.json").write_text('{"files": {'),
    "missing file": lambda path: (path / "state.json").unlink(),
    "empty": lambda path: [file.unlink() for file in path.iterdir()],
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_passed_over_named_and_kept(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1)
    save(checkpoints, 2)
    DAMAGES[damage](checkpoints.path(2))
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest()
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text
    assert "left in place" in caplog.text
    save(checkpoints, 3)
    save(checkpoints, 4)
    # Two whole ones stay, and the damaged one is neither counted nor deleted.
    assert checkpoints.steps() == [2, 3, 4]
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 4


def test_a_damaged_step_that_is_saved_again_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    flip(checkpoints.path(1) / "model.safetensors")
    save(checkpoints, 1)
    assert "moved to" in caplog.text
    assert open_checkpoint(checkpoints.path(1)).step == 1
    assert len([path for path in tmp_path.iterdir() if ".replaced-" in path.name]) == 1


@pytest.mark.parametrize("failing", ["model", "optimizer", "extra"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # What the library says on a disk that is really full.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "library"],
)
def test_a_full_disk_leaves_older_checkpoints_and_says_so(
    tmp_path: Path, failing: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    save(checkpoints, 2)

    def full(tensors: object, path: Path, **rest: object) -> None:
        if Path(path).name.startswith(failing):
            Path(path).write_bytes(b"half")
            raise error
        save_file(tensors, path, **rest)

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(TrainingError, match=r"the disk is full, step 3 .* intact \(steps 1, 2\); free some"):
        save(checkpoints, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 2


@pytest.fixture
def pair() -> tuple[World, World]:
    """Two processes' worlds, for two threads."""
    meeting, told = threading.Barrier(2, timeout=5.0), [0, 0]

    class Pair(World):
        def most(self, number: int) -> int:
            told[self.rank] = number
            meeting.wait()
            found = max(told)
            meeting.wait()
            return found

    return Pair(0, 2), Pair(1, 2)


def test_only_the_main_process_need_have_measured(tmp_path: Path, pair: tuple[World, World]) -> None:
    save(Checkpoints(tmp_path), 1)

    def note(rank: int, **measures: float) -> None:
        Checkpoints(tmp_path, best_by="bpb", world=pair[rank]).note(1, measures)

    with ThreadPoolExecutor(2) as executor:
        for done in [executor.submit(note, 0, bpb=1.5), executor.submit(note, 1)]:
            done.result()
        assert (tmp_path / "best").resolve().name == "step-00000001"
        first, second = [executor.submit(note, 0, loss=1.5), executor.submit(note, 1)]
        with pytest.raises(TrainingError, match="there are: loss"):
            first.result()
        with pytest.raises(TrainingError, match="the main process could not"):
            second.result()


def test_where_the_main_process_cannot_make_a_folder_all_end_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[World, World]
) -> None:
    def error_of(rank: int) -> BaseException:
        with pytest.raises(Exception) as found:
            save(Checkpoints(tmp_path / "file" / "kept", world=pair[rank]), 1)
        return found.value

    (tmp_path / "file").touch()
    monkeypatch.setattr(Checkpoints, "_part", lambda *_: Part({}))
    with ThreadPoolExecutor(2) as executor:
        first, second = executor.map(error_of, (0, 1))
    assert isinstance(first, NotADirectoryError)
    assert isinstance(second, TrainingError)
    assert "the main process could not save the checkpoint" in str(second)


def test_what_a_killed_save_left_is_cleared_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    left = tmp_path / "step-00000005.tmp-0123abcd"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert checkpoints.latest() is None
    save(checkpoints, 6)
    assert not left.exists()
    assert "left by an interrupted save" in caplog.text


def test_checkpoints_of_another_run_or_model_are_refused(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, identity="first"), 1)
    with pytest.raises(ArtifactError, match=r"belongs to another run \('first', expected 'second'\)"):
        Checkpoints(tmp_path, identity="second").latest()
    found = Checkpoints(tmp_path, identity="first").latest()
    assert found is not None
    from gradus.model.config import model_config
    from gradus.model.transformer import build_model

    other = build_model(model_config("d1", 40, 64), torch.Generator())
    with pytest.raises(ArtifactError, match="made for another model"):
        found.load_weights(other)


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    path = save(Checkpoints(tmp_path), 1)
    manifest = json.loads((path / "manifest.json").read_text())
    assert {*manifest["files"], "manifest.json"} == {file.name for file in path.iterdir()}
