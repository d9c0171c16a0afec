"""Runs a command in the foreground, shows what it prints as if nobody listened, and listens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import selectors
import signal
import subprocess
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

KEPT = 2**20  # bytes of its output, from the end
_CHUNK = 2**16


def run(command: Sequence[str], env: Mapping[str, str] | None, cwd: Path) -> tuple[int, str]:
    """Exit status and output of a command; Ctrl-C is its to answer, and is waited for.

    Where a stream of this process is a terminal, the command's is one too, so that it prints in colours as ever; where
    it is a file or a pipe, it gets a pipe.
    """
    seen = bytearray()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        ends, shown = _channels(stack)
        for source, target in shown.items():
            selector.register(source, selectors.EVENT_READ, target)
        with subprocess.Popen(command, stdout=ends[0], stderr=ends[1], env=env, cwd=cwd) as process:
            for end in set(ends):
                os.close(end)
            with _resized(process, shown):
                while selector.get_map():
                    try:
                        # What it leaves running in the background may hold its end open for ever.
                        ended = process.poll() is not None
                        ready = selector.select(0 if ended else 0.2)
                        for key, _ in ready:
                            _pass_on(selector, key.fd, key.data, seen)
                        if ended and not ready:
                            break
                    except KeyboardInterrupt:
                        continue
                for source in [key.fd for key in selector.get_map().values()]:
                    selector.unregister(source)
            code = _wait(process)
    return code if code >= 0 else 128 - code, seen.decode(errors="replace")


def _channels(stack: contextlib.ExitStack) -> tuple[list[int], dict[int, int]]:
    """The command's ends for standard output and error, and what to read → where to show it."""
    ends: list[int] = []
    shown: dict[int, int] = {}
    for target in (1, 2):
        if ends and os.path.samestat(os.fstat(1), os.fstat(2)):
            ends.append(ends[0])  # one channel, so that the order stays
            continue
        if os.isatty(target):
            source, end = pty.openpty()
            tty.setraw(end)  # the real terminal does what there is to do
            _copy_size(target, source)
        else:
            source, end = os.pipe()
        stack.callback(os.close, source)
        ends.append(end)
        shown[source] = target
    return ends, shown


def _pass_on(selector: selectors.BaseSelector, source: int, target: int, seen: bytearray) -> None:
    try:
        data = os.read(source, _CHUNK)
    except OSError:  # so ends a terminal whose other side is closed
        data = b""
    if not data:
        selector.unregister(source)
        return
    seen += data
    del seen[:-KEPT]
    with contextlib.suppress(OSError):  # nobody reads any more; the command may finish what it is at
        while data:
            data = data[os.write(target, data) :]


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


@contextlib.contextmanager
def _resized(process: subprocess.Popen[bytes], shown: Mapping[int, int]) -> Iterator[None]:
    """Lets the command's terminals have the size of the real ones, also when that changes."""
    terminals = {source: target for source, target in shown.items() if os.isatty(target)}

    def resize(*_: object) -> None:
        for source, target in terminals.items():
            _copy_size(target, source)
        process.send_signal(signal.SIGWINCH)

    if not terminals:
        yield
        return
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))
