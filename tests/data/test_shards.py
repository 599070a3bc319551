"""Token shards: the layout on disk worked out by hand, reading across shards, and refusal of damage."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gradus.core.errors import DataError
from gradus.data.document import Document, document_id
from gradus.data.shards import TokenStore
from gradus.data.token_writer import TokenWriter
from gradus.data.tokenise import write_token_shards
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

TEXTS = ["the cat", "the mat and the hat", "é", "rat" * 30, "<|endoftext|> is text here"]


def documents(texts: list[str]) -> list[Document]:
    return [Document(t, document_id(t), source=f"s{i % 2}") for i, t in enumerate(texts)]


def test_a_stream_is_separator_document_separator(tmp_path: Path, tokenizer: Tokenizer) -> None:
    counts = write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train")
    eot = tokenizer.special(END_OF_TEXT)
    expected: list[int] = []
    starts = []
    for text in TEXTS:
        starts.append(len(expected))
        expected += [eot, *tokenizer.encode(text)]
    on_disk = np.fromfile(tmp_path / "train" / "00000-000.bin", dtype="<u2").tolist()
    assert on_disk == [*expected, eot]
    assert on_disk.count(eot) == len(TEXTS) + 1
    assert np.fromfile(tmp_path / "train" / "00000-000.idx", dtype="<u8").tolist() == [*starts, len(expected)]
    assert counts["documents"] == 5
    assert counts["tokens"] == len(expected)
    assert counts["bytes"] == sum(len(t.encode()) for t in TEXTS)
    assert counts["by_source"]["s1"]["documents"] == 2
    assert sum(c["tokens"] for c in counts["by_source"].values()) == len(expected)
    assert counts["document_tokens"]["total"] == len(expected)
    assert sum(counts["document_tokens"]["histogram"]["counts"]) == 5


@pytest.mark.parametrize("shard_tokens", [1, 30, 10_000])
def test_documents_come_back_whatever_the_shards_and_batches(
    tmp_path: Path, tokenizer: Tokenizer, shard_tokens: int
) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train", shard_tokens=shard_tokens, batch_bytes=20)
    store = TokenStore(tmp_path, "train")
    eot = tokenizer.special(END_OF_TEXT)
    assert store.num_documents == len(TEXTS)
    for index, text in enumerate(TEXTS):
        assert tokenizer.decode(store.ids(index).tolist()[1:]) == text
        assert store.ids(index)[0] == eot
    assert [store.sources[i] for i in store.source_index] == ["s0", "s1", "s0", "s1", "s0"]
    everything = store.pieces(np.arange(5), np.zeros(5, dtype=np.int64), store.lengths)
    assert len(everything.tokens) == store.num_tokens
    # In a stream each target is the next document token, and after a document the separator.
    for index in range(5):
        start, end = store.lengths[:index].sum(), store.lengths[: index + 1].sum()
        assert everything.targets[start:end].tolist() == [*store.ids(index)[1:].tolist(), eot]
    assert everything.trained is None


def test_the_target_at_a_cut_inside_a_document_is_its_next_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train")
    store = TokenStore(tmp_path, "train")
    piece = store.pieces(np.array([1]), np.array([2]), np.array([3]))
    assert piece.tokens.tolist() == store.ids(1)[2:5].tolist()
    assert piece.targets.tolist() == store.ids(1)[3:6].tolist()


def test_the_targets_of_masked_documents_are_where_the_mask_says(tmp_path: Path, tokenizer: Tokenizer) -> None:
    writer = TokenWriter(tmp_path, "train", "documents", tokenizer, shard_tokens=5)
    ids = [np.array([10, 11, 12, 13], dtype=np.int32), np.array([20, 21, 22], dtype=np.int32)]
    masks = [np.array([False, False, True, True]), np.array([False, True, False])]
    for one, mask in zip(ids * 2, masks * 2, strict=True):
        writer.add([one], ["chat"], [0], [mask])
    assert writer.close()["tokens"] == 14
    store = TokenStore(tmp_path, "train")
    found = store.pieces(np.array([0, 1, 3]), np.array([0, 0, 0]), np.array([4, 3, 3]))
    assert found.tokens.tolist() == [10, 11, 12, 13, 20, 21, 22, 20, 21, 22]
    assert found.trained.tolist() == [False, True, True, False, True, False, False, True, False, False]
    assert found.targets[found.trained].tolist() == [12, 13, 21, 21]
    # A piece that ends inside the document is followed by the document's own next token.
    cut = store.pieces(np.array([0]), np.array([0]), np.array([2]))
    assert (cut.targets.tolist(), cut.trained.tolist()) == ([11, 12], [False, True])


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    large = tokenizer.extended(f"<|extra {i}|>" for i in range(70_000))
    write_token_shards(documents(TEXTS), large, tmp_path, split="train")
    store = TokenStore(tmp_path, "train")
    assert (tmp_path / "train" / "00000-000.bin").stat().st_size == 4 * (store.num_tokens + 1)
    assert large.decode(store.ids(1).tolist()[1:]) == TEXTS[1]


def test_the_manifest_holds_checksums_and_a_chain(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train", shard_tokens=1, batch_bytes=1)
    path = tmp_path / "train.jsonl"
    header, *shards, generation = [json.loads(line) for line in path.read_text().splitlines()]
    assert (header["tokenizer"], header["dtype"]) == (tokenizer.digest, "uint16")
    assert [line["shard"] for line in shards] == [f"00000-{i:03d}" for i in range(5)]
    assert (generation["generation"], generation["shards"], generation["tasks"]) == (1, 5, 1)
    chain = ""
    for line in (header, *shards, generation):
        found = line.pop("chain")
        content = json.dumps([chain, line], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        chain = hashlib.sha256(content).hexdigest()
        assert chain == found
    for entry in shards:
        assert set(entry["files"]) == {"bin", "idx", "src"}
        for suffix, expected in entry["files"].items():
            content = (tmp_path / "train" / f"{entry['shard']}.{suffix}").read_bytes()
            assert {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} == expected


def test_a_changed_dropped_or_cut_line_of_the_manifest_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train", shard_tokens=1, batch_bytes=1)
    path = tmp_path / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)

    def refused(content: list[str], expected: str) -> None:
        path.write_text("".join(content))
        with pytest.raises(DataError, match=expected):
            TokenStore(tmp_path, "train")

    changed = lines[2].replace('"documents": 1', '"documents": 2', 1)
    refused([*lines[:2], changed, *lines[3:]], r"train\.jsonl:3: the entry of shard 00000-001 is not the one")
    refused([*lines[:2], *lines[3:]], "the entry of shard 00000-002 is not the one that was written")
    refused(lines[:-1], "cut short, it does not end with a generation")
    refused([*lines[:-1], lines[-1][:-9]], r"train\.jsonl:7: not a line of a token shard manifest")
    refused([], "empty; tokenize again")
    refused(['{"format": "other", "chain": ""}\n'], "not the one that was written")


def test_a_changed_byte_is_found_when_it_is_looked_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train", shard_tokens=20, batch_bytes=1)
    store = TokenStore(tmp_path, "train")
    store.verify()
    path = tmp_path / "train" / "00000-001.idx"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"00000-001\.idx: damaged: expected checksum \w{16}, found \w{16}"):
        store.verify()


def test_missing_or_cut_files_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r'no token shards for "train" here \(train\.jsonl is missing\)'):
        TokenStore(tmp_path, "train")
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train")
    path = tmp_path / "train" / "00000-000.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"00000-000\.bin: {len(content) - 1} bytes, expected {len(content)}"):
        TokenStore(tmp_path, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"00000-000\.bin: the shard file is missing"):
        TokenStore(tmp_path, "train")


def test_a_piece_outside_its_document_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards(documents(TEXTS), tokenizer, tmp_path, split="train")
    store = TokenStore(tmp_path, "train")
    with pytest.raises(DataError, match=r"piece \[1, 9001\) is outside document 0"):
        store.pieces(np.array([0]), np.array([1]), np.array([9000]))


def test_no_documents_make_an_empty_store(tmp_path: Path, tokenizer: Tokenizer) -> None:
    counts = write_token_shards([], tokenizer, tmp_path, split="validation")
    assert counts["tokens"] == 0
    assert TokenStore(tmp_path, "validation").num_documents == 0


def test_progress_is_told_and_writing_again_replaces(tmp_path: Path, tokenizer: Tokenizer) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        told.clear()
        write_token_shards(
            documents(TEXTS),
            tokenizer,
            tmp_path,
            split="train",
            batch_bytes=40,
            on_progress=lambda *now: told.append(now),
        )
    assert told[-1] == (5, sum(len(t.encode()) for t in TEXTS))
    assert len(told) > 1
    assert TokenStore(tmp_path, "train").num_documents == 5
