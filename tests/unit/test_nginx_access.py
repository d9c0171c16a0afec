"""Filters by path: addresses, methods, rates, connections and sizes, in the configuration as it is read back."""

from pathlib import Path
from typing import Any

import pytest

from infra import nginx_config
from infra.nginx_config import Endpoints
from infra.site import Site
from tests.unit.test_nginx_config import RELEASE, REPLICAS, Block, parse


def http(folder: Path, instance: str = "live", **site: Any) -> Block:
    """The configuration of a site with these settings, in one of the two instances."""
    settings = Site.model_validate(site)
    text = nginx_config.render(REPLICAS, site=settings, release=RELEASE)
    live = nginx_config.live_files(settings, Endpoints())
    return parse(folder, live if instance == "live" else live | nginx_config.probe_files(REPLICAS), text).block("http")


def location(http: Block, path: str) -> Block:
    match = ["/"] if path == "/" else ["~", f"^{path}(?:/|$)"]
    return http.block("server").block("location", *match)


def test_nothing_is_filtered_unless_it_is_said(tmp_path: Path) -> None:
    directives = set(http(tmp_path, paths={"/a": {"cache": 1}}).names())
    assert not {name for name in directives if name.startswith(("limit_", "allow", "deny", "auth_", "set"))}


def test_a_denied_address_is_denied_whatever_is_allowed_and_the_gate_is_let_in(tmp_path: Path) -> None:
    found = http(tmp_path, paths={"/a": {"allow": ["10.0.0.0/8", "fd00::1"], "deny": ["10.6.6.0/24"]}})
    # The first that fits decides: https://nginx.org/en/docs/http/ngx_http_access_module.html
    rules = [(name, *args) for name, args in location(found, "/a").directives() if name in ("allow", "deny")]
    assert rules == [
        ("deny", "10.6.6.0/24"),
        ("allow", "unix:"),
        ("allow", "10.0.0.0/8"),
        ("allow", "fd00::1/128"),
        ("deny", "all"),
    ]
    assert "allow" not in set(location(found, "/").names())


def test_who_is_not_denied_may_come_where_nobody_is_allowed_in_particular(tmp_path: Path) -> None:
    found = http(tmp_path, paths={"/": {"deny": ["10.6.6.0/24"]}, "/a": {"deny": []}})
    assert location(found, "/").all("deny") == [["10.6.6.0/24"]]
    assert not {"allow", "deny"} & set(location(found, "/a").names())


def test_other_methods_get_405_with_those_that_are_taken_and_the_gate_is_not_checked(tmp_path: Path) -> None:
    found = http(tmp_path, paths={"/a": {"methods": ["POST", "GET"]}, "/a/b": {"methods": []}})
    refusal = location(found, "/a").block("if", "$checked_method", "!~", "^(POST|GET|HEAD|)$")
    assert refusal.one("return") == ["405"]
    assert refusal.one("add_header") == ["Allow", "POST, GET, HEAD", "always"]
    checked = found.block("map", "$remote_addr", "$checked_method")
    assert (checked.one("default"), checked.one("unix:")) == (["$request_method"], [""])
    assert location(found, "/a/b").all("if") == []


def test_a_limit_holds_for_its_path_and_below_together_and_one_below_has_its_own(tmp_path: Path) -> None:
    paths = {
        "/": {"requestsPerSecond": 10},
        "/a": {"burst": 0},
        "/a/b": {"requestsPerSecond": 2, "burst": 3},
        "/a:c": {"requestsPerSecond": 1},
        "/free": {"requestsPerSecond": 0},
    }
    found = http(tmp_path, paths=paths)
    assert sorted(found.all("limit_req_zone")) == [
        ["$limited_client", "zone=requests/:4m", "rate=10r/s"],
        ["$limited_client", "zone=requests/a%3Ac:4m", "rate=1r/s"],
        ["$limited_client", "zone=requests/a/b:4m", "rate=2r/s"],
    ]
    limits = {path: location(found, path).all("limit_req") for path in paths}
    assert limits == {
        "/": [["zone=requests/", "burst=20", "nodelay"]],
        # NGINX refuses burst=0.
        "/a": [["zone=requests/", "nodelay"]],
        "/a/b": [["zone=requests/a/b", "burst=3", "nodelay"]],
        "/a:c": [["zone=requests/a%3Ac", "burst=20", "nodelay"]],
        "/free": [],
    }


def test_requests_at_a_time_are_limited_likewise(tmp_path: Path) -> None:
    found = http(tmp_path, paths={"/": {"connections": 5}, "/a": {"auth": "none"}, "/b": {"connections": 0}})
    assert found.all("limit_conn_zone") == [["$limited_client", "zone=connections/:4m"]]
    assert location(found, "/").one("limit_conn") == location(found, "/a").one("limit_conn") == ["connections/", "5"]
    assert location(found, "/b").all("limit_conn") == []


def test_who_is_limited_gets_429_and_the_gate_and_whole_ipv6_networks_are_told_apart(tmp_path: Path) -> None:
    found = http(tmp_path, paths={"/": {"requestsPerSecond": 5}})
    assert found.one("limit_req_status") == found.one("limit_conn_status") == ["429"]
    client = found.block("map", "$binary_remote_addr", "$limited_client")
    assert client.one("default") == ["$binary_remote_addr"]
    assert client.one("unix:") == [""], "an empty key is not counted"
    assert client.one(r"~(?s)^(?<client_network>.{8}).{8}$") == ["$client_network"]
    assert client.one(r"~(?s)^\x00{10}\xff\xff(?<mapped_address>.{4})$") == ["$mapped_address"]


@pytest.mark.parametrize(("path", "size"), [("/", None), ("/small", "1m"), ("/large", "20m")])
def test_a_path_has_a_size_of_its_own_where_it_is_another(tmp_path: Path, path: str, size: str | None) -> None:
    found = http(tmp_path, maxBodySize=5, paths={"/small": {"maxBodySize": 1}, "/large": {"maxBodySize": 20}})
    assert found.one("client_max_body_size") == ["5m"]
    assert location(found, path).all("client_max_body_size") == ([[size]] if size else [])


def test_both_instances_have_the_same_filters(tmp_path: Path) -> None:
    rules = {"/": {"allow": ["10.0.0.0/8"], "methods": ["GET"], "requestsPerSecond": 1, "connections": 1}}
    found = []
    for instance in ("live", "probe"):
        (tmp_path / instance).mkdir()
        found.append(location(http(tmp_path / instance, instance, paths=rules), "/").directives())
    assert found[0] == found[1]
    assert {"allow", "if", "limit_req", "limit_conn"} <= {name for name, _ in found[0]}
