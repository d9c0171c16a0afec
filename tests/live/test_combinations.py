"""Every pair of features together, each combination read by the real NGINX."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from allpairspy import AllPairs  # type: ignore[import-untyped]

from infra import nginx_config
from infra.gate import Gate, Replica, Rollout
from infra.load_balancer import endpoints
from infra.nginx_config import Upstream
from infra.refusal import Refused
from infra.settings import Settings
from tests.live.stack import Stack
from tests.unit.certificates import self_signed

OFF: dict[str, Any] = {}
USERS = {"users": {"eve": "correct horse battery"}}
RULES: dict[str, list[dict[str, Any]]] = {
    "cache": [OFF, {"cache": 5}, {"cache": 5, "cacheWithCookies": True}],
    "auth": [OFF, {"auth": "basic"}, {"auth": "request"}],
    "addresses": [OFF, {"allow": ["10.0.0.0/8", "fd00::/8"]}, {"deny": ["192.0.2.7"]}],
    "methods": [OFF, {"methods": ["GET", "POST"]}],
    "rate": [OFF, {"requestsPerSecond": 5}, {"requestsPerSecond": 5, "burst": 0}],
    "connections": [OFF, {"connections": 5}],
    "sizes": [OFF, {"maxBodySize": 1, "requestTimeout": 3600}],
    "streaming": [OFF, {"streaming": True}],
}
SITE: dict[str, list[dict[str, Any]]] = {
    "tls": [OFF, {"tls": {}}, {"tls": {"redirect": False, "minVersion": "1.3", "hsts": 60, "hstsSubdomains": True}}],
    "publish": [OFF, {"publish": "host"}],
    "proxies": [OFF, {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]}],
    "balancing": [
        OFF,
        {"balancing": {"method": "leastConnections", "weights": {"uwsgi-1": 3}}},
        {"balancing": {"method": "clientAddress"}},
        {"balancing": {"method": "sticky", "weights": {"uwsgi-2": 2}}},
    ],
    "canary": [
        OFF,
        {"canary": {"share": 0}, "appImage": f"sha256:{'0' * 64}"},
        {"canary": {"share": 33, "assign": "client"}, "appImage": f"sha256:{'0' * 64}"},
        {"canary": {"share": 100}, "appImage": f"sha256:{'0' * 64}"},
    ],
    "static": [OFF, {"static": {"/static": "static"}}, {"static": {"/below/files": "static"}}],
    "stale": [OFF, {"cacheGroup": {"stale": False, "size": 1}}],
    "compression": [OFF, {"compression": True}],
    "headers": [OFF, {"securityHeaders": True}, {"headers": {"X-Team": "a \"b\" 'c' {d}; $host \\ #"}}],
    "maintenance": [OFF, {"maintenance": {"enabled": True, "allow": ["192.0.2.1"]}}],
    "log": [OFF, {"accessLog": False}],
    "metrics": [OFF, {"metrics": {"enabled": True}}],
    "endpoint": [
        {"authRequest": {"endpoint": "/auth?x=1"}},
        {"authRequest": {"endpoint": "http://127.0.0.1:9/check", "signIn": "https://login.example/?a=b"}},
    ],
    "at": [{"at": "/"}, {"at": "/below"}, {"at": "/other.path"}],
}


def combinations() -> Iterator[dict[str, Any]]:
    """Configurations in which each value of each feature meets each value of each other one."""
    names = [*SITE, *RULES]
    for row in AllPairs([*SITE.values(), *RULES.values()], filter_func=go_together):
        chosen = dict(zip(names, row, strict=True))
        site = {key: value for name in SITE for key, value in chosen[name].items()}
        site = {"cache" if key == "cacheGroup" else key: value for key, value in site.items()}
        rules = {key: value for name in RULES for key, value in chosen[name].items()}
        path = site.pop("at")
        yield {**site, "basicAuth": USERS, "paths": {path: rules}}


def go_together(row: list[dict[str, Any]]) -> bool:
    """What the settings refuse together is no combination: a cached path is open to all, and answers in one piece."""
    rules = {key: value for chosen in row for key, value in chosen.items()}
    return not (isinstance(rules.get("cache"), int) and (rules.get("auth") or rules.get("streaming")))


@pytest.fixture(scope="module")
def nginx(stack: Stack) -> Stack:
    (stack.folder / "app" / "static").mkdir()
    (stack.folder / "app" / "static" / "file.txt").write_text("file")
    stack.configure(replicas="1")
    stack.up()
    return stack


def test_every_pair_of_features_passes_the_real_nginx(nginx: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nginx.folder)
    certificate, key = self_signed("localhost")
    checked = Gate(nginx.docker)
    container = nginx.nginx
    count = 0
    for configuration in combinations():
        if "tls" in configuration:
            configuration["tls"] = {**configuration["tls"], "certificate": certificate, "key": key}
        encoded = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in configuration.items()
        }
        settings = Settings.parse(encoded, secret={"tls", "basicAuth"})
        replicas = [Replica(f"uwsgi-{n}", "", f"/run/uwsgi/uwsgi-{n}-a.sock") for n in (1, 2)]
        canary = [Replica("uwsgi-canary-1", "", "/run/uwsgi/uwsgi-canary-1-b.sock")]
        sets = [replicas, canary] if settings.canary.share is not None else [replicas]
        upstreams = [[Upstream(replica.name, replica.socket) for replica in members] for members in sets]
        rollout = Rollout(
            nginx=str(container.id),
            replicas=[replica for members in sets for replica in members],
            configuration=nginx_config.render(
                *upstreams, site=settings, release="0123abcd", canary_release="89abcdef" if len(sets) > 1 else ""
            ),
            files=nginx_config.live_files(settings, endpoints(settings)),
            secrets=nginx_config.secret_files(settings),
            probe_files=nginx_config.probe_files([one for members in upstreams for one in members]),
            health_path="/health",
            health_timeout=1,
            drain_timeout=1,
        )
        path = checked._put(container, rollout, before="")
        try:
            checked._test(container, path)
        except Refused as refused:
            raise AssertionError(f"{json.dumps(configuration, indent=1)}\n{refused}") from refused
        nginx.run_in(container, f"rm -rf {path}")
        count += 1
    assert count > 12, "all pairs take some dozen combinations"
