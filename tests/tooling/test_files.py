"""Files are whole or not there, and runs take turns."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tooling import files

REPOSITORY = Path(__file__).parent.parent.parent


def test_a_file_is_replaced_as_a_whole_and_an_equal_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    files.write(path, "one", mode=0o755)
    assert path.read_text(encoding="utf-8") == "one"
    assert path.stat().st_mode & 0o777 == 0o755
    inode = path.stat().st_ino
    files.write(path, "one", mode=0o755)
    assert path.stat().st_ino == inode
    files.write(path, "two", mode=0o755)
    assert path.stat().st_ino != inode
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_a_large_file_is_placed_without_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("engine", encoding="utf-8")
    files.place(source, tmp_path / "bin" / "target")
    assert (tmp_path / "bin" / "target").samefile(source)


def test_a_large_file_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("engine", encoding="utf-8")
    files.place(source, target)
    assert target.read_text(encoding="utf-8") == "engine"
    inode = target.stat().st_ino
    files.place(source, target)
    assert target.stat().st_ino == inode


def test_a_fingerprint_tells_where_one_part_ends(tmp_path: Path) -> None:
    assert files.digest(["ab", "c"]) != files.digest(["a", "bc"])
    (tmp_path / "empty").touch()
    assert files.digest([tmp_path / "empty"]) != files.digest([tmp_path / "missing"])


def test_a_second_run_waits_and_is_told_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys; from pathlib import Path; from tooling import files\n"
        "with files.lock(Path(sys.argv[1]), 'x'): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "in\n"
        entered = threading.Event()

        def enter() -> None:
            with files.lock(tmp_path / "lock", "this clone"):
                entered.set()

        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.5)
        # However it ends.
        other.kill()
        waiting.join(5)
    assert entered.is_set()
    assert f"process {other.pid}) is busy with this clone" in capsys.readouterr().err
