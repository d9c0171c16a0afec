"""`healthcheck.py PATH SOCKET`: asks the app for PATH over its replica's uWSGI socket; exits 0 when it answers well.

Docker runs it in every replica, again and again, so it is built to cost little: `python -IS` and the C module
`_socket` alone start three times faster than an ordinary interpreter with `socket`.
"""

import sys
from _socket import AF_UNIX, SOCK_STREAM, socket

TIMEOUT = 4.0  # seconds; below the timeout that the container gives the whole check


def packet(path: str) -> bytes:
    """A GET of `path` in the uwsgi protocol (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html)."""
    variables = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
    }
    texts = [text.encode() for pair in variables.items() for text in pair]
    body = b"".join(len(text).to_bytes(2, "little") + text for text in texts)
    return b"\0" + len(body).to_bytes(2, "little") + b"\0" + body


def check(path: str, address: str, timeout: float = TIMEOUT) -> str | None:
    """What is wrong, in words; None when the app answers with a status below 400 within `timeout` seconds."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(address)
        connection.sendall(packet(path))
        status = connection.recv(64).split(b"\r\n")[0].decode(errors="replace").split(" ", 1)
    except OSError as error:
        return f"GET {path}: {error}"
    if len(status) < 2 or not "200" <= status[1][:3] < "400":
        return f"GET {path}: {status[-1] or 'no answer'}"
    return None


if __name__ == "__main__":
    problem = check(path=sys.argv[1], address=sys.argv[2])
    if problem:
        sys.exit(problem)
