"""A command's output is shown as it comes, and heard."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tooling import tee

ROOT = Path(__file__).parent.parent.parent


def run(script: str) -> tuple[int, str]:
    return tee.run(["sh", "-c", script], os.environ, Path("/"))


def test_what_is_printed_goes_where_it_went_and_is_returned(capfd: pytest.CaptureFixture[str]) -> None:
    code, output = run("echo one; echo two >&2; exit 3")
    assert code == 3
    assert capfd.readouterr() == ("one\n", "two\n")
    assert sorted(output.split()) == ["one", "two"]


def test_bytes_are_passed_on_unchanged(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _, output = run(r"printf 'a\r\nb\303\050\000c'")
    assert capfdbinary.readouterr().out == b"a\r\nb\xc3(\0c"
    assert output == "a\r\nb�(\0c"


def test_the_end_of_a_long_output_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    _, output = run(f"head -c {2 * tee.KEPT} /dev/zero | tr '\\0' x; echo end")
    assert len(capfd.readouterr().out) == 2 * tee.KEPT + 4
    assert len(output) == tee.KEPT
    assert output.endswith("xend\n")


def test_what_stays_behind_in_the_background_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    code, output = run("sleep 30 & echo $!")
    os.kill(int(output), signal.SIGTERM)
    assert code == 0
    assert time.monotonic() - begin < 10


def test_a_command_that_a_signal_ended_has_the_shells_exit_status(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("kill -TERM $$")[0] == 128 + signal.SIGTERM


class Terminal:
    """`tee.run` in a process of its own on a terminal of 40 rows and 100 columns."""

    def __init__(self, script: str, then: str = "") -> None:
        code = (
            "import os, sys, termios; from pathlib import Path; from tooling import tee\n"
            "termios.tcsetwinsize(1, (40, 100))\n"
            f"code, output = tee.run(['sh', '-c', {script!r}], os.environ, Path('/'))\n"
            f"{then}\nsys.exit(code)"
        )
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True
        )
        os.close(slave)

    def read_until(self, text: str) -> str:
        seen, deadline = b"", time.monotonic() + 20
        while text.encode() not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    seen += os.read(self.master, 4096)
                except OSError:
                    break
        assert text.encode() in seen, seen
        return seen.decode()

    def end(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code


def test_on_a_terminal_the_command_has_one_of_the_same_size() -> None:
    terminal = Terminal("test -t 0 && test -t 1 && test -t 2 && stty size <&1; echo over")
    assert "40 100\r\n" in terminal.read_until("over")
    assert terminal.end() == 0


def test_on_a_terminal_output_comes_at_once_and_is_heard_too() -> None:
    terminal = Terminal("printf 'half a line'; read answer; printf 'got \\033[1m%s' $answer", "print(repr(output))")
    terminal.read_until("half a line")
    os.write(terminal.master, b"yes\n")
    assert "'half a linegot \\x1b[1myes'" in terminal.read_until("'half a linegot \\x1b[1myes'")
    assert terminal.end() == 0


def test_ctrl_c_is_the_commands_to_answer_and_is_waited_for() -> None:
    terminal = Terminal("trap 'sleep 0.3; echo cleaned; exit 7' INT; echo ready; while :; do sleep 0.05; done")
    terminal.read_until("ready")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.read_until("cleaned")
    assert terminal.end() == 7
