"""Small models with random weights everywhere, and their logits, for the tests of this folder."""

from collections import deque
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradus.engine.batching import DecodeBatch
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import Sampling
from gradus.model.batch import Documents
from gradus.model.config import ModelConfig, model_config
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model, save_model

VOCAB = 97
TABLE = {"depth": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope_base": 5000.0}
SOFTMAX = {"num_experts": 6, "experts_per_token": 2, "expert_width": 48}
SIGMOID = SOFTMAX | {"router": "sigmoid", "balance": "bias", "shared_experts": 1}


def small_config(**changes: object) -> ModelConfig:
    return model_config(TABLE | changes, vocab_size=VOCAB, context=128)


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Random everywhere, norms included, so that no term of the function is idle."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else noise / parameter.shape[-1] ** 0.5)
    return model


def check_loads_back(model: Transformer, folder: Path) -> None:
    """Saved and loaded a model is what it was, bit for bit."""
    save_model(folder, model)
    loaded = load_model(folder)
    assert loaded.config == model.config
    for (name, ours), theirs in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def logits_of(model: Transformer, tokens: Tensor, lengths: list[int]) -> Tensor:
    return model.head(model(tokens, Documents.of_lengths(lengths)))


def random_tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


class Forced:
    """A stream that reads given tokens, the first three as its prompt, and ends behind them."""

    def __init__(self, tokens: list[int]) -> None:
        self.prompt_ids, self.forced = tokens[:3], deque(tokens[3:])
        self.sampling, self.finished, self.num_sampled = Sampling(), False, 0
        self.num_cached_tokens = 0
        self.place = 3
        self.num_logprobs: int | None = None

    def waits(self) -> bool:
        return False

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self.finished = True

    def run_out(self) -> None:
        self.finished = True


def decoded(model: Transformer, rows: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[dict[int, Tensor]]:
    """Hidden states by place that decoding gives behind each row's first three tokens, all rows together."""
    streams = [Forced(row) for row in rows]
    seen: list[dict[int, Tensor]] = [{} for _ in rows]
    batch = DecodeBatch(model, len(rows), vocab_size=VOCAB)
    decode = Transformer.decode

    def noted(*args: object) -> Tensor:
        hidden = decode(*args)
        for slot, row in enumerate(batch._rows):
            seen[streams.index(row.stream)][row.stream.place] = hidden[slot]
            row.stream.place += 1
        return hidden

    monkeypatch.setattr(Transformer, "decode", noted)
    batch.join(streams)
    while batch.num_live:
        batch.step()
    return seen
