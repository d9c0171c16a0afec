"""What NGINX says of each request, and the id by which a request is known everywhere."""

import http.client
import json
import secrets
import socket
from typing import Any

import pytest

from tests.live.load import Load
from tests.live.stack import Stack, eventually


def access_lines(stack: Stack) -> list[dict[str, Any]]:
    """The access log of NGINX; a line that is no JSON fails the test, words of NGINX itself apart."""
    text = stack.nginx.logs().decode()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def line_of(stack: Stack, request_id: str) -> dict[str, Any]:
    """The line of a request, which comes within a second or so (`flush`)."""

    def found() -> list[dict[str, Any]]:
        return [line for line in access_lines(stack) if line["request_id"] == request_id]

    (line,) = eventually(found, 10, f"a line of request {request_id}")
    return dict(line)


def test_each_request_is_a_line_of_json_with_who_what_where_and_how_long(running: Stack) -> None:
    request_id = secrets.token_hex(8)
    running.get("/slow?seconds=0.3", {"X-Request-ID": request_id, "User-Agent": 'a "quoted" one\\'})
    line = line_of(running, request_id)
    assert (line["source"], line["method"], line["uri"], line["status"]) == ("nginx", "GET", "/slow?seconds=0.3", 200)
    assert line["user_agent"] == 'a "quoted" one\\'
    assert 0.3 <= float(line["upstream_time"]) <= line["request_time"] + 0.01
    assert line["upstream"].startswith("unix:/run/uwsgi/uwsgi-")
    assert line["bytes"] > 0
    assert line["client"]


def test_a_request_keeps_its_id_through_the_app_and_back(running: Stack) -> None:
    request_id = f"from-the-proxy-{secrets.token_hex(8)}"
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/headers", headers={"X-Request-ID": request_id})
    response = connection.getresponse()
    assert response.headers["X-Request-ID"] == request_id
    assert json.loads(response.read())["X-Request-Id"] == request_id
    connection.close()


@pytest.mark.parametrize("claimed", [None, "", "short", "x" * 129, "a b c d e f g h", 'quote"quote"quote'])
def test_a_request_without_an_id_that_could_be_one_gets_another(running: Stack, claimed: str | None) -> None:
    headers = {} if claimed is None else {"X-Request-ID": claimed}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/headers", headers=headers)
    response = connection.getresponse()
    request_id = response.headers["X-Request-ID"]
    assert request_id != claimed
    assert len(request_id) == 32
    assert json.loads(response.read())["X-Request-Id"] == request_id
    connection.close()


@pytest.mark.parametrize(
    "request_text",
    [
        b'GET /"\\x22%22\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\x01"\r\n',
        b'GET / HTTP/1.1\r\nHost: a\r\nReferer: \t{"}\x7f\r\n',
        b'GE"T / HTTP/1.1\r\nHost: "\r\n',
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ],
)
def test_whatever_a_client_sends_the_log_stays_json(running: Stack, request_text: bytes) -> None:
    marker = secrets.token_hex(8)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(request_text + f"X-Request-ID: {marker}\r\nConnection: close\r\n\r\n".encode())
        while client.recv(4096):
            pass
    after = secrets.token_hex(8)
    running.get("/", {"X-Request-ID": after})
    line_of(running, after)
    access_lines(running)


def test_a_request_that_no_replica_answers_is_logged_with_all_that_were_asked(running: Stack) -> None:
    request_id = secrets.token_hex(8)
    for replica in running.containers("replica"):
        replica.pause()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=1)
        connection.request("GET", "/", headers={"X-Request-ID": request_id})
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert line_of(running, request_id)["status"] == 499
    finally:
        for replica in running.containers("replica"):
            replica.unpause()


def test_the_log_is_turned_off_and_on_again_without_a_failed_request(running: Stack) -> None:
    with Load(running.port, slow=0) as load:
        running.configure(accessLog="false")
        running.up()
        logged = len(access_lines(running))
        before = load.sent
        eventually(lambda: load.sent > before + 200, 20, "200 more requests")
        assert len(access_lines(running)) - logged < 50, "what was still in buffers, and no more"
        running.configure(accessLog="")
        running.up()
    load.assert_nothing_was_dropped()
    request_id = secrets.token_hex(8)
    running.get("/", {"X-Request-ID": request_id})
    line_of(running, request_id)
