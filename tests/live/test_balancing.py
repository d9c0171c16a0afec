"""How requests are shared among the replicas, each method in turn on the running stack, changed under load."""

import http.client
import re
from collections import Counter
from http.cookies import Morsel, SimpleCookie
from threading import Thread
from typing import cast

import pytest

from infra import nginx_config
from infra.gate import Gate, Rollout
from infra.nginx_config import Endpoints, Upstream
from infra.settings import MAX_REPLICAS
from infra.site import Site
from tests.live.load import Load
from tests.live.stack import Stack, eventually
from tests.live.test_canary import configure, write_release

# Of documentation: https://www.rfc-editor.org/rfc/rfc5737, https://www.rfc-editor.org/rfc/rfc3849
ADDRESSES = [f"203.0.113.{number}" for number in range(1, 31)] + [f"2001:db8::{number:x}" for number in range(1, 31)]
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")  # what Docker takes for its networks


@pytest.fixture(scope="module")
def weighted(stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """The stack, up with two replicas, one of which counts for three."""
    configure(stack, **{"balancing__weights__uwsgi-1": 3})
    return cast(Stack, request.getfixturevalue("running"))


def up(stack: Stack, **settings: str | int) -> None:
    """`up` under load, which drops nothing."""
    configure(stack, **settings)
    with Load(stack.port, keep_alive=0, slow=1) as load:
        stack.up()
    load.assert_nothing_was_dropped(at_least=200)


def ask(stack: Stack, cookie: str = "") -> tuple[str, Morsel[str] | None]:
    """Who answers, and the cookie that comes with it."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=15)
    connection.request("GET", "/", headers={"Cookie": f"uwsgi_replica={cookie}"} if cookie else {})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    assert response.status == 200, body
    return body.split()[1], SimpleCookie(response.headers["Set-Cookie"]).get("uwsgi_replica")


def by_address(stack: Stack) -> dict[str, set[str]]:
    """Who answers each address, of two requests."""
    return {
        address: {stack.get(headers={"X-Forwarded-For": address}).split()[1] for _ in range(2)} for address in ADDRESSES
    }


def test_a_replica_with_three_times_the_weight_gets_three_times_the_requests(weighted: Stack) -> None:
    assert Counter(weighted.answering(80)) == {"uwsgi-1": 60, "uwsgi-2": 20}


def test_who_is_busy_gets_no_request_by_least_connections(running: Stack) -> None:
    up(running, balancing__method="leastConnections", **{"balancing__weights__uwsgi-1": 1})
    bodies: list[str] = []
    slow = Thread(target=lambda: bodies.append(running.get("/slow?seconds=4")))
    slow.start()
    # A round robin would never answer twice in a row from the same one.
    free = eventually(
        lambda: found if len(found := set(running.answering(4))) == 1 else None, 4, "all others go to who is free"
    )
    slow.join()
    (busy,) = {body.split()[1] for body in bodies}
    assert free == {"uwsgi-1", "uwsgi-2"} - {busy}


def test_a_client_is_answered_by_the_same_replica_by_its_address(running: Stack) -> None:
    proxies: dict[str, str | int] = {f"trustedProxies[{number}]": network for number, network in enumerate(PRIVATE)}
    up(running, balancing__method="clientAddress", **proxies)
    before = by_address(running)
    assert [address for address, replicas in before.items() if len(replicas) > 1] == []
    for version in (".", ":"):
        found = {replica for address, replicas in before.items() if version in address for replica in replicas}
        assert found == {"uwsgi-1", "uwsgi-2"}

    killed = running.replica("uwsgi-1")
    killed.kill()
    assert {replica for replicas in by_address(running).values() for replica in replicas} == {"uwsgi-2"}
    killed.start()
    (mine, *_) = (address for address in ADDRESSES if before[address] == {"uwsgi-1"})
    eventually(
        lambda: running.get(headers={"X-Forwarded-For": mine}).endswith(" uwsgi-1"), 20, "its clients come back to it"
    )

    up(running, replicas=3)
    after = by_address(running)
    moved = [address for address in ADDRESSES if after[address] != before[address]]
    assert {replica for address in moved for replica in after[address]} == {"uwsgi-3"}, (
        "nobody moves but to the new one"
    )
    assert len(moved) < len(ADDRESSES) * 0.6


def test_a_browser_stays_with_its_replica_by_a_cookie(running: Stack) -> None:
    up(running, balancing__method="sticky")
    assert len({ask(running)[0] for _ in range(9)}) == 3, "without one it is any"
    mine, cookie = ask(running)
    assert cookie
    assert (cookie["path"], cookie["httponly"], cookie["samesite"], cookie["secure"]) == ("/", True, "lax", "")
    assert not cookie["expires"], "it ends with the browser"
    assert re.fullmatch("[0-9a-f]{32}", cookie.value), "it says nothing of what is inside"
    assert {ask(running, cookie.value)[0] for _ in range(12)} == {mine}

    killed = running.replica(mine)
    killed.kill()
    another, cookie = ask(running, cookie.value)
    assert cookie
    assert another != mine
    assert {ask(running, cookie.value)[0] for _ in range(12)} == {another}, "with the next cookie it stays there"
    killed.start()

    assert ask(running, "nobody's")[1]
    write_release(running, "two")
    up(running)
    first, fresh = ask(running, cookie.value)
    assert fresh
    assert fresh.value != cookie.value
    assert {ask(running, fresh.value)[0] for _ in range(12)} == {first}


@pytest.mark.parametrize("method", ["roundRobin", "leastConnections", "clientAddress", "sticky"])
def test_nginx_has_room_for_as_many_replicas_as_there_may_be(running: Stack, method: str) -> None:
    """`nginx -t` also takes the shared memory: too little of it would refuse a release."""
    site = Site.model_validate({"balancing": {"method": method}, "canary": {"share": 20}})
    stable, canary = (
        [Upstream(f"{name}-{i}", f"/run/uwsgi/{name}-{i}-0123abcd.sock") for i in range(1, MAX_REPLICAS + 1)]
        for name in ("uwsgi", "uwsgi-canary")
    )
    rollout = Rollout(
        nginx=str(running.nginx.id),
        replicas=(),
        configuration=nginx_config.render(stable, canary, site=site, release="0123abcd", canary_release="89abcdef"),
        files=nginx_config.live_files(site, Endpoints()),
        probe_files=nginx_config.probe_files([*stable, *canary]),
        health_path="/health",
        health_timeout=1,
        drain_timeout=1,
    )
    gate = Gate(running.docker)
    nginx, before = gate._nginx(rollout.nginx)
    gate._test(nginx, gate._put(nginx, rollout, before))
