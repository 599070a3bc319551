"""Names of what lies in a home, the folder of artifacts/ and runs/ (see docs/artifacts.md), and where it is."""

import os
from pathlib import Path

ARTIFACTS = "artifacts"
RUNS = "runs"
ANSWERS = "answers.sqlite"  # of remote models, which cost money
REFERENCE_FOLDER = "reference_logps"  # of preference optimisation, to be used again; may be deleted
GGUF_CACHE = "gguf"  # files for the backend llamacpp, made again where they lack; may be deleted
DRY_HOME = ".dry-run-"  # how the folders of dry runs begin
# In runs/<roadmap>/
RUN_RECORD = "roadmap.json"
LEDGER = "ledger.jsonl"
REPORT = "report.html"
LOCK = ".lock"  # held while a process walks, with its number; in artifacts/ while a walk begins or garbage is deleted
# In an artifact, and in the work folder that becomes one
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
CHECKPOINTS_FOLDER = "checkpoints"
PROTECTED_FILE = "protected"  # in a checkpoint that is never deleted
MEASURES_FILE = "measures.json"  # in checkpoints/: what each was measured at, by its step
WORK_SUFFIX = ".work"
RAW = "raw"  # shards of datasets that are kept
# Of a server, in a home
KEYS_FILE = "keys.json"
USAGE_FILE = ".usage.json"
DEPLOYED = "deployed.json"
SOCKETS = ".servers"  # of the servers that run


def usual_home() -> Path:
    """Where commands look without being told: GRADUS_HOME, or the current folder."""
    return Path(os.environ.get("GRADUS_HOME") or ".").expanduser()
