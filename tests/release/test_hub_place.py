"""The Hub as a place, against the stand-in: keys, privacy, failures, and what is not sent twice."""

import threading

import pytest
from hub_server import hub_server

from gradus.core.artifact import commit_artifact
from gradus.core.errors import ArtifactError, ConfigError
from gradus.release.place import PlaceError, open_place
from gradus.release.pull import pull
from gradus.release.push import Push
from gradus.release.push_bundle import push_bundle

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ADDRESS = "hub:me/runs"


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def send(home):
    said = []
    pushing = Push(home.path, "toy", open_place(ADDRESS), 100, said.append)
    return pushing.run(threading.Event(), follow=False), pushing.state, said


def test_the_repository_is_made_and_private(home, hub):
    home.finish("corpus")
    assert send(home)[0]
    assert hub.repositories["models", "me/runs"].private


def test_pushing_without_a_token_is_refused_with_what_to_do(home, hub, monkeypatch):
    home.finish("corpus")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PlaceError, match=r"hub:me/runs: pushing needs a token: set HF_TOKEN, or run: hf auth login"):
        send(home)


def test_pulling_what_is_private_without_a_token_says_so(home, hub, monkeypatch, tmp_path):
    home.finish("corpus")
    send(home)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "another" * 4)
    with pytest.raises(
        ConfigError, match=r"no roadmap has been pushed there, or it is private: set HF_TOKEN"
    ) as caught:
        pull(open_place(ADDRESS), tmp_path / "other", None, lambda text: None)
    assert "hf_another" not in str(caught.value)


def test_a_parcel_is_one_commit_and_large_files_are_sent_once(home, hub):
    home.finish("corpus", shard=b"s" * 900)
    home.finish("tokens", shard=b"s" * 900, more=b"m" * 900)
    assert send(home)[0]
    assert len(hub.asked("/commit/")) == 3
    puts = [request.path for request in hub.asked("/lfs/", "cdn") if request.method == "PUT"]
    assert len(puts) == len(set(puts))


def test_an_exported_folder_lies_at_the_root_of_its_repository(hub, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "model.safetensors").write_bytes(b"w" * 900)
    (work / "README.md").write_text("# card")
    folder = commit_artifact(work, kind="export", fingerprint="ab" * 32, final=tmp_path / "out").path
    assert push_bundle(folder, open_place(ADDRESS), lambda text: None) > 900
    assert set(open_place(ADDRESS).listing("")) > {"model.safetensors", "README.md", "manifest.json"}
    assert push_bundle(folder, open_place(ADDRESS), lambda text: None) == 0
    (folder / "README.md").write_text("# damaged")
    with pytest.raises(ArtifactError, match=r"README\.md"):
        push_bundle(folder, open_place(ADDRESS), lambda text: None)


def test_a_hub_that_fails_is_asked_again_and_no_key_is_told(home, hub, waits):
    home.finish("corpus")
    hub.fail("/commit/", status=500)
    hub.fail("/commit/", drop=True)
    done, state, said = send(home)
    assert done, state.problem
    assert [round(wait / 2**n) for n, wait in enumerate(waits)] == [1, 1]
    assert any("problem: hub:me/runs: the Hub answered 500" in line for line in said)
    assert not any(hub.token in line or "do-not-tell" in line for line in said)


def test_a_commit_that_the_hub_refuses_ends_a_push_by_hand(home, hub):
    home.finish("corpus")
    hub.fail("/commit/", status=403, times=99)
    with pytest.raises(PlaceError, match=r"the Hub answered 403: the token of HF_TOKEN may not use it"):
        send(home)


def test_a_download_that_is_cut_goes_on(home, hub, tmp_path):
    home.finish("corpus", shard=bytes(range(250)) * 100)
    send(home)
    hub.fail("/shard", cut=10_000)
    pull(open_place(ADDRESS), tmp_path / "other", None, lambda text: None)
    file = tmp_path / "other/artifacts" / home.names["corpus"] / "shard"
    assert file.read_bytes() == bytes(range(250)) * 100
    assert hub.asked("/shard")[-1].range == "bytes=10000-"
