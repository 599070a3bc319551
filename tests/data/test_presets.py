"""Ready corpora: what the table says is used as it says, and each preset reads what its dataset holds."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

from gradus.core.errors import ConfigError
from gradus.core.settings import load_settings
from gradus.data.hub import HubSource
from gradus.data.manifests import ManifestSource
from gradus.data.presets import PRESETS, PresetSource
from gradus.data.shard_tasks import RawText
from gradus.data.sources import read_source, source_digest, source_lineage


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete(name: str) -> None:
    preset = PRESETS[name]
    assert preset.homepage.startswith("https://")
    assert preset.licence
    source = preset.source
    wanted = source.read_options().columns
    assert {column.split(".")[0] for column in wanted} <= set(preset.columns)
    if isinstance(source, HubSource):
        assert re.fullmatch("[0-9a-f]{40}", source.revision)
        assert source.repo in preset.homepage
    assert f"{name}" in (PresetSource.__doc__ or "")


def test_the_issues_corpora_are_all_there() -> None:
    assert list(PRESETS) == [
        "climbmix", "fineweb-edu-10bt", "nemotron-cc-math", "stack-v2-python", "open-web-math", "wikipedia",
        "refinedweb", "dolma", "redpajama", "c4", "stackexchange", "github-code", "books",
    ]  # fmt: skip


def test_a_preset_carries_the_settings_beside_it() -> None:
    table = {
        "kind": "preset",
        "name": "wikipedia",
        "limit": "3M tokens",
        "weight": 2.0,
        "raw": "keep",
        "revision": "v1",
    }
    source = load_settings(PresetSource, table)
    resolved = source.resolved()
    assert isinstance(resolved, HubSource)
    assert resolved.repo == "wikimedia/wikipedia"
    assert (resolved.label, resolved.weight, resolved.raw, resolved.revision) == ("wikipedia", 2.0, "keep", "v1")
    assert resolved.text_limit.text_bytes == 12_000_000
    # How bytes travel is no part of what a corpus is.
    assert "raw" not in source.model_dump(mode="json")


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match='no preset corpus "fineweb-edu"; did you mean "fineweb-edu-10bt"'):
        load_settings(PresetSource, {"kind": "preset", "name": "fineweb-edu"})
    with pytest.raises(ConfigError, match="presets are climbmix, fineweb-edu-10bt"):
        load_settings(PresetSource, {"kind": "preset", "name": "xyz"})
    with pytest.raises(ConfigError, match='"dolma" is a list of addresses and has no revision'):
        load_settings(PresetSource, {"kind": "preset", "name": "dolma", "revision": "main"})


def parquet(tmp_path: Path, **columns: list[object]) -> bytes:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    return (tmp_path / "x.parquet").read_bytes()


def test_presets_read_what_their_datasets_hold(hub: HubServer, tmp_path: Path) -> None:
    entry = "- config_name: 20231101.en\n  data_files:\n  - split: train\n    path: 20231101.en/train-*\n"
    card = f"---\nconfigs:\n{entry}---\n"
    articles = parquet(tmp_path, id=["12"], url=["https://en.wikipedia.org/wiki/A"], title=["A"], text=["First."])
    stack = [
        {"id": str(i), "text": f"code {i}", "metadata": {"language": language, "url": f"u{i}"}}
        for i, language in enumerate(["Python", "Shell"])
    ]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in stack).encode())
    commits = {
        "wikipedia": hub.dataset("wikimedia/wikipedia").commit(
            {
                "README.md": card,
                "20231101.en/train-00000-of-00041.parquet": articles,
                "20231101.de/train-0.parquet": b"",
            }
        ),
        "stack-v2-python": hub.dataset("common-pile/stackv2_edu_filtered").commit(
            {
                "stack-edu-0072.json.gz": b"",
                "stack-edu-0073.json.gz": packed,
                "stack-edu-0084.json.gz": b"",
                "stack-edu-0085.json.gz": b"x",
            }
        ),
    }
    hub.pages["/dolma/books-0000.json.gz"] = gzip.compress(b'{"id": "1", "text": "A book.", "source": "books"}\n')
    hub.dataset("allenai/dolma", {"urls/v1_7.txt": f"{hub.endpoint}/dolma/books-0000.json.gz\n"})
    parts = ("common_crawl", "c4", "github", "arxiv", "wikipedia", "stackexchange")
    hub.dataset(
        "togethercomputer/RedPajama-Data-1T", {f"urls/{p}.txt": f"{hub.endpoint}/rp/{p}.jsonl\n" for p in parts}
    )
    for part in parts:
        hub.pages[f"/rp/{part}.jsonl"] = json.dumps({"text": part, "meta": {"url": "x"}}).encode()

    def texts(name: str) -> list[str]:
        source = PresetSource(name=name, revision=commits.get(name))
        found = [f for f in read_source(source, tmp_path, 0) if isinstance(f, RawText)]
        assert {f.source for f in found} == {name}
        return [f.text for f in found]

    assert texts("wikipedia") == ["A\n\nFirst."]
    assert texts("stack-v2-python") == ["code 0"]
    assert texts("dolma") == ["A book."]
    assert sorted(texts("redpajama")) == sorted(parts)


def test_a_preset_is_told_apart_by_what_it_means(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.dataset("wikimedia/wikipedia").commit({"README.md": "", "20231101.en/train-0.parquet": b"x"})
    source = PresetSource(name="wikipedia", revision=commit)
    first = source_digest(source, tmp_path)
    lineage = source_lineage(source, tmp_path)
    assert (lineage["licence"], lineage["commit"], lineage["shards"]) == ("CC BY-SA 3.0 and GFDL", commit, 1)
    preset = PRESETS["wikipedia"]
    changed = preset.source.model_copy(update={"text_key": "text"})
    monkeypatch.setitem(PRESETS, "wikipedia", type(preset)(**{**vars(preset), "source": changed}))
    assert source_digest(source, tmp_path) != first
    assert isinstance(PRESETS["dolma"].source, ManifestSource)
