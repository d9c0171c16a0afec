"""The port for HTTPS is tried before NGINX gives up the one that it has."""

import base64
import json
from functools import cache
from typing import Any

import docker
import pytest
from docker.errors import APIError
from pulumi.dynamic.dynamic import serialize_provider
from requests import ConnectionError as NotReached

from infra import docker_host
from infra.published_port import PublishedPortProvider
from infra.refusal import Refused
from tests.unit.certificates import self_signed
from tests.unit.program import Program, run

TAKEN = "listen tcp4 127.0.0.1:8443: bind: address already in use"
NOTHING_CHANGED = "Nothing was changed"


class Container:
    """One on the fake daemon."""

    def __init__(self, daemon: "Daemon", **given: Any) -> None:
        self.daemon, self.given = daemon, given
        self.attrs = {"HostConfig": {"PortBindings": given.get("bindings")}}

    def start(self) -> None:
        self.daemon.events.append("started")
        if self.daemon.error:
            raise self.daemon.error

    def remove(self, *, force: bool) -> None:
        assert force
        self.daemon.events.append("removed")


class Daemon:
    """Its containers that run, what was done to it, and how it fails."""

    def __init__(self) -> None:
        self.containers = self
        self.running: list[Container] = []
        self.asked_for: list[str] = []
        self.created: list[Container] = []
        self.events: list[str] = []
        self.error: Exception | None = None

    def list(self, *, filters: dict[str, list[str]], ignore_removed: bool) -> list[Container]:
        assert ignore_removed, "a container that goes in between would fail it"
        self.asked_for = filters["label"]
        return self.running

    def create(self, image: str, **given: Any) -> Container:
        self.created.append(Container(self, image=image, **given))
        return self.created[-1]

    def runs_nginx(self, http: int, https: int | None) -> None:
        bindings = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(http)}]}
        if https:
            bindings["8443/tcp"] = [{"HostIp": "127.0.0.1", "HostPort": str(https)}]
        self.running.append(Container(self, bindings=bindings))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    made = Daemon()
    monkeypatch.setattr(docker_host, "connect", lambda **_: made)
    return made


@pytest.fixture
def provider() -> PublishedPortProvider:
    made = PublishedPortProvider()
    made._docker = {"host": None, "cert_path": None}
    return made


def program(**config: Any) -> Program:
    certificate, key = self_signed("localhost")
    tls = {"certificate": certificate, "key": key, **config.pop("tls", {})}
    return run({**config, "tls": json.dumps(tls)}, ["tls"])


@cache
def registered() -> Program:
    return program()


def props(**changed: Any) -> dict[str, Any]:
    """As the program registers them."""
    return {**registered()["https-port"].inputs, **changed}


def test_a_free_port_is_held_for_a_moment_by_a_container_that_does_nothing(
    daemon: Daemon, provider: PublishedPortProvider
) -> None:
    provider.create(props(address="10.1.2.3", https=443))
    (created,) = daemon.created
    assert created.given["entrypoint"] == ["true"]
    assert created.given["ports"] == {"8443/tcp": ("10.1.2.3", 443)}
    assert created.given["labels"]["uwsgi-nginx.stack"] == "test"
    assert daemon.events == ["started", "removed"]


def test_a_port_that_is_taken_is_refused_in_dockers_words_and_nothing_is_left(
    daemon: Daemon, provider: PublishedPortProvider
) -> None:
    daemon.error = APIError("500", explanation=TAKEN)
    for attempt in (lambda: provider.create(props()), lambda: provider.update("id", props(https=1), props())):
        with pytest.raises(Refused, match=TAKEN) as refused:
            attempt()
        assert "tls.port: Docker does not publish 8443" in str(refused.value)
        assert NOTHING_CHANGED in str(refused.value)
    assert daemon.events == ["started", "removed"] * 2


def test_a_daemon_that_is_away_is_told_in_words(daemon: Daemon, provider: PublishedPortProvider) -> None:
    daemon.error = NotReached("no route")
    with pytest.raises(Refused, match="no route"):
        provider.create(props())


def test_a_port_that_this_stacks_own_nginx_has_is_free_for_its_successor(
    daemon: Daemon, provider: PublishedPortProvider
) -> None:
    daemon.runs_nginx(8080, 8443)
    provider.create(props())
    assert daemon.created == []
    assert set(daemon.asked_for) == {
        "uwsgi-nginx.project=uwsgi-nginx",
        "uwsgi-nginx.stack=test",
        "uwsgi-nginx.role=nginx",
    }


@pytest.mark.parametrize("https", [None, 9443])
def test_an_nginx_that_has_another_port_says_nothing_of_this_one(
    daemon: Daemon, provider: PublishedPortProvider, https: int | None
) -> None:
    daemon.runs_nginx(8080, https)
    provider.create(props())
    assert len(daemon.created) == 1


def test_the_port_for_http_alone_cannot_be_changed_and_why(daemon: Daemon, provider: PublishedPortProvider) -> None:
    daemon.runs_nginx(8080, 8443)
    with pytest.raises(Refused, match="NGINX on port 8080 keeps 8443 until the one on port 8081 stands") as refused:
        provider.update("id", props(), props(http=8081))
    assert "Change both ports at once" in str(refused.value)
    provider.update("id", props(), props(http=8081, https=8444))


@pytest.mark.parametrize(
    ("changed", "tried"),
    [
        ({}, False),
        ({"image": "sha256:other"}, False),
        ({"https": 443}, True),
        ({"http": 8081}, True),
        ({"address": "0.0.0.0"}, True),
    ],
)
def test_it_is_tried_again_where_nginx_is_to_listen_somewhere_else(
    provider: PublishedPortProvider, changed: dict[str, Any], tried: bool
) -> None:
    difference = provider.diff("id", props(), props(**changed))
    assert (bool(difference.changes), difference.replaces) == (tried, [])


def test_nginx_waits_for_it_and_it_is_there_only_where_docker_publishes_https() -> None:
    published = program(tls={"port": 9443})
    assert "https-port" in published["nginx-8080"].dependencies
    inputs = published["https-port"].inputs
    assert (inputs["address"], inputs["http"], inputs["https"]) == ("127.0.0.1", 8080, 9443)
    assert published["https-port"].parent == "load-balancer"
    assert "https-port" not in program(publish="host").types
    assert "https-port" not in run().types


def test_the_state_stores_the_provider_by_name_without_the_docker_sdk() -> None:
    stored = base64.b64decode(serialize_provider(PublishedPortProvider()))
    assert b"infra.published_port" in stored
    assert docker.__name__.encode() + b"." not in stored
