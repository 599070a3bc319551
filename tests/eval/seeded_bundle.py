"""A small model folder that is the same wherever it is made, in the form that transformers loads."""

import random
from pathlib import Path

import torch

from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.model.weights import save_model
from gradus.tokenizer.training import train_tokenizer

WORDS = (
    "question answer the following are multiple choice questions with answers about which of these is a and in to that "
    "he she it was for on as his her they you with at by from this have had not but what all were when we there can an"
)
CONTEXT = 512


def write_seeded_bundle(folder: Path) -> None:
    """Random weights of seed 11, a tokenizer of drawn words."""
    draw = random.Random(11)
    words = WORDS.split()
    texts = [" ".join(draw.choice(words) for _ in range(40)) + ".\n" for _ in range(60)]
    tokenizer = train_tokenizer(texts, vocab_size=400)
    # Layers that begin at zero would say nothing about attention.
    table = {"depth": 2, "width": 48, "num_heads": 4, "num_kv_heads": 2, "head_dim": 12, "init": "xavier"}
    model = build_model(model_config(table, tokenizer.vocab_size, CONTEXT), torch.Generator().manual_seed(11))
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    tokenizer.save(folder)


if __name__ == "__main__":
    import sys

    write_seeded_bundle(Path(sys.argv[1]))
