"""A load that counts every request, bounded in clients and time."""

import http.client
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from types import TracebackType
from typing import Self

REQUEST_TIMEOUT = 40  # seconds; whoever waits longer has failed
PAUSE = 0.002  # seconds between two requests of a client
# Of a client that opens a connection each time, longer. Docker's proxy opens one to NGINX for each, whose port is not
# free again for a minute: after some 28,000 (net.ipv4.ip_local_port_range) it has none left, and resets its clients.
FRESH_PAUSE = 0.02
SLOW = 3  # seconds that a slow request takes
LONGEST = 240  # seconds after which a load stops by itself


@dataclass
class Load:
    """Clients that ask for `/` and `/slow` until they are told to stop.

    Attributes:
        port: of each host.
        hosts: the addresses of the site. Each connection goes to the next one, and where it is refused to the one after
            it: that much, and no more, clients do unasked for a name with several addresses.
        keep_alive: clients that send all their requests over one connection.
        fresh: clients that open a connection each time.
        slow: clients that keep a three-second request in flight.
        context: with it they come by HTTPS.
    """

    port: int
    hosts: tuple[str, ...] = ("127.0.0.1",)
    keep_alive: int = 4
    fresh: int = 4
    slow: int = 3
    pause: float = PAUSE
    fresh_pause: float = FRESH_PAUSE
    context: ssl.SSLContext | None = None
    sent: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)
    bodies: Counter[str] = field(default_factory=Counter)
    timeline: list[tuple[float, bool]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._turns = count()
        self._begin, self._end = time.monotonic(), float("inf")
        kinds: list[tuple[int, Callable[[], None]]] = [
            (self.keep_alive, self._keep_alive),
            (self.fresh, self._fresh),
            (self.slow, self._slow),
        ]
        clients = [client for number, client in kinds for _ in range(number)]
        self._threads = [threading.Thread(target=client, daemon=True) for client in clients]
        for thread in self._threads:
            thread.start()
        time.sleep(1)  # so that what follows happens under load
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            time.sleep(1)
        self._end = time.monotonic()
        self._stop.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT + SLOW)

    @property
    def running(self) -> bool:
        return not self._stop.is_set() and time.monotonic() - self._begin < LONGEST

    @property
    def figures(self) -> str:
        return f"{self.sent} requests, {len(self.failures)} failed, longest wait {self.longest:.1f} s"

    def assert_nothing_was_dropped(self, at_least: int = 500) -> None:
        """Fails on one failed request, and on a load that was none."""
        assert not self.failures, f"{self.figures}; first: {self.failures[:5]}"
        assert self.sent >= at_least, self.figures

    @property
    def gap(self) -> float:
        """The longest time, in seconds, in which no request that was sent succeeded."""
        # What was in flight when the clients were told to stop may come seconds later.
        good = sorted(moment for moment, succeeded in self.timeline if succeeded and moment <= self._end)
        return max((later - earlier for earlier, later in pairwise(good)), default=0.0)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> bool:
        begin = time.monotonic()
        problem, body = "", ""
        try:
            if connection.sock is None:
                self._connect(connection)
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            if response.status != 200:
                problem = f"{response.status} {body[:80]!r}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        end = time.monotonic()
        with self._lock:
            self.sent += 1
            self.longest = max(self.longest, end - begin - (SLOW if path.startswith("/slow") else 0))
            self.timeline.append((end, not problem))
            if problem:
                self.failures.append(f"{path} after {begin - self._begin:.2f} s: {problem}")
            else:
                self.bodies[body] += 1
        return not problem

    def _connection(self) -> http.client.HTTPConnection:
        host = self.hosts[0]  # until `_connect` chooses
        if self.context:
            return http.client.HTTPSConnection(host, self.port, timeout=REQUEST_TIMEOUT, context=self.context)
        return http.client.HTTPConnection(host, self.port, timeout=REQUEST_TIMEOUT)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        turn = next(self._turns) % len(self.hosts)
        *others, last = self.hosts[turn:] + self.hosts[:turn]
        for connection.host in others:
            with suppress(ConnectionRefusedError):
                return connection.connect()
        connection.host = last
        return connection.connect()

    def _keep_alive(self) -> None:
        connection = self._connection()
        while self.running:
            if not self._ask(connection, "/"):
                connection.close()
            time.sleep(self.pause)
        connection.close()

    def _fresh(self) -> None:
        while self.running:
            connection = self._connection()
            self._ask(connection, "/")
            connection.close()
            time.sleep(self.fresh_pause)

    def _slow(self) -> None:
        while self.running:
            connection = self._connection()
            self._ask(connection, f"/slow?seconds={SLOW}")
            connection.close()


def saturating(port: int) -> Load:
    """96 connections, of which those that are kept never rest."""
    return Load(port, keep_alive=64, fresh=24, slow=8, pause=0.0, fresh_pause=3 * FRESH_PAUSE)
