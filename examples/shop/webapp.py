"""A shop in one file, to show every feature of the stack in front of it."""

import time
from collections.abc import Iterator

from flask import Flask, Response, redirect, request

SIGNED_IN = "signed-in"  # the cookie of whoever has come through /login; a real app would sign it

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return '<!doctype html><html lang="en"><title>Shop</title><link rel="stylesheet" href="/static/style.css">Welcome.'


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/catalogue")
def catalogue() -> str:
    """Kept by NGINX for a minute."""
    return f"The catalogue, as of {time.time()}. " + "Tea, coffee, cocoa. " * 100


@app.get("/admin")
def admin() -> str:
    """NGINX lets in those with a password, from the office alone."""
    return f"Good day, {request.environ['REMOTE_USER']}."


@app.get("/session")
def session() -> tuple[str, int, dict[str, str]]:
    """NGINX asks here who somebody is that wants to see /account."""
    user = request.cookies.get(SIGNED_IN)
    return ("", 204, {"X-Auth-User": user}) if user else ("", 401, {})


@app.get("/login")
def login() -> Response:
    """A real one would ask for a password."""
    answer = redirect("/account")
    answer.set_cookie(SIGNED_IN, "eve", secure=True, httponly=True, samesite="Lax")
    return Response(answer.get_data(), answer.status, answer.headers)


@app.get("/account")
def account() -> str:
    return f"The account of {request.environ['REMOTE_USER']}."


@app.post("/upload")
def upload() -> str:
    return f"{len(request.get_data())} bytes, thank you."


@app.get("/events")
def events() -> Response:
    """Each line goes out at once."""

    def lines() -> Iterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            time.sleep(0.5)

    return Response(lines(), mimetype="text/event-stream")
