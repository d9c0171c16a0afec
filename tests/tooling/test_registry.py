"""The registry for the swarm's tests: installed once, and not left running as a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import docker_engine, registry
from tooling.console import Failure


def test_the_one_that_is_there_is_taken(bench: Bench) -> None:
    bench.fake("docker-registry")
    bench.fake("apt-get")
    registry.ensure(bench.root)
    assert bench.calls == []


def test_it_is_installed_and_its_service_stopped(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = tmp_path / "systemd"
    systemd.mkdir()
    monkeypatch.setattr(docker_engine, "SYSTEMD", systemd)
    bench.fake("apt-get")
    bench.fake("systemctl")
    registry.ensure(bench.root)
    assert bench.calls[-2].endswith(" install docker-registry")
    assert bench.calls[-1] == "systemctl disable --now docker-registry"


def test_who_is_not_root_learns_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fake("apt-get")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Failure) as failure:
        registry.ensure(bench.root)
    assert "sudo apt-get install docker-registry" in failure.value.todo
