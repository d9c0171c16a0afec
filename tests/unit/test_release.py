"""The release as a resource: when it passes the gate again, what it reports, what of it is stored."""

import base64
import json
import subprocess
import sys
import traceback
from typing import Any

import dill  # type: ignore[import-untyped]
import pytest
from docker.errors import DockerException
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime.rpc import UNKNOWN

from infra import docker_host, gate, nginx_config, release
from infra.gate import Rollout
from infra.nginx_config import Endpoints
from infra.refusal import Refused
from infra.release import ReleaseProvider
from infra.site import Site
from tests.unit.program import run

SECRET_OPTIONS = {"docker:host": "ssh://root@elsewhere", "docker:certPath": "/certificates"}


@pytest.fixture(autouse=True)
def _traceback_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)


class FakeGate:
    """Stands for the gate: keeps what was to pass, or refuses it."""

    def __init__(self) -> None:
        self.clients: list[object] = []
        self.passed: list[Rollout] = []
        self.live: str | None = "live text"
        self.error: Exception | None = None

    def __call__(self, client: object, *_: object, **__: object) -> "FakeGate":
        self.clients.append(client)
        return self

    def let_pass(self, rollout: Rollout) -> None:
        if self.error:
            raise self.error
        self.passed.append(rollout)

    def live_configuration(self, nginx: str) -> str | None:
        assert nginx == "id-of-nginx-8080"
        return self.live


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def connect(*args: object, **kwargs: object) -> str:
        assert not args
        made.append(kwargs)
        return "a client"

    monkeypatch.setattr(docker_host, "connect", connect)
    return made


@pytest.fixture
def fake_gate(monkeypatch: pytest.MonkeyPatch, connections: list[dict[str, Any]]) -> FakeGate:
    fake = FakeGate()
    monkeypatch.setattr(gate, "Gate", fake)
    return fake


@pytest.fixture
def props() -> dict[str, Any]:
    """As the program registers them."""
    return run()["release"].inputs


def provider(**options: str) -> ReleaseProvider:
    configured = ReleaseProvider()
    configured.configure(
        ConfigureRequest(Config({f"docker:{key}": value for key, value in options.items()}, "uwsgi-nginx"))
    )
    return configured


# Passing the gate


def test_a_create_passes_the_gate_with_all_that_was_registered(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    created = provider().create(props)
    (rollout,) = fake_gate.passed
    assert rollout.nginx == "id-of-nginx-8080"
    assert [(r.name, r.container, r.socket) for r in rollout.replicas] == [
        (r["name"], r["container"], r["socket"]) for r in props["replicas"]
    ]
    assert len(rollout.replicas) == 2
    assert rollout.configuration == props["configuration"]
    assert rollout.files == nginx_config.live_files(Site(), Endpoints())
    assert [
        name for name in ("uwsgi-1", "uwsgi-2") if f"/.probe/{name}/" not in rollout.probe_files["listen.conf"]
    ] == []
    assert (rollout.health_path, rollout.health_timeout, rollout.drain_timeout) == ("/health", 60, 30)
    assert created.id
    assert created.outs == {**props, "previous": ""}


def test_an_update_passes_the_gate_with_what_is_new(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    news = {**props, "configuration": "new", "healthTimeout": 7}
    updated = provider().update("release", props, news)
    (rollout,) = fake_gate.passed
    assert (rollout.configuration, rollout.health_timeout) == ("new", 7)
    assert updated.outs == {**news, "previous": ""}


def test_who_is_drained_passes_the_gate_as_such(fake_gate: FakeGate) -> None:
    balancing = json.dumps({"drain": ["uwsgi-1", "uwsgi-1"]})
    static = {"static": json.dumps({"/static": "static"}), "appImage": f"sha256:{'7' * 64}"}
    props = run({"balancing": balancing, **static})["release"].inputs
    provider().create(props)
    (rollout,) = fake_gate.passed
    assert (rollout.drained, [replica.name for replica in rollout.serving]) == (["uwsgi-1"], ["uwsgi-2"])
    assert [files.container for files in rollout.static] == [rollout.replicas[1].container], "of one that may be well"


# The image of before


def test_the_image_of_the_release_before_is_remembered(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    def update(olds: dict[str, Any], **news: Any) -> dict[str, Any]:
        # As the engine does it: what the program does not say, it does not hand over.
        return dict(provider().update("release", olds, {**props, **news}).outs or {})

    live = {**props, "image": "sha256:1", "previous": ""}
    live = update(live, image="sha256:2")
    assert live["previous"] == "sha256:1"
    assert update(live, image="sha256:2", configuration="another")["previous"] == "sha256:1"
    fake_gate.error = Refused("uwsgi-1 is restarting")
    with pytest.raises(Refused):
        update(live, image="sha256:3")
    fake_gate.error = None
    live = update(live, image="sha256:1")
    assert live["previous"] == "sha256:2", "back, and forward again"
    assert update(live, image="sha256:4")["previous"] == "sha256:1"


def test_the_image_of_before_is_no_difference_and_a_refresh_keeps_it(
    fake_gate: FakeGate, props: dict[str, Any]
) -> None:
    live = {**props, "previous": "sha256:1"}
    assert provider().diff("release", live, props).changes is False
    assert (provider().read("release", live).outs or {})["previous"] == "sha256:1"


def test_a_state_that_remembers_no_image_is_as_good(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    old = {key: value for key, value in props.items() if key not in ("image", "drained")}
    assert provider().diff("release", old, props).changes is False
    assert (provider().update("release", old, props).outs or {})["previous"] == ""


@pytest.mark.parametrize("operation", ["create", "update"])
def test_a_refusal_fails_the_operation_so_that_the_next_up_tries_again(
    fake_gate: FakeGate, props: dict[str, Any], operation: str
) -> None:
    fake_gate.error = Refused("uwsgi-1 is restarting")
    with pytest.raises(Refused, match="uwsgi-1 is restarting"):
        provider().create(props) if operation == "create" else provider().update("release", props, props)


def test_a_deletion_asks_nobody(fake_gate: FakeGate, props: dict[str, Any], connections: list[dict[str, Any]]) -> None:
    provider().delete("release", props)
    assert connections == []


# What is another release


@pytest.mark.parametrize(
    "news",
    [
        {"configuration": "another"},
        {"files": {"listen.conf": "listen 81;\n"}},
        {"secrets": {"tls/key.pem": "another"}},
        {"nginx": "id-of-another"},
        {"nginx": UNKNOWN},
        {"replicas": []},
        {"replicas": [{"name": "uwsgi-1", "container": UNKNOWN, "socket": "/run/uwsgi/uwsgi-1-066185b3.sock"}]},
    ],
    ids=lambda news: next(iter(news)),
)
def test_what_goes_live_makes_another_release_in_place(props: dict[str, Any], news: dict[str, Any]) -> None:
    difference = provider().diff("release", props, {**props, **news})
    assert difference.changes is True
    assert not difference.replaces
    assert not difference.delete_before_replace


def test_the_same_release_shows_no_difference(props: dict[str, Any]) -> None:
    assert provider().diff("release", props, {**props}).changes is False


@pytest.mark.parametrize("news", [{"healthTimeout": 1}, {"healthPath": "/"}, {"drainTimeout": 1}, {"__provider": "x"}])
def test_how_it_is_tested_and_by_which_code_makes_no_other_release(props: dict[str, Any], news: dict[str, Any]) -> None:
    assert provider().diff("release", props, {**props, **news}).changes is False


def test_a_replica_created_anew_makes_another_release_though_its_socket_is_the_same(props: dict[str, Any]) -> None:
    replicas = [{**replica, "container": "another"} for replica in props["replicas"]]
    assert provider().diff("release", props, {**props, "replicas": replicas}).changes is True


# Refresh


def test_a_refresh_of_what_is_in_force_changes_nothing(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    fake_gate.live = props["configuration"]
    found = provider().read("release", props)
    assert (found.id, found.outs) == ("release", props)


def test_a_configuration_changed_by_hand_shows_as_a_difference_that_up_mends(
    fake_gate: FakeGate, props: dict[str, Any]
) -> None:
    fake_gate.live = "changed by hand"
    found = provider().read("release", props)
    assert found.outs == {**props, "configuration": "changed by hand"}
    assert provider().diff("release", found.outs, props).changes is True


def test_a_refresh_without_an_answer_keeps_what_is_known(fake_gate: FakeGate, props: dict[str, Any]) -> None:
    fake_gate.live = None
    assert provider().read("release", props).outs == props


def test_a_refresh_survives_a_daemon_that_cannot_be_reached(
    props: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(**_: object) -> None:
        raise DockerException("Error while fetching server API version")

    monkeypatch.setattr(docker_host, "connect", connect)
    assert provider().read("release", props).outs == props


# Words


def report(error: Exception) -> str:
    """What Pulumi's dynamic provider hands to the engine of an error."""
    try:
        raise error
    except Exception:
        return traceback.format_exc()


def test_a_refusal_is_reported_in_its_own_words() -> None:
    provider()
    assert report(Refused("uwsgi-1 does not stay up")) == "uwsgi-1 does not stay up"


def test_any_other_error_keeps_its_traceback() -> None:
    provider()
    text = report(ValueError("a bug"))
    assert text.startswith("Traceback")
    assert "ValueError: a bug" in text


def test_configuring_twice_does_no_harm() -> None:
    provider()
    provider()
    assert report(Refused("words")) == "words"
    assert "Traceback" in report(KeyError("x"))


# What is stored


def test_the_provider_is_stored_by_its_name_alone() -> None:
    stored = base64.b64decode(serialize_provider(ReleaseProvider()))
    assert len(stored) < 200
    assert b"infra.release" in stored
    assert b"ReleaseProvider" in stored
    assert type(dill.loads(stored)) is ReleaseProvider


def test_the_provider_is_stored_the_same_every_time() -> None:
    assert serialize_provider(ReleaseProvider()) == serialize_provider(ReleaseProvider())
    registered = {run({"replicas": str(count)})["release"].inputs["__provider"] for count in (1, 3)}
    assert registered == {serialize_provider(ReleaseProvider())}


def test_the_stored_provider_comes_to_life_in_a_process_that_has_only_the_project() -> None:
    stored = run()["release"].inputs["__provider"]
    script = "import base64, sys, dill; print(type(dill.loads(base64.b64decode(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, stored], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "<class 'infra.release.ReleaseProvider'>\n"


def test_to_see_that_nothing_has_changed_its_process_loads_neither_models_nor_templates_nor_the_docker_sdk() -> None:
    stored = run()["release"].inputs["__provider"]
    script = (
        "import base64, sys, dill\n"
        "provider = dill.loads(base64.b64decode(sys.argv[1]))\n"
        "assert not provider.diff('release', {}, {}).changes\n"
        "print(sorted({'docker', 'jinja2', 'pulumi_docker', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, stored], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


# The daemon


@pytest.mark.parametrize(
    ("options", "connection"),
    [
        ({}, {"host": None, "cert_path": None}),
        ({"host": "ssh://root@elsewhere"}, {"host": "ssh://root@elsewhere", "cert_path": None}),
        (
            {"host": "tcp://elsewhere:2376", "certPath": "/certificates"},
            {"host": "tcp://elsewhere:2376", "cert_path": "/certificates"},
        ),
    ],
)
def test_the_gate_talks_to_the_daemon_that_the_plugin_uses(
    fake_gate: FakeGate,
    connections: list[dict[str, Any]],
    props: dict[str, Any],
    options: dict[str, str],
    connection: dict[str, Any],
) -> None:
    configured = provider(**options)
    assert connections == [], "a preview connects to nothing"
    configured.create(props)
    assert connections == [connection]
    assert fake_gate.clients == ["a client"]


def test_the_provider_is_named_after_what_it_is() -> None:
    assert run()["release"].type == "pulumi-python:dynamic:Release"
    assert release.IDENTITY
