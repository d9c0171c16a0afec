"""`make ps` and `make logs`, on a Docker that says what the test wants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pytest

from tests.tooling.conftest import Bench
from tooling import cli, log_lines, machine
from tooling.console import Failure
from tooling.containers import Known, of_stack
from tooling.machine import Machine

REPOSITORY = Path(__file__).parent.parent.parent
VOLUME = "uwsgi-nginx-dev-sockets-1a2b3c4"
DOCKER = """
last=; for last; do :; done
case "$1" in
    ps) exec cat "$data/ps";;
    inspect) exec cat "$data/inspect";;
    exec) exec cat "$data/exec";;
    events) exec cat "$data/events";;
    logs) exec cat "$data/log-$last";;
esac
"""
STATE = {
    "deployment": {
        "resources": [
            {"type": "docker:index/volume:Volume", "urn": "x::sockets", "id": VOLUME, "outputs": {"name": VOLUME}},
            {
                "type": "docker:index/image:Image",
                "urn": "x::app-image",
                "outputs": {"imageName": "uwsgi-nginx/app:1234", "repoDigest": "sha256:aaaa"},
            },
            {
                "type": "pulumi-python:dynamic:Release",
                "urn": "x::release",
                "outputs": {"drained": ["uwsgi-2"]},
            },
            {"type": "pulumi:providers:docker", "urn": "x::default", "inputs": {"host": "tcp://lab:2376"}},
        ]
    }
}


class Docker:
    """What the fake client answers from: files in a folder."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.containers: list[dict[str, object]] = []
        folder.mkdir()
        bench.fake("docker", f'data="{folder}"{DOCKER}')
        (folder / "exec").write_text("")
        self.write()

    def write(self) -> None:
        self._put("inspect", json.dumps(self.containers))
        self._put("ps", "".join(f"{container['Id']}\n" for container in self.containers))

    def _put(self, name: str, text: str) -> None:
        """At once, whoever reads it meanwhile."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / name)

    def add(self, name: str, role: str = "replica", **state: object) -> str:
        """A container; returns its id."""
        identity = f"id-{name}-{len(self.containers)}"
        labels = {"uwsgi-nginx.project": "uwsgi-nginx", "uwsgi-nginx.stack": "dev", "uwsgi-nginx.role": role}
        if role == "replica":
            labels |= {"uwsgi-nginx.replica": name, "uwsgi-nginx.release": "0a1b2c3d"}
        begin = (datetime.now(UTC) - timedelta(minutes=5, seconds=3)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        usual = {"Status": "running", "ExitCode": 0, "StartedAt": begin, "FinishedAt": "0001-01-01T00:00:00Z"}
        self.containers.append(
            {
                "Id": identity,
                "Name": f"/uwsgi-nginx-dev-{name}",
                "Image": "sha256:aaaa",
                "Config": {"Labels": labels, "Env": ["A=REPLICA_SOCKET=x", f"REPLICA_SOCKET=/run/uwsgi/{name}.sock"]},
                "State": {**usual, **state},
            }
        )
        if role != "replica":
            self.containers[-1]["Config"] = {"Labels": labels, "Env": None}
        self.write()
        return identity

    def remove(self, identity: str) -> None:
        self.containers = [container for container in self.containers if container["Id"] != identity]
        self.write()

    def says(self, identity: str, *lines: str) -> None:
        (self.folder / f"log-{identity}").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def docker(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setattr(cli, "ROOT", bench.root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    bench.fake("pulumi", f"cat <<'EOF'\n{json.dumps(STATE)}\nEOF")
    machine.save(bench.root, Machine(pulumi=str(bench.bin), origin="path"))
    bench.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    return Docker(bench, tmp_path / "docker")


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def run(*command: str) -> list[str]:
        assert cli.main([command[0], "dev", *command[1:]]) == 0
        return capfd.readouterr().out.splitlines()

    return run


# -- who is there


def test_containers_are_found_by_labels_and_volumes_where_the_stack_is(docker: Docker) -> None:
    docker.add("uwsgi-1")
    known = Known.of(docker.bench.root, "dev")
    assert known.environment["DOCKER_HOST"] == "tcp://lab:2376"
    assert [container.name for container in of_stack(known)] == ["uwsgi-1"]
    (listing,) = docker.bench.called("docker ps")
    for wanted in ("label=uwsgi-nginx.project=uwsgi-nginx", "label=uwsgi-nginx.stack=dev", f"volume={VOLUME}"):
        assert f"--filter={wanted}" in listing.split()


def test_a_stack_without_volumes_has_no_containers(docker: Docker, said: Callable[[], str]) -> None:
    docker.bench.fake("pulumi", "echo '{}'")
    assert cli.main(["ps", "dev"]) == cli.main(["logs", "dev", "-f"]) == 0
    assert said().count("Stack dev has no containers.") == 2
    assert docker.bench.called("docker") == []


def test_a_state_that_cannot_be_read_is_told_in_words(docker: Docker) -> None:
    docker.bench.fake("pulumi", "echo incorrect passphrase >&2; exit 1")
    with pytest.raises(Failure, match="incorrect passphrase"):
        Known.of(docker.bench.root, "dev")


def test_a_daemon_that_does_not_answer_is_told_in_words(docker: Docker, said: Callable[[], str]) -> None:
    docker.bench.fake("docker", "echo 'Cannot connect to the Docker daemon'; exit 1")
    assert cli.main(["ps", "dev"]) == 1
    assert "Cannot connect to the Docker daemon" in said()


# -- make ps


def test_ps_shows_state_health_requests_and_image(docker: Docker, printed: Callable[..., list[str]]) -> None:
    docker.add("uwsgi-10")
    docker.add("uwsgi-2", Health={"Status": "healthy"})
    docker.add("uwsgi-1", Status="exited", ExitCode=137, FinishedAt=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.5Z")
    docker.add("nginx", role="nginx")
    docker.containers[0]["Image"] = "sha256:bbbb"
    docker.write()
    answer = json.dumps({"workers": [{"requests": 1200}, {"requests": 34}]})
    (docker.folder / "exec").write_text(f"/run/uwsgi/uwsgi-2.sock {answer}\n/run/uwsgi/uwsgi-10.sock \n")
    head, *rows = (line.split("  ") for line in printed("ps"))
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["nginx", "running", "5 min", "-", "-", "-", "uwsgi-nginx/app:1234", "uwsgi-nginx-dev-nginx"],
        ["uwsgi-1", "exited (137)", "0 s", "-", "-", "0a1b2c3d", "uwsgi-nginx/app:1234", "uwsgi-nginx-dev-uwsgi-1"],
        [
            "uwsgi-2",
            "running, drained",
            "5 min",
            "healthy",
            "1,234",
            "0a1b2c3d",
            "uwsgi-nginx/app:1234",
            "uwsgi-nginx-dev-uwsgi-2",
        ],
        ["uwsgi-10", "running", "5 min", "-", "-", "0a1b2c3d", "bbbb", "uwsgi-nginx-dev-uwsgi-10"],
    ]
    assert [cell for cell in head if cell][:2] == ["CONTAINER", "STATE"]


def test_ps_asks_all_replicas_that_run_in_one_go(docker: Docker, printed: Callable[..., list[str]]) -> None:
    docker.add("uwsgi-1")
    docker.add("uwsgi-2", Status="exited", FinishedAt="2026-01-01T00:00:00Z")
    docker.add("uwsgi-3")
    docker.add("nginx", role="nginx")
    printed("ps")
    (asked,) = docker.bench.called("docker exec")
    assert asked.endswith(" sh /run/uwsgi/uwsgi-1.sock /run/uwsgi/uwsgi-3.sock")


@pytest.mark.parametrize("answer", ["", "not json", "[]", '{"workers": 7}', '{"workers": [{}]}', '{"a": "\x01'])
def test_ps_does_without_what_a_replica_does_not_tell(
    docker: Docker, printed: Callable[..., list[str]], answer: str
) -> None:
    docker.add("uwsgi-1")
    docker.add("nginx", role="nginx")
    (docker.folder / "exec").write_text(f"/run/uwsgi/uwsgi-1.sock {answer}\n")
    assert "uwsgi-1" in printed("ps")[2]


def test_ps_does_without_nginx(docker: Docker, printed: Callable[..., list[str]]) -> None:
    docker.add("uwsgi-1")
    docker.add("nginx", role="nginx", Status="restarting", ExitCode=1, FinishedAt="2026-01-01T00:00:00Z")
    assert "restarting (1)" in printed("ps")[1]
    assert docker.bench.called("docker exec") == []


# -- lines

ACCESS = {
    "time": "2026-11-22T16:40:17+00:00",
    "source": "nginx",
    "request_id": "abc123",
    "client": "192.0.2.7",
    "method": "GET",
    "uri": "/cart?id=1",
    "status": 200,
    "request_time": 0.012,
    "bytes": 149,
    "upstream": "unix:/run/uwsgi/uwsgi-1-0a1b2c3d.sock",
    "upstream_time": "0.011",
    "cache": "",
}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            ACCESS,
            "16:40:17 200 GET /cart?id=1 (12 ms, 149 bytes, by uwsgi-1 in 11 ms, for 192.0.2.7, id abc123)",
        ),
        (
            ACCESS | {"upstream": "", "upstream_time": "", "cache": "HIT", "client": ""},
            "16:40:17 200 GET /cart?id=1 (12 ms, 149 bytes, cache HIT, id abc123)",
        ),
        (
            ACCESS
            | {
                "upstream": "unix:/run/uwsgi/uwsgi-1-0a1b2c3d.sock, unix:/run/uwsgi/uwsgi-canary-2-11.sock",
                "upstream_time": "0.000, 1.5",
            },
            "16:40:17 200 GET /cart?id=1 (12 ms, 149 bytes, by uwsgi-1, uwsgi-canary-2 in 0.000, 1.5 s, for 192.0.2.7, "
            "id abc123)",
        ),
        (
            {"time": "2026-11-22T16:40:18+00:00", "source": "uwsgi", "replica": "uwsgi-1", "message": "ready"},
            "16:40:18 ready",
        ),
        (
            {
                "time": "2026-11-22T16:40:18+00:00",
                "source": "uwsgi",
                "status": 500,
                "method": "GET",
                "uri": "/",
                "request_time": 2,
            },
            "16:40:18 500 GET / (2000 ms)",
        ),
    ],
)
def test_json_is_shown_as_people_read_it(record: dict[str, object], text: str) -> None:
    assert log_lines.readable(json.dumps(record)) == text


@pytest.mark.parametrize("line", ["", "plain words", "{not json", "[1]", '{"no": "time"}', "{" * 100_000])
def test_other_lines_are_shown_as_they_are(line: str) -> None:
    assert log_lines.readable(line) == line


def test_nothing_that_clients_send_steers_a_terminal() -> None:
    record = ACCESS | {"uri": "/\x1b]0;x\x07\x1b[2J", "client": "\x9b31m", "request_id": "\u202e"}
    for shown in (log_lines.readable(json.dumps(record)), log_lines.readable("\x1b[2J\r")):
        assert shown.isprintable()
    assert "/\\x1b]0;x\\x07" in log_lines.readable(json.dumps(record))


def test_colours_tell_names_and_failures() -> None:
    failed = log_lines.readable(json.dumps(ACCESS | {"status": 502}), colours=True)
    assert "\x1b[31m502\x1b[0m" in failed
    assert log_lines.prefix("nginx", 7) == "nginx   | "
    assert "nginx   | " in log_lines.prefix("nginx", 7, colours=True)


def test_for_programs_every_line_is_an_object() -> None:
    line = json.dumps(ACCESS)
    assert log_lines.as_json(line, "2026-11-22T16:40:17.5Z", "nginx") == line
    assert json.loads(log_lines.as_json("worker exited\x1b", "2026-11-22T16:40:17.5Z", "nginx")) == {
        "time": "2026-11-22T16:40:17.5Z",
        "source": "nginx",
        "message": "worker exited\x1b",
    }


# -- make logs


def at(second: int, text: str) -> str:
    """A line as Docker prints it."""
    return f"2026-11-22T16:40:{second:02}.000000000Z {text}"


def test_logs_say_who_speaks_in_the_order_in_which_they_spoke(
    docker: Docker, printed: Callable[..., list[str]]
) -> None:
    docker.says(docker.add("nginx", role="nginx"), at(1, "one"), at(4, "four"))
    docker.says(docker.add("uwsgi-1"), at(2, '{"time":"2026-11-22T16:40:02+00:00","message":"two"}'), at(3, "three"))
    assert printed("logs") == ["nginx   | one", "uwsgi-1 | 16:40:02 two", "uwsgi-1 | three", "nginx   | four"]


def test_logs_for_programs_are_json_and_nothing_else(docker: Docker, printed: Callable[..., list[str]]) -> None:
    line = '{"time":"2026-11-22T16:40:02+00:00","message":"two"}'
    docker.says(docker.add("uwsgi-1"), at(1, "one"), at(2, line))
    lines = printed("logs", "--json")
    assert lines[1] == line
    assert json.loads(lines[0])["message"] == "one"


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ((), "--tail 50 id-"),
        (("--tail", "all"), "--tail all id-"),
        (("--since", "10m"), "--tail 50 --since 10m id-"),
    ],
)
def test_arguments_are_those_of_docker_logs(
    docker: Docker, printed: Callable[..., list[str]], arguments: tuple[str, ...], passed: str
) -> None:
    docker.says(docker.add("uwsgi-1"))
    printed("logs", *arguments)
    (call,) = docker.bench.called("docker logs")
    assert passed in call


class Following:
    """`make logs ARGS=-f` in a process of its own, and pipes through which the fake Docker speaks."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        os.mkfifo(docker.folder / "events")
        self._pipes: dict[str, IO[str]] = {}
        self._seen: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        code = (
            "import sys; from pathlib import Path; from tooling import cli\n"
            f"cli.ROOT = Path({str(self.docker.bench.root)!r})\nsys.exit(cli.main(['logs', 'dev', '-f']))"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        threading.Thread(target=self._read, daemon=True).start()
        self._pipes["events"] = self._open("events")

    def _read(self) -> None:
        assert self.process
        assert self.process.stdout
        for line in self.process.stdout:
            self._seen.append(line.rstrip("\n"))

    def _open(self, name: str) -> IO[str]:
        """For writing, as soon as somebody reads."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return os.fdopen(os.open(self.docker.folder / name, os.O_WRONLY | os.O_NONBLOCK), "w")
            except OSError:
                assert time.monotonic() < deadline, f"nobody reads {name}; seen: {self._seen}"
                time.sleep(0.01)

    def log(self, identity: str) -> None:
        """From now on the container says something only when it is told to."""
        os.mkfifo(self.docker.folder / f"log-{identity}")

    def says(self, identity: str, *lines: str) -> None:
        name = f"log-{identity}"
        if name not in self._pipes:
            self._pipes[name] = self._open(name)
        self._pipes[name].write("".join(f"{line}\n" for line in lines))
        self._pipes[name].flush()

    def ends(self, identity: str) -> None:
        """Its run is over: Docker has no more of it to tell."""
        self._pipes.pop(f"log-{identity}").close()

    def is_read_again(self, times: int) -> None:
        """Waits until logs were asked for so many times: what is written into a pipe before is lost with its reader."""
        deadline = time.monotonic() + 20
        while len(self.docker.bench.called("docker logs")) < times:
            assert time.monotonic() < deadline, self.docker.bench.calls
            time.sleep(0.01)

    def happens(self, identity: str) -> None:
        self._pipes["events"].write(f"{identity}\n")
        self._pipes["events"].flush()

    def shows(self, *lines: str) -> None:
        deadline = time.monotonic() + 20
        while self._seen != list(lines):
            assert time.monotonic() < deadline, self._seen
            time.sleep(0.01)

    def code(self) -> int:
        assert self.process
        return self.process.wait(20)

    def stop(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        if self.process:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()


@pytest.fixture
def following(docker: Docker) -> Iterator[Following]:
    made = Following(docker)
    yield made
    made.stop()


def test_who_comes_with_a_release_is_followed_too(docker: Docker, following: Following) -> None:
    old = docker.add("uwsgi-1")
    following.log(old)
    following.start()
    following.says(old, at(1, "one"))
    following.shows("uwsgi-1 | one")
    new = docker.add("uwsgi-2")
    following.log(new)
    following.happens(new)
    following.says(new, at(2, "two"))
    following.shows("uwsgi-1 | one", "uwsgi-2 | two")
    following.ends(old)
    docker.remove(old)
    following.happens(old)
    following.says(new, at(3, "three"))
    following.shows("uwsgi-1 | one", "uwsgi-2 | two", "uwsgi-2 | three")


def test_it_goes_on_when_a_container_starts_again_and_repeats_nothing(docker: Docker, following: Following) -> None:
    replica = docker.add("uwsgi-1")
    following.log(replica)
    following.start()
    following.says(replica, at(1, "one"))
    following.shows("uwsgi-1 | one")
    following.happens(replica)
    following.ends(replica)
    following.is_read_again(times=2)
    following.says(replica, at(1, "one"), at(2, "two"))
    following.shows("uwsgi-1 | one", "uwsgi-1 | two")
    since = [call for call in docker.bench.called("docker logs") if "--since" in call]
    assert since == [f"docker logs --timestamps --follow --since 2026-11-22T16:40:01.000000000Z {replica}"]


def test_it_waits_while_all_are_down_and_ends_when_none_is_there(docker: Docker, following: Following) -> None:
    replica = docker.add("uwsgi-1")
    following.log(replica)
    following.start()
    following.says(replica, at(1, "one"))
    following.ends(replica)
    following.shows("uwsgi-1 | one")
    following.happens("somebody-else")
    assert following.process
    with pytest.raises(subprocess.TimeoutExpired):
        following.process.wait(0.5)
    docker.remove(replica)
    following.happens(replica)
    assert following.code() == 0


def test_ctrl_c_ends_it_quietly(docker: Docker, following: Following, capfd: pytest.CaptureFixture[str]) -> None:
    replica = docker.add("uwsgi-1")
    following.log(replica)
    following.start()
    following.says(replica, at(1, "one"))
    following.shows("uwsgi-1 | one")
    assert following.process
    following.process.send_signal(signal.SIGINT)
    assert following.code() == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_reader_that_has_had_enough_ends_it(docker: Docker, tmp_path: Path) -> None:
    following = Following(docker)
    replica = docker.add("uwsgi-1")
    following.log(replica)
    following._read = lambda: None  # type: ignore[method-assign]
    try:
        following.start()
        assert following.process
        assert following.process.stdout
        following.process.stdout.close()
        following.says(replica, at(1, "one"), at(2, "two"))
        assert following.code() == 0
    finally:
        following.stop()


def test_an_end_of_docker_is_told(docker: Docker, following: Following, capfd: pytest.CaptureFixture[str]) -> None:
    docker.says(docker.add("uwsgi-1"), at(1, "one"))
    following.start()
    following.shows("uwsgi-1 | one")
    following._pipes.pop("events").close()
    assert following.code() == 1
    assert "See that its daemon runs" in capfd.readouterr().err
