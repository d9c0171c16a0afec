"""Commands are watched, bounded and ended whole; failures are words."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import console
from tooling.console import Exited, Failure, Step, step


def test_what_a_command_prints_is_returned_and_logged(bench: Bench, tmp_path: Path) -> None:
    current = Step("work", tmp_path / "log")
    assert console.run(["sh", "-c", "echo one; echo two >&2"], timeout=5, current=current) == "one\ntwo"
    assert "one\ntwo\n" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_command_that_fails_leaves_its_last_words(bench: Bench) -> None:
    with pytest.raises(Exited, match=r"exit status 3: no space left"):
        console.run(["sh", "-c", "echo no space left; exit 3"], timeout=5)


def test_a_program_that_is_not_there_is_a_failure_in_words(bench: Bench) -> None:
    with pytest.raises(Exited, match="no-such-program cannot be started"):
        console.run(["no-such-program"], timeout=5)


@pytest.mark.parametrize("limits", [{"timeout": 0.5}, {"timeout": 60.0, "first_line_within": 0.5}])
def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    bench: Bench, tmp_path: Path, limits: dict[str, float]
) -> None:
    script = f'sh -c "echo \\$\\$ > {tmp_path}/child; exec sleep 60" & wait'
    before = time.monotonic()
    with pytest.raises(Exited) as exited:
        console.run(["sh", "-c", script], **limits)  # type: ignore[arg-type]
    assert exited.value.timed_out
    assert time.monotonic() - before < 10
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    for _ in range(50):
        if not _runs(child):
            break
        time.sleep(0.1)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_long_step_says_that_it_is_still_at_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.2)
    with step("Engine", "compiling") as current:
        console.run(["sh", "-c", "printf '\\033[91mpart one\\033[0m\\n'; sleep 1"], timeout=5, current=current)
    said = capsys.readouterr().err
    assert "Engine: compiling" in said
    assert "Engine: … part one\n" in said
    assert said.endswith("Engine: done\n")


def test_stopping_ends_what_runs_and_starts_nothing_new(bench: Bench) -> None:
    ended: list[BaseException] = []

    def work() -> None:
        try:
            console.run(["sleep", "60"], timeout=60)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    console.stop_all()
    thread.join(10)
    assert [type(error) for error in ended] == [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        console.run(["touch", str(bench.root / "new")], timeout=5)
    assert not (bench.root / "new").exists()


def test_a_failure_is_told_with_its_step_its_remedy_and_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(Failure) as failure, step("Docker", "starting", tmp_path / "log"):
        raise Failure("It ended.\nIts last words", "Mend it.")
    console.report(failure.value, "make up")
    said = capsys.readouterr().err
    assert "make up stopped at: Docker\n" in said
    assert "What happened: It ended.\n                 Its last words\n" in said
    assert "What to do:    Mend it.\n" in said
    assert f"Full log:      {tmp_path}/log" in said


def test_commands_cannot_ask_questions(bench: Bench) -> None:
    assert console.run(["sh", "-c", "read answer || echo nobody there"], timeout=5) == "nobody there"
    assert os.getpgrp() > 0
