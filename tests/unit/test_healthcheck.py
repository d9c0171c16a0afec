"""`uwsgi/healthcheck.c`, compiled, against a real little server on a unix socket."""

import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path("uwsgi/healthcheck.c")
GOOD = b"HTTP/1.1 200 OK\r\n\r\nok"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("no C compiler here; the image has its own")
    compiled = tmp_path_factory.mktemp("healthcheck") / "healthcheck"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", compiled, SOURCE], check=True)
    return compiled


@pytest.fixture
def address() -> Iterator[str]:
    folder = tempfile.mkdtemp()  # pytest's own folders make names too long for a socket
    yield f"{folder}/s"
    shutil.rmtree(folder)


class Server:
    """Answers with `response`, and keeps what it was asked last."""

    def __init__(self, address: str, response: bytes, *, silent: bool = False) -> None:
        self.asked = b""
        self.count, self.has_asked = 0, threading.Event()
        self.response, self._silent = response, silent
        self._done = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(5)
        self._listener.bind(address)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed, or nobody came
                return
            with connection:
                connection.settimeout(5)
                self.asked = connection.recv(65536)
                self.count += 1
                self.has_asked.set()
                if self._silent:
                    self._done.wait(10)
                else:
                    with suppress(OSError):  # who asked may have been killed meanwhile
                        connection.sendall(self.response)

    def close(self) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@contextmanager
def serving(address: str, response: bytes = GOOD, *, silent: bool = False) -> Iterator[Server]:
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


@dataclass
class Check:
    """Runs it as Docker does, with a marker of its own."""

    program: Path
    address: str

    @property
    def marker(self) -> Path:
        return Path(self.address).with_name("marker")

    def start(self, path: str = "/health", watch: int = 0, pause: int = 0) -> "subprocess.Popen[str]":
        command = [str(self.program), path, self.address, str(self.marker), str(watch), str(pause)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )

    def __call__(self, path: str = "/health", watch: int = 0, pause: int = 0) -> tuple[int, str]:
        """Exit code and what it says."""
        with self.start(path, watch, pause) as process:
            out, words = process.communicate(timeout=20)
        assert out == ""
        return process.returncode, words


@pytest.fixture
def check(program: Path, address: str) -> Check:
    return Check(program, address)


@pytest.mark.parametrize("status", ["200 OK", "204 NO CONTENT", "302 FOUND", "399 Whatever"])
def test_an_app_that_answers_well_is_healthy(check: Check, address: str, status: str) -> None:
    with serving(address, f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\nok".encode()):
        assert check() == (0, "")


@pytest.mark.parametrize(
    "status", ["400 BAD REQUEST", "404 NOT FOUND", "500 INTERNAL SERVER ERROR", "503 Gone fishing", "199 Odd"]
)
def test_an_app_that_answers_badly_is_not_and_says_how(check: Check, address: str, status: str) -> None:
    with serving(address, f"HTTP/1.1 {status}\r\n\r\n".encode()):
        assert check() == (1, f"GET /health: {status}\n")


@pytest.mark.parametrize(
    ("response", "words"),
    [(b"", "no answer"), (b"\r\n", "no answer"), (b"nonsense", "nonsense"), (b"\xff\xfe \xff", "\ufffd")],
)
def test_what_is_no_answer_is_not_healthy(check: Check, address: str, response: bytes, words: str) -> None:
    with serving(address, response):
        assert check() == (1, f"GET /health: {words}\n")


def test_a_socket_that_nobody_listens_on_is_not_healthy(check: Check, address: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.close()
    assert check() == (1, "GET /health: Connection refused\n")


def test_a_socket_that_is_not_there_is_not_healthy(check: Check) -> None:
    assert check() == (1, "GET /health: No such file or directory\n")


def test_a_silent_app_is_not_healthy_after_the_timeout(check: Check, address: str) -> None:
    with serving(address, silent=True) as server:
        assert check() == (1, "GET /health: timed out\n")
        assert server.asked


def test_it_asks_in_the_uwsgi_protocol_as_nginx_would(check: Check, address: str) -> None:
    path = "/fit/%C3%A4" + "a" * 250
    with serving(address) as server:
        check(path)
    asked = variables(server.asked)
    assert asked["PATH_INFO"] == asked["REQUEST_URI"] == path
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


def test_the_first_check_ends_at_once_and_the_next_one_watches(check: Check, address: str) -> None:
    with serving(address) as server:
        assert check(watch=60, pause=60) == (0, "")
        assert check.marker.exists()
        with check.start(watch=1) as watching:
            assert (watching.wait(20), check.marker.exists()) == (0, True)
    assert server.count > 10


def test_a_watch_ends_with_the_first_bad_answer_and_the_check_after_it_at_once(check: Check, address: str) -> None:
    check.marker.touch()
    with serving(address) as server, check.start(watch=60) as watching:
        server.has_asked.wait(5)
        server.response = b"HTTP/1.1 500 OH NO\r\n\r\n"
        assert watching.wait(20) == 1
        assert not check.marker.exists()
        server.response = GOOD
        assert check(watch=60, pause=60) == (0, "")


def test_the_check_after_a_watch_that_was_cut_off_ends_at_once(check: Check, address: str) -> None:
    check.marker.touch()
    with serving(address) as server:
        with check.start(watch=60, pause=60) as watching:
            assert server.has_asked.wait(5)
            watching.kill()
        assert check(watch=60, pause=60) == (0, "")


def test_where_no_marker_can_be_left_every_check_ends_at_once(check: Check, address: str) -> None:
    check.marker.mkdir()
    with serving(address):
        assert check(watch=60, pause=60) == check(watch=60, pause=60) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["/", "s", "m", "1"], ["/" + "a" * 2000, "s", "m", "1", "1"]])
def test_arguments_that_do_not_fit_are_refused(program: Path, arguments: list[str]) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (2, "healthcheck PATH SOCKET MARKER WATCH PAUSE\n")
