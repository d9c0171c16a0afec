"""`make ps` and `make logs` of a stack on a swarm: what `docker service` says of its services, on whichever node."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from tooling.containers import Known
from tooling.logs import Output

# `docker service logs --timestamps`: time, task and node, line.
LINE = re.compile(r"(?P<moment>\S+) \S+\.(?P<slot>\w+)\.\w+@(?P<node>\S+) +\| (?P<line>.*)")
REPLICAS = "app"  # the logical name of their service
SILENCE = 5.0  # seconds after which all has been said: Docker waits for nodes that are gone
COLUMNS = r"table {{.Name}}\t{{.Node}}\t{{.CurrentState}}\t{{.Error}}"


def ps(known: Known) -> int:
    """The tasks that are to run; then those that did not, and why."""
    services = known.services.values()
    print(known.docker("service", "ps", "--filter=desired-state=running", f"--format={COLUMNS}", *services), end="")
    ended = known.docker(
        "service", "ps", "--no-trunc", "--filter=desired-state=shutdown", f"--format={COLUMNS}", *services
    )
    heading, *rows = ended.splitlines() or [""]
    failed = [row for row in rows if row.rstrip()[heading.find("ERROR") :].strip()]
    if failed:
        print("\n".join(["", "What failed:", *(" ".join(row.split()) for row in failed)]))
    return 0


def logs(known: Known, output: Output, options: Sequence[str], *, follow: bool) -> int:
    """What all tasks say: until Ctrl-C if it is to follow them, else what is there, in the order of its time."""
    said: queue.Queue[tuple[str, str]] = queue.Queue()
    flags = ["--timestamps", *(["--follow"] if follow else []), *options]
    readers = [_start(known.environment, role, [*flags, service], said) for role, service in known.services.items()]
    lines: list[tuple[str, str]] = []
    try:
        while follow or any(thread.is_alive() for _, thread in readers) or not said.empty():
            try:
                line = said.get(timeout=None if follow else SILENCE)
            except queue.Empty:
                break
            if follow:
                output.make_room(iter([line[0]]))
                output.write(*line)
            else:
                lines.append(line)
            if output.is_over:
                break
    except KeyboardInterrupt:
        pass
    finally:
        for process, _ in readers:
            process.kill()
            process.wait()
    output.make_room(name for name, _ in lines)
    for name, text in sorted(lines, key=lambda found: found[1]):
        output.write(name, text)
    return 0


def _start(
    environment: Mapping[str, str], role: str, arguments: Sequence[str], said: queue.Queue[tuple[str, str]]
) -> tuple[subprocess.Popen[str], threading.Thread]:
    process = subprocess.Popen(
        ["docker", "service", "logs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )

    def read() -> None:
        assert process.stdout
        with process.stdout as lines:
            for text in lines:
                said.put(_told(role, text.rstrip("\n")))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return process, thread


def _told(role: str, text: str) -> tuple[str, str]:
    """Who says it, and the line with a time before it; what Docker says itself has neither."""
    found = LINE.fullmatch(text)
    if not found:
        return "docker", f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}"
    name = f"uwsgi-{found['slot']}@{found['node']}" if role == REPLICAS else f"{role}@{found['node']}"
    return name, f"{found['moment']} {found['line']}"
