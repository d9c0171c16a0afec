"""`uwsgi/live_reload.py` around a command that starts, reloads and stops as uWSGI does."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

DEADLINE = 15  # seconds
GOOD = "def app(environ, start_response): ...\n"

# In the place of uWSGI: says what happens to it; the app's text says how it starts.
SERVER = """
import os, pathlib, signal, sys, time
def say(word):
    os.write(1, f"<{word}>".encode())
text = pathlib.Path(sys.argv[1], "shop.py").read_text()
if "# fails" in text:
    say("failed")
    sys.exit(22)
if "# crashes" in text:
    say("crashed")
    sys.exit(1)
say("starting")
while "# waits" in text and not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.02)
signal.signal(signal.SIGHUP, lambda *_: say("reload"))
signal.signal(signal.SIGTERM, lambda *_: (say("stop"), sys.exit(0)))
say("ready")
while True:
    time.sleep(60)
"""
RUN = """
import pathlib, sys
sys.path.insert(0, "uwsgi")
import live_reload
live_reload.APP = pathlib.Path(sys.argv[1])
live_reload.INTERVAL = 0.05
sys.exit(live_reload.main(sys.argv[2:]))
"""


class Site:
    """An app folder and who follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "app"
        self.folder.mkdir()
        self.app = self.folder / "shop.py"
        self.app.write_text(GOOD)
        self.go = folder / "go"
        self._server, self._log = folder / "server.py", folder / "log"
        self._server.write_text(SERVER)

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-B", "-c", RUN, self.folder, sys.executable, self._server, self.folder, self.go],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "UWSGI_APP": "shop", "UWSGI_CALLABLE": "app", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, *words: str) -> None:
        """Until these were said, in this order."""
        deadline = time.monotonic() + DEADLINE
        while not self._has_said(words):
            assert time.monotonic() < deadline, f"{words} not in {self.said}"
            time.sleep(0.02)

    def wait_until_it_has_no_server(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + DEADLINE
        while children.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _has_said(self, words: tuple[str, ...]) -> bool:
        rest = self.said
        for word in words:
            _, found, rest = rest.partition(word)
            if not found:
                return False
        return True


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    with suppress(ProcessLookupError):
        os.killpg(site.process.pid, signal.SIGKILL)
    site.process.wait()


@pytest.fixture
def running(site: Site) -> Site:
    site.start()
    site.wait_for("<ready>")
    return site


def edit(site: Site) -> None:
    site.app.write_text(GOOD + "# edited\n")


def add(site: Site) -> None:
    (site.folder / "templates").mkdir()
    (site.folder / "templates" / "index.html").write_text("new")


def replace(site: Site) -> None:
    """As editors save; the size, and perhaps the time, stay the same."""
    status = site.app.stat()
    (site.folder / "new").write_text(GOOD)
    os.utime(site.folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (site.folder / "new").rename(site.app)


@pytest.mark.parametrize("change", [edit, add, replace])
def test_a_change_is_followed(running: Site, change: Callable[[Site], None]) -> None:
    change(running)
    running.wait_for("<ready>", "<reload>")


@pytest.mark.parametrize("name", [".shop.py.swp", ".git/index", "__pycache__/shop.pyc", "node_modules/x.js"])
def test_what_is_not_the_apps_is_not_followed(tmp_path: Path, name: str) -> None:
    snapshot = runpy.run_path("uwsgi/live_reload.py")["snapshot"]
    (tmp_path / "shop.py").write_text(GOOD)
    before = snapshot(tmp_path)
    assert len(before) == 1
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("new")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def app(:\n", "SyntaxError"),
        ("import no_such_module\n" + GOOD, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("nothing = 1\n", "AttributeError: module 'shop' has no attribute 'app'"),
        ("raise SystemExit('not today')\n", "not today"),
    ],
)
def test_an_app_that_cannot_be_imported_leaves_the_one_before_serving(running: Site, text: str, why: str) -> None:
    running.app.write_text(text)
    running.wait_for("<ready>", why, "cannot be imported; the one before stays")
    assert "<reload>" not in running.said
    running.app.write_text(GOOD)
    running.wait_for("cannot be imported", "<reload>")


def test_a_server_that_is_not_ready_is_not_killed_by_the_signal(site: Site) -> None:
    site.app.write_text(GOOD + "# waits\n")
    site.start()
    site.wait_for("<starting>")
    edit(site)
    site.wait_for("the app has changed")
    site.go.touch()
    site.wait_for("<ready>", "<reload>")


def test_a_server_that_found_no_app_is_started_again_after_a_change(site: Site) -> None:
    site.app.write_text(GOOD + "# fails\n")
    site.start()
    site.wait_for("<failed>")
    edit(site)
    site.wait_for("<failed>", "the app has changed", "<ready>")


def test_a_server_that_found_no_app_does_not_keep_the_container_from_stopping(site: Site) -> None:
    site.app.write_text(GOOD + "# fails\n")
    site.start()
    site.wait_for("<failed>")
    site.wait_until_it_has_no_server()
    site.process.terminate()
    assert site.process.wait(DEADLINE) == 22


def test_a_server_that_crashes_ends_it(site: Site) -> None:
    site.app.write_text(GOOD + "# crashes\n")
    site.start()
    assert site.process.wait(DEADLINE) == 1


def test_a_stop_reaches_the_server(running: Site) -> None:
    running.process.terminate()
    assert running.process.wait(DEADLINE) == 0
    assert "<stop>" in running.said
