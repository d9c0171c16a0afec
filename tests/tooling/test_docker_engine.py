"""A daemon is found, or started, or installed; and only ever the machine's own default one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tooling.conftest import Bench, Daemon
from tooling import docker_engine
from tooling.console import Failure
from tooling.docker_engine import Answer

# A daemon for the fakes to start: it answers on the socket, says which session it is in, and ends by itself.
DAEMON = """
import os, socketserver, sys, threading
class H(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
open(sys.argv[2], "w").write(f"{os.getpid()} {os.getsid(0)}")
threading.Timer(20, os._exit, (0,)).start()
socketserver.UnixStreamServer(sys.argv[1], H).serve_forever()
"""


Started = Callable[[], tuple[int, int]]


def starts_a_daemon(bench: Bench, tmp_path: Path) -> str:
    script = bench.root / "daemon.py"
    script.write_text(DAEMON, encoding="utf-8")
    return f'"{sys.executable}" "{script}" "{tmp_path}/docker.sock" "{tmp_path}/started"'


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Ends the daemon that the test has started, and tells its process and session."""

    def tell() -> tuple[int, int]:
        process, session = (tmp_path / "started").read_text(encoding="utf-8").split()
        return int(process), int(session)

    yield tell
    if (tmp_path / "started").exists():
        os.kill(tell()[0], signal.SIGKILL)
    for daemon in docker_engine._started:
        daemon.wait()
    docker_engine._started.clear()


@pytest.fixture(autouse=True)
def pid_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Not those of this machine: the one of a test, which says that its process is a daemon called as this one is."""
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    monkeypatch.setattr(docker_engine, "PID_FILES", {tmp_path / "docker.pid": name})
    return tmp_path / "docker.pid"


@pytest.fixture
def tempting(bench: Bench) -> Bench:
    """A machine on which everything is there to start a daemon with."""
    for name in ("docker", "dockerd", "systemctl", "apt-get", "iptables"):
        bench.fake(name, "exit 1")
    return bench


def test_a_daemon_that_answers_is_used_as_it_is(tempting: Bench, daemon: Daemon) -> None:
    assert docker_engine.ensure(tempting.root).url == docker_engine.DEFAULT_HOST
    assert tempting.calls == []


def test_nothing_is_started_for_a_remote_host_that_does_not_answer(
    tempting: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://build.example")
    with pytest.raises(Failure, match=r"ssh://build\.example, which DOCKER_HOST points to, does not answer") as failure:
        docker_engine.ensure(tempting.root)
    assert "Nothing was started" in failure.value.todo
    assert tempting.calls == ["docker version --format {{.Server.Version}}"]


def test_nothing_is_started_for_another_socket_of_the_users_choice(
    tempting: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/rootless.sock")
    with pytest.raises(Failure, match="DOCKER_HOST"):
        docker_engine.ensure(tempting.root)
    assert tempting.calls == []


def test_nothing_is_started_for_a_context_of_the_users_choice(tempting: Bench) -> None:
    config = tempting.home / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"currentContext": "lab"}), encoding="utf-8")
    tempting.fake("docker", 'test "$1" = context && echo ssh://lab.example || exit 1')
    with pytest.raises(Failure, match=r"ssh://lab\.example, which Docker's context lab points to"):
        docker_engine.ensure(tempting.root)
    assert {call.split()[0] for call in tempting.calls} == {"docker"}


def test_nothing_is_started_for_a_daemon_that_the_stack_names(tempting: Bench) -> None:
    tempting.fake("docker", "exit 1")
    with pytest.raises(Failure, match=r"ssh://me@lab, which docker:host points to, does not answer") as failure:
        docker_engine.ensure(tempting.root, docker_engine.Host("ssh://me@lab", "docker:host"))
    assert "ssh me@lab docker version" in failure.value.todo
    assert {call.split()[0] for call in tempting.calls} == {"docker"}


def test_docker_host_goes_before_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = docker_engine.host({"DOCKER_HOST": "tcp://a:1", "DOCKER_CONTEXT": "b"})
    assert (chosen.url, chosen.chosen_by) == ("tcp://a:1", "DOCKER_HOST")


def test_the_default_context_is_no_choice(bench: Bench) -> None:
    assert docker_engine.host({"DOCKER_CONTEXT": "default", "HOME": str(bench.home)}).chosen_by == ""


def test_an_installed_daemon_is_started_in_a_session_of_its_own(bench: Bench, tmp_path: Path, started: Started) -> None:
    bench.fake("docker")
    bench.fake("iptables")
    bench.fake("apt-get", "exit 1")
    bench.fake("dockerd", f"exec {starts_a_daemon(bench, tmp_path)}")
    docker_engine.ensure(bench.root)
    process, session = started()
    assert session == process != os.getsid(0)
    assert not bench.called("apt-get")
    assert (bench.root / ".local/log/dockerd.log").exists()


@pytest.mark.parametrize(("process", "kept"), [(os.getpid(), True), (1, False)])
def test_a_pid_file_goes_whose_number_is_somebody_elses_now(
    bench: Bench, tmp_path: Path, started: Started, pid_files: Path, process: int, kept: bool
) -> None:
    pid_files.write_text(str(process), encoding="utf-8")
    bench.fake("docker")
    bench.fake("dockerd", f"exec {starts_a_daemon(bench, tmp_path)}")
    bench.fake("iptables")
    docker_engine.ensure(bench.root)
    assert pid_files.exists() is kept


def test_systemd_starts_it_where_systemd_runs(
    bench: Bench, tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "SYSTEMD", tmp_path)
    bench.fake("docker")
    bench.fake("dockerd", "exit 1")
    bench.fake("systemctl", f"{starts_a_daemon(bench, tmp_path)} > /dev/null 2>&1 &")
    docker_engine.ensure(bench.root)
    assert bench.calls == ["systemctl start docker"]


def test_a_machine_without_docker_gets_debians(bench: Bench, tmp_path: Path, started: Started) -> None:
    installed = bench.fake("dockerd.deb", f"exec {starts_a_daemon(bench, tmp_path)}")
    bench.fake(
        "apt-get",
        f'case "$*" in *install*) for n in dockerd docker iptables; do cp {installed} {bench.bin}/$n; done;; esac',
    )
    docker_engine.ensure(bench.root)
    (install,) = [call for call in bench.called("apt-get") if " install " in call]
    assert install.endswith("install docker.io iptables")


def test_a_daemon_that_ends_at_once_is_quoted(bench: Bench) -> None:
    bench.fake("docker")
    bench.fake("iptables")
    bench.fake("dockerd", "echo failed to mount cgroups >&2; exit 1")
    before = time.monotonic()
    with pytest.raises(Failure, match="ended; its last words:\nfailed to mount cgroups") as failure:
        docker_engine.ensure(bench.root)
    assert time.monotonic() - before < 5
    assert failure.value.step == "Docker"
    assert failure.value.log == bench.root / ".local/log/dockerd.log"


def test_who_is_not_root_is_told_what_root_can_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    bench.fake("apt-get")
    with pytest.raises(Failure) as failure:
        docker_engine.ensure(bench.root)
    assert "sudo apt-get install docker.io iptables" in failure.value.todo
    bench.fake("dockerd")
    with pytest.raises(Failure) as failure:
        docker_engine.ensure(bench.root)
    assert "sudo systemctl start docker" in failure.value.todo
    assert bench.calls == []


def test_a_socket_that_the_user_may_not_use_starts_no_second_daemon(
    tempting: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "_ping", lambda path: Answer(False, f"this user may not use {path}"))
    with pytest.raises(Failure) as failure:
        docker_engine.ensure(tempting.root)
    assert "group docker" in failure.value.todo
    assert tempting.calls == []


def test_a_daemon_without_a_client_gets_the_client_alone(bench: Bench, daemon: Daemon) -> None:
    bench.fake("apt-cache")
    bench.fake("apt-get")
    docker_engine.ensure(bench.root)
    (install,) = [call for call in bench.called("apt-get") if " install " in call]
    assert install.endswith("install docker-cli")
