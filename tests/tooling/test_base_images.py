"""Official images wherever they can be had; stand-ins only for what cannot, and never for what a user chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from airgap import build_images
from tests.tooling.conftest import Bench, Daemon
from tooling import base_images, docker_engine, machine
from tooling.base_images import StandIns
from tooling.console import Failure
from tooling.docker_engine import Host
from tooling.machine import Machine

UNREACHABLE = 'test "$1" = pull && { echo "lookup registry: no such host"; exit 1; }; exit 0'
BOTH = {"pythonImage": "airgap/python:3.11-slim", "nginxImage": "airgap/nginx:1.31"}


@pytest.fixture
def built(bench: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which stand-ins were asked for."""
    bench.fake_venv()
    asked: list[str] = []

    def ensure(root: Path, kinds: Sequence[str], docker: Mapping[str, str]) -> None:
        asked.extend(kinds)

    monkeypatch.setattr(build_images, "ensure", ensure)
    return asked


def ensure(bench: Bench, stack: str = "dev") -> StandIns:
    return base_images.ensure(bench.root, stack, docker_engine.host())


def test_images_that_are_there_are_neither_pulled_nor_replaced(
    bench: Bench, daemon: Daemon, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.images |= {"python:3.13-slim", "nginx:1.31"}
    bench.fake("docker")
    assert ensure(bench) == StandIns({}, {})
    assert not bench.called("docker")
    assert built == []
    assert capsys.readouterr().err == ""


def test_images_that_can_be_pulled_are_used(bench: Bench, built: list[str]) -> None:
    bench.fake("docker")
    assert ensure(bench) == StandIns({}, {})
    assert bench.called("docker") == ["docker pull python:3.13-slim", "docker pull nginx:1.31"]
    assert built == []


def test_stand_ins_are_built_for_what_cannot_be_had_and_announced(
    bench: Bench, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bench.fake("docker", UNREACHABLE)
    assert ensure(bench) == StandIns(BOTH, BOTH)
    assert sorted(built) == ["nginx", "python"]
    told = capsys.readouterr().err
    assert "airgap/python:3.11-slim stands in for python:3.13-slim" in told
    assert "airgap/nginx:1.31 stands in for nginx:1.31" in told
    assert "no such host" in told


def test_only_what_is_missing_is_stood_in_for(bench: Bench, daemon: Daemon, built: list[str]) -> None:
    daemon.images.add("python:3.13-slim")
    bench.fake("docker", UNREACHABLE)
    assert ensure(bench).machine == {"nginxImage": "airgap/nginx:1.31"}
    assert built == ["nginx"]


def test_a_pull_that_hangs_is_given_up(bench: Bench, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_images, "ANSWER_SECONDS", 0.3)
    bench.fake("docker", "sleep 60")
    assert ensure(bench).machine == BOTH


def test_a_stack_that_has_its_stand_ins_already_is_told_nothing(bench: Bench, built: list[str]) -> None:
    bench.fake("docker", UNREACHABLE)
    lines = "".join(f"  uwsgi-nginx:{key}: {image}\n" for key, image in BOTH.items())
    bench.write("Pulumi.dev.yaml", f"config:\n{lines}")
    assert ensure(bench) == StandIns(BOTH, {})
    assert sorted(built) == ["nginx", "python"]


def test_an_image_of_the_users_choice_is_never_replaced(bench: Bench, daemon: Daemon, built: list[str]) -> None:
    bench.fake("docker", UNREACHABLE)
    bench.write("Pulumi.dev.yaml", "config:\n  uwsgi-nginx:pythonImage: python:3.14-slim\n")
    with pytest.raises(Failure, match=r"Pulumi\.dev\.yaml asks for pythonImage python:3\.14-slim") as failure:
        ensure(bench)
    assert "pulumi config rm pythonImage --stack dev" in failure.value.todo
    daemon.images.add("python:3.14-slim")
    assert ensure(bench).stack == {"nginxImage": "airgap/nginx:1.31"}


def test_a_project_without_defaults_is_named(bench: Bench, built: list[str]) -> None:
    bench.write("Pulumi.yaml", "name: uwsgi-nginx\nruntime: python\n")
    with pytest.raises(Failure, match=r"Pulumi\.yaml or Pulumi\.dev\.yaml cannot be read, or has no default"):
        ensure(bench)


def test_the_projects_own_pulumi_yaml_can_be_read(bench: Bench, built: list[str]) -> None:
    source = Path(__file__).parent.parent.parent / "Pulumi.yaml"
    bench.write("Pulumi.yaml", source.read_text(encoding="utf-8"))
    assert {key: image.name for key, image in base_images.wanted(bench.root, "dev").items()} == {
        "pythonImage": "python:3.13-slim",
        "nginxImage": "nginx:1.31",
    }


def test_tests_read_the_settings_of_this_machine_from_the_record(bench: Bench) -> None:
    assert base_images.settings(bench.root) == {}
    machine.save(bench.root, Machine(stand_ins=BOTH))
    assert base_images.settings(bench.root) == BOTH
    assert bench.calls == []


def test_on_another_daemon_images_are_looked_for_pulled_and_built_there(
    bench: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fake_venv()
    daemon.images |= {"python:3.13-slim", "nginx:1.31"}  # of the machine's own, which do not count
    led: list[str] = []
    monkeypatch.setattr(build_images, "ensure", lambda _root, _kinds, docker: led.append(docker["DOCKER_HOST"]))
    bench.fake("docker", 'test "$DOCKER_HOST" = ssh://lab || exec touch "$0.astray"; exit 1')
    found = base_images.ensure(bench.root, "dev", Host("ssh://lab", "docker:host"))
    assert (found.machine, led) == (BOTH, ["ssh://lab"])
    assert bench.called("docker pull") == ["docker pull python:3.13-slim", "docker pull nginx:1.31"]
    assert not (bench.bin / "docker.astray").exists()


def test_the_daemon_is_asked_whether_stand_ins_are_still_there(bench: Bench, daemon: Daemon) -> None:
    assert not base_images.are_present(BOTH, docker_engine.host())
    daemon.images |= set(BOTH.values())
    assert base_images.are_present(BOTH, docker_engine.host())
