"""What a stack can set, and what is refused, in which words."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pulumi.runtime
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from infra.settings import LONGEST_NAME, MAX_SHOWN, RESERVED_VARIABLES, Settings, SettingsError, Swarm, keys
from infra.site import AuthRequest, Balancing, BasicAuth, Cache, Canary, Maintenance, Metrics, Tls
from tests.unit.program import SWARM, physical_name, run
from tooling import reference

SECRET = "xyzzy-4711"
PINNED = "registry.example:5000/app@sha256:" + "0" * 64

DEFAULTS = {
    "orchestrator": "containers",
    "replicas": 2,
    "port": 8080,
    "publishAddress": "127.0.0.1",
    "publish": "port",
    "appFolder": "app",
    "appImage": "",
    "appModule": "webapp",
    "appCallable": "app",
    "importCheck": True,
    "environment": {},
    "healthPath": "/health",
    "healthTimeout": 60,
    "drainTimeout": 30,
    "requestTimeout": 60,
    "clientTimeout": 20,
    "maxBodySize": 10,
    "trustedProxies": (),
    "tls": Tls(),
    "paths": {},
    "cache": Cache(),
    "basicAuth": BasicAuth(),
    "authRequest": AuthRequest(),
    "balancing": Balancing(),
    "canary": Canary(),
    "static": {},
    "compression": False,
    "securityHeaders": False,
    "headers": {},
    "maintenance": Maintenance(),
    "errorPages": "",
    "accessLog": True,
    "metrics": Metrics(),
    "liveReload": False,
    "uwsgiProcesses": 2,
    "uwsgiThreads": 8,
    "memory": 256,
    "cpus": Decimal(0),
    "nginxMemory": 256,
    "appImageName": "uwsgi-nginx/app",
    "nginxImageName": "uwsgi-nginx/nginx",
    "exporterImageName": "uwsgi-nginx/exporter",
    "pythonImage": "python:3.13-slim",
    "nginxImage": "nginx:1.31",
    "platform": "linux/amd64",
    "registry": "",
    "swarm": Swarm(),
}

RANGES = {
    "replicas": (1, 1000),
    "port": (1, 65535),
    "healthTimeout": (1, 3600),
    "drainTimeout": (1, 3600),
    "requestTimeout": (1, 3600),
    "clientTimeout": (1, 3600),
    "maxBodySize": (1, 10240),
    "uwsgiProcesses": (1, 64),
    "uwsgiThreads": (1, 256),
    "memory": (32, 1048576),
    "nginxMemory": (32, 1048576),
}
ON_ONE_HOST = {**RANGES, "replicas": (1, 100)}
IMAGES = ["appImageName", "nginxImageName", "exporterImageName", "pythonImage", "nginxImage"]

# Key, value, and what the message must say of what is accepted.
BAD = [
    *((key, str(low - 1), f"greater than or equal to {low}") for key, (low, _) in RANGES.items()),
    *((key, str(high + 1), f"less than or equal to {high}") for key, (_, high) in RANGES.items()),
    *((key, value, "valid integer") for key in RANGES for value in ("", "two", "1.5", "1e2", "0x10", "true", "[1]")),
    *(
        ("publishAddress", value, "IP address")
        for value in ("", "localhost", "256.0.0.1", "127.0.0.1:80", "*", "1.2.3", "http://127.0.0.1", "[::1]")
    ),
    *(("publish", value, "'port' or 'host'") for value in ("", "Host", "both", "1")),
    *(("orchestrator", value, "'containers' or 'swarm'") for value in ("", "Swarm", "kubernetes")),
    *(
        ("registry", value, "match pattern")
        for value in ("https://a", "A.example", "a/", "a//b", "a/-b", ".", "-", "a:0", "a b", "a/b:5", "a@b", "a\n")
    ),
    ("registry", "a" * 201, "at most 200 characters"),
    ("swarm", '{"publish": "both"}', "'host' or 'mesh'"),
    *(
        ("swarm", json.dumps({key: label}), "match pattern")
        for key in ("nginxNodes", "appNodes")
        for label in ("edge", "edge=", "=true", "edge==true", "a=b=c", "a b=c", "a=b\n")
    ),
    *(
        ("swarm", json.dumps({"subnet": text}), "should be an IPv4 network, such as 10.20.0.0/20")
        for text in ("10.20", "10.20.0.1/20", "10.0.0.0/33", "fd00::/64")
    ),
    *(
        ("swarm", json.dumps({key: value}), reason)
        for key, highest in (("reservedMemory", 1048576), ("reservedCpus", 512))
        for value, reason in ((-1, "greater than or equal to 0"), (highest + 1, f"less than or equal to {highest}"))
    ),
    ("swarm", '{"reservedCpus": 0.125}', "no more than 2 decimal places"),
    *(
        ("platform", value, "'linux/amd64' or 'linux/arm64'")
        for value in ("", "arm64", "linux/aarch64", "windows/amd64")
    ),
    *(("appImage", value, "match pattern") for value in ("app:1", "sha256:12", "latest")),
    *((key, "maybe", "valid boolean") for key in ("liveReload", "compression", "securityHeaders", "accessLog")),
    *(
        (key, value, "valid dictionary or instance")
        for key in (
            "tls",
            "cache",
            "basicAuth",
            "authRequest",
            "balancing",
            "canary",
            "maintenance",
            "metrics",
            "swarm",
        )
        for value in ("", "on", "[]", "1")
    ),
    *((key, value, "valid dictionary") for key in ("paths", "static", "headers") for value in ("", "[]", "on")),
    ("errorPages", "no-such-folder", "should be a folder"),
    ("errorPages", "/tmp", "relative to the project"),
    ("errorPages", "app", "which is no page; known are 413.html"),
    *(
        ("static", json.dumps({"/static": folder}), "should be a folder inside the app's")
        for folder in ("", ".", "..", "/etc", "../nginx", "static/../..", "a\\b", "a\nb", "a\0b")
    ),
    ("static", '{"/static": 1}', "valid string"),
    ("static", '{"static": "static"}', "match pattern"),
    ("static", '{"/a": "a", "/a/": "b"}', "once"),
    ("tls", '{"port": 0}', "greater than or equal to 1"),
    ("tls", '{"minVersion": "1.1"}', "'1.2' or '1.3'"),
    *(("tls", json.dumps({"hosts": [host]}), "the name of a host") for host in ("", "a b", "https://a", "a:443")),
    ("cache", '{"size": 0}', "greater than or equal to 1"),
    ("headers", '{"X Y": "1"}', "'X Y' is no header's name"),
    ("headers", '{"Content-Length": "1"}', "the header Content-Length is of one answer"),
    ("headers", '{"Connection": "close"}', "the header Connection is of one connection"),
    ("headers", '{"X-Team": "a\\nb"}', "the value of X-Team should have printable ASCII characters alone"),
    ("headers", '{"X-Team": "1", "x-team": "2"}', "a header once"),
    ("paths", '{"/a": {"auth": "pam"}}', "'none', 'basic' or 'request'"),
    ("paths", '{"/a": {"methods": ["get"]}}', "'GET'"),
    ("paths", '{"/a": {"allow": ["localhost"]}}', "is neither an address nor a network"),
    ("paths", '{"/a": {"deny": ["::ffff:10.0.0.0/104"]}}', "IPv4 one that it has inside"),
    *(
        ("paths", json.dumps({"/a": {key: value}}), reason)
        for key in ("requestsPerSecond", "burst", "connections")
        for value, reason in ((-1, "greater than or equal to 0"), (100001, "less than or equal to 100000"))
    ),
    *(("basicAuth", json.dumps({"realm": realm}), "match pattern") for realm in ("", 'a"b', "a\nb", "$realm", "ä")),
    ("basicAuth", '{"realm": "off"}', "turns the question off"),
    ("basicAuth", '{"users": {"a:b": "long enough"}}', "is no user's name"),
    ("basicAuth", '{"users": {"eve": 1234567}}', "less than 8 characters"),
    ("basicAuth", '{"users": {"eve": ["long enough"]}}', "valid string"),
    *(
        ("authRequest", json.dumps({key: value}), "match pattern")
        for key in ("endpoint", "signIn")
        for value in ("check", "/a b", "/a;", "/$a", "/a#b", '/"', "ftp://a.example", "http://", "http://a b/", "/a\\b")
    ),
    *(("authRequest", json.dumps({"userHeader": name}), "match pattern") for name in ("", "Host", "X_User", "Cookie")),
    ("authRequest", '{"userHeader": "X-Forwarded-For"}', "says nothing else"),
    *(
        ("authRequest", json.dumps({key: f"{server}{path}"}), words)
        for key in ("endpoint", "signIn")
        for path in ("", "/check")
        for server, words in (
            ("http://auth:99999", "port should be from 1 to 65535, and is 99999"),
            ("http://auth:0", "port should be from 1 to 65535, and is 0"),
            ("http://[:::]", "an address after ://"),
            ("http://[10.1.2.3]", "an address after ://"),
            ("http://10.1.2", "an address after ://"),
            ("http://..", "the name of a host"),
            ("http://auth/" + "a" * 1000, "at most 1000 characters"),
        )
    ),
    *(
        ("paths", json.dumps({path: {}}), "match pattern")
        for path in ("", "a", "/a b", "/a{", "/a;", "/$a", "//", "/%41")
    ),
    ("paths", '{"/a": {}, "/a/": {}}', "once"),
    ("balancing", '{"method": "random"}', "'roundRobin'"),
    ("canary", '{"share": 101}', "less than or equal to 100"),
    ("canary", '{"assign": "user"}', "'request' or 'client'"),
    ("canary", '{"header": "X Canary"}', "match pattern"),
    *(("canary", json.dumps({"header": name}), "says nothing else") for name in ("X-Request-ID", "X-Forwarded-For")),
    ("canary", '{"appFolder": "no-such-folder"}', "its appFolder should be a folder"),
    ("canary", '{"appFolder": "/srv/app"}', "its appFolder should be relative"),
    ("canary", '{"appFolder": "nginx"}', "requirements.txt"),
    ("balancing", '{"weights": {"uwsgi-1": 0}}', "greater than or equal to 1"),
    ("balancing", '{"drain": "uwsgi-1"}', "valid tuple"),
    ("metrics", '{"port": 65536}', "less than or equal to 65535"),
    ("maintenance", '{"allow": ["me"]}', "is neither an address nor a network"),
    ("static", '{"/a": "\\ud800"}', "should be a folder inside"),
    ("authRequest", json.dumps({"userHeader": "X-" + "a" * 39}), "at most 40 characters"),
    ("appFolder", "/srv/app", "relative to the project"),
    ("appFolder", "no-such-folder", "should be a folder"),
    ("appFolder", "__main__.py", "should be a folder"),
    ("appFolder", "nginx", "requirements.txt"),
    ("appFolder", "", "requirements.txt"),  # an empty path is the project itself, which would be a surprise
    ("appFolder", "a" * 5000, "should be a folder"),
    ("appFolder", "a\0b", "should be a folder"),
    *(
        ("appModule", value, "match pattern")
        for value in ("", "web-app", "webapp.py.", ".webapp", "1app", "a b", "a;b", "a\n", "webapp:app")
    ),
    *(("appCallable", value, "match pattern") for value in ("", "a.b", "app()", "1", "a b", "app\n")),
    *(("importCheck", value, "valid boolean") for value in ("", "maybe", "2", "[]")),
    *(
        ("environment", value, "valid dictionary")
        for value in ("", "A=1", "[]", '["A"]', '"A"', "1", "null", "{", "[" * 100_000, "1" * 5000)
    ),
    ("environment", '{"1A": "x"}', "is no name of a variable"),
    ("environment", '{"A-B": "x"}', "is no name of a variable"),
    ("environment", '{"": "x"}', "is no name of a variable"),
    ("environment", '{"A=B": "x"}', "is no name of a variable"),
    ("environment", '{"A\\n": "x"}', "is no name of a variable"),
    ("environment", '{"A": "x\\u0000y"}', "NUL"),
    *(("environment", json.dumps({name: "x"}), "is set by the stack itself") for name in RESERVED_VARIABLES),
    *(
        ("healthPath", value, "match pattern")
        for value in ("", "health", "/a b", "/a?b=c", "/a#b", "/ä", "/a\n", '/"', "/{a}", "/a\\b")
    ),
    ("healthPath", "/" + "a" * 255, "at most 255 characters"),
    *(
        ("trustedProxies", value, "valid tuple")
        for value in ("", "10.0.0.1", '"10.0.0.1"', "1", "null", "[", "[" * 100_000)
    ),
    *(
        ("trustedProxies", json.dumps([text]), f"{text!r} is neither an address nor a network")
        for text in ("", "localhost", "*", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1:80", "10.0.0", "10.0.0.1;", "[::1]")
    ),
    *(("trustedProxies", json.dumps([text]), f"{text!r} is everybody") for text in ("0.0.0.0/0", "::/0")),
    ("trustedProxies", '["10.0.0.1", "fe80::1%eth0"]', "has a zone"),
    ("trustedProxies", json.dumps(["10.0.0.1"] * 101), "at most 100 items"),
    ("cpus", "-1", "greater than or equal to 0"),
    ("cpus", "513", "less than or equal to 512"),
    ("cpus", "0.125", "no more than 2 decimal places"),
    *(("cpus", value, "decimal") for value in ("", "two", "1,5", "50%")),
    *(("cpus", value, "finite") for value in ("NaN", "Infinity")),
    *(
        (key, value, "match pattern")
        for key in IMAGES
        for value in ("", "Upper/case", "a b", "-a", "a/", "a:", "https://a", "a\n", "a;b", "$(a)")
    ),
    *((key, "a" * 256, "at most 255 characters") for key in IMAGES),
    *((key, value, "no tag") for key in IMAGES[:2] for value in ("a/b:latest", "a@sha256:0", "host:5000/a:1")),
]


def refusal(values: dict[str, str], secret: set[str] | frozenset[str] = frozenset()) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.parse(values, secret)
    return str(refused.value)


def by_key(parsed: Settings) -> dict[str, Any]:
    return {key: getattr(parsed, name) for key, name in keys().items()}


def test_nothing_set_means_the_defaults() -> None:
    assert by_key(Settings.parse({})) == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value", "parsed"),
    [
        *((key, str(limit), limit) for key, limits in ON_ONE_HOST.items() for limit in limits),
        ("publishAddress", "0.0.0.0", "0.0.0.0"),
        ("publishAddress", "::", "::"),
        ("publishAddress", "FD00:0::1", "fd00::1"),
        ("appFolder", "./app/", "app"),
        ("appModule", "package.module_2", "package.module_2"),
        ("appCallable", "application", "application"),
        ("importCheck", "false", False),
        ("importCheck", "true", True),
        ("environment", "{}", {}),
        ("environment", '{"A": "x", "_b2": ""}', {"A": "x", "_b2": ""}),
        ("environment", '{"A": 1, "B": true, "C": false, "D": 1.5}', {"A": "1", "B": "true", "C": "false", "D": "1.5"}),
        ("environment", '{"A": "two\\nlines = \\u00e4"}', {"A": "two\nlines = ä"}),
        ("healthPath", "/", "/"),
        ("healthPath", "/a/%20/b.c-d_e~f", "/a/%20/b.c-d_e~f"),
        ("trustedProxies", "[]", ()),
        ("trustedProxies", '["10.1.2.3", "fd00::/8"]', ("10.1.2.3/32", "fd00::/8")),
        ("trustedProxies", '["10.0.0.0/255.0.0.0", "FD00:0::/8", "10.0.0.0/8"]', ("10.0.0.0/8", "fd00::/8")),
        ("cpus", "1.50", Decimal("1.5")),
        ("cpus", "512", Decimal(512)),
        ("appImageName", "registry.example:5000/team/app", "registry.example:5000/team/app"),
        ("pythonImage", "python:3.13-slim@sha256:" + "0" * 64, "python:3.13-slim@sha256:" + "0" * 64),
        ("nginxImage", "registry.example/nginx:1.31-Alpine", "registry.example/nginx:1.31-Alpine"),
    ],
)
def test_a_good_value_is_taken(key: str, value: str, parsed: object) -> None:
    assert by_key(Settings.parse({key: value})) == {**DEFAULTS, key: parsed}


def test_every_key_has_bad_values_here() -> None:
    assert {key for key, _, _ in BAD} == set(keys())


@pytest.mark.parametrize(("key", "value", "accepted"), BAD, ids=lambda text: ascii(text)[1:25])
def test_a_bad_value_is_refused_with_key_value_and_what_is_accepted(key: str, value: str, accepted: str) -> None:
    message = refusal({key: value})
    first, *problems = message.splitlines()
    assert first == "The configuration is refused, nothing was changed:"
    assert len(problems) == 1
    place, _, reason = problems[0].partition(" is not accepted: ")
    assert place.startswith((f"  {key}: ", f"  {key}."))
    assert accepted in reason
    if place.startswith(f"  {key}: "):
        structured = isinstance(DEFAULTS[key], BaseModel | dict | tuple)
        given = repr(json.loads(value)) if structured and is_json(value) else repr(value)
        given = given if Settings.model_fields[keys()[key]].repr else "[secret]"
        assert place.startswith(f"  {key}: {given[:MAX_SHOWN]}")
        assert problems[0].endswith(str(Settings.model_fields[keys()[key]].description))


@pytest.mark.parametrize("value", [None, {"B": "x"}, ["x"]])
def test_a_variable_that_is_no_text_is_refused_by_its_own_name(value: object) -> None:
    message = refusal({"environment": json.dumps({"A": value})})
    assert "  environment.A: [secret] is not accepted: input should be a valid string." in message


@pytest.mark.parametrize("value", [None, 1, {"A": "x"}, ["10.0.0.1"]])
def test_a_proxy_that_is_no_text_is_refused_by_its_own_place(value: object) -> None:
    assert f"  trustedProxies.1: {value!r} is not accepted: input should be a valid string." in refusal(
        {"trustedProxies": json.dumps(["10.0.0.1", value])}
    )


def test_all_problems_are_told_at_once() -> None:
    problems = refusal({"replicas": "0", "port": "x", "colour": "red"}).splitlines()[1:]
    assert sorted(problem.split(":")[0].strip() for problem in problems) == ["colour", "port", "replicas"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("replica", "replicas"),
        ("Replicas", "replicas"),
        ("healthpath", "healthPath"),
        ("health_timeout", "healthTimeout"),
        ("app_folder", "appFolder"),
        ("uwsgiProcess", "uwsgiProcesses"),
        ("enviroment", "environment"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key: str, meant: str) -> None:
    assert f"  {key}: there is no such setting; did you mean {meant}?" in refusal({key: "1"})


def test_an_unknown_key_inside_another_is_refused_with_the_one_that_was_meant() -> None:
    message = refusal({"paths": json.dumps({"/a": {"method": ["GET"]}}), "tls": json.dumps({"hsst": 1})})
    assert "  paths./a.method: there is no such setting; did you mean methods?" in message
    assert "  tls.hsst: there is no such setting; did you mean hsts?" in message


def test_passwords_in_clear_are_refused_where_they_are_no_secret_and_are_not_repeated() -> None:
    hashed = "$2y$05$VjnFmPMHgSdVC.KfMnhfI.JQ4zH1jZ/OTatYS35C6KMCup/tCeVJe"
    values = {"basicAuth": json.dumps({"users": {"bob": hashed, "eve@shop.example": SECRET}})}
    message = refusal(values)
    assert "basicAuth.users.eve@shop.example" in message
    assert "pulumi config set --secret --path 'basicAuth.users[\"eve@shop.example\"]'" in message
    assert "htpasswd -nB eve@shop.example" in message
    assert SECRET not in message
    assert Settings.parse(values, {"basicAuth"}).basic_auth.users["eve@shop.example"] == SECRET
    assert Settings.parse({"basicAuth": json.dumps({"users": {"bob": hashed}})}).basic_auth.users == {"bob": hashed}


@pytest.mark.parametrize(
    "users", [{"a:b": SECRET}, {"eve": [SECRET]}, {"eve": SECRET, "bob": "short"}, [SECRET], SECRET]
)
def test_a_refusal_of_users_repeats_no_password_even_if_it_is_no_secret(users: object) -> None:
    message = refusal({"basicAuth": json.dumps({"users": users})})
    assert "basicAuth.users" in message
    assert SECRET not in message


def test_a_password_of_digits_is_text() -> None:
    users = Settings.parse({"basicAuth": '{"users": {"eve": 1234567890}}'}, {"basicAuth"}).basic_auth.users
    assert users == {"eve": "1234567890"}


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"auth": "basic"}, "paths./admin.auth is basic, but basicAuth.users has nobody"),
        ({"auth": "request"}, "paths./admin.auth is request, but there is no authRequest.endpoint"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(rules: dict[str, Any], reason: str) -> None:
    assert f"  {reason}" in refusal({"paths": json.dumps({"/admin": rules})})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"publish": "host"}, "publish is set, and orchestrator is swarm: swarm.publish says how"),
        ({"liveReload": "true"}, "liveReload is set, and orchestrator is swarm: a node has no folder of this machine"),
        (
            {"static": '{"/static": "static"}', "appImage": PINNED},
            "static is set, and orchestrator is swarm: NGINX and the replicas are on",
        ),
        ({"balancing": '{"weights": {"uwsgi-1": 2}}'}, "balancing.weights is set, and orchestrator is swarm: its"),
        (
            {"balancing": '{"drain": ["uwsgi-1", "uwsgi-2"]}'},
            "balancing.drain is set, and orchestrator is swarm: its replicas come and go. `docker node update --avail",
        ),
        (
            {"canary": '{"share": 0}', "appImage": PINNED},
            "canary.share is set, and orchestrator is swarm: a",
        ),
        ({"metrics": '{"enabled": true}'}, "metrics.enabled is set, and orchestrator is swarm: the exporter reads"),
        (
            {"publishAddress": "127.0.0.1"},
            "publishAddress is 127.0.0.1, and orchestrator is swarm: nodes answer on all",
        ),
        ({"registry": ""}, "orchestrator is swarm, and there is no registry: the nodes pull their images from one"),
        ({"appImage": "sha256:" + "0" * 64}, "appImage should be name@sha256:…, as orchestrator is swarm"),
        ({"appImageName": "a.example/b"}, "appImageName is a.example/b, which begins with a registry"),
        ({"nginxImageName": "a:5000/b"}, "nginxImageName is a:5000/b, which begins with a registry"),
        ({"nginxImageName": "localhost/b"}, "nginxImageName is localhost/b, which begins with a registry"),
        ({"swarm": '{"subnet": "10.20.0.0/27"}'}, "swarm.subnet is 10.20.0.0/27, with 32 addresses: two releases of 2"),
        (
            {"swarm": '{"subnet": "10.20.0.0/22"}', "replicas": "1000"},
            "swarm.subnet is 10.20.0.0/22, with 1024 addresses: two releases of 1000 replicas and NGINX on each node",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_a_swarm_does_not_do_is_refused_with_the_reason(changed: dict[str, str], words: str) -> None:
    assert refusal({**SWARM, **changed}).startswith(f"The configuration is refused, nothing was changed:\n  {words}")


@pytest.mark.parametrize(
    "changed",
    [
        {"replicas": "1000"},
        {"replicas": "1000", "swarm": '{"subnet": "10.20.0.0/21"}'},
        {"swarm": '{"subnet": "10.20.0.0/26"}'},
        {"publishAddress": "::"},
        {"port": "80"},
        {"registry": "localhost:5000"},
        {"registry": "registry.example:5000/team-a/b_c"},
        {"appImage": PINNED},
        {"swarm": '{"nginxNodes": "edge=true", "appNodes": "zone=b.1", "publish": "mesh"}'},
        {"swarm": '{"reservedMemory": 64, "reservedCpus": "0.25"}'},
        {"balancing": '{"method": "sticky"}'},
    ],
    ids=lambda value: " ".join(value),
)
def test_what_a_swarm_does_is_taken(changed: dict[str, str]) -> None:
    assert Settings.parse({**SWARM, **changed}).orchestrator == "swarm"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"replicas": "101"}, "replicas is 101, and orchestrator is containers: one host takes up to 100"),
        ({"appImage": PINNED}, "appImage should be sha256:…, without a name"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_takes_a_swarm_is_refused_on_one_host(changed: dict[str, str], words: str) -> None:
    assert f"\n  {words}" in refusal(changed)


@pytest.mark.parametrize(("length", "taken"), [(27, True), (28, False)])
def test_a_stack_whose_name_would_make_names_too_long_for_docker_is_refused(length: int, taken: bool) -> None:
    stack = "s" * length
    if taken:
        files = run(SWARM, stack=stack).of_type(":ServiceConfig")
        assert max(len(physical_name(name, stack)) for name in files) == LONGEST_NAME
    else:
        with pytest.raises(SettingsError, match=r"the stack's name is s+: there it may have 27 characters"):
            run(SWARM, stack=stack)
        run(stack=stack)


@pytest.mark.parametrize("stack", ["a.b", "a-", "_a"])
def test_a_stack_whose_name_would_make_names_that_are_none_in_dns_is_refused(stack: str) -> None:
    with pytest.raises(SettingsError, match=f"the stack's name is {re.escape(stack)}: there it may have"):
        run(SWARM, stack=stack)
    run(stack=stack)


def test_the_header_of_the_canary_is_not_the_one_that_names_the_user() -> None:
    message = refusal({"canary": '{"header": "X-User"}', "authRequest": '{"userHeader": "X-USER"}'})
    assert "  canary.header is X-User, as authRequest.userHeader is: it needs another" in message


def test_a_key_like_no_other_is_refused_with_all_that_are_known() -> None:
    message = refusal({"zzz": "1"})
    assert "  zzz: there is no such setting; known are " in message
    assert [key for key in keys() if key not in message] == []


@pytest.mark.parametrize("key", [*keys(), "replica", "zzz"])
def test_a_secret_value_never_appears_in_a_message(key: str) -> None:
    message = refusal({key: f"\0 {SECRET}"}, secret={key})
    assert SECRET not in message
    assert key in message


@pytest.mark.parametrize(
    "values",
    [
        {"A": SECRET, "1A": "x"},
        {"A": [SECRET]},
        {"A": {"B": SECRET}},
        {"A": SECRET + "\0"},
        {"UWSGI_APP": SECRET},
        [SECRET],
    ],
)
def test_a_secret_inside_the_environment_never_appears_in_a_message(values: object) -> None:
    message = refusal({"environment": json.dumps(values)}, secret={"environment"})
    assert SECRET not in message
    assert "[secret]" in message


@pytest.mark.parametrize(
    "values", [SECRET, json.dumps([SECRET]), json.dumps({"A": [SECRET]}), json.dumps({f"A={SECRET}": "x"})]
)
def test_a_refused_environment_is_not_repeated_even_if_it_is_no_secret(values: str) -> None:
    assert SECRET not in refusal({"environment": values})


@pytest.mark.parametrize(
    "values",
    [
        {"static": {"/a": f"../{SECRET}"}},
        {"static": {"/a": f"../{SECRET}\n'"}},
        {"static": {"/a": SECRET}},  # no such folder
        {"trustedProxies": [SECRET]},
        {"headers": {"X-A": SECRET, "Date": SECRET}},
        {"authRequest": {"endpoint": f"http://{SECRET}:99999"}},
        {"authRequest": {"signIn": f"/{SECRET}"}, "paths": {"/": {"auth": "request"}}},
    ],
)
def test_a_reason_does_not_repeat_what_is_secret(values: dict[str, Any]) -> None:
    texts = {key: json.dumps(value) for key, value in values.items()}
    assert SECRET not in refusal(texts, secret=set(values))


def test_a_refused_setting_does_not_show_the_secrets_beside_it() -> None:
    message = refusal({"environment": json.dumps({"A": SECRET}), "replicas": "0"}, secret={"environment"})
    assert SECRET not in message
    assert "replicas" in message


def test_a_refusal_is_one_that_pulumi_reports_without_traceback() -> None:
    assert issubclass(SettingsError, pulumi.RunError)


def test_settings_know_which_of_them_are_secret() -> None:
    parsed = Settings.parse({"environment": '{"A": "x"}', "port": "81"}, secret={"environment"})
    assert (parsed.is_secret("environment"), parsed.is_secret("port")) == (True, False)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.parse({}).replicas = 3


def test_two_settings_share_no_environment() -> None:
    Settings.parse({}).environment["A"] = "x"
    assert Settings.parse({}).environment == {}


def load(monkeypatch: pytest.MonkeyPatch, config: dict[str, str]) -> Settings:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(pulumi, "get_project", lambda: "uwsgi-nginx")
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", "[]")
    return Settings.load()


@pytest.mark.parametrize("key", ["context", "sshOpts", "caMaterial", "certMaterial", "keyMaterial"])
def test_what_only_the_plugin_would_follow_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"docker:{key}: .*Set docker:host|docker:{key}: .*Write ") as refused:
        load(monkeypatch, {f"docker:{key}": "-----BEGIN"})
    assert "-----BEGIN" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "address", "remote"),
    [
        ("", "127.0.0.1", False),
        ("unix:///run/other.sock", "127.0.0.1", False),
        ("tcp://localhost:2375", "localhost", False),
        ("tcp://10.1.2.3:2376", "10.1.2.3", True),
        ("ssh://root@lab", "lab", True),
        ("ssh://root@127.0.0.1:2222", "127.0.0.1", True),
    ],
)
def test_live_reload_takes_a_docker_host_that_is_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str, remote: bool
) -> None:
    settings = load(monkeypatch, {"docker:host": host})
    assert (settings.docker_address, settings.docker_is_remote) == (address, remote)
    reloading = {"docker:host": host, "uwsgi-nginx:liveReload": "true"}
    if remote:
        with pytest.raises(SettingsError, match=f"liveReload is true, and the Docker host is {address}"):
            load(monkeypatch, reloading)
    else:
        assert load(monkeypatch, reloading).live_reload


def test_the_environments_docker_host_counts_where_the_stack_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, {})
    monkeypatch.setenv("DOCKER_HOST", "ssh://lab")
    assert Settings.load().docker_address == "lab"


def test_the_stacks_configuration_is_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"uwsgi-nginx:replicas": "7", "docker:host": "ssh://elsewhere", "other:replicas": "9"}
    monkeypatch.setattr(pulumi, "get_project", lambda: "uwsgi-nginx")
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(["uwsgi-nginx:replicas"]))
    loaded = Settings.load()
    assert by_key(loaded) == {**DEFAULTS, "replicas": 7}
    assert loaded.is_secret("replicas")


# Pulumi.yaml


@pytest.mark.parametrize(
    ("file", "written"), [(reference.PULUMI, reference.pulumi_yaml), (reference.PAGE, reference.page)]
)
def test_the_files_that_repeat_the_settings_are_as_make_reference_writes_them(
    file: str, written: Callable[[str], str]
) -> None:
    text = Path(file).read_text()
    assert written(text) == text, "run `make reference`"


def test_pulumi_yaml_declares_the_same_settings() -> None:
    types = {int: "integer", bool: "boolean", dict: "object", tuple: "array"}

    def plain(default: object) -> object:
        if isinstance(default, Decimal):
            return str(default)
        return {} if isinstance(default, BaseModel) else [] if default == () else default

    schema = {
        key.removeprefix("uwsgi-nginx:"): {**entry, "description": " ".join(entry["description"].split())}
        for key, entry in yaml.safe_load(Path("Pulumi.yaml").read_text())["config"].items()
        if not key.startswith("pulumi:")
    }
    assert schema == {
        key: {
            "type": "object" if isinstance(default, BaseModel) else types.get(type(default), "string"),
            "default": plain(default),
            **({"items": {"type": "string"}} if isinstance(default, tuple) else {}),
            "description": " ".join(str(Settings.model_fields[keys()[key]].description).split()),
        }
        for key, default in DEFAULTS.items()
    }


def test_the_stack_that_comes_with_the_project_is_accepted() -> None:
    config = yaml.safe_load(Path("Pulumi.dev.yaml").read_text())["config"]
    ours = {key.removeprefix("uwsgi-nginx:"): value for key, value in config.items() if key.startswith("uwsgi-nginx:")}
    assert Settings.parse({key: v if isinstance(v, str) else json.dumps(v) for key, v in ours.items()}).replicas == 2


# Anything at all

anything = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.decimals().map(str),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps),
    st.sampled_from(["swarm", *(value for _, value, _ in BAD if len(value) < 5000)]),
)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.sampled_from(sorted(keys())) | st.text(max_size=12), anything, max_size=4), st.booleans())
def test_whatever_is_set_gives_settings_or_a_refusal_that_names_a_key(values: dict[str, str], secret: bool) -> None:
    try:
        parsed = Settings.parse(values, frozenset(values) if secret else frozenset())
    except SettingsError as error:
        refused: str | None = str(error)
    else:
        refused = None
        assert set(values) <= set(keys())
        assert 1 <= parsed.replicas <= (100 if parsed.orchestrator == "containers" else 1000)
        assert all(isinstance(text, str) for pair in parsed.environment.items() for text in pair)
    assert refused is None or any(f"\n  {key}" in refused or f" {key} is " in refused for key in values)


def is_json(value: str) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True
