"""The whole room on real text: files to corpus to shards to plan to batches, with no byte and no token lost."""

from pathlib import Path

import numpy as np

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Pair
from gradus.conversation.records import import_records
from gradus.data.build import build_corpus
from gradus.data.corpus import read_corpus
from gradus.data.files import FilesSource
from gradus.data.loader import RowLoader
from gradus.data.pack import pack_plan
from gradus.data.pool import read_pool, write_pool
from gradus.data.rows import render_pool
from gradus.data.shards import TokenStore
from gradus.data.tokenise import write_token_shards
from gradus.tokenizer.training import train_tokenizer


def test_every_byte_of_real_prose_is_trained_once_an_epoch(tmp_path: Path, real_data: Path) -> None:
    source = FilesSource(path=("prose/c4_demo_300.jsonl.gz", "prose/tinyshakespeare.txt.gz"), split="paragraphs")
    counts = build_corpus([source], tmp_path / "corpus", roadmap_dir=real_data, validation_fraction=0.05)
    texts = [document.text for document in read_corpus(tmp_path / "corpus", "train")]
    tokenizer = train_tokenizer(texts[:2000], 600)
    for split in ("train", "validation"):
        documents = read_corpus(tmp_path / "corpus", split)
        written = write_token_shards(documents, tokenizer, tmp_path / "tokens", split=split, shard_tokens=100_000)
        assert written["bytes"] == counts[split]["bytes"]
    store = TokenStore(tmp_path / "tokens", "train")
    plan = pack_plan(store.lengths, 256)
    assert plan.fill_fraction > 0.99
    loader = RowLoader(store, plan, seed=7, rows_per_step=plan.num_rows, micro_rows=512)
    batches = loader.batches(0)
    assert (
        sum(tokenizer.token_bytes[b.targets[: b.num_tokens].numpy()].sum() for b in batches) == counts["train"]["bytes"]
    )
    assert (
        sum(tokenizer.token_bytes[b.tokens[: b.num_tokens].numpy()].sum() for b in batches) == counts["train"]["bytes"]
    )
    sample = np.linspace(0, store.num_documents - 1, 50).astype(int).tolist()
    assert [tokenizer.decode(store.ids(i).tolist()[1:]) for i in sample] == [texts[i] for i in sample]


def test_real_conversations_become_rows_under_every_policy(tmp_path: Path, real_data: Path) -> None:
    files = [
        "instruct_small/rasbt_instruction-data.json",
        "instruct_small/dolly_151.jsonl",
        "multiturn/oasst_en_100_tree.jsonl.gz",
        "tool_calls/glaive_toolcall_en_demo.json",
    ]
    rows = [row for name in files for row in import_records(real_data / name) if not isinstance(row, Pair)]
    counts = write_pool(tmp_path, rows, 0.05)
    assert counts["kept"] > 0.95 * (len(rows) - counts["dropped"].get("unreadable", 0))
    conversations = list(read_pool(tmp_path, "train"))
    form = HermesFormat(train_tokenizer((m.content for c in conversations for m in c.messages), 600))
    for policy in ("drop", "split", "truncate"):
        store, rendered = render_pool(
            conversations, form, tmp_path / policy, split="train", row_length=400, length_policy=policy
        )
        assert store.lengths.max() <= 400
        lost = sum(rendered["dropped"].values())
        assert rendered["documents"] >= len(conversations) - lost
        assert pack_plan(store.lengths, 400, "whole").num_tokens == rendered["tokens"]
