"""A home made by hand: artifacts, an unfinished stage with checkpoints, the records of a run. No torch."""

import json
import random
import shutil

from gradus.core.artifact import begin_work, commit_artifact
from gradus.core.fingerprint import digest, file_digest
from gradus.core.ledger import Ledger


class Home:
    """A home of a roadmap called "toy" with stages prose (corpus), tokens and base (pretrain)."""

    kinds = ("corpus", "tokens", "pretrain")

    def __init__(self, path):
        self.path = path
        self.artifacts = path / "artifacts"
        self.run = path / "runs" / "toy"
        self.run.mkdir(parents=True)
        self.artifacts.mkdir()
        self.names = {kind: f"{kind}-{digest(kind)[:16]}" for kind in self.kinds}
        stages = [{"name": kind, "kind": kind, "artifact": self.names[kind]} for kind in self.kinds]
        (self.run / "roadmap.json").write_text(json.dumps({"name": "toy", "stages": stages}))
        Ledger(self.run / "ledger.jsonl").append({"event": "walk"})

    @property
    def work(self):
        """The work folder of the stage that trains."""
        return self.artifacts / f"{self.names['pretrain']}.work"

    def finish(self, kind, **files):
        work = begin_work(self.artifacts, kind, digest(kind))
        for name, content in (files or {"data.bin": bytes(5000), "sub/more.txt": b"text"}).items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        return commit_artifact(work, kind=kind, fingerprint=digest(kind), name=kind)

    def checkpoint(self, step):
        """A whole checkpoint, as training leaves one, and the lines of its metrics."""
        folder = self.work / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        rng = random.Random(step)
        (folder / "model.safetensors").write_bytes(rng.randbytes(3000))
        (folder / "state.json").write_text(json.dumps({"step": step}))
        files = {f.name: {"bytes": f.stat().st_size, "sha256": file_digest(f)} for f in folder.iterdir()}
        (folder / "manifest.json").write_text(json.dumps({"format_version": 1, "files": files}))
        with (self.work / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": step}) + "\n")
        (self.work / "scratch").mkdir(exist_ok=True)
        (self.work / "scratch" / "seconds.json").write_text('{"seconds": 1.0, "started": "now"}')
        return folder

    def retire(self, step):
        """Delete a checkpoint as retention does."""
        folder = self.work / "checkpoints" / f"step-{step:08d}"
        doomed = folder.with_name(f"{folder.name}.tmp-00ff")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def contents(folder, *left_out):
    """Every file below a folder by its path, but for those whose path holds one of some texts."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {path: data for path, data in found.items() if not any(text in path for text in left_out)}
