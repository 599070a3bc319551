"""Push and pull of a home: what goes, what comes, what survives kills, damage and a place that fails."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading

import pytest
from toy_home import contents

from gradus.core.artifact import SCRATCH, FileEntry, open_artifact
from gradus.core.errors import ConfigError, GradusError
from gradus.core.fingerprint import digest
from gradus.release import parcels
from gradus.release import place as place_module
from gradus.release.place import (
    ParcelRecord,
    PlaceError,
    PlaceUnreachableError,
    open_place,
    read_record,
    record_text,
)
from gradus.release.pull import pull
from gradus.release.push import Push, read_status

# huggingface_hub hands files to its HTTP client in a way that the client warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(params=["folder", "memory", "hub"])
def place(request, tmp_path, monkeypatch):
    """An empty place of each kind, by its address."""
    if request.param == "folder":
        return (tmp_path / "there").as_uri()
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").store.clear()
        return "memory://bucket/there"
    from huggingface_hub import constants

    hub = request.getfixturevalue("hub")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return "hub:me/runs"


@pytest.fixture
def hub():
    from hub_server import hub_server

    with hub_server() as server:
        yield server


def send(home, address, every=100, say=None):
    """Push once; (whether all is there, the state)."""
    pushing = Push(home.path, "toy", open_place(address), every, say or (lambda text: None))
    return pushing.run(threading.Event(), follow=False), pushing.state


def test_what_is_pushed_is_pulled_byte_for_byte(home, place, tmp_path):
    home.finish("corpus")
    home.finish("tokens")
    home.checkpoint(100)
    done, state = send(home, place)
    assert done, state.problem
    assert state.sent == 4
    pulled = pull(open_place(place), tmp_path / "other", None, lambda text: None)
    assert pulled.roadmaps == ["toy"]
    assert pulled.artifacts == [home.names["corpus"], home.names["tokens"]]
    assert pulled.checkpoints == {home.names["pretrain"]: 100}
    here, there = (contents(root, ".push", ".lock", ".pull", "push.json") for root in (home.path, tmp_path / "other"))
    assert there == here
    for kind in ("corpus", "tokens"):
        open_artifact(tmp_path / "other/artifacts" / home.names[kind], kind)


def test_what_is_there_is_not_sent_again(home, place):
    home.finish("corpus")
    home.checkpoint(100)
    send(home, place)
    done, state = send(home, place)
    assert (done, state.sent, state.sent_bytes) == (True, 0, 0)
    home.finish("tokens")
    done, state = send(home, place)
    assert (done, state.sent) == (True, 1)


def test_the_record_comes_last_and_a_half_sent_parcel_is_not_there(home, tmp_path, monkeypatch):
    """A place that fails in the middle leaves no record; the next push sends only what is missing."""
    address = (tmp_path / "there").as_uri()
    home.finish("corpus", a=b"a" * 1000, b=b"b" * 1000)
    from gradus.release.folder_place import FolderPlace

    written = FolderPlace._write

    def fail_at_b(self, outgoing, half, report):
        if outgoing.path.endswith("/b"):
            raise OSError(28, "No space left on device", str(half))
        written(self, outgoing, half, report)

    monkeypatch.setattr(FolderPlace, "_write", fail_at_b)
    done, state = send(home, address)
    assert not done
    assert "the disk is full" in state.problem
    assert next(iter(state.waiting)) == f"artifacts/{home.names['corpus']}"
    there = contents(tmp_path / "there")
    assert [path.rpartition("/")[2] for path in there] == ["a"]
    monkeypatch.setattr(FolderPlace, "_write", written)
    done, state = send(home, address)
    assert done
    manifest = home.artifacts / home.names["corpus"] / "manifest.json"
    sizes = [1000, manifest.stat().st_size]
    assert sum(sizes) < state.sent_bytes < sum(sizes) + 3000  # b, manifest, records; not a


def test_a_place_that_fails_is_tried_again_with_growing_waits(home, waits, tmp_path, monkeypatch):
    home.finish("corpus")
    from gradus.release.folder_place import FolderPlace

    fails, listing = [1, 2, 3], FolderPlace.listing

    def flaky(self, folder):
        if fails:
            fails.pop()
            raise PlaceUnreachableError("gone for a while")
        return listing(self, folder)

    monkeypatch.setattr(FolderPlace, "listing", flaky)
    done, state = send(home, (tmp_path / "there").as_uri())
    assert done
    assert state.problem == ""
    assert [round(wait / 2**n) for n, wait in enumerate(waits)] == [1, 1, 1]


def test_a_place_that_never_answers_is_given_up_and_what_is_missing_is_named(home, tmp_path):
    home.finish("corpus")
    done, state = send(home, (tmp_path / "no" / "mount" / "there").as_uri())
    assert not done
    assert f"artifacts/{home.names['corpus']}" in state.waiting
    assert f"there is no folder {tmp_path}/no/mount" in state.problem
    assert not (tmp_path / "no").exists()


def test_a_checkpoint_that_retention_deletes_is_still_sent(home, tmp_path):
    address = (tmp_path / "there").as_uri()
    home.checkpoint(100)
    before = contents(home.work / "checkpoints")
    parcels.pin_checkpoint(home.path, home.names["pretrain"], 100)
    home.retire(100)
    assert send(home, address)[0]
    top = f"artifacts/{home.work.name}/checkpoints/"
    there = contents(tmp_path / "there")
    assert {p.removeprefix(top): d for p, d in there.items() if p.startswith(top)} == before
    assert not any(parcels.pins_of(home.path, home.names["pretrain"]).iterdir())


def test_a_checkpoint_that_vanishes_while_it_is_kept_leaves_nothing(home, monkeypatch):
    home.checkpoint(100)
    linked = parcels.link_or_copy

    def vanish(source, there):
        home.retire(100)
        linked(source, there)

    monkeypatch.setattr(parcels, "link_or_copy", vanish)
    assert parcels.pin_checkpoint(home.path, home.names["pretrain"], 100) is None
    assert not any(parcels.pins_of(home.path, home.names["pretrain"]).iterdir())


def test_checkpoints_go_as_far_apart_as_asked_and_the_last_one_in_any_case(home, tmp_path):
    for step in (40, 80, 120, 160, 240, 250):
        home.checkpoint(step)
    send(home, (tmp_path / "there").as_uri(), every=100)
    sent = sorted(path.name for path in (tmp_path / "there" / "artifacts" / home.work.name / "checkpoints").iterdir())
    assert sent == ["step-00000120", "step-00000240", "step-00000250"]


def test_no_more_than_a_few_checkpoints_wait(home):
    for step in range(100, 1000, 100):
        home.checkpoint(step)
        parcels.pin_checkpoint(home.path, home.names["pretrain"], step)
    assert parcels.checkpoint_steps(parcels.pins_of(home.path, home.names["pretrain"])) == [600, 700, 800, 900]


def test_files_that_the_place_has_elsewhere_are_copied_inside_it(home):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    home.finish("corpus", shard=b"s" * 9000)
    home.finish("tokens", shard=b"s" * 9000, more=b"m" * 100)
    done, state = send(home, "memory://bucket/there")
    assert done
    assert 9000 < state.sent_bytes < 18000
    assert bytes(memory.cat_file(f"memory://bucket/there/artifacts/{home.names['tokens']}/shard")) == b"s" * 9000


def test_a_kill_between_link_and_rename_harms_no_file_of_the_place(home, tmp_path):
    """What it leaves is a second name of a file that is there: writing into it would damage that file."""
    home.finish("corpus", shard=b"s" * 900)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    there = tmp_path / "there/artifacts"
    (there / home.names["tokens"]).mkdir()
    (there / home.names["tokens"] / ".other.tmp-push").hardlink_to(there / home.names["corpus"] / "shard")
    home.finish("tokens", other=b"o" * 900)
    assert send(home, address)[0]
    assert (there / home.names["corpus"] / "shard").read_bytes() == b"s" * 900
    assert (there / home.names["tokens"] / "other").read_bytes() == b"o" * 900


def test_a_damaged_artifact_of_this_machine_is_not_pushed_and_the_rest_is(home, tmp_path):
    artifact = home.finish("corpus")
    home.finish("tokens")
    (artifact.path / "data.bin").write_bytes(b"x" * 5000)
    done, state = send(home, (tmp_path / "there").as_uri())
    assert not done
    (reason,) = state.refused.values()
    assert "data.bin: damaged: expected 5,000 bytes with checksum" in reason
    assert (tmp_path / "there/pushed/artifacts" / f"{home.names['tokens']}.json").exists()
    assert not (tmp_path / "there/pushed/artifacts" / f"{home.names['corpus']}.json").exists()


def test_two_pushes_to_one_place_at_once_are_refused(home, tmp_path):
    address = (tmp_path / "there").as_uri()
    refusals = []

    def second(text):
        if not refusals:
            try:
                send(home, address)
            except GradusError as error:
                refusals.append(str(error))

    home.finish("corpus")
    send(home, address, say=second)
    assert len(refusals) == 1
    assert "another push of this home to" in refusals[0]


def test_what_was_deleted_or_damaged_in_the_place_is_sent_again(home, tmp_path):
    for kind in ("corpus", "tokens"):
        home.finish(kind)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    before = contents(tmp_path / "there")
    (tmp_path / "there/artifacts" / home.names["corpus"] / "data.bin").unlink()
    (tmp_path / "there/pushed/artifacts" / f"{home.names['tokens']}.json").write_text("{}")
    done, state = send(home, address)
    assert (done, state.sent) == (True, 2)
    assert contents(tmp_path / "there") == before


def test_a_place_that_refuses_while_training_goes_on_is_asked_again(home, tmp_path, monkeypatch):
    from gradus.release.folder_place import FolderPlace

    home.finish("corpus")
    listing, refusals = FolderPlace.listing, [1, 2]

    def refuse(self, folder):
        if refusals:
            refusals.pop()
            raise PlaceError("access is refused")
        return listing(self, folder)

    monkeypatch.setattr(FolderPlace, "listing", refuse)
    stop, said = threading.Event(), []

    def say(text):
        said.append(text)
        if "sent runs/toy" in text:
            stop.set()

    monkeypatch.setattr(stop, "wait", lambda seconds: stop.is_set())
    pushing = Push(home.path, "toy", open_place((tmp_path / "there").as_uri()), 100, say)
    assert pushing.run(stop, follow=True)
    assert "problem: access is refused" in said


@pytest.mark.parametrize("address", ["folder", "memory://bucket/killed"])
def test_stopped_at_any_byte_a_place_holds_nothing_that_is_not_whole(home, tmp_path, address, monkeypatch):
    """Stopped at random bytes until it gets through: after each stop every record there names whole files alone."""
    import fsspec

    fsspec.filesystem("memory").store.clear()
    address = (tmp_path / "there").as_uri() if address == "folder" else address
    home.finish("corpus", **{f"f{i}": bytes([i]) * 3000 for i in range(6)})
    home.finish("tokens", **{f"f{i}": bytes([i, 1]) * 1500 for i in range(6)})
    home.checkpoint(100)
    rng, stops, left = random.Random(3), 0, [0]
    count = place_module.copy_checked

    def stop_at_a_byte(source, target, report):
        if target is not None:
            left[0] -= 1
            if left[0] < 0:
                target.write(source.read(rng.randrange(1, 400)))
                raise KeyboardInterrupt
        return count(source, target, report)

    monkeypatch.setattr("gradus.release.fsspec_place.WHOLE_BYTES", 2900)
    monkeypatch.setattr("gradus.release.folder_place.copy_checked", stop_at_a_byte)
    monkeypatch.setattr("gradus.release.fsspec_place.copy_checked", stop_at_a_byte)
    while True:
        left[0] = rng.randrange(0, 5)
        try:
            done, _ = send(home, address)
        except KeyboardInterrupt:
            stops += 1
        else:
            break
        place = open_place(address)
        for path in place_module.record_paths(place, ""):
            for name, entry in read_record(place, path).files.items():
                data = place.read(name)
                assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
    assert done
    assert stops >= 5
    left[0] = 1 << 30
    pulled = pull(open_place(address), tmp_path / "other", None, lambda text: None)
    assert len(pulled.artifacts) == 2
    assert pulled.checkpoints == {home.names["pretrain"]: 100}


# Pull


def test_a_damaged_file_is_fetched_again_and_then_refused(home, tmp_path):
    home.finish("corpus")
    address = (tmp_path / "there").as_uri()
    send(home, address)
    file = tmp_path / "there/artifacts" / home.names["corpus"] / "data.bin"
    file.write_bytes(b"x" * 5000)
    said = []
    with pytest.raises(PlaceError, match=r"data\.bin: damaged in the place: expected 5,000 bytes with checksum"):
        pull(open_place(address), tmp_path / "other", None, said.append)
    assert any("came damaged; fetching it again" in line for line in said)
    assert not (tmp_path / "other/artifacts" / home.names["corpus"]).exists()
    file.write_bytes(bytes(5000))
    pull(open_place(address), tmp_path / "other", None, said.append)
    open_artifact(tmp_path / "other/artifacts" / home.names["corpus"], "corpus")


def test_a_damaged_checkpoint_gives_way_to_an_earlier_one_aloud(home, tmp_path):
    home.checkpoint(100)
    home.checkpoint(200)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    broken = tmp_path / f"there/artifacts/{home.work.name}/checkpoints/step-00000200/model.safetensors"
    broken.write_bytes(b"short")
    said = []
    pulled = pull(open_place(address), tmp_path / "other", None, said.append)
    assert pulled.checkpoints == {home.names["pretrain"]: 100}
    assert "step-00000200/model.safetensors" in pulled.problems[0]
    assert any("taking an earlier checkpoint" in line for line in said)


def test_an_interrupted_pull_goes_on_where_it_ended(home, place, tmp_path, monkeypatch):
    home.finish("corpus", a=b"a" * 3000, b=b"b" * 3000)
    send(home, place)
    opened = open_place(place)
    fetch, asked = type(opened).fetch, []

    def stop_at_b(self, path, entry, part):
        asked.append(path.rpartition("/")[2])
        if path.endswith("/b") and asked.count("b") == 1:
            raise KeyboardInterrupt
        fetch(self, path, entry, part)

    monkeypatch.setattr(type(opened), "fetch", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        pull(opened, tmp_path / "other", None, lambda text: None)
    assert not (tmp_path / "other/artifacts" / home.names["corpus"]).exists()
    pull(opened, tmp_path / "other", None, lambda text: None)
    assert asked.count("a") == 1
    assert open_artifact(tmp_path / "other/artifacts" / home.names["corpus"]).file("b").read_bytes() == b"b" * 3000


def test_a_half_fetched_file_is_continued(home, tmp_path):
    home.finish("corpus")
    address = (tmp_path / "there").as_uri()
    send(home, address)
    place = open_place(address)
    name = f"artifacts/{home.names['corpus']}/sub/more.txt"
    entry = read_record(place, f"pushed/artifacts/{home.names['corpus']}.json").files[name]
    (tmp_path / "part").write_bytes(b"te")
    place.fetch(name, entry, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b"text"


def test_protected_checkpoints_and_the_best_come_back_beside_the_newest(home, place, tmp_path):
    record = json.loads((home.run / "roadmap.json").read_text())
    record["stages"][2]["settings"] = {"protect": [150]}
    (home.run / "roadmap.json").write_text(json.dumps(record))
    for step in (100, 150, 200, 230):
        home.checkpoint(step)
        (home.work / "checkpoints" / "measures.json").write_text(json.dumps({"100": 1.5, "200": 2.0, "230": 2.5}))
        if step == 230:  # protected by hand
            (home.work / "checkpoints" / "step-00000230" / "protected").touch()
        send(home, place)
    for step in (250, 300):
        home.checkpoint(step)
        home.retire(step - 50)
    send(home, place)
    there = tmp_path / "other" / "artifacts" / home.work.name
    said = []
    for _ in range(2):
        pulled = pull(open_place(place), tmp_path / "other", None, said.append)
        assert pulled.problems == []
        steps = sorted(path.name for path in (there / "checkpoints").glob("step-*"))
        assert steps == ["step-00000100", "step-00000150", "step-00000230", "step-00000300"]
        assert (there / "checkpoints" / "step-00000230" / "protected").exists()
        assert (there / "metrics.jsonl").read_bytes() == (home.work / "metrics.jsonl").read_bytes()


def test_what_is_newer_here_stays(home, tmp_path):
    home.checkpoint(100)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    home.checkpoint(200)
    before = contents(home.path, ".push", ".lock", "push.json")
    pulled = pull(open_place(address), home.path, "toy", lambda text: None)
    assert (pulled.checkpoints, pulled.artifacts) == ({}, [])
    assert contents(home.path, ".push", ".lock", "push.json") == before


def test_a_second_pull_brings_what_has_been_made_since(home, tmp_path):
    home.finish("corpus")
    home.checkpoint(100)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    pull(open_place(address), tmp_path / "other", None, lambda text: None)
    home.names["more"] = f"more-{digest('more')[:16]}"
    record = json.loads((home.run / "roadmap.json").read_text())
    record["stages"].append({"name": "more", "kind": "more", "artifact": home.names["more"]})
    (home.run / "roadmap.json").write_text(json.dumps(record))
    home.finish("more")
    home.checkpoint(200)
    send(home, address)
    pulled = pull(open_place(address), tmp_path / "other", None, lambda text: None)
    assert pulled.artifacts == [home.names["more"]]
    assert pulled.checkpoints == {home.names["pretrain"]: 200}


def test_links_inside_an_artifact_come_too(home, tmp_path):
    artifact = home.finish("corpus", **{"checkpoints/step-00000004/w": b"w"})
    (artifact.path / "checkpoints" / "best").symlink_to("step-00000004")
    address = (tmp_path / "there").as_uri()
    send(home, address)
    pull(open_place(address), tmp_path / "other", None, lambda text: None)
    best = tmp_path / "other/artifacts" / home.names["corpus"] / "checkpoints" / "best"
    assert best.is_symlink()
    assert (best / "w").read_bytes() == b"w"


def test_a_push_does_not_look_into_what_a_commit_is_deleting(home, monkeypatch):
    artifact = home.finish("corpus", **{"kept/file": b"w"})
    scratch = artifact.path / SCRATCH / "deep"
    scratch.mkdir(parents=True)
    list_folder, listed = os.scandir, []

    def vanishing(folder):
        listed.append(os.path.basename(folder))
        if listed[-1] in {SCRATCH, "deep"}:
            raise FileNotFoundError(folder)
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert parcels.artifact_parcel(home.path, home.names["corpus"]) is not None
    assert "kept" in listed
    assert not {SCRATCH, "deep"} & set(listed)


def test_a_record_that_names_files_outside_the_home_is_refused(home, tmp_path):
    home.finish("corpus")
    address = (tmp_path / "there").as_uri()
    send(home, address)
    parcel = f"artifacts/{home.names['corpus']}"
    outside = {"../../outside": FileEntry(bytes=1, sha256="0" * 64)}
    for evil in ({"files": outside}, {"links": {f"{parcel}/x": "/etc"}}, {"links": {"../x": "y"}}):
        text = record_text(ParcelRecord(parcel=parcel, **evil))
        (tmp_path / f"there/pushed/{parcel}.json").write_bytes(text)
        with pytest.raises(PlaceError, match=r"names a file outside the home: (\.\./|/etc)"):
            pull(open_place(address), tmp_path / "other", None, lambda text: None)


def test_a_record_whose_own_name_leads_out_of_the_home_makes_nothing_there(home, tmp_path, monkeypatch):
    home.finish("corpus")
    address = (tmp_path / "there").as_uri()
    send(home, address)
    place = open_place(address)
    honest = place.listing
    monkeypatch.setattr(place, "listing", lambda folder: honest(folder) | {"pushed/runs/../../outside.json": 2})
    with pytest.raises(PlaceError, match=r"leads outside the home: pushed/runs/\.\./\.\./outside\.json"):
        pull(place, tmp_path / "other", None, lambda text: None)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["step-x", "step-00000100/x", "step-7", "step-" + "9" * 5000, "other"])
def test_a_checkpoints_record_that_no_push_wrote_is_named(home, tmp_path, monkeypatch, name):
    home.checkpoint(100)
    address = (tmp_path / "there").as_uri()
    send(home, address)
    place = open_place(address)
    honest, odd = place.listing, f"pushed/artifacts/{home.names['pretrain']}.work/{name}.json"
    monkeypatch.setattr(place, "listing", lambda folder: honest(folder) | ({odd: 2} if "pushed/art" in folder else {}))
    with pytest.raises(PlaceError, match=f"{address}/{odd}: not a checkpoint"):
        pull(place, tmp_path / "other", None, lambda text: None)
    with pytest.raises(PlaceError, match=f"{address}/{odd}: not a checkpoint"):
        Push(home.path, "toy", place, 100, lambda text: None).run(threading.Event(), follow=False)


def test_a_roadmap_that_is_not_there_is_named_with_the_nearest(home, tmp_path):
    address = (tmp_path / "there").as_uri()
    with pytest.raises(ConfigError, match="no roadmap has been pushed there"):
        pull(open_place(address), tmp_path / "other", None, lambda text: None)
    send(home, address)
    with pytest.raises(ConfigError, match='no roadmap "toi"; did you mean "toy"'):
        pull(open_place(address), tmp_path / "other", "toi", lambda text: None)


# The process


def test_keys_of_s3_that_others_can_read_are_refused(tmp_path, monkeypatch):
    keys = tmp_path / "credentials"
    keys.write_text("[default]")
    keys.chmod(0o644)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    with pytest.raises(PlaceError, match=rf"{keys}: other users of this machine can read this secret; run: chmod 600"):
        open_place("s3://bucket/runs")


def test_the_process_sends_what_comes_and_ends_with_its_input(home, tmp_path):
    home.finish("corpus")
    task = {"home": str(home.path), "roadmap": "toy", "to": (tmp_path / "there").as_uri(), "every": 10}
    process = subprocess.Popen(
        [sys.executable, "-m", "gradus.release.push", json.dumps(task)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert home.names["corpus"] in process.stdout.readline()
    home.checkpoint(10)
    home.checkpoint(13)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "step-00000010" in out
    assert "step-00000013" in out
    status = read_status(home.path, "toy")
    assert status["ended"]
    assert status["waiting"] == {}


def test_the_push_of_a_walk_that_began_again_waits_for_that_of_the_killed_one(home, tmp_path):
    home.finish("corpus")
    task = {"home": str(home.path), "roadmap": "toy", "to": (tmp_path / "there").as_uri(), "every": 10}

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "gradus.release.push", json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    first = start()
    assert "sent" in first.stdout.readline()
    second = start()
    assert "another push of this home" in second.stdout.readline()
    first.communicate(timeout=300)
    home.checkpoint(10)
    out, _ = second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "step-00000010" in out


def test_pushing_never_imports_torch():
    modules = "gradus.release.push, gradus.release.pull, gradus.release.hub_place, gradus.release.fsspec_place"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
