"""Watching a walk: files that grow and tear, what a look says in each state, the terminal's screen, the live page."""

import http.client
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager

import pytest
from local_server import answering
from rich.console import Console
from walked_run import Run

from gradus.cli import watch_page
from gradus.cli.watching import braille, screen, telemetry_text, watch, watched_folder
from gradus.core.artifact import SCRATCH, begin_work
from gradus.core.errors import ConfigError
from gradus.core.lock import exclusive_lock
from gradus.roadmap import watching
from gradus.roadmap.watching import (
    FollowedLines,
    Watcher,
    keep_newest_step,
    keep_thinned,
    newest_run,
    walking_process,
)

HOSTILE = "\x1b]0;pwned\x07\x1b[31m[bold]<b>red\r"


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """These folders need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "home").record()


def begin_base(run):
    """Stage base in the making, with its curves and samples."""
    stage = run.stages[4]
    stage["predicted"] |= {"steps": 80, "tokens": 80 * 8192}
    record = json.loads((run.folder / "roadmap.json").read_text()) | {"stages": run.stages}
    (run.folder / "roadmap.json").write_text(json.dumps(record))
    work = begin_work(run.home / "artifacts", "pretrain", stage["fingerprint"])
    run.write_curves(work, "bpb")
    (work / "samples.jsonl").write_text(json.dumps({"step": 40, "prompt": "The ", "text": run.says}) + "\n")
    (work / SCRATCH).mkdir(exist_ok=True)
    (work / SCRATCH / "seconds.json").write_text(json.dumps({"seconds": 12.5, "started": ""}))
    return work


# Files


def test_lines_are_taken_up_as_a_file_grows_and_half_a_line_waits_for_its_rest(tmp_path):
    file = tmp_path / "m.jsonl"
    followed = FollowedLines(file)
    assert not followed.read()
    file.write_text('{"step": 1}\n{"st')
    assert followed.read()
    assert followed.lines == [{"step": 1}]
    with file.open("a") as out:
        out.write('ep": 2}\n')
    followed.read()
    assert followed.lines == [{"step": 1}, {"step": 2}]
    assert not followed.read()
    with file.open("ab") as out:
        out.write(b'{"torn \n\xff\xfe\n[1]\n{"step": 3}\n')
    followed.read()
    assert followed.lines[-1] == {"step": 3}
    assert len(followed.lines) == 3


def test_a_file_that_a_resumed_stage_cut_back_or_replaced_is_read_again(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    followed = FollowedLines(file)
    followed.read()
    file.write_text('{"step": 1}\n')
    followed.read()
    assert followed.lines == [{"step": 1}]
    other = tmp_path / "other"
    other.write_text('{"step": 9}\n{"step": 10}\n{"step": 11}\n')
    other.replace(file)
    followed.read()
    assert [line["step"] for line in followed.lines] == [9, 10, 11]
    file.unlink()
    assert followed.read()
    assert followed.lines == []


def test_of_a_long_run_so_much_is_held_as_is_shown(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with file.open("w") as out:
        for step in range(1, 30_001):
            out.write(json.dumps({"event": "train", "step": step, "loss": 1 / step, "mfu": 0.25}) + "\n")
            if step == 900:
                out.write('{"event": "evaluate", "step": 900, "bpb": 1.5}\n')
    followed = FollowedLines(file, keep_thinned)
    followed.read()
    assert len(followed.lines) < 9000
    assert {"event": "evaluate", "step": 900, "bpb": 1.5} in followed.lines
    assert [line["step"] for line in followed.lines[-200:]] == list(range(29_801, 30_001))
    with file.open("a") as out:
        out.write('{"event": "rollback", "step": 30000, "returned_to": 29990, "data_steps": [1, 2]}\n')
    followed.read()
    assert followed.lines[-1]["step"] == 29_990
    trained = [line for line in followed.lines if line["event"] == "train"]
    curve = watching._losses(trained)
    assert len(curve) == 1024
    # At even steps, so that the middle of the curve is the middle of the run.
    assert curve[512] == pytest.approx(2 / 30_000, rel=0.01)
    assert (curve[0], curve[-1]) == (1.0, 1 / 29_990)
    samples = FollowedLines(tmp_path / "samples.jsonl", keep_newest_step)
    samples.path.write_text("".join(f'{{"step": {n // 2}}}\n' for n in range(10)))
    samples.read()
    assert samples.lines == [{"step": 4}] * 2


# What a look says


def test_a_walk_is_running_while_its_process_holds_the_lock(run):
    begin_base(run)
    watcher = Watcher(run.folder)
    with exclusive_lock(run.folder / ".lock", "held"):
        now = watcher.look()
        assert (now.state, now.pid) == ("running", os.getpid())
        # 40 of 80 steps are done at the rate of the last line: as many tokens are left as were trained on.
        rate = now.training.figures["tokens_per_second"]
        assert now.training.eta_seconds == pytest.approx(40 * 8192 / rate)
        assert (now.training.stage, now.training.step, now.training.steps) == ("base", 40, 80)
        assert (now.working.name, now.working.seconds) == ("base", 12.5)
    # The process lives on, and walks no more.
    assert walking_process(run.folder) is None
    stopped = watcher.look()
    assert (stopped.state, stopped.training.eta_seconds) == ("stopped", None)


@pytest.mark.parametrize("written", ["", "no number", "999999999"])
def test_a_lock_file_that_names_no_living_process_means_no_walk(run, written):
    (run.folder / ".lock").write_text(written)
    assert walking_process(run.folder) is None


def test_finished_and_failed_walks_are_told_apart(run):
    run.finish()
    assert Watcher(run.folder).look().state == "finished"
    run.judge(False)
    now = Watcher(run.folder).look()
    assert now.state == "gate failed"
    assert now.abilities["exam fresh"]["n"] == 24
    record = json.loads((run.folder / "roadmap.json").read_text())
    (run.folder / "roadmap.json").write_text(json.dumps(record | {"smoke": True}))
    assert Watcher(run.folder).look().state == "finished"  # which goes on past failed gates
    (run.folder / "roadmap.json").write_text(json.dumps(record))
    run.judge(False, override="good enough")
    assert Watcher(run.folder).look().state == "finished"


def test_steps_that_a_rollback_undid_are_not_in_the_curve(run):
    run.returns = True
    begin_base(run)
    training = Watcher(run.folder).look().training
    assert len(training.losses) == 40


def test_a_walk_that_begins_again_with_other_stages_is_followed(run):
    watcher = Watcher(run.folder)
    assert len(watcher.look().stages) == 10
    record = json.loads((run.folder / "roadmap.json").read_text())
    (run.folder / "roadmap.json").write_text(json.dumps(record | {"stages": record["stages"][:3]}))
    assert [stage.name for stage in watcher.look().stages] == ["primer", "talk", "bpe"]


def test_the_newest_run_is_meant_without_a_name_and_a_roadmap_file_by_its_name(run, tmp_path):
    older = run.home / "runs" / "older"
    shutil.copytree(run.folder, older)
    for file in older.iterdir():
        os.utime(file, (1, 1))
    assert newest_run(run.home) == run.folder == watched_folder(None, run.home)
    (tmp_path / "r.toml").write_text('name = "toy"\n')
    assert watched_folder(str(tmp_path / "r.toml"), run.home) == run.folder
    with pytest.raises(ConfigError, match="nothing has been walked here yet"):
        newest_run(tmp_path / "elsewhere")


# The terminal


def test_a_curve_in_braille_goes_from_the_upper_left_to_the_lower_right():
    # Two cells of 2 x 4 dots: a line down from dot row 0 to 3 fills each column from the height before to its own.
    assert braille([3.0, 2.0, 1.0, 0.0], 2, 1) == ["⠑⢄"]
    assert braille([1.0, 1.0], 2, 1) == ["⠒⠒"]
    assert braille([1.0], 2, 1) == braille([], 2, 1) == braille([float("nan"), float("inf")], 2, 1) == []
    many = braille([float(n) for n in range(1000)], 10, 3)
    assert [len(line) for line in many] == [10, 10, 10]


def test_the_screen_tells_stages_figures_samples_and_what_to_do(run):
    run.says = HOSTILE
    run.finish("primer")
    begin_base(run)
    console = Console(width=100, record=True, file=io.StringIO(), force_terminal=True)
    console.print(screen(Watcher(run.folder).look(), 100))
    text = console.export_text(styles=False)
    for words in ("toy  stopped", "✓ primer", "▶ base", "of about 48 s", "step 40/80", "samples at step 40"):
        assert words in text
    assert "no process of this machine walks it" in text
    assert "[bold]<b>red" in text
    assert not {"\x1b", "\x07", "\r"} & set(text)


def test_in_a_narrow_terminal_each_stage_keeps_its_line(run):
    run.finish("primer")
    begin_base(run)
    now = Watcher(run.folder).look()
    console = Console(width=40, record=True, file=io.StringIO(), force_terminal=True)
    console.print(screen(now, 40))
    lines = console.export_text(styles=False).splitlines()
    stages = lines[2 : 2 + len(now.stages)]
    assert [line.split()[1:3] for line in stages] == [[stage.name, stage.state] for stage in now.stages]
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("cpu_fraction", 0.5, "cpu 50%"), ("gpu_memory_bytes", 2**31, "gpu memory 2.0 GiB"),
     ("gpu_celsius", 61.2, "gpu 61 °C"), ("gpu_watts", 300.0, "gpu 300 W"), ("mfu", 0.41234, "mfu 0.412")],
)  # fmt: skip
def test_telemetry_is_told_with_its_unit(name, value, text):
    assert telemetry_text(name, value) == text


def test_without_a_terminal_one_look_is_printed(run, capsys):
    begin_base(run)
    watch("toy", run.home, page=False, port=0, once=False)
    assert "step 40/80" in capsys.readouterr().out


def test_watching_needs_no_torch():
    code = "import sys, gradus.cli.watching, gradus.cli.watch_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The page


@contextmanager
def served(run):
    server, address = watch_page.page_server(run.folder)
    with answering(server):
        yield server.server_address[1], "/" + address.split("/", 3)[3], address


def ask(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_answers_to_its_secret_address_on_this_machine_and_to_nothing_else(run):
    begin_base(run)
    with served(run) as (port, path, _):
        answer, body = ask(port, path)
        assert answer.status == 200
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
        policy = body.decode().split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert policy.endswith("connect-src 'self'")
        data = json.loads(ask(port, path + "data.json")[1])
        assert (data["live"]["state"], data["live"]["training"]["step"]) == ("stopped", 40)
        assert ask(port, path, "HEAD")[1] == b""
        for wrong in ("/", "/data.json", path + "../", path + "data.json?x", path + "..%2f..%2fetc/passwd"):
            assert ask(port, wrong)[0].status == 404
        assert ask(port, path, Host="evil.example")[0].status == 404
        assert ask(port, path, Host=f"evil.example:{port}")[0].status == 404
        assert {ask(port, path, method)[0].status for method in ("POST", "PUT", "DELETE", "OPTIONS")} == {501}
        (run.folder / "roadmap.json").unlink()
        watch_page._FRESH_SECONDS, kept = 0.0, watch_page._FRESH_SECONDS
        assert ask(port, path + "data.json")[0].status == 503
        watch_page._FRESH_SECONDS = kept


def test_readers_that_leave_and_files_that_move_are_no_error_of_the_page(run, capsys, monkeypatch):
    begin_base(run)
    monkeypatch.setattr(watch_page, "report_page", lambda data: "x" * 50_000_000)
    with served(run) as (port, path, _):
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            reader.recv(100)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def moved(folder):
            raise FileNotFoundError("metrics.jsonl")

        monkeypatch.setattr(watch_page, "report_data", moved)
        monkeypatch.setattr(watch_page, "_FRESH_SECONDS", 0.0)
        assert ask(port, path + "data.json")[0].status == 503
    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_told(run):
    with served(run) as (port, _, _), pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1: .* --port"):
        watch_page.page_server(run.folder, port)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_a_browser_shows_what_happens_after_the_page_was_opened(run, tmp_path, monkeypatch):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    run.says = "</script><img src=x onerror=document.title='pwned'>"
    begin_base(run)
    whole = watch_page.report_page
    monkeypatch.setattr(watch_page, "_FRESH_SECONDS", 0.0)

    def page_and_then_the_rest(data):
        text = whole(data)
        if data["live"]["state"] == "stopped":
            shutil.rmtree(run.home / "artifacts")
            run.finish()
        return text

    monkeypatch.setattr(watch_page, "report_page", page_and_then_the_rest)
    with served(run) as (_, _, address):
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-sync", "--disable-background-networking",
                   "--virtual-time-budget=5000", f"--user-data-dir={tmp_path}/p", "--dump-dom")  # fmt: skip
        done = subprocess.run([CHROMIUM, *options, address], capture_output=True, check=True, timeout=300)
    page = done.stdout.decode("utf-8", "replace")
    assert "finished, 10 of 10 stages done" in page
    parts = ("top", "now", "abilities", "stages", "questions", "training", "samples", "lineage", "data", "time")
    places = [page.index(f'id="{name}"') for name in parts]
    assert places == sorted(places)
    assert "<img" not in page
