"""The stack's backend, its passphrase, and what a shell is told."""

from __future__ import annotations

import subprocess

import pytest

from tests.tooling.conftest import Bench
from tooling import machine, stack
from tooling.console import Failure
from tooling.docker_engine import Host
from tooling.machine import Machine


@pytest.fixture
def ready(bench: Bench) -> Bench:
    """A clone on a machine where the stand-ins are used."""
    local = bench.root / ".local"
    machine.save(
        bench.root, Machine(pulumi=str(local / "bin"), origin="airgap", pulumi_home=str(local / "pulumi-home"))
    )
    return bench


def test_the_state_stays_in_the_clone_unless_the_user_says_otherwise(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.environment(ready.root)["PULUMI_BACKEND_URL"] == f"file://{ready.root}/.local/state"
    assert stack.is_local(ready.root)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://states")
    assert stack.environment(ready.root)["PULUMI_BACKEND_URL"] == "s3://states"
    assert not stack.is_local(ready.root)


def test_a_backend_in_pulumi_yaml_is_left_to_the_cli(ready: Bench) -> None:
    ready.write("Pulumi.yaml", "name: uwsgi-nginx\nbackend:\n  url: s3://states\n")
    assert "PULUMI_BACKEND_URL" not in stack.environment(ready.root)
    assert not stack.is_local(ready.root)


def test_who_is_logged_in_elsewhere_is_told_where_the_stack_is(ready: Bench) -> None:
    credentials = ready.home / ".pulumi/credentials.json"
    credentials.parent.mkdir()
    credentials.write_text('{"current": "https://cloud.example"}', encoding="utf-8")
    told: list[str] = []
    stack.hint(ready.root, told.append)
    assert "PULUMI_BACKEND_URL=https://cloud.example" in told[0]


def test_only_the_local_dev_stack_has_a_default_passphrase(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack.environment(ready.root, "dev")["PULUMI_CONFIG_PASSPHRASE"] == stack.DEV_PASSPHRASE
    assert "PULUMI_CONFIG_PASSPHRASE" not in stack.environment(ready.root, "prod")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://states")
    assert "PULUMI_CONFIG_PASSPHRASE" not in stack.environment(ready.root, "dev")


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
@pytest.mark.parametrize("value", ["mine", ""])
def test_a_passphrase_of_the_users_own_is_kept(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert "PULUMI_CONFIG_PASSPHRASE" not in stack.environment(ready.root, "dev")


def test_a_stack_without_a_passphrase_is_refused_in_words(ready: Bench) -> None:
    with pytest.raises(Failure, match="stack prod need a passphrase") as failure:
        stack.ensure(ready.root, "prod", {})
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in failure.value.todo


def test_the_stack_is_selected_or_created_and_pointed_at_its_images(ready: Bench) -> None:
    ready.fake("pulumi")
    stack.ensure(ready.root, "dev", {"nginxImage": "airgap/nginx:1.31"})
    assert ready.calls == [
        "pulumi --non-interactive stack select --create dev",
        "pulumi --non-interactive config set nginxImage airgap/nginx:1.31 --stack dev",
    ]
    assert stack.state_folder(ready.root).is_dir()


def test_another_passphrase_than_the_stacks_is_explained(ready: Bench) -> None:
    ready.fake("pulumi", "echo 'error: incorrect passphrase' >&2; exit 255")
    with pytest.raises(Failure, match="incorrect passphrase") as failure:
        stack.ensure(ready.root, "dev", {})
    assert "Set the passphrase that Pulumi.dev.yaml was made with" in failure.value.todo
    assert failure.value.log


def test_a_shell_takes_over_the_environment_whatever_is_in_it(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    awkward = """it's "$HOME" `ls` \\ & a
line"""
    machine.save(
        ready.root,
        Machine(pulumi=f"/x y/{awkward}/bin", pulumi_home=awkward, helpers="/he lp'ers", docker_host="ssh://h"),
    )
    shows = 'printf "%s\\0" "$PATH" "$PULUMI_HOME" "$DOCKER_HOST" "$PULUMI_BACKEND_URL"'
    script = f"{stack.exports(ready.root, 'dev')}\n{shows}"
    said = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    assert said.stdout.split("\0")[:-1] == [
        f"/x y/{awkward}/bin:/usr/bin:/he lp'ers",
        awkward,
        "ssh://h",
        f"file://{ready.root}/.local/state",
    ]


def test_a_users_own_pulumi_keeps_its_place_on_the_path(bench: Bench) -> None:
    machine.save(bench.root, Machine(pulumi=str(bench.bin), origin="path"))
    assert stack.environment(bench.root)["PATH"] == str(bench.bin)
    assert "PULUMI_HOME" not in stack.environment(bench.root)
    assert "export PATH" not in stack.exports(bench.root, "dev")


def test_reading_the_environment_runs_nothing(ready: Bench) -> None:
    for name in ("pulumi", "docker", "python3"):
        ready.fake(name)
    stack.environment(ready.root)
    assert ready.calls == []


def test_the_plugin_is_told_of_a_docker_context_which_it_does_not_know() -> None:
    assert stack.docker_host(Host("ssh://lab", "Docker's context lab")) == "ssh://lab"
    assert stack.docker_host(Host("ssh://lab", "DOCKER_HOST")) == ""
    assert stack.docker_host(Host("unix:///var/run/docker.sock")) == ""


def test_the_stack_is_found_in_the_local_state(bench: Bench) -> None:
    assert not stack.exists(bench.root, "dev")
    bench.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    assert stack.exists(bench.root, "dev")
    assert not stack.exists(bench.root, "prod")
