"""Artifacts: complete or absent, and refused where damaged or foreign."""

import json

import pytest

import gradus.core.artifact as artifact_module
from gradus.core.artifact import begin_work, commit_artifact, open_artifact
from gradus.core.errors import ArtifactError, GradusError
from gradus.core.files import write_atomic

FINGERPRINT = "ab" * 32


def make(folder, kind="corpus"):
    work = begin_work(folder, kind, FINGERPRINT)
    (work / "train").mkdir(exist_ok=True)
    (work / "train" / "0.txt").write_text("one two")
    (work / "scratch").mkdir(exist_ok=True)
    (work / "scratch" / "state").write_text("half way")
    return commit_artifact(work, kind=kind, fingerprint=FINGERPRINT, name="prose", results={"documents": 2})


def test_a_committed_artifact_reads_back_with_its_lineage(tmp_path):
    made = make(tmp_path)
    read = open_artifact(tmp_path / "corpus-abababababababab", "corpus")
    assert read == made
    assert read.file("train/0.txt").read_text() == "one two"
    assert read.file("train").is_dir()
    assert read.results == {"documents": 2}
    assert sorted(p.name for p in read.path.iterdir()) == ["manifest.json", "train"]
    assert [p.name for p in tmp_path.iterdir()] == ["corpus-abababababababab"]


def test_a_work_folder_keeps_its_content_across_a_kill(tmp_path):
    work = begin_work(tmp_path, "corpus", FINGERPRINT)
    (work / "scratch").mkdir()
    (work / "scratch" / "state").write_text("half way")
    assert begin_work(tmp_path, "corpus", FINGERPRINT) == work
    assert (work / "scratch" / "state").read_text() == "half way"
    with pytest.raises(ArtifactError, match="its stage has not finished; run the roadmap again"):
        open_artifact(work)


def test_half_a_character_is_refused_before_anything_is_written(tmp_path):
    work = begin_work(tmp_path, "corpus", FINGERPRINT)
    for field, value in (("name", "a\ud800"), ("results", {"by_source": {"caf\udce9": 1}})):
        words = f"{field}: the text to be written holds half a character .U\\+D[8C]"
        with pytest.raises(GradusError, match=words):
            commit_artifact(work, kind="corpus", fingerprint=FINGERPRINT, **{field: value})
        assert list(work.iterdir()) == []
    with pytest.raises(GradusError, match=r'kept: the text .* after "x", which no file can hold; mend the text'):
        write_atomic(tmp_path / "kept", "x\udc80")
    assert [path.name for path in tmp_path.iterdir()] == [work.name]


def test_a_changed_byte_is_refused_with_both_checksums(tmp_path):
    made = make(tmp_path)
    made.file("train/0.txt").write_text("one twO")
    with pytest.raises(
        ArtifactError, match=r"0\.txt: damaged: expected checksum [0-9a-f]{16}, found [0-9a-f]{16}; delete"
    ):
        open_artifact(made.path)


def test_a_cut_or_missing_file_is_refused_even_without_checksums(tmp_path):
    made = make(tmp_path)
    made.file("train/0.txt").write_text("one")
    with pytest.raises(ArtifactError, match="expected 7 bytes, found 3"):
        open_artifact(made.path, verify=False)
    (made.path / "train" / "0.txt").unlink()
    with pytest.raises(ArtifactError, match=r"0\.txt: missing from the artifact; delete the folder"):
        open_artifact(made.path, verify=False)


def test_an_edited_manifest_is_refused(tmp_path):
    made = make(tmp_path)
    file = made.path / "manifest.json"
    body = json.loads(file.read_text())
    body["results"]["documents"] = 3
    file.write_text(json.dumps(body))
    with pytest.raises(ArtifactError, match="damaged or edited: expected checksum"):
        open_artifact(made.path)
    file.write_text("{")
    with pytest.raises(ArtifactError, match="not readable as JSON"):
        open_artifact(made.path)


def test_foreign_and_missing_folders_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such artifact folder"):
        open_artifact(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(ArtifactError, match=r"no manifest\.json inside: not a gradus artifact"):
        open_artifact(tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text('{"name": "an extension"}')
    with pytest.raises(ArtifactError, match="not the manifest of a gradus artifact"):
        open_artifact(tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text('{"fingerprint": "x", "format_version": 99}')
    with pytest.raises(ArtifactError, match="written in artifact format 99, this gradus reads 1"):
        open_artifact(tmp_path / "other")
    with pytest.raises(ArtifactError, match="expected an artifact of kind tokenizer, found one of kind corpus"):
        open_artifact(make(tmp_path).path, "tokenizer")


def test_results_that_are_not_finite_are_refused(tmp_path):
    work = begin_work(tmp_path, "corpus", FINGERPRINT)
    with pytest.raises(ArtifactError, match="a number that is not finite"):
        commit_artifact(work, kind="corpus", fingerprint=FINGERPRINT, results={"loss": float("nan")})


def test_committing_what_was_committed_meanwhile_keeps_the_first(tmp_path):
    first = make(tmp_path)
    assert make(tmp_path) == first
    assert [p.name for p in tmp_path.iterdir()] == [first.path.name]


def test_an_unknown_file_says_what_there_is(tmp_path):
    with pytest.raises(ArtifactError, match='this corpus artifact holds no "model"; it holds train'):
        make(tmp_path).file("model")


def test_what_a_kill_left_half_written_does_not_become_part_of_the_artifact(tmp_path):
    work = begin_work(tmp_path, "corpus", FINGERPRINT)
    (work / ".corpus.json.tmp-12ab34cd").write_text("half")
    (work / "step-3.tmp-77").mkdir()
    (work / "step-3.tmp-77" / "weights").write_text("half")
    assert sorted(p.name for p in make(tmp_path).path.iterdir()) == ["manifest.json", "train"]


def test_a_large_file_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_module, "LARGE_BYTES", 10)
    work = begin_work(tmp_path, "thing", "f" * 64)
    (work / "large.bin").write_bytes(b"0123456789abcdef")
    (work / "small.bin").write_bytes(b"0123")
    committed = commit_artifact(work, kind="thing", fingerprint="f" * 64)
    read = []
    genuine = artifact_module.file_digest
    monkeypatch.setattr(artifact_module, "file_digest", lambda path: read.append(path.name) or genuine(path))
    open_artifact(committed.path)
    assert read == ["small.bin"]
    (tmp_path / ".verified" / f"{committed.path.name}.json").unlink()
    open_artifact(committed.path)
    open_artifact(committed.path)
    assert read == ["small.bin", "large.bin", "small.bin", "small.bin"]
    (committed.path / "large.bin").write_bytes(b"0123456789abcdeX")
    with pytest.raises(ArtifactError, match=r"large\.bin: damaged: expected checksum"):
        open_artifact(committed.path)
