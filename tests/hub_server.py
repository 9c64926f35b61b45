"""A Hugging Face Hub of a few lines on 127.0.0.1: it takes a model's files, and gives them back."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Keeps what is uploaded.

    Attributes:
        files: by repository, then by name.
        private: whether each repository was made private.
        tokens: of the requests that write.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        place = self.path.removeprefix("/api/").removeprefix("models/")
        if place == "repos/create":
            given = json.loads(body)
            repository = f"{given.get('organization') or 'somebody'}/{given['name']}"
            self.server.files.setdefault(repository, {})
            self.server.private[repository] = given.get("private") or given.get("visibility") == "private"
            return self._answer({"url": f"{self.server.url}/{repository}"})
        if place == "validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        repository, _, action = place.removesuffix("/main").rpartition("/")
        if repository not in self.server.files:
            return self._answer({"error": "there is no such repository"}, 404)
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        for line in map(json.loads, body.splitlines()):  # a commit
            if line["key"] == "file":
                self.server.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._answer({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if listed := re.fullmatch(r"/api/models/(.+)/(revision|tree)/\w+(?:\?.*)?", self.path):
            files = self.server.files.get(listed[1], {})
            oids = {name: hashlib.sha1(text).hexdigest() for name, text in files.items()}
            tree = [{"type": "file", "path": name, "size": len(text), "oid": oids[name]} for name, text in files.items()]
            about = {"id": listed[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self._answer(tree if listed[2] == "tree" else about)
        repository, _, name = re.sub(f"/resolve/{COMMIT}/", "/resolve/main/", self.path.lstrip("/")).partition("/resolve/main/")
        content = self.server.files.get(repository, {}).get(name)
        if content is None:
            return self._answer({"error": "there is no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self._answer(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, content: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    """A Hub that runs as long as the context."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
