"""The command line from outside: fast, torch-free where it should be, clear in what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_stages import PROSE, tokens_of, write_lines

GRADUS = [sys.executable, "-c", "from gradus.cli.main import main; main()"]
ROADMAP = 'name = "small"\n\n' + PROSE + tokens_of(280)


@pytest.fixture
def gradus(tmp_path):
    """Run the command in a folder that holds small.toml and its text."""
    (tmp_path / "small.toml").write_text(ROADMAP)
    write_lines(tmp_path, 300)
    environment = {k: v for k, v in os.environ.items() if k != "GRADUS_HOME"}

    def call(*arguments, command=GRADUS, **more):
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run([*command, *arguments], **(options | more))

    call.folder = tmp_path
    return call


def test_help_names_every_command_and_imports_little_for_it(gradus):
    code = "import sys\nfrom gradus.cli.main import main\ntry:\n    main()\n"
    code += "finally:\n    print(*sys.modules, file=sys.stderr)"
    done = gradus("--help", command=[sys.executable, "-c", code])
    assert "Walk a roadmap" in done.stdout
    modules = done.stderr.split()
    # What makes it start in a tenth of a second: seconds would say more of the machine.
    assert {name.partition(".")[0] for name in modules} & {"torch", "numpy", "pydantic", "rich", "safetensors"} == set()
    assert len(modules) < 250


@pytest.mark.parametrize(
    "command", ["--help", "run --help", "plan small.toml", "doctor", "--version", "run small.toml"]
)
def test_these_commands_never_import_torch(gradus, command):
    code = "import sys\nfrom gradus.cli.main import main\ntry:\n    main()\n"
    code += "finally:\n    assert 'torch' not in sys.modules"
    done = gradus(*command.split(), command=[sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_a_roadmap_runs_is_reused_and_reruns_what_changed(gradus):
    first = gradus("run", "small.toml")
    assert first.returncode == 0, first.stderr
    assert "prose   corpus     run" in first.stdout
    assert "3 stages" in first.stdout
    assert "everything is done already" in gradus("run", "small.toml").stdout
    changed = gradus("run", "small.toml", "bpe.vocab_size=290").stdout
    assert "vocab_size changed from 280 to 290" in changed
    assert "input bpe changed" in changed
    assert (gradus.folder / "runs/small/tokens/train.jsonl").is_file()


def test_the_home_folder_can_be_moved(gradus):
    assert gradus("run", "small.toml", "--only", "prose", "--home", "elsewhere").returncode == 0
    assert (gradus.folder / "elsewhere/runs/small/prose").is_dir()
    assert not (gradus.folder / "runs").exists()


def test_several_stages_are_run_alone_where_each_is_named(gradus):
    done = gradus("run", "small.toml", "--only", "bpe", "--only", "prose")
    assert done.returncode == 0, done.stderr
    assert {path.name.split("-")[0] for path in (gradus.folder / "artifacts").iterdir()} >= {"corpus", "tokenizer"}
    assert not list((gradus.folder / "artifacts").glob("tokens-*"))


def test_results_and_plans_are_given_as_json(gradus):
    done = json.loads(gradus("run", "small.toml", "--json").stdout)
    assert done["stages"]["bpe"]["results"]["vocab_size"] == 280
    plan = json.loads(gradus("plan", "small.toml", "--json").stdout)
    assert [s["done"] for s in plan["stages"]] == [True, True, True]
    assert json.loads(gradus("doctor", "--json").stdout)["problems"] == []


def test_a_plan_tells_tokens_and_time(gradus):
    text = gradus("plan", "small.toml").stdout
    assert "small on cpu" in text
    assert "tokens  tokenize" in text
    assert any(line.startswith("time ") for line in text.splitlines())  # notes on this machine may follow


def test_errors_are_one_clear_line_and_a_traceback_only_on_demand(gradus):
    done = gradus("run", "small.toml", "bpe.vocabsize=9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'error: override bpe.vocabsize=9 stage "bpe": unknown key "vocabsize"; did you mean "vocab_size"?\n'
    )
    assert "Traceback" in gradus("run", "--debug", "small.toml", "bpe.vocabsize=9").stderr
    missing = gradus("plan", "smal.toml")
    assert missing.stderr == 'error: smal.toml: no such roadmap file; did you mean "small.toml"?\n'


def test_a_stage_that_cannot_work_tells_its_line(gradus):
    done = gradus("run", "small.toml", "bpe.vocab_size=100_000")
    assert done.returncode == 1
    assert done.stderr.startswith('error: small.toml:9 stage "bpe": tokenizer: the texts hold pairs for ')


def test_a_failed_gate_exits_with_3_and_can_be_overridden(gradus):
    gate = 'prose.gate=[{ measure = "documents", at_least = 1000 }]'
    done = gradus("run", "small.toml", gate)
    assert done.returncode == 3
    assert 'small.toml:3 stage "prose": gate failed: documents = ' in done.stderr
    assert " is below 1000. Everything made so far is kept in " in done.stderr
    assert gradus("run", "small.toml", gate, "--override", "a test").returncode == 0
    assert '"override":"a test"' in (gradus.folder / "runs/small/ledger.jsonl").read_text()


def test_an_unknown_model_or_run_names_the_nearest(gradus):
    gradus("run", "small.toml")
    assert "no finished stage with a model yet" in gradus("chat", "--model", "small", "hello").stderr
    assert 'no model "smal"' in gradus("chat", "--model", "smal", "hello").stderr
    assert 'did you mean "small"?' in gradus("report", "smal").stderr


def test_ctrl_c_says_how_to_resume(gradus):
    # What a shell starts in the background ignores the interrupt.
    code = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from gradus.roadmap.stages import tokenize\n"
        "def stop(stage, inputs, place): os.kill(os.getpid(), signal.SIGINT)\n"
        "tokenize.run = stop\nfrom gradus.cli.main import main\nmain()"
    )
    done = gradus("run", "small.toml", command=[sys.executable, "-c", code])
    assert done.returncode == 130
    assert 'stopped in stage "tokens"' in done.stdout
    assert "gradus run small.toml" in done.stdout
    assert done.stderr == ""


def test_doctor_names_versions_and_what_to_install(gradus):
    text = gradus("doctor").stdout
    assert "torch " in text
    assert "cores usable" in text
    assert text.endswith("all is well\n")


def test_completion_is_offered(gradus):
    assert "--install-completion" in gradus("--help").stdout


def test_the_installed_command_is_this_one():
    script = Path(sys.executable).with_name("gradus")
    if not script.exists():
        pytest.skip("gradus is not installed as a command beside this Python")
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "gradus "
    )
