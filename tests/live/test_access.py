"""Who may come: passwords, an endpoint that is asked, addresses, methods, rates, sizes; what the app learns of it."""

import base64
import http.client
import json
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.live.load import Load
from tests.live.stack import Stack, eventually

PASSWORD = f"correct-{secrets.token_hex(8)}"
OTHER_PASSWORD = f"horse-{secrets.token_hex(8)}"
EVE = f"Basic {base64.b64encode(f'eve:{PASSWORD}'.encode()).decode()}"
WRONG = f"Basic {base64.b64encode(b'eve:wrong-password').decode()}"
REPLICAS = 5

# Behind a proxy that is this test: so a request comes from whichever address it says.
PROXIES = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
OFFICE, GUEST, ELSEWHERE = "198.51.100.7", "198.51.100.66", "203.0.113.9"

# Tells what it was asked, and decides over requests by the cookie that they have.
APP = """

@app.route("/check")
def check():
    known = request.cookies.get("session", "")
    asked = [request.headers.get(f"X-Original-{name}", "") for name in ("Method", "Uri", "Host")]
    answers = {
        "": ("who are you?", 401, {"WWW-Authenticate": "Session"}),
        "mallory": ("not you", 403),
        "broken": ("it does not know", 500),
        "verbose": ("more than NGINX reads", 200, {"X-Long": "x" * 40000}),
        "asked": ("", 200, {"X-Auth-User": " ".join([request.method, str(len(request.get_data())), *asked])}),
    }
    return answers.get(known) or ("", 204, {"X-Auth-User": known})


@app.route("/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def tell(path):
    time.sleep(float(request.args.get("seconds", 0)))
    names = ("PATH_INFO", "REMOTE_USER", "HTTP_X_AUTH_USER", "HTTP_AUTHORIZATION", "HTTP_REMOTE_USER")
    return {**{name: request.environ[name] for name in names if name in request.environ}, "body": len(request.data)}
"""

EVERYTHING_ON_THE_WHOLE_SITE = {
    "/": {
        "auth": "basic",
        "allow": [OFFICE],
        "methods": ["POST"],
        "requestsPerSecond": 1,
        "burst": 0,
        "connections": 1,
    },
    "/loop": {"auth": "request", "allow": [], "methods": [], "requestsPerSecond": 0, "connections": 0},
}
PATHS: dict[str, dict[str, Any]] = {
    "/admin": {"auth": "basic"},
    "/admin/open": {"auth": "none"},
    "/login": {"auth": "basic", "requestsPerSecond": 1, "burst": 2},
    "/office": {"allow": ["198.51.100.0/24", "2001:db8:1::/48"], "deny": [f"{GUEST}/32"]},
    "/read": {"methods": ["GET", "OPTIONS"]},
    "/seldom": {"requestsPerSecond": 1, "burst": 1},
    "/single": {"connections": 1},
    "/small": {"maxBodySize": 1},
    "/members": {"auth": "request", "maxBodySize": 20},
    "/health": {"auth": "request", "allow": [OFFICE]},
}


@dataclass(frozen=True)
class Answer:
    """What a request got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        """What the app was asked."""
        assert self.status == 200, (self.status, self.body)
        return dict(json.loads(self.body))


@dataclass(frozen=True)
class Site:
    """The stack's site, asked as a client at some address."""

    stack: Stack

    def ask(
        self,
        target: str,
        authorization: str = "",
        *,
        method: str = "GET",
        address: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=20)
        sent = {"Authorization": authorization, "X-Forwarded-For": address, **(headers or {})}
        try:
            connection.request(method, target, body or None, {name: value for name, value in sent.items() if value})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def set(self, **settings: Any) -> None:
        """Writes keys of the stack's configuration that are no secrets; None removes one."""
        file = self.stack.folder / f"Pulumi.{self.stack.name}.yaml"
        content = yaml.safe_load(file.read_text())
        for key, value in settings.items():
            content["config"].pop(f"uwsgi-nginx:{key}", None)
            if value is not None:
                content["config"][f"uwsgi-nginx:{key}"] = value
        file.write_text(yaml.safe_dump(content))

    def set_password(self, name: str, password: str) -> None:
        self.stack.pulumi("config", "set", "--secret", "--path", f"basicAuth.users.{name}", "--", password)


def openssl(kind: str, password: str) -> str:
    """A hash as somebody else makes it."""
    return subprocess.run(
        ["openssl", "passwd", f"-{kind}", password], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def strict(stack: Stack) -> Site:
    """Five replicas, with everything on for the whole site: a first release that its gate has let pass."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "app", stack.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with (stack.folder / "app" / "webapp.py").open("a") as file:
        file.write(APP)
    site = Site(stack)
    site.set_password("eve", PASSWORD)
    for name, kind in (("sha", "6"), ("apr", "apr1")):
        site.set_password(name, openssl(kind, OTHER_PASSWORD))
    site.set(replicas=REPLICAS, healthTimeout=20, trustedProxies=PROXIES, paths=EVERYTHING_ON_THE_WHOLE_SITE)
    # The site itself, asked by HTTP, and behind what it is asked for.
    site.set(authRequest={"endpoint": "http://127.0.0.1:8080/loop/check"})
    stack.up()
    return site


def test_a_release_passes_its_gate_whatever_is_asked_of_clients(strict: Site) -> None:
    assert len(strict.stack.containers("replica")) == REPLICAS
    good = strict.ask("/well", EVE, method="POST", address=OFFICE)
    assert (good.told["PATH_INFO"], good.told["REMOTE_USER"]) == ("/well", "eve")


@pytest.mark.parametrize("claimed", ["", "unix:", "127.0.0.1", f"unix:, {ELSEWHERE}"])
def test_nobody_else_is_let_off_as_the_gate_is(strict: Site, claimed: str) -> None:
    for path in ("/health", "/.probe/uwsgi-1/health"):
        assert strict.ask(path, method="POST", address=claimed).status in (403, 429)
        assert strict.ask(path, address=claimed).status == 405


def test_an_endpoint_that_asks_itself_comes_to_an_end_and_lets_nobody_in(strict: Site) -> None:
    assert strict.ask("/loop", headers={"Cookie": "session=eve"}).status == 403


@pytest.fixture(scope="module")
def site(strict: Site) -> Site:
    """The site with rules for some of its paths."""
    strict.set(replicas=2, paths=PATHS, authRequest={"endpoint": "/check?why=because"})
    strict.stack.up()
    return strict


# Passwords


def test_who_has_no_password_or_a_wrong_one_is_asked_for_it(site: Site) -> None:
    for authorization in ("", WRONG, "Basic !", "Bearer x", EVE.replace("Basic", "Bearer")):
        refused = site.ask("/admin", authorization)
        assert refused.status == 401, authorization
        assert refused.headers["WWW-Authenticate"].startswith('Basic realm="Restricted"')


@pytest.mark.parametrize("name", ["sha", "apr"])
def test_hashes_that_others_made_are_asked_for_as_they_are(site: Site, name: str) -> None:
    right = base64.b64encode(f"{name}:{OTHER_PASSWORD}".encode()).decode()
    assert site.ask("/admin", f"Basic {right}").told["REMOTE_USER"] == name
    wrong = base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()
    assert site.ask("/admin", f"Basic {wrong}").status == 401


def test_a_wrong_password_takes_as_long_as_a_name_that_nobody_has(site: Site) -> None:
    nobody = base64.b64encode(b"nobody:wrong-password").decode()
    for authorization in (WRONG, f"Basic {nobody}"):
        begin = time.monotonic()
        assert site.ask("/admin", authorization).status == 401
        assert time.monotonic() - begin >= 0.09


@pytest.mark.parametrize("header", ["X-Auth-User", "x-auth-user", "Remote-User"])
def test_the_app_learns_who_came_from_nginx_and_from_nobody_else(site: Site, header: str) -> None:
    told = site.ask("/admin", EVE, headers={header: "root"}).told
    assert (told["REMOTE_USER"], told["HTTP_X_AUTH_USER"]) == ("eve", "eve")
    assert "HTTP_AUTHORIZATION" not in told, "the password is none of its business"
    for authorization in (EVE, WRONG, "Bearer token"):
        for path in ("/open", "/admin/open", "/read", "/seldom"):
            answer = site.ask(path, authorization, headers={header: "root"})
            if answer.status != 429:
                assert not {"REMOTE_USER", "HTTP_X_AUTH_USER"} & set(answer.told)
                assert answer.told["HTTP_AUTHORIZATION"] == authorization, "there the app may ask for one itself"


def test_a_name_with_underscores_does_not_get_around_that(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.stack.port, timeout=20)
    connection.request("GET", "/open", headers={"X_Auth_User": "root", "X-Auth_User": "root", "REMOTE_USER": "root"})
    told = json.loads(connection.getresponse().read())
    connection.close()
    assert set(told) == {"PATH_INFO", "body"}


def test_passwords_stand_nowhere_in_clear_and_hashes_only_where_nginx_reads_them(site: Site) -> None:
    stack = site.stack
    nginx = stack.nginx
    code, file = stack.run_in(nginx, "cd /etc/nginx/live/current && stat -c %a:%u htpasswd && cat htpasswd")
    assert code == 0
    mode, *lines = file.splitlines()
    assert mode == "600:101"
    hashes = dict(line.split(":", 1) for line in lines)
    assert set(hashes) == {"eve", "sha", "apr"}
    assert hashes["eve"].startswith("$2b$")

    preview = stack.preview("--diff", "--show-sames", "--show-replacement-steps").output
    state = "".join(path.read_text() for path in stack.folder.parent.joinpath("state").rglob("*") if path.is_file())
    exported = stack.pulumi("stack", "export").output
    configuration = (stack.folder / f"Pulumi.{stack.name}.yaml").read_text()
    said = "\n".join(entry for entry in stack.log if not entry.startswith("$ pulumi config set"))
    containers = stack.containers()
    inspected = json.dumps([container.attrs for container in containers])
    logs = "".join(container.logs().decode() for container in containers)
    images = json.dumps([stack.docker.images.get(container.attrs["Image"]).history() for container in containers])
    everything = [preview, state, exported, configuration, said, inspected, logs, images]
    assert [text for text in everything if len(text) < 20] == []
    for hidden in (PASSWORD, OTHER_PASSWORD, *hashes.values(), base64.b64encode(f"eve:{PASSWORD}".encode()).decode()):
        assert [text for text in everything if hidden in text] == []

    for container in containers:
        for password in (PASSWORD, OTHER_PASSWORD):
            find = f"grep -rlF -e {password} /etc/nginx /run /tmp /app /proc/1/environ 2>/dev/null; true"
            assert stack.run_in(container, find, user="0")[1] == ""


# One path in many spellings


@pytest.mark.parametrize(
    "target",
    [
        "/admin",
        "/admin/",
        "/admin/users",
        "//admin",
        "///admin//users",
        "/%61dmin",
        "/%61%64%6D%69%6E/",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/..%2fadmin",
        "/./admin",
        "/admin?x=/../open",
        "/admin%2fusers",
        "/admin/%2e",
        "/admin/open/../users",
        "/admin#open",
        "http://127.0.0.1/admin",
        "http://127.0.0.1//%61dmin",
    ],
)
def test_no_spelling_of_a_path_gets_around_its_rules(site: Site, target: str) -> None:
    assert site.ask(target).status == 401
    told = site.ask(target, EVE).told
    assert told["PATH_INFO"].startswith("/admin"), "the app sees what NGINX has looked at"
    assert told["REMOTE_USER"] == "eve"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/administrator", "/administrator"),
        ("/ADMIN", "/ADMIN"),
        ("/admin;x", "/admin;x"),
        ("/admin%3Bx", "/admin;x"),
        ("/admin.html", "/admin.html"),
        ("/%2561dmin", "/%61dmin"),
        ("/x/admin", "/x/admin"),
        ("/admin/../open", "/open"),
        ("/admin%5cusers", "/admin\\users"),
        ("/admin%20", "/admin "),
    ],
)
def test_another_path_is_another_path_for_the_app_as_well(site: Site, target: str, path: str) -> None:
    assert site.ask(target).told["PATH_INFO"] == path


@pytest.mark.parametrize("target", ["/../admin", "/admin%00", "/%zzadmin", "admin"])
def test_what_is_no_path_is_refused(site: Site, target: str) -> None:
    assert site.ask(target, EVE).status == 400


# The endpoint


def test_the_endpoint_decides_and_names_the_user(site: Site) -> None:
    refused = site.ask("/members")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Session")
    assert site.ask("/members", headers={"Cookie": "session=mallory"}).status == 403
    told = site.ask("/members/x", "Bearer token", headers={"Cookie": "session=eve", "X-Auth-User": "root"}).told
    assert (told["REMOTE_USER"], told["HTTP_X_AUTH_USER"]) == ("eve", "eve")
    assert told["HTTP_AUTHORIZATION"] == "Bearer token"


@pytest.mark.parametrize("session", ["broken", "verbose"])
def test_an_endpoint_that_does_not_answer_well_lets_nobody_in(site: Site, session: str) -> None:
    assert site.ask("/members", headers={"Cookie": f"session={session}"}).status == 500


def test_the_endpoint_is_asked_without_the_body_but_with_what_was_asked_for(site: Site) -> None:
    size = 11 * 2**20  # more than the site takes where no path says another
    told = site.ask(
        "/members/a%20b?c=d&e",
        method="PUT",
        body=b"x" * size,
        headers={"Cookie": "session=asked", "Host": "shop.example"},
    ).told
    assert told["REMOTE_USER"] == "GET 0 PUT /members/a%20b?c=d&e shop.example"
    assert told["body"] == size


def test_the_way_to_the_endpoint_is_no_clients(site: Site) -> None:
    for target in ("/.auth-request", "/.auth-request?x", "//.auth-request", "/x/../.auth-request"):
        assert site.ask(target, headers={"Cookie": "session=eve"}).status == 404


# Addresses, methods, rates, sizes


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (OFFICE, 200),
        ("::ffff:" + OFFICE, 200),
        ("2001:db8:1::7", 200),
        (GUEST, 403),
        (ELSEWHERE, 403),
        ("2001:db8:2::7", 403),
        ("", 403),
        (f"{OFFICE}, {ELSEWHERE}", 403),
        (f"{OFFICE}, 10.1.2.3", 200),
    ],
)
def test_addresses_are_those_of_clients_and_a_denied_one_is_denied_in_any_case(
    site: Site, address: str, status: int
) -> None:
    assert site.ask("/office/files", address=address).status == status
    assert site.ask("/open", address=address).status == 200


def test_other_methods_are_refused_with_those_that_are_taken(site: Site) -> None:
    for method, status in {"GET": 200, "HEAD": 200, "OPTIONS": 200, "POST": 405, "DELETE": 405, "BREW": 405}.items():
        answer = site.ask("/read", method=method)
        assert answer.status == status, method
        assert answer.headers["Allow"] == ("GET, OPTIONS, HEAD" if status == 405 else answer.headers["Allow"])
    assert site.ask("/open", method="DELETE").status == 200


def statuses(site: Site, number: int, target: str, authorization: str = "", *, addresses: list[str]) -> list[int]:
    """Of requests that come at once, as far as that goes, from these addresses in turn."""
    places = [addresses[index % len(addresses)] for index in range(number)]
    return [site.ask(target, authorization, address=address).status for address in places]


def test_who_asks_too_often_waits_and_others_do_not(site: Site) -> None:
    assert statuses(site, 3, "/seldom", addresses=[ELSEWHERE]) == [200, 200, 429]
    refused = site.ask("/seldom", address=ELSEWHERE)
    assert (refused.status, refused.headers.get_all("Retry-After")) == (429, ["1"])
    assert statuses(site, 2, "/seldom", addresses=[OFFICE, GUEST]) == [200, 200]
    eventually(lambda: site.ask("/seldom", address=ELSEWHERE).status == 200, 5, "a second later it is served again")


def test_all_of_an_ipv6_network_is_one_client(site: Site) -> None:
    network = [f"2001:db8:5:6::{number}" for number in range(1, 4)]
    assert statuses(site, 3, "/seldom", addresses=network) == [200, 200, 429]
    assert site.ask("/seldom", address="2001:db8:5:7::1").status == 200


def test_passwords_cannot_be_guessed_faster_than_the_rate(site: Site) -> None:
    assert statuses(site, 5, "/login", WRONG, addresses=[ELSEWHERE]) == [401, 401, 401, 429, 429]
    assert site.ask("/login", EVE, address=ELSEWHERE).status == 429, "nor found out which one is right"
    assert site.ask("/login", EVE, address=OFFICE).status == 200


def test_who_has_too_many_requests_at_a_time_waits(site: Site) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: site.ask("/single?seconds=1", address=ELSEWHERE), range(2)))
    assert sorted(answer.status for answer in both) == [200, 429]
    assert next(answer for answer in both if answer.status == 429).headers.get_all("Retry-After") == ["1"]
    assert site.ask("/single", address=ELSEWHERE).status == 200


def test_a_body_may_be_as_large_as_its_path_allows(site: Site) -> None:
    assert site.ask("/small", method="POST", body=b"x" * 2**20).told["body"] == 2**20
    assert site.ask("/small", method="POST", body=b"x" * (2**20 + 1)).status == 413
    assert site.ask("/open", method="POST", body=b"x" * (2**20 + 1)).status == 200


# Changes


@contextmanager
def let_in_throughout(site: Site) -> Iterator[None]:
    """Fails on one request of Eve's, over a connection that she keeps, that does not get in."""
    stop = threading.Event()

    def ask() -> list[int]:
        got = []
        connection = http.client.HTTPConnection("127.0.0.1", site.stack.port, timeout=20)
        while not stop.is_set():
            connection.request("GET", "/admin", headers={"Authorization": EVE})
            response = connection.getresponse()
            response.read()
            got.append(response.status)
            time.sleep(0.01)
        connection.close()
        return got

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask)
        try:
            yield
        finally:
            stop.set()
    assert set(answers.result()) == {200}
    assert len(answers.result()) > 100


def test_all_of_it_is_changed_turned_off_and_on_again_without_a_failed_request(site: Site) -> None:
    up = site.stack.up
    assert set(up().changes) == {"unchanged"}, "hashes are the same each time"
    with Load(site.stack.port, keep_alive=2, fresh=2, slow=0) as load:
        with let_in_throughout(site):
            site.set_password("sha", PASSWORD)
            site.set(
                paths={**PATHS, "/seldom": {"requestsPerSecond": 100, "burst": 50}},
                # The site itself, asked by HTTP: as good an endpoint as any other server.
                authRequest={
                    "endpoint": "http://127.0.0.1:8080/check",
                    "signIn": "https://login.example/in?by=password",
                },
            )
            assert up().changes["update"] == 1
            assert site.ask("/admin", f"Basic {base64.b64encode(f'sha:{PASSWORD}'.encode()).decode()}").status == 200
            assert statuses(site, 10, "/seldom", addresses=[ELSEWHERE]) == [200] * 10
            asked = site.ask(
                "/members/a?b=c",
                method="POST",
                body=b"xyz",
                headers={"Cookie": "session=asked", "Host": "shop.example"},
            )
            assert asked.told["REMOTE_USER"] == "GET 0 POST /members/a?b=c shop.example"
            assert site.ask("/members", headers={"Cookie": "session=mallory"}).status == 403
            assert site.ask("/members", headers={"Cookie": "session=broken"}).status == 500
            assert_unknown_ones_are_led_to_sign_in(site)
        site.set(paths=None, authRequest=None)
        with let_in_throughout(site):
            up()
        assert site.ask("/members", headers={"X-Auth-User": "root"}).told == {"PATH_INFO": "/members", "body": 0}
        site.set(paths=PATHS, authRequest={"endpoint": "/check"})
        with let_in_throughout(site):
            up()
        assert site.ask("/members").status == 401
    load.assert_nothing_was_dropped()


def assert_unknown_ones_are_led_to_sign_in(site: Site) -> None:
    """Wherever they wanted to go, the last of the redirects says exactly where that was."""
    for target in ("/members", "/members/a?b=c&d=e%26f&g=%C3%A4+h;i=%2525", "/members/%41?x=http://a.example/?y=z#w"):
        answer = site.ask(target, headers={"Host": "shop.example:81"})
        for _ in range(2):
            assert answer.status == 302
            place = answer.headers["Location"]
            answer = site.ask(place, headers={"Host": "shop.example:81"}) if place.startswith("/") else answer
        found = urlsplit(place)
        assert (found.scheme, found.netloc, found.path) == ("https", "login.example", "/in")
        assert parse_qs(found.query) == {"by": ["password"], "rd": [f"http://shop.example:81{target}"]}
    refused = site.ask("/admin")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="Restricted"')
