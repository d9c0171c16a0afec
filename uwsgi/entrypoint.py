"""`entrypoint.py COMMAND …`: the first process of a replica. It runs COMMAND, which is uWSGI, and hands on what that
and the app say as JSON, an object a line.

uWSGI can do that too (`log-encoder`), but keeps all that is said in its master until the app is imported: an app that
exits or is killed before takes its last words with it. And it leaves control characters as they are, which is no JSON
(https://github.com/unbit/uwsgi/blob/2.0.31/core/utils.c, `escape_json`). A pipe keeps what it holds until it is read.
"""

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
CHUNK = 65536  # bytes; as much as a pipe holds
LONGEST = 65536  # bytes; a longer line becomes several
# uWSGI that was told to stop looks once a second whether its workers are gone, or when another signal comes. SIGHUP
# does nothing else then (https://github.com/unbit/uwsgi/blob/2.0.31/core/uwsgi.c, `gracefully_kill_them_all`).
NUDGE_INTERVAL = 100  # milliseconds
REPLICA = os.uname().nodename
HOSTS_FILE = "/etc/hosts"
ENVIRONMENT_FILE = "/run/environment.json"  # of a replica in a swarm: variables by name
# `log-format` in uwsgi.ini.
REQUEST = re.compile(r"\[request\] (?P<status>\d+) (?P<seconds>[\d.]+) (?P<method>\S+) (?P<uri>\S+) (?P<id>.*)")


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with `data`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= LONGEST:
            lines.append(self.end())
        return lines

    def end(self) -> bytes:
        """What came after the last line end."""
        rest, self._rest = self._rest, b""
        return rest


def records(lines: list[bytes]) -> Iterator[str]:
    """A line of JSON for each of `lines` that says something; the keys are those of NGINX's access log."""
    zone = time.strftime("%z")
    now = f"{time.strftime('%Y-%m-%dT%H:%M:%S')}{zone[:3]}:{zone[3:]}"
    for line in lines:
        # A byte that is no UTF-8 becomes \xff, four characters.
        text = line.decode(errors="backslashreplace").rstrip()
        if text:
            record = {"time": now, "source": "uwsgi", "replica": REPLICA, **content(text)}
            yield json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def content(text: str) -> dict[str, str | int | float]:
    """What a line says: a request that uWSGI logs, or a message."""
    request = REQUEST.fullmatch(text)
    if not request:
        return {"message": text}
    return {
        "request_id": "" if request["id"] == "-" else request["id"],
        "method": request["method"],
        "uri": request["uri"],
        "status": int(request["status"]),
        "request_time": round(float(request["seconds"]), 3),
    }


def write(lines: list[bytes]) -> None:
    text = "".join(f"{record}\n" for record in records(lines))
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def start(command: list[str], output: int) -> int:
    """Starts `command`, which writes all that it says to `output`; returns its process id."""
    return os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores, and children would with it
    )


def exit_code(child: int) -> int | None:
    """That of `child`, as a shell gives it; None while it runs. Other children, orphans, are buried as well."""
    try:
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if process == 0:
                return None
    except ChildProcessError:
        return None


def main(command: list[str], stop_delay: float = 0) -> int:
    """Runs `command` to its end; returns its exit code.

    Args:
        command: with its arguments.
        stop_delay: seconds for which it goes on when it is told to stop.
    """
    # Every signal wakes the loop, also one that comes just before it begins to wait.
    awakened, waker = os.pipe()
    os.set_blocking(awakened, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    said, output = os.pipe()
    child = start(command, output)
    os.close(output)
    lines = Lines()
    waiting = select.poll()
    waiting.register(awakened, select.POLLIN)
    waiting.register(said, select.POLLIN)
    code = None
    is_stopping = False
    stops_at: float | None = None  # of time.monotonic()
    while code is None:
        pause = 1000 * max(0.0, stops_at - time.monotonic()) if stops_at else NUDGE_INTERVAL if is_stopping else None
        ready = {descriptor for descriptor, _ in waiting.poll(pause)}
        if stops_at and time.monotonic() >= stops_at:
            os.kill(child, signal.SIGTERM)
            stops_at, is_stopping = None, True
        elif is_stopping and not ready:
            os.kill(child, signal.SIGHUP)
        if said in ready:
            data = os.read(said, CHUNK)
            write(lines.feed(data))
            if not data:  # all who could say something are gone, or silent
                waiting.unregister(said)
        if awakened in ready:
            for received in os.read(awakened, CHUNK):
                if received == signal.SIGTERM and not is_stopping:
                    stops_at = stops_at or time.monotonic() + stop_delay
                elif received in FORWARDED:
                    os.kill(child, received)
            code = exit_code(child)

    # Orphans may still hold the pipe: what is in it is all that counts.
    os.set_blocking(said, False)
    try:
        while data := os.read(said, CHUNK):
            write(lines.feed(data))
    except BlockingIOError:
        pass
    write([lines.end()])
    return code


def prefer_throughput() -> None:
    """Has the kernel let a thread run on when another one of the replica is woken (SCHED_BATCH, which is inherited).

    Threads that share the interpreter's lock wake each other several times a request, and each time the one that is
    woken would take the place of the one that has the lock (docs/performance.md).
    https://man7.org/linux/man-pages/man7/sched.7.html
    """
    with suppress(OSError):  # a sandbox that knows no policies
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def read_environment(path: str, hosts: str = HOSTS_FILE) -> None:
    """Takes the variables of the file at `path`, if there is one, into the environment, and its own address."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
        os.environ.update(json.load(file))
        os.environ["REPLICA_ADDRESS"] = own_address(hosts)


def own_address(path: str) -> str:
    """That of this host in the file of hosts at `path`, if any: not the one on the bridge that leads out of a swarm."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        entries = [line.split() for line in file]
    return next((address for address, *names in filter(None, entries) if REPLICA in names), "")


if __name__ == "__main__":
    prefer_throughput()
    read_environment(ENVIRONMENT_FILE)
    reloader = [sys.executable, "/usr/local/bin/live_reload.py"] if os.environ.get("LIVE_RELOAD") else []
    sys.exit(main([*reloader, *sys.argv[1:]], float(os.environ.get("REPLICA_STOP_DELAY", "0"))))
