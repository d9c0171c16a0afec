"""Faults of the Docker daemon and of its disk. They happen to a daemon of the test's own, never to the machine's."""

import re
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.own_daemon import OwnDaemon, bring_images
from tests.live.stack import Result, Stack, eventually
from tooling import hints

DISK = "1200m"  # what the images and a few releases take, twice
RELEASE = re.compile(r'RELEASE = "\w+"')


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    """The daemon; the tests are where its published ports are."""
    own = OwnDaemon(tmp_path_factory.mktemp("daemon"), DISK)
    try:
        own.start()
        with own.network():
            yield own
    finally:
        own.remove()


@pytest.fixture(scope="module")
def stack(daemon: OwnDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on that daemon. It goes with it."""
    fresh = Stack(tmp_path_factory.mktemp("stack"), docker_host=daemon.host)
    bring_images(fresh, daemon)
    yield fresh
    fresh.docker.close()


def release(stack: Stack, name: str) -> None:
    """Changes the app's source so that it calls itself `name`."""
    file = stack.folder / "app" / "webapp.py"
    file.write_text(RELEASE.sub(f'RELEASE = "{name}"', file.read_text()))


def all_answer(stack: Stack) -> bool:
    try:
        return set(stack.answering(8)) == {"uwsgi-1", "uwsgi-2"}
    except OSError:
        return False


def configuration(stack: Stack) -> str:
    code, text = stack.run_in(stack.nginx, "cat /etc/nginx/live/current/nginx.conf")
    assert code == 0
    return text


def test_it_is_deployed_to_the_daemon_that_docker_host_names_and_to_no_other(running: Stack) -> None:
    assert all_answer(running)
    assert len(running.containers()) == 3
    machine = docker.from_env(use_context=False)
    try:
        labels = f"uwsgi-nginx.stack={running.name}"
        assert machine.containers.list(all=True, sparse=True, filters={"label": labels}) == []
    finally:
        machine.close()


def test_docker_host_in_the_environment_does_the_same(running: Stack, daemon: OwnDaemon) -> None:
    running.configure(**{"docker:host": ""})
    running.environment["DOCKER_HOST"] = daemon.host
    assert set(running.up().changes) == {"unchanged"}
    release(running, "two")
    running.up()
    assert running.get().startswith("two ")
    assert len(running.containers()) == 3


def test_the_setting_wins_over_the_environment(running: Stack, daemon: OwnDaemon) -> None:
    running.configure(**{"docker:host": daemon.host})
    running.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    release(running, "three")
    running.up()
    assert running.get().startswith("three ")
    del running.environment["DOCKER_HOST"]


FAULTS: dict[str, Callable[[OwnDaemon], None]] = {
    "the Docker daemon stopped (SIGTERM) and started": OwnDaemon.stop,
    "dockerd killed (SIGKILL) and started": OwnDaemon.kill,
    "dockerd, containerd and all containers killed at once (as by a power cut) and started": OwnDaemon.power_off,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_site_comes_back_by_itself_with_its_configuration(
    running: Stack, daemon: OwnDaemon, record: Record, fault: str
) -> None:
    """Does it to a daemon of the test's own; no `up` follows."""
    before = configuration(running), {container.id for container in running.containers()}
    with Load(running.port, slow=0, pause=0.05) as load:
        FAULTS[fault](daemon)
        started = time.monotonic()
        daemon.start()
        eventually(lambda: all_answer(running), 60, "all replicas answer again")
        back = time.monotonic() - started
    record(fault, load, f"away {load.gap:.1f} s; all replicas answer {back:.1f} s after the start of dockerd")
    assert load.gap < 60
    assert (configuration(running), {container.id for container in running.containers()}) == before
    assert set(running.up("--refresh").changes) == {"unchanged"}


def assert_told(refused: Result) -> None:
    """It failed, and its output and what `make` adds to it say why and what to do."""
    assert refused.code != 0
    assert "no space left on device" in refused.output
    assert "Traceback" not in refused.output
    todo = hints.advice(refused.output, "dev")
    print("", *(line for line in refused.output.splitlines() if "no space" in line), f"What to do: {todo}", sep="\n")
    assert "docker system df" in todo


def test_a_disk_that_is_full_harms_nothing(running: Stack, daemon: OwnDaemon, record: Record) -> None:
    """Fills its disk; a release is refused in words, and goes through once there is space."""
    before = running.get().split()[0]
    with Load(running.port) as load:
        daemon.fill()
        release(running, "four")
        refused = running.up(check=False)
        assert_told(refused)
        assert running.get().split()[0] == before
        daemon.free()
        running.up()
    record("the daemon's disk full during an update, then freed", load)
    load.assert_nothing_was_dropped()
    assert running.get().startswith("four ")
    assert len(running.containers()) == 3, "nothing is left of what failed"


def test_a_volume_that_is_full_harms_nothing(running: Stack, daemon: OwnDaemon, record: Record) -> None:
    """Fills the disk when the images are built: the gate is refused in words."""
    before = configuration(running)
    with Load(running.port) as load:
        daemon.fill()
        running.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens off;\n    gzip on;")
        refused = running.up(check=False)
        assert_told(refused)
        assert "Nothing was routed to the release" in refused.output
        assert "Server Error" not in refused.output, "the daemon's words, not those of HTTP"
        assert configuration(running) == before
        daemon.free()
        running.up()
    record("NGINX's volume full during an update, then freed", load)
    load.assert_nothing_was_dropped()
    assert "gzip on" in configuration(running)


def test_after_a_start_on_a_full_disk_it_takes_space_and_another_start(
    running: Stack, daemon: OwnDaemon, record: Record
) -> None:
    """Such a daemon knows none of its containers, or does not even start; what is on the disk is not lost by that."""
    before = configuration(running), {container.id for container in running.containers()}
    with Load(running.port, slow=0, pause=0.05) as load:
        daemon.fill()
        daemon.power_off()
        try:
            daemon.start()
        except AssertionError as ended:
            print(ended)
        else:
            daemon.stop()
        daemon.free()
        started = time.monotonic()
        daemon.start()
        eventually(lambda: all_answer(running), 60, "all replicas answer again")
        back = time.monotonic() - started
    record(
        "the Docker daemon started on a full disk (nothing comes back), space freed, started again",
        load,
        f"all replicas answer {back:.1f} s after that start of dockerd",
    )
    assert (configuration(running), {container.id for container in running.containers()}) == before
    assert set(running.up("--refresh").changes) == {"unchanged"}
