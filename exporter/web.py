"""Where it answers: /metrics for Prometheus, / and /status.json for people, /health for Docker."""

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

CLIENT_TIMEOUT = 10  # seconds that a client may take for a request and its answer
MOST_CLIENTS = 32  # at once; further ones are hung up on


@dataclass(frozen=True)
class Site:
    """What there is to be asked for.

    Attributes:
        registry: all metrics.
        page: the status page, which is one file.
        status: what it shows, as JSON can hold it.
        problem: why nothing of this is to be relied on; None when all is well.
    """

    registry: CollectorRegistry
    page: str
    status: Callable[[], dict[str, object]]
    problem: Callable[[], str | None]


def content_security_policy(page: str) -> str:
    """What the page may do: run its own script, with its own style, and ask where it came from."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes('script', page)}",
            f"style-src {_hashes('style', page)}",
            "connect-src 'self'",
            "img-src data:",  # its icon: none
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hashes(element: str, page: str) -> str:
    texts = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


class Server(ThreadingHTTPServer):
    """Answers a bounded number of clients."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        self.site = site
        self.policy = content_security_policy(site.page)
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Without the look-up of this host's name that HTTPServer makes, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, if there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread; then its place is another one's, and that soon: `timeout` alone is for each byte anew."""
        deadline = threading.Timer(CLIENT_TIMEOUT, _hang_up, [request])
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of anybody's."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        request.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "exporter"
    sys_version = ""
    timeout = CLIENT_TIMEOUT

    def do_GET(self) -> None:
        """Answers with one of the pages."""
        site = self.server.site
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(site.page.encode(), "text/html; charset=utf-8")
        elif path == "/status.json":
            self._answer(json.dumps(site.status(), allow_nan=False).encode(), "application/json")
        elif path == "/metrics":
            self._answer(generate_latest(site.registry), CONTENT_TYPE_LATEST)
        elif path == "/health":
            problem = site.problem()
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            self._answer(f"{problem or 'ok'}\n".encode(), "text/plain; charset=utf-8", status)
        else:
            self._answer(b"There is /, /metrics, /status.json and /health.\n", "text/plain", HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Who looks at figures is not worth a line."""
