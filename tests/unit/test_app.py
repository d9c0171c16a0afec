"""The app that comes with the project, asked without a server."""

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from infra.settings import Settings


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Imported as uWSGI does: by the module and callable that are the settings' defaults."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    settings = Settings.parse({})
    path = Path(settings.app_folder, f"{settings.app_module}.py")
    spec = importlib.util.spec_from_file_location("webapp_under_test", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, settings.app_callable)
    assert isinstance(found, Flask)
    return found


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


def test_it_says_which_replica_answers(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "uwsgi-2")
    response = client.get("/")
    assert (response.status_code, response.text) == (200, "Hello, World! This is uwsgi-2.")


def test_it_is_fit_where_the_stack_asks_by_default(client: FlaskClient) -> None:
    response = client.get(Settings.parse({}).health_path)
    assert (response.status_code, response.text) == (200, "ok")


def test_it_does_not_know_other_paths(client: FlaskClient) -> None:
    assert client.get("/no-such-page").status_code == 404


@pytest.mark.parametrize("path", ["/", "/health"])
def test_it_is_asked_not_told(client: FlaskClient, path: str) -> None:
    assert client.post(path).status_code == 405


def test_its_requirements_are_pinned() -> None:
    lines = Path("app/requirements.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if "==" not in line] == []
