"""The stack on a swarm of three nodes, each with a network of its own.

The tests of this module build on each other's state, as those of tests/live do.
"""

import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import ROOT, Stack, eventually
from tests.live.test_operations import make
from tests.live.test_releases import release
from tests.swarm.cluster import HEAL_TIMEOUT, Cluster

NODES = {"node-0", "node-1", "node-2"}
OF_THE_PROGRAM, ANOTHER, THIRD = range(3)  # nodes


def tasks(cluster: Cluster, service: str) -> set[str]:
    """Those that are to run."""
    filters = {"service": service, "desired-state": "running"}
    return cluster.ask(lambda client: {task["ID"] for task in client.api.tasks(filters=filters)})


def app(stack: Stack) -> str:
    return str(stack.outputs()["app"])


def spread(stack: Stack, cluster: Cluster) -> int:
    """Two replicas to a node; how many these are.

    Swarm moves nothing back to a node that was away, and a release puts each new replica where the fewest are *at that
    moment*, old ones among them: it may leave a node empty. More replicas go to where fewer are, and what is taken away
    is taken from where the most are.
    """
    for replicas in (4 * len(NODES), 2 * len(NODES)):
        stack.configure(replicas=str(replicas))
        stack.up()
    eventually(lambda: cluster.running(app(stack)) == dict.fromkeys(NODES, 2), 60, "two replicas run on each node")
    return replicas


@contextmanager
def load_on(cluster: Cluster, stack: Stack, *nodes: int) -> Iterator[Load]:
    """Clients that know one address, or several."""
    hosts = tuple(cluster.nodes[node].address for node in nodes)
    with cluster.switch.network(), Load(stack.port, hosts=hosts) as load:
        yield load


def answers(stack: Stack, cluster: Cluster, node: int, path: str = "/") -> str:
    with cluster.switch.network():
        return stack.get(path, host=cluster.nodes[node].address)


def test_replicas_are_spread_and_each_node_answers(stack: Stack, cluster: Cluster) -> None:
    stack.up()
    outputs = stack.outputs()
    assert cluster.running(outputs["app"]) == dict.fromkeys(NODES, 1)
    assert cluster.running(outputs["nginx"]) == dict.fromkeys(NODES, 1)
    assert outputs["replicas"] == 3
    assert "@sha256:" in outputs["image"]
    for node in range(3):
        heard = {answers(stack, cluster, node) for _ in range(12)}
        assert heard == {"one uwsgi-1", "one uwsgi-2", "one uwsgi-3"}


def test_what_stands_is_what_the_program_says(stack: Stack) -> None:
    assert stack.up().changes.keys() == {"unchanged"}
    assert stack.refresh().changes.keys() == {"unchanged"}
    assert stack.preview("--expect-no-changes").code == 0


def test_what_somebody_changed_by_hand_is_put_right_and_waited_for(stack: Stack, cluster: Cluster) -> None:
    nginx = stack.outputs()["nginx"]
    cluster.ask(lambda client: client.services.get(nginx).force_update())
    changes = stack.up("--refresh").changes
    assert changes["update"] == 2, "the service and the release"
    for node in range(3):
        assert answers(stack, cluster, node)
    assert stack.up("--refresh").changes.keys() == {"unchanged"}


def test_a_new_release_drops_nothing(stack: Stack, cluster: Cluster, record: Record) -> None:
    """Changes the app's source and runs `pulumi up` on a swarm of three nodes, under load on one of them."""
    nginx = tasks(cluster, stack.outputs()["nginx"])
    with load_on(cluster, stack, ANOTHER) as load:
        release(stack, "two")
        stack.up()
    record("swarm: a new release", load)
    load.assert_nothing_was_dropped()
    assert {body.split()[0] for body in load.bodies} == {"one", "two"}
    assert tasks(cluster, stack.outputs()["nginx"]) == nginx, "no NGINX was replaced"


def test_a_release_that_cannot_start_is_rolled_back_and_says_why(
    stack: Stack, cluster: Cluster, record: Record
) -> None:
    """An app that cannot be imported, on a swarm, twice."""
    stack.configure(importCheck="false")
    release(stack, "broken")
    with load_on(cluster, stack, ANOTHER) as load:
        stack.edit("app/webapp.py", "import os\n", "import os, nothing_of_that_name\n")
        first, again = stack.up(check=False), stack.up(check=False)
    record("swarm: an app that cannot start, twice", load)
    load.assert_nothing_was_dropped()
    for result in (first, again):
        assert result.code
        assert "service rollback completed" in result.output
        assert "No module named 'nothing_of_that_name'" in result.output
    assert {body.split()[0] for body in load.bodies} == {"two"}
    stack.edit("app/webapp.py", "import os, nothing_of_that_name\n", "import os\n")


def test_a_release_that_is_not_well_gets_no_request(stack: Stack, cluster: Cluster, record: Record) -> None:
    """An app whose health path answers 500, on a swarm; mended, it goes live."""
    stack.configure(healthTimeout="5")
    release(stack, "sick")
    stack.edit("app/webapp.py", "WELL = True", "WELL = False")
    with load_on(cluster, stack, ANOTHER) as load:
        sick = stack.up(check=False)
    record("swarm: an app that is not well", load)
    load.assert_nothing_was_dropped()
    assert sick.code
    assert "was not healthy, and was stopped" in sick.output
    assert {body.split()[0] for body in load.bodies} == {"two"}
    stack.edit("app/webapp.py", "WELL = False", "WELL = True")
    release(stack, "three")
    assert stack.up().changes["update"] == 4  # image, service, rollout, release
    assert answers(stack, cluster, ANOTHER).split()[0] == "three"


def test_an_image_of_before_is_gone_back_to(stack: Stack, cluster: Cluster, record: Record) -> None:
    """`make rollback` on a swarm, and again to the newer image."""
    first = answers(stack, cluster, THIRD).split()[0]
    images = {first: stack.outputs()["image"]}
    release(stack, "four")
    stack.up()
    images["four"] = stack.outputs()["image"]
    assert answers(stack, cluster, THIRD).split()[0] == "four"
    (stack.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", stack.folder / ".local")
    with load_on(cluster, stack, ANOTHER) as load:
        for name in (first, "four"):
            assert stack.outputs()["previousImage"] == images[name]
            result = make(stack, "rollback")
            assert result.code == 0, result.output
            assert answers(stack, cluster, THIRD).split()[0] == name
            assert stack.outputs()["image"] == images[name]
    record("swarm: make rollback, twice", load)
    load.assert_nothing_was_dropped()
    stack.configure(appImage="")
    stack.up()


def test_scaling_drops_nothing_and_starts_only_what_is_new(stack: Stack, cluster: Cluster, record: Record) -> None:
    """Sets `replicas` to 2, 12 and 6 on a swarm."""
    with load_on(cluster, stack, ANOTHER) as load:
        stack.configure(replicas="2")
        stack.up()
        before = tasks(cluster, app(stack))
        stack.configure(replicas="12")
        stack.up()
        after = tasks(cluster, app(stack))
        stack.configure(replicas="6")
        stack.up()
    record("swarm: scaling 3 → 2 → 12 → 6", load)
    load.assert_nothing_was_dropped()
    assert before < after
    assert len(after) == 12
    eventually(lambda: sum(cluster.running(app(stack)).values()) == 6, 60, "six replicas are left")


def test_secrets_are_secrets_of_the_swarm(stack: Stack, cluster: Cluster) -> None:
    """Passwords and the app's environment arrive, and nobody who may look at the swarm's services sees them."""
    stack.pulumi("config", "set", "--secret", "--path", "environment.TOKEN", "swordfish-4711")
    stack.pulumi("config", "set", "--secret", "--path", "basicAuth.users.ann", "marmalade-4711")
    stack.pulumi("config", "set", "--path", 'paths["/headers"].auth', "basic")
    stack.edit("app/webapp.py", "return request.get_data()", 'return os.environ["TOKEN"].encode()')
    stack.up()
    with cluster.switch.network():
        host = cluster.nodes[THIRD].address
        assert stack.status("/headers", host=host) == 401
        assert "ann" in stack.get("/headers", {"Authorization": "Basic YW5uOm1hcm1hbGFkZS00NzEx"}, host)
        request = urllib.request.Request(f"http://{host}:{stack.port}/echo", data=b"x", method="POST")
        with urllib.request.urlopen(request) as response:
            assert response.read() == b"swordfish-4711"
    seen = cluster.ask(lambda client: repr([client.api.services(), client.api.configs(), client.api.secrets()]))
    assert "uwsgi-nginx.stack" in seen
    assert "swordfish" not in seen
    assert "marmalade" not in seen


def test_a_configuration_that_nginx_rejects_changes_no_node(stack: Stack, cluster: Cluster) -> None:
    before = tasks(cluster, stack.outputs()["nginx"])
    stack.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens perhaps;")
    rejected = stack.up(check=False)
    stack.edit("nginx/nginx.conf.j2", "server_tokens perhaps;", "server_tokens off;")
    assert rejected.code
    assert 'invalid value "perhaps"' in rejected.output
    assert tasks(cluster, stack.outputs()["nginx"]) == before
    stack.up()


def test_a_new_configuration_costs_each_node_a_pause(stack: Stack, cluster: Cluster, record: Record) -> None:
    """Changes a setting of NGINX's, which is replaced node by node. Who knows the three addresses goes to another when
    one refuses; who knows one waits."""
    before = tasks(cluster, stack.outputs()["nginx"])
    with ExitStack() as loads:
        site = loads.enter_context(load_on(cluster, stack, *range(3)))
        single = [loads.enter_context(load_on(cluster, stack, node)) for node in range(3)]
        stack.configure(securityHeaders="true")
        assert stack.up().changes["replace"] == 1  # nginx.conf
    refused = [load.gap for load in single]
    record("swarm: a new configuration", site, f"each node refuses for {max(refused):.1f} s at most")
    # Who is just connecting when a node ceases to listen is reset: the kernel has taken a connection that nobody takes.
    assert all("ConnectionReset" in failure for failure in site.failures), site.failures[:5]
    assert len(site.failures) <= len(NODES), site.failures
    assert site.sent >= 500, site.figures
    for load in single:
        told = [failure for failure in load.failures if "ConnectionRefused" not in failure]
        assert all("ConnectionReset" in failure for failure in told), told[:5]
        assert len(told) <= len(NODES), told
    assert not before & tasks(cluster, stack.outputs()["nginx"])


def test_a_node_that_is_drained_drops_nothing(stack: Stack, cluster: Cluster, record: Record) -> None:
    """Drains one of three nodes, under load on another."""
    with load_on(cluster, stack, ANOTHER) as load:
        cluster.drain("node-2")
        cluster.until_healed(app(stack), 6)
        eventually(lambda: "node-2" not in cluster.running(app(stack)), 60, "node-2 has no replica")
    record("swarm: a node drained", load)
    load.assert_nothing_was_dropped()
    cluster.drain("node-2", "active")
    eventually(lambda: "node-2" in cluster.running(stack.outputs()["nginx"]), 60, "node-2 has NGINX again")


@pytest.mark.parametrize(
    ("fault", "which"),
    [("a node killed", THIRD), ("the manager that the program asks killed", OF_THE_PROGRAM)],
)
def test_a_node_that_is_gone_is_healed(stack: Stack, cluster: Cluster, record: Record, fault: str, which: int) -> None:
    """One of three nodes goes, with all that runs there, under load on another: what it had in hand is lost."""
    victim, service = cluster.nodes[which], app(stack)
    replicas = spread(stack, cluster)
    try:
        with load_on(cluster, stack, ANOTHER) as load:
            victim.power_off()
            seconds = cluster.until_healed(service, replicas, without=victim.name)
    finally:
        victim.start()
    record(f"swarm: {fault}", load, f"healed in {seconds:.0f} s")
    assert load.sent >= 500, load.figures
    assert len(load.failures) <= load.sent / 100, load.failures[:20]
    eventually(cluster.is_whole, HEAL_TIMEOUT, f"{victim.name} is back")
    eventually(lambda: {*cluster.running(stack.outputs()["nginx"])} == NODES, 60, "all nodes have NGINX")
    # Docker may forget what it had there when it was cut off, and leave it, stopped: docs/scaling.md says so.
    for container in victim.docker.containers.list(all=True, sparse=True, filters={"status": "exited"}):
        container.remove(v=True)


def test_the_mesh_works_or_says_why_not(stack: Stack, cluster: Cluster) -> None:
    """Where the kernel has no IPVS nothing answers; `up` says so, and `host` is there as before after the next one."""
    stack.configure(port=str(stack.port + 1))
    stack.pulumi("config", "set", "--path", "swarm.publish", "mesh")
    begin = time.monotonic()
    meshed = stack.up(check=False)
    assert time.monotonic() - begin < 120
    if meshed.code:
        assert "takes IPVS in the kernel" in meshed.output
    else:
        stack.port += 1
        assert answers(stack, cluster, THIRD)
        stack.port -= 1
    stack.pulumi("config", "rm", "--path", "swarm")
    stack.configure(port=str(stack.port))
    stack.up()
    assert answers(stack, cluster, THIRD)


def test_a_port_that_a_node_uses_otherwise_is_named(stack: Stack, cluster: Cluster) -> None:
    """As the stack's own NGINX does that was there before the move from `containers`."""
    holder = stack.docker.containers.run(
        stack.outputs()["image"], entrypoint=["sleep", "600"], ports={"8080/tcp": 8081}, detach=True
    )
    try:
        stack.configure(port="8081")
        refused = stack.up(check=False)
        assert refused.code
        assert "NGINX on node-0 failed: " in refused.output
        assert "port is already allocated" in refused.output
        assert "Is it this very stack that has the port there" in refused.output
    finally:
        holder.remove(force=True)
    stack.configure(port=str(stack.port))
    stack.up()


def test_a_preview_shows_the_move_between_containers_and_swarm(stack: Stack) -> None:
    stack.configure(orchestrator="", publishAddress="")
    shown = stack.preview().output
    assert "docker:index:Service app delete" in " ".join(shown.split())
    assert "docker:index:Container uwsgi-1 create" in " ".join(shown.split())
    stack.configure(orchestrator="swarm", publishAddress="0.0.0.0")
    assert stack.preview("--expect-no-changes").code == 0


def test_destroy_leaves_nothing(stack: Stack, cluster: Cluster) -> None:
    stack.destroy()
    assert cluster.leftovers() == []
    for node in cluster.nodes:
        # The plugin waits for those on the manager's node alone.
        eventually(
            lambda node=node: not node.docker.containers.list(all=True, sparse=True),
            60,
            f"{node.name} has no container left",
        )
        volumes = node.docker.volumes.list()
        assert not volumes, f"{node.name}: {volumes}"
    with cluster.switch.network(), pytest.raises(OSError, match="refused"):
        stack.get(host=cluster.nodes[THIRD].address)
