"""docker:index/container:Container."""

import base64
import io
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from typing_extensions import override

from airgap.docker_provider import container_config, durations
from airgap.docker_provider.daemon import CALL_TIMEOUT
from airgap.docker_provider.differences import Changes
from airgap.docker_provider.errors import InitFailedError, UserError
from airgap.docker_provider.kinds import LABEL, Kind
from airgap.docker_provider.properties import Properties, bare
from airgap.docker_provider.schema import Input, shaped

LAST_WORDS: Final = 8
"""Lines of its log that are shown of a container that does not come up."""

_COUNT: Final = r"\d+"
_DURATION: Final = Input(default="0s", accepts=durations.PATTERN)
_THROTTLE: Final = Input(
    replaces=False, empty=[], fields={"path": Input(required=True), "rate": Input(required=True, accepts=_COUNT)}
)

INPUTS: Final[Mapping[str, Input]] = {
    "attach": Input(replaces=False, empty=False),
    "capabilities": Input(fields={"adds": Input(empty=[]), "drops": Input(empty=[])}),
    "cgroupParent": Input(),
    "cgroupnsMode": Input(accepts="private|host|"),
    "command": Input(computed=True, ordered=True),
    "containerReadRefreshTimeoutMilliseconds": Input(default=15000, replaces=False),
    "cpuPeriod": Input(replaces=False, accepts=_COUNT),
    "cpuQuota": Input(replaces=False, accepts=_COUNT),
    "cpuSet": Input(replaces=False, accepts=r"\d+([,-]\d+)*"),
    "cpuShares": Input(replaces=False, accepts=_COUNT),
    "cpus": Input(accepts=r"\d*\.?\d+"),
    "destroyGraceSeconds": Input(replaces=False),
    "deviceReadBps": _THROTTLE,
    "deviceReadIops": _THROTTLE,
    "deviceRequests": Input(
        empty=[],
        fields={
            "capabilities": Input(empty=[]),
            "count": Input(empty=0),
            "deviceIds": Input(empty=[]),
            "driver": Input(default="cdi"),
            "options": Input(empty={}),
        },
    ),
    "deviceWriteBps": _THROTTLE,
    "deviceWriteIops": _THROTTLE,
    "devices": Input(
        empty=[],
        fields={
            "containerPath": Input(empty=""),
            "hostPath": Input(required=True),
            "permissions": Input(default="rwm"),
        },
    ),
    "dns": Input(),
    "dnsOpts": Input(),
    "dnsSearches": Input(),
    "domainname": Input(),
    "entrypoints": Input(computed=True, ordered=True),
    "envs": Input(computed=True, empty=[]),
    "gpus": Input(covered=False),
    "groupAdds": Input(),
    "healthcheck": Input(
        replaces=False,
        computed=True,
        fields={
            "interval": _DURATION,
            "retries": Input(accepts=_COUNT, empty=0),
            "startInterval": _DURATION,
            "startPeriod": _DURATION,
            "tests": Input(ordered=True, empty=[]),
            "timeout": _DURATION,
        },
    ),
    "hostname": Input(computed=True),
    "hosts": Input(empty=[], fields={"host": Input(required=True), "ip": Input(required=True)}),
    "image": Input(required=True),
    "init": Input(replaces=False, computed=True),
    "ipcMode": Input(computed=True),
    "labels": Input(computed=True, empty=[], fields=LABEL),
    "logDriver": Input(computed=True),
    "logOpts": Input(),
    "logs": Input(replaces=False, empty=False),
    "maxRetryCount": Input(replaces=False),
    "memory": Input(replaces=False, accepts=_COUNT),
    "memoryReservation": Input(replaces=False, accepts=_COUNT, empty=0),
    "memorySwap": Input(replaces=False, accepts=rf"-1|{_COUNT}"),
    "mounts": Input(
        empty=[],
        fields={
            "bindOptions": Input(fields={"propagation": Input(empty="", accepts="r?(private|shared|slave)")}),
            "readOnly": Input(),
            "source": Input(empty=""),
            "target": Input(required=True),
            "tmpfsOptions": Input(fields={"mode": Input(), "sizeBytes": Input()}),
            "type": Input(required=True, accepts="bind|volume|tmpfs"),
            "volumeOptions": Input(
                fields={
                    "driverName": Input(empty=""),
                    "driverOptions": Input(),
                    "labels": Input(empty=[], fields=LABEL),
                    "noCopy": Input(),
                    "subpath": Input(empty="", covered=False),
                }
            ),
        },
    ),
    "mustRun": Input(default=True, replaces=False),
    "name": Input(),
    "networkMode": Input(default="bridge"),
    "networksAdvanced": Input(
        empty=[],
        fields={
            "aliases": Input(empty=[]),
            "driverOpts": Input(empty=[]),
            "gwPriority": Input(covered=False),
            "ipv4Address": Input(empty=""),
            "ipv6Address": Input(empty=""),
            "linkLocalIps": Input(empty=[]),
            "macAddress": Input(empty=""),
            "name": Input(required=True),
        },
    ),
    "pidMode": Input(),
    "platform": Input(computed=True),
    "ports": Input(
        empty=[],
        fields={
            "external": Input(computed=True),
            "internal": Input(required=True),
            "ip": Input(default="0.0.0.0"),  # noqa: S104 (the official default)
            "protocol": Input(default="tcp"),
        },
    ),
    "privileged": Input(),
    "publishAllPorts": Input(),
    "readOnly": Input(empty=False),
    "removeVolumes": Input(default=True, replaces=False),
    "restart": Input(default="no", replaces=False, accepts="no|on-failure|always|unless-stopped"),
    "rm": Input(replaces=False, empty=False),
    "runtime": Input(computed=True),
    "securityOpts": Input(computed=True),
    "shmSize": Input(computed=True, accepts=_COUNT),
    "start": Input(default=True, replaces=False),
    "stdinOpen": Input(empty=False),
    "stopSignal": Input(computed=True),
    "stopTimeout": Input(computed=True),
    "storageOpts": Input(),
    "sysctls": Input(),
    "tmpfs": Input(replaces=False),
    "tty": Input(empty=False),
    "ulimits": Input(
        empty=[], fields={"hard": Input(required=True), "name": Input(required=True), "soft": Input(required=True)}
    ),
    "uploads": Input(
        empty=[],
        fields={
            "content": Input(empty=""),
            "contentBase64": Input(empty=""),
            "executable": Input(empty=False),
            "file": Input(required=True),
            "permissions": Input(empty="", accepts="0[0-7]{3}"),
            "source": Input(empty=""),
            "sourceHash": Input(empty=""),
        },
    ),
    "user": Input(blank_keeps=True),
    "usernsMode": Input(),
    "volumes": Input(
        empty=[],
        fields={
            "containerPath": Input(empty=""),
            "fromContainer": Input(empty=""),
            "hostPath": Input(empty="", accepts="/.*"),
            "readOnly": Input(),
            "selinuxRelabel": Input(empty="", accepts="[zZ]"),
            "volumeName": Input(empty=""),
        },
    ),
    "wait": Input(replaces=False, empty=False),
    "waitTimeout": Input(default=60, replaces=False),
    "workingDir": Input(blank_keeps=True),
}

_OUTPUTS: Final = ("bridge", "containerLogs", "exitCode", "networkDatas")
"""State keys that are no inputs."""
_FROM_THE_IMAGE: Final = ("command", "entrypoints", "networkDatas")
"""Lists that the daemon fills: the official plugin sees their absence in the state of a create that failed."""
_UPDATABLE: Final = ("restart", "maxRetryCount", "cpuShares", "memory", "memoryReservation", "cpuSet", "memorySwap")
"""What the daemon can change of a container; `healthcheck`, `tmpfs`, `init` and others change on record only."""


class Container(Kind):
    """A container. Changes that need another one delete it first, unless the program says otherwise."""

    type = "docker:index/container:Container"
    deleted_first = True
    inputs: ClassVar[Mapping[str, Input]] = INPUTS

    @override
    def also_changed(self, state: Properties, new: Properties) -> Changes:
        changes: Changes = {}
        if "networkDatas" not in state:
            changes.update({key: "ADD" for key in _FROM_THE_IMAGE if key not in new and key not in state})
        if state.get("mustRun") is False and new.get("mustRun") is True:
            changes["mustRun"] = "UPDATE"  # it stopped, says the last refresh
        return changes

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        self.daemon.fetch_image(inputs["image"], inputs.get("platform"))
        body = container_config.body(inputs)
        container_id = str(self.api.create_container_from_config(body, inputs["name"], inputs.get("platform"))["Id"])
        try:
            self._connect(container_id, inputs)
            self._upload(container_id, inputs)
            logs = self._start(container_id, inputs)
            state = self._state(self.api.inspect_container(container_id), inputs)
        except Exception as error:  # whatever it is, the container is there and the engine must know its container_id
            raise InitFailedError(
                container_id, {**self._recorded(inputs), "id": container_id}, self.daemon.explain(error)
            ) from error
        return container_id, state if logs is None else {**state, "containerLogs": logs}

    def _connect(self, container_id: str, inputs: Properties) -> None:
        networks = inputs.get("networksAdvanced", [])
        if networks:
            self.daemon.unless(
                "is not connected to", lambda: self.api.disconnect_container_from_network(container_id, "bridge")
            )
        for network in networks:
            self.api.connect_container_to_network(
                container_id,
                network["name"],
                aliases=network.get("aliases"),
                ipv4_address=network.get("ipv4Address"),
                ipv6_address=network.get("ipv6Address"),
                link_local_ips=network.get("linkLocalIps"),
                mac_address=network.get("macAddress"),
                driver_opt=dict(option.split("=", 1) for option in network.get("driverOpts", [])) or None,
            )

    def _upload(self, container_id: str, inputs: Properties) -> None:
        for i, upload in enumerate(inputs.get("uploads", [])):
            content = _content(f"uploads[{i}]", upload)
            entry = tarfile.TarInfo(upload["file"])
            entry.size, entry.mtime = len(content), int(time.time())
            permissions = upload.get("permissions") or ("0744" if upload.get("executable") else "0644")
            entry.mode = int(permissions, 8)
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(entry, io.BytesIO(content))
            self.api.put_archive(container_id, "/", archive.getvalue())

    def _start(self, container_id: str, inputs: Properties) -> str | None:
        """Start it as asked; what it printed until it ended, if that was asked for."""
        if not inputs["start"]:
            return None
        self.api.start(container_id)
        if inputs.get("wait"):
            self._wait_until_healthy(container_id, inputs["waitTimeout"])
        if not inputs.get("attach"):
            return None
        logs = b"".join(self.api.logs(container_id, stream=True, follow=True)) if inputs.get("logs") else None
        self.api.wait(container_id, timeout=None)
        return None if logs is None else logs.decode(errors="replace")

    def _wait_until_healthy(self, container_id: str, seconds: float) -> None:
        def healthy() -> bool:
            health = self.api.inspect_container(container_id)["State"].get("Health")
            if not health:
                raise UserError(
                    "you have supplied a 'wait' argument, but the container does not have a healthcheck defined. "
                    "Please remove the 'wait' argument or add a 'healthcheck' attribute"
                )
            return bool(health["Status"] == "healthy")

        if not self.daemon.wait_until(seconds, healthy):
            raise UserError(self._why_unhealthy(container_id))

    def _why_unhealthy(self, container_id: str) -> str:
        state = self.api.inspect_container(container_id)["State"]
        lines = [
            f"container failed to be in healthy state: it is {state['Status']}, health {state['Health']['Status']}"
        ]
        checks = state["Health"].get("Log") or []
        if checks and checks[-1]["Output"].strip():
            lines.append(f"its last check said: {checks[-1]['Output'].strip()}")
        log = self.daemon.log_lines(container_id, LAST_WORDS)
        return "\n".join([*lines, "its last words:", *log] if log else lines)

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        container = self.daemon.found(self.api.inspect_container, object_id)
        return None if container is None else self._state(container, bare(known))

    def _recorded(self, inputs: Properties) -> Properties:
        return {**dict.fromkeys(_OUTPUTS), **shaped(self.inputs, bare(inputs))}

    def _state(self, container: Properties, known: Properties) -> Properties:
        state = self._recorded(known) | container_config.reported(container, known)
        state["containerLogs"] = known.get("containerLogs")
        if not container["State"]["Running"]:
            state["exitCode"] = container["State"]["ExitCode"]
            # Shows as a change, and the update that it leads to starts the container.
            state["mustRun"] = False
        return state

    @override
    def update(self, urn: str, object_id: str, state: Properties, old: Properties, new: Properties) -> Properties:
        stopped = not state.get("mustRun") or not old.get("mustRun", True)
        if new["mustRun"] and new["start"] and stopped:
            self.api.start(object_id)
        if any(old.get(key) != new.get(key) for key in _UPDATABLE):
            self.api.update_container(
                object_id,
                cpu_shares=new.get("cpuShares"),
                cpuset_cpus=new.get("cpuSet"),
                mem_limit=new.get("memory", 0) * container_config.MEBIBYTE,
                mem_reservation=new.get("memoryReservation", 0) * container_config.MEBIBYTE,
                memswap_limit=container_config.swap_bytes(new.get("memorySwap", 0)),
                restart_policy={"Name": new["restart"], "MaximumRetryCount": new.get("maxRetryCount", 0)},
            )
        if "networkDatas" not in state:  # of a create that failed: there is nothing to build upon
            return self._state(self.api.inspect_container(object_id), bare(new))
        # What was asked for, as with the official plugin; where it changes on record only, the next refresh shows that.
        asked = shaped(self.inputs, bare(new))
        dropped = {key for key in old.keys() - new.keys() if key in asked and not self.inputs[key].computed}
        return {**bare(state), **{key: asked[key] for key in asked.keys() & (new.keys() | dropped)}}

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        api = self.api
        if not state.get("attach"):
            grace = state.get("destroyGraceSeconds") or 0
            self.daemon.found(lambda: api.stop(object_id, timeout=grace))
        remove_volumes = state.get("removeVolumes", True)
        self.daemon.unless(
            "is already in progress",
            lambda: self.daemon.found(lambda: api.remove_container(object_id, v=remove_volumes, force=True)),
        )
        gone = self.daemon.wait_until(CALL_TIMEOUT, lambda: self.daemon.found(api.inspect_container, object_id) is None)
        if not gone:
            raise UserError(
                f"the container {object_id[:12]} is still there {CALL_TIMEOUT} s after the daemon began to remove it"
            )


def _content(where: str, upload: Properties) -> bytes:
    given = [key for key in ("content", "contentBase64", "source") if upload.get(key)]
    if len(given) != 1:
        raise UserError(f"{where}: exactly one of content, contentBase64 and source is needed, not {given or 'none'}")
    if given == ["content"]:
        return str(upload["content"]).encode()
    if given == ["contentBase64"]:
        return base64.b64decode(upload["contentBase64"])
    return Path(upload["source"]).read_bytes()
