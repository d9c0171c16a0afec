"""What makes another fingerprint, and what does not."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "app")


def fill(folder: Path) -> Path:
    (folder / "package" / "__pycache__").mkdir(parents=True)
    (folder / "requirements.txt").write_text("flask\n")
    (folder / "package" / "a.py").write_text("a = 1\n")
    (folder / "package" / "__pycache__" / "a.pyc").write_text("compiled")
    (folder / "start.sh").write_text("true\n")
    (folder / "link").symlink_to("start.sh")
    (folder / "notes.md").write_text("ignored\n")
    (folder / "kept.md").write_text("kept\n")
    (folder / ".dockerignore").write_text("# a comment\n**/__pycache__\n\n*.md\n!kept.md\n")
    for path in (folder / "start.sh", folder / "requirements.txt"):
        path.chmod(0o644)
    return folder


def relink(folder: Path, target: str) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to(target)


def replace_link(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").write_text("start.sh")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file's content": lambda folder: (folder / "package" / "a.py").write_text("a = 2\n"),
    "a file emptied": lambda folder: (folder / "package" / "a.py").write_text(""),
    "a file's name": lambda folder: (folder / "package" / "a.py").rename(folder / "package" / "b.py"),
    "a file's folder": lambda folder: (folder / "package" / "a.py").rename(folder / "a.py"),
    "a file more": lambda folder: (folder / "new.py").touch(),
    "a file less": lambda folder: (folder / "start.sh").unlink(),
    "a file whose name is no text": lambda folder: (folder / os.fsdecode(b"\xff")).touch(),
    "a file hidden by its name": lambda folder: (folder / ".env").write_text("A=1"),
    "the executable bit": lambda folder: (folder / "start.sh").chmod(0o755),
    "a link's target": lambda folder: relink(folder, "requirements.txt"),
    "a link that leads nowhere": lambda folder: relink(folder, "no-such-file"),
    "a file in a link's place": lambda folder: replace_link(folder),
    "a file kept from being ignored": lambda folder: (folder / "kept.md").write_text("changed"),
    "what is ignored": lambda folder: (folder / ".dockerignore").write_text("package\n"),
    "two files that swap contents": lambda folder: (
        (folder / "start.sh").write_text("flask\n"),
        (folder / "requirements.txt").write_text("true\n"),
    ),
}

NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "an ignored file": lambda folder: (folder / "notes.md").write_text("changed"),
    "an ignored file more": lambda folder: (folder / "more.md").touch(),
    "a file in an ignored folder": lambda folder: (folder / "package" / "__pycache__" / "b.pyc").touch(),
    "the times of a file": lambda folder: os.utime(folder / "start.sh", (1, 1)),
    "read permissions of others": lambda folder: (folder / "start.sh").chmod(0o600),
    "an executable bit of others alone": lambda folder: (folder / "start.sh").chmod(0o611),
    "what a link leads to, by time": lambda folder: os.utime(folder / "link", (1, 1), follow_symlinks=False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_another_fingerprint(folder: Path, change: str) -> None:
    before = fingerprint.of_folder(folder)
    CHANGES[change](folder)
    assert fingerprint.of_folder(folder) != before


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_no_build_sees_makes_no_other_fingerprint(folder: Path, change: str) -> None:
    before = fingerprint.of_folder(folder)
    NO_CHANGES[change](folder)
    assert fingerprint.of_folder(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_files_does_not_matter(folder: Path) -> None:
    before = fingerprint.of_folder(folder)
    for path in folder.rglob("*"):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert fingerprint.of_folder(folder) == before


def test_a_copy_elsewhere_has_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    assert fingerprint.of_folder(fill(tmp_path / "elsewhere" / "else")) == fingerprint.of_folder(folder)


def test_the_order_of_files_on_the_disk_does_not_matter(tmp_path: Path) -> None:
    names = ["b", "a", "c/d", "c.e", "Z"]
    for folder, order in ((tmp_path / "one", names), (tmp_path / "two", names[::-1])):
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    assert fingerprint.of_folder(tmp_path / "one") == fingerprint.of_folder(tmp_path / "two")


def test_the_order_in_which_the_system_lists_files_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint.of_folder(folder)
    names = sorted(fingerprint.files(folder), reverse=True)
    monkeypatch.setattr(fingerprint, "files", lambda _: names)
    assert fingerprint.of_folder(folder) == before


def test_a_line_that_is_no_pattern_is_named_with_its_file(folder: Path) -> None:
    (folder / ".dockerignore").write_text("*.md\n[a\n")
    with pytest.raises(ValueError, match=r"/app/\.dockerignore: '\[a' is no pattern"):
        fingerprint.files(folder)


def test_a_folder_without_an_ignore_file_counts_all_its_files(folder: Path) -> None:
    (folder / ".dockerignore").unlink()
    before = fingerprint.of_folder(folder)
    (folder / "notes.md").write_text("changed")
    assert fingerprint.of_folder(folder) != before


def test_the_app_that_comes_with_the_project_does_not_count_what_python_compiles(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    for path in Path("app").iterdir():
        if path.is_file():
            (app / path.name).write_bytes(path.read_bytes())
    before = fingerprint.of_folder(app)
    (app / "__pycache__").mkdir()
    (app / "__pycache__" / "webapp.cpython-311.pyc").write_text("compiled")
    assert fingerprint.of_folder(app) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a",), ("b",)),
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        (("1",), (1,)),
        ((["a"], "b"), (["a", "b"],)),
        (({"a": "1"},), ({"a": "2"},)),
        ((None,), ("",)),
        ((), ("",)),
    ],
)
def test_other_values_have_another_fingerprint(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    assert fingerprint.of_values(*one) != fingerprint.of_values(*other)


def test_a_fingerprint_of_values_is_short_and_always_the_same() -> None:
    assert fingerprint.of_values("a", {"b": 1, "c": 2}) == fingerprint.of_values("a", {"c": 2, "b": 1})
    assert len(fingerprint.of_values("a")) == fingerprint.LENGTH
    assert set(fingerprint.of_values("a")) <= set("0123456789abcdef")
    assert fingerprint.of_values("a") == "0eb5b8d6", "another one would replace every replica of every stack"


def test_a_fingerprint_of_secrets_tells_secrets_apart() -> None:
    one, other = fingerprint.of_secrets({"A": "1"}), fingerprint.of_secrets({"A": "2"})
    assert one != other
    assert len(one) == len(other) == fingerprint.LENGTH
    assert fingerprint.of_secrets({"A": "1", "B": "2"}) == fingerprint.of_secrets({"B": "2", "A": "1"})
    assert one not in (fingerprint.of_values({"A": "1"}), fingerprint.of_values(({"A": "1"},)))


def test_a_fingerprint_of_secrets_is_slow_to_guess() -> None:
    def cost(compute: Callable[[], str]) -> float:
        started = time.process_time()
        compute()
        return time.process_time() - started

    slow = min(cost(lambda: fingerprint.of_secrets({"A": "1"})) for _ in range(3))
    assert slow > 0.01
    assert slow > 50 * min(cost(lambda: fingerprint.of_values({"A": "1"})) for _ in range(3))
