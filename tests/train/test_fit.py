"""The loop: boundaries, resuming bit for bit, skipping, rolling back, and two ranks that equal one."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_training as tiny
import torch
from safetensors.torch import load_file, save_file
from warm_start import WarmStart

from gradus.core.errors import TrainingError
from gradus.core.fingerprint import file_digest
from gradus.model.batch import Batch
from gradus.model.tensor_files import TensorFiles
from gradus.model.transformer import Transformer
from gradus.model.weights import load_model, to_stored
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import GuardSettings, Precision
from gradus.train.loop import StepReport, fit
from gradus.train.losses import Loss, next_token_loss
from gradus.train.precision import LossScale

HERE = Path(__file__).parent
STEPS = 24


def run(
    folder: Path | None,
    *,
    steps: int = STEPS,
    stop_after: int | None = None,
    loss: Loss = next_token_loss,
    guard: GuardSettings | None = None,
    precision: Precision = "fp32",
    log_every: int = 4,
    save_every: int | None = 6,
    data_stride: int = 1,
) -> tuple[Transformer, list[StepReport]]:
    model, optimizer = tiny.model_and_optimizer()
    reports = []
    for report in fit(
        model,
        optimizer,
        tiny.batches,
        loss,
        tiny.schedule(steps),
        steps=steps,
        checkpoints=Checkpoints(folder) if folder else None,
        log_every=log_every,
        save_every=save_every,
        evaluate_every=9,
        precision=precision,
        guard=guard,
        data_stride=data_stride,
    ):
        reports.append(report)
        if report.step == stop_after:
            break
    return model, reports


def same_weights(first: Transformer, second: Transformer) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_reports_come_at_their_boundaries_and_the_last_step_is_all_of_them(tmp_path: Path) -> None:
    _, reports = run(tmp_path)
    assert [r.step for r in reports] == [4, 6, 8, 9, 12, 16, 18, 20, 24]
    assert [r.step for r in reports if r.logged] == [4, 8, 12, 16, 20, 24]
    assert [r.step for r in reports if r.saved] == [6, 12, 18, 24]
    assert [r.step for r in reports if r.evaluate] == [9, 18, 24]
    assert Checkpoints(tmp_path).steps() == [18, 24]
    assert all(a.tokens < b.tokens for a, b in pairwise(reports))
    assert all(r.loss is not None and r.grad_norm > 0 for r in reports)
    assert reports[-1].tokens_per_second > 0
    assert not any(r.resumed for r in reports)


def test_the_reported_loss_is_the_mean_over_tokens_since_the_last_log(tmp_path: Path) -> None:
    _, every = run(None, log_every=1, steps=8)
    _, fourth = run(None, log_every=4, steps=8)
    counts = [sum(int((b.targets >= 0).sum()) for b in tiny.batches(step)) for step in range(8)]
    logged = [r.loss for r in fourth if r.logged]
    single = [r.loss for r in every if r.logged]
    for part, found in enumerate(logged):
        rows = range(4 * part, 4 * part + 4)
        mean = sum(single[i] * counts[i] for i in rows) / sum(counts[i] for i in rows)
        assert found == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("stop_after", [6, 8, 9, 16, 18, 20])
def test_a_resumed_run_is_bit_identical_to_an_unbroken_one(tmp_path: Path, stop_after: int) -> None:
    whole, expected = run(tmp_path / "whole")
    run(tmp_path / "broken", stop_after=stop_after)
    resumed, reports = run(tmp_path / "broken")
    assert same_weights(whole, resumed)
    assert reports[0].resumed
    assert reports[0].step == stop_after // 6 * 6
    by_step = {r.step: r for r in expected}
    for report in reports:
        twin = by_step[report.step]
        assert (report.loss, report.lr, report.grad_norm) == (twin.loss, twin.lr, twin.grad_norm)
        assert (report.tokens, report.logged, report.evaluate) == (twin.tokens, twin.logged, twin.evaluate)


def test_a_finished_run_trains_no_further_and_gives_its_last_report(tmp_path: Path) -> None:
    first, reports = run(tmp_path)
    again, only = run(tmp_path)
    assert same_weights(first, again)
    assert [(r.step, r.resumed) for r in only] == [(STEPS, True)]
    assert only[0].loss == reports[-1].loss


def test_a_run_from_before_documents_shared_tokens_goes_on(tmp_path: Path) -> None:
    expected, _ = run(tmp_path / "whole")
    run(tmp_path / "broken", stop_after=12)
    folder = Checkpoints(tmp_path / "broken").path(12)
    state = json.loads((folder / "state.json").read_text())
    del state["report"]["computed"]
    (folder / "state.json").write_text(json.dumps(state))
    extra = load_file(folder / "extra.safetensors")
    del extra["computed"]
    save_file(extra, folder / "extra.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("state.json", "extra.safetensors"):
        file = folder / name
        manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    resumed, reports = run(tmp_path / "broken")
    assert same_weights(expected, resumed)
    assert (reports[0].step, reports[0].resumed) == (12, True)
    assert all(report.computed == report.tokens > 0 for report in reports)


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dry, reports = run(None)
    assert not any(r.saved for r in reports)
    assert list(tmp_path.iterdir()) == []
    wet, _ = run(tmp_path / "wet")
    assert same_weights(dry, wet)


def test_precision_is_decided_once_and_kept(tmp_path: Path) -> None:
    run(tmp_path, stop_after=6, precision="bf16")
    model, _ = run(tmp_path, precision="fp32")
    assert model.compute_dtype == torch.bfloat16


def wrapped(**wrapping: object) -> dict[str, torch.Tensor]:
    """Weights after a few steps of a model prepared so."""
    model, optimizer = tiny.model_and_optimizer(wrapping=wrapping)
    list(
        fit(
            model,
            optimizer,
            tiny.batches,
            next_token_loss,
            tiny.schedule(6),
            steps=6,
            checkpoints=None,
            log_every=6,
            precision="fp32",
        )
    )
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_activation_checkpointing_changes_no_bit(kind: str) -> None:
    expected, found = wrapped(), wrapped(activation_checkpointing=kind)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(("kind", "share"), [("none", 1.0), ("selective", 0.6), ("full", 0.3)])
def test_activation_checkpointing_keeps_less_for_the_backward_pass(kind: str, share: float) -> None:
    kept = []
    for which in ("none", kind):
        model, _ = tiny.model_and_optimizer(wrapping={"activation_checkpointing": which})
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            next_token_loss(model, tiny.batch(tiny.documents_of_step(0) * 20))
        kept.append(sum(held.values()))
    assert kept[1] <= share * kept[0]


# torch's compiler warns of what it does itself, and made errors, its warnings stop it.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "full"])
def test_compiled_layers_train_as_others_do(kind: str) -> None:
    expected, found = wrapped(), wrapped(compile=True, activation_checkpointing=kind)
    assert all(torch.allclose(found[name], weight, atol=1e-5) for name, weight in expected.items())


def test_fp16_learns_as_fp32_does_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    _, exact = run(None)
    whole, reports = run(tmp_path / "whole", precision="fp16")
    assert whole.compute_dtype == torch.float16
    assert reports[-1].skipped == 0
    for report, twin in zip([r for r in reports if r.logged], [r for r in exact if r.logged], strict=True):
        assert report.loss == pytest.approx(twin.loss, rel=2e-3)
        assert report.grad_norm == pytest.approx(twin.grad_norm, rel=0.05)
    run(tmp_path / "broken", precision="fp16", stop_after=12)
    resumed, _ = run(tmp_path / "broken", precision="fp16")
    assert same_weights(whole, resumed)


def test_a_loss_scale_that_overflows_is_halved_until_steps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "FIRST", 2.0**24)
    _, reports = run(None, precision="fp16", log_every=1)
    assert 3 <= reports[-1].skipped <= 12
    first = reports[-1].skipped
    assert all(r.loss is None for r in reports[:first])
    assert all(r.loss is not None for r in reports[first:])


def test_a_loss_scale_grows_again_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "PATIENCE", 3)
    scale = LossScale(torch.device("cpu"))
    found = []
    for norm in (1.0, math.inf, 1.0, 1.0, 1.0, math.nan, 1.0):
        scale.update(torch.tensor(norm))
        found.append(float(scale.scale) / LossScale.FIRST)
    assert found == [1.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5]


def nan_at(bad: set[int]) -> Loss:
    """A loss that is NaN in the data steps given: tokens tell which data step a batch belongs to."""
    marked = {tuple(b.tokens.tolist()) for step in bad for b in tiny.batches(step)}

    def loss(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        total, count, _ = next_token_loss(model, batch)
        if tuple(batch.tokens.tolist()) in marked:
            total = total * math.nan
        return total, count, {"documents": torch.tensor(float(len(batch.documents.lengths)))}

    return loss


def test_one_nan_costs_exactly_one_step() -> None:
    _, reports = run(None, loss=nan_at({10}), log_every=1)
    assert reports[-1].skipped == 1
    assert [r.step for r in reports if r.loss is None] == [11]
    assert all(math.isfinite(r.loss) for r in reports if r.loss is not None)
    assert all("documents" in r.metrics for r in reports if r.loss is not None)


def test_many_skips_roll_back_and_pass_over_the_data(tmp_path: Path) -> None:
    bad = set(range(14, 19))
    guard = GuardSettings(skips_in_row=3)
    model, reports = run(tmp_path, loss=nan_at(bad), guard=guard)
    last = reports[-1]
    assert (last.step, last.rollbacks) == (STEPS, 1)
    # Refused at data 14, 15, 16; back to step 12, whose data now begin 5 later, at 17.
    assert last.skipped == 2
    assert Checkpoints(tmp_path).latest().state["data_offset"] == 5
    assert [list(window) for window in last.passed_over] == [[17, 12, 12, 17]]
    again, _ = run(tmp_path / "again", loss=nan_at(bad), guard=guard, stop_after=18)
    again, _ = run(tmp_path / "again", loss=nan_at(bad), guard=guard)
    assert same_weights(model, again)


def test_a_return_to_a_checkpoint_among_refused_steps_counts_them_anew(tmp_path: Path) -> None:
    # Refused at data 16, 17, 18, with a checkpoint at step 18 between; of what comes then only data 19 is bad.
    _, reports = run(tmp_path, loss=nan_at(set(range(16, 20))), guard=GuardSettings(skips_in_row=3))
    assert [list(window) for window in reports[-1].passed_over] == [[19, 18, 18, 19]]


def test_a_rollback_goes_on_where_data_steps_that_belong_together_begin(tmp_path: Path) -> None:
    _, reports = run(tmp_path, loss=nan_at(set(range(14, 17))), guard=GuardSettings(skips_in_row=3), data_stride=6)
    # Refused at data 14, 15, 16; 17 belongs to 12 to 17, of which some was trained with weights that are gone.
    assert [list(window) for window in reports[-1].passed_over] == [[17, 12, 12, 18]]
    assert Checkpoints(tmp_path).latest().state["data_offset"] == 6


def test_training_that_stays_broken_ends_with_the_reason(tmp_path: Path) -> None:
    always = nan_at(set(range(9, 200)))
    guard = GuardSettings(skips_in_row=3, max_rollbacks=2)
    with pytest.raises(TrainingError, match=r"step 9: 3 steps in a row were refused.*after 2 returns"):
        run(tmp_path, loss=always, guard=guard)
    assert Checkpoints(tmp_path).steps() == [6]
    with pytest.raises(TrainingError, match="there is no checkpoint to return to; lower the learning rates"):
        run(None, loss=always, guard=guard)


def helper(warm: WarmStart, *arguments: str | Path) -> str:
    """Run tests/train/processes.py, which forks: this process has threads already and must not."""
    done = warm.run([HERE / "processes.py", *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("kills", "seed", "kind"),
    [
        (3, 1, "alone"),
        (3, 3, "background"),
        (2, 4, "replicate"),
        (2, 5, "shard"),
        pytest.param(30, 2, "alone", marks=pytest.mark.slow),
        pytest.param(20, 6, "shard", marks=pytest.mark.slow),
    ],
)
def test_kill_9_at_random_moments_changes_no_bit(
    warm: WarmStart, tmp_path: Path, kills: int, seed: int, kind: str
) -> None:
    told = json.loads(helper(warm, "kill", tmp_path, str(kills), str(seed), kind))
    assert told["kills"] == kills
    assert told["resumed_from"]
    whole = Checkpoints(tmp_path / "whole").latest()
    broken = Checkpoints(tmp_path / "broken").latest()
    assert whole is not None
    assert broken is not None
    names = {path.name for path in whole.path.glob("*.safetensors")}
    assert len(names) == (3 if kind in {"alone", "background"} else 5)
    assert names == {path.name for path in broken.path.glob("*.safetensors")}
    for name in names:
        assert (whole.path / name).read_bytes() == (broken.path / name).read_bytes(), name
    for checkpoint in (whole, broken):
        del checkpoint.state["report"]["tokens_per_second"]
    assert whole.state == broken.state


def trained(
    warm: WarmStart, folder: Path, size: int, stop: int = 50, mode: str = "replicate", *kinds: str
) -> dict[str, Any]:
    """What `ranks` of processes.py tells, and the weights at the end."""
    told = json.loads(helper(warm, "ranks", folder, str(size), str(stop), mode, *kinds))
    found = Checkpoints(folder / "checkpoints").latest()
    assert found is not None
    with TensorFiles(found.path, "model.safetensors") as tensors:
        told["folder"] = found.path
        told["weights"] = {name: tensor[...] for name, tensor in tensors.items()}
    return told


@pytest.fixture(scope="module")
def one_process(warm: WarmStart, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(warm, tmp_path_factory.mktemp("one"), 1)


def assert_same_training(found: dict[str, Any], expected: dict[str, Any], last: int = 50) -> None:
    pairs = zip(found["losses"], expected["losses"][-last:], strict=True)
    assert max(abs(a - b) for a, b in pairs) < 1e-4
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        assert torch.allclose(found["weights"][name], weight, atol=2e-4), name


@pytest.mark.parametrize("mode", ["replicate", "shard", "hybrid"])
def test_two_ranks_equal_one_process_over_fifty_steps(
    warm: WarmStart, tmp_path: Path, one_process: dict[str, Any], mode: str
) -> None:
    """With uneven masks, one micro-batch on one rank and two on the other."""
    two = trained(warm, tmp_path, 2, mode=mode)
    assert len(one_process["losses"]) == len(two["losses"]) == 50
    assert_same_training(two, one_process)
    assert one_process["tokens"] == two["tokens"]
    assert two["ranks_agree"]
    assert_is_a_model_folder(two["folder"], two["weights"])


@pytest.fixture(scope="module")
def rolled_back(warm: WarmStart, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process that sees NaN."""
    return trained(warm, tmp_path_factory.mktemp("rolled_back"), 1, 50, "replicate", "nan=24:27")


@pytest.mark.parametrize("mode", ["replicate", "shard"])
def test_ranks_roll_back_together_where_one_of_them_sees_nan(
    warm: WarmStart, tmp_path: Path, rolled_back: dict[str, Any], mode: str
) -> None:
    expected = rolled_back
    found = trained(warm, tmp_path, 2, 50, mode, "nan=24:27")
    # Refused at data 24, 25, 26; back to step 20, whose data now begin at 27.
    assert found["passed_over"] == expected["passed_over"] == [[27, 20, 20, 27]]
    assert found["ranks_agree"]
    # The third refusal is not reported: the run is back at its checkpoint by then.
    assert [loss is None for loss in found["losses"]] == [step in (24, 25) for step in range(56)]
    kept = [{**told, "losses": [loss for loss in told["losses"] if loss is not None]} for told in (found, expected)]
    assert_same_training(kept[0], kept[1], last=54)


@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_is_full_for_one_rank_fails_the_checkpoint_on_both_and_only_that(
    warm: WarmStart, tmp_path: Path, full: int
) -> None:
    told = json.loads(helper(warm, "full", tmp_path, str(full)))
    assert "the disk is full, step 2 could not be saved; earlier checkpoints are intact (steps 1)" in told[full]["told"]
    assert told[1 - full]["told"] == "step-00000002: another process could not write its part"
    assert [part["latest"] for part in told] == [3, 3]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000001", "step-00000003"]


def test_processes_of_one_machine_are_out_of_reach_of_others(warm: WarmStart, tmp_path: Path) -> None:
    assert json.loads(helper(warm, "addresses", tmp_path)) == [["127.0.0.1"], ["127.0.0.1"]]


@pytest.mark.parametrize("kinds", [("matrix=adafactor", "rest=adafactor"), ("clip_norm=0.5",)])
def test_adafactor_and_clipping_on_shards_equal_one_process(
    warm: WarmStart, tmp_path: Path, one_process: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    expected = trained(warm, tmp_path / "one", 1, 40, "replicate", *kinds)
    assert expected["losses"][1:40] != one_process["losses"][1:40]  # it does something
    trained(warm, tmp_path / "two", 2, 20, "shard", *kinds)
    found = trained(warm, tmp_path / "two", 2, 40, "shard", *kinds)
    assert_same_training(found, expected, last=20)


def assert_is_a_model_folder(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Whatever wrote it, the Hub's class and ours load it as it is."""
    from transformers import AutoModelForCausalLM

    assert sorted(path.name for path in folder.glob("model*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    theirs = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    ours = to_stored(load_model(folder))
    for name, weight in weights.items():
        assert torch.equal(theirs[name], weight), name
        assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize(
    "modes",
    [
        # What two equal ranks save is what one saves, and one takes it up in the third.
        pytest.param(("replicate", "replicate"), marks=pytest.mark.slow),
        ("shard", "shard"),
        ("shard", "replicate"),
    ],
)
def test_ranks_and_modes_may_change_between_runs(
    warm: WarmStart, tmp_path: Path, one_process: dict[str, Any], modes: tuple[str, str]
) -> None:
    trained(warm, tmp_path, 2, 20, modes[0])
    trained(warm, tmp_path, 1, 40)
    assert_same_training(trained(warm, tmp_path, 2, mode=modes[1]), one_process, last=10)
