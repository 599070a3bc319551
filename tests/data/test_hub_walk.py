"""From a Hub dataset to a corpus: a roadmap walked end to end, limits, plans, smoke, and what is recorded."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import SIGNATURE, HubServer

from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.data import hub as hub_module
from gradus.data.build import build_corpus
from gradus.data.corpus import read_corpus
from gradus.data.hub import HubSource
from gradus.data.limits import TextLimit, text_limit
from gradus.data.sources import read_source
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import Roadmap, load_roadmap

CARD = "---\nconfigs:\n- config_name: sample\n  data_files:\n  - split: train\n    path: sample/*\n---\n"
ROADMAP = """
[[stage]]
name = "web"
kind = "corpus"
validation_fraction = 0.1
sources = [
  { kind = "hub", repo = "a/web", config = "sample", limit = "300 documents", weight = 2.0 },
  { kind = "manifest", path = "lists/more.txt" },
  { kind = "synthetic", name = "primer", documents = 50 },
]
"""


def texts(shard: int) -> list[str]:
    return [f"shard {shard} row {row} " + "words " * 10 for row in range(200)]


def parquet(rows: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": rows}), sink, row_group_size=50)
    return sink.getvalue()


def jsonl(rows: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in rows).encode()


@pytest.fixture
def roadmap(hub: HubServer, tmp_path: Path) -> Path:
    """A roadmap over a dataset of four shards, two of parquet and two of JSON lines, and a manifest."""
    hub.dataset(
        "a/web",
        {
            "README.md": CARD,
            "sample/0.parquet": parquet(texts(0)),
            "sample/1.parquet": parquet(texts(1)),
            "sample/2.jsonl.gz": gzip.compress(jsonl(texts(2))),
            "sample/3.jsonl": jsonl(texts(3)),
        },
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "local.jsonl").write_bytes(jsonl(["local one", "local two"]))
    (tmp_path / "lists" / "more.txt").write_text("local.jsonl\nhf://datasets/a/web/sample/3.jsonl\n")
    file = tmp_path / "web.toml"
    file.write_text(ROADMAP)
    return file


def planned(roadmap: Roadmap, home: Path) -> tuple[float, tuple[str, ...]]:
    """(bytes of text in all, notes) of the plan of its one stage."""
    (plan,) = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, home), home / "artifacts").stages
    return plan.estimate.facts["bytes"] + plan.estimate.facts["validation_bytes"], plan.estimate.notes


def test_a_roadmap_with_remote_sources_walks_to_a_corpus(roadmap: Path, hub: HubServer, tmp_path: Path) -> None:
    commit = hub.dataset("a/web").refs["main"]
    hub.fail("/lfs/", drop=True, times=2)
    artifact = walk(load_roadmap(roadmap), tmp_path / "home", QuietProgress()).artifacts["web"]
    counts = artifact.results["counts"]
    by_source = {
        name: sum(
            counts[side]["by_source"].get(name, {"documents": 0})["documents"] for side in ("train", "validation")
        )
        for name in ("web", "more")
    }
    # The manifest's own shard 3 is another's duplicate as far as the limit took it.
    assert by_source["web"] == 300
    assert 2 <= by_source["more"] <= 202
    assert artifact.results["commits"] == {"a/web": commit}
    documents = [d for side in ("train", "validation") for d in read_corpus(artifact.path, side)]
    assert len({d.text for d in documents}) == len(documents)
    assert {d.meta["file"] for d in documents if d.source == "web"} < {
        "sample/0.parquet", "sample/1.parquet", "sample/2.jsonl.gz", "sample/3.jsonl"
    }  # fmt: skip
    lineage = json.loads((artifact.path / "sources.json").read_text())
    assert [entry["kind"] for entry in lineage] == ["hub", "manifest", "synthetic"]
    assert (lineage[0]["commit"], lineage[0]["weight"], lineage[0]["shards"]) == (commit, 2.0, 4)
    assert not (tmp_path / "home" / "raw").exists()
    num_requests = len(hub.requests)
    again = walk(load_roadmap(roadmap), tmp_path / "home", QuietProgress())
    assert again.artifacts["web"].fingerprint == artifact.fingerprint
    assert len(hub.requests) == num_requests


def test_no_file_of_a_walk_holds_the_token(
    roadmap: Path, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.dataset("a/web").private = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    walk(load_roadmap(roadmap), tmp_path / "home", QuietProgress())
    files = [p for folder in ("home", "cache") for p in (tmp_path / folder).rglob("*") if p.is_file()]
    assert len(files) > 5
    assert not [p for p in files if hub.token.encode() in p.read_bytes() or SIGNATURE.encode() in p.read_bytes()]


def test_the_same_corpus_comes_however_its_bytes_travel(roadmap: Path, hub: HubServer, tmp_path: Path) -> None:
    prints, documents = set(), []
    for raw in ("stream", "delete", "keep"):
        roadmap.write_text(ROADMAP.replace("weight = 2.0", f'weight = 2.0, raw = "{raw}"'))
        loaded = load_roadmap(roadmap)
        artifact = walk(loaded, tmp_path / raw, QuietProgress()).artifacts["web"]
        prints.add(artifact.fingerprint)
        documents.append([d.id for d in read_corpus(artifact.path, "train")])
        stored = [p for p in (tmp_path / raw / "raw").rglob("*") if p.is_file()]
        assert (len(stored) >= 2) == (raw == "keep")
    assert len(prints) == 1
    assert documents[0] == documents[1] == documents[2]


def test_a_plan_tells_what_a_limit_means_and_what_is_fetched(roadmap: Path, hub: HubServer, tmp_path: Path) -> None:
    commit = hub.dataset("a/web").refs["main"]
    sources = '[{ kind = "hub", repo = "a/web", config = "sample", limit = "2k tokens", bytes_per_token = 4.5 }]'
    roadmap.write_text(f'[[stage]]\nname = "web"\nkind = "corpus"\nsources = {sources}\n')
    size, notes = planned(load_roadmap(roadmap), tmp_path)
    assert size == 9000
    assert notes == (
        "web: 2_000 tokens is read as 8.8 KiB of text, at 4.5 bytes a token",
        "web: 4 shards, about 2.9 KiB to fetch, stored nowhere",
        f'web: "main" is now {commit}; write revision = "{commit}" to stay with it',
        "not decontaminated: set GRADUS_BENCHMARKS to the folder of the evaluation sets, or name sets",
    )
    roadmap.write_text(ROADMAP)
    size, _ = planned(load_roadmap(roadmap, smoke=True), tmp_path)
    assert size > 50 * 420
    smoke = load_roadmap(roadmap, smoke=True).stages[0].settings.sources
    assert (smoke[0].limit, smoke[1].limit) == (Quantity(300, "documents"), Quantity(1500, "documents"))


def test_problems_of_sources_are_told_with_their_lines(roadmap: Path, hub: HubServer) -> None:
    roadmap.write_text(ROADMAP.replace('"sample"', '"sampel"').replace("lists/more", "lists/moer"))
    with pytest.raises(ConfigError) as error:
        load_roadmap(roadmap)
    assert error.value.problems == [
        f'{roadmap}:7 stage "web": "sources[0].repo": Hub dataset a/web: no configuration "sampel"; '
        'did you mean "sample"?',
        f'{roadmap}:8 stage "web": "sources[1].path": "lists/moer.txt" matches no file (looked in '
        f'{roadmap.parent}/lists, which holds local.jsonl, more.txt); did you mean "more.txt"?',
    ]


@pytest.mark.parametrize("raw", ["stream", "delete"])
def test_a_limit_stops_before_the_other_shards_are_fetched(hub: HubServer, tmp_path: Path, raw: str) -> None:
    hub.dataset("a/b", {f"train-{i}.parquet": parquet(texts(i)) for i in range(4)})

    def build(limit: Quantity) -> dict[str, int]:
        source = HubSource(repo="a/b", limit=limit, raw=raw)
        counts = build_corpus(
            [source], tmp_path / "out", roadmap_dir=tmp_path, validation_fraction=0.1, raw_dir=tmp_path / "raw"
        )
        return {key: counts["train"][key] + counts["validation"][key] for key in ("documents", "bytes")}

    assert build(Quantity(30, "documents"))["documents"] == 30
    assert len({r.path for r in hub.asked("/resolve/") if "train" in r.path}) == 1
    size = len(texts(0)[0].encode())
    for limit in (Quantity(250 * size, "bytes"), Quantity(250 * size / 4, "tokens")):
        found = build(limit)
        assert 250 * size <= found["bytes"] < 251 * size + 400
    hub.requests.clear()
    source = HubSource(repo="a/b", raw=raw)
    rows = read_source(source, tmp_path, 0, tmp_path / "raw")
    assert len([next(rows) for _ in range(250)]) == 250
    rows.close()
    assert len({r.path for r in hub.asked("/resolve/") if "train" in r.path}) == 2
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]


def test_limits_are_what_can_be_counted_while_reading() -> None:
    assert text_limit(None) == TextLimit()
    assert text_limit(Quantity(2e4, "documents")) == TextLimit(documents=20_000)
    assert text_limit(Quantity(10e9, "tokens")) == TextLimit(text_bytes=40_000_000_000)
    assert text_limit(Quantity(1e9, "tokens"), 4.61) == TextLimit(text_bytes=4_610_000_000)
    assert not TextLimit().reached(10**12, 10**15)
    assert TextLimit(text_bytes=5).reached(0, 5)


def test_a_corpus_is_made_again_where_the_shards_of_a_branch_changed(
    roadmap: Path, hub: HubServer, tmp_path: Path
) -> None:
    first = load_roadmap(roadmap).stages[0].fingerprint
    repository = hub.dataset("a/web")
    files = dict(repository.commits[repository.refs["main"]].files)
    repository.commit({**files, "README.md": CARD + "news"})
    hub_module._resolved.clear()
    assert load_roadmap(roadmap).stages[0].fingerprint == first
    repository.commit({**files, "sample/4.jsonl": jsonl(texts(4))})
    hub_module._resolved.clear()
    assert load_roadmap(roadmap).stages[0].fingerprint != first
