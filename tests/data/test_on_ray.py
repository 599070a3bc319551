"""A corpus built on a local Ray cluster is the one built by this process, byte by byte."""

import json
from pathlib import Path

import pytest

from gradus.core.errors import DataError
from gradus.data import portions
from gradus.data.build import build_corpus
from gradus.data.corpus import corpus_shards
from gradus.data.files import FilesSource
from gradus.data.minhash import MinHashSettings
from gradus.data.prepare import PrepareSettings
from gradus.data.tokenise import tokenise_shards
from gradus.data.worker import run_jobs
from gradus.tokenizer.training import train_tokenizer

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'gradus[ray]'")
# Ray's own, on start and end of a cluster.
pytestmark = pytest.mark.filterwarnings("ignore")


def write_texts(folder: Path) -> None:
    folder.mkdir()
    for number in range(5):
        lines = [f"file {number} line {row} " + "some words to hash and count " * (row % 7) for row in range(60)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))


def test_filter_minhash_and_tokens_on_ray_equal_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path / "raw")
    monkeypatch.setattr(portions, "LEAST_BYTES", 1000)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    train_tokenizer(iter(["some words to hash and count file line 0123456789"] * 3), 290).save(tokenizer)
    settings = PrepareSettings(filters=({"name": "length", "min_words": 6},), mask=("pii",), minhash=MinHashSettings())
    written = []
    for on_ray in (False, True):
        out = tmp_path / f"ray-{on_ray}"
        build_corpus(
            [FilesSource(path="raw")],
            out / "corpus",
            roadmap_dir=tmp_path,
            settings=settings,
            validation_fraction=0.1,
            on_ray=on_ray,
        )
        tokenise_shards(
            corpus_shards(out / "corpus", "train"),
            tokenizer,
            out / "tokens",
            split="train",
            encoder="tiktoken",
            threads=1,
            run_jobs=lambda job, jobs, ray=on_ray: run_jobs(job, jobs, 1, tmp_path / "log", on_ray=ray),
        )
        files = sorted(path for path in out.rglob("*") if path.is_file())
        written.append({str(path.relative_to(out)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert len([name for name in written[0] if name.startswith("tokens/train/")]) > 4


def test_an_error_of_a_job_on_ray_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"content": "x"}\n' * 3)
    with pytest.raises(DataError, match='no column "text"; columns found: content'):
        build_corpus([FilesSource(path="raw")], tmp_path / "c", roadmap_dir=tmp_path, on_ray=True)
