"""The grpo stage: what it learns, counts and writes, that it goes on where it was killed, and two processes."""

import hashlib
import json
import shutil
import signal

import pytest
import torch
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.core.errors import ConfigError, GradusError
from gradus.model.weights import load_model, to_stored
from gradus.roadmap.plan import plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import choose_device, own_device, walk
from gradus.roadmap.schema import load_roadmap

CHAT = (
    """\
name = "rl"

[machine]
threads = 1
precision = "fp32"

"""
    + PROSE
    + TALK
    + tokens_of(285)
    + base_of(2, context=64)
    + SFT
    + """\
batch_tokens = 512
epochs = 12
evaluate_every = 1000
"""
)
PRACTICE = """
[[stage]]
name = "practice"
kind = "grpo"
from = "chat"
prompts = [{ source = "talk", rewards = [{ kind = "regex", pattern = "[02468].$" }] }]
steps = 8
prompts_per_step = 4
group_size = 4
max_tokens = 16
log_every = 2
save_every = 2
evaluate_every = 4
evaluate_prompts = 4
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a walked chat model that answers "It is N.", right and wrong."""
    folder = tmp_path_factory.mktemp("rl")
    write_lines(folder, 100)
    write_chats(folder, [(f"Say {i}", f"It is {i}.") for i in range(120)])
    (folder / "rl.toml").write_text(CHAT)
    walk(load_roadmap(folder / "rl.toml"), folder / "home", QuietProgress())
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it, with a practice stage to change."""
    copied = shutil.copytree(trained, tmp_path / "rl", symlinks=True)
    (copied / "rl.toml").write_text(CHAT + PRACTICE)
    return copied


def test_a_smoke_run_has_a_prompt_for_each_process_where_the_real_run_has(folder):
    def prompts(*overrides):
        roadmap = load_roadmap(folder / "rl.toml", ["practice.prompts_per_step=64", *overrides], smoke=True)
        return roadmap.stage("practice").settings.prompts_per_step

    assert (prompts(), prompts("machine.processes=16"), prompts("machine.processes=128")) == (4, 16, 64)


def practised(folder, *overrides, home="home"):
    return walk(load_roadmap(folder / "rl.toml", list(overrides)), folder / home, QuietProgress()).artifacts["practice"]


def lines(artifact, name):
    return [json.loads(line) for line in (artifact.path / name).read_text().splitlines()]


def weights(artifact):
    return hashlib.sha256((artifact.path / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_a_walk_learns_counts_and_shows_what_it_did(folder):
    artifact = practised(folder, "practice.steps=30", "practice.optimizer.matrix_lr=3e-3")
    results = artifact.results
    rollouts = lines(artifact, "rollouts.jsonl")
    assert [line["step"] for line in rollouts] == list(range(1, 31))
    rewards = [line["reward"] for line in rollouts]
    assert sum(rewards[-8:]) > sum(rewards[:8]) + 1.0, rewards
    counts = results["counts"]
    assert counts["samples"] == 30 * 16
    assert counts["groups"] == 30 * 4
    assert counts["trained_samples"] <= counts["samples"] - 4 * counts["same_reward"]
    assert counts["passed"] == sum(line["counts"]["passed"] for line in rollouts)
    assert results["last_rollout"]["reward"] == rewards[-1] == results["by_reward"]["regex"]["reward"]
    train = [line for line in lines(artifact, "metrics.jsonl") if line["event"] == "train"]
    # Of each logged step: the mean over the rollouts since the one before.
    assert [line["reward"] for line in train] == pytest.approx(
        [(rewards[i] + rewards[i + 1]) / 2 for i in range(0, 30, 2)]
    )
    assert {"kl", "ratio", "ratio_distance", "clipped", "entropy", "truncated_fraction", "answer_tokens",
            "pass_rate/regex", "dropped_groups_fraction", "reward_std"} <= train[0].keys()  # fmt: skip
    assert train[0]["ratio"] == 1.0
    divergences = [line["kl"] for line in train if "kl" in line]  # not of rollouts whose groups were all dropped
    assert divergences[-1] > divergences[0] >= 0
    samples = lines(artifact, "samples.jsonl")
    assert {"prompt", "answer", "reward", "scores"} <= samples[0].keys()
    assert 0 <= results["held_back_pass_rate"] <= 1


def test_several_updates_with_one_rollout_move_the_ratios(folder):
    artifact = practised(folder, "practice.inner_epochs=2", "practice.optimizer.matrix_lr=3e-3")
    assert [line["step"] for line in lines(artifact, "rollouts.jsonl")] == [1, 3, 5, 7]
    train = [line for line in lines(artifact, "metrics.jsonl") if line["event"] == "train"]
    assert all(line["ratio_distance"] > 0 for line in train)
    assert any(line["clipped"] > 0 for line in train)


# Past the first checkpoint, and past the line that is written before its step is trained.
KILLED = """
import os, signal
from gradus.cli.main import main
from gradus.roadmap.stages.grpo import _OnPolicy
note = _OnPolicy._note

def noted(policy, step, number, *given):
    note(policy, step, number, *given)
    if number == {rollout}:
        os.kill(os.getpid(), signal.SIGKILL)

_OnPolicy._note = noted
main()
"""


@pytest.mark.parametrize("inner_epochs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_kill_changes_nothing(warm, folder, inner_epochs):
    asked = [f"practice.inner_epochs={inner_epochs}"]
    shutil.copytree(folder / "home", folder / "broken", symlinks=True)
    whole = practised(folder, *asked)
    (folder / "killed.py").write_text(KILLED.format(rollout=4 // inner_epochs))
    words = ("run", "rl.toml", "--home", "broken", *asked)
    for first, status in (((folder / "killed.py",), -signal.SIGKILL), (("-m", "gradus.cli.main"), 0)):
        done = warm.run([*first, *words], cwd=folder)
        assert done.returncode == status, done.stdout + done.stderr
    assert "resume" in done.stdout + done.stderr
    broken = next((folder / "broken" / "artifacts").glob("grpo-*"))
    assert (broken / "model" / "model.safetensors").read_bytes() == (
        whole.path / "model" / "model.safetensors"
    ).read_bytes()
    assert (broken / "rollouts.jsonl").read_text() == (whole.path / "rollouts.jsonl").read_text()


def test_two_processes_earn_and_learn_what_one_does(folder):
    shutil.copytree(folder / "home", folder / "two", symlinks=True)
    one = practised(folder, "practice.steps=3")
    two = practised(folder, "practice.steps=3", "machine.processes=2", home="two")
    assert two.manifest.machine["settings"]["processes"] == 2
    alone, together = lines(one, "rollouts.jsonl"), lines(two, "rollouts.jsonl")
    assert alone[0] == together[0]
    assert [line["counts"]["samples"] for line in together] == [16, 16, 16]
    losses = [
        [line["loss"] for line in lines(artifact, "metrics.jsonl") if line["event"] == "train"]
        for artifact in (one, two)
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-4)


def test_adapters_learn_in_place_of_weights(folder):
    overrides = ("practice.lora.rank=4", 'practice.lora.targets=["v_proj"]', "practice.optimizer.adapter_lr=0.02")
    made = walk(load_roadmap(folder / "rl.toml", overrides=overrides), folder / "home", QuietProgress()).artifacts
    before, after = (to_stored(load_model(made[name].path / "model")) for name in ("chat", "practice"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "model.layers.0.self_attn.v_proj.weight"
    }
    assert (made["practice"].path / "adapter" / "adapter_model.safetensors").is_file()


def test_groups_that_all_fail_change_no_weights_and_are_counted(folder):
    text = CHAT + PRACTICE.replace("[02468].$", "never said")
    (folder / "rl.toml").write_text(text)
    said = []
    progress = QuietProgress()
    progress.line = said.append
    roadmap = load_roadmap(folder / "rl.toml", ["practice.steps=3"])
    artifact = walk(roadmap, folder / "home", progress).artifacts["practice"]
    assert sum("first 3 rollouts earned the same (0% pass)" in line for line in said) == 1
    parent = next((folder / "home" / "artifacts").glob("sft-*"))
    assert artifact.results["counts"]["same_reward"] == artifact.results["counts"]["groups"] == 12
    assert artifact.results["counts"]["trained_samples"] == 0
    assert weights(artifact) == hashlib.sha256((parent / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_sharded_run_earns_what_a_whole_one_does(folder):
    shutil.copytree(folder / "home", folder / "two", symlinks=True)
    one = practised(folder, "practice.steps=2")
    two = practised(folder, "practice.steps=2", "machine.processes=2", "machine.parallel=shard", home="two")
    assert lines(one, "rollouts.jsonl")[0] == lines(two, "rollouts.jsonl")[0]


def refused(folder, text):
    (folder / "rl.toml").write_text(CHAT + text)
    with pytest.raises(GradusError) as raised:
        practised(folder)
    return str(raised.value)


def test_what_is_written_wrong_is_told_with_its_line(folder):
    (folder / "tasks.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "content": "?"}], "answr": "1"}\n')
    for old, new, expected in (
        ('source = "talk"', 'source = "tolk"', 'did you mean "talk"'),
        ('source = "talk"', 'source = "files:nothing.jsonl"', "no such file"),
        ('source = "talk"', 'source = "files:tasks.jsonl"', 'tasks.jsonl:1: unknown key "answr"'),
        ('source = "talk"', 'source = "synthetic:arithmetick"', 'did you mean "arithmetic"'),
        ('kind = "regex", pattern = "[02468].$"', 'kind = "regexp"', "regex"),
        ('pattern = "[02468].$"', 'pattern = "("', "not a regular expression"),
        (
            "save_every = 2",
            "save_every = 3\ninner_epochs = 2",
            "save_every must be a multiple of inner_epochs (2), found 3",
        ),
        ("group_size = 4", "group_size = 1", "group_size"),
        (
            'pattern = "[02468].$" }',
            'pattern = "x" }, { kind = "regex", pattern = "y" }',
            'reward "regex" is given twice',
        ),
    ):
        assert old in PRACTICE
        (folder / "rl.toml").write_text(CHAT + PRACTICE.replace(old, new))
        with pytest.raises(ConfigError) as raised:
            load_roadmap(folder / "rl.toml")
        assert expected in str(raised.value), raised.value
        assert "rl.toml:" in str(raised.value)


def test_a_reward_that_its_tasks_cannot_pay_is_refused_before_sampling(folder):
    text = PRACTICE.replace('{ kind = "regex", pattern = "[02468].$" }', '{ kind = "code" }')
    assert 'reward "code" needs tests' in refused(folder, text)


@pytest.mark.slow
def test_more_processes_than_prompts_are_refused(folder):
    with pytest.raises(GradusError, match="prompts_per_step = 1 cannot be shared by 2 processes"):
        practised(folder, "practice.prompts_per_step=1", "machine.processes=2")


def test_questions_that_fill_the_context_are_an_error(folder):
    task = {"id": "long", "messages": [{"role": "user", "content": "word " * 500}]}
    (folder / "tasks.jsonl").write_text(json.dumps(task))
    text = PRACTICE.replace('source = "talk"', 'source = "files:tasks.jsonl"')
    assert "no prompt of a rollout leaves room for an answer" in refused(folder, text)


def test_the_plan_knows_what_a_rollout_takes(folder):
    roadmap = load_roadmap(folder / "rl.toml")
    device = choose_device(own_device(roadmap.machine, folder / "home"), roadmap.machine, folder / "home")
    estimate = plan_roadmap(roadmap, device, folder / "home" / "artifacts").stages[-1].estimate
    assert estimate.steps == 8
    assert estimate.seconds > 0
    assert {"reference", "cache", "optimizer"} <= estimate.memory.keys()
