"""A stand-in for the Hugging Face Hub on the loopback address, with the requests that huggingface_hub sends for models.

It creates repositories, takes commits with files in JSON or through Git LFS, and serves files by revision. Tokens are
checked like on the Hub. The answers, with their status codes and headers, follow the code of huggingface_hub, which
reads them. The Hub itself was not reached when this was written.
"""

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

USER, TOKEN = "mia", "hf_token_that_may_write"
READ_TOKEN = "hf_token_that_may_read"
LICENSES = ["apache-2.0", "mit"]
"""Licenses that the stand-in accepts in a card."""


class RefusedError(Exception):
    """An error answer: a status code and the headers that huggingface_hub evaluates."""

    def __init__(self, status: int, code: str = "", message: str = "", url: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.url = status, code, message, url


@dataclass
class Repository:
    """A repository of the stand-in."""

    private: bool = False
    gated: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    """Files by path, after each commit."""
    tags: dict[str, int] = field(default_factory=dict)
    """Position of a commit by the name of a tag."""

    def find_commit(self, revision: str) -> int:
        names = self.tags | {"main": len(self.commits) - 1}
        names |= {self.make_sha(position): position for position in range(len(self.commits))}
        if revision not in names:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return names[revision]

    @staticmethod
    def make_sha(position: int) -> str:
        return hashlib.sha1(str(position).encode()).hexdigest()


class FakeHub:
    """State of the stand-in.

    Attributes:
        url: Address of the server.
        repositories: Repositories by name, such as "mia/cells".
        requests: Method, path and headers of each request.
        failing: Status of the answer to every request, or 0 to answer as usual.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.blobs: dict[str, bytes] = {}
        self.failing = 0

    def list_paths(self) -> list[str]:
        """Return the method and the path of each request, without the query."""
        return [f"{method} {path}" for method, path, _ in self.requests]

    def add(self, name: str, files: dict[str, bytes], **settings: Any) -> Repository:
        """Create a repository with one commit."""
        self.repositories[name] = Repository(commits=[files], **settings)
        return self.repositories[name]

    # ---- answers ----

    def find(self, name: str, token: str) -> Repository:
        """Return a repository if a token may read it."""
        repository = self.repositories.get(name)
        if repository is None or (repository.private and token != TOKEN):
            raise RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def check_can_write(self, name: str, token: str) -> None:
        if not token:
            raise RefusedError(401, message="Invalid username or password.")
        if token != TOKEN or not name.startswith(f"{USER}/"):
            raise RefusedError(403, message="You don't have the rights to create a model under this namespace")

    def create(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        name = f"{body['organization'] or USER}/{body['name']}"
        self.check_can_write(name, token)
        if name in self.repositories:
            raise RefusedError(409, message="You already created this model repo", url=f"{self.url}/{name}")
        self.repositories[name] = Repository(private=body.get("visibility") == "private")
        return {"url": f"{self.url}/{name}"}

    def describe(self, name: str, revision: str, token: str) -> dict[str, Any]:
        repository = self.find(name, token)
        sha = repository.make_sha(repository.find_commit(revision))
        return {"id": name, "modelId": name, "private": repository.private, "gated": repository.gated, "sha": sha}

    def list_tree(self, name: str, revision: str, token: str) -> list[dict[str, Any]]:
        repository = self.find(name, token)
        files = repository.commits[repository.find_commit(revision)]
        return [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            | ({"lfs": {"oid": make_oid(content), "size": len(content), "pointerSize": 130}} if is_lfs(path) else {})
            for path, content in files.items()
        ]

    def preupload(self, name: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        self.check_can_write(name, token)
        self.find(name, token)
        return {
            "files": [
                {"path": f["path"], "uploadMode": "lfs" if is_lfs(f["path"]) else "regular", "shouldIgnore": False}
                for f in body["files"]
            ]
        }

    def start_lfs_upload(self, name: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        self.check_can_write(name, token)
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}} for wanted in body["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def commit(self, name: str, lines: list[dict[str, Any]], token: str) -> dict[str, Any]:
        self.check_can_write(name, token)
        repository = self.find(name, token)
        files = dict(repository.commits[-1])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.blobs[line["value"]["oid"]]
        repository.commits.append(files)
        sha = repository.make_sha(len(repository.commits) - 1)
        return {"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha}

    def resolve(self, name: str, revision: str, path: str, token: str) -> tuple[bytes, dict[str, str]]:
        """Return the content of a file, and the headers of the answer."""
        repository = self.find(name, token)
        if repository.gated:
            raise RefusedError(403, "GatedRepo", f"Access to model {name} is restricted")
        position = repository.find_commit(revision)
        files = repository.commits[position]
        if path not in files:
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        content = files[path]
        return content, {"X-Repo-Commit": repository.make_sha(position), "ETag": f'"{make_oid(content)}"'}


def is_lfs(path: str) -> bool:
    """Return whether the stand-in stores a file in Git LFS."""
    return path.endswith((".safetensors", ".jpg"))


def make_oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def _answer(self) -> None:
        self.hub.requests.append((self.command, urllib.parse.urlsplit(self.path).path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            content, headers = self._find_answer(body)
            status = 200
        except RefusedError as refused:
            content, status = (
                json.dumps(
                    {"error": refused.message, "url": refused.url, "errors": [{"message": refused.message}]}
                ).encode(),
                refused.status,
            )
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _find_answer(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        hub, token = self.hub, self.headers.get("Authorization", "").removeprefix("Bearer ")
        if hub.failing:
            raise RefusedError(hub.failing, message="Internal error")
        if token not in ("", TOKEN, READ_TOKEN):
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        match [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.path).path.split("/")[1:]]:
            case ["api", "repos", "create"]:
                answer: Any = hub.create(json.loads(body), token)
            case ["api", "validate-yaml"]:
                _, front_matter, _ = json.loads(body)["content"].split("---\n", 2)
                metadata = yaml.safe_load(front_matter)
                if metadata.get("license", "mit") not in LICENSES:
                    raise RefusedError(400, message=f'"license" must be one of {LICENSES}')
                answer = {"errors": [], "warnings": []}
            case ["api", "models", user, name]:
                answer = hub.describe(f"{user}/{name}", "main", token)
            case ["api", "models", user, name, "revision", revision]:
                answer = hub.describe(f"{user}/{name}", revision, token)
            case ["api", "models", user, name, "tree", revision]:
                answer = hub.list_tree(f"{user}/{name}", revision, token)
            case ["api", "models", user, name, "preupload", _]:
                answer = hub.preupload(f"{user}/{name}", json.loads(body), token)
            case ["api", "models", user, name, "commit", _]:
                answer = hub.commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()], token)
            case [user, name, "info", "lfs", "objects", "batch"]:
                answer = hub.start_lfs_upload(f"{user}/{name.removesuffix('.git')}", json.loads(body), token)
            case ["lfs", oid] if self.command == "PUT":
                assert make_oid(body) == oid
                hub.blobs[oid] = body
                answer = {}
            case [user, name, "resolve", revision, path]:
                return hub.resolve(f"{user}/{name}", revision, path, token)
            case _:
                raise RefusedError(404, message=f"no such address: {self.path}")
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Serve an empty stand-in during the ``with`` block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
