"""Every preference loss and its metrics against TRL's, on the same weights and the same pairs.

`make test` compares with golden/trl_dpo.json. Where TRL is installed (make test-peers) TRL computes the values anew;
GRADUS_WRITE_GOLDEN=1 then writes them to that file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradus.data.loader import REFERENCE_LOGP
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import save_model
from gradus.posttrain.config import DPOSettings
from gradus.posttrain.dpo import answer_logps, dpo_loss

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parent / "golden" / "trl_dpo.json"
VOCAB = 64
# (tokens of the prompt, of the chosen and of the rejected answer)
LENGTHS = ((5, 7, 4), (3, 2, 9), (8, 6, 6), (2, 12, 1))
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "sigmoid_norm": {"beta": 2.0},
    "ipo": {"beta": 0.5},
    "robust": {"label_smoothing": 0.2},
    "apo_zero": {},
    "apo_down": {},
    "simpo": {"beta": 2.5, "gamma": 1.375},
}


def model(seed: int) -> Transformer:
    table = {"depth": 2, "width": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "mlp_width": 64}
    built = build_model(model_config(table, VOCAB, 64), torch.Generator().manual_seed(0))
    # numpy's generator gives the same numbers in every version.
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.from_numpy(random.normal(0, 0.2, tuple(parameter.shape))))
    return built


def documents() -> list[tuple[list[int], int]]:
    """Chosen and rejected in turn: their ids and how many of them are the prompt."""
    random = np.random.default_rng(7)
    found = []
    for prompt, *answers in LENGTHS:
        question = random.integers(0, VOCAB, prompt).tolist()
        found += [(question + random.integers(0, VOCAB, length).tolist(), prompt) for length in answers]
    return found


def batch(rows: list[tuple[list[int], int]]) -> Batch:
    tokens, targets = [], []
    for ids, prompt in rows:
        tokens += ids
        targets += [IGNORE] * (prompt - 1) + ids[prompt:] + [IGNORE]
    return Batch(torch.tensor(tokens), torch.tensor(targets), Documents.of_lengths([len(ids) for ids, _ in rows]))


def ours(loss: str, rows: list[tuple[list[int], int]], sft_weight: float = 0.0) -> dict[str, float]:
    """Means over the pairs, by TRL's names."""
    whole = batch(rows)
    with torch.no_grad():
        whole.extra[REFERENCE_LOGP] = answer_logps(model(2), whole)[0]
        settings = DPOSettings(loss=loss, sft_weight=sft_weight, **LOSSES[loss])  # type: ignore[arg-type]
        total, count, metrics = dpo_loss(settings)(model(1), whole)
    mean = {name: float(value / count) for name, value in metrics.items()}
    return {
        "loss": float(total / count),
        "rewards/chosen": mean["chosen_reward"],
        "rewards/rejected": mean["rejected_reward"],
        "rewards/accuracies": mean["accuracy"],
        "rewards/margins": mean["margin"],
        "logps/chosen": mean["chosen_logp"],
        "logps/rejected": mean["rejected_logp"],
    }


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_its_metrics_equal_trl_s(loss: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["trl"] == "1.16.0"
    assert ours(loss, documents()) == pytest.approx(golden["losses"][loss], rel=1e-5, abs=1e-5)


def test_the_likelihood_term_of_one_pair_equals_trl_s() -> None:
    """Of several pairs TRL takes the mean over all tokens, ours is over pairs as in the paper."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["sigmoid_and_sft_of_one_pair"]
    for pair, expected in enumerate(golden):
        found = ours("sigmoid", documents()[2 * pair : 2 * pair + 2], sft_weight=0.3)
        assert found["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.filterwarnings("default")
def test_the_golden_values_are_what_trl_computes(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed (make test-peers)")
    for name, seed in (("policy", 1), ("reference", 2)):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, model(seed))
    rows = documents()
    found = {
        "trl": trl.__version__,
        "losses": {loss: trl_values(loss, rows, tmp_path) for loss in LOSSES},
        "sigmoid_and_sft_of_one_pair": [
            trl_values("sigmoid", rows[i : i + 2], tmp_path, sft_weight=0.3)["loss"] for i in range(0, len(rows), 2)
        ],
    }
    if os.environ.get("GRADUS_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for loss in LOSSES:
        assert found["losses"][loss] == pytest.approx(golden["losses"][loss], rel=1e-5, abs=1e-6)  # type: ignore[index]


def trl_values(loss: str, rows: list[tuple[list[int], int]], folder: Path, sft_weight: float = 0.0) -> dict[str, float]:
    """One forward pass of TRL's trainer over the pairs. SimPO is its CPO trainer's."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2")
    data = Dataset.from_list([{"prompt": "w3", "chosen": "w4", "rejected": "w5"}])
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("policy", "reference"))
    common = {"output_dir": str(folder / "out"), "report_to": [], "bf16": False, "use_cpu": True}
    settings = DPOSettings(loss=loss, **LOSSES[loss])  # type: ignore[arg-type]
    longest = max(len(ids) for ids, _ in rows)
    order = [*rows[0::2], *rows[1::2]]  # TRL's batches hold all chosen answers, then all rejected ones
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in order])
    real = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in order])
    answer = real * torch.tensor([[int(place >= prompt) for place in range(longest)] for _, prompt in order])
    if loss == "simpo":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        arguments = CPOConfig(
            **common, loss_type="simpo", beta=settings.beta, simpo_gamma=settings.gamma, cpo_alpha=0.0
        )
        trainer = CPOTrainer(policy, arguments, train_dataset=data, processing_class=tokenizer)
        with torch.no_grad():
            logits = policy(input_ids=ids, attention_mask=real).logits
            labels = ids.masked_fill(answer == 0, -100)
            chosen, rejected = trainer.get_batch_logps(logits, labels, average_log_prob=True).chunk(2)
            sums = trainer.get_batch_logps(logits, labels).chunk(2)
            losses, *rewards = trainer.cpo_loss(chosen, rejected)
        figures = {
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/accuracies": (rewards[0] > rewards[1]).float(),
            "rewards/margins": rewards[0] - rewards[1],
            "logps/chosen": sums[0],
            "logps/rejected": sums[1],
        }
        return {"loss": float(losses.mean())} | {name: float(value.mean()) for name, value in figures.items()}
    from trl import DPOConfig, DPOTrainer

    kinds = {loss: 1.0} | ({"sft": sft_weight} if sft_weight else {})
    arguments = DPOConfig(
        **common,
        loss_type=list(kinds),
        loss_weights=list(kinds.values()),
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
    )
    trainer = DPOTrainer(policy, reference, arguments, train_dataset=data, processing_class=tokenizer)
    policy.eval()
    with torch.no_grad():
        inputs = {"input_ids": ids, "attention_mask": real, "completion_mask": answer}
        value = trainer.compute_loss(policy, inputs)
    logged = trainer._metrics["train" if policy.training else "eval"]
    names = (
        *(f"rewards/{n}" for n in ("chosen", "rejected", "accuracies", "margins")),
        "logps/chosen",
        "logps/rejected",
    )
    return {"loss": float(value)} | {name: float(logged[name][-1]) for name in names}
