"""The clients of the live tests: what they do for a site that has several addresses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.live.load import Load


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host, _ = self.connection.getsockname()
        body = str(host).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Dropping(Handler):
    def do_GET(self) -> None:
        self.close_connection = True


@contextmanager
def serving(host: str, port: int = 0, handler: type[Handler] = Handler) -> Iterator[int]:
    with ThreadingHTTPServer((host, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def test_connections_go_to_all_addresses() -> None:
    with (
        serving("127.0.0.1") as port,
        serving("127.0.0.2", port),
        Load(port, hosts=("127.0.0.1", "127.0.0.2"), keep_alive=2, fresh=2, slow=0) as load,
    ):
        pass
    load.assert_nothing_was_dropped(100)
    assert set(load.bodies) == {"127.0.0.1", "127.0.0.2"}


def test_who_is_refused_at_one_address_goes_to_the_next() -> None:
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    with serving("127.0.0.2") as port, Load(port, hosts=hosts, keep_alive=2, fresh=2, slow=0) as load:
        pass
    load.assert_nothing_was_dropped(100)


def test_who_is_refused_everywhere_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    with Load(port, hosts=("127.0.0.1", "127.0.0.2"), keep_alive=1, fresh=0, slow=0, pause=0.1) as load:
        pass
    assert len(load.failures) == load.sent > 0
    assert "ConnectionRefusedError" in load.failures[0]


def test_a_request_that_was_sent_is_not_sent_again() -> None:
    hosts = ("127.0.0.1", "127.0.0.2")
    with (
        serving("127.0.0.1", handler=Dropping) as port,
        serving("127.0.0.2", port),
        Load(port, hosts=hosts, keep_alive=0, fresh=2, slow=0) as load,
    ):
        pass
    assert 0 < len(load.failures) < load.sent
