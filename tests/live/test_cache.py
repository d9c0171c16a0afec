"""Answers that NGINX keeps: for whom, which and how long; while the app is slow, fails or is gone; across releases."""

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.live.client import Answer, Client, configure
from tests.live.load import Load
from tests.live.stack import Stack, eventually

PATHS = {"/page": {"cache": 60}, "/page/shared": {"cacheWithCookies": True}, "/page/never": {"cache": 0}}
BRIEF = "max-age=1"
EXPIRED = 2.1  # seconds after which it is: NGINX counts whole ones


class Site(Client):
    """The stack, and how often its app was asked."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.stack = stack

    def asked(self, name: str) -> int:
        """How often the app was asked for that page, whichever replica it was."""
        script = f"cat /tmp/asked 2>/dev/null | grep -c ' {name} '"
        return sum(int(self.stack.run_in(replica, script)[1]) for replica in self.stack.containers("replica"))

    def in_trouble(self, status: int | None) -> None:
        script = f"echo {status} > /tmp/trouble" if status else "rm -f /tmp/trouble"
        for replica in self.stack.containers("replica"):
            assert self.stack.run_in(replica, script)[0] == 0

    def on_disk(self) -> str:
        """All answers that are kept, as they are kept."""
        return self.stack.run_in(self.stack.nginx, "find /etc/nginx/live/.cache -type f -exec cat {} +")[1]


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    """Up, and keeps answers below `/page`."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "answers_app", stack.folder / "app")
    configure(stack, paths=PATHS)
    stack.up()
    return Site(stack)


@pytest.fixture
def trouble(site: Site) -> Iterator[None]:
    yield
    site.in_trouble(None)


@pytest.fixture
def name() -> str:
    """A page that nobody has asked for."""
    return uuid.uuid4().hex


def page(name: str, **query: str) -> str:
    return f"/page/{name}?{urlencode({key.replace('_', '-'): value for key, value in query.items()})}"


def test_an_answer_is_kept_and_the_app_is_not_asked_again(site: Site, name: str) -> None:
    answers = [site.ask(page(name)), site.ask(page(name)), site.ask(page(name), method="HEAD")]
    assert [answer.cache for answer in answers] == ["MISS", "HIT", "HIT"]
    assert answers[0].body == answers[1].body
    assert site.asked(name) == 1
    ids = [answer.all("X-Request-ID") for answer in answers]
    assert [len(each) for each in ids] == [1, 1, 1], "not the app's own beside it"
    assert len({each[0] for each in ids} - {"the app's own"}) == 3, "each has its own, although it is the same answer"


def test_only_paths_that_are_told_to_keep_answers_do(site: Site) -> None:
    for path in ("/", "/page/never"):
        answers = [site.ask(path), site.ask(path)]
        assert [answer.cache for answer in answers] == ["", ""]
    assert site.asked("never") == 2


@pytest.mark.parametrize(
    "query",
    [
        {"Set-Cookie": "session=1"},
        {"Set-Cookie": "session=1", "Cache-Control": "public, max-age=60"},
        *({"Cache-Control": value} for value in ("no-store", "private", "no-cache", "max-age=0")),
        {"Cache-Control": "max-age=60, must-revalidate"},
        {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"Vary": "*"},
        {"status": "302", "Location": "/login"},
        *({"status": status, "Cache-Control": "max-age=60"} for status in ("400", "403", "500")),
    ],
    ids=lambda query: " ".join(query.values()),
)
def test_what_is_not_for_everybody_is_never_kept(site: Site, name: str, query: dict[str, str]) -> None:
    for folder in ("", "shared/"):
        answers = [site.ask(page(folder + name, **query)) for _ in range(2)]
        assert [answer.cache for answer in answers] == ["MISS", "MISS"]
        assert len({answer.body for answer in answers}) == 2
    assert "session=1" not in site.on_disk()


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"Cache-Control": "max-age=60"},
        {"Cache-Control": "s-maxage=60, max-age=0"},
        {"status": "301"},
        {"status": "404"},
    ],
    ids=str,
)
def test_what_is_for_everybody_is_kept(site: Site, name: str, query: dict[str, str]) -> None:
    assert [site.ask(page(name, **query)).cache for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    ("headers", "method", "body"),
    [
        ({"Authorization": "Basic ZXZlOnNlY3JldA=="}, "GET", None),
        ({"Authorization": ":::evil"}, "GET", None),
        ({"Cookie": "session=1"}, "GET", None),
        ({}, "GET", b"x=1"),
        ({"Transfer-Encoding": "chunked"}, "GET", b"0\r\n\r\n"),
        ({}, "POST", None),
    ],
    ids=["authorization", "odd authorization", "cookie", "body", "chunked body", "POST"],
)
def test_who_is_not_like_everybody_is_answered_by_the_app_alone(
    site: Site, name: str, headers: dict[str, str], method: str, body: bytes | None
) -> None:
    theirs = site.ask(page(name), headers, method, body)
    common = site.ask(page(name))
    theirs_again = site.ask(page(name), headers, method, body)
    assert [answer.cache for answer in (theirs, common, theirs_again)] == ["BYPASS", "MISS", "BYPASS"]
    assert len({theirs.body, common.body, theirs_again.body}) == 3
    assert site.ask(page(name)).body == common.body


def test_where_it_is_said_those_with_cookies_share_what_does_not_depend_on_them(site: Site, name: str) -> None:
    shared = page(f"shared/{name}")
    answers = [site.ask(shared, {"Cookie": cookie}) for cookie in ("session=1", "session=2")]
    assert [answer.cache for answer in answers] == ["MISS", "HIT"]
    own = page(f"shared/{name}", Vary="Cookie")
    answers = [site.ask(own, {"Cookie": cookie}) for cookie in ("session=1", "session=2", "session=1")]
    assert [answer.cache for answer in answers] == ["MISS", "MISS", "HIT"]
    assert answers[0].body == answers[2].body != answers[1].body
    assert site.ask(shared, {"Cookie": "session=1", "Authorization": "Bearer 1"}).cache == "BYPASS"


def test_each_host_port_and_query_has_its_own(site: Site, name: str) -> None:
    asked: list[tuple[str, dict[str, str]]] = [
        (page(name), {}),
        (page(name, a="1"), {}),
        (page(name, a="2"), {}),
        (page(name), {"Host": "evil.example"}),
        (page(name), {"Host": "127.0.0.1:1"}),
    ]
    first = [site.ask(*each) for each in asked]
    second = [site.ask(*each) for each in asked]
    assert [answer.cache for answer in first + second] == ["MISS"] * 5 + ["HIT"] * 5
    assert len({answer.body for answer in first}) == 5
    claimed = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    assert site.ask(page(name), {**claimed, "Cache-Control": "no-cache", "Pragma": "no-cache"}).body == first[0].body
    assert b"evil" not in site.ask(page(f"{name}-2"), claimed).body, "what the app is told is what the key has"


def test_what_the_app_says_its_answer_depends_on_is_kept_apart(site: Site, name: str) -> None:
    languages = ["de", "en", "de", "en"]
    answers = [site.ask(page(name, Vary="Accept-Language"), {"Accept-Language": each}) for each in languages]
    assert [answer.cache for answer in answers] == ["MISS", "MISS", "HIT", "HIT"]
    assert [answer.body.split()[-1] for answer in answers] == [b"de", b"en", b"de", b"en"]


def test_a_range_and_what_a_client_has_already_are_answered_from_what_is_kept(site: Site, name: str) -> None:
    path = page(name, ETag='"7"', Accept_Ranges="bytes", size="500")
    part = site.ask(path, {"Range": "bytes=0-2"})
    assert (part.status, part.cache, part.body) == (206, "MISS", b"one")
    whole = site.ask(path)
    assert (whole.status, whole.cache, len(whole.body)) == (200, "HIT", 500)
    same = site.ask(path, {"If-None-Match": '"7"'})
    assert (same.status, same.cache, same.body) == (304, "HIT", b"")
    assert site.asked(name) == 1
    theirs = site.ask(path, {"Range": "bytes=0-2", "Cookie": "session=1"})
    assert (theirs.status, theirs.cache, theirs.body) == (206, "BYPASS", b"one")
    _, log = site.stack.run_in(site.stack.replica("uwsgi-1"), f"grep ' {name} bytes=0-2' /tmp/asked")
    _, other = site.stack.run_in(site.stack.replica("uwsgi-2"), f"grep ' {name} bytes=0-2' /tmp/asked")
    assert len((log + other).splitlines()) == 1, "who is not for the cache has the app to itself, with all it said"


def test_a_url_or_headers_too_long_to_be_kept_are_no_error(site: Site, name: str) -> None:
    for size in (1500, 3900, 7000):
        answers = [site.ask(page(name, x="x" * size)) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        assert [answer.cache for answer in answers] == (["MISS", "HIT"] if size == 1500 else ["BYPASS", "BYPASS"])
    assert [site.ask(page(name, X_Long="x" * 1500)).status for _ in range(2)] == [200, 200]


def test_of_many_who_ask_at_once_for_what_is_not_there_yet_one_asks_the_app(site: Site, name: str) -> None:
    answers = at_once(site, page(name, seconds="2"), 30)
    assert site.asked(name) == 1
    assert Counter(answer.cache for answer in answers) == {"MISS": 1, "HIT": 29}
    assert len({answer.body for answer in answers}) == 1
    assert max(answer.seconds for answer in answers) < 5


def test_who_waits_for_what_then_cannot_be_kept_is_answered_all_the_same(site: Site, name: str) -> None:
    answers = at_once(site, page(name, Set_Cookie="session=1", seconds="0.5"), 30)
    assert [answer.status for answer in answers] == [200] * 30
    assert len({answer.body for answer in answers}) == 30
    assert max(answer.seconds for answer in answers) < 15


def at_once(site: Site, path: str, count: int) -> list[Answer]:
    with ThreadPoolExecutor(count) as clients:
        return list(clients.map(lambda _: site.ask(path), range(count)))


def test_an_answer_that_is_too_old_is_given_at_once_while_the_app_makes_a_new_one(site: Site, name: str) -> None:
    path = page(name, Cache_Control=BRIEF, seconds="2")
    first = site.ask(path)
    time.sleep(EXPIRED)
    answers = at_once(site, path, 20)
    assert {answer.body for answer in answers} == {first.body}
    assert Counter(answer.cache for answer in answers) == {"STALE": 1, "UPDATING": 19}
    assert max(answer.seconds for answer in answers) < 1.5
    new = eventually(lambda: renewed(site, path, first), 10, "the new answer")
    assert new.cache == "HIT"
    assert site.asked(name) == 2


def renewed(site: Site, path: str, old: Answer) -> Answer | None:
    answer = site.ask(path)
    return answer if answer.body != old.body else None


def test_an_answer_that_is_still_the_same_is_not_sent_again(site: Site, name: str) -> None:
    path = page(name, Cache_Control=BRIEF, ETag='"7"')
    first = site.ask(path)
    time.sleep(EXPIRED)
    assert site.ask(path).cache == "STALE"
    again = eventually(lambda: fresh(site.ask(path)), 10, "what the app has said to be the same")
    assert (again.body, site.asked(name)) == (first.body, 2), "each time the app makes it, it is another one"


def fresh(answer: Answer) -> Answer | None:
    return answer if answer.cache == "HIT" else None


@pytest.mark.parametrize("status", [500, 503])
def test_while_the_app_fails_what_it_said_before_is_given(site: Site, name: str, trouble: None, status: int) -> None:
    path = page(name, Cache_Control=BRIEF)
    good = site.ask(path)
    site.in_trouble(status)
    time.sleep(EXPIRED)
    for _ in range(3):
        answer = site.ask(path)
        assert (answer.status, answer.body) == (200, good.body)
        assert answer.cache in ("STALE", "UPDATING")
    assert site.ask(page(f"{name}-2")).status == status, "there is nothing else to give"
    site.in_trouble(None)
    eventually(lambda: renewed(site, path, good), 10, "the app's new answer")


def test_what_is_no_more_is_not_given_as_it_was(site: Site, name: str, trouble: None) -> None:
    path = page(name, Cache_Control=BRIEF)
    site.ask(path)
    site.in_trouble(404)
    time.sleep(EXPIRED)
    eventually(lambda: site.ask(path).status == 404, 10, "the page is gone")


def test_while_the_app_is_gone_what_it_said_before_is_given(site: Site, name: str) -> None:
    path = page(name, Cache_Control=BRIEF)
    good = site.ask(path)
    replicas = site.stack.containers("replica")
    try:
        for replica in replicas:
            replica.kill()
        time.sleep(EXPIRED)
        answer = site.ask(path)
        assert (answer.status, answer.cache, answer.body) == (200, "STALE", good.body)
        assert site.ask(page(f"{name}-2")).status == 502
    finally:
        for replica in replicas:
            replica.start()
    eventually(lambda: renewed(site, path, good), 30, "the app is back")


def test_what_is_kept_outlives_a_restart_of_nginx(site: Site, name: str) -> None:
    kept = site.ask(page(name))
    site.stack.nginx.restart()
    eventually(site.stack.is_up, 15, "NGINX is back")
    answer = site.ask(page(name))
    assert (answer.cache, answer.body) == ("HIT", kept.body)


def test_it_is_changed_and_turned_off_and_emptied_by_a_release_without_a_failure(site: Site, name: str) -> None:
    stack = site.stack
    kept = site.ask(page(name))
    with Load(stack.port) as load:
        # For all paths, of another size: NGINX reloads.
        configure(stack, paths={**PATHS, "/": {"cache": 1}}, cache={"size": 1, "stale": False})
        stack.up()
        answer = site.ask(page(name))
        assert (answer.cache, answer.body) == ("HIT", kept.body), "a reload and the gate's probe leave it alone"
        assert stack.up().changes.keys() == {"unchanged"}
        assert stack.run_in(stack.nginx, "ls /run/nginx | grep -i cache")[1] == "", "the probe has none of its own"

        stack.edit("app/webapp.py", 'RELEASE = "one"', 'RELEASE = "two"')
        stack.up()
        answer = site.ask(page(name))
        assert (answer.cache, answer.body.split()[0]) == ("MISS", b"two"), "a release starts with none"

        large = [site.ask(page(f"{name}-{number}", size=str(2**19))) for number in range(8)]
        assert [answer.cache for answer in large] == ["MISS"] * 8
        eventually(lambda: len(site.on_disk()) <= 2**20, 15, "what is beyond the size is gone")

        configure(stack, paths=None, cache=None)
        stack.up()
        assert [site.ask(page(name)).cache for _ in range(2)] == ["", ""]
        assert stack.run_in(stack.nginx, "ls -A /etc/nginx/live | grep cache")[1] == "", "nor is the disk it took"
    load.assert_nothing_was_dropped()
    assert set(load.bodies) == {"one", "two"}
