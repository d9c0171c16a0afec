"""Watches how a swarm rolls out a service, and tells why when it does not.

It talks to a manager alone and knows nothing of Pulumi. A service carries the fingerprint of what it is to be as a
label; when the swarm goes back to what it was before, the label goes with it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from docker import DockerClient
from docker.errors import NotFound

from infra import fingerprint, last_words
from infra.docker_host import DAEMON_ERRORS
from infra.layout import LABEL_PREFIX
from infra.refusal import Refused

CONTENT_LABEL = f"{LABEL_PREFIX}content"
POLL_INTERVAL = 0.5  # seconds
FAILURES_ALLOWED = 3  # of one replica, or on one node, before it counts as a crash loop
LOG_TAIL = 1000  # lines of the service in which to look for them
LOG_TIMEOUT = 5  # seconds after which what has come is all
TASK_ATTRIBUTE = "com.docker.swarm.task.id="  # before each line of a service's log
ENDED = ("failed", "rejected", "complete")  # the last of those that Docker calls unhealthy, and stops
NOT_STARTED = ("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting")
STUCK_AFTER = 15  # seconds
PORT_TAKEN = ("port is already allocated", "address already in use")
HOST_PORT_TAKEN = "host-mode port already in use"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # as images call them, and as nodes do

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Rollout:
    """What is to be there.

    Attributes:
        labels: of the service.
        content: fingerprint of what it is to be.
        replicas: how many; 0: one on each node.
        nodes: the label, name=value, of those nodes; empty: all.
        platform: of the image, system/architecture, and so of those nodes.
        timeout: seconds until all must run; for one on each node, as many for each.
        appears_within: seconds until the swarm must know of it.
        decides: whether nobody else does; else one who never sees it has nothing to say.
        name: of it, in words; a replica has its number behind.
    """

    labels: Mapping[str, str]
    content: str
    replicas: int
    nodes: str
    platform: str
    timeout: float
    appears_within: float
    decides: bool
    name: str


class Watch:
    """Looks until a `Rollout` is there, or says why it will not be."""

    def __init__(self, client: DockerClient, progress: Callable[[str], None] = lambda _: None) -> None:
        self._client: Any = client  # the SDK has no types for what it says of swarms
        self._progress = progress

    def specification(self, rollout: Rollout) -> str:
        """Fingerprint of what the swarm has been told of the service, by whomever; empty if there is none.

        Raises:
            DAEMON_ERRORS: it does not answer.
        """
        service = self._service(rollout)
        return fingerprint.of_values(service["Spec"]) if service else ""

    def until_live(self, rollout: Rollout) -> str:
        """Returns when all that is to run does, with its `specification`.

        Raises:
            Refused: it does not.
        """
        try:
            self._until_live(rollout)
            return self.specification(rollout)
        except DAEMON_ERRORS as error:
            reason = getattr(error, "explanation", None) or error
            raise Refused(f"The swarm's manager did not say how {rollout.name} comes along: {reason}.") from error

    def _until_live(self, rollout: Rollout) -> None:
        begin = time.monotonic()
        seen = told = ""
        stuck_since = 0.0
        before = {task["ID"] for task in self._tasks(self._predecessor(rollout))}
        while True:
            waited = time.monotonic() - begin
            service = self._service(rollout)
            if service is None:
                if seen or (waited > rollout.appears_within and rollout.decides):
                    raise Refused(self._rolled_back(rollout, seen or self._predecessor(rollout)))
                if waited > rollout.appears_within:
                    return
            else:
                seen = service["ID"]
                current = [task for task in self._tasks(seen) if _is_of(task, service)]
                nodes = {} if rollout.replicas else self._nodes(rollout)
                number = rollout.replicas or len(nodes)
                running = {_place(task, rollout) for task in current if _runs(task)}
                if not rollout.replicas:
                    running &= nodes.keys()
                if len(running) == number and _is_settled(service):
                    self._progress(f"{rollout.name}: all {number} run")
                    return
                # While the one before drains, its port is in use, which is as it should be.
                waiting = "" if HOST_PORT_TAKEN in _waiting_for(current) else _waiting_for(current)
                state = f"{rollout.name}: {len(running)} of {number} run{waiting}"
                if state != told:
                    told = state
                    self._progress(state)
                if len(running) == number and (stuck := self._stuck(current)):
                    stuck_since = stuck_since or time.monotonic()
                    if time.monotonic() - stuck_since > STUCK_AFTER:
                        raise Refused(self._waits_in_vain(rollout, stuck, service["Spec"]["Name"]))
                self._fail_early(rollout, [task for task in current if task["ID"] not in before], running)
                limit = rollout.timeout * (len(nodes) or 1)
                if waited > limit:
                    missing = ", ".join(sorted(nodes[node] for node in nodes.keys() - running))
                    there = f"{len(running)} of {number} run{', not on ' + missing if missing else ''}"
                    raise Refused(
                        f"{rollout.name} is not complete after {limit:g} s: {there}{_waiting_for(current)}. "
                        f"{_advice_while_waiting(current)}\n{self._last_words(current)}".rstrip()
                    )
            time.sleep(POLL_INTERVAL)

    def _nodes(self, rollout: Rollout) -> dict[str, str]:
        """The names of the nodes that are to run one, by id."""
        found = {
            node["ID"]: node["Description"]["Hostname"]
            for node in self._client.api.nodes()
            if _may_run_on(node, rollout.nodes, rollout.platform)
        }
        if found:
            return found
        label = f"the label {rollout.nodes} (`docker node update --label-add`), " if rollout.nodes else ""
        raise Refused(
            f"{rollout.name} runs nowhere: no node of the swarm has {label}the platform {rollout.platform}, and is "
            "ready and active."
        )

    def _fail_early(self, rollout: Rollout, tasks: list[Task], running: set[str]) -> None:
        by_place: dict[str, list[Task]] = {}
        for task in tasks:
            if task["Status"]["State"] in ENDED and _place(task, rollout) not in running:
                by_place.setdefault(_place(task, rollout), []).append(task)
        for failed in by_place.values():
            if len(failed) < FAILURES_ALLOWED:  # a moment later the port may be free, the image there
                continue
            task = _newest(failed)
            raise Refused(f"{self._in_words(rollout, task)}, again and again. {_advice(task)}\n{self._log(task)}")

    def _stuck(self, current: list[Task]) -> Task | None:
        """What a node was to start that went away: the swarm's update waits for it, though another has taken over."""
        ready = {node["ID"] for node in self._client.api.nodes() if node["Status"]["State"] == "ready"}
        given_up = [task for task in current if task["DesiredState"] == "shutdown" and task.get("NodeID") not in ready]
        return next((task for task in given_up if task["Status"]["State"] in NOT_STARTED), None)

    def _waits_in_vain(self, rollout: Rollout, task: Task, name: str) -> str:
        return (
            f"{rollout.name}: all run, but {self._node(task)} went away in the middle, and the swarm waits for what it "
            "was to start there: the release before goes on serving beside this one. Another release sets it going "
            f"again, or `docker service update --force {name}`, or that node's return."
        )

    def _rolled_back(self, rollout: Rollout, service_id: str) -> str:
        try:
            # The newest but those that it went back to, which run.
            ended = [task for task in self._tasks(service_id) if task["Status"]["State"] in ENDED]
        except NotFound:
            ended = []
        if not ended:
            return f"{rollout.name} is not there any more, and of what it was nothing is left to say why."
        task = _newest(ended)
        return (
            f"{self._in_words(rollout, task)}. The swarm went back to what ran before, which goes on serving. "
            f"{_advice(task)}\n{self._log(task)}"
        )

    def _last_words(self, tasks: Iterable[Task]) -> str:
        ended = [task for task in tasks if task["Status"]["State"] in ENDED]
        return self._log(_newest(ended)) if ended else ""

    def _in_words(self, rollout: Rollout, task: Task) -> str:
        name = f"{rollout.name}-{task['Slot']}" if rollout.replicas else rollout.name
        # Docker stops what is not healthy, which then ends as if all were well.
        what = f"failed: {_error(task)}" if _error(task) else "was not healthy, and was stopped"
        return f"{name} on {self._node(task)} {what}"

    def _log(self, task: Task) -> str:
        """The last that a task printed, on whichever node it ran."""
        own, said = f"{TASK_ATTRIBUTE}{task['ID']}".encode(), list[bytes]()
        options = {"stdout": True, "stderr": True, "details": True, "tail": LOG_TAIL}

        def read() -> None:
            with suppress(*DAEMON_ERRORS):
                for piece in self._client.api.service_logs(task["ServiceID"], **options):
                    said.append(piece)

        # The manager waits for all nodes that the service has ever run on, also for one that is gone, and the SDK with
        # it: it takes any time-out off a connection that a log comes over.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(LOG_TIMEOUT)
        lines = (line.partition(b" ") for line in b"".join(said).splitlines())
        return last_words.of(words for attributes, _, words in lines if own in attributes)

    def _service(self, rollout: Rollout) -> dict[str, Any] | None:
        found = self._client.api.services(filters={"label": _filters(rollout)})
        return next((s for s in found if s["Spec"]["Labels"].get(CONTENT_LABEL) == rollout.content), None)

    def _predecessor(self, rollout: Rollout) -> str:
        found = self._client.api.services(filters={"label": _filters(rollout)})
        return str(found[0]["ID"]) if found else ""

    def _tasks(self, service_id: str) -> list[Task]:
        return list(self._client.api.tasks(filters={"service": service_id})) if service_id else []

    def _node(self, task: Task) -> str:
        with suppress(*DAEMON_ERRORS):
            return str(self._client.api.inspect_node(task["NodeID"])["Description"]["Hostname"])
        return "a node that is gone"


def _may_run_on(node: Mapping[str, Any], label: str, platform: str) -> bool:
    """As the swarm's own scheduler has it, which does not look at the case of a label's value."""
    name, _, value = label.partition("=")
    system, _, architecture = platform.partition("/")
    has = (node["Spec"].get("Labels") or {}).get(name, "")
    is_a = node["Description"]["Platform"]
    return bool(
        node["Status"]["State"] == "ready"
        and node["Spec"]["Availability"] == "active"
        and (not name or has.casefold() == value.casefold())
        and is_a["OS"] == system
        and is_a["Architecture"] in (architecture, ARCHITECTURES.get(architecture))
    )


def _filters(rollout: Rollout) -> list[str]:
    return [f"{name}={value}" for name, value in rollout.labels.items()]


def _is_of(task: Task, service: Mapping[str, Any]) -> bool:
    """Whether the task is what the service is to be now. One whose node still fits is, wherever others may go."""
    # Of what kind it is only the service tells.
    left_out = {"Placement": None, "Runtime": None}
    wanted, has = ({**spec, **left_out} for spec in (service["Spec"]["TaskTemplate"], task["Spec"]))
    return wanted == has


def _is_settled(service: Mapping[str, Any]) -> bool:
    """Whether the swarm has seen enough of what it has started."""
    return (service.get("UpdateStatus") or {}).get("State") not in ("updating", "rollback_started")


def _runs(task: Task) -> bool:
    return bool(task["DesiredState"] == "running" and task["Status"]["State"] == "running")


def _newest(tasks: Iterable[Task]) -> Task:
    return max(tasks, key=lambda task: str(task["CreatedAt"]))


def _error(task: Task) -> str:
    return str(task["Status"].get("Err") or "")


def _advice_while_waiting(tasks: Iterable[Task]) -> str:
    reasons = _waiting_for(tasks)
    goes_on = "What ran before goes on serving, and the swarm goes on trying until another `pulumi up`."
    if "insufficient resources" in reasons:
        return f"No node has as much to spare as memory, swarm.reservedMemory or swarm.reservedCpus reserve. {goes_on}"
    if "no suitable node" in reasons:
        return f"swarm.appNodes, swarm.nginxNodes and platform say which nodes may have it. {goes_on}"
    return goes_on


def _advice(task: Task) -> str:
    if any(taken in _error(task) for taken in PORT_TAKEN):
        return (
            "Is it this very stack that has the port there, from before a change of orchestrator or of swarm.publish? "
            "Then set another port, or run `pulumi destroy` before: docs/scaling.md."
        )
    return "Mend it, or try the same once more with `pulumi up --refresh`."


def _place(task: Task, rollout: Rollout) -> str:
    return str(task["Slot"] if rollout.replicas else task.get("NodeID", ""))


def _waiting_for(tasks: Iterable[Task]) -> str:
    """Why tasks have no node, such as that none has memory to spare."""
    reasons = {task["Status"].get("Err", "") for task in tasks if task["Status"]["State"] == "pending"}
    found = ", ".join(sorted(filter(None, reasons)))
    return f" ({found})" if found else ""
