"""What the replicas say of themselves: uWSGI's statistics, on a socket beside the one for requests."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SUFFIX = ".sock.stats"
NAME = re.compile(r"(?P<replica>[A-Za-z0-9._-]+)-(?P<release>[0-9a-f]+)\.sock")
MEMBERS = "members"  # the file in which the release gate has written the sockets that NGINX asks, one a line

TIMEOUT = 1.0  # seconds for one replica
AT_ONCE = 16  # replicas
MOST_BYTES = 2**24  # of one replica's statistics, which hold the headers of each request that it is at
FRESH = 1.0  # seconds for which an answer serves all who ask


@dataclass(frozen=True)
class Replica:
    """One replica, at one moment.

    Attributes:
        name, release: as its socket is named.
        is_up: whether it answers.
        is_member: whether NGINX asks it; what starts or drains is not.
        workers: its uWSGI processes; `busy_workers` of them are at a request.
        threads: those of all workers; as many requests it can work on at once.
        busy_seconds: how long its threads have worked on requests, all together.
        average_seconds: of the last requests, as uWSGI has it: a moving average of each worker's, their mean.
        memory: resident, in bytes; 0 unless uWSGI runs with `memory-report`.
    """

    name: str
    release: str
    is_up: bool = False
    is_member: bool = True
    requests: int = 0
    exceptions: int = 0
    killed: int = 0
    started: int = 0
    workers: int = 0
    busy_workers: int = 0
    threads: int = 0
    busy_threads: int = 0
    busy_seconds: float = 0.0
    average_seconds: float = 0.0
    sent: int = 0
    memory: int = 0

    @property
    def state(self) -> str:
        """In a word."""
        if not self.is_up:
            return "down"
        return "serving" if self.is_member else "waiting"


class Replicas(Collector):
    """Those whose sockets are in `folder`; a Prometheus collector."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, "replica")
        self._found: list[Replica] = []
        self._asked = 0.0

    def now(self) -> list[Replica]:
        """All that serve, should serve, or answer; by name."""
        with self._lock:
            if time.monotonic() - self._asked > FRESH:
                self._found = self._ask()
                self._asked = time.monotonic()
            return self._found

    def _ask(self) -> list[Replica]:
        members = self._members()
        present = {path.name.removesuffix(".stats") for path in self._folder.glob(f"*{SUFFIX}")}
        sockets = sorted(name for name in present | (members or set()) if NAME.fullmatch(name))
        answers = self._pool.map(self._statistics, sockets)
        found = {
            name: _replica(name, answer, members is None or name in members)
            for name, answer in zip(sockets, answers, strict=True)
        }
        if members is None:
            return _without_old_ones(found, self._folder)
        # The socket of a replica that is gone stays until the next release, and nobody misses it.
        return [replica for replica in found.values() if replica.is_up or replica.is_member]

    def _members(self) -> set[str] | None:
        try:
            return {Path(line).name for line in (self._folder / MEMBERS).read_text().splitlines()}
        except (OSError, ValueError):
            return None

    def _statistics(self, name: str) -> dict[str, Any] | None:
        try:
            return statistics(self._folder / f"{name}.stats")
        except (OSError, ValueError):
            return None

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        replicas = self.now()
        labels = ("replica", "release")
        up = GaugeMetricFamily("uwsgi_up", "Whether the replica answers.", labels=labels)
        member = GaugeMetricFamily("uwsgi_in_rotation", "Whether NGINX asks the replica.", labels=labels)
        for replica in replicas:
            up.add_metric((replica.name, replica.release), replica.is_up)
            member.add_metric((replica.name, replica.release), replica.is_member)
        yield up
        yield member
        alive = [replica for replica in replicas if replica.is_up]
        yield from _families(alive, labels)

    def close(self) -> None:
        """Ends the threads that ask."""
        self._pool.shutdown()


def statistics(path: Path, timeout: float = TIMEOUT) -> dict[str, Any]:
    """What uWSGI's statistics server at `path` answers.

    Raises:
        OSError: nobody does, or not in time.
        ValueError: it is no JSON object.
    """
    deadline = time.monotonic() + timeout
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while piece := connection.recv(2**16):
            answer += piece
            if len(answer) > MOST_BYTES:
                raise ValueError("too long")
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
    _, _, body = answer.partition(b"\r\n\r\n")
    # It shows the headers of requests at work as they came: with control characters, and in any encoding.
    found = json.loads(body.decode(errors="replace"), strict=False)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - the text is wrong, not its type
    return found


def _replica(socket_name: str, answer: dict[str, Any] | None, is_member: bool) -> Replica:
    named = NAME.fullmatch(socket_name)
    assert named
    name, release = named["replica"], named["release"]
    if answer is None:
        return Replica(name, release, is_up=False, is_member=is_member)
    try:
        workers = answer["workers"]
        cores = [core for worker in workers for core in worker["cores"]]
        averages = [worker["avg_rt"] for worker in workers if worker["requests"]]
        return Replica(
            name,
            release,
            is_up=True,
            is_member=is_member,
            requests=sum(worker["requests"] for worker in workers),
            exceptions=sum(worker["exceptions"] for worker in workers),
            killed=sum(worker["harakiri_count"] for worker in workers),
            started=sum(worker["respawn_count"] for worker in workers),
            workers=len(workers),
            busy_workers=sum(worker["status"] == "busy" for worker in workers),
            threads=len(cores),
            busy_threads=sum(bool(core["in_request"]) for core in cores),
            busy_seconds=sum(worker["running_time"] for worker in workers) / 1e6,
            average_seconds=sum(averages) / len(averages) / 1e6 if averages else 0.0,
            sent=sum(worker["tx"] for worker in workers),
            memory=sum(worker["rss"] for worker in workers),
        )
    except (KeyError, TypeError):  # not uWSGI's
        return Replica(name, release, is_up=False, is_member=is_member)


def _without_old_ones(found: dict[str, Replica], folder: Path) -> list[Replica]:
    """Those that answer; of the others, the newest of each name if none of that name answers."""
    alive = {replica.name for replica in found.values() if replica.is_up}
    newest = {found[name].name: name for name in sorted(found, key=lambda name: _changed(folder / f"{name}.stats"))}
    return [
        replica
        for name, replica in found.items()
        if replica.is_up or (replica.name not in alive and newest[replica.name] == name)
    ]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _families(replicas: Sequence[Replica], labels: Sequence[str]) -> Iterator[Metric]:
    counters = (
        ("uwsgi_requests", "Requests that the replica has answered, health checks included.", "requests"),
        ("uwsgi_exceptions", "Exceptions that the app let through.", "exceptions"),
        ("uwsgi_harakiri", "Workers that were killed because a request took too long.", "killed"),
        ("uwsgi_worker_starts", "Starts of workers, the first ones included.", "started"),
        ("uwsgi_request_seconds", "Time that threads have worked on requests.", "busy_seconds"),
        ("uwsgi_response_bytes", "Bytes of answers.", "sent"),
    )
    gauges = (
        ("uwsgi_workers", "Worker processes.", "workers"),
        ("uwsgi_busy_workers", "Worker processes that are at a request.", "busy_workers"),
        ("uwsgi_threads", "Threads of all workers: requests that the replica can work on at once.", "threads"),
        ("uwsgi_busy_threads", "Threads that are at a request.", "busy_threads"),
        ("uwsgi_average_response_seconds", "Moving average over the last requests.", "average_seconds"),
    )
    for name, text, attribute in counters:
        counter = CounterMetricFamily(name, text, labels=labels)
        for replica in replicas:
            counter.add_metric((replica.name, replica.release), getattr(replica, attribute))
        yield counter
    for name, text, attribute in gauges:
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for replica in replicas:
            gauge.add_metric((replica.name, replica.release), getattr(replica, attribute))
        yield gauge
    memory = GaugeMetricFamily(
        "uwsgi_resident_memory_bytes", "Of all workers, where uWSGI runs with memory-report.", labels=labels
    )
    for replica in replicas:
        if replica.memory:
            memory.add_metric((replica.name, replica.release), replica.memory)
    yield memory
