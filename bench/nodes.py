"""Across nodes: the same stack on one, two and three nodes of a swarm, each with a share of the processors of its own.

All nodes are on this machine, so more of them would only share what there is. Each may use as much CPU as the others,
and so little that three of them and the client fit: how much more two and three serve then says how the design scales.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
import urllib.error
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import accounting, load
from bench.contenders import EVERYWHERE
from bench.load import Sample
from bench.plan import Plan
from bench.session import Session, cores
from bench.throughput import figures
from tests.live.own_daemon import bring_images
from tests.live.stack import Stack
from tests.swarm.cluster import REGISTRY, Cluster

SIZE = 3  # nodes
REPLICAS = 2  # of the app on a node, in front of which there is one NGINX
QUOTA = 0.7  # cores that the containers of a node may use
PERIOD = 0.02  # seconds over which they may: short, so that who has used up its part soon goes on
CLIENT = 1.0  # cores that are left to the client and the daemons
CONNECTIONS = 32  # to each node
SETTLED = 3.0  # seconds without an answer of the release before, until it counts as gone
LONGEST_GOODBYE = 60  # seconds


@dataclass(frozen=True)
class Placed:
    """A stack, and the numbers of the nodes with its NGINX and its app."""

    nginx: tuple[int, ...]
    app: tuple[int, ...]
    orchestrator: str = "swarm"


STACKS = {
    "one": Placed((0,), (0,)),
    "two": Placed((0, 1), (0, 1)),
    "three": Placed((0, 1, 2), (0, 1, 2)),
    "there": Placed((0,), (1,)),
    "back": Placed((1,), (0,)),
    "containers": Placed((0,), (0,), "containers"),
}
# Contender → the stacks that are asked at once.
CONTENDERS = {
    "containers": ("containers",),
    "one": ("one",),
    "two": ("two",),
    "three": ("three",),
    "crossed": ("there", "back"),
}
# Asked by one client alone, who waits for each answer.
ALONE = {"containers": "containers", "one": "one", "crossed": "there"}


def quota(available: int) -> float:
    """Cores for each node, of those that the machine has."""
    return min(QUOTA, max(available - CLIENT, available / 2) / SIZE)


def measure(session: Session, plan: Plan, *, quick: bool) -> dict[str, Any]:
    """Throughput, time to answer and time to release; or why not."""
    folder = session.folder / "nodes"
    folder.mkdir()
    session.say(f"starting {SIZE} Docker daemons, and a swarm of them")
    began = Path("/proc/loadavg").read_text().split()[0]
    try:
        with Cluster(folder, SIZE) as cluster:
            return {
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
                "quick": quick,
                "quota": quota(cores()),
                "replicas": REPLICAS,
                "connections": CONNECTIONS,
                "rounds": plan.node_rounds,
                "seconds": plan.seconds,
                "load_average": began,
                **_Nodes(session, cluster, plan).measure(),
            }
    except pytest.skip.Exception as reason:
        session.say(f"across nodes is left out: {reason}")
        return {"left_out": str(reason)}


class _Nodes:
    def __init__(self, session: Session, cluster: Cluster, plan: Plan) -> None:
        self._session, self._cluster, self._plan = session, cluster, plan
        self._stacks: dict[str, Stack] = {}

    def measure(self) -> dict[str, Any]:
        for number, node in enumerate(self._cluster.nodes):
            self._cluster.label(node.name, labels(number))
        for key in STACKS:
            self._stacks[key] = self._deployed(key)
        for node in self._cluster.nodes:
            accounting.limit(node.cgroup, quota(cores()), PERIOD)
        throughput, latency = self._throughput()
        return {
            **figures({"throughput": throughput}),
            "latency": {key: [run.p50 for run in runs] for key, runs in latency.items()},
            "releases": self._releases(),
        }

    def _deployed(self, key: str) -> Stack:
        placed, builder = STACKS[key], self._cluster.nodes[0]
        stack = self._session.stack({}, builder.host)
        if self._stacks:  # what the first has brought is there
            first = next(iter(self._stacks.values()))
            shutil.copy2(first.folder / "uwsgi" / "Dockerfile", stack.folder / "uwsgi" / "Dockerfile")
        else:
            bring_images(stack, builder)
        settings = {"publishAddress": EVERYWHERE, "replicas": str(REPLICAS * len(placed.app))}
        if placed.orchestrator == "swarm":
            chosen = {"swarm.nginxNodes": f"{key}-nginx=yes", "swarm.appNodes": f"{key}-app=yes"}
            settings |= {"orchestrator": "swarm", "registry": REGISTRY, **chosen}
        self._session.configure(stack, settings)
        seconds = stack.up().seconds
        self._session.say(f"across nodes: {key} is up after {seconds:.1f} s")
        return stack

    # -- throughput
    def _throughput(self) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
        throughput: defaultdict[str, list[Sample]] = defaultdict(list)
        latency: defaultdict[str, list[Sample]] = defaultdict(list)
        order = list(CONTENDERS)
        for number in range(self._plan.node_rounds + 1):
            random.shuffle(order)
            for key in order:
                if not number:  # nobody is measured cold
                    self._asked(self._urls(CONTENDERS[key]), 1)
                    continue
                throughput[key].append(self._asked(self._urls(CONTENDERS[key]), self._plan.seconds))
                if key in ALONE:
                    latency[key].append(self._asked(self._urls([ALONE[key]]), self._plan.seconds, connections=1))
                self._say(f"round {number} of {self._plan.node_rounds}: {key}", throughput[key][-1])
        return {key: throughput[key] for key in CONTENDERS}, {key: latency[key] for key in ALONE}

    def _urls(self, keys: Sequence[str]) -> list[str]:
        """One for each NGINX."""
        return [
            f"http://{self._cluster.nodes[number].address}:{self._stacks[key].port}/"
            for key in keys
            for number in STACKS[key].nginx
        ]

    def _asked(self, urls: Sequence[str], seconds: float, connections: int = CONNECTIONS) -> Sample:
        """All at once, each by a client of its own; with the seconds of CPU that each node's containers have used."""

        def ask(url: str) -> Sample:
            return load.closed_loop(url, seconds, connections=connections, threads=1)

        before = self._used()
        # Threads begin in the network of the one that starts them.
        with self._cluster.switch.network(), ThreadPoolExecutor(len(urls)) as clients:
            samples = list(clients.map(ask, urls))
        after = self._used()
        return replace(together(samples), cpu={name: after[name] - before[name] for name in after})

    def _used(self) -> dict[str, float]:
        return {node.name: accounting.of_group(node.cgroup) for node in self._cluster.nodes}

    def _say(self, what: str, sample: Sample) -> None:
        failed = f", {sample.failures} FAILED" if sample.failures else ""
        self._session.say(f"across nodes, {what}: {sample.rate:,.0f}/s, p50 {sample.p50 * 1000:.1f} ms{failed}")

    # -- releases
    def _releases(self) -> dict[str, list[dict[str, float]]]:
        """Seconds from `pulumi up` of a change, by number of replicas."""
        stack = self._stacks["three"]
        found: dict[str, list[dict[str, float]]] = {}
        said = "Hello, World!"
        for replicas in self._plan.node_replicas:
            self._session.configure(stack, {"replicas": str(replicas)})
            stack.up()
            runs = found[str(replicas)] = []
            for _ in range(self._plan.repeats):
                changed = f"Hello, release {len(runs) + 1} on {replicas}!"
                stack.edit("app/webapp.py", said, changed)
                said = changed
                runs.append(self._release(stack, changed))
                self._session.say(
                    f"across nodes, a release with {replicas} replicas: "
                    + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in runs[-1].items())
                )
        return found

    def _release(self, stack: Stack, text: str) -> dict[str, float]:
        begin, over = time.monotonic(), threading.Event()
        seen: dict[bool, list[float]] = {True: [], False: []}  # whether it was the new one → when

        def watch() -> None:
            with self._cluster.switch.network():
                while not over.is_set():
                    for node in self._cluster.nodes:
                        with suppress(urllib.error.URLError, OSError):
                            is_new = text in stack.get(host=node.address)
                            seen[is_new].append(time.monotonic() - begin)
                    time.sleep(0.02)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            up = stack.up().seconds
            deadline = time.monotonic() + LONGEST_GOODBYE
            while time.monotonic() - begin - max(seen[False], default=0) < SETTLED:
                if time.monotonic() > deadline:
                    raise RuntimeError("the release before still answers long after the `up` of another")
                time.sleep(0.1)
        finally:
            over.set()
            watcher.join()
        if not seen[True]:
            raise RuntimeError("the changed app does not answer after its `up`")
        return {"first": seen[True][0], "last": max(seen[False], default=0.0), "up": up}


def labels(number: int) -> dict[str, str]:
    """Of a node: what it is to run."""
    found: dict[str, str] = {}
    for key, placed in STACKS.items():
        roles = {"nginx": placed.nginx, "app": placed.app}
        found |= {f"{key}-{role}": "yes" for role, numbers in roles.items() if number in numbers}
    return found


def together(samples: Sequence[Sample]) -> Sample:
    """What several clients got that asked at once; of the times to answer the longest."""
    seconds = max(sample.seconds for sample in samples)
    return Sample(
        requests=sum(sample.requests for sample in samples),
        failures=sum(sample.failures for sample in samples),
        seconds=seconds,
        p50=max(sample.p50 for sample in samples),
        p99=max(sample.p99 for sample in samples),
    )
