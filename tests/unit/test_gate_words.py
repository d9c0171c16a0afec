"""What the gate makes of a container's log, and which files of the sockets' folder it sweeps."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from docker.models.containers import Container

from infra import gate, last_words
from tests.unit.fake_docker import FakeClock, FakeMachine, FakeReplica


class Logging:
    """A container as far as its last words go."""

    def __init__(self, log: bytes, restarts: int = 0, running: bool = False) -> None:
        self._log = log
        state = {"Running": running, "Restarting": False, "StartedAt": "2026-01-01T12:00:00.123456789Z"}
        self.attrs = {"RestartCount": restarts, "State": state}

    def logs(self, *, tail: int, until: float | None) -> bytes:
        self.until = until
        return b"".join(self._log.splitlines(keepends=True)[-tail:])


def words(*lines: str | bytes, **container: Any) -> list[str]:
    log = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    return gate._last_words(cast(Container, Logging(log, **container))).split("\n")


def said(message: str, **more: object) -> str:
    return json.dumps({"time": "2026-01-01T12:00:00+00:00", "source": "uwsgi", "message": message, **more})


def asked(source: str = "nginx", **more: object) -> str:
    return json.dumps({"time": "2026-01-01T12:00:00+00:00", "source": source, "uri": "/", "status": 500, **more})


def test_a_message_is_quoted_without_the_json_around_it() -> None:
    lines = words(said('  File "/app/webapp.py", line 1'), said("ModuleNotFoundError: No module named 'é'"))
    assert lines == ["Its last words:", '  File "/app/webapp.py", line 1', "ModuleNotFoundError: No module named 'é'"]


@pytest.mark.parametrize(
    "line",
    [
        "2026/01/01 12:00:00 [emerg] 1#1: bind() to 0.0.0.0:8080 failed",
        '{"no": "end"',
        '{"an": "app\'s own object"}',
        "[]",
        "12",
        '"text"',
        "null",
        "[" * 100_000,
    ],
)
def test_what_is_none_of_our_records_is_quoted_as_it_is(line: str) -> None:
    assert words(line) == ["Its last words:", line]


@pytest.mark.parametrize("source", ["nginx", "uwsgi"])
def test_requests_do_not_crowd_out_words(source: str) -> None:
    lines = words("[emerg] it breaks", *[asked(source)] * 5000)
    assert lines == ["Its last words:", "[emerg] it breaks"]


def test_as_many_words_are_quoted_as_a_person_reads() -> None:
    lines = words(*(line for number in range(100) for line in (said(f"word {number}"), asked())))
    assert lines == ["Its last words:", *(f"word {number}" for number in range(100 - last_words.LINES, 100))]


@pytest.mark.parametrize("log", [[], [asked()], ["", ""]])
def test_who_has_only_served_has_said_nothing(log: list[str]) -> None:
    assert words(*log) == ["It has said nothing."]


def test_line_separators_of_other_kinds_do_not_tear_a_record_apart() -> None:
    record = json.dumps({"source": "uwsgi", "message": "one\u2028line\x85"}, ensure_ascii=False)
    assert words(record) == ["Its last words:", "one\u2028line\x85"]


def test_what_is_no_utf_8_is_quoted_all_the_same() -> None:
    assert words(b"gr\xfcn") == ["Its last words:", "gr\ufffdn"]


def test_one_that_was_just_started_again_is_quoted_from_before() -> None:
    container = Logging(b"words\n", restarts=2, running=True)
    gate._last_words(cast(Container, container))
    assert container.until == pytest.approx(1767268800.123456)


# sockets


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    clock = FakeClock()
    monkeypatch.setattr(gate, "time", clock)
    machine = FakeMachine(tmp_path, clock)
    machine.replicas["draining"] = FakeReplica("uwsgi-1", env=["REPLICA_SOCKET=/run/uwsgi/uwsgi-1-in-use.sock"])
    return machine


@pytest.mark.parametrize("suffix", ["", ".starting", ".stats"])
def test_what_belongs_to_a_replicas_socket_goes_with_it(machine: FakeMachine, suffix: str) -> None:
    for name in ("uwsgi-1-in-use.sock", "uwsgi-1-gone.sock"):
        (machine.sockets / f"{name}{suffix}").touch()
    swept = gate.Gate(machine.client()).sweep("id-of-nginx")
    assert swept == [f"/run/uwsgi/uwsgi-1-gone.sock{suffix}"]
    assert [path.name for path in machine.sockets.iterdir()] == [f"uwsgi-1-in-use.sock{suffix}"]


def test_what_is_no_replicas_is_left_alone(machine: FakeMachine) -> None:
    names = {"members", "members.next", "notes.stats"}
    for name in names:
        (machine.sockets / name).touch()
    assert gate.Gate(machine.client()).sweep("id-of-nginx") == []
    assert {path.name for path in machine.sockets.iterdir()} == names
