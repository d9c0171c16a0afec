"""The daemon that a stack names is the one that every command is led to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import configuration, stack
from tooling.docker_engine import Host


def names(bench: Bench, *settings: str) -> Host | None:
    lines = "".join(f"  {setting}\n" for setting in settings)
    bench.write("Pulumi.lab.yaml", f"config:\n{lines}")
    return configuration.own_daemon(bench.root, "lab")


def test_a_stack_that_names_none_has_the_machines(bench: Bench) -> None:
    assert names(bench, "uwsgi-nginx:port: 9000") is None
    assert "DOCKER_HOST" not in stack.environment(bench.root, "lab")


def test_docker_host_is_where_dockers_own_client_is_led_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:1")
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert names(bench, "docker:host: ssh://root@lab:2222")
    environment = stack.full_environment(bench.root, "lab")
    assert (environment["DOCKER_HOST"], environment["DOCKER_CONTEXT"]) == ("ssh://root@lab:2222", "")
    assert stack.full_environment(bench.root, "dev")["DOCKER_HOST"] == "tcp://elsewhere:1"
    assert bench.calls == []


@pytest.mark.parametrize(
    ("written", "meant"), [("/certs", "/certs"), ("~/certs", "{home}/certs"), ("certs", "{root}/certs")]
)
def test_certificates_are_where_the_plugin_finds_them(bench: Bench, written: str, meant: str) -> None:
    daemon = names(bench, "docker:host: tcp://lab:2376", f"docker:certPath: {written}")
    assert daemon
    path = meant.format(home=Path.home(), root=bench.root)
    assert daemon.environment == {
        "DOCKER_HOST": "tcp://lab:2376",
        "DOCKER_CERT_PATH": path,
        "DOCKER_TLS_VERIFY": "1",
    }


@pytest.mark.parametrize(
    ("url", "by_hand"),
    [
        ("ssh://lab", "ssh lab docker version"),
        ("ssh://root@lab:2222", "ssh -p 2222 root@lab docker version"),
        ("tcp://lab:2375", "DOCKER_HOST=tcp://lab:2375 docker version"),
    ],
)
def test_a_person_can_try_by_hand(url: str, by_hand: str) -> None:
    assert Host(url).by_hand.startswith(by_hand)


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        (["docker:host: ssh://root@lab:2222"], "ssh -N -L 8080:127.0.0.1:8080 -p 2222 root@lab"),
        (
            ["docker:host: ssh://lab", "uwsgi-nginx:tls:", "  certificateFile: a.pem", "  port: 443"],
            "ssh -N -L 443:127.0.0.1:443 lab",
        ),
        (["docker:host: ssh://lab", "uwsgi-nginx:publishAddress: 0.0.0.0"], ""),
        (["docker:host: tcp://lab:2376"], ""),
        (["uwsgi-nginx:port: 9000"], ""),
    ],
)
def test_what_only_the_docker_host_reaches_has_a_way_to_it(bench: Bench, settings: list[str], way: str) -> None:
    names(bench, *settings)
    assert configuration.way_to_loopback(bench.root, "lab") == way
