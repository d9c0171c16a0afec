"""Faults of replicas and of NGINX under load: what a client sees of them."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from docker.models.containers import Container

from tests.live.figures import Record
from tests.live.load import Load, saturating
from tests.live.stack import Stack, eventually

PAUSE = 5  # seconds that a replica stays frozen


def healthy(stack: Stack) -> bool:
    """Whether every replica takes requests: all of them answer within one round."""
    declared = set(stack.outputs()["replicas"])
    return set(stack.answering(4 * len(declared))) == declared


def kill(container: Container) -> None:
    container.kill()


def kill_process(container: Container) -> None:
    """SIGKILL to its first process: Docker takes that for a crash and starts the container again."""
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)


def freeze(container: Container) -> None:
    container.pause()
    time.sleep(PAUSE)
    container.unpause()


def restart(container: Container) -> None:
    container.restart(timeout=20)


FAULTS: dict[str, tuple[Callable[[Container], None], bool]] = {
    "a replica killed by `docker kill`": (kill, False),
    "a replica's process killed": (kill_process, True),
    "a replica frozen for 5 s": (freeze, True),
    "a replica restarted": (restart, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_replica_is_not_noticed(running: Stack, record: Record, fault: str) -> None:
    """Does it to `uwsgi-1` while both serve."""
    act, returns_by_itself = FAULTS[fault]
    with Load(running.port) as load:
        act(running.replica("uwsgi-1"))
        time.sleep(3)
    record(fault, load)
    load.assert_nothing_was_dropped()
    assert load.longest < PAUSE + 2
    if not returns_by_itself:
        running.up("--refresh")
    eventually(lambda: healthy(running), 30, "all replicas answer again")


def test_a_replica_without_a_network_goes_on_serving(running: Stack, record: Record) -> None:
    """Disconnects it for 2 s: requests come over its socket."""
    replica = running.replica("uwsgi-1")
    (name,) = replica.attrs["NetworkSettings"]["Networks"]
    network = running.docker.networks.get(name)
    with Load(running.port) as load:
        network.disconnect(replica)
        time.sleep(2)
        network.connect(replica)
    record("a replica cut from the network", load)
    load.assert_nothing_was_dropped()
    assert healthy(running)


def test_all_replicas_restarted_one_after_the_other_are_not_noticed(running: Stack, record: Record) -> None:
    """`docker restart` of each, when the one before answers again."""
    with Load(running.port) as load:
        for replica in running.containers("replica"):
            restart(replica)
            eventually(lambda: healthy(running), 30, "all replicas answer again")
    record("all replicas restarted one after the other", load)
    load.assert_nothing_was_dropped()


def test_a_replica_out_of_memory_fails_at_most_the_request_that_ate_it(running: Stack, record: Record) -> None:
    """One request allocates beyond the limit; NGINX tries it on the other replica too, where it does the same."""
    # No slow requests: what is in flight in both of the workers that it kills has nowhere left to be tried.
    with Load(running.port, slow=0) as load:
        status = running.status("/eat")
        time.sleep(3)
    record("a replica out of memory (the request that eats is retried on the next, and eats there too)", load)
    assert status == 502
    load.assert_nothing_was_dropped()
    eventually(lambda: healthy(running), 30, "all replicas answer again")


def test_a_replica_removed_by_hand_comes_back_with_a_refresh(running: Stack, record: Record) -> None:
    """`docker rm -f`, then `pulumi up --refresh`."""
    with Load(running.port) as load:
        running.replica("uwsgi-1").remove(force=True)
        running.up("--refresh")
    record("a replica removed by hand, then `up --refresh`", load)
    load.assert_nothing_was_dropped()
    assert healthy(running)


def test_nginx_killed_comes_back_by_itself_with_its_configuration(running: Stack, record: Record) -> None:
    """SIGKILL to NGINX's master; Docker starts the container again."""
    configuration = running.run_in(running.nginx, "cat /etc/nginx/live/current/nginx.conf")[1]
    with Load(running.port, slow=0) as load:
        kill_process(running.nginx)
        time.sleep(4)
    record("NGINX's process killed", load, f"gap {load.gap:.1f} s")
    assert load.gap < 10  # Docker starts it again; how soon depends on what else the machine does
    assert healthy(running)
    assert running.run_in(running.nginx, "cat /etc/nginx/live/current/nginx.conf")[1] == configuration


def test_nginx_removed_by_hand_comes_back_with_its_configuration(running: Stack, record: Record) -> None:
    """`docker rm -f`, then `pulumi up --refresh`."""
    with Load(running.port, slow=0) as load:
        running.nginx.remove(force=True)
        running.up("--refresh")
    record("NGINX removed by hand, then `up --refresh`", load, f"gap {load.gap:.1f} s")
    assert healthy(running)


def test_idle_replicas_cost_next_to_nothing(running: Stack, record: Record) -> None:
    """At most 1 % of a core for each, health checks included."""
    seconds = 35  # longer than the interval of the health check

    def used() -> list[int]:
        stats = [cast(dict[str, Any], replica.stats(stream=False)) for replica in running.containers("replica")]
        return [int(stat["cpu_stats"]["cpu_usage"]["total_usage"]) for stat in stats]

    before, begin = used(), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begin
    shares = [(after - first) / 1e9 / elapsed for first, after in zip(before, used(), strict=True)]
    print(f"\nidle replicas: {', '.join(f'{100 * share:.2f} %' for share in shares)} of a core")
    assert max(shares) <= 0.01


def test_saturation_is_survived(running: Stack, record: Record) -> None:
    """Nothing but load."""
    with saturating(running.port) as load:
        time.sleep(5)
    record("96 connections that never rest, nothing else", load)
    load.assert_nothing_was_dropped()
