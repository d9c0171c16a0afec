"""A stack's life, in the order in which it is lived."""

import json
import urllib.error
import urllib.request
from itertools import pairwise

import pytest

from tests.live.stack import Stack

RESOURCES = 13  # of two replicas: the stack, two components, network, volumes, images, containers and the release


def test_up_ends_with_a_url_where_requests_alternate_between_the_replicas(stack: Stack) -> None:
    assert stack.up().changes == {"create": RESOURCES}
    assert stack.outputs()["url"] == stack.url
    answering = stack.answering(20)
    assert set(answering) == {"uwsgi-1", "uwsgi-2"}
    assert all(one != next_one for one, next_one in pairwise(answering)), answering
    assert stack.get() == f"Hello, World! This is {answering[0]}."


def test_outputs_say_what_a_person_would_ask_next(stack: Stack) -> None:
    outputs = stack.outputs()
    assert outputs["replicas"] == ["uwsgi-1", "uwsgi-2"]
    assert outputs["image"] == stack.replica("uwsgi-1").attrs["Image"]
    assert outputs["containers"] == [container.name for container in stack.containers("replica")]
    assert outputs["nginx"] == stack.nginx.name
    assert outputs["release"] == stack.replica("uwsgi-1").labels["uwsgi-nginx.release"]


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    assert stack.up().changes == {"unchanged": RESOURCES}


def test_a_refresh_changes_nothing(stack: Stack) -> None:
    assert set(stack.refresh().changes) == {"unchanged"}


def test_a_preview_shows_no_change(stack: Stack) -> None:
    assert stack.preview("--expect-no-changes", "--diff").changes == {"unchanged": RESOURCES}


def test_a_preview_shows_the_configuration_that_a_change_leads_to(stack: Stack) -> None:
    stack.configure(replicas="4")
    preview = stack.preview("--diff").output
    assert "+         server unix:/run/uwsgi/uwsgi-4-" in preview.replace("\t", " "), preview


def test_it_scales_to_four_replicas(stack: Stack) -> None:
    before = {container.id for container in stack.containers()}
    stack.up()
    assert set(stack.answering(40)) == {"uwsgi-1", "uwsgi-2", "uwsgi-3", "uwsgi-4"}
    assert before < {container.id for container in stack.containers()}, "those that were there were not touched"


def test_it_scales_back_to_one(stack: Stack) -> None:
    stack.configure(replicas="1")
    stack.up()
    assert set(stack.answering(20)) == {"uwsgi-1"}
    assert [container.labels["uwsgi-nginx.replica"] for container in stack.containers("replica")] == ["uwsgi-1"]


def test_a_replica_is_not_reached_from_outside(stack: Stack) -> None:
    replica = stack.replica("uwsgi-1")
    assert not any(replica.attrs["NetworkSettings"]["Ports"].values())
    address = next(iter(replica.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}:8000/", timeout=3)


def test_the_proxy_headers_reach_the_app(stack: Stack) -> None:
    stack.edit(
        "app/webapp.py",
        '@app.get("/health")',
        '@app.get("/headers")\ndef headers() -> dict[str, str]:\n    from flask import request\n\n'
        '    return {**request.headers, "url": request.url, "remote": str(request.remote_addr)}\n\n\n'
        '@app.get("/health")',
    )
    stack.up()
    headers = json.loads(stack.get("/headers?a=1", {"X-Real-IP": "6.6.6.6", "X-Forwarded-Host": "forged"}))
    host = f"127.0.0.1:{stack.port}"
    assert headers["Host"] == headers["X-Forwarded-Host"] == host
    assert headers["url"] == f"http://{host}/headers?a=1"
    assert headers["X-Real-Ip"] == headers["X-Forwarded-For"] == headers["remote"] != "6.6.6.6"
    assert headers["X-Forwarded-Proto"] == "http"


def test_sockets_of_replicas_that_are_gone_are_swept_by_the_next_release(stack: Stack) -> None:
    sockets = stack.run_in(stack.nginx, "ls /run/uwsgi | grep -v -e members -e '[.]stats$'")[1].split()
    assert f"uwsgi-1-{stack.outputs()['release']}.sock" in sockets
    assert len(sockets) == 2, "its own, and that of the replica that it replaced, which still ran at its gate"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("replicas", "0", "replicas: '0' is not accepted: input should be greater than or equal to 1"),
        ("replicas", "two", "integer"),
        ("publishAddress", "everywhere", "IP address"),
        ("appFolder", "nowhere", "there is none of that name"),
        ("replcias", "3", "did you mean replicas?"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_changes(stack: Stack, key: str, value: str, expected: str) -> None:
    before = {container.id for container in stack.containers()}
    previous = stack.pulumi("config", "get", key, check=False)
    stack.configure(**{key: value})
    try:
        refused = stack.up(check=False)
    finally:
        stack.configure(**{key: previous.output.strip() if previous.code == 0 else ""})
    assert refused.code != 0
    assert expected in refused.output
    assert key in refused.output
    assert "Traceback" not in refused.output
    assert {container.id for container in stack.containers()} == before


def test_destroy_leaves_nothing(stack: Stack) -> None:
    stack.destroy()
    assert stack.leftovers() == {}
    with pytest.raises(urllib.error.URLError):
        stack.get()
