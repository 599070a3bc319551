"""What is served changes while requests go on: swapped, refused, rolled back, ended; nothing is cut before its time."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_server import CHAT, Running, body, serving, source, wait_until

from gradus.cli.deploying import deploy
from gradus.cli.serving import model_source, start_server
from gradus.core.artifact import MANIFEST
from gradus.core.errors import ConfigError, GateFailedError, GradusError
from gradus.core.home import LEDGER, RUN_RECORD, RUNS, SOCKETS
from gradus.core.ledger import Ledger
from gradus.engine.engine import Engine
from gradus.engine.service import EngineService
from gradus.model.config import model_config
from gradus.model.hub import hub_config
from gradus.model.reach import reach
from gradus.model.transformer import build_model
from gradus.model.weights import save_model
from gradus.roadmap.verdicts import gate_faults
from gradus.serve import control
from gradus.serve.control import Control, ask_server, running_servers
from gradus.serve.deployments import Deployments, ModelSource
from gradus.serve.handover import vllm_command
from gradus.serve.models import ServedModel

pytestmark = pytest.mark.usefixtures("one_thread")


def swap(found: Running, new: ModelSource) -> ModelSource:
    """Swap from this thread, in the server's own loop."""
    loop = found.server.loop
    assert loop is not None
    return asyncio.run_coroutine_threadsafe(found.state.models.swap(new, found.said.append), loop).result(120)


def test_a_swap_ends_the_old_ones_replies_and_what_does_not_answer_never_serves(
    memorised: Any, load: Callable[[ModelSource], ServedModel]
) -> None:
    engine = memorised[0]
    spoilt = build_model(engine.model.config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        spoilt.unembedding.fill_(torch.nan)

    def load_one(found: ModelSource) -> ServedModel:
        if found.label == "absent":
            raise GradusError("no such folder")
        if found.label == "spoilt":
            whole = Engine(spoilt, engine.tokenizer, engine.form, engine.toolbox)
            return ServedModel(found, whole, EngineService(whole, num_slots=2))
        return load(found)

    with serving(load_one) as found:
        for label, words in (("absent", "no such folder"), ("spoilt", "probabilities are no numbers")):
            with pytest.raises(GradusError, match=words):
                swap(found, source("small", label))
            assert found.http.get("/v1/models/small").json()["gradus"]["label"] == "made/up"
            assert found.chat("coffee?").status_code == 200
        old = found.state.models.find("small").service
        with found.http.stream("POST", CHAT, json=body("hello", temperature=1000.0, seed=1, stream=True)) as reply:
            before = swap(found, source("small", "other"))
            lines = [line for line in reply.iter_lines() if line]
        assert before.label == "made/up"
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2][6:])["choices"][0]["finish_reason"] in ("stop", "length")
        assert old.stats().num_cancelled == 0
        assert found.http.get("/v1/models/small").json()["gradus"]["label"] == "other"
        assert found.chat("coffee?").json()["choices"][0]["message"]["content"] == "café ☕ déjà vu"


def test_at_the_end_replies_are_finished_and_those_that_take_too_long_are_told(load: Any) -> None:
    for seconds, last in ((120.0, "finish_reason"), (0.0, "unavailable")):
        lines: list[str] = []
        with serving(load, drain_seconds=seconds) as found:

            def listen(found: Running = found, lines: list[str] = lines) -> None:
                asked = body("hello", temperature=1000.0, seed=1, stream=True)
                with found.http.stream("POST", CHAT, json=asked) as reply:
                    lines += [line for line in reply.iter_lines() if line]

            thread = threading.Thread(target=listen)
            thread.start()
            wait_until(lambda found=found: found.state.models.find("small").service.stats().num_live)
            found.server.should_exit = True
            thread.join(120)
        assert lines[-1] == "data: [DONE]"
        assert last in lines[-2], seconds


def test_an_end_in_the_middle_of_a_swap_waits_for_replies_and_not_for_the_new_model(load: Any) -> None:
    goes_on, late, told = threading.Event(), [], []

    def load_slowly(found: ModelSource) -> ServedModel:
        if found.label == "slow":
            assert goes_on.wait(600)
            late.append(load(found))
            return late[0]
        return load(found)

    def deploy_it(found: Running) -> None:
        with pytest.raises(GradusError, match="the server is ending; nothing was deployed"):
            swap(found, source("small", "slow"))
        told.append(goes_on.is_set())

    with serving(load_slowly) as found:
        thread = threading.Thread(target=deploy_it, args=(found,))
        thread.start()
        wait_until(lambda: any(one.name == "gradus-load" for one in threading.enumerate()))
        assert found.chat("coffee?").status_code == 200
    thread.join(120)
    assert told == [False]
    assert found.state.models.find("small").source.label == "made/up"
    goes_on.set()
    wait_until(lambda: not any(one.name == "gradus-load" for one in threading.enumerate()))
    late[0].service.close()


@pytest.fixture
def home(tmp_path: Path, memorised: Any) -> Path:
    """A home with a walked roadmap: stage `one` without gates, `two` with an exam that gates it."""
    engine = memorised[0]
    run = tmp_path / RUNS / "road"
    gate = {"measure": "probes.total", "bound": "value", "at_least": 0.5}
    stages = []
    for name, kind, gates, inputs in (("one", "sft", [], {}), ("two", "dpo", [], {"from": ["one"]}),
                                      ("exam", "eval", [gate], {"from": ["two"]})):  # fmt: skip
        folder = run / name
        (folder / "model").mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps({"name": name, "kind": kind, "fingerprint": name * 8}))
        stages.append({"name": name, "kind": kind, "fingerprint": name * 8, "gates": gates, "inputs": inputs,
                       "artifact": name})  # fmt: skip
        if kind != "eval":
            save_model(folder / "model", engine.model)
            engine.tokenizer.save(folder / "model", chat_template=engine.form.chat_template)
    (run / RUN_RECORD).write_text(json.dumps({"name": "road", "stages": stages}))
    return tmp_path


def judged(home: Path, passed: bool) -> None:
    gate = {"measure": "probes.total", "bound": "value", "at_least": 0.5}
    record = {"event": "gate", "stage": "exam", "fingerprint": "exam" * 8, "gate": gate, "passed": passed}
    Ledger(home / RUNS / "road" / LEDGER).append(record | {"text": f"probes.total is {'not ' * (not passed)}enough"})


def test_gates_are_asked_before_anything_is_deployed(home: Path) -> None:
    run = home / RUNS / "road"
    assert gate_faults(run, "one") == []
    assert gate_faults(run, "two") == ['the gate on probes.total of stage "exam" has not been judged']
    judged(home, False)
    assert gate_faults(run, "two") == ['stage "exam": probes.total is not enough']
    judged(home, True)
    assert gate_faults(run, "two") == []
    (run / "exam" / MANIFEST).unlink()
    assert gate_faults(run, "two") == ['stage "exam", whose gates judge it, has not been run']


def deploying(reference: str | None, home: Path, **given: Any) -> None:
    deploy(reference, home, **({"to": None, "port": None, "reason": None, "back": False, "as_json": False} | given))


def test_deploy_repoints_a_running_server_and_a_restart_remembers(
    home: Path, load: Any, memorised: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="no server"):
        deploying("road/one", home)
    deployments = Deployments(home / "deployed.json")

    def resolve(name: str, reference: str) -> ModelSource:
        return model_source(name, reference, home)

    def real(found: ModelSource) -> ServedModel:
        return load(found)

    with serving(real, sources=[resolve("chat", "road/one")]) as found:
        loop = found.server.loop
        assert loop is not None
        control = Control(found.state.models, {"chat": "road/one"}, deployments, resolve, home, 1)
        asyncio.run_coroutine_threadsafe(control.start(), loop).result(120)
        assert (home / ".servers").stat().st_mode & 0o777 == 0o700
        (home / ".servers" / "of another program.sock").touch()
        (path,) = running_servers(home).values()
        with pytest.raises(GateFailedError, match=r'has not been judged.*--override "reason"'):
            deploying("road/two", home)
        judged(home, True)
        for wrong, words in (("road/twoo", 'did you mean "two"'), ("road/two@7", "expected ROADMAP/STAGE")):
            with pytest.raises(GradusError, match=words):
                deploying(wrong, home)
        with pytest.raises(ConfigError, match='no model "chatt" is served; did you mean "chat"'):
            deploying("road/two", home, to="chatt")
        with pytest.raises(GradusError, match="nothing to go back to"):
            deploying(None, home, back=True)
        deploying("road/two", home)
        assert found.http.get("/v1/models/chat").json()["gradus"]["label"] == "road/two"
        assert "chat is road/two from now on" in capsys.readouterr().out
        with pytest.raises(GradusError, match="is road/two already"):
            deploying("road/two", home)
        deployed = deployments.find("chat")
        assert deployed is not None
        assert (deployed.given, deployed.now.label) == ("road/one", "road/two")
        deploying(None, home, back=True)
        assert found.http.get("/v1/models/chat").json()["gradus"]["label"] == "road/one"
        with pytest.raises(GradusError, match="not understood"):
            list(ask_server(path, {"do": "nothing"}))
        deploying("road/two", home, reason="in a hurry")
        loop.call_soon_threadsafe(control.stop)
        wait_until(lambda: not path.exists())
    events = [r for r in Ledger(home / RUNS / "road" / LEDGER).records() if r["event"] == "deploy"]
    assert [(e["stage"], e["rollback"]) for e in events] == [("two", False), ("one", True), ("two", False)]
    assert events[-1]["override"] == "in a hurry"
    options: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "dtype": "fp32", "backend": None, "device": "cpu", "compile": False,
        "constrain": None, "check": True, "tools": lambda: nullcontext(memorised[0].toolbox),
        "settings": {"num_slots": 2},
    }  # fmt: skip
    start_server(["chat=road/one"], home, **options)
    assert "chat: road/two, deployed in place of road/one" in capsys.readouterr().out
    start_server(["chat=road"], home, **options)  # other words are a new decision
    assert "deployed" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match='two models are called "a"'):
        start_server(["a=road/one", "a=road/two"], home, **options)


def test_a_server_compiles_steps_where_it_is_told_to(
    home: Path, memorised: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def compiled(function: Any, fullgraph: bool) -> Any:  # in place of a compiler, which takes long
        handed.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    options: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "dtype": "fp32", "device": "cpu", "constrain": None, "check": True,
        "tools": lambda: nullcontext(memorised[0].toolbox),
        "settings": {"num_slots": 2},
    }  # fmt: skip
    start_server(["chat=road/one"], home, **options, backend=None, compile=False)
    assert handed == []
    start_server(["chat=road/one"], home, **options, backend=None, compile=True)
    assert handed == ["_heads", "_rest"]
    with pytest.raises(ConfigError, match=r"--compile: llama\.cpp is compiled already; leave --compile out"):
        start_server(["chat=road/one"], home, **options, backend="llamacpp", compile=True)


def test_the_line_for_vllm_names_folders_and_parsers(home: Path) -> None:
    one = model_source("a b", "road/one", home)
    words = "--reasoning-parser qwen3 --enable-auto-tool-choice --tool-call-parser hermes"
    words += """ --default-chat-template-kwargs '{"enable_thinking": false}'"""
    assert vllm_command(one) == f"vllm serve {one.folder} --served-model-name 'a b' {words}"
    assert f"--tokenizer {home}" in str(vllm_command(replace(one, tokenizer=home)))
    (one.folder / "config.json").write_text('{"architectures": ["OwnForCausalLM"]}')
    assert vllm_command(one) is None


def test_the_line_for_vllm_is_there_for_every_class_that_a_plan_calls_native(tmp_path: Path) -> None:
    size = {"depth": 2, "width": 32, "num_heads": 2, "mlp_width": 32}
    experts = {"num_experts": 4, "experts_per_token": 2, "expert_width": 32}
    kinds: dict[str, dict[str, Any]] = {
        "qwen3": {},
        "llama": {"qk_norm": False},
        "qwen3_moe": experts,
        "dots1": experts | {"router": "sigmoid", "balance": "bias", "shared_experts": 1},
        "apertus": {"activation": "relu2"},
        "mellum": {"window_pattern": "SL", "window": 8},
    }
    natives = []
    for kind, changes in kinds.items():
        config = model_config(size | changes, 300, 64)
        (tmp_path / "config.json").write_text(json.dumps(hub_config(config)))
        found = reach(config)
        assert found.kind == kind
        native = found.vllm == "native"
        assert (vllm_command(replace(source("a"), folder=tmp_path)) is not None) == native, kind
        natives += [kind] if native else []
    assert natives == ["qwen3", "llama", "qwen3_moe", "dots1", "apertus"]


@pytest.mark.parametrize("is_long", [False, True], ids=["short", "long"])
def test_a_server_is_reached_whatever_the_length_of_its_homes_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    if is_long:  # the folder for temporary files too
        (temporary := tmp_path / ("t" * 90)).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    home = tmp_path.joinpath(*["a folder with a long name"] * 6)
    (home / SOCKETS).mkdir(parents=True)
    path = home / SOCKETS / "8017.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        with control._address(path) as at:
            assert len(at) <= control._MOST_ADDRESS_BYTES < len(str(path))
            listening.bind(at)
        assert path.is_socket()
        listening.listen()
        assert running_servers(home) == {8017: path}
