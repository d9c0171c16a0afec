"""What may come between: an `up` that is killed, hands other than the program's, requests that take long."""

import os
import re
import signal
import threading
import time
import urllib.request
from collections import Counter
from itertools import count

import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import Stack, eventually
from tests.live.test_releases import release
from tests.swarm.cluster import SWITCH, Cluster

LONG = 8  # seconds that a request takes which is in flight while what serves it is replaced
DRAIN_TIMEOUT = 12  # seconds
NO_REGISTRY = f"{SWITCH}:5999"


@pytest.fixture(scope="module")
def running(stack: Stack) -> Stack:
    """Up, with an app that says which POST it executes."""
    stack.configure(drainTimeout=str(DRAIN_TIMEOUT))
    answers = "    return request.get_data()"
    stack.edit("app/webapp.py", answers, f'    print("did", request.get_data().decode(), flush=True)\n{answers}')
    stack.up()
    return stack


class Clients:
    """Clients of all nodes that send numbered POSTs, one after the other, and requests that take `LONG` seconds."""

    def __init__(self, stack: Stack, cluster: Cluster) -> None:
        self.failures: list[str] = []
        self.posted: list[str] = []
        self.long: list[str] = []
        self._sites = [f"http://{node.address}:{stack.port}" for node in cluster.nodes]
        self._numbers = count()
        self._stop = threading.Event()
        kinds = [kind for _ in self._sites for kind in (self._post, self._wait)]
        sites = [site for site in self._sites for _ in (self._post, self._wait)]
        pairs = zip(kinds, sites, strict=True)
        self._threads = [threading.Thread(target=kind, args=[site], daemon=True) for kind, site in pairs]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(3 * LONG)

    def _ask(self, url: str, data: bytes | None = None) -> str:
        try:
            with urllib.request.urlopen(url, data, timeout=3 * LONG) as response:
                return str(response.read().decode())
        except OSError as error:
            self.failures.append(f"{url} {data!r}: {error!r}")
            return ""

    def _post(self, site: str) -> None:
        while not self._stop.wait(0.02):
            number = f"post-{next(self._numbers)}"
            self.posted.append(number)
            answer = self._ask(f"{site}/echo", number.encode())
            if answer not in (number, ""):
                self.failures.append(f"{number} was answered with {answer[:80]!r}")

    def _wait(self, site: str) -> None:
        while not self._stop.is_set():
            self.long.append(self._ask(f"{site}/slow?seconds={LONG}"))


def executed(stack: Stack, cluster: Cluster) -> Counter[str]:
    """How often each POST was, as the replicas say that are there and those that are gone."""
    label = f"com.docker.swarm.service.name={stack.outputs()['app']}"
    containers = [
        container
        for node in cluster.nodes
        for container in node.docker.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    ]
    return Counter(re.findall(r"did (post-\d+)", "".join(found.logs().decode() for found in containers)))


def test_each_post_is_executed_once_and_what_takes_long_is_answered(
    running: Stack, cluster: Cluster, record: Record
) -> None:
    """A new release on a swarm, under POSTs and requests of eight seconds."""
    with cluster.switch.network(), Clients(running, cluster) as clients, Load(running.port, _hosts(cluster)) as load:
        release(running, "two")
        running.up()
    record("swarm: a new release, requests of 8 s in flight", load, f"{len(clients.long)} of them")
    load.assert_nothing_was_dropped()
    assert not clients.failures
    assert len(clients.long) >= 6
    assert len(clients.posted) >= 100
    done = executed(running, cluster)
    assert [number for number in clients.posted if done[number] != 1] == []


def test_an_update_that_is_killed_is_completed_by_the_next_one(
    running: Stack, cluster: Cluster, record: Record
) -> None:
    """SIGKILL to `pulumi up` in the middle of a rollout on a swarm, `pulumi cancel` and `pulumi up`."""

    def is_updated() -> bool:
        found = cluster.ask(lambda client: client.api.inspect_service(running.outputs()["app"]))
        return (found.get("UpdateStatus") or {}).get("State") == "updating"

    with cluster.switch.network(), Load(running.port, _hosts(cluster)) as load:
        release(running, "three")
        killed = running.start("up", "--yes", "--skip-preview")
        eventually(is_updated, 30, "the swarm replaces replicas")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        running.pulumi("cancel", "--yes")
        running.up()
    record("swarm: `up` killed in a rollout, and again", load)
    load.assert_nothing_was_dropped()
    assert running.up("--refresh").changes.keys() == {"unchanged"}
    with cluster.switch.network():
        assert running.get(host=cluster.nodes[1].address).startswith("three ")


def test_what_was_changed_by_hand_is_put_right(running: Stack, cluster: Cluster, record: Record) -> None:
    """`docker service scale` by hand, then `pulumi up --refresh`."""

    def scale(client: object) -> None:
        client.services.get(running.outputs()["app"]).scale(5)  # type: ignore[attr-defined]

    with cluster.switch.network(), Load(running.port, _hosts(cluster)) as load:
        cluster.ask(scale)
        running.up("--refresh")
    record("swarm: scaled by hand, put right", load)
    load.assert_nothing_was_dropped()
    eventually(lambda: sum(cluster.running(running.outputs()["app"]).values()) == 3, 60, "three replicas are left")


def test_a_registry_that_does_not_answer_changes_nothing(running: Stack, cluster: Cluster) -> None:
    before = cluster.ask(lambda client: client.api.services())
    running.configure(registry=NO_REGISTRY)
    release(running, "four")
    refused = running.up(check=False)
    assert refused.code
    assert f"Pushing {NO_REGISTRY}/{running.name}/app" in refused.output
    assert "connection refused" in refused.output
    after = cluster.ask(lambda client: client.api.services())
    assert [found["Version"] for found in after] == [found["Version"] for found in before]


def _hosts(cluster: Cluster) -> tuple[str, ...]:
    return tuple(node.address for node in cluster.nodes)
