"""Day two: replicas that are taken out and put back in, the image of before; under load, and nothing is dropped."""

import json
import re
import shutil
import time
from typing import Any

import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import ROOT, Result, Stack
from tests.live.test_balancing import ask
from tests.live.test_canary import configure
from tests.live.test_operations import make
from tests.live.test_releases import release, served

BOTH = {"uwsgi-1", "uwsgi-2"}


@pytest.fixture(scope="module")
def running(running: Stack) -> Stack:
    """The stack of all tests, with what the commands know of the machine."""
    (running.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", running.folder / ".local")
    return running


def made(stack: Stack, *command: str) -> Result:
    """`make COMMAND`, which must succeed."""
    result = make(stack, *command)
    assert result.code == 0, result.output
    return result


def asked_since(stack: Stack, moment: float) -> set[str]:
    """The replicas that NGINX has asked since then, in vain or not, as its access log has them."""
    lines = stack.nginx.logs(since=moment).decode().splitlines()
    upstreams = " ".join(json.loads(line)["upstream"] for line in lines if line.startswith("{"))
    return {replica for replica in BOTH if f"/{replica}-" in upstreams}


def setting(stack: Stack, key: str) -> Any:
    result = stack.pulumi("config", "get", "--path", key, check=False)
    return None if result.code else result.output.strip()


# Out and in


def test_a_replica_is_taken_out_and_put_back_in_and_nothing_is_dropped(running: Stack, record: Record) -> None:
    """`make drain` of one of two replicas, then `make resume`."""
    before = {container.id for container in running.containers()}
    with Load(running.port) as load:
        out = made(running, "drain", "uwsgi-2")
        assert re.search("uwsgi-2 +running, drained ", made(running, "ps").output)
        moment = time.time()
        time.sleep(3)
        assert asked_since(running, moment) == {"uwsgi-1"}
        made(running, "resume", "uwsgi-2")
        assert set(running.answering(20)) == BOTH
    record("a replica taken out and put back in", load)
    load.assert_nothing_was_dropped()
    assert "Out: uwsgi-2" in out.output
    assert {container.id for container in running.containers()} == before, "no container is touched"


def test_to_do_it_twice_does_no_harm(running: Stack) -> None:
    for _ in range(2):
        made(running, "drain", "uwsgi-1")
        assert setting(running, "balancing.drain") == '["uwsgi-1"]'
    assert set(running.up().changes) == {"unchanged"}
    running.preview("--refresh", "--expect-no-changes")
    for _ in range(2):
        made(running, "resume")
        assert setting(running, "balancing.drain") is None
    assert set(running.answering(10)) == BOTH


@pytest.mark.parametrize(("name", "said"), [("uwsgi-3", "uwsgi-1 to uwsgi-2"), ("uwsgi-2", "nobody would be left")])
def test_what_the_program_refuses_changes_nothing(running: Stack, name: str, said: str) -> None:
    configuration = running.folder / f"Pulumi.{running.name}.yaml"
    made(running, "drain", "uwsgi-1")
    before = configuration.read_text()
    refused = make(running, "drain", name)
    assert refused.code == 1
    assert said in refused.output
    assert "Nothing was changed" in refused.output
    assert configuration.read_text() == before
    made(running, "resume")


def test_a_sick_replica_that_is_drained_stops_no_release_but_is_not_put_back_in(running: Stack, record: Record) -> None:
    """One of two replicas is drained and killed; another configuration, a release in which it is sick; mended."""
    made(running, "drain", "uwsgi-2")
    with Load(running.port) as load:
        moment = time.time()
        running.replica("uwsgi-2").kill()
        running.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens off;\n    # another")
        running.up()
        running.edit("app/webapp.py", "WELL = True", 'WELL = socket.gethostname() != "uwsgi-2"')
        release(running, "two")
        passed = running.up()
        assert "uwsgi-2 is drained" in passed.output
        assert served(running) == "two"

        refused = make(running, "resume")
        assert refused.code != 0
        assert "uwsgi-2 (" in refused.output
        assert "answered with 500" in refused.output
        assert "make drain ARGS=uwsgi-2" in refused.output
        assert asked_since(running, moment) == {"uwsgi-1"}

        running.edit("app/webapp.py", 'WELL = socket.gethostname() != "uwsgi-2"', "WELL = True")
        made(running, "resume")
    record("a drained replica that is sick, and two releases", load)
    load.assert_nothing_was_dropped()
    assert set(running.answering(10)) == BOTH


def test_with_every_method_who_is_drained_gets_nothing(running: Stack) -> None:
    """Also who has a cookie of it."""
    configure(running, balancing__method="sticky")
    running.up()
    cookies: dict[str, str] = {}
    while cookies.keys() != BOTH:
        replica, cookie = ask(running)
        assert cookie
        cookies[replica] = cookie.value
    for method in ("sticky", "clientAddress", "leastConnections", "roundRobin"):
        configure(running, balancing__method=method, **{"balancing__weights__uwsgi-2": 5})
        with Load(running.port, slow=1) as load:
            made(running, "drain", "uwsgi-2")
            moment = time.time()
            answered, cookie = ask(running, cookies["uwsgi-2"])
            assert answered == "uwsgi-1"
            if method == "sticky":
                assert cookie, "it gets a cookie of who answers"
                assert cookie.value == cookies["uwsgi-1"]
            running.answering(10)
            assert asked_since(running, moment) == {"uwsgi-1"}
            made(running, "resume")
        load.assert_nothing_was_dropped(at_least=200)
        if method == "sticky":
            assert ask(running, cookies["uwsgi-2"])[0] == "uwsgi-2", "a browser that has not been here meanwhile"
    running.pulumi("config", "rm", "balancing")
    running.up()


# Back to the image of before


def test_without_an_image_of_before_nothing_is_rolled_back(running: Stack) -> None:
    """As of the first release, or of a state that a program wrote which remembered none."""
    exported = json.loads(running.pulumi("stack", "export").output)
    for resource in exported["deployment"]["resources"]:
        if resource["type"] == "pulumi-python:dynamic:Release":
            for kept in (resource["inputs"], resource["outputs"]):
                for key in ("image", "previous", "drained"):
                    kept.pop(key, None)
        elif resource["type"] == "pulumi:pulumi:Stack":
            del resource["outputs"]["previousImage"]
    file = running.folder / "state.json"
    file.write_text(json.dumps(exported))
    running.pulumi("stack", "import", "--file", str(file))

    refused = make(running, "rollback")
    assert refused.code == 1
    assert "There is no image to go back to" in refused.output
    assert running.preview().code == 0
    assert set(running.up().changes) == {"unchanged"}
    assert running.outputs()["previousImage"] == ""
    release(running, "three")
    running.up()
    assert running.outputs()["previousImage"] == ""
    assert make(running, "rollback").code == 1
    assert not setting(running, "appImage")


def test_the_image_of_before_takes_over_and_the_newer_one_again(running: Stack, record: Record) -> None:
    """A release, one that is refused, `make rollback` twice, and forward to what the app's folder holds."""
    images = {"three": running.outputs()["image"]}
    with Load(running.port) as load:
        release(running, "four")
        running.up()
        images["four"] = running.outputs()["image"]
        assert running.outputs()["previousImage"] == images["three"]
        running.configure(healthTimeout="16")
        running.up()
        assert running.outputs()["previousImage"] == images["three"], "the same image with another setting"
        assert set(running.up().changes) == {"unchanged"}
        running.preview("--refresh", "--expect-no-changes")

        release(running, "five")
        running.edit("app/webapp.py", "WELL = True", "WELL = False")
        assert running.up(check=False).code != 0
        assert running.outputs()["previousImage"] == images["three"]
        assert served(running) == "four"

        back = made(running, "rollback")
        assert served(running) == "three"
        assert f"In force: {images['three']}" in back.output
        assert running.outputs()["previousImage"] == images["four"]
        running.preview("--expect-no-changes")
        made(running, "rollback")
        assert served(running) == "four"
        assert running.outputs()["previousImage"] == images["three"]

        running.edit("app/webapp.py", "WELL = False", "WELL = True")
        running.pulumi("config", "rm", "appImage")
        running.up()
        assert served(running) == "five"
        assert running.outputs()["previousImage"] == images["four"]
    record("make rollback, twice", load)
    load.assert_nothing_was_dropped()


def test_an_image_that_the_daemon_no_longer_has_is_not_gone_back_to(running: Stack) -> None:
    previous = running.outputs()["previousImage"]
    before = {container.id for container in running.containers()}
    running.docker.images.remove(previous, force=True)
    refused = make(running, "rollback")
    assert refused.code != 0
    assert f"has no image {previous}" in refused.output
    assert "pulumi config rm appImage" in refused.output
    assert {container.id for container in running.containers()} == before
    running.pulumi("config", "rm", "appImage")
    assert set(running.up().changes) == {"unchanged"}
