"""Requests a second, and how long they take: every contender once a round, in an order that is drawn anew each time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from bench import accounting, load
from bench.client_network import ClientNetwork
from bench.contenders import PEERS, TITLES, Contender, Field
from bench.load import Sample
from bench.plan import Plan
from bench.session import Session
from bench.tools import Tools

OPEN_LOOP_SHARE = 0.7  # of what the slowest peer can do
# A new connection each time costs Docker's userland proxy a port for a minute, and it has some 28,000.
# docs/reliability.md, "Where a request can fail"
FRESH_SECONDS = 4.0


@dataclass(frozen=True)
class Scenario:
    """What is asked, and how.

    Attributes:
        fresh: a new connection for each request.
        namespace: by clients in a network namespace of their own.
    """

    title: str
    path: str = "/"
    fresh: bool = False
    tls: bool = False
    namespace: bool = False
    contenders: tuple[str, ...] = ("port", "host", *PEERS)


SCENARIOS = {
    "hello": Scenario("hello world", contenders=tuple(TITLES)),
    "namespace": Scenario("hello world, clients in a namespace", namespace=True),
    "wait": Scenario("an app that waits 50 ms", path="/wait", contenders=("port", "host", *PEERS, "ceiling")),
    "body": Scenario("answers of 64 KiB", path="/body", contenders=("port", "host", *PEERS, "ceiling")),
    "new": Scenario("a new connection each time", fresh=True),
    "tls": Scenario("TLS", tls=True, contenders=("port", *PEERS)),
    "new_tls": Scenario("TLS, a new connection each time", tls=True, fresh=True, contenders=("port", *PEERS)),
}
Samples = dict[str, dict[str, list[Sample]]]  # scenario → contender → one a round


class Throughput:
    """Measures with all contenders of a session."""

    def __init__(self, session: Session, contenders: Field, tools: Tools, plan: Plan) -> None:
        self._session, self._contenders, self._tools, self._plan = session, contenders, tools, plan
        self._clients: ClientNetwork | None = None

    def closed_loop(self, scenarios: Sequence[str]) -> Samples:
        """64 connections that ask again as soon as they are answered."""
        found: Samples = {name: defaultdict(list) for name in scenarios}
        for number in range(self._plan.rounds + 1):
            for name in scenarios:
                order = list(SCENARIOS[name].contenders)
                random.shuffle(order)
                for key in order:
                    if number == 0:  # nobody is measured cold
                        self._measure(name, key, 1)
                        continue
                    sample = self._measure(name, key, self._plan.seconds)
                    found[name][key].append(sample)
                    self._say(f"{name}, round {number} of {self._plan.rounds}", key, sample)
        return found

    def open_loop(self, capacity: dict[str, float]) -> dict[str, Any]:
        """The same rate for everybody, which even the slowest peer can keep: how long do answers take?"""
        slowest = min(PEERS, key=lambda key: capacity[key])
        rate = max(int(OPEN_LOOP_SHARE * capacity[slowest]), 1)
        keys = ["port", "host", *PEERS]
        found: dict[str, list[dict[str, float]]] = {key: [] for key in keys}
        for number in range(1, self._plan.rounds + 1):
            random.shuffle(keys)
            for key in keys:
                url = f"http://127.0.0.1:{self._contenders[key].port}/"
                sample = load.open_loop(self._tools.vegeta, url, rate, self._plan.seconds)
                found[key].append(sample)
                self._session.say(
                    f"open loop, round {number} of {self._plan.rounds}: {TITLES[key]}: "
                    f"p99 {sample['p99'] * 1000:.1f} ms at {sample['rate']:.0f}/s, {sample['failures']:.0f} failed"
                )
        return {"rate": rate, "slowest_peer": slowest, "samples": found}

    def _measure(self, name: str, key: str, seconds: float) -> Sample:
        scenario = SCENARIOS[name]
        contender = self._contenders.with_tls(key) if scenario.tls else self._contenders[key]
        count = partial(accounting.used, self._session.docker, contender.parts, contender.ports)
        before = count()
        sample = self._load(scenario, contender, seconds)
        after = count()
        return replace(sample, cpu={part: after[part] - before.get(part, 0) for part in after})

    def _load(self, scenario: Scenario, contender: Contender, seconds: float) -> Sample:
        if contender.sockets:
            return load.uwsgi_sockets(self._tools.load, contender.sockets, scenario.path, seconds)
        host = "127.0.0.1"
        prefix: tuple[str, ...] = ()
        if scenario.namespace:
            self._clients = self._clients or ClientNetwork(self._session)
            host, prefix = self._clients.host, self._clients.prefix
        scheme, port = ("https", contender.tls_port) if scenario.tls else ("http", contender.port)
        seconds = min(seconds, FRESH_SECONDS) if scenario.fresh else seconds
        return load.closed_loop(
            f"{scheme}://{host}:{port}{scenario.path}", seconds, fresh=scenario.fresh, prefix=prefix
        )

    def _say(self, what: str, key: str, sample: Sample) -> None:
        failed = f", {sample.failures} FAILED" if sample.failures else ""
        self._session.say(f"{what}: {TITLES[key]}: {sample.rate:,.0f}/s, p99 {sample.p99 * 1000:.1f} ms{failed}")


def figures(samples: Samples) -> dict[str, Any]:
    """All that was measured, as JSON takes it."""
    return {
        name: {key: [{**asdict(sample), "rate": sample.rate} for sample in found] for key, found in by_key.items()}
        for name, by_key in samples.items()
    }
