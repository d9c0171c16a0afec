"""Steps that a person can watch, failures that a person can act on. All of it goes to stderr: stdout is for results."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

HEARTBEAT_SECONDS = 10.0
LAST_WORDS = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_print_lock = threading.Lock()
_children: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


class Failure(Exception):
    """Something a person must know: what happened, what to do about it, and where to read more."""

    def __init__(self, what: str, todo: str = "", log: Path | None = None, step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo
        self.log = log
        self.step = step


class Exited(Exception):
    """A command ended badly; `reason` and `last_words` are for the one who knows what it was for."""

    def __init__(self, reason: str, last_words: str, timed_out: bool = False) -> None:
        super().__init__(f"{reason}: {last_words}" if last_words else reason)
        self.reason = reason
        self.last_words = last_words
        self.timed_out = timed_out


def say(text: str) -> None:
    """One line (or block) to the person, whole even when several steps run at once."""
    with _print_lock:
        print(text, file=sys.stderr, flush=True)


def loud(title: str, lines: Sequence[str]) -> None:
    """A framed notice that is not to be overlooked."""
    bar = "*" * 78
    say("\n".join([bar, f"** {title}", *(f"**   {line}" for line in lines), bar]))


class Step:
    """One visible step: says that it starts, that it is still at it, and how long it took."""

    def __init__(self, title: str, log: Path | None = None) -> None:
        self.title = title
        self.log = log
        self.started = time.monotonic()
        self.outcome = "done"

    def note(self, text: str) -> None:
        """A line below the step."""
        say(f"[{time.monotonic() - self.started:5.0f}s] {self.title}: {text}")


@contextlib.contextmanager
def step(title: str, doing: str, log: Path | None = None) -> Iterator[Step]:
    """Frames a step that may take long; a Failure raised inside gets the step's name and log."""
    current = Step(title, log)
    current.note(doing)
    try:
        yield current
    except Failure as failure:
        failure.step = failure.step or title
        failure.log = failure.log or (current.log if current.log and current.log.exists() else None)
        raise
    current.note(current.outcome)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    current: Step | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    first_line_within: float | None = None,
    progress: Callable[[Sequence[str]], str] | None = None,
) -> str:
    """
    Runs a command and returns what it printed. With a step, its output goes to the step's log, and every few seconds a
    line says that it is still at it: its own last one, or what `progress` makes of all of them. Raises Exited.
    """
    if _stopping.is_set():
        raise KeyboardInterrupt
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(env) if env is not None else None,
            cwd=cwd,
            # So that what it starts in turn (an installer's curl, a compiler's children) can be ended along with it.
            start_new_session=True,
        )
    except OSError as error:
        raise Exited(f"{command[0]} cannot be started", error.strerror or str(error)) from error
    _children.add(process)
    try:
        return _watch(process, command, timeout, current, first_line_within, progress)
    finally:
        _end(process)
        _children.discard(process)


def stop_all() -> None:
    """Ends what is still running, so that an interrupted run leaves nothing at work behind it."""
    _stopping.set()
    for process in list(_children):
        _end(process)


def _watch(
    process: subprocess.Popen[str],
    command: Sequence[str],
    timeout: float,
    current: Step | None,
    first_line_within: float | None,
    progress: Callable[[Sequence[str]], str] | None,
) -> str:
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        with process.stdout, contextlib.ExitStack() as files:
            log = None
            if current and current.log:
                current.log.parent.mkdir(parents=True, exist_ok=True)
                log = files.enter_context(current.log.open("a", encoding="utf-8"))
                print("$", *command, file=log, flush=True)
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if log:
                    print(lines[-1], file=log, flush=True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    started = beat = time.monotonic()
    while True:
        reader.join(0.02 if time.monotonic() - started < 1 else 0.2)
        if not reader.is_alive() or process.poll() is not None:
            break
        now = time.monotonic()
        if now - started > timeout:
            raise Exited(f"no end after {timeout:.0f} s", _last_words(lines), timed_out=True)
        if first_line_within and not lines and now - started > first_line_within:
            raise Exited(f"no answer within {first_line_within:.0f} s", "", timed_out=True)
        if current and now - beat >= HEARTBEAT_SECONDS:
            beat = now
            current.note(f"… {progress(lines) if progress else _COLOUR.sub('', ''.join(lines[-1:])).strip()[:100]}")
    reader.join(2)
    code = process.wait()
    if code != 0:
        if _stopping.is_set():
            raise KeyboardInterrupt
        reason = f"it was ended by signal {-code}" if code < 0 else f"it failed with exit status {code}"
        raise Exited(reason, _last_words(lines))
    return "\n".join(lines)


def _last_words(lines: Sequence[str]) -> str:
    return "\n".join([line for line in lines if line.strip()][-LAST_WORDS:])


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


def report(failure: Failure, command: str) -> None:
    """The end of a run that could not go on, in words."""
    at = f" at: {failure.step}" if failure.step else ""
    text = [f"\n{command} stopped{at}", f"  What happened: {_indented(failure.what)}"]
    if failure.todo:
        text.append(f"  What to do:    {_indented(failure.todo)}")
    if failure.log:
        text.append(f"  Full log:      {failure.log}")
    say("\n".join(text))


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n" + " " * 17)


def on_termination() -> None:
    """Makes SIGTERM end a run the way Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def become(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
    """Turns this process into the command: its output, its signals and its exit status are the command's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(cwd)
    os.execvpe(command[0], list(command), dict(env))  # noqa: S606
