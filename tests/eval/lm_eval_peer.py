"""What lm-eval says of the seeded model on local files, item by item; run where lm-eval is installed.

    python tests/eval/lm_eval_peer.py MODEL_FOLDER DATA_FOLDER OUT.json [--model gradus]

Tasks are lm-eval's own, with only the data set replaced: rows of the local files are brought into the shape of the
published sets. OUT holds, by task, the log-likelihood of every choice and the verdicts by item id, and no text.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

ITEMS = 12
OWN_TASKS = Path(lm_eval.__file__).parent / "tasks"
MMLU_SUBJECT = "us_foreign_policy"


def json_lines(path: Path) -> list[dict[str, Any]]:
    path = path if path.exists() else path.with_name(path.name + ".gz")
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def lettered(row: dict[str, Any], question: str) -> dict[str, Any]:
    letters = list("ABCDE")[: len(row["choices"])]
    choices = {"text": row["choices"], "label": letters}
    return {question: row.get("question", row.get("query")), "choices": choices, "answerKey": letters[row["gold"]]}


def hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    activity, _, context = row["query"].partition(": ")
    said = {"activity_label": activity, "ctx_a": context, "ctx_b": ""}
    return said | {"endings": row["choices"], "label": str(row["gold"])}


def boolq(row: dict[str, Any]) -> dict[str, Any]:
    passage, _, question = row["query"].strip().removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": row["gold"]}


def mmlu(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [{"question": r[0], "choices": r[1:5], "answer": "ABCD".index(r[5]), "subject": MMLU_SUBJECT} for r in rows]


def pages(data: Path) -> list[dict[str, Any]]:
    """Articles as the document-level set of EleutherAI has them."""
    text = gzip.decompress((data / "wikitext2/test.txt.gz").read_bytes()).decode()
    found: list[str] = []
    kept: list[str] = []
    for line in text.split("\n"):
        flat = line.replace("= = =", "===").replace("= =", "==").strip()
        if flat.startswith("= ") and flat.strip().endswith(" ="):
            if "\n".join(kept).strip():
                found.append("\n".join(kept))
            kept = []
        kept.append(line)
    return [{"page": page} for page in [*found, "\n".join(kept)]]


def sets(data: Path) -> dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """By our task: lm-eval's file, rows, and what else its entry needs."""
    labels = (data / "piqa/valid-labels.lst").read_text().split()
    piqa = [row | {"label": int(labels[i])} for i, row in enumerate(json_lines(data / "piqa/valid.jsonl"))]
    arc = {
        kind: [lettered(row, "question") for row in json_lines(data / f"arc/arc_{kind}_test.jsonl")]
        for kind in ("easy", "challenge")
    }
    passages = json_lines(data / "lambada/lambada_openai.jsonl")
    lambada = [{"text": f"{row['context']} {row['continuation']}"} for row in passages]
    contexts = json_lines(data / "hellaswag/hellaswag_val.jsonl")
    openbook = [lettered(row, "question_stem") for row in json_lines(data / "core_bundle/openbook_qa.jsonl")]
    questions = mmlu(data / f"mmlu/data/test/{MMLU_SUBJECT}_test.csv")
    subject = f"mmlu/default/mmlu_{MMLU_SUBJECT}.yaml"
    return {
        "arc_easy": ("arc/arc_easy.yaml", arc["easy"], {}),
        "arc_challenge": ("arc/arc_challenge.yaml", arc["challenge"], {}),
        "boolq": ("super_glue/boolq/default.yaml", [*map(boolq, json_lines(data / "core_bundle/boolq.jsonl"))], {}),
        "hellaswag": ("hellaswag/hellaswag.yaml", [*map(hellaswag, contexts)], {}),
        "lambada_openai": ("lambada/lambada_openai.yaml", lambada, {}),
        "openbookqa": ("openbookqa/openbookqa.yaml", openbook, {}),
        "piqa": ("piqa/piqa.yaml", piqa, {}),
        "winogrande": ("winogrande/default.yaml", json_lines(data / "winogrande/dev.jsonl"), {}),
        "mmlu": (subject, questions, {}),
        "mmlu_5shot": (subject, questions, {"num_fewshot": 5}),
        "wikitext2": ("wikitext/wikitext.yaml", sorted(pages(data), key=lambda row: len(row["page"]))[:2], {}),
    }  # fmt: skip


def write_tasks(data: Path, folder: Path, items: int | None) -> list[str]:
    names = []
    for name, (own, rows, more) in sets(data).items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[:items]), encoding="utf-8")
        files = {"test": str(file)}
        if "num_fewshot" in more:
            examples = folder / f"{name}_dev.jsonl"
            shown = mmlu(data / f"mmlu/data/dev/{MMLU_SUBJECT}_dev.csv")
            examples.write_text("".join(json.dumps(row) + "\n" for row in shown), encoding="utf-8")
            files["dev"] = str(examples)
        entry = {
            "include": str(OWN_TASKS / own), "task": f"local_{name}", "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": files}, "training_split": None, "validation_split": None,
            "test_split": "test", **more,
        }  # fmt: skip
        if "num_fewshot" not in more:
            entry["fewshot_split"] = None
        (folder / f"{name}.yaml").write_text(json.dumps(entry), encoding="utf-8")
        names.append(f"local_{name}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="hf")
    args = parser.parse_args()
    if args.model == "gradus":
        import gradus.eval.harness  # noqa: F401  (makes the model known)
    options: dict[str, Any] = {"pretrained": str(args.bundle), "device": "cpu"}
    if args.model == "hf":
        # transformers would take the end of a message for the beginning of a document.
        end = next(t["id"] for t in json.loads((args.bundle / "tokenizer.json").read_text())["added_tokens"]
                   if t["content"] == "<|endoftext|>")  # fmt: skip
        options |= {"dtype": "float32", "prefix_token_id": end}
    with tempfile.TemporaryDirectory() as folder:
        names = write_tasks(args.data, Path(folder), ITEMS)
        manager = TaskManager(include_path=folder, include_defaults=False)
        found = lm_eval.simple_evaluate(
            model=args.model, model_args=options, tasks=names, task_manager=manager, log_samples=True, batch_size=4,
            bootstrap_iters=0,
        )  # fmt: skip
    assert found is not None
    out: dict[str, Any] = {"lm_eval": lm_eval.__version__, "tasks": {}}
    for name in names:
        items = []
        for sample in sorted(found["samples"][name], key=lambda sample: sample["doc_id"]):
            logp = [answer[0] if isinstance(answer, (list, tuple)) else answer for answer in sample["filtered_resps"]]
            entry = {"logp": [round(float(value), 5) for value in logp]}
            items.append(entry | {k: sample[k] for k in ("acc", "acc_norm") if k in sample})
        kept = {k.partition(",")[0]: v for k, v in found["results"][name].items()
                if isinstance(v, float) and "stderr" not in k}  # fmt: skip
        out["tasks"][name.removeprefix("local_")] = {"items": items, "results": kept}
    args.out.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
