"""Passwords and the endpoint in the configuration as it is read back, and what the app learns of who came."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.site import AuthRequest, Site
from tests.unit.test_nginx_access import http, location
from tests.unit.test_nginx_config import Block

USERS = {"users": {"eve": "long enough"}}


def basic(folder: Path, **more: Any) -> Block:
    return http(folder, basicAuth=USERS, paths={"/admin": {"auth": "basic"}, "/admin/open": {"auth": "none"}}, **more)


def asking(folder: Path, endpoint: str = "/check?a=b", **more: str) -> Block:
    return http(folder, authRequest={"endpoint": endpoint, **more}, paths={"/members": {"auth": "request"}})


def parameters(block: Block) -> dict[str, list[str]]:
    found = block.all("uwsgi_param")
    assert len({args[0] for args in found}) == len(found), "the app would get the same variable twice"
    return {args[0]: args[1:] for args in found}


# Passwords


def test_a_password_is_asked_for_where_it_is_said_and_the_gate_is_not_asked(tmp_path: Path) -> None:
    found = basic(tmp_path)
    admin = location(found, "/admin")
    assert admin.one("auth_basic") == ["$realm"]
    assert admin.one("auth_basic_user_file") == ["htpasswd"], "relative: of the configuration that is read"
    assert admin.one("auth_delay") == ["100ms"]
    realm = found.block("map", "$remote_addr", "$realm")
    assert (realm.one("default"), realm.one("unix:")) == (["Restricted"], ["off"])
    for path in ("/admin/open", "/"):
        assert not [name for name in location(found, path).names() if name.startswith("auth")]


def test_the_app_is_told_who_came_where_a_password_was_asked_for_and_never_gets_it(tmp_path: Path) -> None:
    found = basic(tmp_path)
    server = found.block("server")
    sent = parameters(server)
    assert sent["REMOTE_USER"] == sent["HTTP_X_AUTH_USER"] == ["$verified_user", "if_not_empty"]
    assert sent["HTTP_AUTHORIZATION"] == ["$app_authorization", "if_not_empty"]
    assert server.all("set") == [["$verified_user", ""], ["$app_authorization", "$http_authorization"]]
    assert location(found, "/admin").all("set") == [["$verified_user", "$remote_user"], ["$app_authorization", ""]]
    for path in ("/admin/open", "/"):
        assert location(found, path).all("set") == []


def test_nobody_else_can_say_who_came_even_where_nothing_is_asked_for(tmp_path: Path) -> None:
    sent = parameters(http(tmp_path).block("server"))
    assert sent["HTTP_X_AUTH_USER"] == [""]
    assert "REMOTE_USER" not in sent


def test_the_header_that_names_the_user_may_have_another_name(tmp_path: Path) -> None:
    found = asking(tmp_path, userHeader="Remote-User")
    assert parameters(found.block("server"))["HTTP_REMOTE_USER"] == ["$verified_user", "if_not_empty"]
    assert location(found, "/members").all("auth_request_set") == [["$verified_user", "$upstream_http_remote_user"]]


def test_it_may_not_have_a_name_that_says_something_else_to_the_app(tmp_path: Path) -> None:
    taken = [
        name.removeprefix("HTTP_").replace("_", "-").title()
        for name in parameters(http(tmp_path).block("server"))
        if name.startswith("HTTP_") and name not in ("HTTP_X_AUTH_USER", "HTTP_REMOTE_USER")
    ]
    assert {"Host", "X-Forwarded-For", "X-Real-Ip", "X-Request-Id", "Forwarded"} <= set(taken)
    for name in (*taken, "Cookie", "Authorization", "X-Original-URI", "X_Auth_User", "X-", "X-Auth-User:"):
        with pytest.raises(ValidationError):
            AuthRequest(user_header=name)
    for name in ("X-Forwarded-User", "X-Forwarded-Email", "X-Auth-Request-User", "X-authentik-username"):
        assert AuthRequest(user_header=name).user_header == name


# The endpoint


def test_the_endpoint_is_asked_where_it_is_said_by_a_way_that_no_client_can_go(tmp_path: Path) -> None:
    found = asking(tmp_path)
    assert location(found, "/members").one("auth_request") == ["/.auth-request"]
    assert location(found, "/").all("auth_request") == []
    asked = found.block("server").block("location", "=", "/.auth-request")
    assert asked.one("internal") == []
    assert asked.one("uwsgi_pass") == ["app"]
    assert asked.block("if", "$remote_addr", "=", "unix:").one("return") == ["204"], "the gate is let in"


def test_the_endpoint_gets_what_the_app_would_get_but_for_the_body_and_what_was_asked_for(tmp_path: Path) -> None:
    server = asking(tmp_path).block("server")
    app, endpoint = parameters(server), parameters(server.block("location", "=", "/.auth-request"))
    assert endpoint["PATH_INFO"] == ["/check"]
    assert endpoint["QUERY_STRING"] == ["a=b"]
    assert endpoint["REQUEST_URI"] == ["/check?a=b"]
    assert endpoint["REQUEST_METHOD"] == ["GET"]
    assert endpoint["HTTP_X_AUTH_USER"] == [""], "it says who came, and is not told"
    assert set(app) - set(endpoint) == {"CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_USER", "HTTP_AUTHORIZATION"}
    assert {name for name in set(app) & set(endpoint) if app[name] != endpoint[name]} == {
        "PATH_INFO",
        "QUERY_STRING",
        "REQUEST_URI",
        "REQUEST_METHOD",
        "HTTP_X_AUTH_USER",
        "HTTP_X_ORIGINAL_URL",
        "HTTP_X_FORWARDED_URI",
        "HTTP_X_FORWARDED_METHOD",
    }
    for name in ("HTTP_X_ORIGINAL_URL", "HTTP_X_FORWARDED_URI", "HTTP_X_FORWARDED_METHOD"):
        assert (app[name], endpoint[name] != [""]) == ([""], True), "no client says another page in its place"
    assert {name: endpoint[name] for name in set(endpoint) - set(app)} == {
        "HTTP_X_ORIGINAL_URI": ["$request_uri"],
        "HTTP_X_ORIGINAL_METHOD": ["$request_method"],
        "HTTP_X_ORIGINAL_HOST": ["$host$is_request_port$request_port"],
    }
    asked = server.block("location", "=", "/.auth-request")
    assert asked.one("uwsgi_pass_request_body") == ["off"]
    assert asked.one("client_max_body_size") == ["0"], "else a large body is a 413, which is a 500"


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("http://auth.example", "http://auth.example/"),
        ("https://auth.example:8443/check?a=b", "https://auth.example:8443/check?a=b"),
        ("http://[fd00::1]:80/", "http://[fd00::1]:80/"),
    ],
)
def test_a_server_of_its_own_is_asked_without_the_body_and_verified_where_it_is_https(
    tmp_path: Path, endpoint: str, asked: str
) -> None:
    place = asking(tmp_path, endpoint).block("server").block("location", "=", "/.auth-request")
    assert place.one("proxy_pass") == [asked]
    assert place.one("proxy_pass_request_body") == ["off"]
    headers = dict(place.all("proxy_set_header"))
    assert {"Content-Length": "", "X-Auth-User": "", "X-Original-URI": "$request_uri"}.items() <= headers.items()
    assert headers["X-Forwarded-For"] == "$remote_addr"
    verified = asked.startswith("https:")
    assert place.all("proxy_ssl_verify") == ([["on"]] if verified else [])
    assert place.all("proxy_ssl_trusted_certificate") == ([["/etc/ssl/certs/ca-certificates.crt"]] if verified else [])
    assert place.all("uwsgi_param") == []


def test_a_server_that_turns_out_to_be_this_one_is_not_asked_again(tmp_path: Path) -> None:
    place = asking(tmp_path, "http://127.0.0.1:8080/members").block("server").block("location", "=", "/.auth-request")
    assert ["X-Auth-Endpoint", "1"] in place.all("proxy_set_header")
    assert place.block("if", "$http_x_auth_endpoint").one("return") == ["403"]


# Signing in


@pytest.mark.parametrize(
    ("sign_in", "target"),
    [
        ("/login", "/login?rd=$wanted"),
        ("/login?a=b", "/login?a=b&rd=$wanted"),
        ("https://login.example/in", "https://login.example/in?rd=$scheme://$host$is_request_port$request_port$wanted"),
    ],
)
def test_unknown_ones_go_to_sign_in_with_the_page_that_they_wanted(tmp_path: Path, sign_in: str, target: str) -> None:
    found = http(
        tmp_path,
        basicAuth=USERS,
        authRequest={"endpoint": "/check", "signIn": sign_in},
        paths={"/members": {"auth": "request"}, "/admin": {"auth": "basic"}},
    )
    server = found.block("server")
    assert ["401", "=", "@sign_in"] in server.all("error_page")
    assert server.block("location", "@sign_in").block("if", "$leads_to_sign_in", "=", "").one("return") == ["401"]
    assert ["$leads_to_sign_in", "1"] in location(found, "/members").all("auth_request_set")
    assert "$leads_to_sign_in" not in str(location(found, "/admin").all("set"))
    last = server.block("location", "^~", "/.sign-in+/")
    assert last.one("return") == ["302", target]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("/.sign-in+/members?a=b&c", "/members?a=b&c"),
        ("/.sign-in+//evil.example/", "/evil.example/"),
        ("/.sign-in+@evil.example/", None),
        ("/.sign-in+", None),
        ("/xsign-in+/members", None),
    ],
)
def test_what_they_wanted_is_a_path_of_this_site(tmp_path: Path, asked: str, wanted: str | None) -> None:
    server = asking(tmp_path, signIn="/login").block("server")
    (condition,) = server.block("location", "^~", "/.sign-in+/").all("if")
    found = re.search(condition[2], asked)
    assert (found and found[1]) == wanted


def test_without_a_place_to_sign_in_401_is_401(tmp_path: Path) -> None:
    server = asking(tmp_path).block("server")
    assert [args for args in server.all("error_page") if args[0] == "401"] == []
    assert [args for args in server.all("location") if "sign" in args[-1]] == []


def test_signing_in_must_not_need_what_it_is_for() -> None:
    authentication = {"endpoint": "/check", "signIn": "/login/now?a=b"}
    protected = {"/": {"auth": "request"}}
    with pytest.raises(
        ValidationError, match=r'authRequest.signIn is /login/now.*set paths\["/login/now"\].auth to none'
    ):
        Site.model_validate({"authRequest": authentication, "paths": protected})
    for open_path in ("/login", "/login/now"):
        Site.model_validate({"authRequest": authentication, "paths": {**protected, open_path: {"auth": "none"}}})
    Site.model_validate({"authRequest": {**authentication, "signIn": "https://login.example"}, "paths": protected})
