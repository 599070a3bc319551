"""Names of what lies in a home, the folder of artifacts/ and runs/ (see docs/artifacts.md)."""

ARTIFACTS = "artifacts"
RUNS = "runs"
REFERENCE_FOLDER = "reference_logps"  # of preference optimisation, to be used again; may be deleted
# In runs/<roadmap>/
RUN_RECORD = "roadmap.json"
LEDGER = "ledger.jsonl"
REPORT = "report.html"
# In an artifact, and in the work folder that becomes one
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
CHECKPOINTS_FOLDER = "checkpoints"
WORK_SUFFIX = ".work"
