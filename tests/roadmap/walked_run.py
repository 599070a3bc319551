"""A run folder as a walk leaves it, with every kind of file that the report and the watch read."""

import json
import math

from gradus.core.artifact import begin_work, commit_artifact
from gradus.core.ledger import Ledger
from gradus.core.statistics import wilson

ROLLBACK = {"event": "rollback", "step": 25, "returned_to": 20, "data_steps": [20, 25]}


def write_rollback(work):
    """Into the middle of the curves, with the lines of the steps that were trained twice."""
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    twice = [line for line in lines if line["step"] <= 24] + [ROLLBACK] + [line for line in lines if line["step"] > 20]
    (work / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in twice))


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
