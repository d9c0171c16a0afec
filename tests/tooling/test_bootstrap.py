"""A machine is made ready once; after that it takes a look, and no process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.tooling.conftest import Bench, Daemon
from tooling import base_images, bootstrap, console, docker_engine, files, machine, pulumi_cli, stack, venv
from tooling.base_images import StandIns
from tooling.console import Failure
from tooling.docker_engine import Host
from tooling.pulumi_cli import Cli

STAND_INS = {"nginxImage": "airgap/nginx:1.31"}


@pytest.fixture
def ready(bench: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A clone that has been made ready, the costly steps being told and not done."""
    for name in bootstrap._SOURCES:
        if not (bench.root / name).exists() and name.endswith(".py"):
            bench.write(name, "")
    bench.fake_venv()
    files.write(bench.root / ".venv" / venv._STAMP, venv.fingerprint(bench.root))
    engine = bench.fake("pulumi", folder=bench.root / ".local/bin")
    # Before there are two tracks: what one of them was writing could not be started ("text file busy").
    for name in ("pulumi-step", "images-step", "docker"):
        bench.fake(name)

    def pulumi(root: Path) -> Cli:
        console.run(["pulumi-step"], timeout=5)
        return Cli(str(engine.parent), "airgap", str(root / ".local/pulumi-home"))

    def images(root: Path, name: str, where: Host) -> StandIns:
        console.run(["images-step"], timeout=5)
        daemon.images |= set(STAND_INS.values())
        return StandIns(STAND_INS, STAND_INS)

    monkeypatch.setattr(pulumi_cli, "ensure", pulumi)
    monkeypatch.setattr(base_images, "ensure", images)
    bootstrap.ensure(bench.root, "dev")
    # What `pulumi stack select --create` leaves.
    bench.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    assert set(bench.calls[:2]) == {"pulumi-step ", "images-step "}
    assert bench.calls[2:] == [
        "pulumi --non-interactive stack select --create dev",
        "pulumi --non-interactive config set nginxImage airgap/nginx:1.31 --stack dev",
    ]
    bench.calls_file.unlink()
    return bench


def test_the_record_says_what_was_found(ready: Bench) -> None:
    known = machine.load(ready.root)
    assert (known.origin, known.stand_ins) == ("airgap", STAND_INS)
    assert set(known.stacks) == {"dev"}


def test_a_second_run_starts_no_process_and_says_nothing(ready: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = time.monotonic()
    bootstrap.ensure(ready.root, "dev")
    assert time.monotonic() - before < 0.5
    assert ready.calls == []
    assert capsys.readouterr().err == ""


def test_another_stack_costs_no_new_search_for_the_cli(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
    bootstrap.ensure(ready.root, "prod")
    assert not ready.called("pulumi-step")
    assert ready.called("pulumi --non-interactive stack select --create prod")
    assert set(machine.load(ready.root).stacks) == {"dev", "prod"}


@pytest.mark.parametrize("change", ["pulumi", "go.mod", "requirements.txt", "no engine"])
def test_what_the_record_rests_on_is_watched(ready: Bench, change: str) -> None:
    if change == "pulumi":
        ready.fake("pulumi")  # the user has installed one
    elif change == "no engine":
        (ready.root / ".local/bin/pulumi").unlink()
    elif change == "go.mod":
        ready.write("airgap/engine/go.mod", "module engine\n")
    else:
        ready.write("requirements.txt", "pulumi==3.273.0\npulumi-docker==5.2.0\n")
    assert not bootstrap._is_ready(ready.root, "dev")


def test_stand_in_images_that_were_pruned_are_made_again(ready: Bench, daemon: Daemon) -> None:
    daemon.images.clear()
    bootstrap.ensure(ready.root, "dev")
    assert ready.called("images-step")
    assert not ready.called("pulumi-step")


def test_an_edited_stack_file_is_looked_at_again(ready: Bench) -> None:
    ready.write("Pulumi.dev.yaml", "config: {}\n")
    bootstrap.ensure(ready.root, "dev")
    assert ready.called("images-step")


def test_a_stack_that_was_removed_is_created_again(ready: Bench) -> None:
    (ready.root / ".local/state/.pulumi/stacks/uwsgi-nginx/dev.json").unlink()
    bootstrap.ensure(ready.root, "dev")
    assert ready.called("pulumi --non-interactive stack select --create dev")


def on_another_daemon(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
    ready.write("Pulumi.lab.yaml", "config:\n  docker:host: ssh://lab\n")
    ready.fake("docker", 'test "$DOCKER_HOST" = ssh://lab')
    bootstrap.ensure(ready.root, "lab")


def test_a_stack_on_another_daemon_has_its_images_there(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Host] = []

    def images(_root: Path, _name: str, where: Host) -> StandIns:
        asked.append(where)
        return StandIns({"nginxImage": "airgap/nginx:there"}, {})

    monkeypatch.setattr(base_images, "ensure", images)
    on_another_daemon(ready, monkeypatch)
    assert [where.url for where in asked] == ["ssh://lab"]
    known = machine.load(ready.root)
    assert (known.stand_ins, known.elsewhere) == (STAND_INS, {"ssh://lab": {"nginxImage": "airgap/nginx:there"}})
    assert known.docker_host == ""
    ready.write(".local/state/.pulumi/stacks/uwsgi-nginx/lab.json", "{}")
    assert bootstrap._is_ready(ready.root, "lab")
    assert ready.called("docker image inspect airgap/nginx:there")


def test_a_stack_on_another_daemon_needs_none_on_the_machine(
    ready: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ready.root / ".local/machine.json").unlink()
    daemon.stop()
    on_another_daemon(ready, monkeypatch)
    assert not bootstrap._is_ready(ready.root, None), "nobody has looked for the machine's own"
    assert machine.load(ready.root).stand_ins is None


def test_a_damaged_record_is_no_record(ready: Bench) -> None:
    ready.write(".local/machine.json", '{"pulumi": ')
    assert not bootstrap._is_ready(ready.root, "dev")
    bootstrap.ensure(ready.root, "dev")
    assert ready.called("pulumi-step")


def test_a_failure_is_not_kept_waiting_for_the_other_track(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (ready.root / ".local/machine.json").unlink()

    def compiling(root: Path) -> Cli:
        console.run(["sleep", "60"], timeout=60)
        return Cli("", "")

    def broken(root: Path, own: Host | None) -> Host:
        time.sleep(0.3)
        raise Failure("Docker does not start.")

    monkeypatch.setattr(pulumi_cli, "ensure", compiling)
    monkeypatch.setattr(docker_engine, "ensure", broken)
    before = time.monotonic()
    with pytest.raises(Failure, match="Docker does not start"):
        bootstrap.ensure(ready.root, "dev")
    assert time.monotonic() - before < 15
    assert not stack.path_folders(ready.root)[0]
