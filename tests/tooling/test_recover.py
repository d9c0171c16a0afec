"""What `make recover` takes for an orphan, and what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.conftest import Bench
from tooling import recover
from tooling.console import Failure
from tooling.recover import CONTAINER, PROVIDER, VOLUME, Found, Recovery, State

URN = "urn:pulumi:dev::uwsgi-nginx::docker:index/container:Container::"
NETWORK = "docker:index/network:Network"
LABELS = {"uwsgi-nginx.project": "uwsgi-nginx", "uwsgi-nginx.stack": "dev", "uwsgi-nginx.role": "replica"}


def resource(kind: str, name: str, identity: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "urn": URN + name, "id": identity, "outputs": {"name": f"uwsgi-nginx-dev-{name}"}, **more}


def export(*resources: Mapping[str, Any], pending: tuple[tuple[str, str, str], ...] = ()) -> dict[str, Any]:
    operations = [
        {"type": operation, "resource": {"type": kind, "urn": URN + "x", "inputs": {"name": name}}}
        for operation, kind, name in pending
    ]
    return {"deployment": {"resources": list(resources), "pending_operations": operations}}


STATE = State.of(
    export(
        resource(CONTAINER, "uwsgi-1", "known"),
        resource(CONTAINER, "uwsgi-1", "leaving", delete=True),
        resource(VOLUME, "sockets", "uwsgi-nginx-dev-sockets"),
        resource(NETWORK, "network", "n1"),
        pending=(
            ("creating", CONTAINER, "uwsgi-nginx-dev-uwsgi-2-abc"),
            ("creating", NETWORK, "uwsgi-nginx-dev-network-abc"),
            ("updating", VOLUME, "uwsgi-nginx-dev-nginx-live-abc"),
        ),
    )
)


def container(identity: str, name: str = "c", **more: Any) -> Found:
    return Found("container", identity, name, **{"labels": LABELS, "volumes": STATE.volumes, **more})


def lost(*there: Found) -> list[str]:
    return [found.id for found in recover.orphans(there, STATE, STATE, "uwsgi-nginx", "dev")]


def test_the_state_says_what_is_known_and_what_was_being_created() -> None:
    assert {"known", "leaving", "n1", "uwsgi-nginx-dev-sockets"} <= STATE.known
    assert STATE.names == {"uwsgi-1": "known"}
    assert STATE.volumes == {"uwsgi-nginx-dev-sockets"}
    assert STATE.pending == {"uwsgi-nginx-dev-uwsgi-2-abc": "container", "uwsgi-nginx-dev-network-abc": "network"}


def test_an_empty_state_can_be_read() -> None:
    assert State.of({"deployment": None}).known == frozenset()


def test_the_daemon_is_the_one_that_the_plugin_uses() -> None:
    provider = {"type": PROVIDER, "urn": "x", "id": "y", "inputs": {"host": "ssh://me@there", "version": "5"}}
    assert State.of(export(provider)).environment == {"DOCKER_HOST": "ssh://me@there"}


def test_a_container_of_this_stack_that_the_state_does_not_know_is_an_orphan() -> None:
    assert lost(container("known"), container("leaving"), container("orphan")) == ["orphan"]


@pytest.mark.parametrize("key", LABELS)
def test_a_container_of_another_stack_or_project_is_left_alone(key: str) -> None:
    others = container("other", labels={**LABELS, key: LABELS[key] + "-2"})
    assert lost(others) == ([] if not key.endswith("role") else ["other"])


def test_a_container_of_a_stack_of_the_same_name_that_is_kept_elsewhere_is_left_alone(
    said: Callable[[], str],
) -> None:
    assert lost(container("other", "theirs", volumes=frozenset({"uwsgi-nginx-dev-sockets-2"}))) == []
    assert "left: the container theirs" in said()


def test_what_was_being_created_is_an_orphan_whatever_it_carries_and_goes_after_its_users() -> None:
    network = Found("network", "n2", "uwsgi-nginx-dev-network-abc")
    half = container("half", "uwsgi-nginx-dev-uwsgi-2-abc", labels={}, volumes=frozenset())
    of_another_kind = Found("volume", "v2", "uwsgi-nginx-dev-network-abc")
    assert lost(network, half, of_another_kind) == ["half", "n2"]


def test_a_half_written_record_is_removed_and_a_whole_one_is_not(tmp_path: Path) -> None:
    stacks = tmp_path / ".pulumi" / "stacks" / "uwsgi-nginx"
    locks = tmp_path / ".pulumi" / "locks" / "organization" / "uwsgi-nginx" / "dev"
    for folder in (stacks, locks):
        folder.mkdir(parents=True)
    for path in (stacks / "dev.json.attrs", locks / "1.json.attrs", stacks / "dev-2.json.attrs"):
        path.write_text("")
    (stacks / "dev.json.bak.attrs").write_text('{"md5": ""}')
    (stacks / "dev.json").write_text("{")
    recover.mend_records(tmp_path, "uwsgi-nginx", "dev")
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["dev-2.json.attrs", "dev.json", "dev.json.bak.attrs"]


def _locked(pid: int, host: str) -> str:
    return f"the stack is currently locked by 1 lock(s).\n  file:///x.json: created by me@{host} (pid {pid}) at now"


def test_an_update_that_runs_is_not_cancelled() -> None:
    holder = subprocess.Popen(["sleep", "60"])
    pretender = subprocess.Popen(["pulumi", "-c", "import time; time.sleep(60)"], executable=sys.executable)
    try:
        _wait_for_its_name(pretender, b"pulumi")
        with pytest.raises(Failure, match=f"process {pretender.pid}"):
            recover.check_that_nobody_updates(_locked(pretender.pid, socket.gethostname()), "dev")
        recover.check_that_nobody_updates(_locked(holder.pid, socket.gethostname()), "dev")  # its number is used again
        recover.check_that_nobody_updates(_locked(pretender.pid, "elsewhere"), "dev")
    finally:
        for process in (holder, pretender):
            process.kill()
            process.wait()
    recover.check_that_nobody_updates(_locked(pretender.pid, socket.gethostname()), "dev")


def _wait_for_its_name(process: subprocess.Popen[bytes], name: bytes) -> None:
    """A process that was just started has its parent's command line for a moment, or none."""
    deadline = time.monotonic() + 10
    while name not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline


def _child_of(engine: int, folder: Path) -> subprocess.Popen[bytes]:
    script = folder / "pulumi-resource-something"
    script.write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, script.name, f"127.0.0.1:{engine}"], cwd=folder)
    _wait_for_its_name(process, b"pulumi-resource")
    return process


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="there is no /proc")
def test_only_plugins_of_this_clone_whose_engine_is_gone_are_ended(tmp_path: Path) -> None:
    (here := tmp_path / "here").mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as engine, socket.create_server(("127.0.0.1", 0)) as gone:
        alive, dead = engine.getsockname()[1], gone.getsockname()[1]
        gone.close()
        served, lingering, of_another = _child_of(alive, here), _child_of(dead, here), _child_of(dead, elsewhere)
        try:
            recover.end_lingering(here)
            assert lingering.wait(5) == -signal.SIGTERM
            assert served.poll() is None
            assert of_another.poll() is None
        finally:
            for process in (served, lingering, of_another):
                process.kill()
                process.wait()


@pytest.fixture
def locked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A stack that a killed update has left locked, with nothing on the daemon."""
    monkeypatch.setattr("tooling.stack.full_environment", lambda root, name: dict(os.environ))
    lock = bench.write("lock", "")
    refused = _locked(1, "elsewhere").splitlines()[0]
    state = bench.write("state.json", json.dumps(export()))
    bench.fake(
        "pulumi",
        f'case "$*" in *export*) cat "{state}";; *cancel*) : > "{lock}.gone";; '
        f'*refresh*) [ -e "{lock}.gone" ] || {{ echo "error: {refused}"; exit 1; }};; esac',
    )
    bench.fake("docker")
    return bench


def test_a_lock_that_nobody_holds_is_taken_away_and_the_refresh_tried_again(
    locked: Bench, said: Callable[[], str]
) -> None:
    assert Recovery(locked.root, "dev").run(lambda: 0) == 0
    commands = [call.split()[2] for call in locked.called("pulumi")]
    assert commands == ["stack", "refresh", "cancel", "refresh", "stack", "stack"]
    assert locked.called("pulumi --non-interactive cancel") == ["pulumi --non-interactive cancel --yes dev"]
    assert "the lock of an update that is no more is removed" in said()


def test_an_update_that_fails_gives_its_exit_status_and_says_what_is_next(
    locked: Bench, said: Callable[[], str]
) -> None:
    assert Recovery(locked.root, "dev").run(lambda: 255) == 255
    assert "then `make recover` again" in said()
