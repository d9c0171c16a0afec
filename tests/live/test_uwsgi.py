"""What a replica says, tells of itself, and leaves unread; WebSockets; the app followed as it is edited."""

import http.client
import json
import re
import shutil
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container
from websockets.sync.client import connect

from tests.live.load import Load
from tests.live.stack import Stack, eventually, free_port

APP = Path(__file__).parent / "uwsgi_app"
LARGE = 1_000_000  # bytes; NGINX is still sending them when the app has answered

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(stack: Stack) -> Stack:
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(APP, stack.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    stack.configure(healthTimeout="15", replicas="2")
    stack.up()
    return stack


def records(container: Container) -> list[dict[str, Any]]:
    """All that a replica has said: JSON, an object a line."""
    return [json.loads(line) for line in container.logs().decode().split("\n") if line]


def records_of(site: Stack) -> list[dict[str, Any]]:
    return [record for replica in site.containers("replica") for record in records(replica)]


def message(site: Stack, text: str) -> dict[str, Any]:
    """The record of a replica whose message has `text`, as soon as it is there."""

    def find() -> dict[str, Any] | None:
        return next((record for record in records_of(site) if text in record.get("message", "")), None)

    found: dict[str, Any] = eventually(find, 5, f"{text!r} in a replica's log")
    return found


# logs


def test_all_that_a_replica_says_is_an_object_a_line_from_the_first_one_on(site: Stack) -> None:
    for replica in site.containers("replica"):
        said = records(replica)
        assert "getting INI configuration" in said[0]["message"]
        assert {(record["source"], record["replica"]) for record in said} == {
            ("uwsgi", replica.labels["uwsgi-nginx.replica"])
        }
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["time"]) for record in said)


@pytest.mark.parametrize("output", [1, 2])
def test_what_the_app_says_arrives_whatever_it_is(site: Stack, output: int) -> None:
    marker = f"{output} said"
    text = urllib.parse.quote(f'{marker} "quoted" \\ \x1b[31mred\x1b[0m \x00 gr\xfcn\n')
    site.get(f"/say?to={output}&text={text}")
    # The one that is no UTF-8 is written out.
    assert message(site, marker)["message"] == f'{marker} "quoted" \\ \x1b[31mred\x1b[0m \x00 gr\\xfcn'


def test_a_traceback_and_the_request_that_led_to_it_are_found_by_the_requests_id(site: Stack) -> None:
    assert site.status('/raise?text=a%20"b"', headers={"X-Request-ID": "id-of-the-test"}) == 500
    assert message(site, 'ValueError: a "b"')

    def logged() -> list[dict[str, Any]]:
        return [record for record in records_of(site) if record.get("request_id") == "id-of-the-test"]

    (record,) = eventually(logged, 5, "the request in a replica's log")
    assert {key: record[key] for key in ("source", "method", "uri", "status")} == {
        "source": "uwsgi",
        "method": "GET",
        "uri": '/raise?text=a%20"b"',
        "status": 500,
    }
    assert 0 <= record["request_time"] < 5


@pytest.mark.parametrize("death", ["SIGKILL", "memory"])
def test_the_last_words_of_a_worker_are_not_lost(site: Stack, death: str) -> None:
    assert site.status(f"/die?how={death}") == 502
    assert message(site, f"last words of {death}")
    eventually(site.is_up, 10, "workers in the place of the dead ones")


# statistics


def statistics(site: Stack, user: str = "") -> list[dict[str, Any]]:
    """Those of all replicas, as NGINX's container gets them."""
    ask = "for socket in /run/uwsgi/*.sock.stats; do curl -sS --fail --unix-socket $socket http://uwsgi/ || exit; done"
    code, output = site.run_in(site.nginx, ask, user)
    assert code == 0, output
    found, decoder = [], json.JSONDecoder()
    while output := output.strip():
        value, end = decoder.raw_decode(output)
        found.append(value)
        output = output[end:]
    return found


def requests(site: Stack) -> int:
    return sum(worker["requests"] for found in statistics(site) for worker in found["workers"])


def test_nginx_and_an_exporter_get_the_statistics_of_every_replica(site: Stack) -> None:
    for user in ("", "10001:10001"):
        assert [len(found["workers"]) for found in statistics(site, user)] == [2, 2]
    before = requests(site)
    site.answering(10)
    assert requests(site) >= before + 10


def test_nobody_else_gets_them(site: Stack) -> None:
    ask = "curl -sS --unix-socket $(ls /run/uwsgi/*.stats | head -n1) http://uwsgi/"
    code, output = site.run_in(site.nginx, ask, "65534:65534")
    assert code != 0
    assert "workers" not in output


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_a_replica_that_comes_back_gives_its_statistics_again(site: Stack, end: str) -> None:
    replica = site.replica("uwsgi-1")
    if end == "restart":
        replica.restart(timeout=10)
    else:
        replica.kill()
        replica.start()

    def are_young() -> bool:
        ask = "curl -sS --fail --unix-socket $(ls /run/uwsgi/uwsgi-1-*.stats) http://uwsgi/"
        code, output = site.run_in(site.nginx, ask)
        return code == 0 and json.loads(output)["workers"][0]["last_spawn"] >= started

    replica.reload()
    started = int(time.time()) - 5
    eventually(are_young, 10, "statistics of the replica that came back")


# requests that are not read


@pytest.mark.parametrize(
    ("path", "size", "answer"),
    [
        ("/refused", LARGE, (401, 7)),
        ("/health", LARGE, (405, None)),
        ("/streamed", LARGE, (200, 100_000)),
        ("/streamed", 70_000, (200, 100_000)),
        ("/streamed", 10, (200, 100_000)),
        ("/echo", LARGE, (200, LARGE)),
    ],
)
def test_an_upload_that_the_app_does_not_read_is_answered_all_the_same(
    site: Stack, path: str, size: int, answer: tuple[int, int | None]
) -> None:
    got: Counter[tuple[int, int | None]] = Counter()
    for _ in range(30):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request("POST", path, b"x" * size)
        response = connection.getresponse()
        length = len(response.read())
        got[response.status, None if answer[1] is None else length] += 1
        connection.close()
    assert got == {answer: 30}


# WebSockets


def test_an_answer_may_have_long_headers(site: Stack) -> None:
    assert site.status("/cookies?count=14") == 200
    assert site.status("/cookies?count=20") == 502


def test_a_websocket_reaches_the_app(site: Stack) -> None:
    # uWSGI answers a ping, but not with what was in it, so that this client would not know its answer again.
    with connect(f"ws://127.0.0.1:{site.port}/chat", open_timeout=10, ping_interval=None) as socket:
        for text in ("hello", "grün", "x" * 100_000):
            socket.send(text)
            assert socket.recv(10) == f"one {text}"


# the app as it is edited


@pytest.fixture
def followed(site: Stack, tmp_path: Path) -> Iterator[Container]:
    """A replica by hand, on a port of the loopback, that follows a folder."""
    port = free_port()
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    container = site.docker.containers.run(
        site.outputs()["image"],
        detach=True,
        environment={
            "LIVE_RELOAD": "1",
            "REPLICA_SOCKET": "/run/uwsgi/followed.sock",
            "UWSGI_HTTP_SOCKET": ":8000",
            "UWSGI_THREADS": "8",
        },
        ports={"8000/tcp": ("127.0.0.1", port)},
        volumes={str(tmp_path / "app"): {"bind": "/app", "mode": "ro"}},
        labels={"uwsgi-nginx.stack": site.name},
    )
    try:
        container.reload()
        yield container
    finally:
        container.remove(force=True, v=True)


def test_the_app_is_followed_as_it_is_edited(followed: Container, tmp_path: Path) -> None:
    port = int(followed.attrs["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostPort"])
    source = tmp_path / "app" / "webapp.py"

    def write(release: str, text: str = "") -> None:
        source.write_text((APP / "webapp.py").read_text().replace('"one"', f'"{release}"') + text)

    def is_up() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    eventually(is_up, 15, "the app")
    with Load(port, keep_alive=0, slow=0) as load:

        def is_live(release: str) -> bool:
            return any(body.startswith(f"{release} ") for body in load.bodies.copy())

        write("two")
        eventually(lambda: is_live("two"), 8, "the first change")
        write("broken", "\ndef (:\n")
        eventually(lambda: b"cannot be imported; the one before stays" in followed.logs(), 8, "a refusal")
        write("three")
        eventually(lambda: is_live("three"), 8, "the change after a broken one")
    load.assert_nothing_was_dropped()
    assert not is_live("broken")


# last of all, because it fails


def test_a_refusal_quotes_words(site: Stack) -> None:
    site.configure(importCheck="false")
    site.edit("app/webapp.py", 'RELEASE = "one"', 'print("no \\"database\\"", flush=True); os._exit(3)')
    refused = site.up(check=False)
    assert refused.code
    assert "Its last words:" in refused.output
    assert 'no "database"' in refused.output
    assert '"message"' not in refused.output
