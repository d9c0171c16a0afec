"""`make ps` and `make logs` of a stack on a swarm, on a Docker that says what the test wants."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.conftest import Bench
from tooling import cli, machine
from tooling.machine import Machine

SERVICE = "docker:index/service:Service"
STATE = {
    "deployment": {
        "resources": [
            {"type": SERVICE, "urn": "urn:pulumi:dev::p::c$s::app", "id": "id-of-app"},
            {"type": SERVICE, "urn": "urn:pulumi:dev::p::c$s::nginx", "id": "id-of-nginx"},
            {"type": SERVICE, "urn": "urn:pulumi:dev::p::c$s::app", "id": "one-that-goes", "delete": True},
            {"type": "pulumi:providers:docker", "urn": "x::default", "inputs": {"host": "tcp://manager:2376"}},
        ]
    }
}
DOCKER = """
for last; do :; done
echo "$DOCKER_HOST" > "$data/host"
case "$2 $*" in
    ps*desired-state=running*) exec cat "$data/running";;
    ps*) exec cat "$data/ended";;
    logs*) cat "$data/log-$last"; [ ! -e "$data/silence" ] || exec sleep 60;;
esac
"""
HEADING = "NAME      NODE     CURRENT STATE      ERROR\n"


@pytest.fixture
def data(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the fake client answers from: files in a folder."""
    monkeypatch.setattr(cli, "ROOT", bench.root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    bench.fake("pulumi", f"cat <<'EOF'\n{json.dumps(STATE)}\nEOF")
    machine.save(bench.root, Machine(pulumi=str(bench.bin), origin="path"))
    bench.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    folder = tmp_path / "docker"
    folder.mkdir()
    bench.fake("docker", f'data="{folder}"{DOCKER}')
    for name in ("running", "ended"):
        (folder / name).write_text(HEADING)
    (folder / "log-id-of-app").write_text(
        "2026-01-01T12:00:01.5Z stack-app.2.abc@node-1    | it begins\n"
        "2026-01-01T12:00:03.5Z stack-app.12.def@node-2    | it goes on | and on\n"
    )
    (folder / "log-id-of-nginx").write_text(
        "2026-01-01T12:00:02.5Z stack-nginx.0.xyz@node-1    | in between\nerror from daemon in stream: node-3 is away\n"
    )
    return folder


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def run(*command: str) -> list[str]:
        assert cli.main([command[0], "dev", *command[1:]]) == 0
        return capfd.readouterr().out.splitlines()

    return run


def test_what_runs_is_told_by_the_manager_and_then_what_failed(
    data: Path, bench: Bench, printed: Callable[..., list[str]]
) -> None:
    (data / "running").write_text(f"{HEADING}app.1     node-1   Running 2 hours\n")
    (data / "ended").write_text(
        f'{HEADING}app.2     node-2   Failed 3 minutes    "task: non-zero exit (22)"\n'
        "app.3     node-1   Shutdown 1 hour\n"
    )
    lines = printed("ps")
    assert lines[1] == "app.1     node-1   Running 2 hours"
    assert lines[-2:] == ["What failed:", 'app.2 node-2 Failed 3 minutes "task: non-zero exit (22)"']
    assert (data / "host").read_text() == "tcp://manager:2376\n"
    assert all(call.endswith(" id-of-app id-of-nginx") for call in bench.called("docker service ps"))


def test_nothing_is_said_of_failures_where_there_are_none(data: Path, printed: Callable[..., list[str]]) -> None:
    assert printed("ps") == [HEADING.strip()]


def test_all_tasks_are_heard_in_the_order_of_time(data: Path, printed: Callable[..., list[str]]) -> None:
    lines = printed("logs", "--tail", "7")
    heard = [line for line in lines if not line.startswith("docker")]
    assert [line.partition("|")[0].strip() for line in heard] == ["uwsgi-2@node-1", "nginx@node-1", "uwsgi-12@node-2"]
    assert heard[-1].endswith("it goes on | and on")
    assert any("node-3 is away" in line for line in lines)


def test_programs_get_json(data: Path, printed: Callable[..., list[str]]) -> None:
    found = [json.loads(line) for line in printed("logs", "--json")]
    assert [line["message"] for line in found][:2] == ["it begins", "in between"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_manager_that_never_ends_its_answer_holds_nobody_up(
    data: Path, printed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    """Who follows it ends it by Ctrl-C."""

    class Impatient(queue.Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            try:
                return super().get(block, 0.5)
            except queue.Empty:
                if timeout is None:
                    raise KeyboardInterrupt from None
                raise

    monkeypatch.setattr("tooling.services.queue.Queue", Impatient)
    (data / "silence").touch()
    lines = printed("logs", *(["-f"] if follow else []))
    assert sorted(line.partition("|")[0].strip() for line in lines if not line.startswith("docker")) == [
        "nginx@node-1",
        "uwsgi-12@node-2",
        "uwsgi-2@node-1",
    ]


def test_how_much_is_passed_on(data: Path, bench: Bench, printed: Callable[..., list[str]]) -> None:
    printed("logs", "--tail", "7")
    calls = sorted(bench.called("docker service logs"))
    assert calls == [
        "docker service logs --timestamps --tail 7 id-of-app",
        "docker service logs --timestamps --tail 7 id-of-nginx",
    ]
