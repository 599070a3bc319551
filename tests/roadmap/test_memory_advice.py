"""Out of memory: known in every form, answered with the same step in smaller parts."""

import pytest
import torch

from gradus.core.artifact import Artifact, Manifest
from gradus.core.errors import GradusError, TrainingError
from gradus.roadmap.memory_advice import is_out_of_memory, memory_advice
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stage import Inputs, Stage
from gradus.roadmap.stages import dpo, grpo, pretrain, sft


def stage(settings):
    return Stage(name="s", kind="pretrain", settings=settings, seed=0, fingerprint="0", references={})


def inputs(tmp_path, context=512):
    parent = Artifact(tmp_path, Manifest(kind="pretrain", fingerprint="0", results={"model": {"context": context}}))
    return Inputs({"from": (parent,)}, {})


def test_what_torch_raises_on_a_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_forms_are_known_and_other_errors_are_not():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(TrainingError("process 1 failed: torch.OutOfMemoryError: CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))


def test_half_the_rows_and_twice_the_micro_batches_make_the_same_step(tmp_path):
    settings = pretrain.Settings(batch_tokens=8192, context=512, micro_rows=16)
    assert memory_advice(stage(settings), inputs(tmp_path), 1) == (
        "out of memory with 16 of 16 a process at a time; set micro_rows = 8: 2 micro-batches in the place of 1, "
        "the same step of 16 rows of 512, 8,192 tokens"
    )
    assert "set micro_rows = 4: 2 micro-batches in the place of 1" in memory_advice(
        stage(settings), inputs(tmp_path), 2
    )


def test_a_micro_batch_larger_than_the_step_is_halved_from_the_step(tmp_path):
    """micro_rows 64 of a step of 4 rows: 32 would change nothing."""
    settings = sft.Settings(batch_tokens=4096, micro_rows=64, mixture=({"source": "talk"},))
    assert "with 4 of 4 a process at a time; set micro_rows = 2" in memory_advice(
        stage(settings), inputs(tmp_path, 1024), 1
    )


def test_pairs_are_proposed_for_pairs(tmp_path):
    settings = dpo.Settings(pairs_per_step=32, micro_pairs=8)
    assert "set micro_pairs = 4: 8 micro-batches in the place of 4, the same step of 32 pairs" in (
        memory_advice(stage(settings), inputs(tmp_path), 1)
    )


def test_answers_are_proposed_for_rollouts(tmp_path):
    prompts = ({"source": "talk", "rewards": ({"kind": "checks"},)},)
    settings = grpo.Settings(prompts=prompts, prompts_per_step=4, group_size=8, micro_samples=16)
    assert "set micro_samples = 8: 4 micro-batches in the place of 2, the same step of 32 answers" in (
        memory_advice(stage(settings), inputs(tmp_path), 1)
    )


def test_one_row_at_a_time_cannot_be_halved(tmp_path):
    settings = pretrain.Settings(batch_tokens=8192, context=512, micro_rows=1)
    assert "with one of 16 rows of 512, 8,192 tokens at a time already" in memory_advice(
        stage(settings), inputs(tmp_path), 1
    )


def test_the_walk_tells_it_with_the_place_of_the_stage(roadmap_file, tmp_path, toys, monkeypatch):
    import sys

    from gradus.roadmap import kinds

    def run(stage, inputs, place):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(sys.modules[kinds.KINDS["corpus"]], "run", run)
    with pytest.raises(GradusError, match=r'toy\.toml:4 stage "prose": out of memory; try smaller settings'):
        walk(load_roadmap(roadmap_file), tmp_path / "home", QuietProgress())


def test_other_runtime_errors_stay_what_they_are(roadmap_file, tmp_path, toys, monkeypatch):
    import sys

    from gradus.roadmap import kinds

    def run(stage, inputs, place):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys.modules[kinds.KINDS["corpus"]], "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        walk(load_roadmap(roadmap_file), tmp_path / "home", QuietProgress())
