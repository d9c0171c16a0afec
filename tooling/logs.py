"""`make logs`: what all containers of a stack say, in one stream; with `-f` also those that come and go meanwhile."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tooling import log_lines
from tooling.console import Failure, say
from tooling.containers import Container, Known, of_stack

TAIL = "50"  # lines of each container
EVENTS = ("start", "destroy")
LAST_WORDS_SECONDS = 2.0


@dataclass
class Output:
    """Where lines go, one at a time, whoever says them."""

    as_json: bool
    width: int = 0
    is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def write(self, name: str, stamped: str) -> None:
        """Shows a line that Docker has put a time before."""
        moment, _, line = stamped.rstrip("\r\n").partition(" ")
        if self.as_json:
            text = log_lines.as_json(line, moment, name)
        else:
            start = log_lines.prefix(name, self.width, colours=self._colours)
            text = start + log_lines.readable(line, colours=self._colours)
        with self._lock:
            if self.is_over:
                return
            try:
                print(text, flush=True)
            except BrokenPipeError:  # whoever read this has had enough
                self.is_over = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def make_room(self, names: Iterator[str]) -> None:
        """Keeps what follows the names in one column."""
        self.width = max(self.width, *map(len, names), 0)


def run(root: Path, name: str, rest: list[str]) -> int:
    """Shows the logs of a stack's containers."""
    options, others = _parser().parse_known_args(rest)
    known = Known.of(root, name)
    output = Output(options.json)
    if known.services:
        from tooling import services

        return services.logs(known, output, ["--tail", options.tail, *others], follow=options.follow)
    found = of_stack(known)
    if not found:
        say(f"Stack {name} has no containers.")
        return 0
    output.make_room(container.name for container in found)
    if options.follow:
        Follower(known, output, ["--tail", options.tail, *others]).run()
        return 0
    # In the order in which it was said, not container by container. Docker's times are all of the same length.
    lines = [(line, container.name) for container in found for line in _said(known, container, options.tail, others)]
    for line, who in sorted(lines, key=lambda said: said[0].partition(" ")[0]):
        output.write(who, line)
        if output.is_over:
            break
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make logs ARGS=…", description="Other arguments are those of `docker logs`.", allow_abbrev=False
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as long as there is a container")
    parser.add_argument("-n", "--tail", default=TAIL, metavar="LINES", help=f"of each container ({TAIL}), or `all`")
    parser.add_argument("--json", action="store_true", help="an object of JSON a line, as it was written")
    return parser


def _said(known: Known, container: Container, tail: str, others: Sequence[str]) -> list[str]:
    process = subprocess.run(
        ["docker", "logs", "--timestamps", "--tail", tail, *others, container.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env=known.environment,
    )
    if process.returncode:
        raise Failure(f"docker logs did not work: {process.stdout.strip()}", "Mend what it names, then try again.")
    return process.stdout.splitlines()


class Follower:
    """Follows all containers of a stack until there is none any more, or until it is interrupted.

    Args:
        options: of `docker logs` for the containers that are there when it begins.
    """

    def __init__(self, known: Known, output: Output, options: Sequence[str]) -> None:
        self._known, self._output, self._options = known, output, options
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._threads: list[threading.Thread] = []
        self._followed: dict[str, bool] = {}  # by id; whether it has started since it was last looked for
        self._shown: dict[str, str] = {}  # by id: the time of the last line

    def run(self) -> None:
        """Returns when it is over."""
        # First the events, then who is there: so nobody is missed who comes in between.
        filters = [f"--filter=event={event}" for event in EVENTS]
        labels = [part for part in self._known.filters if "label=" in part]
        events = self._start(["docker", "events", "--filter=type=container", "--format={{.ID}}", *filters, *labels])
        try:
            for container in of_stack(self._known):
                self._follow(container, self._options)
            assert events.stdout
            for line in events.stdout:
                if not self._look(line.strip()):
                    for thread in self._threads:
                        thread.join(LAST_WORDS_SECONDS)
                    return
            if not self._output.is_over:
                raise Failure("Docker says no more of what happens to containers.", "See that its daemon runs.")
        except KeyboardInterrupt:
            return
        finally:
            self._stop()

    def _look(self, identity: str) -> bool:
        """Follows who has started; returns whether anybody is there."""
        there = of_stack(self._known)
        self._output.make_room(container.name for container in there)
        for container in there:
            if container.id == identity:
                self._follow(container, ())
        return bool(there)

    def _follow(self, container: Container, options: Sequence[str]) -> None:
        with self._lock:
            if container.id in self._followed:
                self._followed[container.id] = True
                return
            self._followed[container.id] = False
        thread = threading.Thread(target=self._show, args=(container, options), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _show(self, container: Container, options: Sequence[str]) -> None:
        while True:
            # It ends with the container's run. In the next run, what was shown is not shown again.
            last = self._shown.get(container.id, "")
            since = ["--since", last] if last else options
            process = self._start(["docker", "logs", "--timestamps", "--follow", *since, container.id])
            assert process.stdout
            for line in process.stdout:
                moment = line.partition(" ")[0]
                if moment > last:
                    self._shown[container.id] = moment
                    self._output.write(container.name, line)
                if self._output.is_over:
                    self._stop()
                    return
            with self._lock:
                if not self._followed[container.id]:
                    del self._followed[container.id]
                    return
                self._followed[container.id] = False

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._known.environment,
        )
        with self._lock:
            self._processes = {one for one in self._processes if one.poll() is None} | {process}
        return process

    def _stop(self) -> None:
        with self._lock:
            processes, self._processes = self._processes, set()
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
