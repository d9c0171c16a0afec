"""A manager that is reached by ssh: `docker:host` is all that the program knows of the swarm."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.load import Load
from tests.live.sshd import Sshd
from tests.live.stack import Stack
from tests.swarm.cluster import Cluster


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """On the first manager."""
    manager = cluster.nodes[0]
    made = Sshd(tmp_path_factory.mktemp("ssh"), manager, manager.address, manager.host)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def by_ssh(stack: Stack, cluster: Cluster, ssh: Sshd) -> Iterator[Stack]:
    """The stack, up. Docker's client finds no daemon but that one; the tests stand where the nodes are reached."""
    stack.environment |= {"DOCKER_HOST": "unix:///nowhere.sock", "PATH": f"{ssh.path}:{stack.environment['PATH']}"}
    stack.configure(**{"docker:host": ssh.url})
    with cluster.switch.network():
        stack.up()
        yield stack
        stack.destroy()
    stack.configure(**{"docker:host": cluster.nodes[0].host})  # ssh does not get there from anywhere else


def test_it_is_the_managers_swarm_that_serves(by_ssh: Stack, cluster: Cluster) -> None:
    address = cluster.nodes[0].address
    assert by_ssh.outputs()["url"] == f"http://{address}:{by_ssh.port}"
    assert by_ssh.get(host=address).startswith("one ")
    for command in (by_ssh.refresh, by_ssh.preview, by_ssh.up):
        assert set(command().changes) == {"unchanged"}


def test_a_release_drops_nothing(by_ssh: Stack, cluster: Cluster) -> None:
    file = by_ssh.folder / "app" / "webapp.py"
    file.write_text(re.sub(r'RELEASE = "\w+"', 'RELEASE = "two"', Path(file).read_text()))
    nodes = tuple(node.address for node in cluster.nodes)
    with Load(by_ssh.port, hosts=nodes) as load:
        by_ssh.up()
    load.assert_nothing_was_dropped()
    assert by_ssh.get(host=nodes[0]).startswith("two ")
