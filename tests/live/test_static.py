"""Files of the app that NGINX serves itself, over releases and with the rules of their paths."""

import http.client
import os
import socket
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tests.live.load import Load
from tests.live.stack import Stack

HASHED = "app.3f2a9c1b.js"
MODIFIED = 1700000000
STATIC_FOLDER = "/etc/nginx/live/.static"


class Answer(NamedTuple):
    """What came back; `by_nginx`: without asking the app, which names the file in a header."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def by_nginx(self) -> bool:
        return "Content-Disposition" not in self.headers


def ask(stack: Stack, path: str, method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=15)) as connection:
        connection.request(method, path, headers=named)
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())


def write(folder: Path, name: str, content: bytes | str) -> None:
    file = folder / "app" / "static" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(file, (MODIFIED, MODIFIED))


@pytest.fixture(scope="module")
def site(running: Stack) -> Stack:
    """Up, then with `static` for the folder of that name, which Flask serves as well."""
    folder = running.folder
    write(folder, "app.css", "body { color: black }")
    write(folder, HASHED, "one")
    write(folder, "deep/module.mjs", "export {}")
    write(folder, "image.svg", "<svg/>")
    write(folder, "data.unknown", bytes(range(256)) * 4096)
    write(folder, "empty.txt", "")
    write(folder, ".env", "SECRET=xyzzy")
    write(folder, "deep/.git/config", "SECRET=xyzzy")
    write(folder, "staff/plan.txt", "for the staff")
    (folder / "app" / "static" / "passwd.txt").symlink_to("/etc/passwd")
    (folder / "app" / "static" / "image.svg").chmod(0o600)
    with Load(running.port, slow=0) as load:
        running.pulumi("config", "set", "--path", 'static["/static"]', "static")
        running.pulumi("config", "set", "--path", 'paths["/static/staff"].allow[0]', "203.0.113.1")
        running.up()
    load.assert_nothing_was_dropped()
    return running


# What is served, and how


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("app.css", "text/css"),
        (HASHED, "application/javascript; charset=utf-8"),
        ("deep/module.mjs", "text/javascript"),
        ("image.svg", "image/svg+xml"),
        ("data.unknown", "application/octet-stream"),
        ("empty.txt", "text/plain; charset=utf-8"),
    ],
)
def test_a_file_is_served_as_it_is_with_its_type(site: Stack, name: str, content_type: str) -> None:
    answer = ask(site, f"/static/{name}")
    assert (answer.status, answer.by_nginx) == (200, True)
    assert answer.body == (site.folder / "app" / "static" / name).read_bytes()
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Cache-Control"] == ("max-age=31536000, immutable" if name == HASHED else "no-cache")
    assert answer.headers["X-Request-ID"]


def test_who_has_a_file_does_not_get_it_again(site: Stack) -> None:
    first = ask(site, "/static/app.css")
    assert first.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    for headers in ({"If_None_Match": first.headers["ETag"]}, {"If_Modified_Since": first.headers["Last-Modified"]}):
        again = ask(site, "/static/app.css", **headers)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["Cache-Control"] == "no-cache"


def test_a_part_of_a_file_can_be_had(site: Stack) -> None:
    part = ask(site, "/static/data.unknown", Range="bytes=1000-1003")
    assert (part.status, part.body) == (206, (bytes(range(256)) * 4096)[1000:1004])
    assert part.headers["Content-Range"] == f"bytes 1000-1003/{256 * 4096}"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405)])
def test_a_file_can_be_read_and_nothing_else(site: Stack, method: str, status: int) -> None:
    answer = ask(site, "/static/app.css", method)
    assert (answer.status, answer.by_nginx) == (status, True)


@pytest.mark.parametrize("path", ["/static/.env", "/static/deep/.git/config", "/static/%2eenv", "/static//.env"])
def test_names_that_begin_with_a_dot_are_not_there(site: Stack, path: str) -> None:
    answer = ask(site, path)
    assert (answer.status, answer.by_nginx) == (404, True)
    assert b"xyzzy" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/static/../webapp.py",
        "/static/%2e%2e/webapp.py",
        "/static/..%2fwebapp.py",
        "/static/%2e%2e%2fwebapp.py",
        "/static/deep/../../webapp.py",
        "/static/../../../nginx.conf",
        "/static/%2e%2e/%2e%2e/%2e%2e/current/nginx.conf",
        "/static/..%5cwebapp.py",
        "/static../webapp.py",
        "/static/app.css/../../webapp.py",
    ],
)
def test_no_path_leads_out_of_the_folder(site: Stack, path: str) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=15) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.split()[1] in (b"400", b"404")
    assert b"import" not in answer
    assert b"worker_processes" not in answer


def test_folders_are_not_listed_and_links_not_followed(site: Stack) -> None:
    for path in ("/static", "/static/", "/static/deep", "/static/deep/"):
        assert ask(site, path).status == 404, path
    assert not ask(site, "/static/passwd.txt").by_nginx, "it is the app that follows it"
    code, links = site.run_in(site.nginx, f"find {STATIC_FOLDER}/*/ -type l; find {STATIC_FOLDER} ! -user 101")
    assert (code, links) == (0, "")


def test_what_is_no_file_the_app_answers(site: Stack) -> None:
    answer = ask(site, "/static/nothing.css")
    assert answer.status == 404
    assert b"The requested URL was not found on the server" in answer.body, "Flask's words"
    assert ask(site, "/").by_nginx is ask(site, "/health").by_nginx is True, "no file, so without a name"


def test_who_may_not_come_to_a_path_gets_no_file_of_it(site: Stack) -> None:
    for path in ("/static/staff/plan.txt", "/static/staff/../staff/plan.txt", "/static/staff/nothing"):
        assert ask(site, path).status == 403, path


# Over releases


class Reader:
    """A browser that asks for the same file again and again."""

    def __init__(self, stack: Stack, path: str) -> None:
        self._stack, self._path = stack, path
        self.seen: Counter[tuple[int, bytes, bool]] = Counter()
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                answer = ask(self._stack, self._path)
                self.seen[answer.status, answer.body, answer.by_nginx] += 1
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self.errors, self.errors[:3]


@pytest.fixture(scope="module")
def next_release(site: Stack) -> tuple[Stack, Reader, Reader]:
    """Another release with other files, under load; two browsers, one with a page from before it."""
    file = site.folder / "app" / "static" / HASHED
    file.rename(file.with_name("app.9d8e7f6a.js"))
    write(site.folder, "app.css", "body { color: white }")
    site.edit("app/webapp.py", 'RELEASE = "one"', 'RELEASE = "two"')
    with (
        Load(site.port, slow=0) as load,
        Reader(site, f"/static/{HASHED}") as before,
        Reader(site, "/static/app.css") as now,
    ):
        site.up()
    load.assert_nothing_was_dropped()
    return site, before, now


def test_pages_that_were_loaded_before_a_release_still_get_their_files(
    next_release: tuple[Stack, Reader, Reader],
) -> None:
    site, before, _ = next_release
    assert set(before.seen) == {(200, b"one", True)}
    assert before.seen.total() > 100
    assert ask(site, "/static/app.9d8e7f6a.js").by_nginx


def test_a_file_changes_at_once_and_never_is_away(next_release: tuple[Stack, Reader, Reader]) -> None:
    _, _, now = next_release
    assert set(now.seen) == {(200, b"body { color: black }", True), (200, b"body { color: white }", True)}


def test_the_release_before_the_one_before_is_swept(next_release: tuple[Stack, Reader, Reader]) -> None:
    """Another release, in which `static` also gets the whole site."""
    site, _, _ = next_release
    site.edit("app/webapp.py", 'RELEASE = "two"', 'RELEASE = "three"')
    site.pulumi("config", "set", "--path", 'static["/"]', "static")
    site.up()
    assert ask(site, f"/static/{HASHED}").status == 404
    assert ask(site, "/static/app.9d8e7f6a.js").by_nginx
    assert ask(site, "/app.css").body == b"body { color: white }"
    assert site.get().startswith("three")
    _, folders = site.run_in(site.nginx, f"ls {STATIC_FOLDER} | grep -cv before")
    assert folders.strip() == "2"
    assert set(site.up().changes) == {"unchanged"}


def test_without_the_setting_the_app_serves_them_and_nothing_is_left(site: Stack) -> None:
    with Load(site.port, slow=0) as load, Reader(site, "/static/app.css") as reader:
        site.configure(static="")
        site.up()
    load.assert_nothing_was_dropped()
    assert {(status, body) for status, body, _ in reader.seen} == {(200, b"body { color: white }")}
    assert not ask(site, "/static/app.css").by_nginx
    assert site.run_in(site.nginx, f"ls -A {STATIC_FOLDER}")[1] == ""
