"""The lm-eval side of lm_eval_throughput.py, in its own interpreter: a task a question, timed without loading."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

PARITY = Path(__file__).resolve().parent.parent / "tests/eval/lm_eval_peer.py"


def main() -> None:
    folder, data, items, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    spec = importlib.util.spec_from_file_location("lm_eval_peer", PARITY)
    assert spec is not None
    assert spec.loader is not None
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    end = next(token["id"] for token in json.loads((Path(folder) / "tokenizer.json").read_text())["added_tokens"]
               if token["content"] == "<|endoftext|>")  # fmt: skip
    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1, prefix_token_id=end)
    versions = {"lm_eval": lm_eval.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as place:
        parity.write_tasks(Path(data), Path(place), int(items))
        manager = TaskManager(include_path=place, include_defaults=False)
        print(json.dumps({"ready": True, **versions}), flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            name = f"local_{question['task']}"
            model.batch_size_per_gpu = question["batch_size"]
            task = manager.load_task_or_group([name])[name]
            task.build_all_requests(rank=0, world_size=1)
            requests = task.instances
            began = time.process_time()
            answers = model.loglikelihood(requests, disable_tqdm=True)
            seconds = time.process_time() - began
            by_item: dict[int, list[float]] = {}
            for request, (logp, _) in zip(requests, answers, strict=True):
                by_item.setdefault(request.doc_id, []).append(float(logp))
            print(json.dumps({"seconds": seconds, "logp": [by_item[key] for key in sorted(by_item)]}), flush=True)


if __name__ == "__main__":
    main()
