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

from gradus.core.artifact import begin_work, commit_artifact
from gradus.core.errors import ArtifactError, DataError
from gradus.core.fingerprint import digest, file_digest
from gradus.core.ledger import Ledger
from gradus.core.statistics import mcnemar_exact, wilson
from gradus.roadmap import report_measures
from gradus.roadmap.report import report_page, script_json, write_comparison, write_report
from gradus.roadmap.report_data import report_data
from gradus.roadmap.report_stage_measures import across_stages
from gradus.roadmap.report_versus import versus_data

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1><!-- \u2028 \ud800 {{data}}"
STAGES = (
    ("primer", "corpus", "corpus", {}),
    ("talk", "synthesize", "pool", {}),
    ("bpe", "tokenizer", "tokenizer", {"corpus": ["primer"], "pools": ["talk"]}),
    ("tokens", "tokenize", "tokens", {"corpus": ["primer"], "tokenizer": ["bpe"]}),
    ("base", "pretrain", "pretrain", {"tokens": ["tokens"]}),
    ("chat", "sft", "sft", {"from": ["base"], "mixture[].source": ["talk"]}),
    ("look", "eval", "eval", {"from": ["chat"]}),
    ("pairs", "pairs", "pairs", {"from": ["chat"], "prompts": ["talk"]}),
    ("polish", "dpo", "dpo", {"from": ["chat"], "pairs": ["pairs"]}),
    ("exam", "eval", "eval", {"from": ["polish"]}),
)
SECONDS = dict(zip([s[0] for s in STAGES], (6, 9, 4, 3, 95, 240, 31, 40, 62, 33), strict=True))
GATE = {"measure": "probes.fresh.total", "bound": "value", "at_least": 0.75}
CATEGORIES = ("arithmetic", "percent", "weekday", "letter_count", "identity", "follow_up")


def measure(outcomes):
    """A measure as the eval stage leaves it, with 0 or 1 by item id."""
    n, k = len(outcomes), sum(outcomes.values())
    low, high = wilson(k, n)
    return {"value": k / n, "n": n, "successes": k, "lower": low, "upper": high, "items": outcomes}


class Run:
    """A run folder in the making: roadmap.json, artifacts and ledger as a walk leaves them."""

    def __init__(self, home, per_category=4, steps=40):
        self.home, self.steps, self.per_category = home, steps, per_category
        self.folder = home / "runs" / "toy"
        self.folder.mkdir(parents=True)
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self.stages = []
        self.says = "It is 12."
        self.returns = False  # to a checkpoint, in the middle of every training stage

    def record(self, stages=STAGES, gates=(GATE,)):
        for number, (name, kind, makes, inputs) in enumerate(stages):
            fingerprint = f"{number:x}" * 64
            self.stages.append(
                {"name": name, "kind": kind, "makes": makes, "fingerprint": fingerprint, "inputs": inputs,
                 "artifact": f"{makes}-{fingerprint[:16]}", "seed": 1,
                 "gates": list(gates) if name == "exam" else [],
                 "settings": {"note": self.says, "optimizer": {"matrix_lr": 0.02}},
                 "predicted": {"seconds": SECONDS[name] / 2, "facts": {}, "notes": []}}
            )  # fmt: skip
        record = {"name": "toy", "seed": 1, "path": str(self.home / "toy.toml"), "description": self.says,
                  "machine": {"threads": 2}, "stages": self.stages}  # fmt: skip
        (self.folder / "roadmap.json").write_text(json.dumps(record))
        self.ledger.append({"event": "walk", "time": "2026-01-02T03:04:05+00:00", "roadmap": "toy",
                            "stages": [s["name"] for s in self.stages], "machine": {"cores": 2, "memory_bytes": 2**33},
                            "software": {"python": "3.11", "torch": "2.13.0"}})  # fmt: skip
        return self

    def finish(self, *names):
        for stage in self.stages:
            if names and stage["name"] not in names:
                continue
            work = begin_work(self.home / "artifacts", stage["makes"], stage["fingerprint"])
            results = getattr(self, "_" + stage["kind"], lambda work, stage: {"vocab_size": 768})(work, stage)
            artifact = commit_artifact(
                work, kind=stage["makes"], fingerprint=stage["fingerprint"], name=stage["name"],
                seconds=float(SECONDS[stage["name"]]), started="2026-01-02T03:04:05+00:00", results=results,
            )  # fmt: skip
            (self.folder / stage["name"]).symlink_to(artifact.path)
            for name, value in (("loss", 1.5), (self.says, 2.0)):
                self.ledger.append({"event": "result", "stage": stage["name"], "measure": name, "value": value})
            self.ledger.append({"event": "stage", "stage": stage["name"], "seconds": 3.0, "kind": stage["kind"]})
        return self

    def judge(self, passed, **more):
        exam = self.stages[-1]
        self.ledger.append({"event": "gate", "stage": "exam", "fingerprint": exam["fingerprint"], "gate": GATE,
                            "passed": passed, "text": "probes.fresh.total = 0.8 " + self.says, **more})  # fmt: skip
        return self

    def _corpus(self, work, stage):
        sample = {"place": "a.txt:3", "excerpt": self.says, "source": "books"}
        drops = {"total": 7, "by_reason": {"duplicate": 7}, "samples": {"duplicate": [sample] * 9}}
        (work / "drops.json").write_text(json.dumps(drops))
        histogram = {"edges": [0, 1, 2, 4, 8, 16, 32, 64], "counts": [0, 0, 3, 9, 30, 12, 2]}
        side = {"documents": 900, "bytes": 50_000, "by_source": {"books": {"documents": 600, "bytes": 30_000},
                self.says[:20]: {"documents": 300, "bytes": 20_000}},
                "document_bytes": {"count": 900, "quantiles": {"p50": 14}, "histogram": histogram}}  # fmt: skip
        return {"documents": 900, "bytes": 50_000, "counts": {"read": 907, "dropped": {"duplicate": 7}, "train": side}}

    def _synthesize(self, work, stage):
        by_category = {name: 100 + i for i, name in enumerate(CATEGORIES)}
        return {"conversations": 600, "counts": {"by_category": by_category, "rejected": {"too_long": 3}}}

    def _pretrain(self, work, stage):
        self._model(work)
        self.write_curves(work, "bpb")
        rows = [{"step": step, "prompt": "The ", "text": self.says} for step in range(10, self.steps + 1, 10)]
        (work / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"parameters": 2_000_000, "tokens": 4_000_000, "bpb": 1.31, "loss": 1.2}

    def _sft(self, work, stage):
        self._model(work)
        self.write_curves(work, "loss_validation")
        rows = [{"step": step, "prompt": "6 + 6?", "thinking": self.says, "answer": self.says,
                 "calls": [{"name": "calculator", "arguments": {"expression": "6 + 6"}, "result": "12"}]}
                for step in (20, 40)]  # fmt: skip
        (work / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        mixture = [{"source": self.says[:20], "epochs": 2.0, "token_fraction": 1.0}]
        return {"parameters": 2_000_000, "tokens": 6_000_000, "mixture": mixture, "packing": {"rows": 40}}

    def _dpo(self, work, stage):
        self._model(work)
        self.write_curves(work, "margin")
        return {"parameters": 2_000_000, "tokens": 1_000_000}

    def _model(self, work):
        (work / "model").mkdir()
        (work / "model" / "config.json").write_text("{}")

    def write_curves(self, work, evaluated):
        with (work / "metrics.jsonl").open("w") as file:
            for step in range(1, self.steps + 1):
                noise = 0.08 * math.sin(step * 12.9898)
                line = {"event": "train", "step": step, "loss": 1.1 + 5 * math.exp(-9 * step / self.steps) + noise,
                        "lr": 0.02 * min(1, 10 * step / self.steps, 2 - 2 * step / self.steps), "grad_norm": 1 + noise,
                        "tokens": step * 8192, "tokens_per_second": 31_000 + 900 * noise, "skipped": 0}  # fmt: skip
                file.write(json.dumps(line) + "\n")
                if step % max(1, self.steps // 8) == 0:
                    value = 1.2 + 3 * math.exp(-5 * step / self.steps)
                    measures = {evaluated: value, "bpb/books": value, f"bpb/{self.says}": value + 0.1}
                    file.write(json.dumps({"event": "evaluate", "step": step} | measures) + "\n")
        if self.returns:
            write_rollback(work)

    def _eval(self, work, stage):
        right = 0.62 if stage["name"] == "look" else 0.9
        (work / "probes").mkdir()
        probes = {}
        for suite in ("trained", "fresh"):
            items = []
            for category in CATEGORIES:
                for i in range(self.per_category):
                    passed = (i + 0.5) / self.per_category < right - (0.1 if suite == "fresh" else 0)
                    call = {"name": "calculator", "arguments": {"expression": f"{i} + 6"}, "result": str(i + 6)}
                    items.append(
                        {"id": f"{category}-{i}", "category": category, "passed": passed, "calls": [call],
                         "messages": [{"role": "user", "content": f"What is {i} + 6? {self.says}"}],
                         "reasons": [] if passed else [f"answer_number: {self.says}"],
                         "thinking": f"I add. {self.says}", "answer": self.says}
                    )  # fmt: skip
            (work / "probes" / f"{suite}.json").write_text(json.dumps({"suite": suite, "items": items}))
            groups = {"total": items} | {c: [item for item in items if item["category"] == c] for c in CATEGORIES}
            probes[suite] = {n: measure({i["id"]: int(i["passed"]) for i in g}) for n, g in groups.items()}
        return {"probes": probes}


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


ROLLBACK = {"event": "rollback", "step": 25, "returned_to": 20, "data_steps": [20, 25]}


def write_rollback(work):
    """Into the middle of the curves, with the lines of the steps that were trained twice."""
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    twice = [line for line in lines if line["step"] <= 24] + [ROLLBACK] + [line for line in lines if line["step"] > 20]
    (work / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in twice))


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
        [CHROMIUM, *options, "--dump-dom", copy.as_uri()], capture_output=True, check=True, timeout=60
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
