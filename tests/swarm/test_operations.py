"""Day two on a swarm: what `make shell` and `make orphans` find there."""

import json
import shutil
from typing import Any

import pytest
from docker.types import ConfigReference

from tests.live.stack import PROJECT, ROOT, Stack, eventually
from tests.live.test_operations import lose, make
from tests.swarm.cluster import Cluster

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def ready(stack: Stack) -> Stack:
    stack.pulumi("config", "set", "--secret", "--path", "environment.API_TOKEN", "x")
    stack.up()
    (stack.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", stack.folder / ".local")
    return stack


def test_a_shell_opens_in_a_task_of_the_manager_and_says_where_the_others_are(ready: Stack, cluster: Cluster) -> None:
    said = {f"uwsgi-{slot}": make(ready, "shell", f"uwsgi-{slot}", "--", "hostname") for slot in (1, 2, 3)}
    here = {name for name, result in said.items() if result.code == 0}
    assert here, "a task runs on the manager that is asked"
    for name, result in said.items():
        if name in here:
            assert result.output == f"{name}\n"
        else:
            assert f"{name} runs on the node node-" in result.output
            assert "docker -H ssh://node-" in result.output
    assert make(ready, "shell", "--", "hostname").output.strip() in here
    assert make(ready, "shell", f"nginx@{cluster.nodes[0].name}", "--", "true").code == 0
    assert "There is no uwsgi-9 that runs" in make(ready, "shell", "uwsgi-9").output


def test_what_a_killed_update_was_creating_is_removed_by_a_recovery(ready: Stack, cluster: Cluster) -> None:
    # Where the backend keeps it: `pulumi stack import` leaves out what is pending.
    file = ready.folder.parent / "state" / ".pulumi" / "stacks" / PROJECT / f"{ready.name}.json"
    state = json.loads(file.read_text())
    deployment, names = state["checkpoint"]["latest"], {}
    for kind in ("docker:index/service:Service", "docker:index/serviceConfig:ServiceConfig"):
        known = next(resource for resource in deployment["resources"] if resource["type"] == kind)
        names[kind] = f"{known['outputs']['name'][:-7]}0000000"
        half = {**known, "id": "", "outputs": {}, "inputs": {**known["inputs"], "name": names[kind]}}
        deployment.setdefault("pending_operations", []).append({"type": "creating", "resource": half})
    service, config = names.values()

    def create(client: Any) -> None:
        image = client.services.list()[0].attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        made = client.configs.create(name=config, data=b"x")
        reference = ConfigReference(made.id, config, filename="/x")
        client.services.create(image, ["sleep", "600"], name=service, configs=[reference])

    before = set(cluster.leftovers())
    cluster.ask(create)
    file.write_text(json.dumps(state))
    result = make(ready, "recover")
    assert result.code == 0, result.output
    removed = [line for line in result.output.splitlines() if line.startswith("removed: ")]
    said = "which the state does not know"
    assert removed == [f"removed: the service {service}, {said}", f"removed: the config {config}, {said}"]
    assert set(cluster.leftovers()) == before
    ready.preview("--expect-no-changes")


def test_a_state_that_is_lost_leaves_services_configs_and_secrets_that_are_listed_and_removed(
    ready: Stack, cluster: Cluster
) -> None:
    configuration = ready.folder / f"Pulumi.{ready.name}.yaml"
    text = configuration.read_text()
    lose(ready)
    configuration.write_text(text)  # it says where the daemon is
    listed = make(ready, "orphans").output
    for kind in ("service", "network", "config", "secret"):
        assert f"  {kind:<9}  {PROJECT}-{ready.name}-" in listed, listed
    removed = make(ready, "orphans", "--remove", "--yes")
    assert removed.code == 0, removed.output
    # A node has the network until its last task there has ended.
    eventually(lambda: ready.name not in make(ready, "orphans").output, 60, "the network is gone")
    eventually(lambda: not cluster.leftovers(), 60, "the swarm has nothing of it")
    ready.pulumi("stack", "init", ready.name)
