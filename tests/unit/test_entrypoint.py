"""`uwsgi/entrypoint.py` around real commands."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from infra import layout

SCRIPT = Path("uwsgi/entrypoint.py")
TIMEOUT = 20  # seconds


@contextmanager
def running(*command: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The entrypoint, as the image has it, with another command in uWSGI's place."""
    process = subprocess.Popen(
        [sys.executable, "-IS", str(SCRIPT), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # What the end of a container ends.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def python(script: str) -> tuple[str, str, str]:
    return sys.executable, "-c", script


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and what was said."""
    output, _ = process.communicate(timeout=TIMEOUT)
    lines = output.split("\n")
    assert lines.pop() == ""
    return process.returncode, [json.loads(line) for line in lines]


def said(script: str, **environment: str) -> list[dict[str, Any]]:
    with running(*python(script), **environment) as process:
        return ended(process)[1]


def messages(script: str) -> list[str]:
    return [record["message"] for record in said(script)]


def printing(*data: bytes) -> str:
    return f"import os\nfor data in {data!r}: os.write(1, data)"


def test_each_line_is_an_object_with_the_keys_of_the_access_log() -> None:
    (record,) = said("print('hello')")
    assert list(record) == ["time", "source", "replica", "message"]
    assert (record["source"], record["replica"], record["message"]) == ("uwsgi", os.uname().nodename, "hello")


@pytest.mark.parametrize(("zone", "offset"), [("UTC", "+00:00"), ("<+0530>-5:30", "+05:30"), ("<-03>3", "-03:00")])
def test_the_time_is_written_as_nginx_writes_it(zone: str, offset: str) -> None:
    (record,) = said("print('hello')", TZ=zone)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", record["time"])
    assert record["time"].endswith(offset)


def test_what_both_outputs_say_comes_in_its_order() -> None:
    assert messages("import os\nfor i in range(100): os.write(1 + i % 2, b'%d\\n' % i)") == [str(i) for i in range(100)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'say "it"\\now', 'say "it"\\now'),
        (b"\x1b[31mred\x00\x01\x7f", "\x1b[31mred\x00\x01\x7f"),
        ("grün \u2028 \U0001f600".encode(), "grün \u2028 \U0001f600"),
        (b"latin-1 gr\xfcn", r"latin-1 gr\xfcn"),
        (b"  indented, as tracebacks are  ", "  indented, as tracebacks are"),
        (b"windows\r", "windows"),
        (b'{"already": "JSON"}', '{"already": "JSON"}'),
    ],
)
def test_whatever_is_said_survives(data: bytes, message: str) -> None:
    assert messages(printing(data + b"\n")) == [message]


def test_lines_that_say_nothing_are_left_out() -> None:
    assert messages(printing(b"\n\none\n  \ntwo\n")) == ["one", "two"]


def test_a_line_may_come_in_pieces() -> None:
    assert messages(printing(b"on", b"e\ntw", b"o\nth", b"\xc3", b"\xbc", b"\n")) == ["one", "two", "thü"]


def test_a_line_without_an_end_is_not_kept_back_for_ever() -> None:
    long = messages("import os\nfor _ in range(200): os.write(1, b'x' * 1000)")
    assert len(long) > 1
    assert "".join(long) == "x" * 200_000


def test_a_traceback_is_a_line_each() -> None:
    lines = messages("raise ValueError('boom')")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: boom"


@pytest.mark.parametrize(
    "death", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGSEGV)"]
)
def test_last_words_are_not_lost(death: str) -> None:
    script = f"import os, signal\nos.write(1, b'a line\\nand half a ')\nos.write(2, b'one')\n{death}"
    assert messages(script) == ["a line", "and half a one"]


def test_a_pipe_full_of_last_words_is_not_lost() -> None:
    lines = [f"{number:099}" for number in range(600)]
    text = "".join(f"{line}\n" for line in lines).encode()
    assert messages(f"import os\nos.write(1, {text!r})\nos._exit(1)") == lines


@pytest.mark.parametrize(
    ("end", "code"), [("os._exit(0)", 0), ("os._exit(22)", 22), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_it_ends_as_the_command_did(end: str, code: int) -> None:
    with running(*python(f"import os, signal\n{end}")) as process:
        assert ended(process)[0] == code


def test_it_does_not_wait_for_orphans_that_hold_its_pipe() -> None:
    with running("sh", "-c", "echo before; sleep 60 & exit 3") as process:
        code, records = ended(process)
    assert (code, [record["message"] for record in records]) == (3, ["before"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    script = (
        f"import os, signal, time\nsignal.signal({int(number)}, lambda *_: (os.write(1, b'got it'), os._exit(5)))\n"
        "print('ready')\ntime.sleep(60)"
    )
    with running(*python(script)) as process:
        assert process.stdout
        assert "ready" in process.stdout.readline()
        process.send_signal(number)
        code, records = ended(process)
    assert (code, [record["message"] for record in records]) == (5, ["got it"])


def test_a_command_that_stops_is_nudged_until_it_is_gone() -> None:
    script = (
        "import os, signal, time\nnudges = []\n"
        "def nudge(*_):\n    nudges.append(1)\n    if len(nudges) == 3: os._exit(5)\n"
        "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGHUP, nudge))\n"
        "print('ready')\nwhile True: time.sleep(60)"
    )
    with running(*python(script)) as process:
        assert process.stdout
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 5


ON_STOP = (
    "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
    "signal.signal(signal.SIGHUP, lambda *_: os._exit(6))\nprint('ready')\n"
)


@pytest.mark.parametrize(
    ("script", "delay", "code", "at_least"),
    [
        (f"{ON_STOP}while True: time.sleep(60)", "1", 5, 1.0),
        (f"{ON_STOP}time.sleep(0.5); os._exit(7)", "60", 7, 0.0),
    ],
    ids=["then stops", "ends by itself"],
)
def test_a_replica_that_is_told_to_stop_goes_on_while_others_may_still_ask_it(
    script: str, delay: str, code: int, at_least: float
) -> None:
    with running(*python(script), REPLICA_STOP_DELAY=delay) as process:
        assert process.stdout
        assert "ready" in process.stdout.readline()
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)  # says nothing new
        assert ended(process)[0] == code
    assert at_least <= time.monotonic() - begin < TIMEOUT


def test_what_is_no_stop_reaches_a_replica_also_while_it_waits_for_that() -> None:
    script = f"{ON_STOP}signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))\nwhile True: time.sleep(60)"
    with running(*python(script), REPLICA_STOP_DELAY="60") as process:
        assert process.stdout
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR1)
        assert ended(process)[0] == 7


def test_the_command_runs_in_batches() -> None:
    assert messages("import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)") == ["True"]


def test_the_command_does_not_inherit_what_python_ignores() -> None:
    with running("grep", "SigIgn", "/proc/self/status") as process:
        _, (record,) = ended(process)
    ignored = int(record["message"].split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize("silence", ["", "exec >&- 2>&-;"])
def test_it_sleeps_while_nothing_is_said(silence: str) -> None:
    with running("sh", "-c", f"echo ready; {silence} exec sleep 60") as process:
        assert process.stdout
        process.stdout.readline()
        before = _cpu_ticks(process.pid)
        time.sleep(0.5)
        assert _cpu_ticks(process.pid) - before <= 1


def _cpu_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# requests, as uWSGI logs them


def request_format() -> str:
    (line,) = (line for line in Path("uwsgi/uwsgi.ini").read_text().splitlines() if line.startswith("log-format"))
    return line.partition("=")[2].strip()


def logged(values: Sequence[str]) -> str:
    """What uWSGI makes of its `log-format`."""
    remaining = iter(values)
    return re.sub(r"%\([\w.]+\)", lambda _: next(remaining), request_format())


def test_a_request_has_the_keys_of_the_access_log() -> None:
    line = logged(["502", "0.012345", "POST", '/a?b="c"', "id-1 of a client"])
    (record,) = said(printing(line.encode() + b"\n"))
    assert list(record) == ["time", "source", "replica", "request_id", "method", "uri", "status", "request_time"]
    assert {key: record[key] for key in list(record)[3:]} == {
        "request_id": "id-1 of a client",
        "method": "POST",
        "uri": '/a?b="c"',
        "status": 502,
        "request_time": 0.012,
    }


def test_a_request_without_an_id_has_an_empty_one() -> None:
    (record,) = said(printing(logged(["500", "1.000000", "GET", "/", "-"]).encode() + b"\n"))
    assert (record["request_id"], record["request_time"]) == ("", 1.0)


@pytest.mark.parametrize("line", ["[request] of somebody", "[request] x 0.1 GET / -", "a [request] 500 0.1 GET / -"])
def test_what_only_looks_like_a_request_is_a_message(line: str) -> None:
    assert messages(printing(line.encode() + b"\n")) == [line]


# the environment of a replica in a swarm


def after_reading(file: Path, monkeypatch: pytest.MonkeyPatch, *hosts: str) -> dict[str, str]:
    """The environment, which was HOME and PATH before, on a machine with these lines in its file of hosts."""
    known = file.parent / "hosts"
    known.write_text("\n".join(["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost", "", *hosts]) + "\n")
    variables = {"HOME": "/", "PATH": "/usr/bin"}
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", variables)
        runpy.run_path(str(SCRIPT))["read_environment"](str(file), str(known))
    return variables


def test_variables_of_the_file_are_taken_and_the_address_that_others_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "environment.json"
    own = {"PATH": "/bin", "GREETING": "two\nlines = ä", "EMPTY": ""}
    file.write_text(json.dumps(own))
    hosts = "10.20.0.7\tsomebody-else", f"10.20.0.5\tanother-name {os.uname().nodename}"
    assert after_reading(file, monkeypatch, *hosts) == {"HOME": "/", **own, "REPLICA_ADDRESS": "10.20.0.5"}


def test_without_the_file_the_environment_is_what_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert after_reading(tmp_path / "environment.json", monkeypatch) == {"HOME": "/", "PATH": "/usr/bin"}


def test_the_program_writes_what_is_read_here() -> None:
    source = SCRIPT.read_text()
    assert f'ENVIRONMENT_FILE = "{layout.ENVIRONMENT_FILE}"' in source
    assert f'os.environ.get("{layout.STOP_DELAY_VARIABLE}", "0")' in source
