"""`make doctor` of a stack on a swarm: all is well; then a node is gone, and the daemon is no manager's."""

import json
import shutil

import pytest

from tests.live.stack import ROOT, Stack, eventually
from tests.live.test_operations import make
from tests.swarm.cluster import HEAL_TIMEOUT, REGISTRY, Cluster


@pytest.fixture(scope="module")
def ready(stack: Stack) -> Stack:
    stack.up()
    (stack.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", stack.folder / ".local")
    shutil.copy2(ROOT / "requirements.txt", stack.folder)
    return stack


def doctor(stack: Stack, cluster: Cluster) -> dict[str, str]:
    """Status and text of each finding, asked from where the registry is reached."""
    with cluster.switch.network():
        result = make(stack, "doctor", "--json")
    found = {finding["check"]: f"{finding['status']} {finding['facts']}" for finding in json.loads(result.output)}
    assert result.code == int(any(text.startswith("FAIL") for text in found.values()))
    return found


def test_of_a_swarm_that_is_whole_all_is_well(ready: Stack, cluster: Cluster) -> None:
    found = doctor(ready, cluster)
    assert {text.split()[0] for text in found.values()} <= {"ok", "-"}, found
    assert found["swarm"] == "ok 3 nodes, 3 of 3 managers reachable"
    assert found["registry"] == f"ok {REGISTRY} answers"
    assert f"ok {ready.port} is this stack's: " in found["port"]
    assert f"{ready.outputs()['app']} 3/3" in found["containers"]


def test_a_node_without_power_is_named_and_what_it_ran_counts_as_missing(ready: Stack, cluster: Cluster) -> None:
    gone = cluster.nodes[2]
    gone.power_off()
    try:
        eventually(lambda: "gone: node-2 (Down)" in doctor(ready, cluster)["swarm"], HEAL_TIMEOUT, "node-2 is missed")
        assert doctor(ready, cluster)["swarm"].startswith("warn 3 nodes, 2 of 3 managers reachable")
    finally:
        gone.start()
    eventually(cluster.is_whole, HEAL_TIMEOUT, "node-2 is back")


def test_a_daemon_that_is_in_no_swarm_does_not_do(ready: Stack, cluster: Cluster) -> None:
    file = ready.folder / f"Pulumi.{ready.name}.yaml"
    before = file.read_text()
    ready.configure(**{"docker:host": ""})
    try:
        assert "is in no swarm (inactive)" in doctor(ready, cluster)["swarm"]
    finally:
        file.write_text(before)
