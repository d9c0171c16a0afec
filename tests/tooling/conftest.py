"""A clone and a machine to try the tooling on: a PATH with nothing but fakes, and a Docker daemon's socket."""

from __future__ import annotations

import os
import shutil
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tooling import console, docker_engine

PROJECT = """\
name: uwsgi-nginx
runtime: python
config:
  uwsgi-nginx:pythonImage:
    type: string
    default: python:3.13-slim
  uwsgi-nginx:nginxImage:
    type: string
    default: nginx:1.31
"""
# What the small fakes are made of; nothing that the tooling itself could take for an answer.
PLAIN_TOOLS = ("sh", "cat", "cp", "chmod", "env", "mkdir", "sleep", "touch")


class Bench:
    """A folder that is a clone, and a PATH whose programs write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the clone"
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.calls_file = folder / "calls"
        for made in (self.root, self.bin, self.home):
            made.mkdir()
        self.write("Pulumi.yaml", PROJECT)
        self.write("requirements.txt", "pulumi==3.272.0\npulumi-docker==5.2.0\n")
        self.write("requirements-dev.txt", "-r requirements.txt\n")
        self.write("app/requirements.txt", "flask==3.1.3\n")
        self.write("exporter/requirements.txt", "prometheus_client==0.26.0\n")

    def write(self, name: str, text: str) -> Path:
        """A file in the clone."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def fake(self, name: str, script: str = "", folder: Path | None = None) -> Path:
        """A program on PATH (or in the folder) that notes its call and then does what the script says."""
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.calls_file}"\n{script}\n', encoding="utf-8")
        path.chmod(0o755)
        return path

    def fake_venv(self, script: str = "") -> Path:
        """`.venv/bin/python`: the real interpreter, unless the script ends first."""
        body = f'{script}\nexec "{sys.executable}" "$@"'
        return self.fake("python", body, self.root / ".venv" / "bin")

    @property
    def calls(self) -> list[str]:
        """How the fakes were called, in order."""
        return self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []

    def called(self, start: str) -> list[str]:
        """The calls that start so."""
        return [call for call in self.calls if call.startswith(start)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    for name in PLAIN_TOOLS:
        found = shutil.which(name)
        assert found
        (made.bin / name).symlink_to(found)
    for name in list(os.environ):
        if name.startswith(("PULUMI_", "DOCKER_", "PIP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.home / "cache"))
    monkeypatch.setattr(docker_engine, "SYSTEM_FOLDERS", str(tmp_path / "no-such-folder"))
    monkeypatch.setattr(docker_engine, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setattr(docker_engine, "STARTED_BY_PACKAGE_SECONDS", 0.1)
    monkeypatch.setattr(docker_engine, "DEFAULT_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture(autouse=True)
def not_stopping() -> Iterator[None]:
    """A test that stops everything must not stop the next one."""
    yield
    console._stopping.clear()


class Daemon:
    """Answers on the default socket as a Docker daemon does: to a ping, and about the images that it has."""

    def __init__(self, socket: Path) -> None:
        images: set[str] = set()
        self.images = images

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/images/").removesuffix("/json")
                self.send_response(200 if self.path == "/_ping" or name in images else 404)
                self.end_headers()

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def daemon(bench: Bench, tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path / "docker.sock")
    yield running
    running.stop()


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What a person has read so far."""

    def read() -> str:
        return capsys.readouterr().err

    return read
