"""What every unit test gets: the project as working folder, and a guard against tests that leave something behind."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# Without it f-strings over outputs, and comparisons of them, pass vacuously.
os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "true"

PROJECT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `tempfile` makes its files in these tests, and nobody else."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture(autouse=True)
def _as_the_engine_runs_it(monkeypatch: pytest.MonkeyPatch, temporary_folder: Path) -> None:
    """In the project's folder, as `pulumi` does, and without what the caller's shell says of a stack or a daemon."""
    monkeypatch.chdir(PROJECT)
    for name in ("PULUMI_CONFIG", "PULUMI_CONFIG_SECRET_KEYS", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(temporary_folder))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder))


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_as_the_engine_runs_it: None, temporary_folder: Path) -> Iterator[None]:
    before = set(threading.enumerate()), _children(), set(temporary_folder.iterdir())
    yield
    threads = set(threading.enumerate()) - before[0]
    assert not threads, f"the test left threads behind: {threads}"
    processes = _children() - before[1]
    assert not processes, f"the test left processes behind: {processes}"
    files = set(temporary_folder.iterdir()) - before[2]
    assert not files, f"the test left files behind: {files}"


def _children() -> set[str]:
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= set(task.read_text().split())
    return found
