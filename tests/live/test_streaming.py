"""Answers that go out piece by piece, and WebSockets: `streaming`, and how long silence may last."""

import base64
import http.client
import os
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.load import Load
from tests.live.stack import Stack, eventually

SITE_TIMEOUT = 2  # seconds
CLIENT_TIMEOUT = 2
STREAM_TIMEOUT = 60
DRAIN_TIMEOUT = 4
SILENCE = 4  # longer than either of the first two


@pytest.fixture(scope="module")
def streaming(stack: Stack) -> Stack:
    """Up, with an app that streams; `/events` does so, the rest of the site does not."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "streaming_app", stack.folder / "app")
    stack.configure(
        replicas="1",
        requestTimeout=str(SITE_TIMEOUT),
        clientTimeout=str(CLIENT_TIMEOUT),
        drainTimeout=str(DRAIN_TIMEOUT),
        compression="true",
    )
    stack.pulumi("config", "set", "--path", 'paths["/events"].streaming', "true")
    stack.pulumi("config", "set", "--path", 'paths["/events"].requestTimeout', str(STREAM_TIMEOUT))
    stack.up()
    return stack


def arrivals(stack: Stack, path: str, headers: dict[str, str] | None = None) -> list[tuple[float, bytes]]:
    """What comes of an answer, and how many seconds after the question."""
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)) as connection:
        begin = time.monotonic()
        connection.request("GET", path, headers=headers or {})
        found = []
        with connection.getresponse() as response:
            assert response.status == 200
            while piece := response.read1(65536):
                found.append((time.monotonic() - begin, piece))
    return found


class WebSocket:
    """Just enough of RFC 6455: short texts."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._received = self._socket.makefile("rb")
        self.status = int(self._received.readline().split()[1])
        while self._received.readline().strip():
            pass

    def send(self, text: str) -> None:
        self._frame(0x1, text.encode())

    def _frame(self, kind: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self._socket.sendall(bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked)

    def receive(self) -> str | None:
        """The next text; None when the connection is over. Pings are answered."""
        while True:
            head = self._received.read(2)
            if len(head) < 2:
                return None
            data = self._received.read(head[1])
            if head[0] == 0x89:
                self._frame(0xA, data)
            elif head[0] == 0x81:
                return data.decode()

    def close(self) -> None:
        self._received.close()
        self._socket.close()


def test_each_piece_of_an_answer_arrives_when_the_app_has_said_it(streaming: Stack) -> None:
    found = arrivals(streaming, "/events/pieces?count=5&pause=0.4")
    assert [piece for _, piece in found] == [f"data: {number}\n\n".encode() for number in range(5)]
    assert [moment for number, (moment, _) in enumerate(found) if abs(moment - 0.4 * number) > 0.3] == []


def test_with_compression_too(streaming: Stack) -> None:
    found = arrivals(streaming, "/events/pieces?count=5&pause=0.4&type=text/plain", {"Accept-Encoding": "gzip"})
    assert not found[0][1].startswith(b"data"), "it is compressed"
    assert found[0][0] < 0.3
    assert len(found) >= 5


def test_elsewhere_an_answer_is_taken_from_the_app_before_it_goes_out(streaming: Stack) -> None:
    (moment, whole), *_ = arrivals(streaming, "/pieces?count=5&pause=0.4")
    assert whole.count(b"data") == 5
    assert moment > 1.5


def test_the_app_can_say_itself_that_an_answer_goes_out_at_once(streaming: Stack) -> None:
    found = arrivals(streaming, "/pieces?count=5&pause=0.4&unbuffered=1")
    assert len(found) == 5
    assert found[0][0] < 0.3


def test_a_silence_that_the_path_allows_ends_nothing(streaming: Stack) -> None:
    found = arrivals(streaming, f"/events/pieces?count=2&pause={SILENCE}")
    assert b"".join(piece for _, piece in found) == b"data: 0\n\ndata: 1\n\n"
    with pytest.raises(http.client.IncompleteRead):
        arrivals(streaming, f"/pieces?count=2&pause={SILENCE}")


def test_a_websocket_talks_both_ways_and_may_be_silent_for_as_long(streaming: Stack) -> None:
    with closing(WebSocket(streaming.port, "/events/echo")) as websocket:
        assert websocket.status == 101
        for text in ("one", "two"):
            websocket.send(text)
            assert websocket.receive() == f"one {text}"
        time.sleep(SILENCE)
        websocket.send("three")
        assert websocket.receive() == "one three"


def test_streaming_is_turned_off_with_a_release_that_ends_what_is_open_when_the_drain_timeout_is_over(
    streaming: Stack,
) -> None:
    """While a stream and a WebSocket are open: another release, without the setting."""
    cut: list[BaseException] = []

    def listen() -> None:
        try:
            arrivals(streaming, "/events/pieces?count=600&pause=0.2")
        except (http.client.IncompleteRead, ConnectionError) as error:
            cut.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    with Load(streaming.port, slow=0) as load, closing(WebSocket(streaming.port, "/events/echo")) as websocket:
        streaming.edit("app/webapp.py", 'RELEASE = "one"', 'RELEASE = "two"')
        streaming.pulumi("config", "set", "--path", 'paths["/events"].streaming', "false")
        process = streaming.start("up", "--yes", "--skip-preview")
        eventually(lambda: streaming.get() == "two", 60, "the new release answers")
        live = time.monotonic()
        websocket.send("still there")
        assert websocket.receive() == "one still there"
        assert websocket.receive() is None
        lasted = time.monotonic() - live
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert DRAIN_TIMEOUT - 2 < lasted < DRAIN_TIMEOUT + 5, f"after {lasted:.1f} s"
    load.assert_nothing_was_dropped()
    listener.join(10)
    assert len(cut) == 1
    (moment, _), *_ = arrivals(streaming, "/events/pieces?count=3&pause=0.4")
    assert moment > 0.7
    with closing(WebSocket(streaming.port, "/events/echo")) as again:
        again.send("back")
        assert again.receive() == "two back"
