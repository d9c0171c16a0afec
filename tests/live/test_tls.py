"""HTTPS: turned on, changed, renewed and moved under load; bad certificates refused; the key seen by nobody."""

import http.client
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import Stack, free_port
from tests.unit.certificates import secrets_of

HOSTS = ("localhost", "127.0.0.1")
TIMEOUT = 15  # seconds
HSTS = 300


class Site:
    """The stack as one comes to it by HTTPS, who trusts its authority."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.port = free_port()
        self.authority = trustme.CA()
        self.keys: list[str] = []
        self.set({"port": str(self.port), "hosts[0]": HOSTS[0], "hosts[1]": HOSTS[1]})

    def set(self, plain: dict[str, str], secret: dict[str, str] | None = None) -> None:
        """Sets keys of `tls`."""
        texts = [f"--plaintext=tls.{key}={value}" for key, value in plain.items()]
        texts += [f"--secret=tls.{key}={value}" for key, value in (secret or {}).items()]
        self.stack.pulumi("config", "set-all", "--path", *texts)

    def issue(self, *names: str, **validity: datetime) -> tuple[str, str]:
        """A certificate and its key, in the form in which NGINX gets it."""
        issued = self.authority.issue_cert(*(names or HOSTS), **validity)  # type: ignore[arg-type]
        private = load_pem_private_key(issued.private_key_pem.bytes(), None)
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.keys.append(key)
        return "".join(pem.bytes().decode() for pem in issued.cert_chain_pems), key

    def serve(self, certificate: str, key: str) -> None:
        self.set({"certificate": certificate}, {"key": key})

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def load(self, slow: int = 3) -> Load:
        return Load(self.port, slow=slow, context=self.context)

    def get(self, path: str = "/", *, scheme: str = "https", method: str = "GET", **headers: str) -> "Got":
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT, context=self.context)
            if scheme == "https"
            else http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=TIMEOUT)
        )
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Got(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def serial(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> str:
        """Of the certificate that a new connection sees."""
        with self.handshake(context or self.context, session) as connection:
            found = connection.getpeercert()
            assert found
            return str(found["serialNumber"])

    def handshake(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        return context.wrap_socket(plain, server_hostname="localhost", session=session)


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture(scope="module")
def site(running: Stack) -> Site:
    return Site(running)


def of_version(site: Site, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks no other, and would take any cipher."""
    context = site.context
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


def test_a_port_for_https_that_is_taken_harms_nothing(site: Site, record: Record) -> None:
    """Turns TLS on with a port that another process holds."""
    site.serve(*site.issue())
    with socket.create_server(("127.0.0.1", 0)) as taken, Load(site.stack.port) as load:
        site.set({"port": str(taken.getsockname()[1]), "redirect": "false"})
        refused = site.stack.up(check=False)
    record("TLS turned on with a port that is taken", load)
    assert refused.code != 0
    assert "tls.port: Docker does not publish" in refused.output
    assert "address already in use" in refused.output
    load.assert_nothing_was_dropped()


def test_https_is_turned_on_beside_http_with_a_gap_that_is_known(site: Site, record: Record) -> None:
    """Sets `tls` without the redirect: Docker publishes another port, so NGINX is replaced."""
    with Load(site.stack.port) as load:
        site.set({"port": str(site.port)})
        site.stack.up()
    record("TLS turned on, on a published port", load, f"gap {load.gap:.1f} s")
    assert load.gap < 10
    assert site.stack.outputs()["url"] == f"https://localhost:{site.port}"
    assert {site.get(scheme=scheme).status for scheme in ("http", "https")} == {200}
    assert set(site.stack.up("--refresh").changes) == {"unchanged"}


def test_the_app_knows_how_the_client_came(site: Site) -> None:
    asked = json.loads(site.get("/headers", X_Forwarded_Proto="http").body)
    assert asked["url"] == f"https://127.0.0.1:{site.port}/headers"
    assert asked["X-Forwarded-Proto"] == "https"
    assert asked["X-Forwarded-Host"] == f"127.0.0.1:{site.port}"
    assert (
        json.loads(site.get("/headers", scheme="http", X_Forwarded_Proto="https").body)["X-Forwarded-Proto"] == "http"
    )


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused_and_current_ones_are_not(site: Site) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with site.handshake(of_version(site, version)) as connection:
            assert connection.version() == version.name.replace("_", ".")
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        site.handshake(of_version(site, ssl.TLSVersion.TLSv1_1))


def test_http_2_is_spoken(site: Site) -> None:
    command = "curl -sSk --http2 -o /dev/null -w '%{http_version} %{http_code}' https://127.0.0.1:8443/"
    assert site.stack.run_in(site.stack.nginx, command) == (0, "2 200")


def test_the_redirect_hsts_and_the_oldest_version_change_without_a_drop(site: Site, record: Record) -> None:
    """Changes these settings under load by HTTPS."""
    before = site.stack.nginx.id
    site.set({"redirect": "true", "hsts": str(HSTS), "hstsSubdomains": "true", "minVersion": "1.3"})
    # All who come here show as the gateway of the stack's network, which Docker takes from one of these.
    for number, network in enumerate(("172.16.0.0/12", "192.168.0.0/16")):
        site.stack.pulumi("config", "set", "--path", f"trustedProxies[{number}]", network)
    with site.load() as load:
        site.stack.up()
    record("settings of TLS changed", load)
    load.assert_nothing_was_dropped()
    assert site.stack.nginx.id == before
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        site.handshake(of_version(site, ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_who_comes_by_http_is_sent_on_with_method_and_path(site: Site, method: str) -> None:
    got = site.get("/a%20b?c=d&e=%2F", scheme="http", method=method)
    assert (got.status, got.headers["Location"]) == (308, f"https://127.0.0.1:{site.port}/a%20b?c=d&e=%2F")


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:1234", "localhost"),
        ("evil.example", "localhost"),
        ("127.0.0.1.evil.example", "localhost"),
    ],
)
def test_only_names_of_the_site_are_sent_on_to(site: Site, asked: str, host: str) -> None:
    got = site.get("//evil.example/%0d%0aSet-Cookie:x", scheme="http", Host=asked)
    expected = f"https://{host}:{site.port}//evil.example/%0d%0aSet-Cookie:x"
    assert (got.status, got.headers["Location"], got.headers.get("Set-Cookie")) == (308, expected, None)


@pytest.mark.parametrize("path", ["http://evil.example/x", "http://evil.example"])
def test_a_request_line_with_another_name_changes_nothing(site: Site, path: str) -> None:
    got = site.get(path, scheme="http", Host="localhost")
    assert got.status == 308
    assert got.headers["Location"].startswith(f"https://localhost:{site.port}/")
    assert "evil" not in got.headers["Location"]


def test_by_https_other_names_are_refused(site: Site) -> None:
    assert [site.get(Host=host).status for host in ("localhost", f"127.0.0.1:{site.port}")] == [200, 200]
    assert [site.get(Host=host).status for host in ("evil.example", "shop.localhost")] == [421, 421]


def test_hsts_is_said_by_https_alone(site: Site) -> None:
    for path in ("/", "/no-such-page"):
        assert site.get(path).headers["Strict-Transport-Security"] == f"max-age={HSTS}; includeSubDomains"
    assert "Strict-Transport-Security" not in site.get(scheme="http").headers


def test_a_trusted_proxy_is_believed_in_how_the_client_came(site: Site) -> None:
    """As one that ends TLS itself and asks by HTTP, while the redirect is on."""
    assert site.get("/headers", X_Forwarded_Proto="http").status == 308
    came = site.get("/headers", scheme="http", X_Forwarded_Proto="https", Host="localhost")
    assert json.loads(came.body)["url"] == "https://localhost/headers"
    assert came.headers["Strict-Transport-Security"] == f"max-age={HSTS}; includeSubDomains"


def test_a_bad_renewal_is_refused_and_the_certificate_before_it_goes_on_serving(site: Site, record: Record) -> None:
    """Sets another key, an expired certificate and one for another host, each refused; HTTPS is asked all the time."""
    certificate, _ = site.issue()
    now = datetime.now(UTC)
    expired = site.issue(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    before = site.serial()
    with site.load(slow=1) as load:
        for pair, words in (
            ((certificate, site.issue()[1]), "tls.key: it is not the key of the certificate"),
            (expired, "tls.certificate: it expired on"),
            (site.issue("other.example"), "tls.hosts: localhost, 127.0.0.1 is none of the certificate's names"),
        ):
            site.serve(*pair)
            refused = site.stack.up(check=False)
            assert refused.code != 0
            assert words in refused.output
            assert "Traceback" not in refused.output
    record("bad renewals of a certificate, each refused", load)
    load.assert_nothing_was_dropped()
    assert site.serial() == before


def test_a_key_in_plain_text_is_refused(site: Site) -> None:
    certificate, key = site.issue()
    site.keys.remove(key)  # from now on it is known
    site.set({"certificate": certificate, "key": key})
    refused = site.stack.up(check=False)
    assert refused.code != 0
    assert "pulumi config set --secret --path tls.key" in refused.output


def test_a_renewal_drops_nothing_and_the_next_connection_sees_it(site: Site, record: Record) -> None:
    """Sets another certificate and its key under load by HTTPS."""
    before, nginx = site.serial(), site.stack.nginx.id
    context = site.context
    with site.handshake(context) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(1)  # with TLS 1.3 the ticket comes after the handshake
        session = connection.session
    site.serve(*site.issue())
    shown = site.stack.preview("--diff")
    assert "[secret]" in shown.output
    with site.load() as load:
        site.stack.up()
    record("a renewed certificate", load)
    load.assert_nothing_was_dropped()
    assert site.stack.nginx.id == nginx
    assert site.serial() != before
    with site.handshake(context, session) as connection:
        assert not connection.session_reused, "a session of the certificate before it would hide the new one"


def test_nobody_sees_the_key(site: Site) -> None:
    """None of all that were set, refused ones too; but in NGINX's own folder, where it alone may look."""
    lines = [line for key in site.keys for line in secrets_of(key)]
    assert len(lines) >= 3 * len(site.keys)
    state = "".join(path.read_text() for path in (site.stack.folder.parent / "state").rglob("*.json"))
    assert "ssl_certificate_key tls/key.pem" in state
    places = {"state": state, "pulumi's output": "".join(text for text in site.stack.log if "config set" not in text)}
    for container in site.stack.containers():
        places[f"inspect of {container.name}"] = json.dumps(container.attrs)
        places[f"log of {container.name}"] = container.logs().decode()
    assert len(places) == 2 + 2 * 3
    assert [place for place, text in places.items() if any(line in text for line in lines)] == []
    _, listed = site.stack.run_in(site.stack.nginx, "stat -c '%a %u %n' /etc/nginx/live/current/tls/*")
    assert [line.split()[:2] for line in listed.splitlines()] == [["600", "101"]] * 2
    found = site.stack.run_in(
        site.stack.nginx, "find / -xdev -name key.pem 2>/dev/null; find /etc/nginx/live -name key.pem"
    )
    assert len(set(found[1].split())) == 1, "the keys before it are gone"


def test_on_the_network_of_the_host_it_is_turned_off_and_on_without_a_gap(site: Site, record: Record) -> None:
    """Sets `publish: host` and other ports, then turns TLS off and on again under load by HTTP."""
    site.stack.port, site.port = free_port(), free_port()
    site.set({"port": str(site.port), "redirect": "false"})
    site.stack.configure(publish="host", port=str(site.stack.port))
    site.stack.up()
    listen = site.stack.run_in(site.stack.nginx, "cat /etc/nginx/live/current/listen.conf")[1]
    assert f"listen 127.0.0.1:{site.port} ssl reuseport;" in listen
    assert [site.get(scheme=scheme).status for scheme in ("http", "https")] == [200, 200]
    assert "Strict-Transport-Security" not in site.get(scheme="http").headers
    configuration = site.stack.folder / f"Pulumi.{site.stack.name}.yaml"
    on = configuration.read_text()
    with Load(site.stack.port, keep_alive=2, fresh=2, slow=1) as load:
        site.stack.configure(tls="")
        site.stack.up()
        with pytest.raises(ConnectionRefusedError):
            site.get()
        configuration.write_text(on)
        site.stack.up()
    record("TLS turned off and on with `publish: host`", load)
    load.assert_nothing_was_dropped()
    assert site.get().status == 200
