"""The app of uWSGI's tests: it talks, dies, leaves requests unread, and speaks WebSocket."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from flask import Flask, Response, request

RELEASE = "one"

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return f"{RELEASE} {socket.gethostname()}"


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/slow")
def slow() -> str:
    time.sleep(float(request.args["seconds"]))
    return RELEASE


@app.get("/say")
def say() -> str:
    os.write(int(request.args["to"]), request.args["text"].encode("latin-1"))
    return "said"


@app.get("/raise")
def fail() -> str:
    raise ValueError(request.args["text"])


@app.get("/die")
def die() -> str:
    print("last words of", request.args["how"], file=sys.stderr)
    if request.args["how"] == "memory":
        return str(len([os.urandom(2**20) for _ in range(1024)]))
    os.kill(os.getpid(), signal.SIGKILL)
    return "dead"


@app.post("/refused")
def refused() -> tuple[str, int]:
    return "not you", 401


@app.post("/streamed")
def streamed() -> Response:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    return Response(chunks())


@app.get("/cookies")
def cookies() -> Response:
    answer = Response("yours")
    for number in range(int(request.args["count"])):
        answer.set_cookie(f"cookie-{number}", "x" * 1000)
    return answer


@app.post("/echo")
def echo() -> bytes:
    return request.get_data()


@app.route("/chat", websocket=True)
def chat() -> str:
    uwsgi: Any = import_module("uwsgi")  # there is one inside uWSGI alone
    uwsgi.websocket_handshake()
    while True:
        uwsgi.websocket_send(f"{RELEASE} {uwsgi.websocket_recv().decode()}")
