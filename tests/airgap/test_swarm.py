"""Services of a swarm, and the configs, secrets and networks that they use."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.proto import status_pb2

from airgap.docker_provider import service, service_spec
from airgap.docker_provider.properties import bare, decode, encode
from airgap.docker_provider.server import DockerProvider
from tests.airgap.conftest import configuration, serving
from tests.airgap.fake_swarm import DIGEST, FakeSwarm, task
from tests.airgap.test_docker_provider import check, create, delete, refused, urn

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
IMAGE = f"registry:5000/app@{DIGEST}"
SERVICE: dict[str, Any] = {
    "taskSpec": {
        "containerSpec": {
            "image": IMAGE,
            "env": {"B": "2", "A": "1=1"},
            "mounts": [
                {"type": "tmpfs", "target": "/tmp", "tmpfsOptions": {"sizeBytes": 16777216, "mode": 0o777}},
            ],
            "configs": [{"configId": "cfg1", "configName": "nginx", "fileName": "/etc/nginx/nginx.conf"}],
            "secrets": [{"secretId": "sec1", "secretName": "key", "fileName": "key.pem", "fileMode": 0o400}],
            "healthcheck": {"tests": ["CMD", "healthcheck"], "interval": "2s", "timeout": "5s", "retries": 6},
            "stopSignal": "SIGTERM",
            "stopGracePeriod": "1m10s",
            "capDrops": ["ALL"],
            "readOnly": True,
        },
        "resources": {"limits": {"memoryBytes": 268435456}, "reservation": {"memoryBytes": 268435456}},
        "restartPolicy": {"condition": "any", "delay": "1s", "window": "0s"},
        "placement": {"prefs": ["spread=node.id"], "platforms": [{"architecture": "amd64", "os": "linux"}]},
        "networksAdvanceds": [{"id": "net0"}],
        "logDriver": {"name": "json-file", "options": {"max-size": "10m"}},
    },
    "mode": {"replicated": {"replicas": 2}},
    "updateConfig": {"order": "start-first", "failureAction": "rollback", "monitor": "10s"},
    "rollbackConfig": {"order": "start-first"},
    "convergeConfig": {"delay": "0s", "timeout": "0s"},
    "endpointSpec": {"mode": "dnsrr"},
}


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[FakeSwarm]:
    """A manager that keeps what it is told in memory."""
    with FakeSwarm(tmp_path / "docker.sock") as manager:
        yield manager


@pytest.fixture
def provider(swarm: FakeSwarm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a plugin that uses that manager."""
    monkeypatch.setattr(service, "UPDATE_DELAY", 0.0)
    servicer = DockerProvider(None)
    with serving(servicer) as client:
        client.Configure(configuration(host=swarm.host))
        yield client
        servicer.close()


def changed(inputs: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The inputs with another value at that path; None takes the key out."""
    key, _, rest = path.partition(".")
    new = changed(inputs.get(key, {}), rest, value) if rest else value
    return {name: item for name, item in {**inputs, key: new}.items() if item is not None}


def update(provider: Any, object_id: str, state: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    old, new = (check(provider, "Service", {**given, "name": state["name"]}).inputs for given in (SERVICE, inputs))
    request = pb.UpdateRequest(urn=urn("Service"), id=object_id, olds=encode(state), old_inputs=old, news=new)
    return decode(provider.Update(request).properties)


def diff(stub: Any, inputs: dict[str, Any], old: dict[str, Any] = SERVICE) -> Any:
    before, after = (check(stub, "Service", {**given, "name": "app"}).inputs for given in (old, inputs))
    return stub.Diff(pb.DiffRequest(urn=urn("Service"), id="svc1", olds=before, old_inputs=before, news=after))


def kinds(response: Any) -> dict[str, str]:
    return {path: pb.PropertyDiff.Kind.Name(change.kind) for path, change in response.detailedDiff.items()}


# Inputs


def test_defaults_are_those_of_the_official_plugin_at_every_depth(stub: Any) -> None:
    inputs = decode(check(stub, "Service", {**SERVICE, "name": "app", "convergeConfig": {}}).inputs)
    container = inputs["taskSpec"]["containerSpec"]
    assert inputs["convergeConfig"] == {"delay": "7s", "timeout": "3m", "__defaults": ["delay", "timeout"]}
    assert bare(inputs["rollbackConfig"]) == {
        "delay": "0s",
        "failureAction": "pause",
        "maxFailureRatio": "0.0",
        "monitor": "5s",
        "order": "start-first",
        "parallelism": 1,
    }
    assert (container["isolation"], container["__defaults"]) == ("default", ["isolation"])
    assert bare(container["configs"][0])["fileMode"] == 0o444
    assert container["healthcheck"]["startPeriod"] == "0s"
    assert "global" not in inputs["mode"]


@pytest.mark.parametrize(
    ("path", "value", "failing"),
    [
        ("taskSpec.containerSpec.ulimits", [], "taskSpec.containerSpec.ulimits"),
        ("taskSpec.networksAdvanceds", [{"name": "net"}], "taskSpec.networksAdvanceds[0].name"),
        ("taskSpec.containerSpec.privileges", {}, "taskSpec.containerSpec.privileges"),
        ("taskSpec.containerSpec.image", None, "taskSpec.containerSpec.image"),
        ("taskSpec.containerSpec.stopGracePeriod", "a minute", "taskSpec.containerSpec.stopGracePeriod"),
        ("updateConfig.failureAction", "give up", "updateConfig.failureAction"),
        ("rollbackConfig.failureAction", "rollback", "rollbackConfig.failureAction"),
        ("updateConfig.maxFailureRatio", "2", "updateConfig.maxFailureRatio"),
        ("endpointSpec.mode", "mesh", "endpointSpec.mode"),
        ("mode", {"global": True}, "convergeConfig"),
    ],
)
def test_what_is_not_covered_or_not_accepted_is_refused_by_name(stub: Any, path: str, value: Any, failing: str) -> None:
    failures = check(stub, "Service", changed(SERVICE, path, value)).failures
    assert [failure.property for failure in failures] == [failing]


def test_a_config_has_its_data_in_one_form(stub: Any) -> None:
    for inputs in ({}, {"data": "", "dataRaw": ""}):
        assert "exactly one of data and dataRaw" in check(stub, "ServiceConfig", inputs).failures[0].reason


@pytest.mark.parametrize("kind", ["ServiceConfig", "Secret"])
def test_data_that_is_no_base64_is_refused_without_repeating_it(stub: Any, kind: str) -> None:
    [failure] = check(stub, kind, {"data": "se-cret!"}).failures
    assert "not base64" in failure.reason
    assert "se-cret" not in failure.reason


# Changes


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        ("taskSpec.containerSpec.image", "a@sha256:1", {"taskSpec.containerSpec.image": "UPDATE"}),
        ("taskSpec.containerSpec.image", UNKNOWN, {"taskSpec.containerSpec.image": "UPDATE"}),
        ("taskSpec.containerSpec.env", {"A": "1=1", "B": "3"}, {"taskSpec.containerSpec.env.B": "UPDATE"}),
        (
            "taskSpec.containerSpec.configs",
            [{"configId": "cfg2", "configName": "n", "fileName": "/etc/nginx/nginx.conf"}],
            {"taskSpec.containerSpec.configs": "UPDATE"},
        ),
        ("taskSpec.resources.limits.memoryBytes", 1, {"taskSpec.resources.limits.memoryBytes": "UPDATE"}),
        ("mode.replicated.replicas", 12, {"mode.replicated.replicas": "UPDATE"}),
        ("updateConfig.parallelism", 2, {"updateConfig.parallelism": "UPDATE"}),
        ("labels", [{"label": "a", "value": "b"}], {"labels": "ADD"}),
    ],
)
def test_most_changes_are_made_in_place(stub: Any, path: str, value: Any, changes: dict[str, str]) -> None:
    response = diff(stub, changed(SERVICE, path, value))
    assert (kinds(response), list(response.replaces)) == (changes, [])


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        ("taskSpec.networksAdvanceds", [{"id": "net1"}], {"taskSpec.networksAdvanceds": "UPDATE_REPLACE"}),
        (
            "taskSpec.containerSpec.labels",
            [{"label": "a", "value": "b"}],
            {"taskSpec.containerSpec.labels": "ADD_REPLACE"},
        ),
        ("taskSpec.containerSpec.sysctl", {"a": "1"}, {"taskSpec.containerSpec.sysctl": "ADD_REPLACE"}),
        ("auth", {"serverAddress": "a", "username": "b", "password": "c"}, {"auth": "ADD_REPLACE"}),
    ],
)
def test_some_changes_need_another_service(stub: Any, path: str, value: Any, changes: dict[str, str]) -> None:
    response = diff(stub, changed(SERVICE, path, value))
    assert (kinds(response), list(response.replaces)) == (changes, [path.partition(".")[0]])


def test_only_the_path_that_asks_for_another_service_says_so(stub: Any) -> None:
    new = changed(changed(SERVICE, "taskSpec.networksAdvanceds", [{"id": "b"}]), "taskSpec.containerSpec.image", "c")
    assert kinds(diff(stub, new)) == {
        "taskSpec.containerSpec.image": "UPDATE",
        "taskSpec.networksAdvanceds": "UPDATE_REPLACE",
    }


@pytest.mark.parametrize(
    "path",
    [
        *("labels", "mode", "endpointSpec", "taskSpec.placement", "taskSpec.resources", "taskSpec.restartPolicy"),
        *("taskSpec.containerSpec.healthcheck", "taskSpec.containerSpec.stopGracePeriod"),
    ],
)
def test_what_the_daemon_chooses_is_no_change_when_the_program_stops_saying_it(stub: Any, path: str) -> None:
    assert not kinds(diff(stub, changed(SERVICE, path, None)))


def test_a_config_with_other_data_stands_beside_the_one_before_unless_the_program_names_it(stub: Any) -> None:
    for named, deletes_first in (({}, False), ({"name": "nginx"}, True)):
        inputs = [check(stub, "ServiceConfig", {"dataRaw": text, **named}).inputs for text in "ab"]
        request = pb.DiffRequest(urn=urn("ServiceConfig"), olds=inputs[0], old_inputs=inputs[0], news=inputs[1])
        response = stub.Diff(request)
        assert "dataRaw" in response.replaces
        assert response.deleteBeforeReplace is deletes_first


# What the daemon is asked, and what becomes of it


def test_a_service_is_created_as_the_program_says(provider: Any, swarm: FakeSwarm) -> None:
    create(provider, "Service", {**SERVICE, "name": "app"})
    [body] = swarm.asked("POST /services/create")
    task_template, container = body["TaskTemplate"], body["TaskTemplate"]["ContainerSpec"]
    assert body["Mode"] == {"Replicated": {"Replicas": 2}}
    assert body["UpdateConfig"]["Order"] == "start-first"
    assert body["UpdateConfig"]["Monitor"] == 10_000_000_000
    assert body["EndpointSpec"] == {"Mode": "dnsrr", "Ports": []}
    assert container["Env"] == ["A=1=1", "B=2"]
    assert container["StopGracePeriod"] == 70_000_000_000
    assert container["Secrets"][0] == {
        "SecretID": "sec1",
        "SecretName": "key",
        "File": {"Name": "key.pem", "UID": "0", "GID": "0", "Mode": 0o400},
    }
    assert container["Mounts"][0]["TmpfsOptions"] == {"SizeBytes": 16777216, "Mode": 511}
    assert task_template["Networks"] == [{"Target": "net0", "Aliases": [], "DriverOpts": {}}]
    assert task_template["Placement"]["Preferences"] == [{"Spread": {"SpreadDescriptor": "spread=node.id"}}]


def test_what_is_left_out_is_sent_as_zero(provider: Any, swarm: FakeSwarm) -> None:
    create(provider, "Service", {"taskSpec": {"containerSpec": {"image": IMAGE}}})
    container = swarm.asked("POST /services/create")[0]["TaskTemplate"]["ContainerSpec"]
    assert (container["StopGracePeriod"], container["Healthcheck"], container["Init"]) == (0, {}, False)


def test_a_refresh_after_a_create_finds_nothing_to_change(provider: Any) -> None:
    inputs = check(provider, "Service", {**SERVICE, "name": "app"}).inputs
    created = provider.Create(pb.CreateRequest(urn=urn("Service"), properties=inputs))
    read = provider.Read(
        pb.ReadRequest(urn=urn("Service"), id=created.id, inputs=inputs, properties=created.properties)
    )
    assert decode(read.properties) == decode(created.properties)
    assert decode(read.inputs) == decode(inputs)


def test_a_refresh_finds_what_somebody_has_scaled(provider: Any, swarm: FakeSwarm) -> None:
    inputs = check(provider, "Service", {**SERVICE, "name": "app"}).inputs
    created = provider.Create(pb.CreateRequest(urn=urn("Service"), properties=inputs))
    swarm.services[created.id]["Spec"]["Mode"]["Replicated"]["Replicas"] = 5
    read = provider.Read(
        pb.ReadRequest(urn=urn("Service"), id=created.id, inputs=inputs, properties=created.properties)
    )
    assert decode(read.inputs)["mode"]["replicated"]["replicas"] == 5


def test_a_tag_is_pinned_by_what_the_registry_says(provider: Any, swarm: FakeSwarm) -> None:
    swarm.registry = {
        "Descriptor": {"digest": DIGEST},
        "Platforms": [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm", "os": "linux"}],
    }
    _, state = create(provider, "Service", {"taskSpec": {"containerSpec": {"image": "registry:5000/app"}}})
    assert state["taskSpec"]["containerSpec"]["image"] == f"registry:5000/app:latest@{DIGEST}"
    assert state["taskSpec"]["placement"]["platforms"] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "", "os": "linux"},
    ]


def test_logins_of_the_plugin_s_configuration_go_along(swarm: FakeSwarm) -> None:
    servicer = DockerProvider(None)
    entry = {"address": "https://registry:5000", "username": "me", "password": "secret"}
    with serving(servicer) as client:
        client.Configure(pb.ConfigureRequest(args=encode({"host": swarm.host, "registryAuth": [entry]})))
        kind = servicer._kinds["docker:index/service:Service"]
        assert isinstance(kind, service.Service)
        assert kind._auth(SERVICE) == {"username": "me", "password": "secret", "serveraddress": "registry:5000"}
        servicer.close()


def test_a_service_that_does_not_converge_is_removed_again_with_its_reason(provider: Any, swarm: FakeSwarm) -> None:
    failed = {"Err": "task: non-zero exit (1)", "ContainerStatus": {"ContainerID": "0" * 64}}
    swarm.tasks = [task(1), task(2, "starting"), task(2, "failed", "shutdown", Status=failed)]
    swarm.logs = b"ModuleNotFoundError: No module named 'webapp'\n"
    swarm.containers["0" * 64] = {"Id": "0" * 64, "Name": "/app.2", "Config": {"Tty": True}}
    inputs = check(provider, "Service", changed(SERVICE, "taskSpec.containerSpec.stopGracePeriod", None)).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Service"), properties=inputs))
    assert message.splitlines() == [
        "Service with ID (svc1) did not converge after 0s",
        "task: non-zero exit (1)",
        "Last task logs:",
        "ModuleNotFoundError: No module named 'webapp'",
    ]
    assert not swarm.services


def test_an_update_is_one_of_the_version_that_is_there(provider: Any, swarm: FakeSwarm) -> None:
    service_id, state = create(provider, "Service", SERVICE)
    new = update(provider, service_id, state, changed(SERVICE, "mode.replicated.replicas", 12))
    assert new["mode"] == {"replicated": {"replicas": 12}, "global": False}
    assert swarm.services[service_id]["Version"]["Index"] == 12


def test_an_update_sends_back_what_the_daemon_chose(provider: Any, swarm: FakeSwarm) -> None:
    service_id, state = create(provider, "Service", SERVICE)
    without = changed(changed(SERVICE, "taskSpec.placement", None), "mode.replicated.replicas", 3)
    update(provider, service_id, state, without)
    [body] = swarm.asked("POST /services/svc1/update")
    assert body["TaskTemplate"]["Placement"]["Preferences"] == [{"Spread": {"SpreadDescriptor": "spread=node.id"}}]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("rollback_completed", "service rollback completed: rolled back"),
        ("paused", "service update paused: rolled back"),
        ("rollback_paused", "service rollback paused: rolled back"),
        ("rollback_started", "service rollback completed: rolled back"),
    ],
)
def test_an_update_that_is_rolled_back_fails_and_is_kept_as_it_was_meant(
    provider: Any, swarm: FakeSwarm, status: str, reason: str
) -> None:
    service_id, state = create(provider, "Service", SERVICE)
    swarm.update_status = {"State": status, "Message": "rolled back"}
    with pytest.raises(grpc.RpcError) as raised:
        update(provider, service_id, state, changed(SERVICE, "taskSpec.containerSpec.image", "broken@sha256:1"))
    assert raised.value.details() == reason
    trailers = dict(raised.value.trailing_metadata())
    failure = pb.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(failure)
    kept = decode(failure.properties)
    assert (failure.id, kept["id"]) == (service_id, service_id)
    assert kept["taskSpec"]["containerSpec"]["image"] == "broken@sha256:1"
    assert decode(failure.inputs)["taskSpec"]["containerSpec"]["image"] == "broken@sha256:1"


def test_an_update_that_takes_too_long_fails(provider: Any, swarm: FakeSwarm) -> None:
    service_id, state = create(provider, "Service", SERVICE)
    swarm.update_status, swarm.tasks = {"State": "updating"}, [task(1), task(2, "preparing")]
    with pytest.raises(grpc.RpcError, match="did not converge after 0s"):
        update(provider, service_id, state, changed(SERVICE, "taskSpec.containerSpec.image", "b"))


@pytest.mark.parametrize(
    ("tasks", "count"),
    [
        ([task(1), task(2)], 2),
        ([task(1), task(1, "starting")], 0),  # start-first: the successor is not there yet
        ([task(1), task(2, "failed", "shutdown")], 1),
        ([task(1), task(2, "complete")], 1),
        ([task(1, NodeID="node-2"), task(2)], 1),
        ([task(1, "orphaned"), task(2)], 1),
    ],
)
def test_a_slot_counts_when_what_is_to_run_there_runs(tasks: list[dict[str, Any]], count: int) -> None:
    assert service.running(tasks, down={"node-2"}) == count


def test_a_deleted_service_has_its_grace_before_its_containers_are_killed(provider: Any, swarm: FakeSwarm) -> None:
    inputs = changed(SERVICE, "taskSpec.containerSpec.stopGracePeriod", "1ms")
    service_id, state = create(provider, "Service", inputs)
    swarm.containers["c1"] = {"Id": "c1", "Name": "/app.1"}
    here, elsewhere = ({"ContainerStatus": {"ContainerID": name}} for name in ("c1", "c2"))
    swarm.tasks = [task(1, Status=here), task(2, Status=elsewhere)]
    delete(provider, "Service", service_id, state)
    assert not swarm.services
    assert not swarm.containers
    delete(provider, "Service", service_id, state)


def test_a_refused_delete_of_a_config_in_use_names_the_service(provider: Any, swarm: FakeSwarm) -> None:
    config_id, state = create(provider, "ServiceConfig", {"dataRaw": "events {}"})
    refusal = "rpc error: code = InvalidArgument desc = config 'a' is in use by the following service: app"
    swarm.refusals["DELETE /configs/.*"] = (400, refusal)
    request = pb.DeleteRequest(urn=urn("ServiceConfig"), id=config_id, properties=encode(state))
    assert "in use by the following service: app" in refused(provider.Delete, request)


# Configs, secrets, networks


@pytest.mark.parametrize("key", ["data", "dataRaw"])
def test_a_config_is_read_in_the_form_in_which_it_was_written(provider: Any, swarm: FakeSwarm, key: str) -> None:
    text = "events {}\n"
    value = base64.b64encode(text.encode()).decode() if key == "data" else text
    config_id, state = create(provider, "ServiceConfig", {key: value})
    assert state[key] == value
    assert base64.b64decode(swarm.asked("POST /configs/create")[0]["Data"]).decode() == text
    read = provider.Read(pb.ReadRequest(urn=urn("ServiceConfig"), id=config_id, properties=encode(state)))
    assert decode(read.properties) == state


def test_a_secret_is_what_the_program_wrote_though_the_daemon_does_not_show_it(provider: Any, swarm: FakeSwarm) -> None:
    secret_id, state = create(provider, "Secret", {"data": base64.b64encode(b"x").decode()})
    read = provider.Read(pb.ReadRequest(urn=urn("Secret"), id=secret_id, properties=encode(state)))
    assert decode(read.properties)["data"] == "eA=="
    assert swarm.asked("POST /secrets/create")[0]["Data"] == "eA=="
    delete(provider, "Secret", secret_id, state)
    assert not provider.Read(pb.ReadRequest(urn=urn("Secret"), id=secret_id, properties=encode(state))).id


def test_a_network_of_the_swarm_is_made_when_it_has_a_subnet(provider: Any, swarm: FakeSwarm) -> None:
    looks = iter([[], [], [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]])
    original = swarm._routes()["GET /networks/([^/]+)"]

    def allocating(name: str, **more: Any) -> tuple[int, Any]:
        status, network = original(name, **more)
        config = next(looks, [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}])
        return status, {**network, "Scope": "swarm", "IPAM": {**network["IPAM"], "Config": config}}

    routes = swarm._routes
    swarm._routes = lambda: {**routes(), "GET /networks/([^/]+)": allocating}  # type: ignore[method-assign]
    _, state = create(provider, "Network", {"driver": "overlay", "attachable": True})
    assert [config["subnet"] for config in state["ipamConfigs"]] == ["10.0.1.0/24"]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        *((None, ""), (0, "0s"), (5 * 10**9, "5s"), (60 * 10**9, "1m"), (70 * 10**9, "1m10s")),
        *((3600 * 10**9, "1h"), (5400 * 10**9, "1h30m"), (600 * 10**9, "10m")),
    ],
)
def test_durations_of_a_service_are_short(duration: int | None, text: str) -> None:
    assert service_spec._short(duration) == text
