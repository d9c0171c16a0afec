"""`make doctor` of a stack that serves: all is well; and then what it says of each thing that is broken."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.live.stack import LOOPBACK, ROOT, Stack, free_port
from tests.live.test_interrupted import Interrupted, recover, release
from tests.live.test_operations import make

QUICK = 5  # seconds


@pytest.fixture(scope="module")
def ready(running: Stack) -> Stack:
    """The stack with short time-outs, and with what the command knows of the machine."""
    running.configure(drainTimeout="5", healthTimeout="20")
    running.up()
    (running.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", running.folder / ".local")
    shutil.copy2(ROOT / "requirements.txt", running.folder)
    return running


def doctor(stack: Stack, wrong: set[str]) -> dict[str, str]:
    """The text of each finding; those of `wrong` are failures, and nothing else is one."""
    result = make(stack, "doctor", "--json")
    assert result.seconds < QUICK, result.output
    found = json.loads(result.output)
    assert {finding["check"] for finding in found if finding["status"] == "FAIL"} == wrong, result.output
    assert result.code == int(bool(wrong))
    assert all(finding["todo"] for finding in found if finding["status"] in ("warn", "FAIL"))
    return {finding["check"]: f"{finding['status']} {finding['facts']}\n{finding['todo']}" for finding in found}


@contextmanager
def configured(stack: Stack, **settings: str) -> Iterator[None]:
    """With other settings for a while; nothing is deployed."""
    file = stack.folder / f"Pulumi.{stack.name}.yaml"
    before = file.read_text()
    stack.configure(**settings)
    yield
    file.write_text(before)


def test_of_a_stack_that_serves_all_is_well(ready: Stack) -> None:
    found = doctor(ready, set())
    assert "warn" not in {text.split()[0] for text in found.values()}, found
    assert found["port"].startswith(f"ok {ready.port} is this stack's: {ready.nginx.name}")
    assert found["containers"].startswith("ok all 3 run")
    assert found["passphrase"].startswith("ok ")
    assert found["lock"] == "ok free\n"
    told = make(ready, "doctor")
    assert told.code == 0
    assert told.output.splitlines()[-1] == "Wrong: nothing. Warnings: none."
    assert set(ready.up().changes) == {"unchanged"}


def test_a_port_that_a_container_has_is_named_with_it(ready: Stack) -> None:
    taken = free_port()
    server = ready.docker.containers.run(
        ready.outputs()["image"],
        ["python", "-m", "http.server", "8000"],
        entrypoint="",
        detach=True,
        ports={"8000/tcp": (LOOPBACK, taken)},
    )
    try:
        with configured(ready, port=str(taken)):
            found = doctor(ready, {"port"})
    finally:
        server.remove(force=True)
    assert f"{taken} is taken by the container {server.name}" in found["port"]
    assert "pulumi config set port " in found["port"]


def test_a_replica_that_is_down_is_named(ready: Stack) -> None:
    ready.replica("uwsgi-2").stop(timeout=1)
    found = doctor(ready, {"containers"})
    assert "uwsgi-2 is exited" in found["containers"]
    assert f"pulumi up --refresh --stack {ready.name}" in found["containers"]
    ready.up("--refresh")
    doctor(ready, set())


def test_a_lock_that_a_killed_update_has_left_is_told_from_one_of_an_update_that_runs(ready: Stack) -> None:
    release(ready)
    update = Interrupted(ready, "waiting for health")
    assert "warn an update runs" in doctor(ready, set())["lock"]
    update.by(signal.SIGKILL)
    found = doctor(ready, {"lock", "state"})
    assert f"process {update.process.pid}" in found["lock"]
    assert "an update was cut off: pending operations: " in found["state"]
    assert f"make recover STACK={ready.name}" in found["lock"]
    assert recover(ready).code == 0
    doctor(ready, set())


def test_a_passphrase_that_is_another_ones_is_told(ready: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ready.environment, "PULUMI_CONFIG_PASSPHRASE", "wrong")
    assert "incorrect passphrase" in doctor(ready, {"passphrase"})["passphrase"]


def test_a_daemon_that_is_not_reached_is_told_once(ready: Stack) -> None:
    with configured(ready, **{"docker:host": "tcp://127.0.0.1:1"}):
        found = doctor(ready, {"daemon"})
    assert f"tcp://127.0.0.1:1 (docker:host in Pulumi.{ready.name}.yaml) is not reached" in found["daemon"]
    assert f"pulumi config get docker:host --stack {ready.name}" in found["daemon"]
    assert found["containers"] == "- not looked at: the daemon is not reached\n"
