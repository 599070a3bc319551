"""Writes golden/nanochat.safetensors: a small model of nanochat with random weights, and its own logits.

    NANOCHAT_DTYPE=float32 PYTHONPATH=<checkout of nanochat> <its python> tests/release/make_nanochat_golden.py

nanochat's code is not in this repository; seen with commit 92d63d4. Every weight is random, also those that nanochat
begins with zero, so that no part can be left out unseen. The short window is shorter than the text.
"""

from pathlib import Path

import torch
from nanochat.gpt import GPT, GPTConfig
from safetensors.torch import save_file

CONFIG = {
    "sequence_len": 512,
    "vocab_size": 60,
    "n_layer": 3,
    "n_head": 4,
    "n_kv_head": 2,
    "n_embd": 32,
    "window_pattern": "SL",
}
TOKENS, EVERY = 300, 13


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    model = GPT(GPTConfig(**CONFIG))
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            spread = 0.3 if parameter.ndim < 2 else 0.25
            # bf16 as nanochat saves its embeddings; half the size here.
            parameter.copy_((1.0 * ("resid" in name) + spread * drawn).bfloat16().float())
    tokens = torch.randint(CONFIG["vocab_size"], (TOKENS,), generator=generator)
    with torch.inference_mode():
        logits = model(tokens[None])[0]
    weights = {f"model/{name}": tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    rows = {"tokens": tokens, "logits": logits[::EVERY].contiguous()}
    save_file(weights | rows, Path(__file__).parent / "golden" / "nanochat.safetensors")


if __name__ == "__main__":
    main()
