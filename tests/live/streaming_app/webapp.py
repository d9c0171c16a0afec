"""An app that says what it has to say piece by piece, or talks over a WebSocket."""

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

RELEASE = "one"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes] | list[bytes]:
    path = environ["PATH_INFO"]
    question = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    if path.endswith("/pieces"):
        headers = [("Content-Type", question.get("type", "text/event-stream"))]
        if "unbuffered" in question:
            headers.append(("X-Accel-Buffering", "no"))
        start_response("200 OK", headers)
        return pieces(int(question["count"]), float(question["pause"]))
    if path.endswith("/echo"):
        return echo()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [RELEASE.encode()]


def pieces(count: int, pause: float) -> Iterator[bytes]:
    for number in range(count):
        if number:
            time.sleep(pause)
        yield f"data: {number}\n\n".encode()


def echo() -> list[bytes]:
    """Says everything back, with the release in front, until the client goes."""
    uwsgi = import_module("uwsgi")  # which uWSGI itself provides
    uwsgi.websocket_handshake()
    while True:
        try:
            uwsgi.websocket_send(RELEASE.encode() + b" " + uwsgi.websocket_recv())
        except OSError:
            return []
