"""The report: one inert, self-contained page for finished, stopped and empty runs, and what it says."""

import html.parser
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from walked_run import CATEGORIES, STAGES, Run, measure

from gradus.core.artifact import begin_work, commit_artifact
from gradus.core.errors import ArtifactError, DataError
from gradus.core.fingerprint import digest, file_digest
from gradus.core.statistics import mcnemar_exact, wilson
from gradus.roadmap import report_measures
from gradus.roadmap.provenance import origin_of
from gradus.roadmap.report import report_page, script_json, write_comparison, write_report
from gradus.roadmap.report_data import report_data
from gradus.roadmap.report_stage_measures import across_stages
from gradus.roadmap.report_versus import versus_data

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1><!-- \u2028 \ud800 {{data}}"


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """These folders need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "home")


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the text inside each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(text)


def embedded(page):
    """The JSON inside a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


# What it says


def test_a_finished_run_is_told_with_its_verdict_its_gate_and_how_to_talk_to_the_model(run):
    data = report_data(run.record().finish().judge(True).folder)
    assert data["verdict"] == {"word": "passed", "text": "passed the gate", "done": 10, "of": 10}
    assert data["chat"] == "gradus chat --model toy"
    assert data["gates"][0]["passed"] is True
    assert data["machine"]["cores"] == 2
    exam = data["stages"][-1]
    assert (exam["state"], exam["seconds"], exam["predicted"]["seconds"]) == ("done", 33.0, 16.5)
    assert exam["inputs"] == {"from": ["polish"]}


def test_a_failed_gate_is_the_verdict_until_it_is_judged_again(run):
    run.record().finish().judge(False, override="good enough")
    data = report_data(run.folder)
    assert data["verdict"]["text"] == "the gate failed, in exam"
    assert data["gates"][0]["override"] == "good enough"
    assert report_data(run.judge(True).folder)["verdict"]["word"] == "passed"


def test_a_verdict_on_an_older_artifact_does_not_count(run):
    run.record().finish().judge(True)
    record = json.loads((run.folder / "roadmap.json").read_text())
    record["stages"][-1]["fingerprint"] = "f" * 64
    (run.folder / "roadmap.json").write_text(json.dumps(record))
    assert report_data(run.folder)["gates"][0]["passed"] is None


def test_probe_results_stand_in_the_order_of_the_models_with_intervals_and_pairs(run):
    data = report_data(run.record().finish().folder)
    assert [entry["model"] for entry in data["abilities"]] == ["chat", "polish"]
    fresh = data["abilities"][1]["suites"][1]
    assert [c["name"] for c in fresh["categories"]] == list(CATEGORIES)
    # 4 questions a category of which 3 are right, in 6 categories; Wilson bounds by hand in test_records.
    assert (fresh["total"]["n"], fresh["total"]["successes"]) == (24, 18)
    assert (fresh["total"]["lower"], fresh["total"]["upper"]) == wilson(18, 24)
    assert "items" not in fresh["total"]
    pair = next(p for p in data["pairings"] if p["suite"] == "fresh")
    assert (pair["before"], pair["after"], pair["won"], pair["lost"], pair["shared"]) == ("chat", "polish", 6, 0, 24)
    assert pair["p"] == mcnemar_exact(0, 6)


def test_stages_that_ask_one_model_different_questions_are_one_entry():
    def asked(stage, suite):
        results = {"probes": {suite: {"total": measure({"a": 1})}}}
        return SimpleNamespace(
            name=stage, record={"inputs": {"from": ["chat"]}, "settings": {}}, results=results, file=lambda name: None
        )

    stages = [asked("exam", "fresh"), asked("marks", "arc_easy"), asked("again", "fresh")]
    found = report_measures.probe_results(stages, Path())
    assert [(entry["model"], [suite["name"] for suite in entry["suites"]]) for entry in found] == [
        ("chat", ["fresh", "arc_easy"]),
        ("chat (again)", ["fresh"]),
    ]


def test_categories_may_stand_in_a_table_of_their_own(run):
    run._eval = lambda work, stage: {
        "probes": {"fresh": {"total": measure({"a": 1}), "categories": {"weekday": {"value": 1.0, "n": 1}}}}
    }
    suite = report_data(run.record().finish().folder)["abilities"][0]["suites"][0]
    assert suite["categories"] == [{"name": "weekday", "value": 1.0, "n": 1}]
    assert suite["note"] == "the answers were not kept"


def test_questions_come_from_the_suite_that_was_used_and_not_from_a_changed_one(run):
    suite = run.home / "fresh.jsonl"
    probe = {"id": "weekday-0", "category": "weekday", "checks": [{"kind": "stops"}],
             "turns": ["It is Monday.", "And tomorrow?"]}  # fmt: skip
    suite.write_text(json.dumps(probe) + "\n")
    run.record(STAGES[-1:])
    stage = run.stages[0]
    stage["settings"] = {"suites": {"fresh": "fresh.jsonl"}}
    record = json.loads((run.folder / "roadmap.json").read_text()) | {"stages": [stage]}
    (run.folder / "roadmap.json").write_text(json.dumps(record))
    work = begin_work(run.home / "artifacts", "eval", stage["fingerprint"])
    (work / "probes").mkdir()
    item = {"id": "weekday-0", "category": "weekday", "passed": True, "answer": "Tuesday"}
    (work / "probes" / "fresh.json").write_text(json.dumps({"items": [item]}))
    commit_artifact(
        work, kind="eval", fingerprint=stage["fingerprint"],
        results={"probes": {"fresh": {"total": measure({"a": 1})}}},
        sources={"fresh.jsonl": digest([["fresh.jsonl", file_digest(suite)]])},
    )  # fmt: skip
    shown = report_data(run.folder)["abilities"][0]["suites"][0]
    assert [m["content"] for m in shown["items"][0]["messages"]] == ["It is Monday.", "And tomorrow?"]
    suite.write_text(json.dumps(probe | {"turns": ["Other?"]}) + "\n")
    shown = report_data(run.folder)["abilities"][0]["suites"][0]
    assert "messages" not in shown["items"][0]
    assert shown["note"] == "fresh.jsonl has changed since, so the questions are not shown"


def test_curves_are_columns_thinned_with_the_last_step_kept(run, monkeypatch):
    monkeypatch.setattr(report_measures, "CURVE_POINTS", 15)
    (curve,) = report_data(run.record().finish("primer", "base").folder)["training"]
    # Of 40 steps each third, counted from the last.
    assert curve["every"] == 3
    assert curve["train"]["step"] == list(range(1, 41, 3))
    assert list(curve["evaluate"]) == ["step", "bpb", "bpb/books", "bpb/It is 12."]
    assert len(curve["evaluate"]["bpb"]) == 8


def test_a_return_to_a_checkpoint_undoes_steps_and_is_a_window_of_the_curves(run):
    run.returns = True
    (curve,) = report_data(run.record().finish("primer", "base").folder)["training"]
    assert curve["train"]["step"] == list(range(1, 41))
    assert curve["evaluate"]["step"] == list(range(5, 41, 5))
    assert curve["passed_over"] == [{"from": 20, "to": 25, "data_steps": [20, 25]}]


def test_a_figure_that_some_lines_lack_is_empty_there(run):
    run.record()
    work = begin_work(run.home / "artifacts", "pretrain", run.stages[4]["fingerprint"])
    (work / "metrics.jsonl").write_text(
        '{"event":"train","step":1,"loss":NaN}\n{"event":"train","step":2,"loss":2.0,"margin":0.5}\n{"event":"tr'
    )
    (curve,) = embedded(report_page(report_data(run.folder)))["training"]
    assert curve["train"] == {"step": [1, 2], "loss": [None, 2.0], "margin": [None, 0.5]}


def test_results_of_a_stage_in_a_row_are_one_entry_of_the_ledger(run):
    data = report_data(run.record().finish("primer", "talk").folder)
    assert [line["event"] for line in data["ledger"]] == ["walk", "result", "stage", "result", "stage"]
    assert data["ledger"][1]["measures"] == {"loss": 1.5, "It is 12.": 2.0}
    assert data["ledger_lines"] == 7


def test_left_out_documents_are_shown_by_reason_with_a_few_examples(run):
    (dropped,) = report_data(run.record().finish("primer").folder)["drops"]
    assert dropped["by_reason"] == {"duplicate": 7}
    assert len(dropped["samples"]["duplicate"]) == 5


def test_very_large_suites_keep_the_failed_questions_first(run, monkeypatch):
    monkeypatch.setattr(report_measures, "SUITE_ITEMS", 15)
    suite = report_data(run.record().finish("look").folder)["abilities"][0]["suites"][1]
    assert (len(suite["items"]), suite["left_out"]) == (15, 24 - 15)
    assert [i["passed"] for i in suite["items"]].count(False) == 12 == suite["total"]["n"] - suite["total"]["successes"]
    assert [i["id"] for i in suite["items"]][:3] == ["arithmetic-0", "arithmetic-1", "arithmetic-2"]


def test_long_texts_are_cut_with_a_word():
    assert report_measures.clip({"a": ["x" * (report_measures.TEXT_CHARACTERS + 5)]})["a"][0].endswith(
        "x … (5 characters more)"
    )
    assert report_measures.clip("short") == "short"


# Unfinished, damaged, foreign


def test_a_walk_that_has_only_begun_says_so(run):
    data = report_data(run.record().folder)
    assert data["verdict"]["text"] == "0 of 10 stages are done"
    assert data["chat"] is None
    assert {stage["note"] for stage in data["stages"]} == {"has not run yet"}
    write_report(run.folder)


def test_a_stage_in_the_making_shows_what_it_has(run):
    run.record().finish("primer")
    work = begin_work(run.home / "artifacts", "pretrain", run.stages[4]["fingerprint"])
    run.write_curves(work, "bpb")
    data = report_data(run.folder)
    assert data["stages"][4]["state"] == "working"
    assert data["training"][0]["stage"] == "base"


def test_changed_and_damaged_stages_are_told_apart(run):
    run.record().finish("primer", "talk")
    (run.home / "artifacts" / run.stages[1]["artifact"] / "manifest.json").write_text("{")
    record = json.loads((run.folder / "roadmap.json").read_text())
    record["stages"][0]["artifact"] = "corpus-eeeeeeeeeeeeeeee"
    (run.folder / "roadmap.json").write_text(json.dumps(record))
    changed, damaged = report_data(run.folder)["stages"][:2]
    assert (changed["state"], changed["note"]) == ("waiting", "its settings or inputs have changed since it last ran")
    assert damaged["state"] == "damaged"
    assert "damaged, not readable as JSON" in damaged["note"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"no walked roadmap here \(roadmap\.json is missing\)"):
        write_report(tmp_path)
    (tmp_path / "roadmap.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"roadmap\.json: damaged .*; gradus run writes it again"):
        write_report(tmp_path)
    for other in ([], {"stages": []}, {"name": "toy", "stages": [{"name": "one"}]}):
        (tmp_path / "roadmap.json").write_text(json.dumps(other))
        with pytest.raises(ArtifactError, match=r"roadmap\.json: not the record of a walk; gradus run writes it again"):
            write_report(tmp_path)


# One inert page


def test_the_page_is_one_file_that_fetches_nothing_and_stays_small(run):
    path = write_report(run.record().finish().judge(True).folder)
    assert path == run.folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not [a for _, a in page.tags if "src" in a]
    assert [a["href"][:5] for t, a in page.tags if t == "link"] == ["data:"]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert len(text.encode()) - len(script_json(report_data(run.folder)).encode()) < 136 * 1024
    assert "Permission is hereby granted" in text


def test_it_can_be_written_elsewhere(run, tmp_path):
    out = tmp_path / "site" / "index.html"
    assert write_report(run.record().folder, out) == out
    assert out.is_file()
    assert not (run.folder / "report.html").exists()


def test_hostile_text_cannot_leave_the_data_tag(run):
    run.says = HOSTILE
    text = write_report(run.record().finish().judge(True).folder).read_text(encoding="utf-8")
    page = Page(text)
    assert [t for t, _ in page.tags if t in {"script", "img"}] == ["script"] * 3
    data = embedded(text)
    assert data["description"] == HOSTILE
    assert data["abilities"][0]["suites"][0]["items"][0]["answer"] == HOSTILE


def test_script_json_holds_no_markup_and_no_number_that_is_not_one():
    text = script_json({"a": HOSTILE, "b": [math.nan, math.inf, 1.5]})
    assert not set("<>&\u2028\ud800") & set(text)
    assert json.loads(text) == {"a": HOSTILE, "b": [None, None, 1.5]}


def test_no_script_of_ours_makes_markup_from_text():
    from importlib import resources

    for asset in resources.files("gradus.roadmap").joinpath("report_assets").iterdir():
        if asset.name.endswith(".js") and asset.name != "uplot.min.js":
            text = asset.read_text(encoding="utf-8")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|</", text), asset.name
            # Lines are stripped and comment lines left out of the page, which multi-line texts would not survive.
            assert all(line.count("`") % 2 == 0 for line in text.splitlines()), asset.name


def test_reports_need_no_torch():
    code = "import sys, gradus.roadmap.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Counts what goes wrong from inside a copy of the page, whose policy is lifted for this one script.
PROBE = """<script>
window.wrong = [];
addEventListener("error", (event) => wrong.push(event.message));
console.error = (...words) => wrong.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
  for (const row of document.querySelectorAll("details")) row.open = true;
  for (const button of document.querySelectorAll("button")) if (button.className !== "copy") button.click();
  setTimeout(() => { document.title = JSON.stringify({wrong, pwned: window.pwned ?? 0,
    images: document.images.length, sections: [...document.querySelectorAll("section")].map((s) => s.id),
    canvases: document.querySelectorAll("canvas").length, bars: document.querySelectorAll(".ability").length,
    boxes: document.querySelectorAll(".stage-box").length,
    notes: [...document.querySelectorAll("p.note")].map((p) => p.textContent),
    nothing: [...document.querySelectorAll(".nothing")].map((p) => p.textContent)});
    document.body.replaceChildren(); /* dumping half a surrogate pair ends the browser */ }, 300);
}, 100));
</script>"""


def browsed(path, tmp_path):
    """What a browser makes of a report, with every fold open and every button pressed."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    text = path.read_text(encoding="utf-8")
    copy = tmp_path / "probed.html"
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)[0]
    copy.write_text(text.replace(policy, PROBE), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-sync", "--disable-background-networking",
               "--virtual-time-budget=4000", "--window-size=1280,12000", f"--user-data-dir={tmp_path}/p")  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", copy.as_uri()], capture_output=True, check=True, timeout=300
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout.decode("utf-8", "replace"), re.S)[1]
    return json.loads(html.unescape(title))


SECTIONS = ["abilities", "stages", "questions", "training", "samples", "lineage", "data", "time", "machine", "ledger"]


def test_a_browser_shades_the_windows_that_were_passed_over(run, tmp_path):
    run.returns = True
    page = write_report(run.record().finish().judge(True).folder)
    seen = browsed(page, tmp_path)
    assert seen["wrong"] == []
    note = "Shaded: 1 window of data passed over after refused steps (at step 25 back to step 20, without the data of "
    assert [text for text in seen["notes"] if text == f"{note}steps 20 to 24)."]


@pytest.mark.parametrize("steps", [40, 10])
def test_a_browser_shows_every_part_and_runs_nothing_hostile(steps, run, tmp_path):
    run.says, run.steps = HOSTILE, steps
    seen = browsed(write_report(run.record().finish().judge(True).folder), tmp_path)
    assert seen["wrong"] == []
    assert (seen["pwned"], seen["images"]) == (0, 0)
    assert seen["sections"] == SECTIONS
    assert (seen["boxes"], seen["bars"]) == (10, 14)
    assert seen["canvases"] >= 12
    assert not [text for text in seen["nothing"] if "could not be shown" in text]


def test_a_browser_leaves_out_what_an_empty_run_has_not(run, tmp_path):
    seen = browsed(write_report(run.record().folder), tmp_path)
    assert seen["wrong"] == []
    assert seen["sections"] == ["lineage", "machine", "ledger"]
    assert "No finished stage holds a model yet." in seen["nothing"]


# Across stages, and two runs


def test_measures_stand_over_the_models_in_the_order_they_were_made(run):
    lines = {line["measure"]: line for line in report_data(run.record().finish().folder)["across"]}
    total = lines["probes.fresh.total"]
    assert [point["stage"] for point in total["points"]] == ["chat", "polish"]
    assert total["points"][1] == {"stage": "polish", "value": 18 / 24, "n": 24} | dict(
        zip(("lower", "upper"), wilson(18, 24), strict=True)
    )
    assert (total["main"], total["is_share"], total["lower_is_better"]) == (True, True, False)
    assert not lines["probes.fresh.weekday"]["main"]
    # Only one stage pretrains, and one point is no line.
    assert "bits per byte while training" not in lines


def test_an_audit_is_told_by_kind_with_the_answers_that_held_one(run):
    run.says = HOSTILE
    rate = {"value": 0.0, "n": 50, "successes": 0, "lower": 0.0, "upper": 0.06}
    loop = rate | {"value": 0.02, "successes": 1, "upper": 0.1}

    def audited(work, stage):
        samples = [{"id": "a#0", "kinds": ["loop"], "answer": HOSTILE, "excerpt": "2 words 9 times over: so so"},
                   {"id": "b#0", "kinds": [], "answer": "fine", "excerpt": ""}]  # fmt: skip
        (work / "audit.json").write_text(json.dumps({"samples": samples}))
        return {"audit": {"clean": rate | {"value": 0.98}, "any": loop, "loop": loop, "hedge": rate}}

    run._eval = audited
    data = report_data(run.record().finish().folder)
    (first, second) = data["audits"]
    assert (first["model"], second["model"], first["left_out"]) == ("chat", "polish", 0)
    assert [entry["kind"] for entry in first["rates"]] == ["any", "loop", "hedge"]
    assert [sample["id"] for sample in first["samples"]] == ["a#0"]
    assert next(line for line in data["across"] if line["measure"] == "audit.clean")["main"]


def test_faults_are_better_where_they_are_fewer():
    def asked(stage, value):
        results = {"audit": {"clean": {"value": 1 - value}, "loop": {"value": value}}, "bpb": {"value": True}}
        return SimpleNamespace(name=stage, record={"makes": "eval", "inputs": {"from": [stage]}}, results=results)

    lines = {line["measure"]: line["lower_is_better"] for line in across_stages([asked("a", 0.1), asked("b", 0.2)])}
    assert lines == {"audit.clean": False, "audit.loop": True}


def two_runs(tmp_path):
    first, second = Run(tmp_path / "one"), Run(tmp_path / "two")
    second.steps = 60
    for run in (first, second):
        run.record()
    second.stages[4]["settings"]["optimizer"]["matrix_lr"] = 0.05
    second.stages[4]["fingerprint"] = "9" * 64
    second.stages[4]["artifact"] = "pretrain-" + "9" * 16
    record = json.loads((second.folder / "roadmap.json").read_text()) | {"stages": second.stages}
    (second.folder / "roadmap.json").write_text(json.dumps(record))
    first.finish()
    second.per_category = 8
    second.finish()
    return first, second


def test_two_runs_are_compared_by_measure_change_curve_and_answer(tmp_path):
    first, second = two_runs(tmp_path)
    versus = versus_data(first.folder, second.folder)["versus"]
    total = next(one for one in versus["measures"] if one["measure"] == "exam.probes.fresh.total")
    # Of each category's first 4 questions, 3 are right with 4 asked and all 4 with 8: one won in each of 6.
    assert (total["verdict"], total["text"]) == ("better", "6 won, 0 lost of 24 shared items (of 24 and 48)")
    assert total["p"] == mcnemar_exact(0, 6)
    base = next(stage for stage in versus["stages"] if stage["name"] == "base")
    assert base["changes"] == ["optimizer.matrix_lr changed from 0.02 to 0.05"]
    assert {s["state"] for s in versus["stages"] if s["name"] != "base"} == {"the same artifact"}
    curve = next(curve for curve in versus["curves"] if curve["stage"] == "base")
    assert len(curve["step"]) == 60
    assert (curve["losses"][0][45], curve["losses"][1][45] is None) == (None, False)
    flipped = next(f for f in versus["flipped"] if f["suite"] == "fresh" and f["stage"] == "exam")
    assert [(pair["before"]["passed"], pair["after"]["passed"]) for pair in flipped["items"]] == [(False, True)] * 6


def test_runs_without_a_common_finished_stage_are_refused(tmp_path):
    first, second = Run(tmp_path / "one").record(), Run(tmp_path / "two").record()
    with pytest.raises(DataError, match="have finished no stage of the same name"):
        versus_data(first.folder, second.folder)


def test_a_browser_shows_two_runs(tmp_path):
    first, second = two_runs(tmp_path)
    seen = browsed(write_comparison(first.folder, second.folder), tmp_path)
    assert seen["wrong"] == []
    assert seen["sections"] == ["measures", "changes", "training", "questions"]
    assert seen["canvases"] == 3


def test_neither_page_nor_card_names_a_folder_or_a_service_of_its_author(run):
    secret, teacher = "/home/someone/private", {"model": "large", "base_url": "http://10.1.2.3:8000/inside/v1"}
    run.record()
    file = run.folder / "roadmap.json"
    record = json.loads(file.read_text())
    record["path"] = f"{secret}/toy.toml"
    record["stages"][1]["settings"] |= {"teacher": teacher, "take": f"folder:{secret}/qwen"}
    file.write_text(json.dumps(record))
    page = write_report(run.finish().folder).read_text()
    assert secret not in page
    assert "10.1.2.3:8000" not in page
    assert embedded(page)["path"] == "toy.toml"
    assert embedded(page)["stages"][1]["settings"]["teacher"]["base_url"] == "10.1.2.3"

    work = begin_work(run.home / "artifacts", "import", "9" * 64)
    settings = {"take": "hub:owner/small", "teacher": teacher, "documents": f"{secret}/notes.jsonl",
                "sources": [{"kind": "files", "path": [f"{secret}/*.txt", "books/a.txt"]}]}  # fmt: skip
    made = commit_artifact(
        work, kind="import", fingerprint="9" * 64, settings=settings, sources={"hub:owner/small": "c0ffee"}
    )
    origin = origin_of(made, run.home, "toy")
    assert origin.base_models == ("hub:owner/small@c0ffee",)
    assert [source.name for source in origin.sources] == [
        "*.txt, books/a.txt", "large (a teacher model at 10.1.2.3)", "notes.jsonl", "hub:owner/small@c0ffee",
    ]  # fmt: skip
    assert not any(source.reference for source in origin.sources)
