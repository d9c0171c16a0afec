"""The release gate: routes NGINX to a release only when it has proven itself.

It talks to the Docker daemon alone and knows nothing of Pulumi; `release.py` makes a resource of it. In order, it

1. puts the new configuration into NGINX's volume, in a folder of its own beside the one in force, and tests it;
2. starts a probe: a second NGINX with that configuration in the same container, on a unix socket only;
3. asks every replica for its health path through the probe until all answer well, then the app as a client would;
4. copies the files that NGINX serves itself; swaps one link, reloads, waits for the new workers, and for the old ones
   to be gone;
5. sweeps what nothing uses any more.

Whatever fails before the swap raises `Refused` and has changed nothing; a reload that fails is taken back.
"""

import hashlib
import io
import json
import shlex
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from typing import cast

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from infra import last_words, static_files
from infra.docker_host import DAEMON_ERRORS
from infra.layout import (
    CACHE_FOLDER,
    CONFIGURATION_FILE,
    CURRENT,
    LIVE_FOLDER,
    MEMBERS_FILE,
    NGINX_USER,
    PID_FILE,
    PROBE_LOG,
    PROBE_PID_FILE,
    PROBE_SOCKET,
    SOCKET_FOLDER,
    SOCKET_GROUP,
    SOCKET_VARIABLE,
    TEST_PID_FILE,
)
from infra.refusal import Refused
from infra.static_files import StaticFiles

PROBE_FOLDER = "probe"
AGAIN = "-again"  # ends the name of a folder that takes the place of one with the same content

# What the gate does in NGINX's container are shell scripts, as few as can be: each `docker exec` takes some 60 ms.
STOP_PROBE = (
    f"if [ -s {PROBE_PID_FILE} ]; then kill -QUIT $(cat {PROBE_PID_FILE}) 2>/dev/null; "
    f"for i in $(seq 250); do [ -e {PROBE_PID_FILE} ] || break; sleep 0.02; done; "
    f"[ -e {PROBE_PID_FILE} ] && kill -KILL $(cat {PROBE_PID_FILE}) 2>/dev/null; fi; "
    f"rm -f {PROBE_PID_FILE} {PROBE_SOCKET} {PROBE_LOG}"
)
# The process ids, as /proc names them, of NGINX's workers.
LIST_WORKERS = "grep -ls 'nginx: worke[r] process' /proc/[0-9]*/cmdline"

REQUEST_TIMEOUT = 5  # seconds for one probe of one replica
RELOAD_TIMEOUT = 10  # seconds until the master must have started its new workers
POLL_INTERVAL = 0.1  # seconds
LOG_TAIL = 10000  # lines in which to look for them: most of NGINX's are about requests
RESTARTS_ALLOWED = 1  # more of them, and down or only just up again, is a crash loop
STEADY_AFTER = 10  # seconds; as long as Docker itself takes to forget a crash


@dataclass(frozen=True)
class Replica:
    """A replica of the release: its name, its container's id, and its socket as NGINX sees it."""

    name: str
    container: str
    socket: str


@dataclass(frozen=True)
class Rollout:
    """What is to go live.

    Attributes:
        nginx: id of NGINX's container.
        replicas: all that the configuration names.
        configuration: text of the NGINX configuration.
        files: what it reads beside it, texts by name.
        secrets: the same of what nobody else may read.
        probe_files: those that are others for the probe, by the same names.
        health_path: what each replica is asked for.
        health_timeout: seconds until all must be healthy.
        drain_timeout: seconds that NGINX keeps old workers, as in the configuration.
        client_headers: each takes a request another way through the configuration; none where there is one way.
        static: the files that NGINX serves itself, of each release.
        drained: names of replicas that get no request. They may be unwell: that is what one takes them out for.
    """

    nginx: str
    replicas: Sequence[Replica]
    configuration: str
    files: Mapping[str, str]
    probe_files: Mapping[str, str]
    health_path: str
    health_timeout: float
    drain_timeout: float
    secrets: Mapping[str, str] = field(default_factory=dict)
    client_headers: Sequence[str] = ()
    static: Sequence[StaticFiles] = ()
    drained: Collection[str] = ()

    @property
    def serving(self) -> list[Replica]:
        """The replicas that get requests."""
        return [replica for replica in self.replicas if replica.name not in self.drained]

    @property
    def folder(self) -> str:
        """Where the configuration stands in NGINX's container; the name tells its content."""
        content = json.dumps([self.configuration, dict(self.files), dict(self.secrets)], sort_keys=True).encode()
        return f"{LIVE_FOLDER}/{hashlib.sha256(content).hexdigest()[:12]}"


class Gate:
    """Lets a `Rollout` pass, or refuses it."""

    def __init__(self, client: docker.DockerClient, progress: Callable[[str], None] = lambda _: None) -> None:
        self._client = client
        self._progress = progress

    def let_pass(self, rollout: Rollout) -> None:
        """Makes the rollout live.

        Raises:
            Refused: it did not prove itself; what was live before goes on.
        """
        outcome = "Nothing was routed to the release."
        try:
            nginx, before = self._nginx(rollout.nginx)
            folder = self._put(nginx, rollout, before)
            self._test(nginx, folder)
            with self._probe(nginx, folder):
                self._wait_until_healthy(nginx, rollout)
                self._ask_as_a_client(nginx, rollout)
            self._put_static_files(nginx, rollout)
            outcome = "The release may be live already; the one before it is kept until `pulumi up` has found out."
            self._make_live(nginx, rollout, folder, before)
            self._sweep(nginx, rollout, folder)
        except DAEMON_ERRORS as error:
            reason = getattr(error, "explanation", None) or error  # its own words, without the HTTP around them
            raise Refused(f"The Docker daemon did not do what the release needs: {reason}. {outcome}") from error

    def live_configuration(self, nginx: str) -> str | None:
        """The text in force, or None where there is none to be read."""
        try:
            code, text = _run(self._client.containers.get(nginx), f"cat {CURRENT}/{CONFIGURATION_FILE}")
        except DAEMON_ERRORS:
            return None
        return text if code == 0 else None

    def _nginx(self, container_id: str) -> tuple[Container, str]:
        """NGINX's container, and the name of the configuration's folder that is in force there."""
        container = self._client.containers.get(container_id)
        deadline = time.monotonic() + RELOAD_TIMEOUT
        while (current := _current(container)) is None:
            if time.monotonic() > deadline:
                raise Refused(
                    f"NGINX ({container.name}) does not run: it is {_condition(container)}. Nothing was routed to the "
                    f"release.\n{_last_words(container)}"
                )
            time.sleep(POLL_INTERVAL)
        return container, current

    def _put(self, nginx: Container, rollout: Rollout, before: str) -> str:
        """Writes the configuration's folder; returns its path."""
        path = rollout.folder
        if before == path.removeprefix(LIVE_FOLDER + "/"):
            path += AGAIN  # NGINX reads some files anew for each request: those in force are not touched
        folder = path.removeprefix(LIVE_FOLDER + "/")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            shared = {CONFIGURATION_FILE: rollout.configuration, **rollout.files, **rollout.secrets}
            for name in sorted({folder, *_folders_of(folder, shared), f"{folder}/{PROBE_FOLDER}"}):
                _add(tar, name, tarfile.DIRTYPE, 0o750)
            for name, text in shared.items():
                _add(tar, f"{folder}/{name}", tarfile.REGTYPE, 0o600 if name in rollout.secrets else 0o640, text)
            # NGINX looks for what it includes beside the link, so one text serves both instances.
            for name in sorted({name.split("/")[0] for name in shared} - set(rollout.probe_files)):
                _add(tar, f"{folder}/{PROBE_FOLDER}/{name}", tarfile.SYMTYPE, 0o777, f"../{name}")
            for name, text in rollout.probe_files.items():
                _add(tar, f"{folder}/{PROBE_FOLDER}/{name}", tarfile.REGTYPE, 0o640, text)
        # One that is there, of a release that was refused, is the same: the name tells the content.
        nginx.put_archive(LIVE_FOLDER, archive.getvalue())
        return path

    def _test(self, nginx: Container, path: str) -> None:
        code, output = _run(
            nginx,
            f"for folder in {path} {path}/{PROBE_FOLDER}; do "
            f"said=$(nginx -e stderr -t -c $folder/{CONFIGURATION_FILE} -g 'pid {TEST_PID_FILE};' 2>&1) || "
            '{ echo "$said"; exit 1; }; done',
        )
        if code:
            raise Refused(f"NGINX rejects the configuration; the one before it stays in force.\n{output}")

    @contextmanager
    def _probe(self, nginx: Container, path: str) -> Iterator[None]:
        command = f"nginx -e stderr -c {path}/{PROBE_FOLDER}/{CONFIGURATION_FILE} -g 'pid {PROBE_PID_FILE};'"
        # A gate that was killed may have left a probe. And while one holds the output of the command that started it,
        # Docker waits for more: two seconds until it says that the command has ended, and two before the next has.
        code, output = _run(
            nginx, f"{STOP_PROBE}; {command} 2>{PROBE_LOG} || {{ cat {PROBE_LOG}; rm {PROBE_LOG}; exit 1; }}"
        )
        if code:
            raise Refused(f"NGINX does not start with the configuration; the one before it stays in force.\n{output}")
        try:
            yield
        except BaseException:
            # What went wrong says more than a daemon that cannot do this either; the next gate stops the probe.
            with suppress(*DAEMON_ERRORS):
                _run(nginx, STOP_PROBE)
            raise
        _run(nginx, STOP_PROBE)

    def _wait_until_healthy(self, nginx: Container, rollout: Rollout) -> None:
        deadline = time.monotonic() + rollout.health_timeout
        waiting = rollout.serving
        for name in sorted(rollout.drained):
            self._progress(f"{name} is drained: nobody asks whether it is healthy")
        while True:
            paths = [f"/.probe/{replica.name}{rollout.health_path}" for replica in waiting]
            answers = dict(zip(waiting, _ask(nginx, paths), strict=True))
            healthy = [replica for replica in waiting if answers[replica].is_good]
            for replica in healthy:
                self._progress(f"{replica.name} is healthy")
            waiting = [replica for replica in waiting if replica not in healthy]
            if not waiting:
                return
            for replica in waiting:
                self._fail_early(replica)
            if time.monotonic() > deadline:
                raise Refused(self._unhealthy(waiting[0], rollout, answers[waiting[0]], len(waiting)))
            time.sleep(POLL_INTERVAL)

    def _fail_early(self, replica: Replica) -> None:
        try:
            container = self._client.containers.get(replica.container)
        except NotFound:
            raise Refused(
                f"The container of {replica.name} is gone. Nothing was routed to the release. "
                "`pulumi up --refresh` makes it anew."
            ) from None
        if _crashes(container):
            raise Refused(
                f"{replica.name} ({container.name}) does not stay up: {_condition(container)}. "
                f"Nothing changed: the release before it goes on serving.\n{_last_words(container)}"
            )

    def _unhealthy(self, replica: Replica, rollout: Rollout, answer: "Answer", waiting: int) -> str:
        container = self._client.containers.get(replica.container)
        others = f", and {waiting - 1} more" if waiting > 1 else ""
        return (
            f"{replica.name} ({container.name}){others} is not healthy after {rollout.health_timeout:g} s: "
            f"GET {rollout.health_path} {answer.in_words}; the container is {_condition(container)}. "
            "Nothing changed: the release before it goes on serving. Should it need longer, set healthTimeout; should "
            f"the app say that it is well somewhere else, healthPath.\n{_last_words(container)}"
        )

    def _ask_as_a_client(self, nginx: Container, rollout: Rollout) -> None:
        paths = [rollout.health_path] * len(rollout.serving)
        answers = [answer for header in rollout.client_headers or [""] for answer in _ask(nginx, paths, header)]
        bad = [answer for answer in answers if not answer.is_good]
        if bad:
            raise Refused(
                f"The replicas are healthy, but the app is not reached through the new NGINX configuration: GET "
                f"{rollout.health_path} {bad[0].in_words}, {len(bad)} times of {len(answers)}. Nothing changed: the "
                "configuration before it stays in force. Look at what preview shows of it."
            )

    def _put_static_files(self, nginx: Container, rollout: Rollout) -> None:
        run = partial(_run, nginx)
        for files in rollout.static:
            replica = self._client.containers.get(files.container)
            for folder in static_files.put(nginx, run, replica, files):
                self._progress(f"{replica.name} has no folder {folder}: the app answers for its static files")
        static_files.remember_the_release_before(run, [files.name for files in rollout.static])

    def _make_live(self, nginx: Container, rollout: Rollout, folder: str, before: str) -> None:
        try:
            old_workers = self._swap(nginx, folder)
        except Refused:
            _run(nginx, _link(before))
            raise
        deadline = time.monotonic() + RELOAD_TIMEOUT
        while not (workers := _workers(nginx)) - old_workers:
            # The master keeps its old workers, and its old configuration, when it cannot apply the new one.
            if time.monotonic() > deadline:
                self._swap(nginx, before)
                raise Refused(
                    "NGINX did not take over the configuration that it had tested; the one before it stays in force.\n"
                    f"{_last_words(nginx)}"
                )
            time.sleep(POLL_INTERVAL)
        self._progress("the release is live")
        _run(nginx, _name_members(rollout))
        self._warn_of_resets(nginx)
        deadline = time.monotonic() + rollout.drain_timeout + RELOAD_TIMEOUT
        while workers & old_workers:
            if time.monotonic() > deadline:
                raise Refused(
                    f"The release is live, but old NGINX workers still run {rollout.drain_timeout:g} s after the "
                    "reload; the replicas before it are kept for them. Run `pulumi up` again."
                )
            time.sleep(POLL_INTERVAL)
            workers = _workers(nginx)

    def _swap(self, nginx: Container, folder: str) -> set[str]:
        """Puts the configuration in `folder` in force; returns the workers that ran before."""
        code, output = _run(
            nginx,
            f"{LIST_WORKERS}; "
            f"{_link(folder)} && nginx -e stderr -c {CURRENT}/{CONFIGURATION_FILE} -g 'pid {PID_FILE};' -s reload",
        )
        lines = output.splitlines(keepends=True)
        workers = {line.strip() for line in takewhile(lambda line: line.startswith("/proc/"), lines)}
        if code:
            said = "".join(lines[len(workers) :])
            raise Refused(f"NGINX could not be told to reload; the configuration before stays in force.\n{said}")
        return workers

    def _warn_of_resets(self, nginx: Container) -> None:
        """On the host's network, the kernel decides over connections that a leaving NGINX has not accepted yet."""
        if nginx.attrs["HostConfig"]["NetworkMode"] != "host":
            return
        # https://docs.kernel.org/networking/ip-sysctl.html (since Linux 5.14)
        code, value = _run(nginx, "cat /proc/sys/net/ipv4/tcp_migrate_req")
        if code == 0 and value.strip() == "0":
            self._progress(
                "net.ipv4.tcp_migrate_req is 0 on this host: when NGINX is replaced under full load, connections "
                "not accepted yet may be reset; `sysctl -w net.ipv4.tcp_migrate_req=1` has them handed on instead"
            )

    def sweep(self, nginx: str) -> list[str]:
        """Removes what an update that was killed, or replicas that went, left in NGINX's volumes.

        Call it only while no gate is at work.

        Returns:
            the paths of the sockets, configurations and the probe that are gone.
        """
        container, current = self._nginx(nginx)
        code, _ = _run(container, f"test -e {PROBE_SOCKET}; left=$?; {STOP_PROBE}; exit $left")
        return [PROBE_SOCKET] * (code == 0) + self._remove_stale(container, current, set(), keep_cache=True)

    def _sweep(self, nginx: Container, rollout: Rollout, folder: str) -> None:
        """Removes configurations not in force, sockets whose containers are gone, and a cache that is no more."""
        in_use = {replica.socket for replica in rollout.replicas}
        keep_cache = any(CACHE_FOLDER in text for text in rollout.files.values())
        self._remove_stale(nginx, folder.removeprefix(LIVE_FOLDER + "/"), in_use, keep_cache=keep_cache)

    def _remove_stale(self, nginx: Container, current: str, in_use: set[str], *, keep_cache: bool) -> list[str]:
        folders, cache, static, configuration, present = _look(
            nginx,
            f"ls {LIVE_FOLDER}",
            f"ls -d {CACHE_FOLDER} 2>/dev/null",
            static_files.LIST,
            f"cat {CURRENT}/{CONFIGURATION_FILE}",
            f"ls {SOCKET_FOLDER}",
        )
        stale = [f"{LIVE_FOLDER}/{name}" for name in folders.split() if name not in {current, "boot", "current"}]
        stale += [] if keep_cache else cache.split()
        stale += static_files.stale(static, configuration)
        in_use = in_use | self._sockets_in_use(nginx)
        for path in (f"{SOCKET_FOLDER}/{name}" for name in present.split()):
            socket = path.removesuffix(".starting").removesuffix(".stats")
            if socket.endswith(".sock") and socket not in in_use:
                stale.append(path)
        if stale:
            _run(nginx, f"rm -rf {shlex.join(stale)}")
        return stale

    def _sockets_in_use(self, nginx: Container) -> set[str]:
        """The sockets of all containers that share the volume with NGINX: replicas that still drain are among them."""
        volume = next(mount["Name"] for mount in nginx.attrs["Mounts"] if mount["Destination"] == SOCKET_FOLDER)
        containers = self._client.containers.list(filters={"volume": volume}, ignore_removed=True)
        variables = (variable for container in containers for variable in container.attrs["Config"]["Env"] or [])
        return {
            text for name, _, text in (variable.partition("=") for variable in variables) if name == SOCKET_VARIABLE
        }


@dataclass(frozen=True)
class Answer:
    """What a probe got: an HTTP status, or 0 and what curl says."""

    status: int
    error: str

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 400

    @property
    def in_words(self) -> str:
        if self.status == 502:
            return "is not answered, its socket takes no connection"
        if self.status == 504 or not self.status:
            return f"is not answered ({self.error or 'time-out'})"
        return f"is answered with {self.status}"


def _ask(nginx: Container, paths: Sequence[str], header: str = "") -> list[Answer]:
    """Asks the probe for all `paths` at once."""
    headers = f"-H {shlex.quote(header)} " if header else ""
    urls = " ".join(f"-o /dev/null {shlex.quote('http://localhost' + path)}" for path in paths)
    _, output = _run(
        nginx,
        f"curl -sS --globoff --parallel --parallel-immediate --parallel-max {len(paths)} --max-time {REQUEST_TIMEOUT} "
        f"--unix-socket {PROBE_SOCKET} --write-out '%{{urlnum}} %{{http_code}} %{{errormsg}}\\n' {headers}{urls} "
        "2>/dev/null",
    )
    answers = {}
    for line in output.splitlines():
        number, status, *error = line.split(" ", 2)
        answers[int(number)] = Answer(int(status), error[0] if error else "")
    return [answers.get(number, Answer(0, output.strip())) for number in range(len(paths))]


def _run(container: Container, script: str) -> tuple[int, str]:
    """Exit code and output of a shell script in the container."""
    result = container.exec_run(["sh", "-c", script])
    return int(result.exit_code or 0), cast(bytes, result.output).decode(errors="replace")


def _look(container: Container, *scripts: str) -> list[str]:
    """The outputs of shell scripts that run one after the other."""
    _, output = _run(container, "; printf '\\0'; ".join(scripts))
    return output.split("\0")


def _link(folder: str) -> str:
    """The command that puts the configuration in `folder` in force, at the next reload or start, by a rename."""
    target = shlex.quote(folder.removeprefix(LIVE_FOLDER + "/"))
    return f"ln -sfn {target} {CURRENT}.next && mv -T {CURRENT}.next {CURRENT}"


def _name_members(rollout: Rollout) -> str:
    """The command that writes down the names of the sockets which NGINX asks, for the exporter."""
    names = shlex.join(PurePosixPath(replica.socket).name for replica in rollout.serving)
    return f"printf '%s\\n' {names} > {MEMBERS_FILE}.next && mv {MEMBERS_FILE}.next {MEMBERS_FILE}"


def _current(nginx: Container) -> str | None:
    """The name of the configuration's folder that is in force; None while NGINX does not run."""
    try:
        code, current = _run(nginx, f"test -s {PID_FILE} && readlink {CURRENT}")
    except APIError:  # an exec in a container that is down
        return None
    return current.strip() if code == 0 else None


def _workers(nginx: Container) -> set[str]:
    _, output = _run(nginx, LIST_WORKERS)
    return set(output.split())


def _folders_of(folder: str, names: Iterable[str]) -> set[str]:
    """The folders, below `folder`, that files of these names stand in."""
    return {f"{folder}/{parent}" for name in names for parent in PurePosixPath(name).parents if parent.name}


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, int(time.time())
    info.uid, info.gid = NGINX_USER, SOCKET_GROUP
    if kind == tarfile.SYMTYPE:
        info.linkname = content
        tar.addfile(info)
        return
    data = content.encode()
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _crashes(container: Container) -> bool:
    state = container.attrs["State"]
    if state["Status"] in ("exited", "dead"):
        return True
    uptime = (datetime.now(UTC) - _started(container)).total_seconds()
    steady = state["Running"] and not state["Restarting"] and uptime > STEADY_AFTER
    return container.attrs["RestartCount"] > RESTARTS_ALLOWED and not steady


def _condition(container: Container) -> str:
    """A container's state in words."""
    container.reload()
    state = container.attrs["State"]
    facts = [state["Status"]]
    if container.attrs["RestartCount"]:
        facts.append(f"restarted {container.attrs['RestartCount']} times")
    if not state["Running"] or state["Restarting"]:
        facts.append("killed for want of memory" if state["OOMKilled"] else f"exit code {state['ExitCode']}")
    return ", ".join(facts)


def _started(container: Container) -> datetime:
    """When its current run began, or its last one; Docker gives nanoseconds."""
    return datetime.fromisoformat(container.attrs["State"]["StartedAt"][:26].rstrip("Z")).replace(tzinfo=UTC)


def _last_words(container: Container) -> str:
    state = container.attrs["State"]
    # One that crashes and is just being tried again has said what matters in the run before.
    between = container.attrs["RestartCount"] and state["Running"] and not state["Restarting"]
    until = _started(container).timestamp() if between else None
    # Docker counts the tail from the end of all that was said, then leaves out what is later than `until`.
    lines = container.logs(tail=LOG_TAIL, until=until).rstrip().splitlines()
    return last_words.of(lines)
