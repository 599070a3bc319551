"""The command that serves the same model folder with vLLM, for more than one process can carry. Torch-free.

vLLM has classes of its own for most of what is exported (model/reach.py), and takes the chat template from the folder.
Source: vLLM's documentation of `vllm serve`, and vLLM 0.32 on a CPU.
"""

from __future__ import annotations

import json
import shlex

from gradus.conversation.formats.hermes import VLLM_FLAGS
from gradus.model.reach import VLLM_NATIVE
from gradus.serve.deployments import ModelSource


def vllm_command(source: ModelSource) -> str | None:
    """The command line; None where vLLM has no class of its own for the folder, and for a file."""
    if not source.folder.is_dir():
        return None
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or []
    if VLLM_NATIVE.isdisjoint(architectures):
        return None
    words = ["vllm", "serve", str(source.folder), "--served-model-name", source.name]
    if source.tokenizer != source.folder:
        words += ["--tokenizer", str(source.tokenizer)]
    return shlex.join([*words, *VLLM_FLAGS])
