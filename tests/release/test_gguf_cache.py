"""Models handed to llama.cpp: written once, compared before they are believed, and talked to by name or by file."""

import json
import re

import pytest
from exported import KINDS, change_json, exported, save_random
from typer.testing import CliRunner

from gradus.cli.main import app
from gradus.core.errors import ArtifactError, ConfigError, ExportError, MissingPackageError
from gradus.engine import llamacpp_library
from gradus.release import gguf_cache
from gradus.release.gguf_cache import cached_gguf
from gradus.release.gguf_tokenizer import gguf_tokenizer
from gradus.release.settings import MOST_NATS
from gradus.tokenizer.loading import load_tokenizer

pytest.importorskip("gguf", reason='gguf is not installed: pip install "gradus[export]"')
needs_llamacpp = pytest.mark.skipif(not llamacpp_library.has_llamacpp(), reason="llama.cpp is not installed")


@pytest.fixture
def lines():
    return []


def test_without_llamacpp_the_error_names_what_to_install(tmp_path, monkeypatch, lines):
    monkeypatch.setattr(llamacpp_library, "PACKAGE", "no_such_llama")
    folder = save_random(tmp_path / "model")
    with pytest.raises(MissingPackageError, match=re.escape('pip install "gradus[llamacpp]"')):
        cached_gguf(folder, folder, "f32", tmp_path / "cache", lines.append)
    asked = CliRunner().invoke(app, ["chat", "-m", str(folder), "--backend", "llamacpp", "hello"])
    assert isinstance(asked.exception, MissingPackageError)
    assert not (tmp_path / "cache").exists()


def test_a_model_folder_without_a_tokenizer_is_said_to_be_one(tmp_path):
    folder = save_random(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    asked = CliRunner().invoke(app, ["chat", "-m", str(folder), "--backend", "llamacpp", "hello"])
    assert isinstance(asked.exception, ArtifactError)
    assert "no tokenizer.json; expected a folder with a saved tokenizer" in str(asked.exception)


def test_the_tokenizer_of_a_file_is_the_one_that_it_was_written_with(tmp_path, monkeypatch):
    from gradus.model.portable import portable_form
    from gradus.model.weights import load_model
    from gradus.release.gguf_file import write_gguf

    folder = save_random(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    file = tmp_path / "a.gguf"
    write_gguf(file, portable_form(load_model(folder)), tokenizer, "f32", "toy")
    found = gguf_tokenizer(file)
    assert found.digest == tokenizer.digest
    assert found.special_tokens == tokenizer.special_tokens
    whole = file.read_bytes()
    merge = " ".join(json.loads(tokenizer.to_json())["model"]["merges"][-1]).encode()
    assert whole.count(merge) == 1
    file.write_bytes(whole.replace(merge, b"~ ".ljust(len(merge), b"~")))
    with pytest.raises(ArtifactError, match=r"a\.gguf: its vocabulary and merges do not go together \(.* out of vocab"):
        gguf_tokenizer(file)
    file.write_bytes(whole[:3000])
    with pytest.raises(ArtifactError, match="no GGUF file with a byte-level BPE vocabulary"):
        gguf_tokenizer(file)
    with pytest.raises(ArtifactError, match="there is no such file"):
        gguf_tokenizer(tmp_path / "b.gguf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "torch"], "--backend torch: a.gguf is a file for llama.cpp; name the model"),
        (["--dtype", "bf16"], "--dtype bf16: a.gguf has the weights that it was exported with"),
        (["--url", "http://x/v1", "--backend", "llamacpp"], "--dtype and --backend are for models on this machine"),
    ],
)
def test_what_does_not_go_together_is_said(options, message):
    asked = CliRunner().invoke(app, ["chat", "-m", "a.gguf", *options, "hello"])
    assert isinstance(asked.exception, ConfigError)
    assert message in str(asked.exception)


@needs_llamacpp
def test_a_model_is_written_once_and_again_only_where_it_changed(tmp_path, lines):
    folder, cache = save_random(tmp_path / "model"), tmp_path / "cache"
    file = cached_gguf(folder, folder, "f32", cache, lines.append)
    assert "computes it: logits equal to" in lines[1]
    (cache / f".{file.name}.work").mkdir()  # what a kill leaves while it writes
    before = file.stat().st_mtime_ns
    assert cached_gguf(folder, folder, "f32", cache, lines.append) == file
    assert file.stat().st_mtime_ns == before
    assert len(lines) == 2
    assert cached_gguf(folder, folder, "q8_0", cache, lines.append) != file
    file.unlink()
    assert cached_gguf(folder, folder, "f32", cache, lines.append) == file
    change_json(folder / "config.json", note="another")
    assert cached_gguf(folder, folder, "f32", cache, lines.append) != file
    assert not list(cache.glob(".*.work"))


@needs_llamacpp
def test_a_file_that_is_another_model_is_not_kept(tmp_path, monkeypatch, lines):
    folder = save_random(tmp_path / "model")
    monkeypatch.setitem(MOST_NATS, "q4_0", 1e-4)
    with pytest.raises(ExportError, match="rounding the weights costs"):
        cached_gguf(folder, folder, "q4_0", tmp_path / "cache", lines.append)
    monkeypatch.setattr(gguf_cache, "fsync_file", full_disk)
    with pytest.raises(Exception, match="the disk is full"):
        cached_gguf(folder, folder, "f32", tmp_path / "cache", lines.append)
    assert not list((tmp_path / "cache").glob("*.gguf"))
    foreign = save_random(tmp_path / "foreign", **KINDS["gradus"])
    with pytest.raises(ConfigError, match=r"llama.cpp does not run this model \(.*\); use the backend torch"):
        cached_gguf(foreign, foreign, "f32", tmp_path / "cache", lines.append)


def full_disk(path):
    raise OSError(28, "No space left on device")


@needs_llamacpp
def test_a_model_and_its_file_say_the_same_in_chat_and_in_probes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "model")
    exported(tmp_path / "model", tmp_path / "out", formats=["gguf"], gguf_types=["f32"])
    said = [
        CliRunner().invoke(app, ["chat", "-m", model, "--dtype", "fp32", "--tools", "off", *more, "hello"])
        for model, more in (("model", []), ("model", ["--backend", "llamacpp"]))
    ]
    said.append(CliRunner().invoke(app, ["chat", "-m", "out/toy-F32.gguf", "--tools", "off", "hello"]))
    assert [one.exit_code for one in said] == [0, 0, 0], said
    assert said[0].stdout == said[1].stdout == said[2].stdout
    (tmp_path / "suite.jsonl").write_text(
        '{"id": "a", "category": "c", "messages": [{"role": "user", "content": "hello"}],'
        ' "checks": [{"kind": "stops"}]}\n'
    )
    probes = ["eval", "probes", "-m", "model", "-m", "out/toy-F32.gguf", "-s", "suite.jsonl", "--max-tokens", "20"]
    found = CliRunner().invoke(app, [*probes, "--json", "found.json"])
    assert found.exit_code == 0, found.output
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert [run["model"] for run in runs] == ["model", "toy-F32.gguf in llama.cpp"]
    assert runs[0]["items"][0]["answer"] == runs[1]["items"][0]["answer"]
    served = CliRunner().invoke(app, ["serve", "toy=out/toy-F32.gguf", "--check", "--max-tokens", "8"])
    assert served.exit_code == 0, served.output
