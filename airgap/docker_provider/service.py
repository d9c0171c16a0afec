"""docker:index/service:Service."""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from typing_extensions import override

from airgap.docker_provider import durations, service_spec
from airgap.docker_provider.errors import InitFailedError, UserError
from airgap.docker_provider.kinds import LABEL, Failure, Kind, Naming
from airgap.docker_provider.properties import Properties, bare
from airgap.docker_provider.schema import Input, shaped

UPDATE_DELAY: Final = 7.0
"""Seconds before the first look at an update, as in the official plugin: until then the old tasks pass for the new."""
LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks at a service that is to converge."""
SETTLE_TIMEOUT: Final = 30.0
"""Seconds until the daemon must know how a new service is reached."""
LAST_WORDS: Final = 10
"""Lines of the log of a task that failed."""

_COUNT: Final = r"\d+"
_RATIO: Final = r"0(\.\d*)?|1(\.0*)?"


def _free(**options: Any) -> Input:
    """A key that can change in place."""
    return Input(replaces=False, **options)


def _block(fields: Mapping[str, Input], **options: Any) -> Input:
    """An object of which each key says for itself whether its change needs another service."""
    return Input(replaces=False, by_field=True, fields=fields, **options)


_OPTIONAL_DURATION: Final = _free(accepts=rf"|{durations.PATTERN}", empty="")
_DURATION: Final = _free(default="0s", accepts=durations.PATTERN)
_REPLICA_COUNT: Final = _free(default=1, accepts=_COUNT)


def _file_of(what: str) -> dict[str, Input]:
    """A config or secret as a file. Though the official schema does not say so, Swarm refuses one without its name."""
    return {
        f"{what}Id": _free(required=True),
        f"{what}Name": _free(empty=""),
        "fileGid": _free(default="0"),
        "fileMode": _free(default=0o444, accepts=_COUNT),
        "fileName": _free(required=True),
        "fileUid": _free(default="0"),
    }


def _update_config(actions: str) -> Input:
    return _block(
        {
            "delay": _DURATION,
            "failureAction": _free(default="pause", accepts=actions),
            "maxFailureRatio": _free(default="0.0", accepts=_RATIO),
            "monitor": _free(default="5s", accepts=durations.PATTERN),
            "order": _free(default="stop-first", accepts="stop-first|start-first"),
            "parallelism": _free(default=1, accepts=_COUNT),
        }
    )


_MOUNT: Final = {
    "bindOptions": _free(fields={"propagation": _free(default="rprivate", accepts="r?(private|shared|slave)")}),
    "readOnly": _free(empty=False),
    "source": _free(empty=""),
    "target": _free(required=True),
    "tmpfsOptions": _free(fields={"mode": _free(empty=0), "sizeBytes": _free(empty=0)}),
    "type": _free(required=True, accepts="bind|volume|tmpfs"),
    "volumeOptions": _free(
        fields={
            "driverName": _free(empty=""),
            "driverOptions": _free(empty={}),
            "labels": Input(empty=[], fields=LABEL, covered=False),  # a change of them would need another service
            "noCopy": _free(empty=False),
        }
    ),
}

_CONTAINER_SPEC: Final = {
    "args": _free(ordered=True, empty=[]),
    "capAdds": _free(ordered=True, empty=[]),
    "capDrops": _free(ordered=True, empty=[]),
    "commands": _free(ordered=True, empty=[]),
    "configs": _free(fields=_file_of("config"), empty=[]),
    "dir": _free(empty=""),
    "dnsConfig": _block(
        {
            "nameservers": _free(required=True, ordered=True, empty=[]),
            "options": _free(ordered=True, empty=[]),
            "searches": _free(ordered=True, empty=[]),
        },
        computed=True,
    ),
    "env": _free(empty={}),
    "groups": _free(ordered=True, empty=[]),
    "healthcheck": _block(
        {
            "interval": _DURATION,
            "retries": _free(accepts=_COUNT, empty=0),
            "startPeriod": _DURATION,
            "tests": _free(ordered=True, empty=[]),
            "timeout": _DURATION,
        },
        computed=True,
    ),
    "hostname": _free(empty=""),
    "hosts": Input(empty=[], fields={"host": Input(required=True), "ip": Input(required=True)}),
    "image": _free(required=True),
    "init": _free(computed=True, empty=False),
    "isolation": _free(default="default", accepts="default|process|hyperv"),
    "labels": Input(empty=[], fields=LABEL),
    "mounts": _free(empty=[], fields=_MOUNT),
    "privileges": _free(covered=False),
    "readOnly": _free(empty=False),
    "secrets": _free(fields=_file_of("secret"), empty=[]),
    "stopGracePeriod": _free(computed=True, accepts=durations.PATTERN, empty=""),
    "stopSignal": _free(empty=""),
    "sysctl": Input(empty={}),
    "user": _free(empty=""),
}

_AMOUNTS: Final = {"memoryBytes": _free(accepts=_COUNT, empty=0), "nanoCpus": _free(accepts=_COUNT, empty=0)}

_TASK_SPEC: Final = {
    "containerSpec": _block(_CONTAINER_SPEC, required=True),
    "forceUpdate": _free(computed=True, accepts=_COUNT, empty=0),
    "logDriver": _block({"name": _free(required=True), "options": _free(empty={})}),
    "networksAdvanceds": Input(
        empty=[],
        fields={
            "aliases": Input(empty=[]),
            "driverOpts": Input(empty=[]),
            "id": Input(empty=""),
            "name": Input(covered=False, empty=""),  # deprecated: the state holds the id, which is a change for ever
        },
    ),
    "placement": _block(
        {
            "constraints": _free(empty=[]),
            "maxReplicas": _free(accepts=_COUNT, empty=0),
            "platforms": _free(fields={"architecture": _free(required=True), "os": _free(required=True)}, empty=[]),
            "prefs": _free(empty=[]),
        },
        computed=True,
    ),
    "resources": _block(
        {
            "limits": _block(_AMOUNTS),
            "reservation": _block({**_AMOUNTS, "genericResources": _free(covered=False)}),
        },
        computed=True,
    ),
    "restartPolicy": _block(
        {
            "condition": _free(accepts="none|on-failure|any", empty=""),
            "delay": _OPTIONAL_DURATION,
            "maxAttempts": _free(accepts=_COUNT, empty=0),
            "window": _OPTIONAL_DURATION,
        },
        computed=True,
    ),
    "runtime": _free(computed=True, accepts="container", empty=""),
}

INPUTS: Final[Mapping[str, Input]] = {
    "auth": Input(fields={"password": Input(), "serverAddress": Input(required=True), "username": Input()}),
    "convergeConfig": _block(
        {
            "delay": _free(default="7s", accepts=durations.PATTERN),
            "timeout": _free(default="3m", accepts=durations.PATTERN),
        }
    ),
    "endpointSpec": _block(
        {
            "mode": _free(computed=True, accepts="vip|dnsrr", empty=""),
            "ports": _free(
                ordered=True,
                empty=[],
                fields={
                    "name": _free(empty=""),
                    "protocol": _free(default="tcp", accepts="tcp|udp|sctp"),
                    "publishMode": _free(default="ingress", accepts="host|ingress"),
                    "publishedPort": _free(computed=True, empty=0),
                    "targetPort": _free(required=True),
                },
            ),
        },
        computed=True,
    ),
    "labels": _free(computed=True, fields=LABEL, empty=[]),
    "mode": Input(
        computed=True,
        by_field=True,
        fields={
            "global": _free(empty=False),
            "replicated": _block({"replicas": _REPLICA_COUNT}, computed=True),
        },
    ),
    "name": Input(),
    "rollbackConfig": _update_config("pause|continue"),
    "taskSpec": _block(_TASK_SPEC, required=True),
    "updateConfig": _update_config("pause|continue|rollback"),
}

_ENDED: Final = {
    "rollback_completed": "service rollback completed",
    "paused": "service update paused",
    "rollback_paused": "service rollback paused",
}
"""States in which an update has ended, and not well."""
_STAGES: Final = (
    *("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"),
    *("complete", "shutdown", "failed", "rejected"),
)
"""The life of a task, in order."""
_RUNNING: Final = _STAGES.index("running")


class Service(Kind):
    """Tasks on the nodes of a swarm. With `convergeConfig` it counts as made when all of them run, and are healthy.

    A create that does not get there leaves nothing behind. An update that does not is kept with what it was to become,
    as failed: the next one sends it again, changed or not.
    """

    type = "docker:index/service:Service"
    inputs: ClassVar[Mapping[str, Input]] = INPUTS

    @override
    def check(self, old: Properties, new: Properties, naming: Naming) -> list[Failure]:
        failures = super().check(old, new, naming)
        mode = new.get("mode")
        if not failures and isinstance(mode, dict) and mode.get("global"):
            rivals = {"mode.replicated": "replicated" in mode, "convergeConfig": "convergeConfig" in new}
            failures = [(key, f"{key}: conflicts with mode.global") for key, there in rivals.items() if there]
        return failures

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        auth = self._auth(inputs)
        spec = service_spec.body(inputs)
        image = service_spec.tagged(spec["TaskTemplate"]["ContainerSpec"]["Image"])
        spec = service_spec.pinned(spec, self.daemon.at_the_registry(image, auth))
        service_id = str(self.daemon.post("/services/create", spec, auth)["ID"])
        converge = inputs.get("convergeConfig")
        if converge is not None:
            time.sleep(_seconds(converge["delay"]))
            if not self._follow(_seconds(converge["timeout"]), lambda: self._all_run(service_id)):
                reason = self._did_not_converge(service_id, converge)
                self._remove(service_id, inputs)
                raise UserError(reason)
        self._follow(SETTLE_TIMEOUT, lambda: bool(service_spec.endpoint_mode(self.api.inspect_service(service_id))))
        return service_id, self._state(self.api.inspect_service(service_id), inputs)

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        service = self.daemon.found(self.api.inspect_service, object_id)
        return None if service is None else self._state(service, known)

    def _state(self, service: Properties, known: Properties) -> Properties:
        return {**shaped(self.inputs, bare(known)), **service_spec.reported(self.inputs, service)}

    @override
    def update(self, urn: str, object_id: str, state: Properties, old: Properties, new: Properties) -> Properties:
        wanted = service_spec.known(self.inputs, bare(new), bare(state))
        try:
            self._send(object_id, wanted)
            return self._state(self.api.inspect_service(object_id), new)
        except Exception as error:  # refused or rolled back: the official plugin keeps what it was to become
            planned = {**shaped(self.inputs, wanted), "id": object_id}
            raise InitFailedError(object_id, planned, self.daemon.explain(error)) from error

    def _send(self, service_id: str, wanted: Properties) -> None:
        version = self.api.inspect_service(service_id)["Version"]["Index"]
        body = service_spec.body(wanted)
        self.daemon.post(f"/services/{service_id}/update", body, self._auth(wanted), {"version": version})
        converge = wanted.get("convergeConfig")
        if converge is None:
            return
        time.sleep(UPDATE_DELAY)
        if not self._follow(_seconds(converge["timeout"]), lambda: self._is_updated(service_id)):
            raise UserError(self._did_not_converge(service_id, converge))

    def _is_updated(self, service_id: str) -> bool:
        status = self.api.inspect_service(service_id).get("UpdateStatus") or {}
        state = status.get("State")
        if state == "completed":
            return True
        if state in _ENDED:
            raise UserError("\n".join([f"{_ENDED[state]}: {status.get('Message', '')}", *self._last_words(service_id)]))
        if not self._all_run(service_id):
            return False
        if state == "rollback_started":
            raise UserError(f"service rollback completed: {status.get('Message', '')}")
        return True

    def _all_run(self, service_id: str) -> bool:
        replicated = self.api.inspect_service(service_id)["Spec"]["Mode"].get("Replicated")
        if replicated is None:
            raise UserError("no replica count")
        tasks = self.api.tasks(filters={"service": service_id, "desired-state": "running"})
        down = {node["ID"] for node in self.api.nodes() if node["Status"]["State"] == "down"}
        return running(tasks, down) == int(replicated.get("Replicas", 0))

    @staticmethod
    def _follow(seconds: float, ready: Callable[[], bool]) -> bool:
        """Whether it got ready in time; it is looked at once in any case."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_INTERVAL)
        return True

    def _did_not_converge(self, service_id: str, converge: Properties) -> str:
        timeout = durations.text(durations.nanoseconds(converge["timeout"]))
        words = self._last_words(service_id)
        return "\n".join([f"Service with ID ({service_id}) did not converge after {timeout}", *words])

    def _last_words(self, service_id: str) -> list[str]:
        """Why tasks failed, and what they printed, as far as the daemon that is asked has them."""
        tasks = self.api.tasks(filters={"service": service_id})
        tasks = [task for task in tasks if task["Status"]["State"] in ("failed", "rejected", "pending")]
        reasons = sorted({str(task["Status"]["Err"]) for task in tasks if task["Status"].get("Err")})
        containers = [_container_of(task) for task in tasks if task["Status"]["State"] == "failed"]
        for container in filter(None, containers):
            if log := self.daemon.found(self.daemon.log_lines, container, LAST_WORDS):
                return [*reasons, "Last task logs:", *log]
        return reasons

    def _auth(self, inputs: Properties) -> Properties:
        own = inputs.get("auth")
        if own:
            complete = own.get("username") and own.get("password")
            return {**own, "serveraddress": own["serverAddress"]} if complete else {}
        host = inputs["taskSpec"]["containerSpec"]["image"].partition("/")[0]
        found = self.daemon.connection.auth.get(host)
        return {**found, "serveraddress": host} if found else {}

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        self._remove(object_id, state)

    def _remove(self, service_id: str, properties: Properties) -> None:
        """Remove it; with a grace period, its containers are gone afterwards, as far as they are on this daemon."""
        grace = _seconds(properties["taskSpec"]["containerSpec"].get("stopGracePeriod") or "0s")
        tasks = self.api.tasks(filters={"service": service_id}) if grace else []
        containers = [_container_of(task) for task in tasks if task["Status"]["State"] != "shutdown"]
        self.daemon.found(self.api.remove_service, service_id)
        deadline = time.monotonic() + grace
        for container in filter(None, containers):
            self._await_end(container, max(0.0, deadline - time.monotonic()))

    def _await_end(self, container: str, seconds: float) -> None:
        if self.daemon.wait_until(seconds, lambda: self.daemon.found(self.api.inspect_container, container) is None):
            return
        self.daemon.unless(
            "is already in progress",
            lambda: self.daemon.found(lambda: self.api.remove_container(container, v=True, force=True)),
        )


def running(tasks: list[Properties], down: set[str]) -> int:
    """How many slots have a task that runs, on nodes that are not down.

    Of two tasks in a slot, as there are while one takes over from the other, the one that is less far counts.
    """
    slots: dict[int, Properties] = {}
    for task in tasks:
        if task["DesiredState"] not in _STAGES or task["Status"]["State"] not in _STAGES or task.get("NodeID") in down:
            continue
        slot = task.get("Slot", 0)
        if slot not in slots or _stage(task) < _stage(slots[slot]):
            slots[slot] = task
    return sum(desired <= _RUNNING and state == _RUNNING for desired, state in map(_stage, slots.values()))


def _stage(task: Properties) -> tuple[int, int]:
    return _STAGES.index(task["DesiredState"]), _STAGES.index(task["Status"]["State"])


def _container_of(task: Properties) -> str:
    return str((task["Status"].get("ContainerStatus") or {}).get("ContainerID", "")).strip()


def _seconds(text: str) -> float:
    return durations.nanoseconds(text) / durations.SECOND
