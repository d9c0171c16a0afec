"""The production setup of examples/, as its own header says to set it up."""

import base64
import http.client
import json
import shutil
import socket
import ssl
import time

import pytest
import trustme
import yaml

from tests.live.stack import ROOT, Stack, eventually, free_port

HOST = "shop.example"
PASSWORD = "correct horse battery"
TIMEOUT = 30  # seconds


class Site:
    """The example as its visitors come to it: by HTTPS and by name."""

    def __init__(self, stack: Stack, authority: trustme.CA, port: int) -> None:
        self.stack, self.port = stack, port
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)

    def connection(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(HOST, timeout=TIMEOUT)
        plain = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        connection.sock = self._context.wrap_socket(plain, server_hostname=HOST)
        return connection

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        connection = self.connection()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode(errors="replace")
        finally:
            connection.close()


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    shutil.copytree(ROOT / "examples", stack.folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    port, authority = free_port(), trustme.CA()
    text = (ROOT / "examples" / "Pulumi.production.yaml").read_text()
    # What is of this machine: free ports, its loopback, and who its office is.
    for old, new in {
        "publishAddress: 0.0.0.0": "publishAddress: 127.0.0.1",
        "port: 80\n": f"port: {stack.port}\n",
        "port: 443\n": f"port: {port}\n",
        "allow: [10.0.0.0/8, 192.0.2.0/24]": "allow: [0.0.0.0/0]",
    }.items():
        assert old in text
        text = text.replace(old, new)
    file = stack.folder / f"Pulumi.{stack.name}.yaml"
    present = yaml.safe_load(file.read_text())
    present["config"] = {**yaml.safe_load(text)["config"], **present["config"]}
    file.write_text(yaml.safe_dump(present))

    issued = authority.issue_cert(HOST, f"www.{HOST}")
    key = issued.private_key_pem.bytes().decode()
    certificate = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
    for name, value in {
        "environment.SECRET_KEY": "4711",
        "basicAuth.users.ops": PASSWORD,
        "tls.key": key,
    }.items():
        stack.pulumi("config", "set", "--secret", "--path", name, "--", value)
    stack.pulumi("config", "set", "--path", "tls.certificate", "--", certificate)
    stack.up()
    return Site(stack, authority, port)


def test_it_comes_up_and_stays_as_it_is(site: Site) -> None:
    assert len(site.stack.containers("replica")) == 4
    assert [container.status for container in site.stack.containers("exporter")] == ["running"]
    assert set(site.stack.up().changes) == {"unchanged"}
    assert site.stack.outputs()["url"] == f"https://{HOST}:{site.port}"


def test_http_is_sent_to_https(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.stack.port, timeout=TIMEOUT)
    connection.request("GET", "/catalogue?a=b", headers={"Host": HOST})
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (308, f"https://{HOST}:{site.port}/catalogue?a=b")
    connection.close()


def test_the_page_has_all_headers(site: Site) -> None:
    status, headers, body = site.ask("/")
    assert (status, "Welcome" in body) == (200, True)
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-ID"]


def test_the_catalogue_is_cached_and_compressed_and_only_read(site: Site) -> None:
    first, second = (site.ask("/catalogue", Accept_Encoding="identity") for _ in range(2))
    assert (first[1]["X-Cache"], second[1]["X-Cache"]) == ("MISS", "HIT")
    assert first[2] == second[2]
    assert site.ask("/catalogue", Accept_Encoding="gzip")[1]["Content-Encoding"] == "gzip"
    assert site.ask("/catalogue", "POST")[0] == 405


def test_the_administration_asks_for_a_password(site: Site) -> None:
    assert site.ask("/admin")[0] == 401
    credentials = trustworthy("ops", PASSWORD)
    status, _, body = site.ask("/admin", Authorization=credentials)
    assert (status, body) == (200, "Good day, ops.")
    assert site.ask("/admin", Authorization=trustworthy("ops", "wrong"))[0] == 401


def test_an_account_asks_the_app_who_it_is(site: Site) -> None:
    status, headers, _ = site.ask("/account")
    while status == 302 and not headers["Location"].startswith("/login"):
        status, headers, _ = site.ask(headers["Location"].removeprefix(f"https://{HOST}:{site.port}"))
    assert (status, headers["Location"]) == (302, "/login?rd=/account")
    _, headers, _ = site.ask("/login")
    cookie = headers["Set-Cookie"].split(";")[0]
    assert site.ask("/account", Cookie=cookie)[2] == "The account of eve."


def test_files_are_served_by_nginx(site: Site) -> None:
    status, headers, body = site.ask("/static/style.css")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/css")
    assert "font-family" in body
    assert headers["ETag"]


def test_an_upload_may_be_large_where_it_is_meant_to(site: Site) -> None:
    body = b"x" * (11 * 2**20)
    assert site.ask("/upload", "POST", body)[2] == f"{len(body)} bytes, thank you."
    assert site.ask("/events", "POST", body)[0] == 413


def test_events_arrive_one_by_one(site: Site) -> None:
    connection = site.connection()
    connection.request("GET", "/events")
    response = connection.getresponse()
    moments = []
    while response.readline().startswith(b"data:"):
        moments.append(time.monotonic())
        response.readline()
    connection.close()
    assert len(moments) == 3
    assert moments[-1] - moments[0] > 0.8


def test_whoever_asks_too_often_is_told_so(site: Site) -> None:
    statuses = [site.ask("/admin")[0] for _ in range(60)]
    assert set(statuses) == {401, 429}


def test_requests_are_logged_and_counted(site: Site) -> None:
    request_id = "example-4711-0815"
    site.ask("/", X_Request_ID=request_id)

    def logged() -> list[str]:
        return [line for line in site.stack.nginx.logs().decode().splitlines() if request_id in line]

    (line,) = eventually(logged, 10, "the line of the request")
    assert json.loads(line)["status"] == 200
    (exporter,) = site.stack.containers("exporter")
    script = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9113/metrics').read().decode())"

    def counted() -> bool:
        _, text = site.stack.run_in(exporter, f'python -c "{script}"')
        return "nginx_http_requests_total{" in text

    eventually(counted, 10, "figures of the requests")


def test_a_page_takes_the_apps_place_during_maintenance(site: Site) -> None:
    site.stack.pulumi("config", "set", "--path", "maintenance.enabled", "true")
    site.stack.up()
    status, headers, body = site.ask("/", Accept="text/html")
    assert (status, headers["Retry-After"]) == (503, "300")
    assert body.startswith("<!doctype html>")


def test_nothing_secret_is_to_be_seen(site: Site) -> None:
    state = site.stack.pulumi("stack", "export").output
    shown = site.stack.preview("--diff").output
    inspected = "".join(json.dumps(container.attrs) for container in site.stack.containers("nginx"))
    for text in (state, shown, inspected):
        assert PASSWORD not in text
        assert "PRIVATE KEY" not in text


def trustworthy(user: str, password: str) -> str:
    """What a browser says of itself after it has asked for a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
