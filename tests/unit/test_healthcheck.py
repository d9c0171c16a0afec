"""`uwsgi/healthcheck.py` against a real little server on a unix socket."""

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

SCRIPT = Path("uwsgi/healthcheck.py")


@pytest.fixture
def healthcheck(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("healthcheck_under_test", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def address() -> Iterator[str]:
    folder = tempfile.mkdtemp()  # pytest's own folders make names too long for a socket
    yield f"{folder}/s"
    shutil.rmtree(folder)


class Server:
    """Answers one connection with `response`, and keeps what it was asked."""

    def __init__(self, address: str, response: bytes, *, silent: bool = False) -> None:
        self.asked = b""
        self._response, self._silent = response, silent
        self._done = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(5)
        self._listener.bind(address)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # nobody came
            return
        with connection:
            connection.settimeout(5)
            self.asked = connection.recv(65536)
            if self._silent:
                self._done.wait(5)
            else:
                connection.sendall(self._response)

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._listener.close()


@contextmanager
def serving(address: str, response: bytes = b"HTTP/1.1 200 OK\r\n\r\nok", *, silent: bool = False) -> Iterator[Server]:
    server = Server(address, response, silent=silent)
    try:
        yield server
    finally:
        server.close()


def variables(packet: bytes) -> dict[str, str]:
    """Those of a packet of the uwsgi protocol."""
    assert (packet[0], packet[3]) == (0, 0), "modifiers of a WSGI request"
    length = int.from_bytes(packet[1:3], "little")
    assert len(packet) == 4 + length
    texts, rest = [], packet[4:]
    while rest:
        size = int.from_bytes(rest[:2], "little")
        texts.append(rest[2 : 2 + size].decode())
        rest = rest[2 + size :]
    return dict(zip(texts[::2], texts[1::2], strict=True))


Check = Callable[..., str | None]


@pytest.fixture
def check(healthcheck: ModuleType) -> Check:
    def check(*args: object, **kwargs: object) -> object:
        with warnings.catch_warnings():
            # The script ends when it has its answer, and its socket with it.
            warnings.simplefilter("ignore", ResourceWarning)
            return healthcheck.check(*args, **kwargs)

    return cast(Check, check)


@pytest.mark.parametrize("status", ["200 OK", "204 NO CONTENT", "302 FOUND", "399 Whatever"])
def test_an_app_that_answers_well_is_healthy(check: Check, address: str, status: str) -> None:
    with serving(address, f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\nok".encode()):
        assert check("/health", address) is None


@pytest.mark.parametrize(
    "status", ["400 BAD REQUEST", "404 NOT FOUND", "500 INTERNAL SERVER ERROR", "503 Gone fishing", "199 Odd"]
)
def test_an_app_that_answers_badly_is_not_and_says_how(check: Check, address: str, status: str) -> None:
    with serving(address, f"HTTP/1.1 {status}\r\n\r\n".encode()):
        assert check("/health", address) == f"GET /health: {status}"


@pytest.mark.parametrize(
    ("response", "words"),
    [(b"", "no answer"), (b"\r\n", "no answer"), (b"nonsense", "nonsense"), (b"\xff\xfe \xff", "\ufffd")],
)
def test_what_is_no_answer_is_not_healthy(check: Check, address: str, response: bytes, words: str) -> None:
    with serving(address, response):
        assert check("/health", address) == f"GET /health: {words}"


def test_a_socket_that_nobody_listens_on_is_not_healthy(check: Check, address: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.close()
    assert "refused" in str(check("/health", address))


def test_a_socket_that_is_not_there_is_not_healthy(check: Check, address: str) -> None:
    assert "No such file" in str(check("/health", address))


def test_a_silent_app_is_not_healthy_after_the_timeout(check: Check, address: str) -> None:
    with serving(address, silent=True) as server:
        assert check("/health", address, timeout=0.05) == "GET /health: timed out"
        assert server.asked


def test_it_asks_in_the_uwsgi_protocol_as_nginx_would(check: Check, address: str) -> None:
    with serving(address) as server:
        check("/fit/%C3%A4", address)
    asked = variables(server.asked)
    assert asked["PATH_INFO"] == asked["REQUEST_URI"] == "/fit/%C3%A4"
    # Without these no WSGI server can build an environment that follows PEP 3333.
    assert (
        asked.items()
        >= {
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
        }.items()
    )


@pytest.mark.parametrize(("status", "code", "words"), [("200 OK", 0, ""), ("500 OH NO", 1, "GET /health: 500 OH NO\n")])
def test_docker_gets_an_exit_code_and_words(address: str, status: str, code: int, words: str) -> None:
    with serving(address, f"HTTP/1.1 {status}\r\n\r\n".encode()):
        done = subprocess.run(
            [sys.executable, "-IS", str(SCRIPT), "/health", address], capture_output=True, text=True, timeout=20
        )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", words)


def test_it_needs_no_module_that_costs_a_start() -> None:
    listing = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", listing, str(SCRIPT)], capture_output=True, text=True, timeout=20, check=True
    )
    modules = set(done.stdout.split())
    assert "_socket" in modules
    assert not modules & {"socket", "http.client", "urllib.request", "selectors", "json"}


def test_its_text_survives_the_shell_that_writes_it_into_the_image() -> None:
    # The Dockerfile prints the build argument with printf '%s'; the engine and BuildKit take no NUL and no CR.
    text = SCRIPT.read_bytes()
    assert b"\0" not in text
    assert b"\r" not in text
    assert len(text) < 100_000, "an argument of execve is at most 128 KiB"
