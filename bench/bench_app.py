"""The app that all contenders run: the shipped one, with two routes more. It is copied into their app folders."""

import time
from importlib import import_module

from flask import Flask

WAIT = 0.05  # seconds
BODY = "x" * 65536

app: Flask = import_module("webapp").app


@app.get("/wait")
def wait() -> str:
    time.sleep(WAIT)
    return "done"


@app.get("/body")
def body() -> str:
    return BODY
