"""CORE's bundle from a folder, archives and a stand-in Hub; what is refused of an archive."""

import io
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gradus.core import compression
from gradus.core.errors import DataError
from gradus.data import hub as hub_module
from gradus.data import transfer
from gradus.eval import core_bundle
from gradus.eval.benchmarks import BenchmarkSettings, files_of
from gradus.eval.core_bundle import bundle_at, bundle_folder
from gradus.eval.core_metric import CORE_TASKS, core_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import hub_server

# As the published bundle has them: in folders by kind, some under another name.
FILES = {f"eval_data/{name}/{task.files[-1]}.jsonl": f'{{"task": "{name}"}}\n' for name, task in CORE_TASKS.items()
         if name != "hellaswag_zeroshot"}  # fmt: skip
BESIDE = {"eval_data/core.yaml": "x: 1", "eval_data/readme.jsonl": "{}"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_CACHE", str(tmp_path / "cache"))


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path


def tarred(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as packed:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("eval_data/copa/../squad.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    return path


@pytest.mark.parametrize(("name", "pack"), [("b.zip", zipped), ("b.tar", tarred), ("b.tar.gz", tarred)])
def test_the_tasks_files_are_taken_out_of_an_archive_once(tmp_path: Path, name: str, pack: Callable[..., Path]) -> None:
    archive = pack(tmp_path / name, FILES | BESIDE)
    folder = bundle_folder(archive)
    assert folder == bundle_folder(archive)
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == sorted(Path(f).name for f in FILES)
    for task in CORE_TASKS:
        assert core_file(task, folder).read_text() == FILES[f"eval_data/{task.removesuffix('_zeroshot')}/"
                                                             f"{CORE_TASKS[task].files[-1]}.jsonl"]  # fmt: skip
    settings = BenchmarkSettings(bundle=archive)
    assert len(files_of("core", settings)) == 21


def test_an_archive_that_is_none_or_leaves_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"holds a file outside of itself \(\.\./\.\./copa\.jsonl\)"):
        bundle_folder(zipped(tmp_path / "out.zip", {"../../copa.jsonl": "{}"}))
    with pytest.raises(DataError, match=r"holds no file of a task, such as hellaswag\.jsonl"):
        bundle_folder(zipped(tmp_path / "other.zip", BESIDE))
    (tmp_path / "cut.zip").write_bytes(zipped(tmp_path / "whole.zip", FILES).read_bytes()[:900])
    (tmp_path / "cut.tar.gz").write_bytes(tarred(tmp_path / "whole.tar.gz", FILES).read_bytes()[:200])
    for name in ("cut.zip", "cut.tar.gz"):
        with pytest.raises(DataError, match=rf"{name} cannot be unpacked .*fetch it again"):
            bundle_folder(tmp_path / name)
    # Damage inside, which only the sums of what is packed show.
    noise = {"copa.jsonl": "".join(map(chr, random.Random(0).choices(range(32, 127), k=4000)))}
    for packed in (zipped(tmp_path / "hurt.zip", noise), tarred(tmp_path / "hurt.tar.gz", noise)):
        spoiled = bytearray(packed.read_bytes())
        spoiled[1500] ^= 0x5A
        packed.write_bytes(spoiled)
        with pytest.raises(DataError, match=rf"{packed.name} cannot be unpacked .*fetch it again"):
            bundle_folder(packed)
    (tmp_path / "bundle.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"neither a folder nor an archive \(\.zip, \.tar, \.tar\.gz, \.tgz\)"):
        bundle_folder(tmp_path / "bundle.rar")
    with pytest.raises(DataError, match="is no folder; give the folder of the evaluation bundle, or an archive of it"):
        bundle_folder(tmp_path / "absent")
    monkeypatch.setattr(compression, "_FREE_BYTES", 1000)
    bomb = tarred(tmp_path / "bomb.tar.gz", {"copa.jsonl": "{}" * 1_000_000})
    with pytest.raises(DataError, match=r"bomb\.tar\.gz: .* of it become over .*set GRADUS_MAX_EXPANSION"):
        bundle_folder(bomb)
    # Nothing is left of what failed.
    assert [p.name for p in (tmp_path / "cache/core").iterdir() if not p.name.startswith("sha")] == []


def test_a_dataset_of_the_hub_is_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(transfer, "_sleep", server.waits.append)
        monkeypatch.setattr(hub_module, "_resolved", {})
        core_bundle._from_hub.cache_clear()
        files = {"README.md": "A bundle.", **{f"in/{name}": text for name, text in FILES.items()}, **BESIDE}
        packed = zipped(tmp_path / "packed.zip", FILES).read_bytes()
        commit = server.dataset("a/core").commit(files | {"packed.zip": packed})
        folder = bundle_folder("hub:a/core")
        assert folder == tmp_path / "cache/core/a--core" / commit
        assert {p.name for p in folder.rglob("*") if p.is_file()} == {Path(f).name for f in FILES}
        asked = len(server.requests)
        assert bundle_folder("hub:a/core") == folder
        assert len(server.requests) == asked
        assert core_file("copa", bundle_folder("hub:a/core/in/eval_data")).read_text() == '{"task": "copa"}\n'
        assert core_file("jeopardy", bundle_folder("hub:a/core@main/packed.zip")).parent.parent.name == "eval_data"
        with pytest.raises(DataError, match='"absent" matches no file; at the top stand'):
            bundle_folder("hub:a/core/absent")
        with pytest.raises(DataError, match="no such dataset"):
            bundle_folder("hub:a/cores")
    with pytest.raises(DataError, match='expected "hub:OWNER/NAME", with @REVISION and /PATH if wanted'):
        bundle_folder("hub:core")
    assert bundle_at("hub:a/core", tmp_path) == "hub:a/core"
    assert bundle_at("x/b.zip", tmp_path) == tmp_path / "x/b.zip"
    assert bundle_at(None, tmp_path) is None
