"""The app of the fault tests: it can be slow, eat memory, and die."""

import os
import socket
import threading
import time

from flask import Flask, request

RELEASE = "one"
DIES_AFTER = 0.0  # seconds; 0: never
WELL = True

app = Flask(__name__)

if DIES_AFTER:
    timer = threading.Timer(DIES_AFTER, os._exit, [3])
    timer.daemon = True
    timer.start()


@app.get("/")
def index() -> str:
    return f"{RELEASE} {socket.gethostname()}"


@app.get("/health")
def health() -> tuple[str, int]:
    return ("well", 200) if WELL else ("the database is away", 500)


@app.get("/slow")
def slow() -> str:
    time.sleep(float(request.args["seconds"]))
    return f"{RELEASE} {socket.gethostname()}"


@app.post("/echo")
def echo() -> bytes:
    return request.get_data()


@app.get("/headers")
def headers() -> dict[str, str]:
    return {**request.headers, "url": request.url, "remote": str(request.remote_addr)}


@app.get("/eat")
def eat() -> str:
    return str(len([os.urandom(2**20) for _ in range(1024)]))
