"""A stand-in for the Hugging Face Hub on this machine: its HTTP interface over files given by a test.

Speaks /api/{models,datasets}/{repo}/revision/{revision} and /tree/{revision}/{folder} (pages, recursive), and
/{repo}/resolve/{revision}/{path} with Range, ETag and X-Repo-Commit; files of Git LFS are redirected to a second
server, at another port and with a signed address, as the Hub sends them to its CDN. For uploads (models alone):
/api/repos/create, preupload, paths-info, the batch address of Git LFS with PUT to the second server, and commit; a
commit that names a large file which was not sent is refused. Faults are scripted: refusals, server errors, silence,
bodies cut short. Every request is written down.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SIGNATURE = "Signature=do-not-tell"


@dataclass
class Commit:
    """The files of one state of a repository."""

    files: dict[str, bytes]
    id: str = ""

    def __post_init__(self) -> None:
        content = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.files.items())})
        self.id = hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Repository:
    """A repository: its refs ("main", "refs/convert/parquet") and commits. gated, private: who may read it."""

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes | str], ref: str = "main") -> str:
        """A new state of a ref; returns its id."""
        made = Commit({path: data.encode() if isinstance(data, str) else data for path, data in files.items()})
        self.commits[made.id] = made
        self.refs[ref] = made.id
        return made.id

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong with requests whose address contains `part`, so many `times`.

    status: answer that; headers: with these. cut: send only so many bytes of the body and drop the connection.
    silent_seconds: wait before answering. drop: close the connection without an answer. after_bytes: only for
    requests that begin at this byte or later.
    """

    part: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent_seconds: float = 0.0
    drop: bool = False
    after_bytes: int = 0


@dataclass(frozen=True)
class Request:
    """What was asked. server: "hub" or "cdn"."""

    server: str
    method: str
    path: str
    range: str | None
    authorization: str | None


class HubServer:
    """Both servers. `endpoint` is for HF_ENDPOINT; `token` is the one that opens private and gated repositories."""

    page_size = 1000
    lfs_from_bytes = 100

    def __init__(self) -> None:
        self.token = "hf_" + "s3cret" * 4
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.pages: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.waits: list[float] = []  # what the reader slept instead of sleeping it
        self.ranges = True
        self._objects: dict[str, bytes] = {}
        self._etags: dict[int, tuple[bytes, str]] = {}
        self._lock = threading.Lock()
        self._servers = [self._start("hub"), self._start("cdn")]
        self.endpoint, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def _start(self, name: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "server_name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def dataset(self, name: str, files: Mapping[str, bytes | str] | None = None, **settings: bool) -> Repository:
        """A dataset repository, made when first named; with files, its main branch moves to them."""
        return self._repository("datasets", name, files, settings)

    def model(self, name: str, files: Mapping[str, bytes | str] | None = None, **settings: bool) -> Repository:
        return self._repository("models", name, files, settings)

    def _repository(
        self, kind: str, name: str, files: Mapping[str, bytes | str] | None, settings: Mapping[str, bool]
    ) -> Repository:
        repository = self.repositories.setdefault((kind, name), Repository(**settings))
        if files is not None:
            repository.commit(files)
        return repository

    def fail(self, part: str, **fault: object) -> Fault:
        """Script a fault; see `Fault`."""
        made = Fault(part, **fault)  # type: ignore[arg-type]
        self.faults.append(made)
        return made

    def asked(self, part: str, server: str | None = None) -> list[Request]:
        """The requests whose address contains a text."""
        return [r for r in self.requests if part in r.path and server in (None, r.server)]

    # Used by the handlers

    def take_fault(self, path: str, start: int) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.part in path and start >= fault.after_bytes:
                    fault.times -= 1
                    return fault
        return None

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def object_path(self, data: bytes) -> str:
        oid = hashlib.sha256(data).hexdigest()
        self._objects[oid] = data
        return f"/lfs/{oid}"

    def etag(self, data: bytes) -> str:
        """Of some content, computed once: a large file is asked for in many parts."""
        if id(data) not in self._etags:
            self._etags[id(data)] = (data, hashlib.sha256(data).hexdigest())
        return self._etags[id(data)][1]

    def object(self, path: str) -> bytes | None:
        return self._objects.get(path.rsplit("/", 1)[-1])


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else small answers wait for acknowledgements
    hub: HubServer
    server_name: str

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        self.hub.note(
            Request(self.server_name, self.command, self.path, self.headers["Range"], self.headers["Authorization"])
        )
        found = re.match(r"bytes=(\d+)-", self.headers["Range"] or "")
        self.fault = self.hub.take_fault(self.path, int(found[1]) if found else 0)
        if self.fault is not None:
            time.sleep(self.fault.silent_seconds)
            if self.fault.drop:
                self._hang_up()
                return
        parts = urlsplit(self.path)
        # Read before any answer, since the client sends it in any case.
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.fault is not None and self.fault.status is not None:
            self._send(self.fault.status, b"", self.fault.headers)
            return
        try:
            if self.command == "PUT":
                self._take_object(parts.path, parts.query, body)
            elif self.command == "POST":
                self._take(parts.path, body)
            elif self.server_name == "cdn":
                self._send_object(parts.path, parts.query)
            elif parts.path in self.hub.pages:
                self._send_bytes(self.hub.pages[parts.path])
            elif parts.path.startswith("/api/"):
                self._send_api(parts.path.removeprefix("/api/"), parse_qs(parts.query))
            else:
                self._send_file(parts.path.lstrip("/"))
        except BrokenPipeError:
            self.close_connection = True

    def _send_object(self, path: str, query: str) -> None:
        data = self.hub.object(path)
        if data is None or query != SIGNATURE:
            self._send(403, b"")
        else:
            self._send_bytes(data)

    # Uploads

    def _take(self, path: str, body: bytes) -> None:
        """A POST: all but reading needs the token."""
        kind = self.headers["Content-Type"] or ""
        if path == "/api/repos/create":
            self._create(json.loads(body))
            return
        if path == "/api/validate-yaml":  # of a README.md, before it is sent
            self._send_json({"errors": [], "warnings": []})
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|paths-info|commit)/([^/]+)", path)
        batch = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        repository = self._readable("models", (found or batch)[1]) if found or batch else None
        if repository is None:
            return
        if batch:
            self._send_json({"transfer": "basic", "objects": [self._action(o) for o in json.loads(body)["objects"]]})
        elif found and found[2] == "paths-info":
            asked = json.loads(body) if kind.startswith("application/json") else parse_qs(body.decode())
            commit = repository.find(unquote(found[3]))
            files = commit.files if commit else {}
            self._send_json([self._file_entry(name, files[name]) for name in asked["paths"] if name in files])
        elif not self._has_token():
            self._refuse(401, "RepoNotFound")
        elif found and found[2] == "preupload":
            self._send_json({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        else:
            self._commit(found[1] if found else "", repository, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: Mapping[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._has_token():
            self._refuse(401, "RepoNotFound")
        elif ("models", name) in self.hub.repositories:
            self._send(409, b"{}")
        else:
            private = asked.get("visibility") == "private" or asked.get("private") is True
            self.hub.model(name, {".gitattributes": "*.bin filter=lfs"}, private=private)
            self._send_json({"url": f"{self.hub.endpoint}/{name}"})

    def _mode(self, file: Mapping[str, object]) -> dict[str, object]:
        large = int(str(file["size"])) >= self.hub.lfs_from_bytes
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _action(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """Where a large file is put; nowhere where it is known already."""
        oid = str(wanted["oid"])
        if self.hub.object(oid) is not None:
            return dict(wanted)
        address = f"{self.hub.cdn}/lfs/{oid}?{SIGNATURE}"
        return {**wanted, "actions": {"upload": {"href": address, "header": {}}}}

    def _take_object(self, path: str, query: str, body: bytes) -> None:
        if query != SIGNATURE:
            self._send(403, b"")
        elif hashlib.sha256(body).hexdigest() != path.rsplit("/", 1)[-1]:
            self._send(400, b"")
        else:
            self.hub.object_path(body)
            self._send(200, b"")

    def _commit(self, name: str, repository: Repository, lines: list[dict[str, dict[str, str]]]) -> None:
        before = repository.find("main")
        files = dict(before.files) if before else {}
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            data = base64.b64decode(value["content"]) if line["key"] == "file" else self.hub.object(value["oid"])
            if data is None:
                self._send(422, b"{}")
                return
            files[path] = data
        commit = repository.commit(files)
        self._send_json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    def _has_token(self) -> bool:
        return bool(self.headers["Authorization"] == f"Bearer {self.hub.token}")

    # The API

    def _send_api(self, path: str, query: Mapping[str, list[str]]) -> None:
        found = re.fullmatch(r"(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", path)
        if found is None:
            self._refuse(404, "RepoNotFound")
            return
        kind, name, what, revision, folder = found.groups()
        repository = self._readable(kind, name, lists_only=True)
        if repository is None:
            return
        commit = repository.find(unquote(revision or "main"))
        if commit is None:
            self._refuse(404, "RevisionNotFound")
        elif what == "tree":
            self._send_tree(commit, unquote(folder or ""), query)
        else:
            self._send_json({"id": name, "sha": commit.id, "gated": repository.gated, "private": repository.private})

    def _send_tree(self, commit: Commit, folder: str, query: Mapping[str, list[str]]) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in sorted(commit.files.items()) if path.startswith(prefix)}
        if not inside:
            self._refuse(404, "EntryNotFound")
            return
        entries: dict[str, dict[str, object]] = {}
        for path, data in inside.items():
            folders = path.removeprefix(prefix).split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                at = prefix + "/".join(folders[:depth])
                oid = hashlib.sha1(at.encode()).hexdigest()
                entries.setdefault(at, {"type": "directory", "oid": oid, "size": 0, "path": at})
            entries[path] = self._file_entry(path, data)
        if query.get("recursive") != ["true"]:
            entries = {path: e for path, e in entries.items() if "/" not in path.removeprefix(prefix)}
        listed, start = list(entries.values()), int(query.get("cursor", ["0"])[0])
        headers, end = {}, start + self.hub.page_size
        if end < len(listed):
            recursive = "recursive=true&" if query.get("recursive") == ["true"] else ""
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}?{recursive}cursor={end}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._send(200, json.dumps(listed[start:end]).encode(), {"Content-Type": "application/json", **headers})

    def _file_entry(self, path: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "size": len(data), "path": path}
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if len(data) >= self.hub.lfs_from_bytes:
            entry["oid"] = hashlib.sha1(b"pointer" + data).hexdigest()
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    # Files

    def _send_file(self, path: str) -> None:
        found = re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found is None:
            self._refuse(404, "RepoNotFound")
            return
        repository = self._readable("datasets" if found[1] else "models", found[2])
        if repository is None:
            return
        commit = repository.find(unquote(found[3]))
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return
        data = commit.files.get(unquote(found[4]))
        if data is None:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit.id})
            return
        headers = {"X-Repo-Commit": commit.id}
        if found[1] and len(data) >= self.hub.lfs_from_bytes:
            linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            address = f"{self.hub.cdn}{self.hub.object_path(data)}?{SIGNATURE}"
            self._send(302, b"", {**headers, **linked, "Location": address})
        else:
            self._send_bytes(data, headers)

    def _readable(self, kind: str, name: str, lists_only: bool = False) -> Repository | None:
        """The repository, or None after a refusal. A gated one shows its list of files to everybody."""
        repository = self.hub.repositories.get((kind, name))
        may = self._has_token()
        if repository is None or (repository.private and not may):
            self._refuse(401, "RepoNotFound")
            return None
        if repository.gated and not may and not lists_only:
            self._refuse(403 if self.headers["Authorization"] else 401, "GatedRepo")
            return None
        return repository

    # Answers

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, **(headers or {})})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_bytes(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        etag = {"ETag": f'"{self.hub.etag(data)}"', "Accept-Ranges": "bytes", **(headers or {})}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if found is None or not self.hub.ranges:
            self._send(200, data, etag)
            return
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else len(data), len(data))
        if start >= len(data):
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        self._send(206, data[start:end], {**etag, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.cut is not None:
            self.wfile.write(body[: self.fault.cut])
            self._hang_up()
            return
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running stand-in."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()
