"""`uwsgi/wsgi.py` with a body on a real socket, and uWSGI's and NGINX's parts played."""

import runpy
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest

SMALL, LARGE = 10, 1_000_000  # bytes; the larger one does not fit into a socket
TIMEOUT = 3  # seconds
App = Callable[..., Any]


class Body:
    """uWSGI's `wsgi.input`."""

    def __init__(self, connection: socket.socket, length: int) -> None:
        self._connection, self._length, self._position = connection, length, 0

    def read(self, size: int) -> bytes:
        wanted = min(size, self._length - self._position)
        data = self._connection.recv(wanted, socket.MSG_WAITALL) if wanted else b""
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def fileno(self) -> int:
        return self._connection.fileno()


class Exchange:
    """A POST of `length` bytes by NGINX, as far as an app's answer makes it end.

    Attributes:
        answer: what NGINX got.
        broken: whether the connection was, before the answer was complete.
    """

    def __init__(self, app: App, length: int) -> None:
        self.answer, self.broken = b"", False
        nginx, uwsgi = socket.socketpair()
        nginx.setblocking(False)
        uwsgi.settimeout(TIMEOUT)
        thread = threading.Thread(target=self._ask, args=(nginx, length))
        begin = time.monotonic()
        thread.start()
        try:
            serve(app, uwsgi, length)
        finally:
            uwsgi.close()
            thread.join(TIMEOUT)
        assert time.monotonic() - begin < TIMEOUT, "each waits for the other"

    def _ask(self, nginx: socket.socket, length: int) -> None:
        """Sends what goes at once, then the rest, unless there is an answer before."""
        with nginx, selectors.DefaultSelector() as selector:
            selector.register(nginx, selectors.EVENT_READ)
            try:
                while True:
                    while length and not self.answer and (sent := self._send(nginx, length)):
                        length -= sent
                    if selector.select(0.01):
                        data = nginx.recv(65536)
                        if not data:
                            return
                        self.answer += data
            except OSError:
                self.broken = True

    def _send(self, nginx: socket.socket, length: int) -> int:
        try:
            return nginx.send(b"x" * length)
        except BlockingIOError:
            return 0


def serve(app: App, connection: socket.socket, length: int) -> None:
    """What uWSGI does with a request."""

    def start_response(*_: object) -> App:
        return connection.sendall

    result = app({"CONTENT_LENGTH": str(length), "wsgi.input": Body(connection, length)}, start_response)
    if isinstance(result, bytes):
        connection.sendall(result)
        return
    if hasattr(result, "read"):
        connection.sendall(result.read())
        return
    try:
        for chunk in result:
            connection.sendall(chunk)
    finally:
        if hasattr(result, "close"):
            result.close()


@pytest.fixture
def wrapped(monkeypatch: pytest.MonkeyPatch) -> Callable[[App], App]:
    """What uWSGI would load for an app."""

    def wrap(app: App) -> App:
        module = ModuleType("package.module_under_test")
        module.its_callable = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "package", ModuleType("package"))
        monkeypatch.setitem(sys.modules, "package.module_under_test", module)
        monkeypatch.setenv("UWSGI_APP", "package.module_under_test")
        monkeypatch.setenv("UWSGI_CALLABLE", "its_callable")
        loaded: App = runpy.run_path("uwsgi/wsgi.py")["application"]
        return loaded

    return wrap


class File:
    def read(self) -> bytes:
        return b"file"


def listed(environ: Any, start_response: App) -> list[bytes]:
    return [b"an", b"swer"]


def generated(environ: Any, start_response: App) -> Iterator[bytes]:
    yield b"an"
    yield b"swer"


def plain(environ: Any, start_response: App) -> bytes:
    return b"answer"


def empty(environ: Any, start_response: App) -> list[bytes]:
    return [b""]


def file(environ: Any, start_response: App) -> File:
    return File()


def written(environ: Any, start_response: App) -> list[bytes]:
    start_response("200 OK", [])(b"answer")
    return []


def reading_some(environ: Any, start_response: App) -> list[bytes]:
    return [str(len(environ["wsgi.input"].read(7))).encode()]


class Iterating:
    """A class as a WSGI callable."""

    def __init__(self, environ: Any, start_response: App) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        yield b"answer"


APPS = {
    listed: b"answer",
    generated: b"answer",
    plain: b"answer",
    empty: b"",
    file: b"file",
    written: b"answer",
    reading_some: b"7",
    Iterating: b"answer",
}


@pytest.mark.parametrize("length", [SMALL, LARGE])
@pytest.mark.parametrize("app", APPS, ids=lambda app: app.__name__)
def test_an_answer_arrives_whole_although_the_body_was_not_read(
    wrapped: Callable[[App], App], app: App, length: int
) -> None:
    exchange = Exchange(wrapped(app), length)
    assert exchange.answer == APPS[app]
    assert not exchange.broken


@pytest.mark.parametrize("app", [listed, generated])
def test_without_it_the_connection_breaks(app: App) -> None:
    assert Exchange(app, LARGE).broken


def test_the_next_piece_of_an_answer_does_not_wait_for_the_body(wrapped: Callable[[App], App]) -> None:
    def echoing(environ: Any, start_response: App) -> Iterator[bytes]:
        while data := environ["wsgi.input"].read(1000):
            yield data

    exchange = Exchange(wrapped(echoing), 20_000)
    assert exchange.answer == b"x" * 20_000


def test_what_the_app_puts_in_the_place_of_the_body_is_not_touched(wrapped: Callable[[App], App]) -> None:
    def app(environ: Any, start_response: App) -> list[bytes]:
        environ["wsgi.input"] = None
        return [b"answer"]

    assert Exchange(wrapped(app), LARGE).answer == b"answer"


@pytest.mark.parametrize("length", ["", None, "0", "10"])
def test_an_answer_to_a_request_that_was_read_is_the_apps_own(
    wrapped: Callable[[App], App], length: str | None
) -> None:
    answer = [b"answer"]

    def app(environ: Any, start_response: App) -> list[bytes]:
        if length == "10":
            assert environ["wsgi.input"].read(100) == b"x" * 10
        return answer

    nginx, uwsgi = socket.socketpair()
    with nginx, uwsgi:
        nginx.sendall(b"x" * 10)
        environ = {"wsgi.input": Body(uwsgi, 10 if length == "10" else 0)}
        if length is not None:
            environ["CONTENT_LENGTH"] = length  # type: ignore[assignment]
        assert wrapped(app)(environ, lambda *_: None) is answer


@pytest.mark.parametrize("broken", [False, True])
def test_the_apps_answer_is_closed_once_whatever_happens(wrapped: Callable[[App], App], broken: bool) -> None:
    class Answer:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"an"
            if broken:
                raise ValueError("in the middle")
            yield b"swer"

        def close(self) -> None:
            self.closed += 1

    answer = Answer()
    with pytest.raises(ValueError, match="in the middle") if broken else nullcontext():
        Exchange(wrapped(lambda *_: answer), LARGE)
    assert answer.closed == 1


def test_an_error_in_close_is_seen_and_the_body_is_read_all_the_same(wrapped: Callable[[App], App]) -> None:
    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            return iter(())

        def close(self) -> None:
            raise ValueError("in close")

    nginx, uwsgi = socket.socketpair()
    with nginx, uwsgi:
        nginx.sendall(b"x" * 10)
        body = Body(uwsgi, 10)
        answer = wrapped(lambda *_: Answer())({"CONTENT_LENGTH": "10", "wsgi.input": body}, lambda *_: None)
        with pytest.raises(ValueError, match="in close"):
            answer.close()
        assert body.tell() == 10


def test_start_response_gets_all_its_arguments(wrapped: Callable[[App], App]) -> None:
    def app(environ: Any, start_response: App) -> Iterable[bytes]:
        start_response("500 Oh", [("A", "b")], ("exc",))
        return [b""]

    got: list[object] = []
    nginx, uwsgi = socket.socketpair()
    with nginx, uwsgi:
        nginx.sendall(b"x")
        wrapped(app)({"CONTENT_LENGTH": "1", "wsgi.input": Body(uwsgi, 1)}, lambda *arguments: got.extend(arguments))
    assert got == ["500 Oh", [("A", "b")], ("exc",)]


def test_a_client_that_is_gone_is_no_error(wrapped: Callable[[App], App]) -> None:
    nginx, uwsgi = socket.socketpair()
    with uwsgi:
        nginx.sendall(b"x")
        answer = wrapped(listed)({"CONTENT_LENGTH": "100", "wsgi.input": Body(uwsgi, 100)}, lambda *_: None)
        nginx.close()
        assert b"".join(answer) == b"answer"
        answer.close()
