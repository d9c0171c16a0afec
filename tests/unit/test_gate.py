"""The release gate against a fake Docker daemon: what it does in which order, and what it refuses in which words."""

import re
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from infra import gate, last_words, layout, nginx_config
from infra.gate import Gate, Replica, Rollout
from infra.nginx_config import Endpoints, Upstream
from infra.refusal import Refused
from infra.site import Site
from tests.unit.fake_docker import BOOT_TIME, FakeClock, FakeMachine, FakeReplica, after, api_error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(gate, "time", clock)
    monkeypatch.setattr(gate, "datetime", clock.datetime)
    monkeypatch.setattr(gate, "POLL_INTERVAL", 0.5)  # each poll costs a real shell
    return clock


@pytest.fixture
def machine(tmp_path: Path, clock: FakeClock) -> FakeMachine:
    """A stack that serves: NGINX with a configuration in force, two healthy replicas of a release that is to come."""
    machine = FakeMachine(tmp_path / "nginx", clock)
    add_release(machine, "new")
    return machine


def add_release(machine: FakeMachine, release: str, count: int = 2) -> None:
    for number in range(1, count + 1):
        name, socket = f"uwsgi-{number}", f"/run/uwsgi/uwsgi-{number}-{release}.sock"
        key = name if release == "new" else f"{name}-{release}"
        machine.replicas[key] = FakeReplica(
            key, env=[f"REPLICA_SOCKET={socket}", "A=B"], words=f"starting\n{key}: last words\n"
        )
        (machine.sockets / f"{name}-{release}.sock").touch()


def rollout(
    release: str = "new",
    count: int = 2,
    health_timeout: float = 3,
    drain_timeout: int = 2,
    secrets: dict[str, str] | None = None,
    drained: tuple[str, ...] = (),
) -> Rollout:
    replicas = [
        Replica(f"uwsgi-{number}", f"id-of-uwsgi-{number}", f"/run/uwsgi/uwsgi-{number}-{release}.sock")
        for number in range(1, count + 1)
    ]
    site = Site(drain_timeout=drain_timeout)
    upstreams = [Upstream(replica.name, replica.socket) for replica in replicas]
    return Rollout(
        nginx="id-of-nginx",
        replicas=replicas,
        configuration=nginx_config.render(
            upstreams,
            site=site,
            release=release,
        ),
        files=nginx_config.live_files(site, Endpoints()),
        secrets=secrets or {},
        probe_files=nginx_config.probe_files(upstreams),
        health_path="/health",
        health_timeout=health_timeout,
        drain_timeout=drain_timeout,
        drained=drained,
    )


def refusal(machine: FakeMachine, what: Rollout | None = None) -> str:
    """The words with which the gate refuses; nothing may have changed, and no probe be left."""
    before, workers = machine.current, list(machine.workers)
    with pytest.raises(Refused) as refused:
        Gate(machine.client()).let_pass(what or rollout())
    assert machine.current == before
    assert machine.workers == workers
    assert not machine.probe_runs
    assert [event for event in machine.events if event.startswith(("swap", "reload", "removed"))] == []
    return str(refused.value)


def folder_of(what: Rollout) -> str:
    return what.folder.rsplit("/", 1)[-1]


# A release that proves itself


def test_a_good_release_passes_step_by_step(machine: FakeMachine) -> None:
    (machine.sockets / "uwsgi-1-stale.sock").touch()
    (machine.live / "stale").mkdir()
    machine._files = machine._present()
    new = folder_of(rollout())
    Gate(machine.client()).let_pass(rollout())
    assert machine.events == [
        "put",
        "test live",
        "test probe",
        "probe started",
        "asked uwsgi-1 /health: 200",
        "asked uwsgi-2 /health: 200",
        "asked client /health: 200",
        "asked client /health: 200",
        "probe stopped",
        f"swap to {new}",
        "reload",
        "new workers",
        "old workers gone",
        "removed live/stale",
        "removed uwsgi/uwsgi-1-stale.sock",
    ]
    assert machine.current == new
    assert not machine.probe_runs


def test_a_replica_that_is_drained_may_be_as_sick_as_it_likes(machine: FakeMachine) -> None:
    machine.replicas["uwsgi-2"].answer = lambda: (502, "")
    machine.replicas["uwsgi-2"].status = "exited"
    told: list[str] = []
    Gate(machine.client(), told.append).let_pass(rollout(drained=("uwsgi-2",)))
    assert [event for event in machine.events if event.startswith("asked")] == [
        "asked uwsgi-1 /health: 200",
        "asked client /health: 200",
    ]
    assert "uwsgi-2 is drained: nobody asks whether it is healthy" in told
    assert (machine.sockets / "members").read_text() == "uwsgi-1-new.sock\n"
    assert (machine.sockets / "uwsgi-2-new.sock").exists(), "it is wanted again"


def test_what_is_put_is_what_was_rendered_and_belongs_to_nginx(machine: FakeMachine) -> None:
    what = rollout(secrets={"tls/key.pem": "secret"})
    Gate(machine.client()).let_pass(what)
    folder = machine.live / folder_of(what)
    assert (folder / "nginx.conf").read_text() == what.configuration
    assert (folder / "probe" / "nginx.conf").read_text() == what.configuration
    assert {name: (folder / name).read_text() for name in what.files} == what.files
    assert {name: (folder / "probe" / name).read_text() for name in what.probe_files} == what.probe_files
    for file in (folder / "tls" / "key.pem", folder / "probe" / "tls" / "key.pem"):
        assert file.read_text() == "secret"
    members = machine.put_members.values()
    (key,) = [member for member in members if member.name.endswith("/tls/key.pem")]
    assert key.mode == 0o600
    assert {(member.uid, member.gid) for member in members} == {(layout.NGINX_USER, layout.SOCKET_GROUP)}
    assert [m.name for m in members if m.mode & 0o007 and m.type != tarfile.SYMTYPE] == []


def test_the_folder_tells_its_content(machine: FakeMachine) -> None:
    assert rollout().folder == rollout().folder
    assert rollout().folder.startswith(layout.LIVE_FOLDER + "/")
    assert (
        len(
            {
                rollout().folder,
                rollout("other").folder,
                rollout(count=1).folder,
                rollout(drain_timeout=9).folder,
                rollout(secrets={"key": "one"}).folder,
                rollout(secrets={"key": "other"}).folder,
            }
        )
        == 6
    )


def test_replicas_are_waited_for(machine: FakeMachine, clock: FakeClock) -> None:
    machine.replicas["uwsgi-1"].answer = after(clock, 1, 200)
    machine.replicas["uwsgi-2"].answer = after(clock, 2, 302)
    Gate(machine.client()).let_pass(rollout())
    events = machine.events
    assert events.index("asked uwsgi-2 /health: 302") > events.index("asked uwsgi-1 /health: 200")
    assert events.count("asked uwsgi-1 /health: 200") == 1, "who has answered well is not asked again and again"
    assert events.index("asked client /health: 200") > events.index("asked uwsgi-2 /health: 302")
    assert machine.current == folder_of(rollout())


def test_progress_is_told(machine: FakeMachine) -> None:
    told: list[str] = []
    Gate(machine.client(), told.append).let_pass(rollout())
    assert told == ["uwsgi-1 is healthy", "uwsgi-2 is healthy", "the release is live"]


@pytest.mark.parametrize(
    ("network_mode", "migrate", "warned"), [("bridge", "0", False), ("host", "0", True), ("host", "1", False)]
)
def test_on_the_host_it_is_told_that_the_kernel_may_reset_connections(
    machine: FakeMachine, network_mode: str, migrate: str, warned: bool
) -> None:
    machine.nginx.network_mode = network_mode
    setting = machine.root / "proc/sys/net/ipv4/tcp_migrate_req"
    setting.parent.mkdir(parents=True)
    setting.write_text(f"{migrate}\n")
    told: list[str] = []
    Gate(machine.client(), told.append).let_pass(rollout())
    assert any("net.ipv4.tcp_migrate_req=1" in line for line in told) is warned


def test_the_gate_waits_until_the_old_workers_have_drained(machine: FakeMachine, clock: FakeClock) -> None:
    machine.drain = 1.9
    started = clock.now
    Gate(machine.client()).let_pass(rollout(drain_timeout=2))
    assert machine.events[-1] == "old workers gone"
    assert clock.now - started >= 1.9


def test_what_is_in_force_is_never_written_over_not_even_by_the_same(machine: FakeMachine) -> None:
    one, other = folder_of(rollout()), f"{folder_of(rollout())}-again"
    for _ in range(3):
        Gate(machine.client()).let_pass(rollout())
    assert [event for event in machine.events if event.startswith("swap")] == [
        f"swap to {folder}" for folder in (one, other, one)
    ]
    assert machine.current == one
    assert machine.events.count("reload") == 3
    assert not machine.probe_runs


def test_a_probe_that_a_killed_gate_left_is_stopped_first(machine: FakeMachine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # As a SIGKILL: nothing is cleaned up.
        patch.setattr(machine, "call", killed_after(machine, "probe started"))
        with pytest.raises(KeyboardInterrupt):
            Gate(machine.client()).let_pass(rollout())
    assert machine.probe_runs
    Gate(machine.client()).let_pass(rollout())
    events = machine.events
    assert events.count("probe started") == events.count("probe stopped") == 2
    assert machine.current == folder_of(rollout())
    assert not machine.probe_runs


def killed_after(machine: FakeMachine, event: str) -> Callable[[], None]:
    def call() -> None:
        if event in machine.events:
            raise KeyboardInterrupt

    return call


def test_an_interrupted_gate_stops_its_probe(machine: FakeMachine, clock: FakeClock) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    machine.replicas["uwsgi-1"].answer = lambda: (502, "")
    clock.on_tick.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        Gate(machine.client()).let_pass(rollout())
    assert not machine.probe_runs
    assert machine.current == "boot"


# Replicas that do not prove themselves


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, ""), "is answered with 500"),
        ((404, ""), "is answered with 404"),
        ((199, ""), "is answered with 199"),
        ((502, ""), "is not answered, its socket takes no connection"),
        ((504, ""), "is not answered (time-out)"),
        ((0, "Operation timed out after 5000 milliseconds"), "is not answered (Operation timed out after 5000"),
    ],
)
def test_a_replica_that_is_not_healthy_in_time_is_refused(
    machine: FakeMachine, clock: FakeClock, answer: tuple[int, str], words: str
) -> None:
    machine.replicas["uwsgi-2"].answer = lambda: answer
    started = clock.now
    message = refusal(machine, rollout(health_timeout=3))
    assert message.startswith(f"uwsgi-2 (stack-uwsgi-2) is not healthy after 3 s: GET /health {words}")
    assert "the container is running." in message
    assert "Nothing changed" in message
    assert "healthTimeout" in message
    assert "healthPath" in message
    assert message.endswith("Its last words:\nstarting\nuwsgi-2: last words")
    assert 3 <= clock.now - started <= 4
    assert not [event for event in machine.events if event.startswith("asked client")]


def test_of_several_unhealthy_replicas_one_is_told_and_the_others_are_counted(machine: FakeMachine) -> None:
    add_release(machine, "new", 5)
    for number in (2, 3, 5):
        machine.replicas[f"uwsgi-{number}"].answer = lambda: (500, "")
    assert refusal(machine, rollout(count=5)).startswith("uwsgi-2 (stack-uwsgi-2), and 2 more is not healthy")


def test_a_silent_replica_is_told_to_have_said_nothing(machine: FakeMachine) -> None:
    machine.replicas["uwsgi-1"].answer = lambda: (500, "")
    machine.replicas["uwsgi-1"].words = ""
    assert refusal(machine).endswith("It has said nothing.")


def test_only_the_last_of_many_words_are_told(machine: FakeMachine) -> None:
    machine.replicas["uwsgi-1"].answer = lambda: (500, "")
    machine.replicas["uwsgi-1"].words = "".join(f"line {number}\n" for number in range(1000))
    message = refusal(machine)
    assert message.endswith("line 999")
    assert "line 999" in message.splitlines()
    assert f"line {1000 - last_words.LINES}" in message.splitlines()
    assert f"line {999 - last_words.LINES}" not in message.splitlines()


@pytest.mark.parametrize(
    ("state", "condition"),
    [
        ({"status": "exited", "exit_code": 22}, "exited, exit code 22"),
        ({"status": "dead", "exit_code": 1}, "dead, exit code 1"),
        ({"status": "restarting", "restarts": 4, "exit_code": 1}, "restarting, restarted 4 times, exit code 1"),
        (
            {"status": "restarting", "restarts": 4, "exit_code": 137, "out_of_memory": True},
            "restarting, restarted 4 times, killed for want of memory",
        ),
        ({"status": "running", "restarts": 4, "started": BOOT_TIME}, "running, restarted 4 times"),
    ],
)
def test_a_replica_that_crashes_is_refused_without_waiting_for_the_timeout(
    machine: FakeMachine, clock: FakeClock, state: dict[str, object], condition: str
) -> None:
    replica = machine.replicas["uwsgi-1"]
    replica.answer = lambda: (502, "")
    for name, value in state.items():
        setattr(replica, name, value)
    started = clock.now
    message = refusal(machine, rollout(health_timeout=300))
    assert message.startswith(f"uwsgi-1 (stack-uwsgi-1) does not stay up: {condition}. Nothing changed")
    assert message.endswith("uwsgi-1: last words")
    assert clock.now - started < 1


@pytest.mark.parametrize(
    "state",
    [
        {"restarts": 1, "started": BOOT_TIME},
        {"restarts": 50, "started": BOOT_TIME - timedelta(minutes=1)},
        {"status": "restarting", "restarts": 1, "exit_code": 1},
    ],
    ids=["one restart is allowed", "long up again", "in its first restart"],
)
def test_a_replica_that_may_still_recover_is_waited_for(
    machine: FakeMachine, clock: FakeClock, state: dict[str, object]
) -> None:
    replica = machine.replicas["uwsgi-1"]
    replica.answer = after(clock, 1, 200)
    for name, value in state.items():
        setattr(replica, name, value)
    Gate(machine.client()).let_pass(rollout())
    assert machine.current == folder_of(rollout())


def test_a_crash_loop_is_seen_while_waiting(machine: FakeMachine, clock: FakeClock) -> None:
    replica = machine.replicas["uwsgi-2"]
    replica.answer = lambda: (502, "")

    def crash() -> None:
        replica.restarts += 1
        replica.started = BOOT_TIME + timedelta(seconds=clock.now - 1000)

    clock.on_tick.append(crash)
    assert "uwsgi-2 (stack-uwsgi-2) does not stay up: running, restarted 2 times" in refusal(machine)


def test_a_container_that_is_gone_is_refused_with_what_to_do(machine: FakeMachine) -> None:
    del machine.replicas["uwsgi-2"]
    machine.replicas["uwsgi-2-other"] = FakeReplica("uwsgi-2-other")
    message = refusal(machine)
    assert message.startswith("The container of uwsgi-2 is gone.")
    assert "pulumi up --refresh" in message


def test_an_app_that_a_client_does_not_reach_is_refused(machine: FakeMachine) -> None:
    machine.client_answer = (404, "")
    message = refusal(machine)
    assert "not reached through the new NGINX configuration: GET /health is answered with 404, 2 times of 2" in message
    assert "Nothing changed" in message
    assert "asked uwsgi-2 /health: 200" in machine.events


# NGINX


def test_an_nginx_that_is_down_is_refused_and_nothing_is_put(machine: FakeMachine) -> None:
    machine.nginx.status, machine.nginx.exit_code, machine.nginx.restarts = "restarting", 1, 3
    message = refusal(machine)
    assert message.startswith("NGINX (stack-nginx) does not run: it is restarting, restarted 3 times, exit code 1.")
    assert message.endswith("nginx: last words")
    assert machine.events == []


def test_an_nginx_without_a_master_is_refused(machine: FakeMachine) -> None:
    (machine.root / "run/nginx/nginx.pid").unlink()
    assert refusal(machine).startswith("NGINX (stack-nginx) does not run: it is running.")


def test_an_nginx_that_just_starts_is_waited_for(machine: FakeMachine, clock: FakeClock) -> None:
    machine.nginx.status = "created"

    def start() -> None:
        if clock.now > 1002:
            machine.nginx.status = "running"

    clock.on_tick.append(start)
    Gate(machine.client()).let_pass(rollout())
    assert machine.current == folder_of(rollout())


def test_a_missing_nginx_is_refused(machine: FakeMachine) -> None:
    machine.nginx.name = "somebody-else"
    assert "No such container: id-of-nginx" in refusal(machine)


def test_a_configuration_that_nginx_rejects_is_refused_in_nginxs_words(machine: FakeMachine) -> None:
    machine.test_error = 'nginx: [emerg] unknown directive "servre" in /etc/nginx/live/x/nginx.conf:7'
    message = refusal(machine)
    assert message.startswith("NGINX rejects the configuration; the one before it stays in force.")
    assert machine.test_error in message
    assert "probe started" not in machine.events


def test_a_probe_that_does_not_start_is_refused_in_nginxs_words(machine: FakeMachine) -> None:
    machine.start_error = "nginx: [emerg] no memory"
    message = refusal(machine)
    assert message.startswith("NGINX does not start with the configuration")
    assert "nginx: [emerg] no memory" in message
    assert not [event for event in machine.events if event.startswith("asked")]


def test_a_master_that_does_not_take_over_is_given_its_old_configuration_back(machine: FakeMachine) -> None:
    machine.takes_over = False
    (machine.sockets / "uwsgi-1-old.sock").touch()
    workers = list(machine.workers)
    with pytest.raises(Refused) as refused:
        Gate(machine.client()).let_pass(rollout())
    assert str(refused.value).startswith("NGINX did not take over the configuration that it had tested")
    assert str(refused.value).endswith("nginx: last words")
    assert machine.current == "boot"
    assert [event for event in machine.events if event.startswith(("swap", "reload"))] == [
        f"swap to {folder_of(rollout())}",
        "reload",
        "swap to boot",
        "reload",
    ]
    assert machine.workers == workers
    assert not machine.probe_runs
    assert (machine.sockets / "uwsgi-1-old.sock").exists(), "nothing is swept that may still serve"


def test_a_reload_that_fails_is_told(machine: FakeMachine) -> None:
    machine.reload_error = "nginx: [alert] kill(1, 1) failed (3: No such process)"
    with pytest.raises(Refused, match="NGINX could not be told to reload") as refused:
        Gate(machine.client()).let_pass(rollout())
    assert machine.reload_error in str(refused.value)


def test_a_reload_that_fails_is_taken_back(machine: FakeMachine) -> None:
    machine.reload_error = "nginx: [alert] kill(1, 1) failed (3: No such process)"
    with pytest.raises(Refused):
        Gate(machine.client()).let_pass(rollout())
    assert machine.current == "boot"


def test_old_workers_that_linger_keep_the_replicas_they_serve(machine: FakeMachine, clock: FakeClock) -> None:
    machine.drain = 1000
    (machine.sockets / "uwsgi-1-old.sock").touch()
    started = clock.now
    with pytest.raises(Refused) as refused:
        Gate(machine.client()).let_pass(rollout(drain_timeout=2))
    assert str(refused.value).startswith("The release is live, but old NGINX workers still run 2 s after the reload")
    assert machine.current == folder_of(rollout())
    assert clock.now - started > 2
    assert (machine.sockets / "uwsgi-1-old.sock").exists()


# Sweeping


def test_sockets_in_use_are_kept_and_stale_ones_are_removed(machine: FakeMachine) -> None:
    add_release(machine, "draining")
    for name in (
        "uwsgi-1-stale.sock",
        "uwsgi-9-stale.sock.starting",
        "uwsgi-1-new.sock.starting",
        "odd name'$(x).sock",
    ):
        (machine.sockets / name).touch()
    stopped = FakeReplica("stopped", env=["REPLICA_SOCKET=/run/uwsgi/stopped.sock"], status="exited")
    elsewhere = FakeReplica("elsewhere", env=["REPLICA_SOCKET=/run/uwsgi/elsewhere.sock"], volume="of-another-stack")
    without = FakeReplica("without", env=None)
    machine.replicas |= {"stopped": stopped, "elsewhere": elsewhere, "without": without}
    for name in ("stopped.sock", "elsewhere.sock"):
        (machine.sockets / name).touch()
    Gate(machine.client()).let_pass(rollout())
    kept = {path.name for path in machine.sockets.iterdir()}
    assert kept >= {
        "uwsgi-1-new.sock",
        "uwsgi-2-new.sock",
        "uwsgi-1-new.sock.starting",
        "uwsgi-1-draining.sock",
        "uwsgi-2-draining.sock",
    }
    assert not kept & {"uwsgi-1-stale.sock", "uwsgi-9-stale.sock.starting", "stopped.sock", "elsewhere.sock"}


def test_the_exporter_is_told_which_sockets_are_asked(machine: FakeMachine) -> None:
    Gate(machine.client()).let_pass(rollout())
    assert (machine.sockets / "members").read_text() == "uwsgi-1-new.sock\nuwsgi-2-new.sock\n"
    Gate(machine.client()).let_pass(rollout(count=1))
    assert (machine.sockets / "members").read_text() == "uwsgi-1-new.sock\n"
    assert not (machine.sockets / "members.next").exists()


def test_who_is_asked_does_not_change_with_a_release_that_is_refused(machine: FakeMachine) -> None:
    Gate(machine.client()).let_pass(rollout())
    machine.test_error = "nginx: [emerg] no"
    with pytest.raises(Refused):
        Gate(machine.client()).let_pass(rollout(count=1))
    assert "uwsgi-2-new.sock" in (machine.sockets / "members").read_text()


def test_configurations_not_in_force_are_removed_but_for_the_first_one(machine: FakeMachine) -> None:
    Gate(machine.client()).let_pass(rollout())
    other = rollout(count=1)
    Gate(machine.client()).let_pass(other)
    assert {path.name for path in machine.live.iterdir()} == {"boot", "current", folder_of(other)}


def test_nothing_is_swept_after_a_refusal(machine: FakeMachine) -> None:
    (machine.sockets / "uwsgi-1-stale.sock").touch()
    machine.replicas["uwsgi-1"].answer = lambda: (500, "")
    refusal(machine)
    assert (machine.sockets / "uwsgi-1-stale.sock").exists()


# A daemon that fails


CALLS = 30  # to the daemon, at least as many as a release makes


@pytest.mark.parametrize("number", range(CALLS))
def test_whichever_call_to_the_daemon_fails_the_release_is_live_or_nothing_changed(
    machine: FakeMachine, number: int
) -> None:
    machine.fail_at = number
    refused = None
    try:
        Gate(machine.client()).let_pass(rollout())
    except Refused as error:
        refused = error
    if refused:
        assert "The Docker daemon did not do what the release needs" in str(refused)
        assert "the daemon is out of order" in str(refused)
        swapped = any(event.startswith("swap") for event in machine.events)
        assert machine.current == (folder_of(rollout()) if swapped else "boot")
        assert isinstance(refused.__cause__, type(machine.failure))
    else:
        assert machine.current == folder_of(rollout())
        assert "old workers gone" in machine.events
    started, stopped = machine.events.count("probe started"), machine.events.count("probe stopped")
    assert started == stopped or machine.calls == number + 1, (
        "only a failed stop may leave it, and the next gate stops it"
    )


def test_failing_calls_cover_the_whole_gate(machine: FakeMachine) -> None:
    Gate(machine.client()).let_pass(rollout())
    assert 10 < machine.calls <= CALLS


@pytest.mark.parametrize("failure", [requests.ConnectionError("daemon gone"), requests.ReadTimeout("too slow")])
def test_a_daemon_that_goes_away_is_told_in_words(machine: FakeMachine, failure: Exception) -> None:
    machine.fail_at, machine.failure = 3, failure
    assert str(failure) in refusal(machine)


def test_a_failing_daemon_does_not_hide_why_the_release_was_refused(machine: FakeMachine) -> None:
    machine.replicas["uwsgi-1"].answer = lambda: (500, "")
    machine.replicas["uwsgi-1"].status, machine.replicas["uwsgi-1"].exit_code = "exited", 22
    with pytest.raises(Refused) as refused:
        Gate(machine.client()).let_pass(rollout())
    assert "does not stay up: exited, exit code 22" in str(refused.value)


# What `pulumi refresh` asks


def test_the_configuration_in_force_can_be_read(machine: FakeMachine) -> None:
    reader = Gate(machine.client())
    assert reader.live_configuration("id-of-nginx") == "# boot\n"
    reader.let_pass(rollout())
    assert reader.live_configuration("id-of-nginx") == rollout().configuration


def test_where_there_is_none_to_be_read_that_is_no_error(machine: FakeMachine) -> None:
    reader = Gate(machine.client())
    assert reader.live_configuration("id-of-nobody") is None
    (machine.live / "current").unlink()
    assert reader.live_configuration("id-of-nginx") is None
    machine.nginx.status = "exited"
    assert reader.live_configuration("id-of-nginx") is None
    machine.fail_at, machine.calls, machine.failure = 0, 0, api_error(500, "out of order")
    assert reader.live_configuration("id-of-nginx") is None


# What the fake does not see


def test_a_name_with_odd_characters_reaches_no_shell_unquoted(machine: FakeMachine) -> None:
    what = rollout()
    what = Rollout(**{**what.__dict__, "health_path": "/it's;$(reboot)&"})
    seen: list[str] = []
    run = machine.run

    def recorded(script: str) -> tuple[int, bytes]:
        seen.append(script)
        return run(script)

    machine.run = recorded  # type: ignore[method-assign]
    Gate(machine.client()).let_pass(what)
    asking = [script for script in seen if "curl" in script]
    assert len(asking) >= 2
    for script in asking:
        assert re.search(r"""'"'"'s;\$\(reboot\)&'""", script)
