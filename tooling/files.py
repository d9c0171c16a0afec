"""Files that are either whole or not there, and one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tooling.console import say


def local(root: Path) -> Path:
    """The clone's own folder: everything that the tooling writes, except `.venv`."""
    return root / ".local"


def of_a_clone(path: str | Path) -> bool:
    """Whether a path lies in some clone's own folder: `make env` may have put it into the caller's environment."""
    path = Path(path)
    return any(folder.name == ".local" and (folder / "machine.json").exists() for folder in (path, *path.parents))


def cache() -> Path:
    """What is costly and the same for every clone of one user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "uwsgi-nginx"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that is never seen half-written; an equal one is left alone."""
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == mode:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)


def place(source: Path, target: Path) -> None:
    """Puts a large file in a second place, without a second copy of it where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and (target.samefile(source) or _alike(source, target)):
        return
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system
        shutil.copy2(source, temporary)
    temporary.replace(target)


def _alike(source: Path, target: Path) -> bool:
    a, b = source.stat(), target.stat()
    return a.st_size == b.st_size and a.st_mtime_ns == b.st_mtime_ns


def digest(parts: Iterable[str | Path]) -> str:
    """A short fingerprint of texts and of files' contents (a missing file counts as such)."""
    total = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part.read_bytes() if part.is_file() else b"\0missing"
        total.update(len(content).to_bytes(8, "big") + content)
    return total.hexdigest()[:16]


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """One at a time; who waits is told for whom. The lock goes with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    file.seek(0)
                    say(f"Waiting: another run (process {file.read().strip() or 'unknown'}) is busy with {what}.")
                    told = True
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
