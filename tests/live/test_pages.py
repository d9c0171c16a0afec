"""Pages for errors that NGINX itself answers with, and maintenance."""

import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.pages import PAGES
from tests.live.load import Load
from tests.live.stack import Stack, eventually

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PROGRAM = {"Accept": "application/json"}
FRIEND = {"X-Forwarded-For": "203.0.113.7"}
ROUTES = """

@app.route("/says/<int:status>", methods=["GET", "POST"])
def says(status: int) -> tuple[str, int]:
    return "the app's own words", status


@app.get("/late")
def late() -> str:
    time.sleep(2)
    return "late"
"""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: str


def ask(
    stack: Stack, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=15)) as connection:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read().decode())


@pytest.fixture(scope="module")
def site(stack: Stack) -> Stack:
    """Up, with limits that a test reaches quickly, behind a proxy that says who the client is."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "app", stack.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with (stack.folder / "app" / "webapp.py").open("a") as app:
        app.write(ROUTES)
    stack.configure(maxBodySize="1")
    settings = {
        'paths["/says/200"].requestsPerSecond': "1",
        'paths["/says/200"].burst': "0",
        'paths["/late"].requestTimeout': "1",
        "trustedProxies[0]": "10.0.0.0/8",
        "trustedProxies[1]": "172.16.0.0/12",
        "trustedProxies[2]": "192.168.0.0/16",
    }
    stack.pulumi("config", "set-all", "--path", *(f"--plaintext={key}={settings[key]}" for key in settings))
    stack.up()
    return stack


def assert_is_page(answers: dict[str, Answer], name: str) -> None:
    """Fails unless these, to a browser and to a program, are the page of that name."""
    page = PAGES[name]
    for answer in answers.values():
        assert answer.status == page.status
        assert answer.headers["Cache-Control"] == "no-store"
    browser, program = answers["browser"], answers["program"]
    assert browser.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.text in browser.body
    assert f"request {browser.headers['X-Request-ID']}<" in browser.body
    assert program.headers["Content-Type"].startswith("application/json")
    assert json.loads(program.body) == {
        "status": page.status,
        "error": page.title,
        "request_id": program.headers["X-Request-ID"],
    }


def both(stack: Stack, path: str, method: str = "GET", body: bytes | None = None) -> dict[str, Answer]:
    return {
        "browser": ask(stack, path, BROWSER, method, body),
        "program": ask(stack, path, PROGRAM, method, body),
    }


def test_a_body_that_is_too_large(site: Stack) -> None:
    assert_is_page(both(site, "/echo", "POST", bytes(2 * 2**20)), "413")


def test_an_answer_that_does_not_come_in_time(site: Stack) -> None:
    assert_is_page(both(site, "/late"), "504")


def test_too_many_requests(site: Stack) -> None:
    ask(site, "/says/200")
    answers = both(site, "/says/200", "POST", b"x")
    assert_is_page(answers, "429")
    assert answers["browser"].headers["Retry-After"] == "1"


def test_no_replica_at_all(site: Stack) -> None:
    for replica in site.containers("replica"):
        replica.kill()
    try:
        answers = both(site, "/", "POST", b"x=1")
        head = ask(site, "/", BROWSER, "HEAD")
    finally:
        for replica in site.containers("replica"):
            replica.start()
        eventually(site.is_up, 20, "the replicas are back")
    assert_is_page(answers, "502")
    assert (head.status, head.body) == (502, "")


@pytest.mark.parametrize("status", [413, 429, 502, 503, 504])
def test_what_the_app_says_goes_out_as_it_is(site: Stack, status: int) -> None:
    for answer in both(site, f"/says/{status}", "POST", b"x=1").values():
        assert (answer.status, answer.body) == (status, "the app's own words")
        assert "Retry-After" not in answer.headers


def test_nobody_gets_a_page_by_asking_for_it(site: Stack) -> None:
    for path in ("/.pages/502.html", "/.pages/", "/.pages/../nginx.conf", "/.pages/%2e%2e/nginx.conf", "/.pages../x"):
        answer = ask(site, path, BROWSER)
        assert answer.status == 404, path
        assert "worker_processes" not in answer.body


@pytest.fixture(scope="module")
def load_over_maintenance(site: Stack) -> Iterator[Load]:
    """Clients that ask while maintenance comes, with another release, and while it goes again."""
    (site.folder / "own").mkdir()
    (site.folder / "own" / "413.html").write_text('<p>Zu groß: <!--# echo var="request_key" --></p>')
    with Load(site.port) as load:
        site.pulumi("config", "set", "--path", "maintenance.enabled", "true")
        site.pulumi("config", "set", "--path", "maintenance.allow[0]", FRIEND["X-Forwarded-For"])
        site.pulumi("config", "set", "--path", "maintenance.retryAfter", "77")
        site.edit("app/webapp.py", 'RELEASE = "one"', 'RELEASE = "two"')
        site.up()
        yield load


def test_in_maintenance_everybody_gets_the_page(site: Stack, load_over_maintenance: Load) -> None:
    answers = both(site, "/")
    assert_is_page(answers, "maintenance")
    assert answers["program"].headers["Retry-After"] == "77"
    assert_is_page(both(site, "/echo", "POST", bytes(2**19)), "maintenance")
    assert ask(site, "/health").status == 503


def test_but_those_allowed_get_the_app_as_the_gate_did(site: Stack, load_over_maintenance: Load) -> None:
    assert ask(site, "/", FRIEND).body.startswith("two")
    assert ask(site, "/health", FRIEND).status == 200
    assert ask(site, "/", {"X-Forwarded-For": f"{FRIEND['X-Forwarded-For']}, 198.51.100.1"}).status == 503
    assert set(site.up().changes) == {"unchanged"}


def test_before_and_after_it_every_answer_is_the_apps_and_in_it_the_page(
    site: Stack, load_over_maintenance: Load
) -> None:
    """Ends maintenance, and sets pages of the site's own."""
    site.configure(maintenance="", errorPages="own")
    site.up()
    sent = load_over_maintenance.sent
    eventually(lambda: load_over_maintenance.sent > sent + 200, 20, "200 more requests")
    failures = list(load_over_maintenance.failures)
    assert failures
    assert [text for text in failures if ": 503 " not in text or '"error":"Maintenance"' not in text] == []
    assert load_over_maintenance.bodies.total() > 500


def test_own_pages_take_their_place_and_go_again_without_a_failed_request(site: Stack) -> None:
    answers = both(site, "/echo", "POST", bytes(2 * 2**20))
    browser = answers["browser"]
    assert browser.body == f"<p>Zu groß: {browser.headers['X-Request-ID']}</p>"
    assert json.loads(answers["program"].body)["status"] == 413
    with Load(site.port, slow=0) as load:
        site.configure(errorPages="")
        site.up()
    load.assert_nothing_was_dropped()
    assert_is_page(both(site, "/echo", "POST", bytes(2 * 2**20)), "413")
