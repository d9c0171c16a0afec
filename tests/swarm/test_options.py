"""What a stack on a swarm can be set to: a registry that asks who comes, labelled nodes, HTTPS, sticky clients."""

import re
import ssl
import urllib.error
import urllib.request

import pytest

from tests.live.stack import Stack
from tests.swarm.cluster import GUARDED_REGISTRY, PASSWORD, USERNAME, Cluster
from tests.unit.certificates import Issued

HTTPS_PORT = 8443  # on each node: they have networks of their own
HOST = "shop.example"


@pytest.fixture(scope="module")
def certificate(stack: Stack, cluster: Cluster) -> Issued:
    """The stack is up with all of it, at once: an `up` takes half a minute."""
    issued = Issued.make(HOST, *(node.address for node in cluster.nodes))
    for number, label in enumerate(("edge", "edge", "inside")):
        cluster.label(f"node-{number}", {"role": label})
    login = {"address": GUARDED_REGISTRY, "username": USERNAME, "password": PASSWORD}
    settings = [f"--secret=docker:registryAuth[0].{key}={value}" for key, value in login.items()]
    settings += ["--plaintext=swarm.nginxNodes=role=edge", "--plaintext=swarm.appNodes=role=inside"]
    settings += ["--plaintext=balancing.method=sticky"]
    settings += [f"--plaintext=tls.port={HTTPS_PORT}", f"--plaintext=tls.certificate={issued.pem}"]
    settings += [f"--secret=tls.key={issued.key}"]
    stack.pulumi("config", "set-all", "--path", *settings)
    stack.configure(registry=GUARDED_REGISTRY)
    stack.up()
    return issued


def test_nodes_pull_from_a_registry_that_asks_who_comes(stack: Stack, certificate: Issued) -> None:
    assert stack.outputs()["image"].startswith(f"{GUARDED_REGISTRY}/")
    assert PASSWORD not in stack.pulumi("stack", "export").output


def test_labels_say_who_runs_what(stack: Stack, cluster: Cluster, certificate: Issued) -> None:
    outputs = stack.outputs()
    assert cluster.running(outputs["nginx"]) == {"node-0": 1, "node-1": 1}
    assert cluster.running(outputs["app"]) == {"node-2": 3}


def test_each_node_answers_by_https_and_leads_there(stack: Stack, cluster: Cluster, certificate: Issued) -> None:
    trusts = ssl.create_default_context(cadata=certificate.pem)
    with cluster.switch.network():
        for node in cluster.nodes[:2]:
            with urllib.request.urlopen(f"https://{node.address}:{HTTPS_PORT}/", context=trusts) as response:
                assert response.read().decode().startswith("one uwsgi-")
            with pytest.raises(urllib.error.HTTPError, match="308") as redirected:
                urllib.request.urlopen(urllib.request.Request(f"http://{node.address}:{stack.port}/x", method="PUT"))
            assert redirected.value.headers["Location"] == f"https://{node.address}:{HTTPS_PORT}/x"
            redirected.value.close()
        with pytest.raises(OSError, match="refused"):
            stack.get(host=cluster.nodes[2].address)


def test_a_client_stays_with_its_replica(cluster: Cluster, certificate: Issued) -> None:
    trusts = ssl.create_default_context(cadata=certificate.pem)
    url = f"https://{cluster.nodes[0].address}:{HTTPS_PORT}/"

    def ask(cookie: str = "") -> tuple[str, str]:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie}), context=trusts) as got:
            found = re.match(r"uwsgi_replica=\w+", got.headers["Set-Cookie"] or "")
            return got.read().decode(), found[0] if found else ""

    with cluster.switch.network():
        clients = [ask() for _ in range(3)]
        assert len({replica for replica, _ in clients}) == 3
        for replica, cookie in clients:
            assert {ask(cookie)[0] for _ in range(6)} == {replica}
