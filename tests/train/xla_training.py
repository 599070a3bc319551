"""Helper of test_xla: a run over packed rows on any device, and as a program the same on several chips.

xla_training.py [FOLDER] trains with checkpoints in FOLDER, from those that lie there. It prints losses, the graphs
compiled by each step, and how a batch lies on the chips, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch_xla

from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.model.xla import num_compiled, num_devices, open_xla
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import OptimizerSettings, ScheduleSettings
from gradus.train.loop import StepReport, fit
from gradus.train.losses import Loss, next_token_loss
from gradus.train.optimizers import build_optimizer
from gradus.train.schedule import Schedule

VOCAB, ROW, ROWS, STEPS = 40, 32, 4, 20
PORTABLE = {
    "depth": 2,
    "width": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "window": 20,
    "window_pattern": "SL",
}


def batch_of(step: int, part: int) -> Batch:
    """A micro-batch of packed rows: documents of any length, rows that are not full, targets that do not count."""
    generator = torch.Generator().manual_seed(100 * step + part)
    tokens, targets, lengths = [], [], []
    for _ in range(ROWS):
        left = ROW
        while left >= 4:
            length = int(torch.randint(4, left + 1, (1,), generator=generator))
            start = int(torch.randint(1, VOCAB, (1,), generator=generator))
            stream = (start + 3 * torch.arange(length + 1)) % VOCAB
            target = stream[1:].clone()
            target[torch.rand(length, generator=generator) < 0.2] = IGNORE
            tokens.append(stream[:-1])
            targets.append(target)
            lengths.append(length)
            left -= length
            if float(torch.rand(1, generator=generator)) < 0.3:
                break
    padding = ROW * ROWS - sum(lengths)
    if padding:
        tokens.append(torch.zeros(padding, dtype=torch.int64))
        targets.append(torch.full((padding,), IGNORE))
        lengths.append(padding)
    found = Documents.of_lengths(lengths)
    return Batch(torch.cat(tokens), torch.cat(targets), Documents(found.bounds, found.positions, ROW), {}, padding)


def batches(step: int) -> Sequence[Batch]:
    return [batch_of(step, part) for part in range(2)]


def reports(
    device: torch.device | str,
    precision: str = "fp32",
    folder: Path | None = None,
    table: dict[str, object] | None = None,
    loss: Loss = next_token_loss,
    seen: Callable[[Transformer], None] = lambda model: None,
) -> Iterator[StepReport]:
    """A run whose rates, momentum and schedule pass through all that they can; seen: is given the model."""
    model = build_model(model_config(table or PORTABLE, VOCAB, ROW), torch.Generator().manual_seed(0), device)
    seen(model)
    # At step 5 the momentum is 0.9 and equals other settings.
    settings = OptimizerSettings(weight_decay=0.1, momentum_warmup_steps=10)
    return fit(
        model,
        build_optimizer(model, settings),
        batches,
        loss,
        Schedule(ScheduleSettings(warmup_steps=4, final_fraction=0.0), STEPS),
        steps=STEPS,
        checkpoints=Checkpoints(folder) if folder is not None else None,
        log_every=1,
        save_every=6,
        precision=precision,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    xla = open_xla()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else None
    ran = [(report.loss, num_compiled()) for report in reports(xla, folder=folder)]
    layout = torch_xla._XLAC._get_xla_sharding_spec(batch_of(0, 0).to(xla).tokens)
    print(json.dumps({"losses": [r[0] for r in ran], "graphs": [r[1] for r in ran], "layout": layout,
                      "devices": num_devices()}))  # fmt: skip
