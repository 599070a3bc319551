"""Every command of README and docs is run, at toy size, and everything they claim in tables and links holds.

A command is a line of a ```sh block. What is changed on the way, for all commands alike and nothing else:
`gradus run` gets `--smoke`, so runs are called NAME-smoke and later commands mean those; `make TARGET` is asked
what it would do (`make -n`), since this test is itself part of `make test`; the place `file:///backup` is a folder of
the test; `gradus serve` ends after its `--check`, and `gradus deploy` finds a server of what the page serves; the
teacher at `https://api.openai.com/v1` is a stand-in on this machine, and `sets` a folder of a few rows of
benchmarks; `--calibrate` trains for half a second of each kind. The commands of README.md are started as a reader does
it, those of the other pages by a process that has imported torch already. Blocks after `<!-- file: NAME -->`
are written to that file first. Any other command or mark fails the test.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradus.roadmap.schema import load_roadmap
from gradus.tools.calculator import calculate

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_mind import teacher_mind
from teacher_server import running

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.S | re.M)
RUN_NAMES = ("quickstart", "mytext", "clean", "taught", "better")
TEACHER = "https://api.openai.com/v1"
TIMEOUT_SECONDS = 1800
MEASURED_SHORTLY = {"gradus.roadmap.calibrate:_TRAINING_SECONDS": 0.5}


def blocks(page):
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def commands():
    """(page, command) of every line in a shell block, each command once."""
    found = {}
    for page in PAGES:
        for block in blocks(page):
            if block["kind"] in {"sh", "console", "bash", "shell"}:
                for line in block["text"].splitlines():
                    command = line.removeprefix("$ ").strip()
                    if command and not command.startswith("#"):
                        found.setdefault(command, page.name)
    # What a walk leaves is needed by the rest, so walks come first; otherwise in the order of reading.
    order = sorted(found.items(), key=lambda item: not item[0].startswith("gradus run"))
    return [pytest.param(page, command, id=f"{page}: {command}") for command, page in order]


def at_toy_size(command, folder):
    """The words of a command as they are run in a folder."""
    teacher = (folder / "teacher-address").read_text(encoding="utf-8")
    words = shlex.split(command.replace("file:///backup", f"{folder.as_uri()}/backup").replace(TEACHER, teacher))
    if words[0] == "make":
        return ["make", "-n", *words[1:]]
    assert words[0] == "gradus", f"no rule for running: {command}"
    if words[1] == "run":
        return words if "--smoke" in words else [*words, "--smoke"]
    if words[1] == "serve" and words[2] != "keys":
        words.append("--check")
    if words[1] == "deploy" and "--rollback" not in words:
        words += ["--override", "toy sizes reach no bar"]
    named = re.compile(rf"((?:\w+=)?)({'|'.join(RUN_NAMES)})((?:/[\w-]+)?)")
    return [named.sub(r"\1\2-smoke\3", word) if named.fullmatch(word) else word for word in words]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder as a reader has it: the roadmaps, the files that the pages show, some text; nothing walked yet."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "roadmaps", folder / "roadmaps")
    with running(teacher_mind) as teacher:
        write_files(folder, teacher.base_url)
        yield folder


def write_files(folder, teacher):
    """What the pages show as files, and a folder of texts."""
    for page in PAGES:
        for block in blocks(page):
            if block["mark"] and block["mark"].startswith("file: "):
                text = block["text"].replace(TEACHER, teacher)
                (folder / block["mark"].removeprefix("file: ")).write_text(text, encoding="utf-8")
    (folder / "teacher-address").write_text(teacher, encoding="utf-8")
    (folder / "texts").mkdir()
    write_evaluation_sets(folder / "sets")
    prose = "\n\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    (folder / "texts" / "pages.txt").write_text(prose, encoding="utf-8")


def write_evaluation_sets(folder):
    """A few rows of the benchmarks that the pages ask, where a reader has the published files."""
    choices = ["a red ball", "four", "the old house"]
    rows = [{"id": f"q{n}", "question": f"What is {n} and {n}?", "choices": choices, "gold": n % 3} for n in range(12)]
    passages = [{"context": f"He had {n} cats and each of the {n} was his", "continuation": "cat"} for n in range(6)]
    sums = [{"question": f"What is {n} and {n}?", "answer": f"{n}+{n}={2 * n}\n#### {2 * n}"} for n in range(6)]
    files = {
        "arc/arc_easy_test": rows, "arc/arc_easy_val": [], "lambada/lambada_openai": passages,
        "gsm8k/test": sums, "gsm8k/train": sums,
    }  # fmt: skip
    for name, found in files.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def run_in(folder, words, warm):
    """Run a command in a folder; as one that need not import torch where `warm` is given."""
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    environment.pop("GRADUS_HOME", None)
    # At toy size a second thread only waits for the first.
    environment["OMP_NUM_THREADS"] = "1"
    environment["OPENAI_API_KEY"] = "no-key-of-anybody"
    if warm is not None and words[0] == "gradus":
        words = ["-m", "gradus.cli.main", *words[1:]]
        changes = MEASURED_SHORTLY if "--calibrate" in words else None
        return warm.run(words, cwd=folder, env=environment, changes=changes, timeout=TIMEOUT_SECONDS)
    at = ROOT if words[0] == "make" else folder
    return subprocess.run(
        words, cwd=at, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=TIMEOUT_SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(sandbox):
    """The server that docs/serving.md has started when it deploys."""
    models = ["chat=quickstart-smoke/chat", "base=quickstart-smoke/base"]
    words = [sys.executable, "-m", "gradus.cli.main", "serve", *models, "--port", "0"]
    server = subprocess.Popen(words, cwd=sandbox, stdout=subprocess.PIPE, text=True)
    try:
        assert any("the chat page is at" in line for line in server.stdout)
        while not list((sandbox / ".servers").glob("*.sock")):
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.communicate(timeout=300)


@pytest.mark.parametrize(("page", "command"), commands())
def test_the_command_works(page, command, sandbox, request, warm):
    if command.startswith("gradus deploy"):
        request.getfixturevalue("server")
    done = run_in(sandbox, at_toy_size(command, sandbox), None if page == "README.md" else warm)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.stdout.strip() or " chat " in command


def test_marks_are_ones_that_this_test_knows():
    marks = [(page.name, block["mark"]) for page in PAGES for block in blocks(page) if block["mark"]]
    assert [m for m in marks if not re.fullmatch(r"file: [\w.-]+", m[1])] == []
    assert len(marks) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_roadmap_shown_is_a_valid_one(page, sandbox, tmp_path):
    for number, block in enumerate(b for b in blocks(page) if b["kind"] == "toml"):
        text = block["text"]
        named = set(re.findall(r'^name = "([\w.]+)"', text, re.M))
        # A block that goes on from something outside it is no roadmap by itself.
        if "[[stage]]" in text and named.issuperset(re.findall(r'^extends = "([\w.]+)"', text, re.M)):
            file = sandbox / f"shown-{page.stem}-{number}.toml"
            (tmp_path / "a.txt").write_text("text")
            file.write_text(re.sub(r'path = "[^"]*"', f'path = "{tmp_path}/a.txt"', text))
            assert load_roadmap(file).stages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_generated_pages_are_as_the_code_has_them():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/generate.py"


def test_the_calculator_page_gives_true_results():
    text = (ROOT / "docs" / "calculator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", text, re.M)
    assert len(rows) >= 12
    assert [calculate(expression) for expression, _ in rows] == [result for _, result in rows]


def test_the_chat_page_lists_every_slash_command():
    from gradus.cli.slash_commands import COMMANDS

    text = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `/(\w+)", text, re.M)) == set(COMMANDS) - {"help"} | {"quit"}


def test_the_probes_page_lists_every_check():
    from gradus.conversation import checks

    kinds = set(re.findall(r'kind: Literal\["(\w+)"\]', Path(checks.__file__).read_text(encoding="utf-8")))
    text = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    assert kinds == {k for row in re.findall(r"^\| (`.*?) \|", text, re.M) for k in re.findall(r"`(\w+)`", row)} & kinds


def test_the_page_on_reinforcement_lists_every_reward_and_its_tasks_can_be_read(tmp_path):
    from gradus.posttrain.rewards import REWARD_KINDS
    from gradus.posttrain.tasks import load_tasks

    page = ROOT / "docs" / "reinforcement.md"
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", text, re.M)) == set(REWARD_KINDS)
    (tasks,) = (block["text"] for block in blocks(page) if block["mark"] == "file: tasks.jsonl")
    (tmp_path / "tasks.jsonl").write_text(tasks, encoding="utf-8")
    assert [task.id for task in load_tasks(tmp_path / "tasks.jsonl", "page")] == ["sum-1", "box-1", "code-1"]


def test_the_benchmarks_page_lists_every_task():
    from gradus.eval.benchmarks import KNOWN

    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = [row.split("|")[1] for row in re.findall(r"^\| `.*$", text, re.M)]
    assert {name for cell in table for name in re.findall(r"`(\w+)`", cell)} == set(KNOWN)
