"""`[machine] device = "xla"`: what is refused, on any machine; with torch_xla a whole walk, killed and resumed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.core.errors import ConfigError
from gradus.roadmap.schema import load_roadmap

needs_torch_xla = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed (make test-xla)"
)
MACHINE = '[machine]\ndevice = "xla"\n'
WALK = (
    MACHINE
    + 'precision = "fp32"\nbackground_saving = true\n\n'
    + PROSE
    + TALK
    + tokens_of(280)
    + base_of(24, context=64, samples='["Line"]')
    + "save_every = 4\nevaluate_every = 12\n"
    + SFT
    + """\
batch_tokens = 256
steps_at_most = 8
save_every = 4

[[stage]]
name = "exam"
kind = "eval"
from = "chat"
tokens = "tokens"
"""
)


def problems(folder, text, *overrides):
    file = folder / "refused.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_roadmap(file, overrides)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_what_the_machine_table_asks_in_vain_is_refused_by_line(tmp_path):
    write_lines(tmp_path, 20)
    asked = 'processes = 2\nparallel = "shard"\noffload = true\ncompile = true\nprecision = "fp16"\n'
    more = 'activation_checkpointing = "full"\nprofile = "3 steps"\n\n'
    assert problems(tmp_path, MACHINE + asked + more + PROSE) == [
        'refused.toml:3: device = "xla" is one process that drives all chips; found 2, leave it out',
        'refused.toml:4: device = "xla" has no "parallel" yet; leave it out',
        'refused.toml:5: device = "xla" has no "offload" yet; leave it out',
        'refused.toml:6: device = "xla" has no "compile" yet; leave it out',
        'refused.toml:7: device = "xla" computes in "bf16" or "fp32"; found "fp16"',
        'refused.toml:8: device = "xla" has no "activation_checkpointing" yet; leave it out',
        'refused.toml:9: device = "xla" has no "profile" yet; leave it out',
    ]


def test_stages_and_models_that_it_cannot_train_are_refused(tmp_path):
    write_lines(tmp_path, 20)
    longer = '[[stage]]\nname = "long"\nkind = "extend"\nfrom = "base"\ntokens = "tokens"\ncontext = 256\n'
    text = MACHINE + PROSE + tokens_of(280) + base_of(4) + longer + 'horizon = "2 steps"\n'
    found = problems(tmp_path, text, "base.optimizer.rest=adafactor", "base.model.num_experts=4")
    assert sorted(problem.split(": ", 1)[1].split("; ")[0] for problem in found) == [
        '[machine] device = "xla" has no "adafactor"',
        '[machine] device = "xla" trains stages of the kinds pretrain, midtrain and sft, not "extend"',
        '[machine] device = "xla": experts (num_experts) sort tokens into groups of other sizes in every batch',
    ]


def gradus(folder, *words, wait=True, **variables):
    environment = os.environ | {"PJRT_DEVICE": "CPU", "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", "gradus.cli.main", *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)  # fmt: skip
    if not wait:
        return process
    out, err = process.communicate(timeout=400)
    return process.returncode, out + err


def test_without_torch_xla_the_stage_says_what_is_missing(tmp_path):
    if importlib.util.find_spec("torch_xla") is not None:
        pytest.skip("torch_xla is installed here")
    from gradus.core.errors import TrainingError
    from gradus.model.xla import open_xla

    with pytest.raises(TrainingError, match=r"needs torch_xla, which is not installed beside torch .*docs/tpu.md"):
        open_xla()


def figures(home, stage):
    lines = (home / "runs" / "walk" / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@needs_torch_xla
def test_a_walk_that_is_killed_resumes_to_the_same_bits_and_the_figures_of_a_processor(tmp_path):
    write_lines(tmp_path, 300)
    write_chats(tmp_path, [(f"Say {i}!", f"Well, {i}.") for i in range(60)])
    (tmp_path / "walk.toml").write_text(WALK)
    code, said = gradus(tmp_path, "run", "walk.toml", "--home", "whole")
    assert code == 0, said
    killed = gradus(tmp_path, "run", "walk.toml", "--home", "killed", wait=False)
    while not list((tmp_path / "killed" / "artifacts").glob("**/checkpoints/step-000000??")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    code, said = gradus(tmp_path, "run", "walk.toml", "--home", "killed")
    assert code == 0, said
    code, said = gradus(tmp_path, "run", "walk.toml", "machine.device=cpu", "--home", "processor")
    assert code == 0, said
    whole, killed, processor = (tmp_path / name for name in ("whole", "killed", "processor"))
    for stage, measure in (("base", "bpb"), ("chat", "validation_loss")):
        model = f"runs/walk/{stage}/model/model.safetensors"
        assert (whole / model).read_bytes() == (killed / model).read_bytes()
        found, expected = figures(whole, stage)[-1], figures(processor, stage)[-1]
        assert found["event"] == expected["event"] == "evaluate"
        assert found[measure] == pytest.approx(expected[measure], rel=1e-5)
    assert len((whole / "runs" / "walk" / "base" / "samples.jsonl").read_text().splitlines()) == 2


@needs_torch_xla
def test_rows_that_chips_cannot_share_evenly_are_refused(tmp_path):
    write_lines(tmp_path, 100)
    (tmp_path / "odd.toml").write_text(MACHINE + PROSE + tokens_of(280) + base_of(4, context=64))
    code, said = gradus(tmp_path, "run", "odd.toml", "base.micro_rows=3", "--home", "h", CPU_NUM_DEVICES="2")
    assert code == 1
    assert "a micro-batch of 3 rows cannot be shared evenly by 2 chips; choose micro_rows" in said


@needs_torch_xla
def test_a_machine_without_a_tpu_does_not_train_on_its_processor_unasked(tmp_path):
    code = "from gradus.model.xla import open_xla; open_xla()"
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_DEVICE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "there is no TPU here (torch_xla found CPU); set PJRT_DEVICE=CPU" in done.stderr
