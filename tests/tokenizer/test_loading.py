"""Saved folders and the Hub: what loads, what is refused, and a local stand-in for the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import hub_server

from gradus.core.errors import ArtifactError, DataError
from gradus.tokenizer.loading import load_tokenizer, saved_chat_template
from gradus.tokenizer.specials import HIDDEN_TOKENS, SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer


def test_a_saved_tokenizer_loads_as_itself(tokenizer: Tokenizer, folder: Path):
    loaded = load_tokenizer(folder)
    assert loaded.digest == tokenizer.digest
    assert loaded.encode("The café, 42!") == tokenizer.encode("The café, 42!")
    assert saved_chat_template(folder) == "{{ messages[0].content }}"


def test_the_hub_class_sees_the_control_tokens_as_readers_need_them(tokenizer: Tokenizer, folder: Path):
    transformers = pytest.importorskip("transformers")
    hub = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(hub) == tokenizer.vocab_size
    assert hub.eos_token == "<|im_end|>"
    assert hub.pad_token == "<|endoftext|>"
    assert hub.chat_template == "{{ messages[0].content }}"
    for name in SPECIAL_TOKENS:
        token = hub.added_tokens_decoder[tokenizer.special(name)]
        assert (token.content, token.special) == (name, name in HIDDEN_TOKENS)
    shown = hub.decode(hub("<think>x</think><|im_end|>").input_ids, skip_special_tokens=True)
    assert shown == "<think>x</think>"


def test_a_model_config_beside_it_does_not_change_the_ids(tokenizer: Tokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    text = "naïve 'ſ  x\n\n 123 中"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == tokenizer.encode(text)


def test_an_unknown_control_token_is_refused_with_the_nearest(tokenizer: Tokenizer):
    with pytest.raises(DataError, match=r'no control token "<\|im_stop\|>".*did you mean "<\|im_start\|>"'):
        tokenizer.special("<|im_stop|>")


def test_missing_control_tokens_are_appended(texts: list[str], tmp_path: Path):
    plain = train_tokenizer(texts, 300, special_tokens=["<|endoftext|>"])
    plain.save(tmp_path)
    loaded = load_tokenizer(tmp_path, SPECIAL_TOKENS)
    assert loaded.special("<|endoftext|>") == 299
    assert [loaded.special(name) for name in SPECIAL_TOKENS[1:]] == list(range(300, 310))
    assert loaded.encode("the dog") == plain.encode("the dog")
    assert loaded.extended(SPECIAL_TOKENS) is loaded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["model"].update(type="WordPiece"), "its model is WordPiece, not BPE"),
        (lambda data: data["model"].pop("merges"), "its model has no merges"),
        (lambda data: data["decoder"].update(type="Metaspace"), "it does not split and join by bytes"),
        (lambda data: data["model"]["vocab"].pop("Ġ"), "1 of the 256 bytes are not in its vocabulary"),
    ],
)
def test_other_kinds_of_tokenizer_are_refused(tokenizer: Tokenizer, tmp_path: Path, change, message: str):
    data = json.loads(tokenizer.to_json())
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=message) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{", "{}", '"text"', "\x00"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, content: str):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_settings_file_beside_it_is_refused_with_its_name(tmp_path: Path, content: str):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json: expected a JSON object"):
        saved_chat_template(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json; expected a folder with a saved tokenizer"):
        load_tokenizer(tmp_path)
    for text in ("{", tokenizer.to_json().replace('"trim_offsets"', '"trim"')):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"not a readable tokenizer\.json"):
            load_tokenizer(tmp_path)


@pytest.fixture
def endpoint(tokenizer: Tokenizer) -> Iterator[str]:
    with hub_server() as server:
        repository = server.model("someone/small")
        repository.commit({"README.md": "nothing else"}, "v1")
        repository.commit({"tokenizer.json": tokenizer.to_json()})
        yield server.endpoint


SCRIPT = """
from gradus.core.errors import ArtifactError
from gradus.tokenizer.loading import load_tokenizer_from_hub
for repo, revision in [("someone/small", None), ("someone/absent", None), ("someone/small", "v9"),
                       ("someone/small", "v1"), ("not a name", None)]:
    try:
        print(load_tokenizer_from_hub(repo, revision).digest)
    except ArtifactError as error:
        print(error)
"""


def test_the_hub_gives_a_tokenizer_or_a_clear_reason(tokenizer: Tokenizer, endpoint: str, tmp_path: Path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == tokenizer.digest, done.stderr
    assert lines[1] == "Hub repository someone/absent: no such repository (private ones need HF_TOKEN)"
    assert lines[2] == "Hub repository someone/small@v9: no such revision"
    assert lines[3] == "Hub repository someone/small@v1: it has no tokenizer.json; only fast tokenizers can be taken"
    assert lines[4].startswith("Hub repository not a name: not a repository name:")
    offline = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = offline.stdout.splitlines()
    assert lines[0] == tokenizer.digest, offline.stderr
    assert lines[1] == (
        "Hub repository someone/absent: not in the local cache and the Hub cannot be reached; connect once, "
        "or give a folder"
    )
