"""`python -m exporter`: reads what NGINX and uWSGI say, and answers who asks, until it is told to stop."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from exporter.log import Log
from exporter.replicas import Replica, Replicas
from exporter.traffic import Traffic
from exporter.web import Server, Site

PAGE = Path(__file__).parent / "status.html"
POLL_INTERVAL = 1.0  # seconds; NGINX itself writes what it has once a second
STUCK_AFTER = 15.0  # seconds


class Reader(threading.Thread, Collector):
    """Hands what comes into the log to the traffic.

    Attributes:
        error: what is wrong with the log, in words; empty when nothing is.
    """

    def __init__(self, log: Log, traffic: Traffic) -> None:
        super().__init__(name="reader", daemon=True)
        self._log, self._traffic = log, traffic
        self._looked = time.monotonic()
        self.error = ""

    def run(self) -> None:
        """Reads for ever."""
        while True:
            self.look()
            time.sleep(POLL_INTERVAL)

    def look(self) -> None:
        """Reads what there is."""
        try:
            for lines in self._log.read():
                self._traffic.add(lines)
                self._looked = time.monotonic()
        except OSError as error:
            self._log.close()
            if str(error) != self.error:
                print(f"NGINX's log of requests cannot be read: {error}", file=sys.stderr, flush=True)
            self.error = str(error)
        else:
            self.error = ""
        self._looked = time.monotonic()

    def problem(self) -> str | None:
        """Why the figures are not to be relied on."""
        if self.error:
            return f"NGINX's log of requests cannot be read: {self.error}"
        silent = time.monotonic() - self._looked
        return f"nothing was read for {silent:.0f} s" if silent > STUCK_AFTER else None

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        text = "How many times NGINX's log of requests was found full: lines were lost then."
        yield CounterMetricFamily("exporter_log_overflows", text, value=self._log.overflows)


def status(stack: str, traffic: Traffic, replicas: Replicas) -> dict[str, object]:
    """What the page shows."""
    return {"stack": stack, "replicas": [_shown(replica) for replica in replicas.now()], **traffic.summary()}


def _shown(replica: Replica) -> dict[str, object]:
    return {
        "name": replica.name,
        "release": replica.release,
        "state": replica.state,
        "requests": replica.requests,
        "exceptions": replica.exceptions,
        "workers": replica.workers,
        "busyWorkers": replica.busy_workers,
        "threads": replica.threads,
        "busyThreads": replica.busy_threads,
        "averageSeconds": replica.average_seconds,
    }


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="exporter", description=__doc__)
    parser.add_argument("--stack", required=True, help="whose figures these are")
    parser.add_argument("--port", type=int, required=True, help="where it answers")
    parser.add_argument("--log", type=Path, required=True, help="the file into which NGINX writes a line a request")
    parser.add_argument("--sockets", type=Path, required=True, help="the folder in which replicas listen")
    arguments = parser.parse_args()
    # Python as a container's first process would ignore it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    traffic, replicas = Traffic(), Replicas(arguments.sockets)
    reader = Reader(Log(arguments.log), traffic)
    registry = CollectorRegistry()
    for collector in (traffic, replicas, reader):
        registry.register(collector)
    ProcessCollector(registry=registry)
    site = Site(registry, PAGE.read_text(), lambda: status(arguments.stack, traffic, replicas), reader.problem)
    reader.start()
    with Server(("", arguments.port), site) as server:
        server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    main()
