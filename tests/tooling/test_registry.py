"""What tests start beside Docker: installed once, and not left running as a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import docker_engine, registry
from tooling.console import Failure


def test_the_one_that_is_there_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench.fake("docker-registry")
    bench.fake("sshd", folder=tmp_path / "sbin")
    monkeypatch.setattr(docker_engine, "SYSTEM_FOLDERS", str(tmp_path / "sbin"))
    bench.fake("apt-get")
    registry.ensure(bench.root)
    registry.ensure_sshd(bench.root)
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
    registry.ensure_sshd(bench.root)
    assert bench.calls[-2].endswith(" install openssh-server")
    assert bench.calls[-1] == "systemctl disable --now ssh"


def test_who_is_not_root_learns_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fake("apt-get")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Failure) as failure:
        registry.ensure(bench.root)
    assert "sudo apt-get install docker-registry" in failure.value.todo
