"""The cluster that the swarm's tests run on, without the program."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from tests.live.load import Load
from tests.live.own_daemon import PATH
from tests.live.stack import ROOT, eventually
from tests.swarm.cluster import GUARDED_REGISTRY, HEAL_TIMEOUT, PASSWORD, REGISTRY, USERNAME, Cluster
from tooling import base_images, stack

pytestmark = pytest.mark.live

PORT = 8000
SERVE = """\
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(socket.gethostname().encode())
    def log_message(self, *_):
        pass

ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
ASK_ALL = """\
import socket, urllib.request
for *_, (address, _) in sorted(socket.getaddrinfo("peers", 8000, type=socket.SOCK_STREAM)):
    print(urllib.request.urlopen(f"http://{address}:8000", timeout=5).read().decode())
"""


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    """The base image of the app, by digest; only the first node has it, and the registry."""
    key = "pythonImage"
    python = base_images.settings(ROOT).get(key) or base_images.wanted(ROOT, stack.DEV)[key].default
    cluster.nodes[0].load([python])
    with closing(cluster.nodes[0].docker) as client:
        client.images.get(python).tag(f"{REGISTRY}/python")
        client.images.push(f"{REGISTRY}/python")
        return str(client.images.get(python).attrs["RepoDigests"][0])


@pytest.fixture(scope="module")
def peers(cluster: Cluster, image: str) -> Iterator[str]:
    """A service with a task and a published port on each node, on a network of its own."""

    def create(client: Any) -> tuple[Any, Any]:
        network = client.networks.create("peers", driver="overlay", scope="swarm")
        service = client.services.create(
            image,
            ["python", "-c", SERVE],
            name="peers",
            hostname="{{.Node.Hostname}}",
            mode="global",
            networks=[{"Target": network.id, "Aliases": ["peers"]}],
            endpoint_spec={
                "Mode": "dnsrr",
                "Ports": [{"TargetPort": PORT, "PublishedPort": PORT, "PublishMode": "host"}],
            },
            stop_signal="SIGKILL",
        )
        return network, service

    with closing(cluster.nodes[0].docker) as client:
        network, service = create(client)
        cluster.until_healed("peers", len(cluster.nodes))
        yield "peers"
        service.remove()
        eventually(
            lambda: service.id not in {task["ServiceID"] for task in client.api.tasks()}, 30, "its tasks are gone"
        )
        network.remove()
    assert not cluster.leftovers()


def test_every_node_pulls_what_one_has_pushed_by_digest(cluster: Cluster, image: str, peers: str) -> None:
    assert cluster.running(peers) == {"node-0": 1, "node-1": 1, "node-2": 1}
    for node in cluster.nodes:
        with closing(node.docker) as client:
            assert image in client.images.get(image).attrs["RepoDigests"]


def test_a_guarded_registry_takes_those_who_log_in(cluster: Cluster, image: str) -> None:
    name, login = f"{GUARDED_REGISTRY}/python", {"username": USERNAME, "password": PASSWORD}
    with closing(cluster.nodes[0].docker) as client:
        client.images.get(image).tag(name)
        assert "no basic auth credentials" in client.images.push(name)
        assert "digest: sha256:" in client.images.push(name, auth_config=login)
    with closing(cluster.nodes[1].docker) as client:
        with pytest.raises(APIError, match="no basic auth credentials"):
            client.images.pull(name)
        assert client.images.pull(name, auth_config=login).id


def test_tasks_reach_each_other_across_nodes(cluster: Cluster, peers: str) -> None:
    assert all_reach_all(cluster, peers)


def all_reach_all(cluster: Cluster, service: str) -> bool:
    """Whether the task of each node gets an answer from those of all; what is said to run is not asked."""
    for node in cluster.nodes:
        with closing(node.docker) as client:
            containers = client.containers.list(filters={"name": service}, sparse=True)
            said = "".join(c.exec_run(["python", "-c", ASK_ALL]).output.decode() for c in containers)
        if sorted(said.split()) != ["node-0", "node-1", "node-2"]:
            print(f"{node.name}: {said}")
            return False
    return True


def test_clients_reach_every_node_and_do_without_one_that_refuses(cluster: Cluster, peers: str) -> None:
    hosts = tuple(node.address for node in cluster.nodes)
    with cluster.switch.network(), Load(PORT, hosts, slow=0) as load:
        pass
    load.assert_nothing_was_dropped(100)
    assert set(load.bodies) == {"node-0", "node-1", "node-2"}
    cluster.drain("node-2")
    with cluster.switch.network():
        eventually(lambda: refuses(hosts[2]), 30, "the node is empty")
    with cluster.switch.network(), Load(PORT, hosts, slow=0) as load:
        pass
    load.assert_nothing_was_dropped(100)
    assert set(load.bodies) == {"node-0", "node-1"}
    cluster.drain("node-2", "active")
    cluster.until_healed(peers, 3)


def test_a_service_follows_labels(cluster: Cluster, image: str) -> None:
    cluster.label("node-1", {"edge": "true"})
    with closing(cluster.nodes[0].docker) as client:
        service = client.services.create(
            image,
            ["sleep", "infinity"],
            name="labelled",
            mode="global",
            constraints=["node.labels.edge == true"],
            init=True,
        )
        cluster.until_healed("labelled", 1)
        assert cluster.running("labelled") == {"node-1": 1}
        service.remove()
    cluster.label("node-1", {})


def test_a_node_without_power_is_missed_and_comes_back(cluster: Cluster, peers: str) -> None:
    node = cluster.nodes[0]  # which may lead
    node.power_off()
    cluster.until_healed(peers, 2, without=node.name)
    node.start()
    eventually(lambda: all_reach_all(cluster, peers), HEAL_TIMEOUT, f"{node.name} takes part again")


def test_nothing_is_left_of_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("gone")  # short: it is part of the name of a socket
    with Cluster(folder, size=2, managers=1) as cluster:
        words = [str(folder), *(node.cgroup for node in cluster.nodes)]
        assert traces(words)
    assert traces(words) == []


def traces(words: list[str]) -> list[str]:
    """Processes, mounts and control groups that have one of the words in them."""
    ps = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True, env={"PATH": PATH}).stdout
    groups = [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    lines = [*ps.splitlines(), *Path("/proc/self/mounts").read_text().splitlines(), *groups]
    return [line for line in lines if any(word in line for word in words)]


def refuses(address: str) -> bool:
    try:
        socket.create_connection((address, PORT), 5).close()
    except ConnectionRefusedError:
        return True
    return False
