"""The Docker plugin towards the engine and the daemon."""

from __future__ import annotations

import base64
import io
import socket
import tarfile
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc
from pulumi.runtime.proto import provider_pb2 as pb

from airgap import plugin
from airgap.docker_provider.daemon import POLL_INTERVAL, Connection
from airgap.docker_provider.errors import UserError
from airgap.docker_provider.properties import decode, encode
from airgap.docker_provider.server import KINDS, DockerProvider
from tests.airgap.conftest import configuration, serving
from tests.airgap.fake_docker import FakeDocker

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
NAMING = pb.CheckRequest.AutonamingOptions
TYPES = {kind.__name__: kind.type for kind in KINDS}


def urn(kind: str, name: str = "thing") -> str:
    return f"urn:pulumi:dev::project::my:Component${TYPES.get(kind, kind)}::{name}"


def check(stub: Any, kind: str, inputs: dict[str, Any], **request: Any) -> Any:
    return stub.Check(pb.CheckRequest(urn=urn(kind), news=encode(inputs), **request))


def create(stub: Any, kind: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    checked = check(stub, kind, inputs)
    assert not checked.failures
    response = stub.Create(pb.CreateRequest(urn=urn(kind), properties=checked.inputs))
    return response.id, decode(response.properties)


def refused(call: Any, *args: Any) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call(*args)
    return str(raised.value.details())


# What is not covered


@pytest.mark.parametrize(
    ("kind", "inputs", "path"),
    [
        ("Container", {"image": "a", "gpus": "all"}, "gpus"),
        ("Container", {"image": "a", "deviceCgroupRules": ["c 1:3 r"]}, "deviceCgroupRules"),
        ("Container", {"image": "a", "uploads": [{"file": "/a"}, {"file": "/b", "owner": "1"}]}, "uploads[1].owner"),
        ("Container", {"image": "a", "healthcheck": {"test": ["true"]}}, "healthcheck.test"),
        ("Container", {"image": UNKNOWN, "labels": [{"label": UNKNOWN, "value": "", "x": 1}]}, "labels[0].x"),
        (
            "Container",
            {"image": "a", "networksAdvanced": [{"name": "a", "gwPriority": 1}]},
            "networksAdvanced[0].gwPriority",
        ),
        ("Volume", {"cluster": {}}, "cluster"),
        ("RemoteImage", {"name": "a", "build": {}}, "build"),
        ("Network", {"configOnly": True}, "configOnly"),
        ("Image", {"imageName": "a", "build": {"ssh": "default"}}, "build.ssh"),
    ],
)
def test_an_input_that_is_not_covered_is_refused_by_name(
    stub: Any, kind: str, inputs: dict[str, Any], path: str
) -> None:
    failures = check(stub, kind, inputs).failures
    assert [failure.property for failure in failures] == [path]
    assert failures[0].reason.startswith(f"{path}: this stand-in for the Docker plugin does not cover the key")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"image": "a", "restart": "sometimes"}, "restart: 'sometimes' is not accepted; it has to match no|on-failure"),
        ({"image": "a", "memory": -5}, "memory: -5 is not accepted"),
        ({"image": "a", "healthcheck": {"interval": "1 minute"}}, "healthcheck.interval: '1 minute' is not accepted"),
        ({}, "image: a value is required"),
        ({"image": "a", "ports": [{"external": 1}]}, "ports[0].internal: a value is required"),
    ],
)
def test_a_value_that_is_not_accepted_is_refused_by_name(stub: Any, inputs: dict[str, Any], reason: str) -> None:
    assert [failure.reason[: len(reason)] for failure in check(stub, "Container", inputs).failures] == [reason]


def test_unknown_values_are_accepted_in_a_preview(stub: Any) -> None:
    checked = check(stub, "Container", {"image": UNKNOWN, "restart": UNKNOWN, "ports": UNKNOWN, "memory": UNKNOWN})
    assert not checked.failures
    assert decode(checked.inputs)["ports"] == UNKNOWN


def test_a_resource_type_that_is_not_covered_is_refused_by_name(stub: Any) -> None:
    message = refused(stub.Check, pb.CheckRequest(urn=urn("docker:index/plugin:Plugin")))
    assert "does not cover the resource type docker:index/plugin:Plugin" in message


def test_a_configuration_key_that_is_not_covered_is_refused_by_name(stub: Any) -> None:
    checked = stub.CheckConfig(pb.CheckRequest(news=encode({"host": "unix:///a", "caMaterial": "x"})))
    assert [failure.property for failure in checked.failures] == ["caMaterial"]
    assert "docker:caMaterial: this stand-in" in checked.failures[0].reason


# Names


def test_the_name_that_the_engine_proposes_is_taken(stub: Any) -> None:
    options = NAMING(proposed_name="stack-thing-1", mode=NAMING.ENFORCE)
    assert decode(check(stub, "Network", {}, autonaming=options).inputs)["name"] == "stack-thing-1"


def test_the_name_of_an_object_stays_while_it_lives(stub: Any) -> None:
    olds = encode({"name": "thing-0000000", "__defaults": ["name"]})
    assert decode(check(stub, "Network", {}, olds=olds).inputs)["name"] == "thing-0000000"


def test_the_program_s_own_name_wins(stub: Any) -> None:
    options = NAMING(proposed_name="stack-thing-1")
    inputs = decode(check(stub, "Network", {"name": "mine"}, autonaming=options).inputs)
    assert (inputs["name"], inputs["__defaults"]) == ("mine", ["ipamDriver"])


def test_without_automatic_naming_a_name_is_required(stub: Any) -> None:
    options = NAMING(mode=NAMING.DISABLE)
    failures = check(stub, "Network", {}, autonaming=options).failures
    assert [(failure.property, failure.reason) for failure in failures] == [
        ("name", "name: a value is required, because automatic naming is disabled")
    ]


def test_the_same_seed_proposes_the_same_name_and_another_one_another(stub: Any) -> None:
    names = [decode(check(stub, "Network", {}, randomSeed=seed).inputs)["name"] for seed in (b"a", b"a", b"b")]
    assert names[0] == names[1] != names[2]


# The daemon


def test_a_daemon_that_is_not_there_is_named_with_what_to_do(stub: Any, tmp_path: Path) -> None:
    message = refused(stub.Configure, configuration(host=f"unix://{tmp_path}/none.sock"))
    assert f"The Docker daemon at unix://{tmp_path}/none.sock cannot be reached: No such file or directory" in message
    assert "Start the daemon, or name another one in docker:host or DOCKER_HOST." in message


def test_a_host_of_a_kind_that_docker_does_not_know_is_refused(stub: Any) -> None:
    message = refused(stub.Configure, configuration(host="gopher://a"))
    assert "gopher is not accepted; unix://, tcp://, http://, https:// and ssh:// are" in message


@pytest.mark.parametrize("used_before", [False, True])
def test_a_daemon_that_dies_on_the_way_is_named(provider: Any, docker: FakeDocker, used_before: bool) -> None:
    if used_before:
        create(provider, "Volume", {"name": "data"})
    docker.hangs_up = True
    message = refused(provider.Read, pb.ReadRequest(urn=urn("Volume"), id="data"))
    assert f"The Docker daemon at {docker.host} cannot be reached: Remote end closed connection" in message


def test_configuration_comes_before_environment_and_environment_before_default() -> None:
    environ = {"DOCKER_HOST": "tcp://env:1", "DOCKER_CERT_PATH": "/env"}
    assert Connection.of({"host": "tcp://config:1"}, environ).host == "tcp://config:1"
    assert Connection.of({}, environ) == Connection("tcp://env:1", True, Path("/env"), {})
    assert Connection.of({}, {}) == Connection("unix:///var/run/docker.sock", False, None, {})


def test_logins_are_found_by_registry() -> None:
    auth = [{"address": "https://registry.example/", "username": "u", "password": "p"}]
    connection = Connection.of({"registryAuth": auth}, {})
    assert connection.auth == {"registry.example": {"username": "u", "password": "p"}}


def test_the_user_s_own_daemon_is_found_only_if_no_host_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / ".docker/run/docker.sock"
    own.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own))
        listener.listen()
        missing = f"unix://{tmp_path}/none"
        assert Connection(missing).reachable().host == f"unix://{own}"
        with pytest.raises(UserError):
            Connection(missing, explicit=True).reachable()


def test_what_the_daemon_refuses_is_said_in_its_words(provider: Any, docker: FakeDocker) -> None:
    docker.refusals["POST /containers/create"] = (409, 'The container name "/box" is already in use')
    inputs = check(provider, "Container", {"image": "known:1"}).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Container"), properties=inputs))
    assert message == 'Create of thing: The container name "/box" is already in use'


# Containers


def test_a_container_is_created_connected_filled_and_started_in_this_order(provider: Any, docker: FakeDocker) -> None:
    container_id, state = create(
        provider,
        "Container",
        {
            "image": "known:1",
            "networksAdvanced": [{"name": "net", "aliases": ["a"], "ipv4Address": "172.22.0.9"}],
            "uploads": [{"file": "/etc/app.conf", "content": "x", "permissions": "0600"}],
        },
    )
    created = f"/containers/{container_id}"
    posts = [f"{method} {path}" for method, path, _query, _body in docker.calls if method != "GET"]
    assert posts == [
        "POST /containers/create",
        "POST /networks/bridge/disconnect",
        "POST /networks/net/connect",
        f"PUT {created}/archive",
        f"POST {created}/start",
    ]
    endpoint = docker.asked("POST /networks/net/connect")[0]["EndpointConfig"]
    assert endpoint == {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "172.22.0.9"}}
    with tarfile.open(fileobj=io.BytesIO(docker.asked("PUT .*/archive")[0])) as tar:
        assert [(entry.name, oct(entry.mode), entry.size) for entry in tar] == [("/etc/app.conf", "0o600", 1)]
    assert [data["networkName"] for data in state["networkDatas"]] == ["net"]


def test_a_container_that_must_not_start_does_not(provider: Any, docker: FakeDocker) -> None:
    _id, state = create(provider, "Container", {"image": "known:1", "start": False, "mustRun": False})
    assert docker.asked("POST /containers/.*/start") == []
    assert (state["start"], state["mustRun"], state["exitCode"]) == (False, False, 0)


@pytest.mark.parametrize(
    ("upload", "content"),
    [({"content": "text"}, b"text"), ({"contentBase64": base64.b64encode(b"\0raw").decode()}, b"\0raw")],
)
def test_uploads_are_text_or_base64(provider: Any, docker: FakeDocker, upload: dict[str, str], content: bytes) -> None:
    create(provider, "Container", {"image": "known:1", "uploads": [{"file": "/a", **upload}]})
    with tarfile.open(fileobj=io.BytesIO(docker.asked("PUT .*/archive")[0])) as tar:
        file = tar.extractfile("/a")
        assert file is not None
        assert file.read() == content


def test_a_container_that_does_not_get_healthy_fails_with_its_last_words(provider: Any, docker: FakeDocker) -> None:
    docker.health = {"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "no such socket\n"}]}
    docker.logs = b"ModuleNotFoundError: No module named 'flask'\n"
    docker.logs = b"\x02\0\0\0" + len(docker.logs).to_bytes(4, "big") + docker.logs
    inputs = check(
        provider,
        "Container",
        {"image": "known:1", "wait": True, "waitTimeout": 0, "healthcheck": {"tests": ["CMD", "true"]}},
    ).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Container"), properties=inputs))
    assert message.splitlines() == [
        "container failed to be in healthy state: it is running, health unhealthy",
        "its last check said: no such socket",
        "its last words:",
        "ModuleNotFoundError: No module named 'flask'",
    ]


def test_a_container_that_cannot_start_is_known_to_the_engine_by_its_id(provider: Any, docker: FakeDocker) -> None:
    from pulumi.runtime.proto import status_pb2

    docker.refusals["POST /containers/.*/start"] = (500, "port is already allocated")
    inputs = check(provider, "Container", {"image": "known:1", "envs": ["A=1"]}).inputs
    with pytest.raises(grpc.RpcError) as raised:
        provider.Create(pb.CreateRequest(urn=urn("Container"), properties=inputs))
    status = status_pb2.Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    failure = pb.ErrorResourceInitFailed()
    assert status.details[0].Unpack(failure)
    assert failure.id in docker.containers
    assert list(failure.reasons) == ["port is already allocated"]
    properties = decode(failure.properties)
    assert properties["envs"] == ["A=1"]
    # What the daemon computes must not be there: see InitFailedError.
    assert not properties.keys() & {"networkDatas", "command", "entrypoints", "ipcMode", "runtime"}


def test_a_stopped_container_is_seen_by_a_refresh_and_started_by_an_update(provider: Any, docker: FakeDocker) -> None:
    container_id, state = create(provider, "Container", {"image": "known:1"})
    docker.containers[container_id]["State"] = {"Running": False, "Status": "exited", "ExitCode": 137}
    inputs = check(provider, "Container", {"image": "known:1"}).inputs
    read = provider.Read(pb.ReadRequest(id=container_id, urn=urn("Container"), properties=encode(state), inputs=inputs))
    found = decode(read.properties)
    assert (found["mustRun"], found["exitCode"], decode(read.inputs)["mustRun"]) == (False, 137, False)
    updated = provider.Update(
        pb.UpdateRequest(
            id=container_id, urn=urn("Container"), olds=read.properties, old_inputs=read.inputs, news=inputs
        )
    )
    assert docker.containers[container_id]["State"]["Running"]
    assert decode(updated.properties)["mustRun"] is True


def test_a_change_on_record_only_does_not_ask_the_daemon(provider: Any, docker: FakeDocker) -> None:
    old = {"image": "known:1", "healthcheck": {"tests": ["CMD", "true"]}}
    container_id, state = create(provider, "Container", old)
    docker.calls.clear()
    new = {"image": "known:1", "healthcheck": {"tests": ["CMD", "false"]}, "destroyGraceSeconds": 5}
    updated = provider.Update(
        pb.UpdateRequest(
            id=container_id,
            urn=urn("Container"),
            olds=encode(state),
            old_inputs=check(provider, "Container", old).inputs,
            news=check(provider, "Container", new).inputs,
        )
    )
    properties = decode(updated.properties)
    assert (properties["healthcheck"]["tests"], properties["destroyGraceSeconds"]) == (["CMD", "false"], 5)
    assert properties["networkDatas"] == state["networkDatas"]
    assert docker.calls == []


def delete(provider: Any, kind: str, object_id: str, state: dict[str, Any]) -> None:
    provider.Delete(pb.DeleteRequest(id=object_id, urn=urn(kind), properties=encode(state)))


def test_a_deleted_container_gets_its_grace_and_takes_its_volumes_along(provider: Any, docker: FakeDocker) -> None:
    container_id, state = create(provider, "Container", {"image": "known:1", "destroyGraceSeconds": 7})
    delete(provider, "Container", container_id, state)
    queries = {f"{method} {path.split('/')[-1]}": query for method, path, query, _body in docker.calls}
    assert queries["POST stop"] == {"t": ["7"]}
    assert queries[f"DELETE {container_id}"] == {"v": ["True"], "link": ["False"], "force": ["True"]}
    assert docker.containers == {}


def test_what_is_gone_already_is_deleted_without_complaint(provider: Any) -> None:
    for kind in ("Container", "Network", "Volume"):
        delete(provider, kind, "gone", {})


def test_what_is_gone_is_reported_as_gone_by_a_refresh(provider: Any) -> None:
    for kind in ("Container", "Network", "Volume"):
        assert provider.Read(pb.ReadRequest(id="gone", urn=urn(kind))).id == ""


def test_a_network_is_removed_as_soon_as_its_last_endpoint_is_gone(provider: Any, docker: FakeDocker) -> None:
    network_id, state = create(provider, "Network", {})
    refusal = f"DELETE /networks/{network_id}"
    docker.refusals[refusal] = (403, "network has active endpoints")
    with futures.ThreadPoolExecutor() as pool:
        deletion = pool.submit(delete, provider, "Network", network_id, state)
        time.sleep(2.5 * POLL_INTERVAL)
        assert not deletion.done()
        del docker.refusals[refusal]
        deletion.result(timeout=5)
    assert docker.networks == {}
    assert 3 <= len(docker.asked(refusal)) <= 5


def test_another_refusal_to_remove_is_not_retried(provider: Any, docker: FakeDocker) -> None:
    volume_id, state = create(provider, "Volume", {})
    docker.refusals["DELETE /volumes/.*"] = (500, "permission denied")
    with pytest.raises(grpc.RpcError, match="permission denied"):
        delete(provider, "Volume", volume_id, state)
    assert len(docker.asked("DELETE /volumes/.*")) == 1


# Images


def test_an_image_that_is_nowhere_is_named(provider: Any, docker: FakeDocker) -> None:
    docker.refusals["POST /images/create"] = (500, "lookup registry.example: no such host")
    inputs = check(provider, "Container", {"image": "registry.example/app"}).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Container"), properties=inputs))
    assert message == (
        f"The image registry.example/app is not on the Docker daemon at {docker.host}, and it could not be pulled: "
        "lookup registry.example: no such host"
    )


def test_an_image_id_that_is_nowhere_is_not_pulled(provider: Any, docker: FakeDocker) -> None:
    inputs = check(provider, "Container", {"image": "sha256:0"}).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Container"), properties=inputs))
    assert message == f"The image sha256:0 is not on the Docker daemon at {docker.host}. Build it again."
    assert docker.asked("POST /images/create") == []


def test_a_remote_image_is_known_by_id_and_digest(provider: Any, docker: FakeDocker) -> None:
    docker.images["registry.example:5000/team/app:2"] = "sha256:" + "3" * 64
    image_id, state = create(provider, "RemoteImage", {"name": "known:1", "keepLocally": True})
    assert image_id == state["id"] == "sha256:" + "1" * 64 + "known:1"
    assert state["repoDigest"] == f"known@sha256:{'d' * 64}"
    delete(provider, "RemoteImage", image_id, state)
    assert docker.asked("DELETE .*") == []


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The inputs of an image whose Dockerfile lies outside its folder."""
    monkeypatch.chdir(tmp_path)
    Path("app").mkdir()
    Path("app/main.py").write_text("print(1)\n", encoding="utf-8")
    Path("Dockerfile").write_text("FROM base\n", encoding="utf-8")
    build = {"context": "./app", "dockerfile": "./Dockerfile", "platform": "linux/amd64", "args": {"A": "1"}}
    return {"imageName": "team/app:1", "skipPush": True, "build": build}


def test_an_image_is_built_from_a_dockerfile_outside_its_folder(
    provider: Any, docker: FakeDocker, app: dict[str, Any]
) -> None:
    image_id, state = create(provider, "Image", app)
    [query] = [query for _method, path, query, _body in docker.calls if path == "/build"]
    dockerfile = query["dockerfile"][0]
    assert docker.build_context[dockerfile] == b"FROM base\n"
    assert docker.build_context["main.py"] == b"print(1)\n"
    assert (query["t"], query["platform"], query["buildargs"]) == (["team/app:1"], ["linux/amd64"], ['{"A": "1"}'])
    assert image_id == "team/app:1"
    assert state["__inputs"]["build"]["contextDigest"]
    assert {key: value for key, value in state.items() if key != "__inputs"} == {
        "baseImageName": "team/app:1",
        "context": "./app",
        "dockerfile": "../Dockerfile",
        "imageName": "team/app:1",
        "platform": "linux/amd64",
        "registryServer": "",
        "repoDigest": "sha256:" + "b" * 64,
    }


def test_a_failed_build_says_what_it_printed_last(provider: Any, docker: FakeDocker, app: dict[str, Any]) -> None:
    docker.build_output = [
        {"stream": "Step 1/2 : FROM base\n"},
        {"stream": "Step 2/2 : RUN pip install nothing\n"},
        {"stream": "\u001b[91mERROR: No matching distribution\n\u001b[0m"},
        {"error": "The command returned a non-zero code: 1"},
    ]
    inputs = check(provider, "Image", app).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Image"), properties=inputs))
    assert message.splitlines() == [
        "Building team/app:1 failed. The end of its output:",
        "Step 1/2 : FROM base",
        "Step 2/2 : RUN pip install nothing",
        "ERROR: No matching distribution",
        "The command returned a non-zero code: 1",
    ]


def test_a_base_image_that_is_nowhere_is_named_with_what_to_do(
    provider: Any, docker: FakeDocker, app: dict[str, Any]
) -> None:
    docker.build_output = [{"stream": "Step 1/2 : FROM base:3 AS x\n"}, {"error": "no such host"}]
    inputs = check(provider, "Image", app).inputs
    message = refused(provider.Create, pb.CreateRequest(urn=urn("Image"), properties=inputs))
    assert f"The Docker daemon at {docker.host} neither has the base image base:3 nor could it pull it" in message


def test_an_image_is_pushed_unless_told_otherwise(provider: Any, docker: FakeDocker, app: dict[str, Any]) -> None:
    docker.push_output = [{"status": "Pushed"}, {"aux": {"Tag": "1", "Digest": "sha256:abc"}}]
    registry = {"server": "registry.example", "username": "u", "password": "p"}
    _id, state = create(provider, "Image", {**app, "skipPush": False, "registry": registry})
    assert state["repoDigest"] == "team/app@sha256:abc"
    assert len(docker.asked("POST /images/team/app/push")) == 1


def test_a_preview_neither_builds_nor_creates(provider: Any, docker: FakeDocker, app: dict[str, Any]) -> None:
    docker.calls.clear()
    for kind, inputs in (("Image", app), ("Container", {"image": UNKNOWN}), ("Network", {}), ("Volume", {})):
        checked = check(provider, kind, inputs).inputs
        response = provider.Create(pb.CreateRequest(urn=urn(kind), properties=checked, preview=True))
        assert response.id == ""
        assert "repoDigest" not in response.properties
    assert docker.calls == []


def test_a_dockerfile_that_is_not_there_is_named_with_the_one_that_is(stub: Any, app: dict[str, Any]) -> None:
    Path("Dockerfile").rename("app/Dockerfile")
    app["build"]["dockerfile"] = "Dockerfile"
    message = refused(check, stub, "Image", app)
    assert message == (
        'could not open dockerfile at relative path "Dockerfile". Try setting `dockerfile` to "app/Dockerfile"'
    )


def test_a_login_that_changes_does_not_rebuild_an_image_but_another_registry_does(
    stub: Any, app: dict[str, Any]
) -> None:
    def diff(**registry: str) -> Any:
        old = {**app, "registry": {"server": "a", "username": "u", "password": "old"}}
        new = {**app, "registry": {"server": "a", "username": "u", "password": "new", **registry}}
        return stub.Diff(pb.DiffRequest(urn=urn("Image"), olds=encode({"__inputs": old}), news=encode(new)))

    assert diff().changes == pb.DiffResponse.DIFF_NONE
    assert diff(server="b").detailedDiff.keys() == {"registry"}


# The engine


class Engine(engine_pb2_grpc.EngineServicer):
    """An engine that keeps what is logged."""

    def __init__(self) -> None:
        self.messages: list[engine_pb2.LogRequest] = []

    def Log(self, request: engine_pb2.LogRequest, context: Any) -> Any:
        from google.protobuf import empty_pb2

        self.messages.append(request)
        return empty_pb2.Empty()


def test_the_output_of_a_build_streams_to_the_engine(docker: FakeDocker, app: dict[str, Any]) -> None:
    engine = Engine()
    server, port = plugin.start(lambda server: engine_pb2_grpc.add_EngineServicer_to_server(engine, server), workers=2)
    docker.build_output = [{"stream": "Step 1/1 : FROM base\n"}, {"stream": "one\ntwo\n"}, {"aux": {"ID": "sha256:b"}}]
    servicer = DockerProvider(f"127.0.0.1:{port}")
    try:
        with serving(servicer) as provider:
            provider.Configure(configuration(host=docker.host))
            create(provider, "Image", app)
    finally:
        servicer.close()
        server.stop(None).wait()
    assert [message.message for message in engine.messages] == ["Step 1/1 : FROM base", "one", "two"]
    assert all(message.ephemeral and message.urn == urn("Image") for message in engine.messages)


def test_containers_are_created_at_the_same_time(docker: FakeDocker) -> None:
    docker.start_delay = 0.3
    servicer = DockerProvider(None)
    with serving(servicer) as provider:
        provider.Configure(configuration(host=docker.host))
        begin = time.monotonic()
        with futures.ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: create(provider, "Container", {"image": "known:1"}), range(4)))
        assert time.monotonic() - begin < 3 * docker.start_delay
        assert len({container_id for container_id, _state in made}) == 4
        servicer.close()
