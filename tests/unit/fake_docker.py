"""A Docker daemon for the gate's tests, and a clock that passes only when somebody sleeps.

Its NGINX container is a folder. What the gate runs in it is run by a real `sh`, so that links, renames and removals are
what they are; `nginx`, `curl`, `kill` and `sleep` are shell functions that behave as the real ones do towards the gate.
"""

import copy
import io
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, NotFound
from docker.models.containers import ExecResult

BOOT_TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACES = re.compile(r"(?<![\w.}])/(etc/nginx|run|proc)/")
FOREIGN_PLACES = re.compile(r"(?<![\w.:/)}*\]])/(?!etc/nginx/|run/|proc/|dev/null)\w+")

PRELUDE = r"""
say() { printf '%s\n' "$*" >> "$STATE/events"; }
sleep() { :; }
kill() {
    if [ "$2" = "$(cat "$STATE/probe" 2>/dev/null)" ]; then
        say 'probe stopped'
        rm -f "$STATE/probe" "$(cat "$STATE/probe.pid")" "$(cat "$STATE/probe.sock")"
    else
        return 1
    fi
}
nginx() {
    config= globals= signal= testing=
    while [ $# -gt 0 ]; do
        case $1 in
            -c) config=$2; shift ;;
            -g) globals=$2; shift ;;
            -s) signal=$2; shift ;;
            -e) shift ;;
            -t) testing=yes ;;
            *) echo "nginx: invalid option: $1"; return 1 ;;
        esac
        shift
    done
    pid=${globals#*pid }; pid=${pid%%;*}
    if [ ! -f "$config" ]; then
        echo "nginx: [emerg] open() \"$config\" failed (2: No such file or directory)"; return 1
    fi
    folder=${config%/*}
    if grep -q '^ *include ' "$config" && [ ! -f "$folder/listen.conf" ]; then
        echo "nginx: [emerg] open() \"$folder/listen.conf\" failed (2: No such file or directory)"; return 1
    fi
    instance=live
    if [ "${folder##*/}" = probe ]; then instance=probe; fi
    if [ -n "$signal" ]; then
        say "$signal"
        if [ -n "$RELOAD_ERROR" ]; then echo "$RELOAD_ERROR"; return 1; fi
        echo "$signal" >> "$STATE/signals"
    elif [ -n "$testing" ]; then
        say "test $instance"
        if [ -n "$TEST_ERROR" ]; then echo "$TEST_ERROR"; return 1; fi
    else
        if [ "$instance" = live ]; then echo 'nginx: [emerg] bind() to 0.0.0.0:8080 failed'; return 1; fi
        if [ -n "$START_ERROR" ]; then echo "$START_ERROR"; return 1; fi
        socket=$ROOT$(sed -n 's/^listen unix:\(.*\);$/\1/p' "$folder/listen.conf")
        if [ -e "$socket" ]; then echo 'nginx: [emerg] bind() failed (98: Address already in use)'; return 1; fi
        say 'probe started'
        echo 4242 > "$STATE/probe"; echo 4242 > "$pid"; : > "$socket"
        echo "$pid" > "$STATE/probe.pid"; echo "$socket" > "$STATE/probe.sock"
        cp "$folder/listen.conf" "$STATE/probe.conf"
    fi
}
curl() {
    format= socket= urls=
    while [ $# -gt 0 ]; do
        case $1 in
            --write-out|-w) format=$2; shift ;;
            --unix-socket) socket=$2; shift ;;
            --max-time|--connect-timeout|--parallel-max|-m|-o|-H) shift ;;
            -*) ;;
            *) urls="$urls $1" ;;
        esac
        shift
    done
    number=0
    for url in $urls; do
        path=/${url#http://*/}
        if [ ! -e "$socket" ] || [ ! -e "$STATE/probe" ]; then
            answer='000 Failed to connect to localhost'
        else
            name=client
            case $path in /.probe/*) name=${path#/.probe/}; name=${name%%/*} ;; esac
            # A place that the probe does not know is the app's, as every other.
            if [ $name != client ] && ! grep -q "location ^~ /.probe/$name/ {" "$STATE/probe.conf"; then
                name=client
            fi
            answer=$(cat "$STATE/answers/$name" 2>/dev/null || echo '502 ')
            say "asked $name ${path#/.probe/"$name"}: ${answer%% *}"
        fi
        printf '%b' "$(printf '%s' "$format" |
            sed "s|%{urlnum}|$number|;s|%{http_code}|${answer%% *}|;s|%{errormsg}|${answer#* }|")"
        number=$((number + 1))
    done
}
"""


class FakeClock:
    """Stands for the module `time`: it passes while somebody sleeps, and at no other moment."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_tick: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return BOOT_TIME.timestamp() + self.now - 1000

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a busy loop"
        self.now += seconds
        for callback in self.on_tick:
            callback()

    @property
    def datetime(self) -> type[datetime]:
        """Stands for the class of that name."""
        clock = self

        class FakeDatetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.fromtimestamp(clock.time(), tz)

        return FakeDatetime


@dataclass
class FakeReplica:
    """A container of the app. `answer` is what its socket answers: a status, and what curl would add to a failure."""

    name: str
    answer: Callable[[], tuple[int, str]] = lambda: (200, "")
    words: str = ""
    env: list[str] | None = None
    status: str = "running"
    restarts: int = 0
    exit_code: int = 0
    out_of_memory: bool = False
    started: datetime = BOOT_TIME - timedelta(hours=1)
    volume: str = "sockets"
    volume_folder: str = "/run/uwsgi"
    network_mode: str = "bridge"

    @property
    def running(self) -> bool:
        return self.status in ("running", "restarting")

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "Id": f"id-of-{self.name}",
            "Name": f"/stack-{self.name}",
            "RestartCount": self.restarts,
            "State": {
                "Status": self.status,
                "Running": self.running,
                "Restarting": self.status == "restarting",
                "Paused": False,
                "Dead": self.status == "dead",
                "OOMKilled": self.out_of_memory,
                "ExitCode": self.exit_code,
                "Error": "",
                "StartedAt": f"{self.started:%Y-%m-%dT%H:%M:%S}.123456789Z",
                "FinishedAt": "0001-01-01T00:00:00Z",
                "Health": {"Status": "starting", "FailingStreak": 0, "Log": []},
            },
            "Config": {"Env": self.env, "Labels": {}},
            "HostConfig": {"NetworkMode": self.network_mode},
            "Mounts": [
                {"Type": "volume", "Name": self.volume, "Destination": self.volume_folder, "RW": True},
            ],
        }


@dataclass
class FakeMachine:
    """The daemon, its containers, and NGINX's file system below `root`.

    Attributes:
        events: what happened in NGINX's container, in order.
        test_error, start_error, reload_error: what NGINX says when it does not test, start, reload.
        client_answer: what is answered to a client that does not ask for one replica.
        takes_over: whether the master applies a new configuration.
        drain: seconds that old workers stay.
        fail_at: number of the call to the daemon, from 0, that raises `failure`.
        archives: what is read out of containers, by `NAME:PATH`: tars, in pieces.
    """

    root: Path
    clock: FakeClock
    replicas: dict[str, FakeReplica] = field(default_factory=dict)
    nginx: FakeReplica = field(default_factory=lambda: FakeReplica("nginx", words="nginx: last words"))
    client_answer: tuple[int, str] = (200, "")
    test_error: str = ""
    start_error: str = ""
    reload_error: str = ""
    takes_over: bool = True
    drain: float = 1.0
    fail_at: int | None = None
    failure: Exception = field(default_factory=lambda: api_error(500, "the daemon is out of order"))
    archives: dict[str, Iterable[bytes]] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        self.nginx.env = ["PATH=/usr/bin"]
        for folder in ("etc/nginx/live/boot", "run/nginx", "run/uwsgi", "proc", "state/answers"):
            (self.root / folder).mkdir(parents=True)
        (self.live / "boot" / "nginx.conf").write_text("# boot\n")
        (self.live / "current").symlink_to("boot")
        (self.root / "run/nginx/nginx.pid").write_text("1\n")
        (self.root / "state/events").touch()
        self._signals = 0
        self._next_pid = 20
        self._dying: list[tuple[float, list[int]]] = []
        self._link = "boot"
        self._files = self._present()
        self.workers = self._start_workers()
        self.clock.on_tick.append(self._tick)

    @property
    def live(self) -> Path:
        return self.root / "etc/nginx/live"

    @property
    def sockets(self) -> Path:
        return self.root / "run/uwsgi"

    @property
    def current(self) -> str:
        """Where the link to the configuration in force leads."""
        link = self.live / "current"
        return str(link.readlink()) if link.is_symlink() else ""

    @property
    def probe_runs(self) -> bool:
        return (self.root / "state/probe").exists() or any((self.root / "run/nginx").glob("probe*"))

    @property
    def events(self) -> list[str]:
        return (self.root / "state/events").read_text().splitlines()

    def client(self) -> Any:
        return _Client(self)

    def call(self) -> None:
        """Counts a call to the daemon, and fails if it is that one's turn."""
        number, self.calls = self.calls, self.calls + 1
        if number == self.fail_at:
            raise self.failure

    def run(self, script: str) -> tuple[int, bytes]:
        foreign = FOREIGN_PLACES.findall(script)
        assert not foreign, f"the gate leaves its places: {foreign} in {script}"
        for name, (status, error) in {
            "client": self.client_answer,
            **{name: replica.answer() for name, replica in self.replicas.items()},
        }.items():
            (self.root / "state/answers" / name).write_text(f"{status:03} {error}")
        environment = {
            "PATH": "/usr/bin:/bin",
            "ROOT": str(self.root),
            "STATE": str(self.root / "state"),
            "TEST_ERROR": self.test_error,
            "START_ERROR": self.start_error,
            "RELOAD_ERROR": self.reload_error,
        }
        done = subprocess.run(
            ["sh", "-c", PRELUDE + PLACES.sub(rf"{self.root}/\1/", script)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
        )
        self._look_what_changed()
        return done.returncode, done.stdout.replace(str(self.root).encode(), b"")

    def put(self, path: str, data: bytes | Iterable[bytes]) -> None:
        target = self.root / path.lstrip("/")
        if not target.is_dir():
            raise NotFound(f"no such folder: {path}")
        whole = data if isinstance(data, bytes) else b"".join(data)
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            self.put_members = {member.name: member for member in tar}
            tar.extractall(target, filter="data")
        self.say("put")
        self._files = self._present()

    def say(self, event: str) -> None:
        with (self.root / "state/events").open("a") as file:
            file.write(event + "\n")

    def _look_what_changed(self) -> None:
        if self.current != self._link:
            self._link = self.current
            # A reload in the same script comes after it.
            events = self.events
            signals = (self.root / "state/signals").read_text().splitlines() if self._has_signals() else []
            position = len(events) - 1 if len(signals) > self._signals or events[-1:] == ["reload"] else len(events)
            events.insert(position, f"swap to {self._link}")
            (self.root / "state/events").write_text("".join(f"{event}\n" for event in events))
        present = self._present()
        removed = self._files - present
        self._files = present
        for path in sorted(removed):
            self.say(f"removed {path}")

    def _has_signals(self) -> bool:
        return (self.root / "state/signals").exists()

    def _present(self) -> set[str]:
        return {
            f"{folder.name}/{path.name}"
            for folder in (self.live, self.sockets)
            for path in folder.iterdir()
            if path.name not in ("current", "current.next")
        }

    def _start_workers(self) -> list[int]:
        pids = [self._next_pid, self._next_pid + 1]
        self._next_pid += 2
        for pid in pids:
            (self.root / "proc" / str(pid)).mkdir()
            (self.root / "proc" / str(pid) / "cmdline").write_text("nginx: worker process\0")
        return pids

    def _tick(self) -> None:
        signals = len((self.root / "state/signals").read_text().splitlines()) if self._has_signals() else 0
        if signals > self._signals:
            self._signals = signals
            if self.takes_over:
                self._dying.append((self.clock.now + self.drain, self.workers))
                self.workers = self._start_workers()
                self.say("new workers")
        for when, pids in [*self._dying]:
            if self.clock.now >= when:
                for pid in pids:
                    (self.root / "proc" / str(pid) / "cmdline").unlink()
                self._dying.remove((when, pids))
                self.say("old workers gone")


class _Client:
    def __init__(self, machine: FakeMachine) -> None:
        self.containers = _Containers(machine)


class _Containers:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def get(self, container_id: str) -> "_Container":
        self._machine.call()
        return _Container(self._machine, self._find(container_id))

    def list(
        self,
        all: bool = False,  # noqa: A002
        filters: dict[str, Any] | None = None,
        ignore_removed: bool = False,
    ) -> "list[_Container]":
        self._machine.call()
        assert ignore_removed, "a container that goes in between would fail it"
        filters = filters or {}
        assert set(filters) <= {"volume"}, "teach the fake this filter"
        found = [
            replica
            for replica in (self._machine.nginx, *self._machine.replicas.values())
            if (all or replica.running) and filters.get("volume") in (None, replica.volume)
        ]
        return [_Container(self._machine, replica) for replica in found]

    def _find(self, container_id: str) -> FakeReplica:
        for replica in (self._machine.nginx, *self._machine.replicas.values()):
            if container_id == f"id-of-{replica.name}":
                return replica
        words = f"No such container: {container_id}"
        raise NotFound(words, response=_response(404), explanation=words)


class _Container:
    """As of the SDK: its attributes are those of the moment at which it was asked for."""

    def __init__(self, machine: FakeMachine, replica: FakeReplica) -> None:
        self._machine, self._replica = machine, replica
        self.attrs = copy.deepcopy(replica.attrs)

    @property
    def id(self) -> str:
        return str(self.attrs["Id"])

    @property
    def name(self) -> str:
        return str(self.attrs["Name"]).lstrip("/")

    @property
    def status(self) -> str:
        return str(self.attrs["State"]["Status"])

    def reload(self) -> None:
        self._machine.call()
        self.attrs = copy.deepcopy(self._replica.attrs)

    def logs(self, tail: int | str = "all", **options: object) -> bytes:
        self._machine.call()
        lines = self._replica.words.splitlines(keepends=True)
        return "".join(lines if tail == "all" else lines[-int(tail) :]).encode()

    def exec_run(self, cmd: list[str], **options: object) -> ExecResult:
        assert self._replica is self._machine.nginx, "the gate has no business in a replica"
        assert cmd[:2] == ["sh", "-c"]
        self._machine.call()
        if self._replica.status != "running":
            raise api_error(409, f"Container {self.id} is not running")
        return ExecResult(*self._machine.run(cmd[2]))

    def get_archive(self, path: str, chunk_size: int) -> tuple[Iterator[bytes], dict[str, Any]]:
        self._machine.call()
        pieces = self._machine.archives.get(f"{self._replica.name}:{path}")
        if pieces is None:
            raise NotFound(f"Could not find the file {path} in container {self._replica.name}")
        return iter(pieces), {"name": path.rsplit("/", 1)[-1]}

    def put_archive(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        assert self._replica is self._machine.nginx
        self._machine.call()
        self._machine.put(path, data)
        return True


def api_error(status: int, explanation: str) -> APIError:
    return APIError(explanation, response=_response(status), explanation=explanation)


def _response(status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.reason = "Conflict" if status == 409 else "Error"
    response.url = "http+docker://localhost/v1.41"
    return response


def after(clock: FakeClock, seconds: float, answer: int, before: int = 502) -> Callable[[], tuple[int, str]]:
    """An answer that becomes `answer` when `seconds` have passed."""
    start = clock.now
    return lambda: (answer if clock.now >= start + seconds else before, "")


def in_turn(*answers: int) -> Callable[[], tuple[int, str]]:
    """One answer after the other, the last one for ever."""

    def following() -> Iterator[int]:
        yield from answers[:-1]
        while True:
            yield answers[-1]

    iterator = following()
    return lambda: (next(iterator), "")
