"""Processes and threads of a replica: what the defaults are chosen from.

uWSGI is asked over its sockets, as in `ceiling`.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import accounting, load
from bench.contenders import REPLICAS, Field
from bench.plan import Plan
from bench.session import Session
from bench.tools import Tools
from infra.layout import SOCKET_FOLDER, SOCKET_VARIABLE

PATHS = {"hello": "/", "wait": "/wait"}
READY_SECONDS = 60


@dataclass
class Variant:
    """Replicas of so many processes and threads, and what they did."""

    processes: int
    threads: int
    containers: list[str]
    sockets: list[str]
    rates: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PATHS})
    cpu: list[float] = field(default_factory=list)  # µs of uWSGI's for a hello world


def measure(session: Session, contenders: Field, tools: Tools, plan: Plan) -> list[dict[str, Any]]:
    """Two replicas of each variant, all there at once, asked one after the other."""
    # A folder of the machine's with a short name, not a volume: a socket's path has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    session.undo.callback(shutil.rmtree, folder, ignore_errors=True)
    variants = [
        _start(session, contenders.app_image, folder / f"{processes}-{threads}", processes, threads)
        for processes, threads in plan.workers
    ]
    for number in range(plan.rounds + 1):
        random.shuffle(variants)
        for variant in variants:
            for name, path in PATHS.items():
                before = _used(session, variant)
                sample = load.uwsgi_sockets(tools.load, variant.sockets, path, plan.seconds if number else 1)
                if not number:  # nobody is measured cold
                    continue
                variant.rates[name].append(sample.rate)
                if name == "hello":
                    variant.cpu.append((_used(session, variant) - before) / sample.requests * 1e6)
        session.say(f"processes and threads, round {number} of {plan.rounds}")
    found = []
    for variant in sorted(variants, key=lambda variant: (variant.processes, variant.threads)):
        memory = [accounting.proportional_memory(session.docker, container) for container in variant.containers]
        found.append(
            {
                "processes": variant.processes,
                "threads": variant.threads,
                **variant.rates,
                "cpu_us": variant.cpu,
                "memory_mib": sum(memory) / len(memory),
            }
        )
        for container in variant.containers:
            session.docker.containers.get(container).remove(force=True)
    return found


def _used(session: Session, variant: Variant) -> float:
    return accounting.used(session.docker, {"uWSGI": variant.containers}, [])["uWSGI"]


def _start(session: Session, image: str, folder: Path, processes: int, threads: int) -> Variant:
    folder.mkdir()
    folder.chmod(0o777)  # the replicas' user is none of the machine's
    network = session.network(f"workers-{processes}-{threads}")
    variant = Variant(processes, threads, [], [])
    for number in range(1, REPLICAS + 1):
        name = f"uwsgi-{number}"
        environment = {
            "UWSGI_PROCESSES": str(processes),
            "UWSGI_THREADS": str(threads),
            SOCKET_VARIABLE: f"{SOCKET_FOLDER}/{name}.sock",
        }
        mount = {str(folder): {"bind": SOCKET_FOLDER, "mode": "rw"}}
        container = session.run(image, name, network, environment=environment, volumes=mount)
        variant.containers.append(str(container.id))
        variant.sockets.append(str(folder / f"{name}.sock"))
    _wait_for(variant.sockets)
    return variant


def _wait_for(sockets: Sequence[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not all(Path(socket).exists() for socket in sockets):
        if time.monotonic() > deadline:
            raise TimeoutError(f"uWSGI does not listen on {', '.join(sockets)}")
        time.sleep(0.05)
