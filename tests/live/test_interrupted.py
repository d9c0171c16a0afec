"""Updates that are interrupted at every stage, under load: nobody notices, and one command puts all right.

SIGINT goes to the process group of the CLI, once, as Ctrl-C in a shell does. The engine gives each of its plugins a
group of its own, so it alone gets it, as with `kill -INT`: it finishes the steps under way and saves their outcome.
SIGKILL goes to that group too, which leaves the plugins without an engine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import ROOT, Result, Stack, eventually

RELEASE = re.compile(r'RELEASE = "(\w+)"')
STAGE_TIMEOUT = 120  # seconds until an update must have come to the stage at which it is interrupted
LINGERING = 5  # seconds in which what the CLI started has to end
QUICK = 20  # seconds for a recovery with nothing to do, on a machine that is busy

CREATED = ""  # seen by the daemon: a container is there, and the engine does not know it yet
STAGES = {
    "building the image": r"app-image updating .*Running in",
    "creating containers": CREATED,
    "waiting for health": r"Release release updating",
    "just reloaded": "the release is live",
    "deleting the old replicas": "deleting original",
}
# What comes next: after Ctrl-C a plain `up`, with and without --refresh; after SIGKILL `make recover`.
CASES = [
    *[(stage, signal.SIGINT, "up --refresh" if index % 2 else "up") for index, stage in enumerate(STAGES)],
    *[(stage, signal.SIGKILL, "make recover") for stage in STAGES],
    ("creating containers", signal.SIGKILL, "cancel, up --refresh, make recover"),
]


@pytest.fixture(scope="module")
def ready(running: Stack) -> Stack:
    """The stack with short time-outs, and with what `make recover` knows of the machine."""
    running.configure(drainTimeout="5", healthTimeout="20")
    running.up()
    (running.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", running.folder / ".local")
    return running


def release(stack: Stack) -> str:
    """Changes the app's source so that it is another release; its name."""
    file = stack.folder / "app" / "webapp.py"
    name = f"r{time.monotonic_ns()}"
    file.write_text(RELEASE.sub(f'RELEASE = "{name}"', file.read_text()))
    return name


def recover(stack: Stack) -> Result:
    """`make recover` in the stack's folder, on a machine that is ready for it."""
    code = (
        "import sys; from pathlib import Path; from tooling import bootstrap, cli\n"
        "cli.ROOT, bootstrap.ensure = Path(sys.argv[1]), lambda *_: None\n"
        "sys.exit(cli.main(['recover', sys.argv[2]]))"
    )
    begin = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code, str(stack.folder), stack.name],
        cwd=stack.folder,
        env={**stack.environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    result = Result(process.returncode, process.stdout, time.monotonic() - begin)
    stack.log.append(f"$ make recover   [{result.code}, {result.seconds:.1f} s]\n{result.output}")
    return result


class Interrupted:
    """An `up` that runs to a stage, and no further than a signal lets it."""

    def __init__(self, stack: Stack, stage: str) -> None:
        self._stack, self._stage, self._pattern = stack, stage, STAGES[stage]
        self._lines: list[str] = []
        self._known = {str(container.name) for container in stack.containers()}
        self._reached = threading.Event()
        now = int(time.time())
        created = stack.docker.events(
            decode=True,
            since=now,  # else the daemon tells all that it remembers
            until=now + STAGE_TIMEOUT,
            filters={"type": "container", "event": "create", "label": f"uwsgi-nginx.stack={stack.name}"},
        )
        self.process = stack.start("up", "--yes", "--skip-preview")
        watchers = [threading.Thread(target=self._read, daemon=True)]
        if self._pattern == CREATED:
            watchers.append(threading.Thread(target=self._watch, args=(created,), daemon=True))
        self._reader = watchers[0]
        for watcher in watchers:
            watcher.start()
        try:
            eventually(lambda: self._reached.is_set() or not self._reader.is_alive(), STAGE_TIMEOUT, stage)
            assert self._reached.is_set(), f"the update ended before {stage}:\n{self.output}"
        except BaseException:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            created.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.append(line)
                if self._pattern != CREATED and re.search(self._pattern, line):
                    self._reached.set()

    def _watch(self, created: Iterator[Any]) -> None:
        for event in created:
            if event["Actor"]["Attributes"]["name"] not in self._known:
                self._reached.set()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def by(self, sign: signal.Signals) -> str:
        """Interrupts it; what it said."""
        os.killpg(self.process.pid, sign)
        code = self.process.wait(120)
        self._reader.join(LINGERING)
        self._stack.log.append(f"$ pulumi up, {sign.name} while {self._stage}   [{code}]\n{self.output}")
        assert self._pattern != CREATED or "app-image updated" in self.output, "it had come that far"
        assert code == (1 if sign == signal.SIGINT else -signal.SIGKILL)
        return self.output


def processes(stack: Stack) -> dict[int, str]:
    """What runs in the stack's folder: the CLI, its plugins, the program."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if (path / "cwd").readlink() == stack.folder and state != "Z":
                found[int(path.name)] = (path / "cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
    return found


def state(stack: Stack) -> dict[str, Any]:
    return dict(json.loads(stack.pulumi("stack", "export").output)["deployment"])


def assert_in_the_declared_state(stack: Stack, name: str, *, previous: set[str] | None = None) -> None:
    """Nothing to do, and nothing there but what is declared.

    Args:
        stack: the stack.
        name: the release that is declared.
        previous: releases whose sockets may still be there, as after every `up`: the next release sweeps them.
    """
    assert stack.get().split()[0] == name
    deployment = state(stack)
    assert not deployment.get("pending_operations")
    known = {resource["id"] for resource in deployment["resources"] if resource["type"].endswith(":Container")}
    assert {container.id for container in stack.containers()} == known, "no orphan, and nothing missing"
    assert [container.labels["uwsgi-nginx.role"] for container in stack.containers()] == ["nginx", "replica", "replica"]
    assert not list((stack.folder.parent / "state").glob(".pulumi/locks/**/*.json")), "unlocked"
    current = stack.outputs()["release"]
    declared = {f"uwsgi-{number}-{current}.sock" for number in (1, 2)}
    sockets = set(stack.run_in(stack.nginx, "ls /run/uwsgi | grep -v -e members -e '[.]stats$'")[1].split())
    older = {f"uwsgi-{number}-{before}.sock" for number in (1, 2) for before in previous or ()}
    assert declared <= sockets <= declared | older
    assert stack.run_in(stack.nginx, "ls /run/nginx | grep probe")[1] == ""
    if previous is None:
        live = stack.run_in(stack.nginx, "ls /etc/nginx/live; readlink /etc/nginx/live/current")[1].split()
        assert sorted(live[:-1]) == sorted(["boot", "current", live[-1]])


@pytest.mark.parametrize(("stage", "sign", "step"), CASES, ids=[f"{c[1].name}-{c[2]}-{c[0]}" for c in CASES])
def test_an_interrupted_update_drops_nothing_and_one_step_completes_it(
    ready: Stack, record: Record, stage: str, sign: signal.Signals, step: str
) -> None:
    """Sends the signal to the CLI's process group at that stage of a release, then takes the step."""
    before = {ready.outputs()["release"]}
    note = ""
    with Load(ready.port) as load:
        name = release(ready)
        Interrupted(ready, stage).by(sign)
        if step == "make recover":
            result = recover(ready)
            assert result.code == 0, result.output
            assert result.output.splitlines()[-1] == ready.url
            did = Counter(re.findall(r"^(removed: the \w+|removed|ended|swept)", result.output, re.MULTILINE))
            note = ", ".join(f"{what} {number}" for what, number in did.items())
        else:
            if step.startswith("cancel"):
                ready.pulumi("cancel", "--yes")
            ready.up(*re.findall("--refresh", step))
            if step.startswith("cancel"):
                # No harm is done, but orphans and plugins may be left.
                assert ready.get().split()[0] == name
                assert recover(ready).code == 0
    record(f"an update that gets {sign.name} while {stage}, then {step}", load, note)
    load.assert_nothing_was_dropped()
    if sign == signal.SIGINT:
        eventually(lambda: not processes(ready), LINGERING, "all that the CLI has started ends")
    assert not processes(ready)
    assert_in_the_declared_state(ready, name, previous=before if sign == signal.SIGINT else None)


def test_a_gate_whose_engine_was_killed_does_not_go_on(ready: Stack) -> None:
    """It would swap to replicas that the next update may be deleting by then."""
    link = "readlink /etc/nginx/live/current"
    before = ready.run_in(ready.nginx, link)[1]
    good = (ready.folder / "app" / "webapp.py").read_text()
    ready.edit("app/webapp.py", "WELL = True", "import time\nWELL = False\nBORN = time.monotonic()")
    ready.edit("app/webapp.py", "if WELL else", "if time.monotonic() > BORN + 6 else")
    try:
        Interrupted(ready, "waiting for health").by(signal.SIGKILL)
        eventually(
            lambda: not [text for text in processes(ready).values() if "pulumi.dynamic" in text],
            LINGERING,
            "the gate ends with its engine",
        )
        time.sleep(7)  # by now its replicas are healthy
        assert ready.run_in(ready.nginx, link)[1] == before
    finally:
        (ready.folder / "app" / "webapp.py").write_text(good)
    name = release(ready)
    assert recover(ready).code == 0
    assert_in_the_declared_state(ready, name)


def test_a_configuration_that_went_live_unknown_to_the_state_is_put_right(ready: Stack) -> None:
    """Killed after the reload, then `git revert`: the state has the old one, NGINX the new one."""
    ready.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens off;\n    # another")
    Interrupted(ready, "just reloaded").by(signal.SIGKILL)
    read = "cat /etc/nginx/live/current/nginx.conf"
    assert "# another" in ready.run_in(ready.nginx, read)[1]
    ready.edit("nginx/nginx.conf.j2", "server_tokens off;\n    # another", "server_tokens off;")
    assert recover(ready).code == 0
    assert "# another" not in ready.run_in(ready.nginx, read)[1]
    assert_in_the_declared_state(ready, ready.get().split()[0])


def test_a_recovery_is_quick_where_all_is_well_and_leaves_others_alone(ready: Stack) -> None:
    name = ready.get().split()[0]
    replica = ready.replica("uwsgi-1")
    volume = next(mount["Name"] for mount in replica.attrs["Mounts"] if mount["Type"] == "volume")
    before = {container.id for container in ready.containers()}

    def foreign(stack: str, *, mounts: bool) -> Any:
        return ready.docker.containers.create(
            replica.attrs["Image"],
            labels={**replica.labels, "uwsgi-nginx.stack": stack},
            volumes=[f"{volume}:/run/uwsgi"] if mounts else [],
        )

    of_another = foreign(f"{ready.name}-2", mounts=True)
    of_another_clone = foreign(ready.name, mounts=False)
    orphan = foreign(ready.name, mounts=True)
    try:
        result = recover(ready)
        assert result.code == 0, result.output
        assert re.findall("removed: the (.+),", result.output) == [f"container {orphan.name}"]
        assert f"left: the container {of_another_clone.name}" in result.output
        assert str(of_another.name) not in result.output
        of_another.reload()
    finally:
        for container in (of_another, of_another_clone):
            container.remove(force=True)
    again = recover(ready)
    assert again.code == 0
    assert again.seconds < QUICK
    assert not re.findall(r"^(removed|left|ended|swept|restarted):", again.output, re.MULTILINE), again.output
    assert {container.id for container in ready.containers()} == before
    assert_in_the_declared_state(ready, name)
    ready.preview("--expect-no-changes")


def test_an_orphan_that_answers_in_a_replicas_place_hands_it_back(ready: Stack, record: Record) -> None:
    """It was created later and listens at the same path, so NGINX asks it; removed as it is, it would leave a gap."""
    replica = ready.replica("uwsgi-1")
    look = f"stat -c %i /run/uwsgi/uwsgi-1-{ready.outputs()['release']}.sock"
    before = ready.run_in(ready.nginx, look)[1]
    volume = next(mount["Name"] for mount in replica.attrs["Mounts"] if mount["Type"] == "volume")
    orphan = ready.docker.containers.create(
        replica.attrs["Image"],
        labels=replica.labels,
        environment=replica.attrs["Config"]["Env"],
        hostname="orphan",
        volumes=[f"{volume}:/run/uwsgi"],
    )
    with Load(ready.port) as load:
        orphan.start()
        eventually(lambda: ready.run_in(ready.nginx, look)[1] != before, 30, "the orphan takes the socket over")
        eventually(lambda: "orphan" in ready.get(), 10, "the orphan is asked")
        result = recover(ready)
        assert result.code == 0, result.output
        assert f"restarted: {replica.name}" in result.output
    record("an orphan in a replica's place, then make recover", load)
    load.assert_nothing_was_dropped()
    assert set(ready.answering(10)) == {"uwsgi-1", "uwsgi-2"}
    assert_in_the_declared_state(ready, ready.get().split()[0])


def test_a_recovery_does_not_touch_an_update_that_runs(ready: Stack) -> None:
    name = release(ready)
    update = Interrupted(ready, "waiting for health")
    refused = recover(ready)
    assert refused.code == 1
    assert f"runs right now (process {update.process.pid})" in refused.output
    assert update.process.wait(120) == 0, update.output
    assert ready.get().split()[0] == name
