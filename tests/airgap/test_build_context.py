"""What an image is built from, and when that counts as changed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from airgap.docker_provider.build_context import BuildContext, go_mode
from airgap.docker_provider.errors import UserError
from infra import dockerignore


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, the working directory, with a small app in it."""
    monkeypatch.chdir(tmp_path)
    write("app/Dockerfile", "FROM scratch\n")
    write("app/main.py", "print(1)\n")
    return tmp_path


def write(path: str, text: str, mode: int = 0o644) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    Path(path).chmod(mode)


def app(dockerfile: str = "app/Dockerfile") -> BuildContext:
    return BuildContext(Path("./app"), Path(dockerfile))


def archived(context: BuildContext) -> tuple[str, dict[str, tarfile.TarInfo], dict[str, bytes]]:
    """The Dockerfile's name, the headers and the contents of the context's archive."""
    file = io.BytesIO()
    dockerfile = context.archive(file)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        headers = {header.name: header for header in tar}
        contents = {name: tar.extractfile(header) for name, header in headers.items() if header.isreg()}
        return dockerfile, headers, {name: content.read() for name, content in contents.items() if content}


def digest_of(*entries: tuple[str, str, bytes]) -> str:
    """pulumi-docker's hashContext, written out: name, Go's file mode, hash of the content, and a zero byte, of each."""
    total = hashlib.sha256()
    for name, mode, content in entries:
        total.update(name.encode() + mode.encode() + hashlib.sha256(content).digest() + b"\x00")
    return total.hexdigest()


def test_the_digest_is_the_official_plugin_s(project: Path) -> None:
    write("app/run.sh", "#!/bin/sh\n", mode=0o755)
    write("app/lib/a.py", "a\n")
    write("app/lib-b.py", "b\n")
    Path("app/link").symlink_to("lib/a.py")
    Path("app/empty").mkdir()
    assert app().digest() == digest_of(
        ("Dockerfile", "----------", b"FROM scratch\n"),
        ("Dockerfile", "-rw-r--r--", b"FROM scratch\n"),
        ("lib/a.py", "-rw-r--r--", b"a\n"),  # a folder's content comes where its name does
        ("lib-b.py", "-rw-r--r--", b"b\n"),
        ("link", "Lrwxrwxrwx", b"app/lib/a.py"),
        ("main.py", "-rw-r--r--", b"print(1)\n"),
        ("run.sh", "-rwxr-xr-x", b"#!/bin/sh\n"),
    )


def test_the_digest_of_a_dockerfile_from_outside_covers_its_content_but_not_its_name(project: Path) -> None:
    write("build/one.Dockerfile", "FROM scratch\n")
    write("build/two.Dockerfile", "FROM scratch\n")
    write("build/other.Dockerfile", "FROM other\n")
    digests = [app(f"build/{name}.Dockerfile").digest() for name in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("change", ["content", "mode", "name", "new", "gone"])
def test_each_change_of_a_file_changes_the_digest(project: Path, change: str) -> None:
    before, file = app().digest(), Path("app/main.py")
    match change:
        case "content":
            write("app/main.py", "print(2)\n")
        case "mode":
            file.chmod(0o755)
        case "name":
            file.rename("app/other.py")
        case "new":
            write("app/new.py", "")
        case "gone":
            file.unlink()
    assert app().digest() != before


def test_what_is_ignored_does_not_change_the_digest(project: Path) -> None:
    write("app/.dockerignore", "*.log\ncache\n")
    before = app().digest()
    write("app/a.log", "x")
    write("app/cache/b", "x")
    assert app().digest() == before
    write("app/deep/a.log", "counts: the pattern is for the top\n")
    assert app().digest() != before


def test_a_link_that_leads_nowhere_is_named(project: Path) -> None:
    Path("app/link").symlink_to("nowhere")
    with pytest.raises(UserError, match="app/link is a symbolic link that leads nowhere: app/nowhere does not exist"):
        app().digest()


def test_a_link_that_leads_in_circles_is_named(project: Path) -> None:
    Path("app/a").symlink_to("b")
    Path("app/b").symlink_to("a")
    with pytest.raises(UserError, match="app/a: too many symbolic links"):
        app().digest()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (0o100644, "-rw-r--r--"),
        (0o104755, "urwxr-xr-x"),
        (0o102755, "grwxr-xr-x"),
        (0o101755, "trwxr-xr-x"),
        (0o106755, "ugrwxr-xr-x"),
        (0o120777, "Lrwxrwxrwx"),
        (0o010600, "prw-------"),
        (0o020666, "Dcrw-rw-rw-"),
        (0, "----------"),
    ],
)
def test_modes_are_written_as_go_writes_them(mode: int, text: str) -> None:
    assert go_mode(mode) == text


def test_the_archive_holds_what_is_not_ignored_and_belongs_to_nobody(project: Path) -> None:
    write("app/.dockerignore", "secret\n.dockerignore\nDockerfile\n")
    write("app/secret/key", "x")
    write("app/lib/a.py", "a\n")
    Path("app/link").symlink_to("main.py")
    if os.geteuid() == 0:
        os.chown("app/main.py", 1234, 1234)
    dockerfile, headers, contents = archived(app())
    assert dockerfile == "Dockerfile"
    # The daemon needs the Dockerfile and the ignore file, and takes them out of the context by itself.
    assert headers.keys() == {".dockerignore", "Dockerfile", "lib", "lib/a.py", "link", "main.py"}
    assert contents["lib/a.py"] == b"a\n"
    assert headers["link"].linkname == "main.py"
    assert {(h.uid, h.gid, h.uname, h.gname) for h in headers.values()} == {(0, 0, "", "")}


def test_a_dockerfile_from_outside_travels_under_a_name_of_its_own(project: Path) -> None:
    write("app/.dockerignore", "*.log\n")
    write("build/app.Dockerfile", "FROM outside\n")
    dockerfile, headers, contents = archived(app("build/app.Dockerfile"))
    assert dockerfile.startswith(".dockerfile.")
    assert contents[dockerfile] == b"FROM outside\n"
    assert contents["Dockerfile"] == b"FROM scratch\n"
    assert contents[".dockerignore"] == b"*.log\n" + f"\n{dockerfile}\n".encode()
    assert len([name for name in headers if name == ".dockerignore"]) == 1


def test_the_same_dockerfile_from_outside_travels_under_the_same_name(project: Path) -> None:
    write("build/app.Dockerfile", "FROM outside\n")
    assert archived(app("build/app.Dockerfile"))[0] == archived(app("build/app.Dockerfile"))[0]


def test_the_dockerfile_s_own_ignore_file_comes_before_the_folder_s(project: Path) -> None:
    write("app/.dockerignore", "main.py\n")
    write("build/app.Dockerfile", "FROM outside\n")
    write("build/app.Dockerfile.dockerignore", "other.py\n")
    write("app/other.py", "")
    _name, headers, _contents = archived(app("build/app.Dockerfile"))
    assert "main.py" in headers
    assert "other.py" not in headers


def ignored(text: str, path: str) -> bool:
    """Whether the ignore file leaves the path out, itself or with a folder that it is in."""
    patterns, left_out, parent = dockerignore.parse(text), False, tuple[bool, ...]()
    for end in [i for i, char in enumerate(path) if char == "/"] + [len(path)]:
        left_out, parent = dockerignore.match(patterns, path[:end], parent)
    return left_out


@pytest.mark.parametrize(
    ("text", "path", "out"),
    [
        ("foo", "foo", True),
        ("foo", "foo/bar", True),
        ("foo", "bar/foo", False),
        ("/foo", "foo", True),
        ("./foo/", "foo", True),
        ("# foo", "foo", False),
        ("  foo  ", "foo", True),
        ("*.py", "a.py", True),
        ("*.py", "b/a.py", False),
        ("*/a.py", "b/a.py", True),
        ("**/a.py", "a.py", True),
        ("**/a.py", "b/c/a.py", True),
        ("**/*.pyc", "b/c/a.pyc", True),
        ("**.pyc", "b/a.pyc", True),
        ("**/a.py", "b/xa.py", False),
        ("b/**", "b/c/d", True),
        ("b/**", "b", False),
        ("b/**/d", "b/d", True),
        ("b/**/d", "b/c/c/d", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].py", "b.py", True),
        ("[^ab].py", "b.py", False),
        ("a.py", "axpy", False),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        (r"\d", "1", True),  # moby hands escapes on to the regular expression
        ("^a", "^a", True),
        ("^a*", "ab", True),
        ("lib**", "lib-x", True),
        ("**b", "ab", True),
        ("**b", "b/a", True),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "drop", True),
        ("dir\n!dir/keep", "dir/keep", False),
        ("dir\n!dir/keep", "dir/drop", True),
        ("!keep\n*", "keep", True),
        ("*.md\n!README.md\nREADME.*", "README.md", True),
        ("a(b)+.{1}", "a(b)+.{1}", True),
        ("\ufefffoo", "foo", True),
    ],
)
def test_ignore_files_are_read_as_docker_reads_them(text: str, path: str, out: bool) -> None:
    assert ignored(text, path) is out


@pytest.mark.parametrize("text", ["!", "[a", "a\\"])
def test_an_ignore_file_that_makes_no_sense_is_named(project: Path, text: str) -> None:
    write("app/.dockerignore", text)
    with pytest.raises(UserError, match=r"app/\.dockerignore: '.*' is no pattern"):
        app().digest()
