"""Stage `distill` as a user walks it: plan, pool, resume after a kill, budget, and no key anywhere."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradus.core.devices import CPU
from gradus.core.errors import ConfigError, GradusError
from gradus.core.home import ANSWERS, ARTIFACTS
from gradus.data.pool import read_pairs, read_pool
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.plan_text import plan_json, plan_text
from gradus.roadmap.progress import PlainProgress, QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_mind import faulty_mind, teacher_mind
from teacher_server import running

KEY = "sk-" + "walks-with-me-0123456789"
ROADMAP = """\
name = "taught"
seed = 4

[[stage]]
name = "talk"
kind = "distill"
documents = "notes/*.md"
persona = "persona.md"
disjoint_from = ["suite.jsonl"]
tasks = {{ think_search_answer = 6, temporal = 20, identity = 10 }}
validation_fraction = 0.2

[stage.teacher]
base_url = "{base_url}"
model = "teacher-1"
concurrency = 4
timeout_seconds = 60.0
{more}
"""
PRICES = "input_price = 2.0\noutput_price = 8.0\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notes").mkdir()
    for subject in ("harbours", "orchards", "kettles"):
        text = f"# About {subject}\n\n" + f"Old {subject} were built with care by many patient hands. " * 8
        (tmp_path / "notes" / f"{subject}.md").write_text(text)
    (tmp_path / "persona.md").write_text("The assistant is called Miro.")
    probe = {"id": "p", "messages": [{"role": "user", "content": "Who are you?"}], "checks": [{"kind": "stops"}]}
    (tmp_path / "suite.jsonl").write_text(json.dumps(probe))
    return tmp_path


def roadmap_file(folder, base_url, more=""):
    file = folder / "taught.toml"
    file.write_text(ROADMAP.format(base_url=base_url, more=more))
    return file


def walked(folder, base_url, more="", progress=None):
    roadmap = load_roadmap(roadmap_file(folder, base_url, more))
    return walk(roadmap, folder / "home", progress or QuietProgress()).artifacts["talk"]


def test_a_pool_is_written_with_what_it_took(folder, capsys):
    with running(faulty_mind(0.1)) as server:
        artifact = walked(folder, server.base_url, PRICES, PlainProgress())
    rows = [*read_pool(artifact.path, "train"), *read_pool(artifact.path, "validation")]
    assert len(rows) == 36
    results = artifact.results
    assert results["rows_by_task"] == {"think_search_answer": 6, "temporal": 20, "identity": 10}
    assert results["requests"] == len(server.requests)
    assert results["fees"] == pytest.approx((2 * results["input_tokens"] + 8 * results["output_tokens"]) / 1e6)
    assert results["uniqueness"]["questions"] == 1.0
    rejected = [json.loads(line) for line in (artifact.path / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == sum(results["rejected"].values()) > 0
    assert {"task", "row", "attempt", "reason", "detail", "answer"} == set(rejected[0])
    assert sorted(p.name for p in artifact.path.iterdir()) == [
        "drops.json", "manifest.json", "pool.json", "rejected.jsonl", "train.jsonl", "validation.jsonl"
    ]  # fmt: skip
    assert "3 documents in 3 passages" in capsys.readouterr().out


def test_a_plan_says_what_it_will_cost_and_asks_nobody(folder):
    roadmap = load_roadmap(roadmap_file(folder, "http://127.0.0.1:9/v1", PRICES + "budget = 0.001"))
    plan = plan_roadmap(roadmap, choose_device(CPU, roadmap.machine, folder), folder / ARTIFACTS)
    text = plan_text(roadmap, [plan])
    assert "requests to teacher-1" in text
    assert "more than the budget of 0.00, at which it will stop" in text
    money = plan_json(roadmap, plan)["stages"][0]["money"]
    assert money == plan.money_left == plan.stages[0].estimate.fees > 0
    assert f"money {money:,.2f}" in text
    unpriced = load_roadmap(roadmap_file(folder, "http://127.0.0.1:9/v1"))
    plan = plan_roadmap(unpriced, plan.device, folder / ARTIFACTS)
    assert "money unknown, since teacher.input_price" in plan_text(unpriced, [plan])


def test_a_plan_loads_neither_torch_nor_asks(folder):
    roadmap_file(folder, "http://127.0.0.1:9/v1", PRICES)
    script = (
        "import sys\nfrom gradus.cli.main import main\n"
        "sys.argv = ['gradus', 'plan', 'taught.toml']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "requests to teacher-1" in done.stdout


def test_how_it_is_asked_changes_no_identity(folder):
    one = load_roadmap(roadmap_file(folder, "http://127.0.0.1:9/v1"))
    other = load_roadmap(roadmap_file(folder, "http://127.0.0.1:9/v1", PRICES + "budget = 3.0\nkey_variable = 'MINE'"))
    assert one.stages[0].fingerprint == other.stages[0].fingerprint
    (folder / "persona.md").write_text("The assistant is called Mira.")
    changed = load_roadmap(roadmap_file(folder, "http://127.0.0.1:9/v1"))
    assert changed.stages[0].fingerprint != one.stages[0].fingerprint


def test_the_order_of_tasks_in_the_file_changes_nothing(folder):
    with running(teacher_mind) as server:
        rows = []
        for tasks in ("temporal = 6, identity = 5", "identity = 5, temporal = 6"):
            file = roadmap_file(folder, server.base_url)
            file.write_text(file.read_text().replace("think_search_answer = 6, temporal = 20, identity = 10", tasks))
            roadmap = load_roadmap(file)
            artifact = walk(roadmap, folder / tasks[:5], QuietProgress()).artifacts["talk"]
            rows.append((artifact.fingerprint, (artifact.path / "train.jsonl").read_text()))
    assert rows[0] == rows[1]


def test_a_spent_budget_stops_the_walk_and_a_higher_one_resumes_it(folder):
    with running(teacher_mind) as server:
        few = PRICES + "max_tokens = 300\nbudget = 0.006"
        with pytest.raises(GradusError, match=r'stage "talk": stopped at the budget: .* raise budget'):
            walked(folder, server.base_url, few)
        asked = len(server.requests)
        assert 0 < asked < 42
        artifact = walked(folder, server.base_url, few.replace("0.006", "5.0"))
        assert len(server.requests) == 42
    assert artifact.results["requests"] == 42
    assert artifact.results["reused_answers"] == asked


def test_a_killed_walk_goes_on_without_paying_twice(folder):
    killed = threading.Event()

    def mind(body):
        if len(server.requests) > 12:
            killed.wait(300)  # these are on their way when it is killed
        return teacher_mind(body)

    with running(mind) as server:
        file = roadmap_file(folder, server.base_url, PRICES)
        command = [sys.executable, "-m", "gradus.cli.main", "run", str(file), "--home", str(folder / "home")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + 300
        while len(server.requests) < 13 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        at_kill = len(server.requests)
        assert 12 < at_kill <= 12 + 4
        killed.set()
        artifact = walked(folder, server.base_url, PRICES)
    # Only what was on its way is asked for again; what it may have cost is told.
    assert at_kill - 4 <= artifact.results["reused_answers"] <= at_kill
    assert len(server.requests) <= 42 + 4
    assert artifact.results["conversations"] + artifact.results["validation_conversations"] == 36
    lost = len(server.requests) - 42
    assert (artifact.results["unsettled_fees"] > 0) == (lost > 0)


def test_the_key_stands_in_no_file(folder, monkeypatch, capsys):
    monkeypatch.setenv("MY_TEACHER", KEY)
    with running(lambda body: f"{KEY} " + teacher_mind(body)) as server:
        walked(folder, server.base_url, 'key_variable = "MY_TEACHER"', PlainProgress())
        assert set(server.keys) == {f"Bearer {KEY}"}
    for file in (folder / "home").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in capsys.readouterr().out
    assert (folder / "home" / ANSWERS).is_file()


def test_a_key_that_is_not_set_stops_before_anything_is_asked(folder, monkeypatch):
    monkeypatch.delenv("MY_TEACHER", raising=False)
    with running(teacher_mind) as server:
        with pytest.raises(GradusError, match="the environment variable MY_TEACHER is not set"):
            walked(folder, server.base_url, 'key_variable = "MY_TEACHER"')
        assert server.requests == []


def test_a_teacher_without_a_sound_row_leaves_its_answers_to_look_at(folder):
    with running(lambda body: "I am sorry, no.") as server, pytest.raises(GradusError) as error:
        walked(folder, server.base_url)
    assert "no row of the teacher was taken" in str(error.value)
    file = Path(str(error.value).rpartition("see ")[2])
    assert json.loads(file.read_text().splitlines()[0])["answer"] == "I am sorry, no."


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("temporal = 20", "temproal = 20", 'unknown task "temproal"; did you mean "temporal"?'),
        ("temporal = 20", "temporal = 0", "temporal: expected at least 1 row, found 0"),
        ('documents = "notes/*.md"', "", 'task "think_search_answer" needs "documents"'),
        ('persona = "persona.md"', "", 'task "identity" needs "persona"'),
        ("notes/*.md", "nots/*.md", "matches no file"),
        ("persona.md", "person.md", 'did you mean "persona.md"?'),
        ("suite.jsonl", "suit.jsonl", 'did you mean "suite.jsonl"?'),
        ('model = "teacher-1"', "", 'missing key "teacher.model"'),
        ("concurrency = 4", "concurrency = 0", '"teacher.concurrency": expected at least 1, found 0'),
    ],
)
def test_what_is_wrong_is_told_with_its_line(folder, old, new, text):
    file = roadmap_file(folder, "http://127.0.0.1:9/v1")
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_roadmap(file)
    assert text in str(error.value)
    assert "taught.toml:" in str(error.value)


PAIRS = """
[[stage]]
name = "better"
kind = "distill_pairs"
prompts = "talk"
documents = "notes/*.md"
disjoint_from = ["suite.jsonl"]
num_prompts = 20

[stage.teacher]
base_url = "{base_url}"
model = "teacher-1"
input_price = 2.0
output_price = 8.0
"""


def test_pairs_are_written_for_the_prompts_of_a_pool(folder):
    # The probe of a second suite is a prompt of the pool; it must not come back.
    with running(teacher_mind) as server:
        file = roadmap_file(folder, server.base_url)
        file.write_text(file.read_text() + PAIRS.format(base_url=server.base_url))
        roadmap = load_roadmap(file)
        talk = walk(roadmap, folder / "home", QuietProgress(), only=["talk"]).artifacts["talk"]
        question = next(r for r in read_pool(talk.path, "train") if r.source.endswith("search_answer")).messages[0]
        probe = {"id": "q", "messages": [{"role": "user", "content": question.content}], "checks": [{"kind": "stops"}]}
        (folder / "more.jsonl").write_text(json.dumps(probe))
        file.write_text(file.read_text().replace('["suite.jsonl"]\nnum', '["suite.jsonl", "more.jsonl"]\nnum'))
        roadmap = load_roadmap(file)
        plan = plan_roadmap(roadmap, choose_device(CPU, roadmap.machine, folder), folder / "home" / ARTIFACTS)
        artifact = walk(roadmap, folder / "home", QuietProgress()).artifacts["better"]
    assert plan.stages[1].estimate.fees > 0
    found = list(read_pairs(artifact.path, "train"))
    assert len(found) == artifact.results["pairs"] > 0
    assert artifact.results["skipped"]["in_probe_suite"] >= 1
    # A stand-in that knows no dates fails what the rows' own answers pass; it is not taken.
    assert artifact.results["skipped"]["answer_number"] >= 1
    assert {"web_search"} <= {call.name for pair in found for message in pair.chosen for call in message.tool_calls}
    assert question.content not in [pair.prompt.messages[-1].content for pair in found]
    assert artifact.results["fees"] > 0
    assert (artifact.path / "rejected.jsonl").is_file()
