"""What is wrong outside the stack: the message says what to do, what ran goes on, and the next good `up` works."""

import socket
from collections.abc import Iterator

import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import Result, Stack, eventually, free_port
from tooling import hints


def assert_told(refused: Result, *words: str) -> None:
    """It failed, its output and what `make` adds to it have these words, and nobody has to read our source."""
    assert refused.code != 0, refused.output
    todo = hints.advice(refused.output, "dev")
    errors = [line for line in refused.output[refused.output.find("Diagnostics:") :].splitlines() if "rror" in line]
    print("", *errors, f"What to do: {todo}", sep="\n")
    for word in words:
        assert word in refused.output + todo
    assert todo, refused.output
    assert "Traceback" not in refused.output


@pytest.fixture
def untouched(running: Stack) -> Iterator[Stack]:
    """The running stack: under load all the time, not one request fails and no container is replaced or left over."""
    before = {container.id for container in running.containers()}
    with Load(running.port, slow=1, pause=0.05) as load:
        yield running
    load.assert_nothing_was_dropped(at_least=100)
    assert {container.id for container in running.containers()} == before


def test_a_first_update_on_a_port_that_is_taken_says_who_has_it_and_the_next_one_works(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        refused = stack.up(check=False)
        assert_told(refused, "address already in use", f"Port {stack.port} is taken by ", "pulumi config set port ")
    stack.up()
    assert set(stack.answering(10)) == {"uwsgi-1", "uwsgi-2"}
    assert len(stack.containers()) == 3


def test_a_change_to_a_port_that_a_process_has(untouched: Stack, record: Record) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        untouched.configure(port=str(port))
        for _ in range(2):
            assert_told(untouched.up(check=False), "address already in use", f"Port {port} is taken by ")
    untouched.configure(port=str(untouched.port))
    assert "create" not in untouched.up().changes


def test_a_change_to_a_port_that_a_container_has(untouched: Stack) -> None:
    port = free_port()
    holder = untouched.docker.containers.create(
        untouched.outputs()["image"], ["300"], entrypoint=["sleep"], ports={"80/tcp": ("127.0.0.1", port)}
    )
    try:
        holder.start()
        untouched.configure(port=str(port))
        assert_told(untouched.up(check=False), "is already allocated", f"is taken by the container {holder.name}")
    finally:
        holder.remove(force=True)
    untouched.configure(port=str(untouched.port))
    untouched.up()


@pytest.mark.parametrize("key", ["pythonImage", "nginxImage"])
def test_a_base_image_that_does_not_exist(untouched: Stack, key: str) -> None:
    before = untouched.pulumi("config", "get", key).output.strip()
    # A registry that is there on no machine, so that the message is the same on all.
    untouched.configure(**{key: "127.0.0.1:9/nobody/nothing:1"})
    try:
        assert_told(untouched.up(check=False), "127.0.0.1:9", f"pulumi config set {key} NAME:TAG")
    finally:
        untouched.configure(**{key: before})
    assert set(untouched.up().changes) <= {"unchanged", "update"}


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("flask==99.0", "No matching distribution found for flask==99.0"),
        ("flask ==== 1", "Invalid requirement: 'flask ==== 1'"),
    ],
)
def test_requirements_that_cannot_be_installed(untouched: Stack, requirement: str, message: str) -> None:
    file = untouched.folder / "app" / "requirements.txt"
    good = file.read_text()
    file.write_text(requirement + "\n")
    try:
        refused = untouched.up(check=False)
        assert_told(
            refused, message, "pip --python /opt/venv/bin/python install", "docker build --file uwsgi/Dockerfile"
        )
    finally:
        file.write_text(good)
    assert set(untouched.up().changes) <= {"unchanged", "update"}


def test_a_docker_daemon_that_is_not_there(untouched: Stack) -> None:
    up, preview, refresh = ["up", "--yes", "--skip-preview"], ["preview"], ["refresh", "--yes", "--skip-preview"]
    try:
        for host, commands in {
            "unix:///nowhere/docker.sock": [up, preview, refresh],
            "tcp://127.0.0.1:9": [up],
        }.items():
            untouched.configure(**{"docker:host": host})
            for command in commands:
                refused = untouched.pulumi(*command, check=False)
                assert_told(refused, f"docker --host {host} version", "pulumi config get docker:host")
    finally:
        untouched.configure(**{"docker:host": ""})
    named = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    refused = untouched.pulumi(*up, check=False, environment=named)
    assert_told(refused, f"docker --host {named['DOCKER_HOST']} version", "DOCKER_HOST")
    assert set(untouched.up().changes) == {"unchanged"}


def test_a_passphrase_that_is_wrong(untouched: Stack) -> None:
    for passphrase in ("wrong", ""):
        wrong = {"PULUMI_CONFIG_PASSPHRASE": passphrase}
        refused = untouched.pulumi("up", "--yes", "--skip-preview", check=False, environment=wrong)
        assert_told(refused, "incorrect passphrase", "export PULUMI_CONFIG_PASSPHRASE")


def test_an_update_while_another_one_runs(untouched: Stack) -> None:
    process = untouched.start("up", "--yes", "--refresh")
    locks = untouched.folder.parent / "state" / ".pulumi" / "locks"
    try:
        eventually(lambda: list(locks.rglob("*.json")), 30, "the first update has the lock")
        assert_told(untouched.up(check=False), "locked by", "make recover")
    finally:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
