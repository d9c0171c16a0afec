"""Where NGINX listens: another port, and the host's own network, where even NGINX is replaced without a gap."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.figures import Record
from tests.live.load import Load, saturating
from tests.live.stack import Stack, eventually, free_port

TCP_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


@pytest.fixture
def migrating() -> Iterator[None]:
    """The host as documented for `publish: host`; as it was before, afterwards."""
    before = TCP_MIGRATE.read_text()
    TCP_MIGRATE.write_text("1")
    yield
    TCP_MIGRATE.write_text(before)


def test_another_port_answers_before_the_one_before_goes(running: Stack) -> None:
    """Changes `port`: the new one answers before the old one is gone."""
    with Load(running.port, slow=0) as load:
        running.port = free_port()
        running.configure(port=str(running.port))
        process = running.start("up", "--yes", "--skip-preview")
        eventually(running.is_up, 60, "the new port answers")
        answered = time.monotonic()
        output, _ = process.communicate()
    assert process.returncode == 0, output
    dropped = [moment for moment, succeeded in load.timeline if not succeeded]
    assert not dropped or min(dropped) > answered


def test_a_port_that_is_taken_harms_nothing(running: Stack, record: Record) -> None:
    """Changes `port` to one that another process holds, `up` fails; then back."""
    good = running.port
    with socket.create_server(("127.0.0.1", 0)) as taken, Load(good) as load:
        running.configure(port=str(taken.getsockname()[1]))
        refused = running.up(check=False)
        assert refused.code != 0
        assert "address already in use" in refused.output or "port is already allocated" in refused.output
        running.configure(port=str(good))
        running.up()
    record("a change to a port that is taken, then back", load)
    load.assert_nothing_was_dropped()
    assert len(running.containers("nginx")) == 1


def test_nginx_moves_to_the_network_of_the_host(running: Stack) -> None:
    """Sets `publish: host` and another port."""
    running.port = free_port()
    running.configure(publish="host", port=str(running.port))
    running.up()
    assert set(running.answering(10)) == {"uwsgi-1", "uwsgi-2"}
    assert running.nginx.attrs["HostConfig"]["NetworkMode"] == "host"
    assert set(running.up().changes) == {"unchanged"}
    assert set(running.refresh().changes) == {"unchanged"}


def test_there_a_new_nginx_image_leaves_no_gap(running: Stack, record: Record, migrating: None) -> None:
    """Changes NGINX's Dockerfile."""
    before = running.nginx.id
    with Load(running.port) as load:
        running.edit("nginx/Dockerfile", "EXPOSE 8080", 'LABEL test="another"\nEXPOSE 8080')
        running.up()
    record("a new NGINX image with `publish: host`", load)
    load.assert_nothing_was_dropped()
    assert [container.id for container in running.containers("nginx")] != [before]


def test_there_a_new_nginx_image_and_a_new_release_at_once_leave_no_gap(
    running: Stack, record: Record, migrating: None
) -> None:
    """Changes both, with 96 connections that never rest."""
    with saturating(running.port) as load:
        running.edit("nginx/Dockerfile", 'LABEL test="another"', 'LABEL test="a third"')
        running.edit("app/webapp.py", 'RELEASE = "', 'RELEASE = "next-')
        running.up()
    record("a new NGINX image and a new release at once with `publish: host`, saturated", load)
    load.assert_nothing_was_dropped()
    assert running.get().startswith("next-")


def test_there_a_release_that_is_refused_leaves_the_new_nginx_out_of_the_traffic(
    running: Stack, record: Record, migrating: None
) -> None:
    """Changes both, but the app never gets healthy; then mended."""
    with Load(running.port) as load:
        running.edit("nginx/Dockerfile", 'LABEL test="a third"', 'LABEL test="a fourth"')
        running.edit("app/webapp.py", "WELL = True", "WELL = False")
        refused = running.up(check=False)
        assert refused.code != 0
        assert len(running.containers("nginx")) == 2
        running.edit("app/webapp.py", "WELL = False", "WELL = True")
        running.up()
    record("the same with a release that is refused, then mended", load)
    load.assert_nothing_was_dropped()
    assert len(running.containers("nginx")) == 1
