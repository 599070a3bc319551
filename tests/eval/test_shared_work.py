"""An eval stage on two processes: everything is divided, the files are those of one, and kills lose nothing."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from seeded_bundle import write_seeded_bundle
from small_stages import PROSE

from gradus.core.errors import DataError, GradusError
from gradus.eval.journal import Journal, SharedWork
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.train.parallel import World

pytestmark = pytest.mark.usefixtures("one_thread")

MADE = (
    """
name = "small"

[machine]
threads = 1

"""
    + PROSE.replace("fraction = 0.1", "fraction = 0.3")
    + """\
decontaminate = []

[[stage]]
name = "bpe"
kind = "tokenizer"
take = "folder:model"

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"

[[stage]]
name = "talk"
kind = "pool"
sources = [{ path = "chats.jsonl" }]
validation_fraction = 0.2

[[stage]]
name = "model"
kind = "import"
take = "folder:model"
"""
)
ASKED = """
[[stage]]
name = "look"
kind = "eval"
from = "model"
tokens = "tokens"
corpus = "prose"
prompts = "talk"
tasks = ["arc_easy", "gsm8k", "lambada_openai"]
task_tokens = 8
benchmarks = "sets"
perplexity_documents = 7
suites = { short = "short.jsonl" }
samples = 3
temperature = 0.8
max_tokens = 12
audit_samples = 21
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a home in which everything is made that the stage "look" takes."""
    folder = tmp_path_factory.mktemp("shared")
    write_seeded_bundle(folder / "model")
    files = {
        "arc/arc_easy_test": [
            {"id": f"q{n}", "question": f"What is {n} and {n * n}?" * 9, "choices": ["a", "b and c"], "gold": n % 2}
            for n in range(70)
        ],
        "arc/arc_easy_val": [],
        "lambada/lambada_openai": [
            {"context": f"He had {n} cats and {n % 7} dogs, and the {n * n} were his", "continuation": "cats"}
            for n in range(4000)
        ],
        "gsm8k/test": [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(9)],
    }
    for name, rows in files.items():
        file = folder / f"sets/{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    probes = [
        {"id": f"p{n}", "category": "ab"[n % 2], "turns": [f"Say {n}", "again"][: 1 + n % 2],
         "checks": [{"kind": "answer_contains", "any": ["a"]}]}
        for n in range(11)
    ]  # fmt: skip
    (folder / "short.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    chats = [
        {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": f"{i}."}]}
        for i in range(40)
    ]
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(row) for row in chats))
    # Some longer than the model's context, so that documents lie in several pieces.
    lines = [f"Line {n}: " + f"the cat number {n * 7} sat on mat {n % 13}. " * (1 + n % 40) for n in range(200)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


def load(folder: Path, processes: int, asked: str = ASKED):  # type: ignore[no-untyped-def]
    (folder / "small.toml").write_text(MADE + asked)
    return load_roadmap(folder / "small.toml", [f"machine.processes={processes}"])


def contents(folder: Path) -> dict[str, object]:
    """Every results file, times left out, and the results of the stage."""
    files = [path for path in sorted(folder.rglob("*.json")) if path.name != "manifest.json"]
    found: dict[str, object] = {
        str(path.relative_to(folder)): re.sub(r'^ "seconds": .*\n', "", path.read_text(), flags=re.MULTILINE)
        for path in files
    }
    results = json.loads((folder / "manifest.json").read_text())["results"]
    return found | {"results": json.dumps({k: v for k, v in results.items() if k != "seconds"})}


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, object]:
    """What one process finds."""
    walk(load(folder, 1, asked=""), folder / "made", QuietProgress())
    return contents(walk(load(folder, 1), home_of(folder, "one"), QuietProgress()).artifacts["look"].path)


def home_of(folder: Path, name: str) -> Path:
    """A home of its own in which everything is made but "look"."""
    shutil.copytree(folder / "made", folder / name, symlinks=True)
    return folder / name


def test_two_processes_write_the_files_of_one_byte_for_byte(folder: Path, alone: dict[str, object]) -> None:
    assert set(alone) == {
        "audit.json", "results", "probes/short.json", "tasks/arc_easy.json", "tasks/gsm8k.json",
        "tasks/lambada_openai.json",
    }  # fmt: skip
    two = walk(load(folder, 2), home_of(folder, "two"), QuietProgress()).artifacts["look"]
    assert contents(two.path) == alone
    results = two.results
    assert results["audit"]["any"]["n"] == 21
    assert results["probes"]["short"]["pass_rate"]["total"]["n"] == 33
    assert results["bpb"]["documents"] > 40
    assert two.manifest.machine["settings"]["processes"] == 2


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_kill_loses_nothing_and_leaves_nobody_behind(folder: Path, alone: dict[str, object], victim: int) -> None:
    load(folder, 2)
    home = home_of(folder, f"killed-{victim}")
    command = [sys.executable, "-m", "gradus.cli.main", "run", str(folder / "small.toml"), "--home", str(home)]
    process = subprocess.Popen([*command, "machine.processes=2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    journal = _await_journal(home, process)
    (worker,) = psutil.Process(process.pid).children()
    (worker if victim else psutil.Process(process.pid)).send_signal(signal.SIGKILL)
    told = process.communicate(timeout=300)[0].decode()
    assert process.returncode
    if victim:
        assert "process 1 was ended by signal 9" in told
    psutil.wait_procs([worker], timeout=120)
    assert not worker.is_running()
    numbers = _numbers(journal)
    assert len(numbers) == len(set(numbers)) > 100
    assert contents(walk(load(folder, 1), home, QuietProgress()).artifacts["look"].path) == alone


def test_a_process_that_fails_ends_all_with_its_reason(
    folder: Path, alone: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError("the shards cannot be read")

    monkeypatch.setattr("gradus.roadmap.stages.eval.measure_bits", fail)
    with pytest.raises(GradusError, match="the shards cannot be read"):
        walk(load(folder, 2), home_of(folder, "failed"), QuietProgress())


def _await_journal(home: Path, process: subprocess.Popen[bytes]) -> Path:
    """The folder of the journal of the third task when it holds some items."""
    while process.poll() is None:
        for found in home.glob("artifacts/*/scratch/tasks/lambada_openai"):
            if len(_numbers(found)) > 100:
                return found
        time.sleep(0.005)
    raise AssertionError(process.communicate()[0].decode())


def _numbers(folder: Path) -> list[int]:
    """The items in all whole lines of a journal, as often as they are there."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().split("\n")[1:-1]]
    return [json.loads(line)[0] for line in lines]


def test_items_are_divided_among_any_number_of_processes_each_to_one(tmp_path: Path) -> None:
    done = SharedWork(10, Journal(tmp_path, "one"))
    done.keep({3: [1.5, True], 7: None})
    done.keep({7: "again"})
    assert Journal(tmp_path, "two").read() == {}
    assert Journal(tmp_path, "one").read() == {3: [1.5, True], 7: "again"}
    shares = []
    for rank in range(3):
        work = SharedWork(10, world=World(rank, 3))
        shares.append(work.todo)
    assert sorted(number for share in shares for number in share) == list(range(10))
    again = SharedWork(10, Journal(tmp_path, "one"))
    assert again.todo == [0, 1, 2, 4, 5, 6, 8, 9]
    again.keep(dict.fromkeys(again.todo, 0))
    assert again.everything() == [0, 0, 0, [1.5, True], 0, 0, 0, "again", 0, 0]


@pytest.mark.parametrize("torn", ['{"identity": "one"}', '{"identity": "o', "", "\x00" * 30])
def test_a_journal_whose_first_line_was_torn_is_begun_anew(tmp_path: Path, torn: str) -> None:
    (tmp_path / "0.jsonl").write_text(torn)
    SharedWork(2, Journal(tmp_path, "one")).keep({1: "kept"})
    assert Journal(tmp_path, "one").read() == {1: "kept"}
