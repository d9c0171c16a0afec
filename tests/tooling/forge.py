"""Something that answers as the APIs of GitHub and GitLab do, as far as comments on pull requests go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Forge:
    """What it has, and what it was asked.

    Attributes:
        url: of the API.
        pulls: open pull requests, with the branch in `head.label`.
        comments: of whichever pull request.
        requests: method, path and body.
        tokens: that it was shown.
        status: of all answers.
    """

    url: str = ""
    pulls: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    status: int = 200

    def asked(self, method: str) -> list[tuple[str, Any]]:
        return [(path, body) for asked, path, body in self.requests if asked == method]

    def answer(self, method: str, target: str, body: Any) -> Any:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append((method, parts.path, body))
        if parts.path == "/user":
            return {"id": 1}
        if parts.path.endswith("/pulls"):
            return [pull for pull in self.pulls if pull["head"]["label"] == query["head"]]
        if method == "GET":
            size, page = int(query["per_page"]), int(query["page"])
            return self.comments[(page - 1) * size : page * size]
        if method == "POST":
            ours = {"user": {"type": "Bot"}, "author": {"id": 1}}
            self.comments.append({"id": len(self.comments) + 1, "body": body["body"], **ours})
            return self.comments[-1]
        number = int(parts.path.rpartition("/")[2])
        found = next(comment for comment in self.comments if comment["id"] == number)
        found["body"] = body["body"]
        return found


@contextmanager
def serving() -> Iterator[Forge]:
    """One on a free port of the loopback."""
    forge = Forge()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            forge.tokens.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
            said = forge.answer(self.command, self.path, json.loads(body) if body else None)
            self.send_response(forge.status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
