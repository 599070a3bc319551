"""A document is followed from its file to the very step that trains on it; the loader's batches are the truth."""

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from gradus.cli.main import app
from gradus.data.accounts import find_document
from gradus.data.bookmark import read_bookmark
from gradus.data.corpus import read_corpus
from gradus.data.loader import RowLoader
from gradus.data.plans import Packing, ShardPlans
from gradus.data.shards import TokenStore
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.trace import Tokens, Training, finished_stages, follow_document
from gradus.tokenizer.loading import load_tokenizer

ROADMAP = """\
name = "way"

[[stage]]
name = "first"
kind = "corpus"
sources = [{ kind = "files", path = "a.jsonl" }]
validation_fraction = 0.1

[[stage]]
name = "both"
kind = "corpus"
extends = "first"
sources = [{ kind = "files", path = "b.jsonl" }]
validation_fraction = 0.1

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "first"
vocab_size = 280

[[stage]]
name = "one"
kind = "tokenize"
corpus = "first"
tokenizer = "bpe"

[[stage]]
name = "two"
kind = "tokenize"
corpus = "both"
tokenizer = "bpe"
extends = "one"

[[stage]]
name = "base"
kind = "pretrain"
tokens = "two"
model = { depth = 1, width = 32, head_dim = 16 }
context = 32
batch_tokens = 256
horizon = "1.5 epochs"
evaluate_tokens = 100
samples = []

[[stage]]
name = "wide"
kind = "pretrain"
tokens = "two"
model = { depth = 1, width = 32, head_dim = 16 }
context = 32
scaling = "auto"
horizon = "1.5 epochs"
evaluate_tokens = 100
samples = []
"""


def write(path: Path, name: str, count: int) -> None:
    rows = [f"{name} says {number}: " + "word " * (number % 17) + "end" for number in range(count)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def test_a_document_is_followed_to_the_steps_that_train_on_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "anna", 60)
    write(tmp_path / "b.jsonl", "bert", 50)
    (tmp_path / "way.toml").write_text(ROADMAP)
    artifacts = walk(load_roadmap(tmp_path / "way.toml"), tmp_path, QuietProgress()).artifacts
    corpus, tokens, trained = artifacts["both"], artifacts["two"], artifacts["base"]
    tokenizer = load_tokenizer(tokens.path / "tokenizer")
    store = TokenStore(tokens.path, "train")
    assert store.num_generations == 2
    loader = RowLoader(store, ShardPlans(store, Packing(32)), seed=trained.manifest.seed, rows_per_step=8, micro_rows=8)
    num_steps = read_bookmark(trained.file("bookmark.json")).row // 8
    batches = [np.concatenate([b.tokens.numpy() for b in loader.batches(step)]) for step in range(num_steps)]
    followed = 0
    for number, document in enumerate(read_corpus(corpus.path, "train")):
        if number % 3:
            continue
        [found] = find_document(corpus.path, document.id)
        place, training, by_law = follow_document(corpus, found, list(finished_stages(tmp_path)))
        assert isinstance(place, Tokens)
        assert isinstance(training, Training)
        # One step of the law is larger than the epoch, so that it trains on every document.
        assert isinstance(by_law, Training)
        assert by_law.num_steps == artifacts["wide"].results["steps"] == 1
        assert {step for _, step in by_law.steps or ()} == {0}
        ids = tokenizer.encode_batch([document.text])[0]
        assert store.ids(place.document)[1:].tolist() == ids.tolist()
        steps = [step for _, step in training.steps or ()]
        if len(ids) < 32:  # with its separator the document is one piece
            assert steps == [step for step, batch in enumerate(batches) if _holds(batch.tolist(), ids.tolist())]
            followed += len(steps)
    assert followed > 10
    shown = CliRunner().invoke(app, ["data", "trace", "way/both", "b.jsonl:3", "--home", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "kept in " in shown.output
    assert "way/two: document " in shown.output


def _holds(batch: list[int], part: list[int]) -> bool:
    return any(batch[i : i + len(part)] == part for i in range(len(batch) - len(part) + 1))
