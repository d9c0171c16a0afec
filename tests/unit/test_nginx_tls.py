"""Encryption in the NGINX configuration, and where NGINX listens for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra import layout, nginx_config
from infra.nginx_config import Endpoints
from infra.site import Site
from tests.unit.certificates import self_signed
from tests.unit.program import Program, run, strings
from tests.unit.test_nginx_config import PROXIES, RELEASE, REPLICAS, Block, parse

CERTIFICATE, KEY = "certificate-4711", "key-4711"
HTTPS = Endpoints(https=str(layout.HTTPS_PORT))


def site(*, trusted_proxies: tuple[str, ...] = (), **tls: Any) -> Site:
    return Site(tls={"certificate": CERTIFICATE, "key": KEY, **tls}, trusted_proxies=trusted_proxies)  # type: ignore[arg-type]


def http(folder: Path, served: Site, endpoints: Endpoints = HTTPS, *, probe: bool = False) -> Block:
    """The `http` block of an instance of that site."""
    configuration = nginx_config.render(REPLICAS, site=served, release=RELEASE)
    files = nginx_config.live_files(served, endpoints)
    if probe:
        files |= nginx_config.probe_files(REPLICAS)
    return parse(folder, files, configuration).block("http")


def live(served: Site, endpoints: Endpoints = HTTPS) -> dict[str, str]:
    return nginx_config.live_files(served, endpoints)


def map_of(block: Block, source: str, variable: str) -> dict[str, str]:
    found = block.block("map", source, variable)
    return {name: found.one(name)[0] for name in found.names()}


# Text


def test_the_live_instance_listens_for_both_and_sends_http_to_https() -> None:
    assert live(site())["listen.conf"] == (
        "listen 8080;\n"
        "listen 8443 ssl;\n"
        "# With any method, which 308 keeps; before all else, so that nothing of the app is had by HTTP.\n"
        "if ($https_url) {\n"
        "    return 308 $https_url;\n"
        "}\n"
    )


def test_the_way_to_https_is_exactly_as_reviewed() -> None:
    text = live(site(hosts=["shop.example", "::1"], port=443))["instance.conf"]
    assert text[text.index("# The names of the site") :] == (
        "# The names of the site. Who asks for another one is refused by HTTPS (421), and by HTTP sent to the first of "
        "these.\n"
        "# With the colon none of them is a word that `map` has for itself, such as `default`.\n"
        "map :$host $is_misdirected {\n"
        "    default $https;\n"
        '    :shop.example "";\n'
        '    :[::1] "";\n'
        "}\n"
        "map :$host $site_host {\n"
        "    default shop.example;\n"
        "    :shop.example shop.example;\n"
        "    :[::1] [::1];\n"
        "}\n"
        "# Where those go on who came by HTTP.\n"
        "map $scheme $https_url {\n"
        '    default "";\n'
        "    http https://$site_host$request_uri;\n"
        "}\n"
    )


def test_without_a_certificate_nothing_of_it_is_there(tmp_path: Path) -> None:
    off = Site()
    block = http(tmp_path, off, Endpoints())
    directives = set(block.names())
    assert not {name for name in directives if name.startswith(("ssl_", "http2"))}
    assert block.block("server").all("listen") == [[str(layout.PORT)]]
    assert "https_url" not in "".join(live(off, Endpoints()).values())
    assert nginx_config.secret_files(off) == {}


# Read back


def test_certificate_and_key_are_read_beside_the_configuration_and_are_secret(tmp_path: Path) -> None:
    served = site()
    server = http(tmp_path, served).block("server")
    files = {server.one("ssl_certificate")[0]: CERTIFICATE, server.one("ssl_certificate_key")[0]: KEY}
    assert nginx_config.secret_files(served) == files
    assert [name for name in files if Path(name).is_absolute()] == []
    readable = [nginx_config.render(REPLICAS, site=served, release=RELEASE), *live(served).values()]
    assert [text for text in readable if CERTIFICATE in text or KEY in text] == []


@pytest.mark.parametrize("probe", [False, True])
def test_the_gates_probe_tries_certificate_and_key_as_well(probe: bool, tmp_path: Path) -> None:
    server = http(tmp_path, site(hsts=60, hosts=["shop.example"]), probe=probe).block("server")
    assert len(server.all("ssl_certificate")) == len(server.all("ssl_certificate_key")) == 1
    assert server.one("http2") == ["on"]


def test_the_gates_probe_is_asked_without_encryption_and_redirects_nobody(tmp_path: Path) -> None:
    server = http(tmp_path, site(hosts=["shop.example"]), probe=True).block("server")
    assert server.all("listen") == [[f"unix:{layout.PROBE_SOCKET}"]]
    assert [condition for condition in server.all("if") if "$https_url" in condition[0]] == []
    assert server.all("return") == []


@pytest.mark.parametrize(
    ("version", "protocols", "count"), [("1.2", ["TLSv1.2", "TLSv1.3"], 6), ("1.3", ["TLSv1.3"], 0)]
)
def test_protocols_and_ciphers_are_those_of_mozillas_guideline(
    version: str, protocols: list[str], count: int, tmp_path: Path
) -> None:
    server = http(tmp_path, site(min_version=version)).block("server")
    assert server.one("ssl_protocols") == protocols
    ciphers = [cipher for (argument,) in server.all("ssl_ciphers") for cipher in argument.split(":")]
    assert len(ciphers) == count
    # Forward secrecy and authenticated encryption, each of them.
    assert [cipher for cipher in ciphers if not re.fullmatch(r"ECDHE-(ECDSA|RSA)-.*(GCM|POLY1305).*", cipher)] == []
    assert server.one("ssl_prefer_server_ciphers") == ["off"]
    assert server.one("ssl_ecdh_curve") == ["?X25519MLKEM768:X25519:prime256v1:secp384r1"]


def test_sessions_are_resumed_by_any_worker_with_keys_that_change(tmp_path: Path) -> None:
    server = http(tmp_path, site()).block("server")
    assert server.one("ssl_session_cache") == ["shared:tls:10m"], "without it nobody changes the keys of the tickets"
    assert server.all("ssl_session_tickets") == server.all("ssl_stapling") == []


# From HTTP to HTTPS


@pytest.mark.parametrize(("port", "text"), [(443, ""), (8443, ":8443"), (10443, ":10443")])
def test_the_port_is_named_where_it_is_not_the_usual_one(port: int, text: str, tmp_path: Path) -> None:
    found = map_of(http(tmp_path, site(port=port)), "$scheme", "$https_url")
    assert found == {"default": "", "http": f"https://$host{text}$request_uri"}


def test_only_the_sites_own_names_are_redirected_to(tmp_path: Path) -> None:
    block = http(tmp_path, site(hosts=["shop.example", "www.shop.example", "fd00::1"]))
    assert map_of(block, "$scheme", "$https_url")["http"] == "https://$site_host:8443$request_uri"
    assert map_of(block, ":$host", "$site_host") == {
        "default": "shop.example",
        ":shop.example": "shop.example",
        ":www.shop.example": "www.shop.example",
        ":[fd00::1]": "[fd00::1]",
    }


def test_by_https_other_names_than_the_sites_are_refused(tmp_path: Path) -> None:
    block = http(tmp_path, site(hosts=["shop.example", "default"]))
    assert map_of(block, ":$host", "$is_misdirected") == {
        "default": "$https",  # by HTTP it is empty, and nobody is
        ":shop.example": "",
        ":default": "",
    }
    assert block.block("server").block("if", "$is_misdirected").one("return") == ["421"]


def test_without_names_all_are_answered(tmp_path: Path) -> None:
    assert "$is_misdirected" not in "".join(live(site()).values())


def test_without_the_redirect_both_are_answered(tmp_path: Path) -> None:
    block = http(tmp_path, site(redirect=False))
    assert block.block("server").all("listen") == [["8080"], ["8443", "ssl"]]
    assert "308" not in "".join(live(site(redirect=False)).values())


def test_who_came_to_a_trusted_proxy_by_https_is_not_sent_round_in_circles(tmp_path: Path) -> None:
    block = http(tmp_path, site(trusted_proxies=PROXIES, hsts=60))
    assert map_of(block, "$client_scheme", "$https_url")["http"].startswith("https://")
    assert "https" not in map_of(block, "$client_scheme", "$https_url")
    assert "https:" in map_of(block, "$client_scheme:$upstream_http_strict_transport_security", "$hsts")


# HSTS


@pytest.mark.parametrize(
    ("tls", "value"),
    [
        ({"hsts": 31536000}, "max-age=31536000"),
        ({"hsts": 60, "hsts_subdomains": True}, "max-age=60; includeSubDomains"),
    ],
)
def test_hsts_is_said_by_https_alone_and_leaves_the_apps_own(tls: dict[str, Any], value: str, tmp_path: Path) -> None:
    block = http(tmp_path, site(**tls))
    # A header without a value is not sent.
    assert map_of(block, "$scheme:$upstream_http_strict_transport_security", "$hsts") == {
        "default": "",
        "https:": value,
    }
    headers = block.block("server").all("add_header")
    assert [header for header in headers if header[0] == "Strict-Transport-Security"] == [
        ["Strict-Transport-Security", "$hsts", "always"]
    ]


def test_hsts_is_off_by_default(tmp_path: Path) -> None:
    assert "Strict-Transport-Security" not in nginx_config.render(REPLICAS, site=site(), release=RELEASE)


# The program


def stack(*, certificate: tuple[str, str] = self_signed("shop.example"), **config: Any) -> Program:
    tls = {"certificate": certificate[0], "key": certificate[1], **config.pop("tls", {})}
    return run({**config, "tls": json.dumps(tls)}, ["tls"])


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({}, "https://127.0.0.1:8443"),
        ({"tls": {"port": 443}}, "https://127.0.0.1"),
        ({"tls": {"port": 9443, "hosts": ["shop.example"]}}, "https://shop.example:9443"),
        ({"tls": {"port": 443, "hosts": ["shop.example"]}, "publishAddress": "0.0.0.0"}, "https://shop.example"),
        ({"publishAddress": "::"}, "https://[::1]:8443"),
        ({"publish": "host", "tls": {"port": 10443}}, "https://127.0.0.1:10443"),
    ],
)
def test_the_url_is_the_one_by_https(config: dict[str, Any], url: str) -> None:
    assert stack(**config).exports["url"] == url


def test_an_address_among_the_names_stands_in_brackets() -> None:
    program = stack(certificate=self_signed("fd00::1"), tls={"hosts": ["fd00::1"]})
    assert program.exports["url"] == "https://[fd00::1]:8443"


def test_docker_publishes_both_ports() -> None:
    ports = stack(publishAddress="0.0.0.0", tls={"port": 443})["nginx-8080"].inputs["ports"]
    assert ports == [
        {"internal": layout.PORT, "external": 8080, "ip": "0.0.0.0"},
        {"internal": layout.HTTPS_PORT, "external": 443, "ip": "0.0.0.0"},
    ]


def test_on_the_host_nginx_listens_itself_and_lets_its_successor_listen_too() -> None:
    program = stack(publish="host", publishAddress="::1", tls={"port": 10443, "redirect": False})
    assert "ports" not in program["nginx-host"].inputs
    files = program["release"].inputs["files"]
    assert files["listen.conf"] == "listen [::1]:8080 reuseport;\nlisten [::1]:10443 ssl reuseport;\n"


def test_the_key_is_ciphertext_in_the_state_and_nowhere_else() -> None:
    certificate, key = self_signed("shop.example")
    program = stack(certificate=(certificate, key))
    assert program["release"].inputs["secrets"] == {"tls/certificate.pem": certificate, "tls/key.pem": key}
    assert "secrets" in program["release"].secrets
    line = key.splitlines()[1]
    for name, resource in program.resources.items():
        plain = {name: value for name, value in resource.inputs.items() if name != "secrets"}
        assert line not in "".join(strings(plain)), name
    assert line not in "".join(strings(program.exports))


def test_another_certificate_changes_the_release_alone() -> None:
    one, other = stack(), stack(certificate=self_signed("shop.example"))
    changed = [name for name, resource in one.resources.items() if resource.inputs != other[name].inputs]
    assert changed == ["release"]
    inputs, others = one["release"].inputs, other["release"].inputs
    assert [key for key in inputs if inputs[key] != others[key]] == ["secrets"]
