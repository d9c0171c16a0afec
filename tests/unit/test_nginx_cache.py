"""NGINX's cache: for whom it is, what is kept, under which key, and where; and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import crossplane
import pytest
from pydantic import ValidationError

from infra import layout, nginx_config
from infra.gate import Gate
from infra.nginx_config import Endpoints, Upstream
from infra.settings import Settings
from infra.site import Site
from tests.unit import test_gate
from tests.unit.fake_docker import FakeMachine
from tests.unit.test_nginx_config import GOLDEN, RELEASE, REPLICAS, Block, parse

clock, machine = test_gate.clock, test_gate.machine

ON = {"paths": {"/": {"cache": 60}}}
CANARY = [Upstream("uwsgi-canary-1", "/run/uwsgi/uwsgi-canary-1-89abcdef.sock")]


def site(**settings: Any) -> Site:
    return Site.model_validate({**ON, **settings})


def rendered(of: Site) -> str:
    canary = CANARY if of.canary.share is not None else []
    return nginx_config.render(REPLICAS, canary, site=of, release=RELEASE, canary_release="89abcdef" if canary else "")


def http(folder: Path, of: Site) -> Block:
    return parse(folder, nginx_config.live_files(of, Endpoints()), rendered(of)).block("http")


def root(folder: Path, of: Site) -> Block:
    return http(folder, of).block("server").block("location", "/")


def mapped(block: Block, value: str) -> str:
    """What a `map` makes of a value; constants and regular expressions, as NGINX looks for them."""
    patterns = {name: block.one(name)[0] for name in block.names()}
    if value in patterns:
        return patterns[value]
    for pattern, result in patterns.items():
        if pattern.startswith("~"):
            flags = re.IGNORECASE if pattern.startswith("~*") else 0
            if re.search(pattern.lstrip("~*"), value, flags):
                return result
    return patterns.get("default", "")


@pytest.mark.parametrize(
    ("file", "begin", "end"),
    [
        ("cache-requests.conf", "    # Answers are kept for", "    # What the live instance"),
        ("cache-location.conf", "            uwsgi_cache ", "            uwsgi_pass "),
    ],
)
def test_the_text_is_exactly_as_reviewed(file: str, begin: str, end: str) -> None:
    text = rendered(site())
    part = text[text.index(begin) : text.index(end)]
    assert part == (GOLDEN / file).read_text(), f"if this change is meant, write it to {GOLDEN / file}"


@pytest.mark.parametrize("paths", [{}, {"/": {"cache": 0}}, {"/": {"cacheWithCookies": True}}])
def test_nothing_is_said_of_a_cache_where_no_path_has_one(paths: dict[str, Any]) -> None:
    off = site(paths=paths)
    texts = [rendered(off), *nginx_config.live_files(off, Endpoints()).values()]
    assert [text for text in texts if re.search("uwsgi_cache|X-Cache|[$]cache_", text)] == []


def test_the_live_instance_has_it_on_the_volume_and_the_probe_has_none(tmp_path: Path) -> None:
    path, *options = http(tmp_path, site(cache={"size": 7})).one("uwsgi_cache_path")
    assert path == layout.CACHE_FOLDER
    assert Path(path).parent == Path(layout.LIVE_FOLDER)
    assert Path(path).name.startswith("."), "the gate sweeps what does not begin with a dot"
    assert {"max_size=7m", "use_temp_path=off"} <= set(options)
    probe = nginx_config.probe_files(REPLICAS)
    block = parse(tmp_path, probe, rendered(site())).block("http")
    assert block.all("uwsgi_cache_path") == []
    assert mapped(block.block("map", "$remote_addr", "$cache_zone"), "unix:") == "off"


def test_a_change_of_size_is_no_other_zone(tmp_path: Path) -> None:
    """NGINX refuses to reload with another path or other levels, and forgets all with another size of the keys."""
    lines = [http(tmp_path, site(cache={"size": size})).one("uwsgi_cache_path") for size in (1, 1048576)]
    same = [[option for option in line if not option.startswith("max_size")] for line in lines]
    assert same[0] == same[1]
    assert lines[0] != lines[1]


@pytest.mark.parametrize(
    ("said", "zone"),
    [
        (" localhost/ ", "$cache_zone"),
        ("0 localhost/ ", "$cache_zone"),
        (" localhost/?" + "x" * 1990 + " ", "off"),
        (" localhost/ Basic ZXZlOng=", "off"),
        (" localhost/ :::evil", "off"),
        (" localhost/ 0 localhost/ ", "off"),
        (" localhost/ chunked", "off"),
        ("1 localhost/ ", "off"),
        ("00 localhost/ ", "off"),
    ],
)
def test_it_is_for_those_who_say_neither_who_they_are_nor_anything_else(tmp_path: Path, said: str, zone: str) -> None:
    variables = "$content_length $host$request_uri $http_transfer_encoding$http_authorization"
    assert mapped(http(tmp_path, site()).block("map", variables, "$cache_for_everybody"), said) == zone


def test_it_is_for_those_without_cookies_unless_a_path_says_otherwise(tmp_path: Path) -> None:
    paths = {"/": {"cache": 60}, "/shop": {"cacheWithCookies": True}, "/shop/cart": {"cacheWithCookies": False}}
    server = http(tmp_path, site(paths=paths)).block("server")
    zones = {
        location[-1]: server.block("location", *location).one("uwsgi_cache")[0]
        for location in server.all("location")[1:]
    }
    assert zones == {
        "^/shop/cart(?:/|$)": "$cache_for_strangers",
        "^/shop(?:/|$)": "$cache_for_everybody",
        "/": "$cache_for_strangers",
    }
    cookies = http(tmp_path, site()).block("map", "$http_cookie", "$cache_for_strangers")
    assert mapped(cookies, "") == "$cache_for_everybody"
    assert mapped(cookies, "session=1") == "off"


@pytest.mark.parametrize(
    ("cookies", "zone"),
    [
        ("", "$cache_for_everybody"),
        ("uwsgi_replica=0123", "$cache_for_everybody"),
        ("uwsgi_canary=0123; uwsgi_replica=4567", "$cache_for_everybody"),
        ("uwsgi_replica=0123; session=1", "off"),
        ("session=1; uwsgi_replica=0123", "off"),
        ("session=uwsgi_replica=1", "off"),
        ("uwsgi_replica=1 session=1", "$cache_for_everybody"),  # one cookie's value
    ],
)
def test_the_cookie_by_which_nginx_knows_the_replica_makes_nobody_special(
    tmp_path: Path, cookies: str, zone: str
) -> None:
    block = http(tmp_path, site(balancing={"method": "sticky"}))
    assert mapped(block.block("map", "$http_cookie", "$cache_for_strangers"), cookies) == zone


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        ("200", True),
        ("302", True),  # if the app says for how long
        ("404", True),
        ("410", True),
        ("503, 200", True),
        ("502 : 200", True),
        ("400", False),
        ("401", False),
        ("403", False),
        ("429", False),
        ("500", False),
        ("200, 503", False),
        ("", False),
    ],
)
def test_errors_are_not_kept(tmp_path: Path, statuses: str, kept: bool) -> None:
    assert (mapped(http(tmp_path, site()).block("map", "$upstream_status", "$is_error"), statuses) == "") is kept
    assert "$is_error" in root(tmp_path, site()).one("uwsgi_no_cache")


@pytest.mark.parametrize(
    ("said", "kept"),
    [("", True), ("max-age=60", True), ("max-age=60, Must-Revalidate", False), ("proxy-revalidate", False)],
)
def test_what_must_be_asked_for_again_is_not_kept_where_it_would_be_given_all_the_same(
    tmp_path: Path, said: str, kept: bool
) -> None:
    block = http(tmp_path, site()).block("map", "$upstream_http_cache_control", "$must_revalidate")
    assert (mapped(block, said) == "") is kept
    assert "$must_revalidate" in root(tmp_path, site()).one("uwsgi_no_cache")


def test_without_stale_answers_nothing_is_given_when_it_is_too_old(tmp_path: Path) -> None:
    location = root(tmp_path, site(cache={"stale": False}))
    assert location.all("uwsgi_cache_use_stale") == location.all("uwsgi_cache_background_update") == []
    assert location.one("uwsgi_no_cache") == ["$is_error"], "it may be kept, because NGINX asks again"


def test_the_key_has_all_by_which_answers_differ(tmp_path: Path) -> None:
    (key,) = root(tmp_path, site()).one("uwsgi_cache_key")
    server = http(tmp_path, site()).block("server")
    parameters = dict(args[:2] for args in server.all("uwsgi_param"))
    assert key == f"{parameters['UWSGI_SCHEME']}://{parameters['HTTP_HOST']}$request_uri {RELEASE}"
    trusting = site(trusted_proxies=["10.0.0.0/8"])
    assert root(tmp_path, trusting).one("uwsgi_cache_key")[0].startswith("$client_scheme://")


def test_two_releases_have_nothing_in_common(tmp_path: Path) -> None:
    of = site(canary={"share": 20})
    assert root(tmp_path, of).one("uwsgi_cache_key")[0].endswith(" $release")
    block = http(tmp_path, of).block("map", "$release $upstream_addr", "$is_of_another_release")
    stable, canary = (
        f"unix:{upstream.socket}" for upstream in (Upstream("", f"/run/uwsgi/uwsgi-1-{RELEASE}.sock"), *CANARY)
    )
    assert mapped(block, f"{RELEASE} {stable}") == ""
    assert mapped(block, f"89abcdef {canary}") == ""
    assert mapped(block, f"89abcdef {canary}, {stable}") == "1", (
        "the first release has answered for a canary that is down"
    )
    assert "$is_of_another_release" in root(tmp_path, of).one("uwsgi_no_cache")


def test_with_live_reload_nothing_is_kept() -> None:
    values = {"paths": json.dumps(ON["paths"])}
    assert Settings.parse(values).caches
    assert not Settings.parse({**values, "liveReload": "true"}).caches


@pytest.mark.parametrize(("seconds", "missing"), [(1, "1s"), (10, "10s"), (3600, "10s")])
def test_what_is_not_there_is_asked_for_again_soon(tmp_path: Path, seconds: int, missing: str) -> None:
    location = root(tmp_path, site(paths={"/": {"cache": seconds}}))
    assert location.all("uwsgi_cache_valid") == [["200", "301", "308", f"{seconds}s"], ["404", "410", missing]]


def test_files_that_nginx_serves_are_not_kept_but_what_the_app_says_in_their_place_is(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(rendered(site(static={"/static": "static"})))
    payload = crossplane.parse(str(tmp_path / "nginx.conf"), strict=False, single=True)
    server = Block(payload["config"][0]["parsed"]).block("http").block("server")
    assert server.block("location", "~", "^/static(?:/|$)").all("uwsgi_cache") == []
    assert server.block("location", "@/static").one("uwsgi_cache") == ["$cache_for_strangers"]


@pytest.mark.parametrize(
    ("paths", "path"),
    [
        ({"/": {"cache": 60, "auth": "basic"}}, "/"),
        ({"/": {"cache": 60}, "/admin": {"auth": "basic"}}, "/admin"),
        ({"/": {"auth": "basic"}, "/public": {"cache": 60}}, "/public"),
        ({"/": {"cache": 60, "streaming": True}}, "/"),
        ({"/": {"cache": 60}, "/events": {"streaming": True}}, "/events"),
    ],
)
def test_what_is_not_for_all_or_comes_piece_by_piece_cannot_be_kept(paths: dict[str, Any], path: str) -> None:
    users = {"basicAuth": {"users": {"eve": "long enough"}}}
    with pytest.raises(ValidationError, match=re.escape(f'Set paths["{path}"].cache to 0')):
        site(paths=paths, **users)
    allowed = {**paths, path: {**paths[path], "cache": 0}}
    assert not [
        location for location in site(paths=allowed, **users).locations() if location.cache and location.path == path
    ]


def test_the_gate_removes_a_cache_that_was_turned_off_and_no_other(machine: FakeMachine) -> None:
    folder = machine.live / ".cache" / "0"
    folder.mkdir(parents=True)
    (folder / "answer").write_text("kept")
    gate = Gate(machine.client(), progress=lambda _: None)
    test_gate.add_release(machine, "new")
    gate.let_pass(replace(test_gate.rollout(), files=nginx_config.live_files(site(), Endpoints())))
    assert (folder / "answer").exists()
    gate.let_pass(replace(test_gate.rollout(), files=nginx_config.live_files(site(paths={}), Endpoints())))
    assert not folder.parent.exists()
