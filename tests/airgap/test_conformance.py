"""The stand-in answers as the official plugin did. Values that the plugin makes up at random are compared by form."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from pulumi.runtime.proto import provider_pb2 as pb

from airgap.docker_provider.properties import SIGNATURE_KEY, bare
from tests.airgap.conftest import Call, recorded
from tests.airgap.fake_docker import FakeDocker

IMAGE = "docker:index/image:Image"
MADE_UP_NAME = re.compile(r"^[\w-]+-[0-9a-f]{7}$")
ORDERED = ("command", "entrypoints", "tests")
"""Lists of the state whose order matters."""
PLUGIN_INTERNALS = ("__meta", "__pulumi_raw_state_delta")
"""What the official plugin keeps in the state for itself. It reads a state without them; the stand-in writes none."""


def identified(call: Call) -> str:
    return f"{call.file}-{call.name}"


def request(message: Any, call: Call) -> Any:
    return json_format.ParseDict(call.request, message, ignore_unknown_fields=True)


def answer(message: Any) -> dict[str, Any]:
    """The response as the recording has it."""
    return dict(json_format.MessageToDict(message))


def as_sets(value: Any) -> Any:
    """The value with its lists sorted, where they are sets for the official plugin."""
    if isinstance(value, dict):
        return {key: item if key in ORDERED else as_sets(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((as_sets(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


def test_the_recordings_are_all_there() -> None:
    assert {method: len(recorded(method)) for method in ("Check", "Diff", "Create", "Read", "Update")} == {
        "Check": 64,
        "Diff": 54,
        "Create": 17,
        "Read": 7,
        "Update": 7,
    }


@pytest.mark.parametrize("call", [call for call in recorded("Check") if call.request["type"] != IMAGE], ids=identified)
def test_check_answers_as_the_official_plugin(stub: Any, call: Call) -> None:
    response, official = answer(stub.Check(request(pb.CheckRequest(), call))), copy.deepcopy(call.response)
    assert official is not None
    if "name" not in call.request["olds"].get("__defaults", []):
        assert MADE_UP_NAME.match(response["inputs"]["name"])
        assert response["inputs"]["name"].startswith(f"{call.name}-")
        official["inputs"]["name"] = response["inputs"]["name"]
    assert response == official


@pytest.mark.parametrize("call", [call for call in recorded("Check") if call.request["type"] == IMAGE], ids=identified)
def test_check_of_an_image_answers_as_the_official_plugin(
    stub: Any, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app").mkdir()
    Path("app/Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    response, official = answer(stub.Check(request(pb.CheckRequest(), call))), copy.deepcopy(call.response)
    assert official is not None
    # The app that was recorded is not here; test_build_context.py is about the digest.
    digest = response["inputs"]["build"]["contextDigest"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    official["inputs"]["build"]["contextDigest"] = digest
    assert response == official


@pytest.mark.parametrize("call", recorded("Diff"), ids=identified)
def test_diff_answers_as_the_official_plugin(stub: Any, call: Call) -> None:
    assert answer(stub.Diff(request(pb.DiffRequest(), call))) == call.response


@pytest.mark.parametrize("call", recorded("Create", "01-create"), ids=identified)
def test_create_writes_the_state_that_the_official_plugin_writes(
    provider: Any, docker: FakeDocker, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(docker, call, tmp_path, monkeypatch)
    assert call.response is not None
    state = answer(provider.Create(request(pb.CreateRequest(), call)).properties)
    assert as_sets(state) == _as_if_recorded(state, call.response["properties"])


@pytest.mark.parametrize("call", recorded("Read", "06-refresh"), ids=identified)
def test_a_refresh_finds_what_the_official_plugin_finds(
    provider: Any, docker: FakeDocker, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(docker, call, tmp_path, monkeypatch)
    assert call.response is not None
    if call.request["type"] == IMAGE:
        created_id = call.request["id"]
    else:
        inputs = pb.CreateRequest(urn=call.request["urn"])
        json_format.ParseDict(call.request["inputs"], inputs.properties)
        created_id = provider.Create(inputs).id
    read = request(pb.ReadRequest(), call)
    read.id = created_id
    response = provider.Read(read)
    assert answer(response.inputs) == call.response["inputs"]
    state = answer(response.properties)
    # The official Terraform provider reads "nothing there" as an empty value, and writes it as null when it creates.
    assert _without_zeroes(as_sets(state)) == _without_zeroes(_as_if_recorded(state, call.response["properties"]))
    assert state.keys() == call.response["properties"].keys() - set(PLUGIN_INTERNALS)


@pytest.mark.parametrize("call", recorded("Update", "04-memory"), ids=identified)
def test_an_update_in_place_writes_the_state_that_the_official_plugin_writes(
    provider: Any, docker: FakeDocker, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(docker, call, tmp_path, monkeypatch)
    update = request(pb.UpdateRequest(), call)
    create = pb.CreateRequest(urn=update.urn, properties=update.old_inputs)
    update.id = provider.Create(create).id
    state = answer(provider.Update(update).properties)
    assert call.response is not None
    assert _without_zeroes(as_sets(state)) == _without_zeroes(_as_if_recorded(state, call.response["properties"]))
    assert docker.containers[update.id]["HostConfig"]["Memory"] == 300 * 1024 * 1024


@pytest.mark.parametrize("call", recorded("Create", "07-broken"), ids=identified)
def test_a_create_that_never_gets_healthy_leads_the_next_update_to_a_replacement(
    provider: Any, docker: FakeDocker, stub: Any, call: Call
) -> None:
    docker.health = {"Status": "starting", "Log": []}
    docker.images["app"] = call.request["properties"]["image"]
    create = request(pb.CreateRequest(), call)
    create.properties["waitTimeout"] = 0
    failed = _init_failure(provider, create)
    next_diff = next(diff for diff in recorded("Diff", "08-broken-again") if diff.name == call.name)
    diff = request(pb.DiffRequest(), next_diff)
    official = stub.Diff(diff)
    diff.olds.CopyFrom(failed.properties)
    assert stub.Diff(diff) == official
    assert official.replaces == ["command", "entrypoints"]


def _init_failure(provider: Any, create: Any) -> Any:
    import grpc
    from pulumi.runtime.proto import status_pb2

    with pytest.raises(grpc.RpcError) as raised:
        provider.Create(create)
    assert "container failed to be in healthy state" in raised.value.details()
    trailers = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    failure = pb.ErrorResourceInitFailed()
    assert status.details[0].Unpack(failure)
    return failure


def _prepare(docker: FakeDocker, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring about what the recorded daemon and project had."""
    monkeypatch.chdir(tmp_path)
    Path("app").mkdir()
    Path("app/Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    properties = (call.response or {}).get("properties", {})
    image = properties.get("image", "")
    docker.images |= {image: image if image.startswith("sha256:") else "sha256:" + "2" * 64}
    docker.image_config = {
        "Cmd": properties.get("command") or None,
        "Entrypoint": properties.get("entrypoints") or None,
        "User": properties.get("user", ""),
        "WorkingDir": properties.get("workingDir", ""),
        "Hostname": properties.get("hostname", ""),
        "StopSignal": properties.get("stopSignal", ""),
    }


def _as_if_recorded(state: dict[str, Any], official: dict[str, Any]) -> dict[str, Any]:
    """The official state, with ids and addresses of the daemon in memory, and without what is the plugin's own."""
    expected = {key: value for key, value in official.items() if key not in PLUGIN_INTERNALS}
    expected["id"] = state.get("id", expected.get("id"))
    if expected.get("id") is None:
        del expected["id"]
    if "repoDigest" in expected:
        expected["repoDigest"] = state["repoDigest"]
    if "__inputs" in expected and SIGNATURE_KEY not in expected["__inputs"]:
        expected["__inputs"] = state["__inputs"]
    for ours, theirs in zip(state.get("networkDatas") or [], expected.get("networkDatas") or [], strict=True):
        theirs.update({key: ours[key] for key in ("ipAddress", "macAddress")})
    return dict(as_sets(expected))


def _without_zeroes(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_zeroes(item) for key, item in bare(value).items()}
        return {key: item for key, item in kept.items() if item}
    return [_without_zeroes(item) for item in value] if isinstance(value, list) else value
