"""Fingerprints, ledger lines, atomic files and machine facts."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import MissingPackageError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import canonical_json, digest, file_digest, stage_fingerprint
from gradus.core.ledger import Ledger
from gradus.core.machine import machine_facts, software_versions
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON))
def test_key_order_does_not_change_a_digest(data):
    assert digest(dict(reversed(data.items()))) == digest(data)


def test_canonical_json_is_the_bytes_one_expects():
    class Example(Settings):
        b: int = 1
        a: str = "é"
        horizon: Quantity = Quantity(5000, "steps")

    assert canonical_json(Example()) == '{"a":"é","b":1,"horizon":"5_000 steps"}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
    # Independent truth: SHA-256 of the two bytes "{}".
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_file_digest_is_its_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_every_part_of_a_stage_changes_its_fingerprint():
    base = ("sft", 1, {"epochs": 6}, 1, {"pool": "a"}, {"from": "b"})
    seen = {stage_fingerprint(*base)}
    for index, other in enumerate(("dpo", 2, {"epochs": 7}, 2, {"pool": "c"}, {"from": "d"})):
        seen.add(stage_fingerprint(*base[:index], other, *base[index + 1 :]))
    assert len(seen) == 7


def test_a_torn_line_loses_nothing_but_itself(tmp_path):
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    assert list(ledger.records()) == []
    ledger.append({"a": 1})
    with open(ledger.path, "ab") as handle:
        handle.write(b'{"torn": ')
    assert list(ledger.records()) == [{"a": 1}]
    ledger.append({"b": "ü"})
    assert list(ledger.records()) == [{"a": 1}, {"b": "ü"}]
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.append({"loss": float("inf")})


def test_an_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    file = tmp_path / "state.json"
    write_atomic(file, "old")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "folder", "x")


def test_machine_facts_are_plain_json():
    facts = json.loads(json.dumps(machine_facts()))
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 2**28
    assert software_versions()["pydantic"]


def test_a_missing_package_names_its_install_line():
    assert str(MissingPackageError("gguf", "export")) == (
        'the package "gguf" is needed and not installed; run: pip install "gradus[export]"'
    )


def test_core_never_imports_torch():
    code = """
import importlib, pkgutil, sys
import gradus.core as room
for module in pkgutil.iter_modules(room.__path__):
    importlib.import_module("gradus.core." + module.name)
from gradus.core.machine import machine_facts, software_versions
machine_facts(), software_versions()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
