"""Golden values of TRL's GRPO loss (1.16) for tests/posttrain/test_grpo.py; run with a Python that has TRL.

    PEER/bin/python bench/trl_grpo.py tests/posttrain/golden/trl_grpo.json

`GRPOTrainer._compute_loss` is called as it is, on tensors from a seed in place of a model's: losses, gradients with
respect to the log-probabilities, divergence and clipped fraction for each kind of loss.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl import GRPOTrainer

MAX_TOKENS = 12
CASES: dict[str, dict[str, Any]] = {
    "dapo": {"loss_type": "dapo", "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.28},
    "dapo_kl": {"loss_type": "dapo", "beta": 0.04, "epsilon_low": 0.2, "epsilon_high": 0.28},
    "dr_grpo": {"loss_type": "dr_grpo", "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2},
    "dr_grpo_kl": {"loss_type": "dr_grpo", "beta": 0.1, "epsilon_low": 0.1, "epsilon_high": 0.4},
}


def main() -> None:
    """Write the tensors and what TRL makes of them."""
    generator = torch.Generator().manual_seed(5)
    rows, columns = 6, 9
    logp = -2 * torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    old = logp + 0.3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    reference = logp + 0.3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([9, 4, 7, 1, 9, 6])
    completion = (torch.arange(columns) < lengths[:, None]).long()
    tool = torch.ones_like(completion)
    tool[0, 3:6] = 0  # a tool's result inside the first answer
    inputs = {"logp": logp, "old": old, "reference": reference, "advantages": advantages, "completion": completion,
              "tool": tool}  # fmt: skip
    found = {name: _case(inputs, **case) for name, case in CASES.items()}
    content = {
        "trl": trl.__version__, "torch": torch.__version__, "max_tokens": MAX_TOKENS,
        "inputs": {name: value.tolist() for name, value in inputs.items()}, "cases": found,
    }  # fmt: skip
    Path(sys.argv[1]).write_text(json.dumps(content) + "\n")


def _case(
    given: dict[str, torch.Tensor], *, loss_type: str, beta: float, epsilon_low: float, epsilon_high: float
) -> dict[str, Any]:
    logp = given["logp"].clone().requires_grad_()
    metrics: dict[str, Any] = {"train": defaultdict(list)}
    whole = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1, sync_gradients=True)
    trainer = SimpleNamespace(
        loss_type=loss_type, beta=beta, epsilon_low=epsilon_low, epsilon_high=epsilon_high, aux_loss_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", use_vllm=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        model=SimpleNamespace(training=True), accelerator=whole, current_gradient_accumulation_steps=1,
        max_completion_length=MAX_TOKENS, _entropy_bonus_enabled=False, _metrics=metrics,
        _get_per_token_logps_and_entropies=lambda *a, **k: (logp, torch.zeros_like(logp), None),
    )  # fmt: skip
    mask = given["completion"] * given["tool"]
    prompt = torch.zeros(len(logp), 1, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": given["completion"],
        "completion_mask": given["completion"], "tool_mask": given["tool"], "advantages": given["advantages"],
        "old_per_token_logps": given["old"], "ref_per_token_logps": given["reference"],
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    assert logp.grad is not None
    return {
        "loss_type": loss_type, "beta": beta, "epsilon_low": epsilon_low, "epsilon_high": epsilon_high,
        "loss": float(loss.detach()), "gradient": logp.grad.tolist(), "kl": metrics["train"].get("kl", [None])[0],
        "clipped": metrics["train"]["clip_ratio/region_mean"][0],
    }  # fmt: skip


if __name__ == "__main__":
    main()
