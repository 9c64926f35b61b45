"""A W&B server of a few lines on 127.0.0.1: it takes a run, or fails to in the ways that servers do."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Manner = Literal["kind", "slow", "broken", "silent", "closed"]
Replies = Mapping[str, Callable[[dict[str, Any]], Any]]  # by operation: from its variables to its data

PROJECT = {"id": "P", "name": "semconv", "entity": {"id": "E", "name": "somebody"}}
VIEW = {
    "id": "Vmlldzox",
    "name": "nw-abc-v",
    "displayName": "view",
    "description": "",
    "project": {"id": "P", "name": "semconv", "entityName": "somebody"},
    "spec": '{"blocks": []}',
    "updatedAt": "2026-01-01T00:00:00",
}
NODE = {"id": "P", "name": "semconv", "entityName": "somebody", "createdAt": "", "isBenchmark": False, "user": None}
ANSWERS: dict[str, Any] = {
    # a workspace, and a report, which looks first whether its project is there
    "UpsertView2": {"upsertView": {"view": VIEW, "inserted": True}},
    "upsertView": {"upsertView": {"view": VIEW, "inserted": True}},
    "GetProjects": {"models": {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": [{"cursor": "", "node": NODE}]}},
    "Viewer": {"viewer": {"id": "U", "entity": "somebody", "username": "somebody", "flags": "{}", "teams": {"edges": []}}},
}
BUCKET = {
    "id": "B",
    "displayName": "run",
    "description": None,
    "config": "{}",
    "sweepName": None,
    "historyLineCount": None,
    "project": PROJECT,
}


class Server(ThreadingHTTPServer):
    """Keeps every request's body.

    Args:
        manner: kind takes everything; slow does after a second; broken answers 500; silent does not answer; closed takes no
            data.
        replies: to further operations.
    """

    daemon_threads = True

    def __init__(self, manner: Manner, replies: Replies) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.manner: Manner = manner
        self.replies = replies
        self.requests: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.path, body))
        self._answer(self._reply(body))

    do_PUT = do_POST

    def _reply(self, body: bytes) -> Any:
        if self.path != "/graphql":
            return {"exitcode": None, "limits": {}}
        request = json.loads(body)
        name = request.get("operationName") or request["query"].split("{")[0].split("(")[0].split()[-1]
        if name in self.server.replies:
            return {"data": self.server.replies[name](request.get("variables") or {})}
        if name == "UpsertBucket":
            bucket = {**BUCKET, "name": (request.get("variables") or {}).get("name") or "run"}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name in ANSWERS:
            return {"data": ANSWERS[name]}
        return {"errors": [{"message": f"this server knows no {name}"}]}

    def _answer(self, content: Any) -> None:
        if self.server.manner == "silent":
            time.sleep(3600)
        if self.server.manner == "slow":
            time.sleep(1)
        closed = self.server.manner == "closed" and self.path.endswith("file_stream")
        self.send_response(500 if self.server.manner == "broken" else 403 if closed else 200)
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serve(manner: Manner = "kind", replies: Replies | None = None) -> Iterator[Server]:
    """A server while the block lasts."""
    server = Server(manner, replies or {})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
