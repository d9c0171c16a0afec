"""The app of the tests of cache, compression and headers: it notes what it is asked, and answers as the query says."""

import gzip
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request

RELEASE = "one"
ASKED = Path("/tmp/asked")  # in the replica, where the tests look for it
TROUBLE = Path("/tmp/trouble")  # while it is there, pages fail with the status that it says

app = Flask(__name__)
lock = threading.Lock()


@app.get("/")
def index() -> str:
    return RELEASE


@app.get("/health")
def health() -> str:
    return "well"


@app.get("/slow")
def slow() -> str:
    time.sleep(float(request.args["seconds"]))
    return RELEASE


@app.route("/page/<path:name>", methods=["GET", "POST"])
def page(name: str) -> Response:
    """A page that is another one each time the app is asked for it.

    The query says its `status`, `type` and `size`, whether it is `gzip`, how many `seconds` it takes, and, by any other
    name, a header.
    """
    query = request.args.to_dict()
    with lock, ASKED.open("a") as file:
        file.write(f"{request.method} {name} {request.headers.get('Range', '')}\n")
    time.sleep(float(query.pop("seconds", "0")))
    if TROUBLE.exists():
        return Response("trouble", int(TROUBLE.read_text()))
    text = f"{RELEASE} {uuid.uuid4()} {request.url} {request.headers.get('Accept-Language', '')}"
    body = text.ljust(int(query.pop("size", "0")), ".").encode()
    answer = Response(body, int(query.pop("status", "200")), mimetype=query.pop("type", "text/html"))
    if query.pop("gzip", ""):
        answer.set_data(gzip.compress(body))
        answer.headers["Content-Encoding"] = "gzip"
    answer.headers["X-Request-ID"] = "the app's own"
    answer.headers.extend(query)
    if "ETag" in query:
        answer.make_conditional(request, accept_ranges=True, complete_length=len(answer.get_data()))
    return answer


@app.get("/pieces")
def pieces() -> Response:
    """A text that comes piece by piece."""

    def said() -> Iterator[str]:
        for number in range(3):
            yield f"piece {number}".ljust(1000, ".")
            time.sleep(1)

    return Response(said(), mimetype="text/plain")
