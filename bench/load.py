"""The load generators, and what each run of one of them gave."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONNECTIONS = 64
THREADS = 2  # of wrk, and loops of bench/load
MARGIN = 60  # seconds that a load generator may take beyond its time


@dataclass(frozen=True)
class Sample:
    """One run of a load against one contender.

    Attributes:
        rate: good answers a second.
        failures: requests that got another answer, or none.
        p50, p99: seconds until an answer.
        client_cpu: seconds that the load generator itself took.
        cpu: seconds that the others took, by part.
    """

    requests: int
    failures: int
    seconds: float
    p50: float
    p99: float
    client_cpu: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return max(self.requests - self.failures, 0) / self.seconds


def closed_loop(
    url: str,
    seconds: float,
    *,
    fresh: bool = False,
    prefix: Sequence[str] = (),
    connections: int = CONNECTIONS,
    threads: int = THREADS,
) -> Sample:
    """wrk: connections that ask again as soon as they are answered.

    Args:
        url: what they ask for.
        seconds: how long.
        fresh: a new connection for each request.
        prefix: what the command is run by.
        connections, threads: of wrk.
    """
    command = wrk("report.lua", seconds, fresh=fresh, connections=connections, threads=threads)
    said, cpu = _run([*prefix, *command, url], seconds)
    found = json.loads(said.splitlines()[-1])
    return Sample(
        requests=found["requests"],
        failures=found["failures"] + found["statuses"],
        seconds=found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        client_cpu=cpu,
    )


def wrk(
    script: str, seconds: float, *, fresh: bool = False, connections: int = CONNECTIONS, threads: int = THREADS
) -> list[str]:
    """The command, but for the URL. wrk takes whole seconds only."""
    headers = ["--header", "Connection: close"] if fresh else []
    return [
        *("wrk", f"--threads={threads}", f"--connections={connections}", f"--duration={seconds:.0f}s"),
        *("--timeout=10s", f"--script={HERE / script}", *headers),
    ]


def uwsgi_sockets(load: Path, sockets: Sequence[str], path: str, seconds: float) -> Sample:
    """The same for uWSGI itself, on its sockets; see bench/load."""
    options = [f"-connections={CONNECTIONS}", f"-duration={seconds}s", f"-path={path}"]
    said, cpu = _run([str(load), *options, *sockets], seconds)
    found = json.loads(said)
    return Sample(
        requests=found["requests"] + found["failures"],
        failures=found["failures"],
        seconds=found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        client_cpu=cpu,
    )


def open_loop(vegeta: Path, url: str, rate: int, seconds: float) -> dict[str, float]:
    """vegeta: so many requests a second, however long the answers take.

    Who asks again only when answered asks less of a slow server, and so never sees how long others would have waited
    ("coordinated omission"). vegeta opens as many connections as it takes to keep the rate:
    https://github.com/tsenart/vegeta/issues/520
    """
    attack = [str(vegeta), "attack", f"-rate={rate}", f"-duration={seconds}s", "-timeout=10s", "-connections=10000"]
    results = _checked(attack, seconds, f"GET {url}\n".encode())
    found: dict[str, Any] = json.loads(_checked([str(vegeta), "report", "-type=json"], MARGIN, results))
    return {
        "requests": found["requests"],
        "rate": found["rate"],
        "failures": round(found["requests"] * (1 - found["success"])),
        **{name: found["latencies"][key] / 1e9 for name, key in (("p50", "50th"), ("p99", "99th"), ("max", "max"))},
    }


def _run(command: Sequence[str], seconds: float) -> tuple[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = _checked(command, seconds).decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _checked(command: Sequence[str], seconds: float, given: bytes = b"") -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, timeout=seconds + MARGIN, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout
