"""Who may ask and how much: keys, buckets, queues, names of the server, clients that leave."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from small_server import CHAT, body, folded, serving, wait_until

from gradus.cli.serving import memory_warning, need_serve
from gradus.core.errors import ConfigError, GenerationError, MissingPackageError
from gradus.engine.batching import DecodeBatch
from gradus.engine.service import EngineService
from gradus.engine.turn import Turn
from gradus.serve import app, connections, keys
from gradus.serve.errors import ApiError
from gradus.serve.keys import KEY_VARIABLE, Account, Accounts, add_account, key_digest, read_accounts, remove_account
from gradus.serve.limits import Meter, Meters
from gradus.serve.models import ModelSource, ServedModel
from gradus.serve.server import bind

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_key_is_kept_as_its_digest_in_a_file_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    key = add_account(file, "ada", tokens_per_day=100)
    other = add_account(file, "bob")
    assert key.startswith("sk-gradus-")
    assert len(key) > 40
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    accounts = Accounts(file)
    found = accounts.find(key)
    assert found is not None
    assert (found.name, found.tokens_per_day, found.sha256) == ("ada", 100, key_digest(key))
    assert accounts.find(key[:-1]) is accounts.find("") is None
    remove_account(file, "bob")
    assert accounts.find(other) is None  # a running server reads the file again
    for bad, words in (("ada", "already"), ("no spaces", "text that matches"), ("", "text that matches")):
        with pytest.raises(ConfigError, match=words):
            add_account(file, bad)
    with pytest.raises(ConfigError, match='did you mean "ada"'):
        remove_account(file, "adaa")
    with monkeypatch.context() as patch:
        patch.setattr(keys, "write_atomic", lambda path, text: os.open("/dev/full/x", os.O_RDONLY))
        with pytest.raises(ConfigError, match=r"cannot be written .*as they were"):
            add_account(file, "eve")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_accounts(file)
    file.chmod(0o600)
    file.write_text('{"accounts": [{"name": "a"}]}')
    with pytest.raises(ConfigError, match="sha256"):
        read_accounts(file)


def test_a_key_of_the_environment_has_to_be_long_and_an_open_address_has_to_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Accounts(tmp_path / "keys.json")
    with pytest.raises(ConfigError, match="keys add NAME"):
        bind("0.0.0.0", 0, none)
    monkeypatch.setenv(KEY_VARIABLE, "short-one")
    with pytest.raises(ConfigError, match="at least 24"):
        Accounts(None)
    monkeypatch.setenv(KEY_VARIABLE, "k" * 24)
    held = Accounts(None)
    assert held.find("k" * 24) is not None
    bind("0.0.0.0", 0, held).close()
    with bind("127.0.0.1", 0, none) as taken, pytest.raises(ConfigError, match="choose another with --port"):
        bind("127.0.0.1", taken.getsockname()[1], none)


def test_buckets_fill_with_time_and_tokens_are_paid_afterwards() -> None:
    now = [0.0]
    account = Account(name="a", sha256="0" * 64, requests_per_minute=2, tokens_per_minute=60, tokens_per_day=200)
    meter = Meter(account, 0, lambda: now[0])

    def refusal() -> ApiError:
        with pytest.raises(ApiError) as raised:
            meter.admit()
        assert raised.value.status == 429
        return raised.value

    meter.admit()
    meter.admit()
    assert refusal().retry_after == pytest.approx(30)  # two a minute are one in 30 seconds
    now[0] = 31
    meter.admit()
    meter.charge(90)  # the bucket held 60: 30 too many, and one more has to come in
    now[0] = 61
    assert "tokens a minute" in str(refusal())
    now[0] = 62.1
    meter.admit()
    meter.charge(110)
    now[0] = 10_000
    error = refusal()
    assert (error.code, "of today" in str(error)) == ("insufficient_quota", True)
    assert 0 < (error.retry_after or 0) <= 86_400


def test_what_was_used_today_outlives_the_server_and_not_the_day(tmp_path: Path) -> None:
    file, account = tmp_path / "usage.json", Account(name="a", sha256="0" * 64, tokens_per_day=10)
    meters = Meters(file)
    meters.of(account).charge(10)
    meters.save()
    with pytest.raises(ApiError, match="used"):
        Meters(file).of(account).admit()
    file.write_text(file.read_text().replace('"day": "20', '"day": "19'))
    Meters(file).of(account).admit()
    file.write_text("{torn")
    Meters(file).of(account).admit()


def test_only_a_known_key_is_answered_and_its_tokens_are_counted(load: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_account(file, "ada", tokens_per_day=20, max_concurrent=1)
    with serving(load, keys=file) as found:
        for path in ("/v1/models", "/v1/models/small", "/metrics"):
            assert found.http.get(path).status_code == 401, path
        reply = found.chat()
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert found.http.get("/health").status_code == 200
        assert found.http.get("/config.json").json()["needs_key"] is True
        found.http.headers["Authorization"] = "Bearer " + key[:-1]
        assert found.chat().json()["error"]["code"] == "invalid_api_key"
        found.http.headers["Authorization"] = "Bearer " + key
        usage = found.chat().json()["usage"]
        assert usage["total_tokens"] >= 20
        refused = found.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert int(refused.headers["Retry-After"]) >= 1
        metrics = found.http.get("/metrics").text
        assert (
            f'gradus_tokens_total{{account="ada",kind="sampled",model="small"}} {usage["completion_tokens"]}' in metrics
        )
        assert key not in metrics
        # With keys the server may be asked under any name.
        assert found.http.get("/v1/models", headers={"Host": "chat.example.org"}).status_code == 200
        second = add_account(file, "bob")
        assert found.http.get("/v1/models", headers={"Authorization": f"Bearer {second}"}).status_code == 200
        # What others use is told to whom it was allowed.
        for name, settings, seen in (("carl", {}, False), ("dora", {"sees_all": True}, True)):
            third = add_account(file, name, **settings)
            told = found.http.get("/metrics", headers={"Authorization": f"Bearer {third}"}).text
            assert ('account="ada"' in told) is seen
            assert "gradus_slots{" in told
        remove_account(file, "bob")
        assert found.http.get("/v1/models", headers={"Authorization": f"Bearer {second}"}).status_code == 401
        # What was closed stays closed: without its last key, and with a file that nobody can read.
        written = file.read_text()
        remove_account(file, "ada")
        assert found.http.get("/v1/models").status_code == 401
        file.write_text("{")
        assert found.http.get("/v1/models").status_code == 503
        file.write_text(written)
        assert found.http.get("/v1/models").status_code == 200
    assert json.loads(file.with_name("usage.json").read_text())["tokens"] == {"ada": usage["total_tokens"]}


def test_without_keys_other_names_and_pages_of_other_sites_are_turned_away(load: Any) -> None:
    site = "https://pages.example.org"
    with serving(load, hosts=("box.lan",), origins=(site,)) as found:
        get = found.http.get
        for host, status in (("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421), ("box.lan:80", 200),
                             ("localhost", 200), ("[::1]:9", 200)):  # fmt: skip
            assert get("/v1/models", headers={"Host": host}).status_code == status, host
        assert get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
        for odd in ("null", "http://[", "http://[::1", "http://localhost.evil.example", ""):
            assert get("/v1/models", headers={"Origin": odd}).status_code == 403, odd
        assert get("/v1/models", headers={"Origin": found.url}).status_code == 200
        told = get("/v1/models", headers={"Origin": site})
        assert told.headers["Access-Control-Allow-Origin"] == site
        # As a browser asks for the package openai.
        wanted = {"Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}
        before = {"Origin": site, "Access-Control-Request-Method": "POST"} | wanted
        asked = found.http.options(CHAT, headers=before)
        assert (asked.status_code, asked.headers["Access-Control-Allow-Methods"]) == (204, "GET, POST")
        assert asked.headers["Access-Control-Allow-Headers"] == wanted["Access-Control-Request-Headers"]
        assert "Access-Control-Allow-Origin" not in get("/v1/models").headers


def test_the_first_key_closes_a_running_server(load: Any, tmp_path: Path) -> None:
    with serving(load, keys=tmp_path / "keys.json", max_tokens=8) as found:
        assert found.http.get("/v1/models").status_code == 200
        # Nor is a default more than the server gives.
        made = found.http.post("/v1/completions", json={"model": "small", "prompt": "They", "temperature": 0}).json()
        assert made["usage"]["completion_tokens"] <= 8
        add_account(tmp_path / "keys.json", "ada")
        assert found.http.get("/v1/models").status_code == 401
        # Names are not looked at any more, and one that is none breaks nothing.
        with socket.create_connection(("127.0.0.1", int(found.url.rpartition(":")[2]))) as odd:
            odd.sendall(b"GET /nowhere HTTP/1.1\r\nHost: [\r\n\r\n")
            assert odd.recv(100).startswith(b"HTTP/1.1 404")


def test_a_full_queue_is_told_and_who_leaves_makes_room(memorised: Any) -> None:
    def narrow(found: ModelSource) -> ServedModel:
        return ServedModel(found, memorised[0], EngineService(memorised[0], num_slots=1, max_waiting=1))

    with serving(narrow) as found, ExitStack() as streams:
        service = found.state.models.find("small").service
        asked = body("hello", temperature=1000.0, seed=1, stream=True)  # so hot that it hardly finds an end
        replies = [streams.enter_context(found.http.stream("POST", CHAT, json=asked)) for _ in range(6)]
        told = [reply for reply in replies if reply.status_code == 429]
        assert told
        assert json.loads(told[0].read())["error"]["code"] == "queue_full"
        assert told[0].headers["Retry-After"] == "1"
        streams.close()
        wait_until(lambda: service.stats().num_live == service.stats().num_waiting == 0)
        assert service.stats().num_cancelled >= 1
        assert found.chat().status_code == 200


def test_what_was_read_for_an_account_is_found_for_no_other(load: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {name: add_account(file, name) for name in ("ada", "bob")}
    with serving(load, keys=file) as found:
        service = found.state.models.find("small").service

        def num_found(name: str) -> int:
            """Of this prompt, how many tokens were found when this account asked."""
            before = service.stats().num_cached_tokens
            asked = body("the same long question, " * 20, max_tokens=3)
            reply = found.http.post(CHAT, json=asked, headers={"Authorization": f"Bearer {keys[name]}"})
            assert reply.status_code == 200
            return service.stats().num_cached_tokens - before

        assert [num_found("ada"), num_found("bob")] == [0, 0]
        assert num_found("ada") == num_found("bob") > 0


@pytest.mark.parametrize("fault", [GenerationError, ZeroDivisionError])
def test_what_ran_into_a_bound_of_its_own_is_paid_for_and_our_faults_are_not(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    file = tmp_path / "keys.json"
    key = add_account(file, "ada")
    push = Turn.push

    def outgrown(turn: Turn, token: int, logprobs: Any = None) -> None:
        push(turn, token, logprobs)
        if turn.num_sampled == 3:
            raise fault("the grammar gave up")

    with serving(load, keys=file) as found:
        found.http.headers["Authorization"] = "Bearer " + key
        prompt = found.chat().json()["usage"]["prompt_tokens"]
        account = found.state.accounts.find(key)
        assert account is not None
        meter = found.state.meters.of(account)
        wait_until(lambda: meter.live == 0)
        monkeypatch.setattr(Turn, "push", outgrown)
        for stream in (False, True):
            before = meter.tokens_today
            if stream:
                assert found.stream()[-1]["error"]["type"] == "server_error"
            else:
                assert found.chat().status_code == 500
            wait_until(lambda: meter.live == 0)
            assert meter.tokens_today - before == (prompt + 3 if fault is GenerationError else 0)


def test_a_body_that_does_not_come_is_not_waited_for(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_BODY_SECONDS", 0.2)
    with serving(load) as found, socket.create_connection(("127.0.0.1", int(found.url.rpartition(":")[2]))) as slow:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_a_connection_that_asks_for_nothing_is_closed_and_a_stream_goes_on(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def until_closed(one: socket.socket, drip: bytes = b"") -> bool:
        """Whether the server closes it; drip: sent again and again meanwhile."""
        one.settimeout(0.1)
        for _ in range(600):
            try:
                one.sendall(drip)
                if not one.recv(1000):
                    return True
            except TimeoutError:
                continue
            except ConnectionError:  # it was closed while a byte was on its way
                return True
        return False

    with serving(load, keep_alive_seconds=0.05) as found, ExitStack() as stack:
        place = ("127.0.0.1", int(found.url.rpartition(":")[2]))
        silent, slow, late = (stack.enter_context(socket.create_connection(place)) for _ in range(3))
        slow.sendall(health[:-2] + b"X-Slow: ")
        late.sendall(health)
        assert late.recv(1000).startswith(b"HTTP/1.1 200")
        assert until_closed(silent)
        assert until_closed(slow, b"x")
        assert until_closed(late, b"G")  # behind a reply a byte ends uvicorn's own timer
        wait_until(lambda: not found.server.server_state.connections)
        # One connection is asked again and again, for longer than that.
        begun = time.monotonic()
        while time.monotonic() < begun + 1.5:
            assert found.http.get("/health").status_code == 200
            assert len(found.server.server_state.connections) == 1
        # And a reply may take longer too.
        step = DecodeBatch.step

        def slow_step(batch: DecodeBatch) -> Any:
            time.sleep(0.3)
            return step(batch)

        monkeypatch.setattr(DecodeBatch, "step", slow_step)
        begun = time.monotonic()
        assert folded(found.stream("coffee?"))["finish"] == ["stop"]
        assert time.monotonic() > begun + 1


def test_a_client_that_reads_no_reply_is_given_up_and_a_slow_one_is_not(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "STALL_SECONDS", 3.0)
    made = connections.BoundedProtocol.connection_made

    def made_small(protocol: connections.BoundedProtocol, transport: Any) -> None:
        # The system's own buffer grows to megabytes, and is writable again only when a third of it is free.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**15)
        made(protocol, transport)

    monkeypatch.setattr(connections.BoundedProtocol, "connection_made", made_small)
    page = b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(load) as found, ExitStack() as stack:
        place = ("127.0.0.1", int(found.url.rpartition(":")[2]))
        state = found.server.server_state
        deaf, slow = (stack.enter_context(socket.socket()) for _ in range(2))
        for one in (deaf, slow):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
            one.connect(place)
            one.sendall(page * 2000)  # 30 MB of replies
        wait_until(lambda: len(state.connections) == 2)
        taken = 0
        while len(state.connections) == 2:
            taken += len(slow.recv(2**14))
            time.sleep(0.01)  # 1.6 MB a second at most: 18 seconds for all of it
        assert taken < 2000 * 15_000
        while taken < 2000 * 15_000:
            piece = slow.recv(2**20)
            assert piece
            taken += len(piece)
        wait_until(lambda: not state.connections)


def test_a_silent_stream_sends_comments_and_a_failing_one_an_error_in_its_midst(
    load: Any, memorised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed = threading.Event()

    def slow_and_broken(*given: object, **more: object) -> None:
        noticed.wait(120)
        raise ZeroDivisionError

    with serving(load, keep_alive_seconds=0.05) as found:
        monkeypatch.setattr(memorised[0].toolbox, "run", slow_and_broken)
        monkeypatch.setattr(memorised[0].toolbox, "start", slow_and_broken)
        with found.http.stream(
            "POST", CHAT, json=body("what is 12 * 3?", stream=True, gradus={"tools": ["calculator"], "think": True})
        ) as reply:
            lines = []
            for line in reply.iter_lines():
                if line == ": keep-alive":
                    noticed.set()
                elif line:
                    lines.append(line)
        assert noticed.is_set()
        assert json.loads(lines[-2][6:])["error"]["type"] == "server_error"
        assert "ZeroDivisionError" in lines[-2]
        assert lines[-1] == "data: [DONE]"
        monkeypatch.undo()
        assert found.chat("coffee?").status_code == 200


def test_without_the_extra_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'"starlette" is needed .* pip install "gradus\[serve\]"'):
        need_serve()


def test_slots_that_outgrow_the_memory_are_told_before_anybody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(
        engine=SimpleNamespace(decoder=SimpleNamespace(device=torch.device("cpu")), context=4096),
        service=SimpleNamespace(stats=lambda: SimpleNamespace(most_cache_bytes=3 * 2**30)),
    )
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * 2**30))
    assert memory_warning([model], 8) is None
    assert memory_warning([model, model], 8) == (
        "8 replies at once of up to 4,096 tokens can take 6.0 GiB, and 5.0 GiB are free; fewer with --slots"
    )
