"""The app shipped with the stack: it says which replica answered."""

import socket

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return f"Hello, World! This is {socket.gethostname()}."


@app.get("/health")
def health() -> str:
    return "ok"
