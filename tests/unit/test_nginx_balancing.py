"""The rendered groups of replicas: how each method shares the requests, what every one of them has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra import nginx_config
from infra.nginx_config import Endpoints
from infra.settings import Settings, SettingsError
from infra.site import Site
from tests.unit.test_nginx_config import RELEASE, REPLICAS, SERVICE, Block, parse

METHODS = ["roundRobin", "leastConnections", "clientAddress", "sticky"]
TLS = {"certificate": "in PEM", "key": "in PEM"}


def rendered(**site: Any) -> str:
    return nginx_config.render(REPLICAS, site=Site.model_validate(site), release=RELEASE)


def in_a_swarm(**site: Any) -> str:
    return nginx_config.render([SERVICE], site=Site.model_validate(site), release="any")


def http(folder: Path, configuration: str) -> Block:
    return parse(folder, nginx_config.live_files(Site(), Endpoints()), configuration).block("http")


def upstream(folder: Path, **site: Any) -> Block:
    return http(folder, rendered(**site)).block("upstream", "app")


def directives(text: str) -> list[str]:
    """Those of the group, in order, as they are written; comments left out."""
    lines = text[text.index("upstream app {") :].splitlines()
    lines = [line.strip() for line in lines[1 : lines.index("    }")]]
    return [line for line in lines if not line.startswith("#")]


def test_nothing_set_is_round_robin() -> None:
    assert rendered() == rendered(balancing={"method": "roundRobin"})


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("roundRobin", []),
        ("leastConnections", ["least_conn;"]),
        ("clientAddress", ["hash $remote_addr consistent;"]),
        ("sticky", ["sticky cookie uwsgi_replica path=/ httponly samesite=lax;"]),
    ],
)
@pytest.mark.parametrize(
    ("render", "zone", "servers"),
    [
        (
            rendered,
            "256k",
            [
                "server unix:/run/uwsgi/uwsgi-1-0123abcd.sock max_fails=0;",
                "server unix:/run/uwsgi/uwsgi-2-0123abcd.sock max_fails=0;",
            ],
        ),
        (in_a_swarm, "4m", ["server app:8000 resolve max_fails=3 fail_timeout=2s;"]),
    ],
    ids=["host", "swarm"],
)
def test_each_method_is_one_directive(
    render: Callable[..., str], zone: str, servers: list[str], method: str, said: list[str]
) -> None:
    assert directives(render(balancing={"method": method})) == [f"zone app {zone};", *said, *servers]


@pytest.mark.parametrize("method", METHODS)
def test_in_a_swarm_dockers_dns_says_each_second_who_the_replicas_are(method: str, tmp_path: Path) -> None:
    found = http(tmp_path, in_a_swarm(balancing={"method": method}))
    assert found.one("resolver") == ["127.0.0.11", "valid=1s", "ipv6=off"]
    assert found.one("resolver_timeout") == ["2s"]
    assert found.block("upstream", "app").one("zone")[0] == "app", "names are looked up for a shared group alone"


def test_on_one_host_nothing_is_looked_up(tmp_path: Path) -> None:
    assert http(tmp_path, rendered()).all("resolver") == []


@pytest.mark.parametrize("method", METHODS)
def test_with_every_method_workers_share_one_zone_and_forget_who_failed(method: str, tmp_path: Path) -> None:
    group = upstream(tmp_path, balancing={"method": method, "weights": {"uwsgi-2": 7}})
    assert group.one("zone") == ["app", "256k"]
    assert group.all("server") == [
        [f"unix:{REPLICAS[0].socket}", "max_fails=0"],
        [f"unix:{REPLICAS[1].socket}", "weight=7", "max_fails=0"],
    ]


@pytest.mark.parametrize("method", METHODS)
def test_who_is_drained_is_down_with_every_method_and_weight(method: str, tmp_path: Path) -> None:
    balancing = {"method": method, "weights": {"uwsgi-2": 7}, "drain": ["uwsgi-2"]}
    assert upstream(tmp_path, balancing=balancing).all("server") == [
        [f"unix:{REPLICAS[0].socket}", "max_fails=0"],
        [f"unix:{REPLICAS[1].socket}", "weight=7", "max_fails=0", "down"],
    ]


@pytest.mark.parametrize(
    ("tls", "secure"),
    [({}, False), (TLS, True), ({**TLS, "redirect": True}, True), ({**TLS, "redirect": False}, False)],
)
def test_the_cookie_is_for_https_alone_where_nobody_is_answered_by_http(
    tls: dict[str, Any], secure: bool, tmp_path: Path
) -> None:
    group = upstream(tmp_path, balancing={"method": "sticky"}, tls=tls)
    assert ("secure" in group.one("sticky")) is secure


# Settings


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.parse({key: json.dumps(value) for key, value in values.items()})
    return str(refused.value)


@pytest.mark.parametrize(
    ("replicas", "name", "there"),
    [
        (2, "uwsgi-3", "uwsgi-1 to uwsgi-2"),
        (1, "uwsgi-2", "uwsgi-1"),
        (2, "uwsgi-canary-1", "uwsgi-1 to uwsgi-2"),
        (9, "uwsgi-01", "uwsgi-1 to uwsgi-9"),
    ],
)
@pytest.mark.parametrize("key", ["weights", "drain"])
def test_a_replica_that_is_not_there_is_refused_with_those_that_are(
    key: str, replicas: int, name: str, there: str
) -> None:
    message = refusal(replicas=replicas, balancing={key: {name: 2} if key == "weights" else [name]})
    assert message.endswith(f"\n  balancing.{key} has {name}, but replicas is {replicas}: {there}")


@pytest.mark.parametrize(("replicas", "there"), [(1, "uwsgi-1"), (2, "uwsgi-1 to uwsgi-2")])
def test_not_all_replicas_are_drained(replicas: int, there: str) -> None:
    drained = [f"uwsgi-{number}" for number in range(replicas, 0, -1)]
    message = refusal(replicas=replicas, balancing={"drain": drained})
    assert message.endswith(f"\n  balancing.drain has all replicas ({there}): nobody would be left to answer")


def test_all_replicas_but_one_can_be_drained_and_twice_is_once() -> None:
    drained = ["uwsgi-3", "uwsgi-1", "uwsgi-3"]
    parsed = Settings.parse({"replicas": "3", "balancing": json.dumps({"drain": drained})})
    assert parsed.balancing.drain == tuple(drained)


def test_a_weight_of_each_replica_is_accepted() -> None:
    weights = {"uwsgi-1": 1, "uwsgi-3": 100}
    parsed = Settings.parse({"replicas": "3", "balancing": json.dumps({"weights": weights})})
    assert parsed.balancing.weights == weights
