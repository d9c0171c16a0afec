"""What the services of a stack have in common.

All that a service can be given is given here or there, to the last key: what is left out the plugin reads from the
swarm, and sends back at the next update in another form, as zero. That is another task to the swarm, which then
replaces those that run. For the same reason

- durations are written as Go prints them, or each `up` shows a difference;
- at most one variable stands in `env`, whose order the plugin does not keep, and nothing in `labels` of the containers,
  which replace the service when they change; labels of the service do not;
- nothing has a name of its own: a resource that has one is deleted before its successor comes, and a config that is in
  use cannot be deleted.

https://github.com/kreuzwerker/terraform-provider-docker/blob/v4.5.0/internal/provider/resource_docker_service.go
"""

import base64
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pulumi
import pulumi_docker as docker

from infra import fingerprint
from infra.layout import LABEL_PREFIX, SOCKET_GROUP
from infra.settings import Settings

MEBIBYTE = 1 << 20
NANO = 10**9
MONITOR = 5  # seconds for which a new task must go on running before it counts as well
CONVERGE_DELAY = "1s"

ConfigFile = docker.ServiceTaskSpecContainerSpecConfigArgsDict
SecretFile = docker.ServiceTaskSpecContainerSpecSecretArgsDict


def duration(seconds: int) -> str:
    """As Go prints it, without what is zero at its end, such as 1m30s and 1h."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or (hours and rest) else "")
    return text + (f"{rest}s" if rest or not text else "")


def identity(role: str) -> dict[str, str]:
    """Labels that say which project and stack something belongs to, and what it is there."""
    values = {"project": pulumi.get_project(), "stack": pulumi.get_stack(), "role": role}
    return {LABEL_PREFIX + name: value for name, value in values.items()}


def labels(role: str, **more: pulumi.Input[str]) -> list[docker.ServiceLabelArgsDict]:
    """The same of a service, and `more` that may change with each release."""
    values = {**identity(role), **{LABEL_PREFIX + name: value for name, value in more.items()}}
    return [docker.ServiceLabelArgsDict(label=name, value=value) for name, value in values.items()]


def content(*parts: object) -> pulumi.Output[str]:
    """Fingerprint of what makes a service's tasks what they are; unknown in a preview if any of it is."""
    return pulumi.Output.json_dumps(parts, sort_keys=True).apply(fingerprint.of_values)


def config_file(path: str, text: pulumi.Input[str], opts: pulumi.ResourceOptions) -> ConfigFile:
    """A file in a service's containers. Another text is another config, created before the one before is deleted."""
    config = docker.ServiceConfig(_last_part(path), data_raw=text, opts=opts)
    return ConfigFile(
        config_id=config.id, config_name=config.name, file_name=path, file_uid="0", file_gid="0", file_mode=0o444
    )


def secret_file(path: str, text: pulumi.Input[str], user: int, opts: pulumi.ResourceOptions) -> SecretFile:
    """The same, which `user` alone may read, and nobody on the way there."""
    encoded = pulumi.Output.secret(text).apply(_base64)
    secret = docker.Secret(_last_part(path), data=encoded, opts=opts)
    return SecretFile(
        secret_id=secret.id,
        secret_name=secret.name,
        file_name=path,
        file_uid=str(user),
        file_gid="0",
        file_mode=0o400,
    )


def resources(
    memory: int, cpus: Decimal = Decimal(0), reserved_memory: int = 0, reserved_cpus: Decimal = Decimal(0)
) -> docker.ServiceTaskSpecResourcesArgsDict:
    """What a task may use, and what its node must have to spare for it.

    Args:
        memory: MiB.
        cpus: 0: no limit.
        reserved_memory: MiB; 0: as much as it may use.
        reserved_cpus: 0: none.
    """
    return docker.ServiceTaskSpecResourcesArgsDict(
        limits=docker.ServiceTaskSpecResourcesLimitsArgsDict(
            memory_bytes=memory * MEBIBYTE, nano_cpus=int(cpus * NANO)
        ),
        reservation=docker.ServiceTaskSpecResourcesReservationArgsDict(
            memory_bytes=(reserved_memory or memory) * MEBIBYTE, nano_cpus=int(reserved_cpus * NANO)
        ),
    )


def placement(settings: Settings, label: str, *, spread: bool) -> docker.ServiceTaskSpecPlacementArgsDict:
    """On which nodes: all, or those with a label; evenly over them if `spread`."""
    name, _, value = label.partition("=")
    system, _, architecture = settings.platform.partition("/")
    return docker.ServiceTaskSpecPlacementArgsDict(
        constraints=[f"node.labels.{name}=={value}"] if label else [],
        prefs=["spread=node.id"] if spread else [],
        max_replicas=0,
        # Left out, they would be set at the first `up`, from the image at the registry, and taken away at the second.
        platforms=[docker.ServiceTaskSpecPlacementPlatformArgsDict(architecture=architecture, os=system)],
    )


def task(
    container: docker.ServiceTaskSpecContainerSpecArgsDict,
    network: docker.Network,
    *,
    alias: str,
    resources: docker.ServiceTaskSpecResourcesArgsDict,
    placement: docker.ServiceTaskSpecPlacementArgsDict,
) -> docker.ServiceTaskSpecArgsDict:
    """A task of `container`, which the others on `network` know as `alias`."""
    return docker.ServiceTaskSpecArgsDict(
        container_spec=container,
        networks_advanceds=[
            docker.ServiceTaskSpecNetworksAdvancedArgsDict(id=network.id, aliases=[alias], driver_opts=[])
        ],
        resources=resources,
        placement=placement,
        restart_policy=docker.ServiceTaskSpecRestartPolicyArgsDict(
            condition="any", delay="1s", max_attempts=0, window="0s"
        ),
        log_driver=docker.ServiceTaskSpecLogDriverArgsDict(
            name="json-file", options={"max-size": "10m", "max-file": "3"}
        ),
        force_update=0,
        runtime="container",
    )


def rolling(order: str, parallelism: int, delay: int = 0) -> dict[str, Any]:
    """How a service is updated: by so many tasks at a time; at the first that fails, all go back to what they were.

    Args:
        order: `start-first` or `stop-first`.
        parallelism: tasks.
        delay: seconds between two times.
    """
    common: dict[str, Any] = {
        "order": order,
        "parallelism": parallelism,
        "delay": duration(delay),
        "monitor": duration(MONITOR),
        "max_failure_ratio": "0.0",
    }
    return {
        "update_config": docker.ServiceUpdateConfigArgs(failure_action="rollback", **common),
        "rollback_config": docker.ServiceRollbackConfigArgs(failure_action="pause", **common),
    }


def hardened(
    *,
    image: pulumi.Input[str],
    user: int,
    hostname: str,
    stop_signal: str,
    grace: int,
    mounts: Sequence[docker.ServiceTaskSpecContainerSpecMountArgsDict],
    configs: Sequence[ConfigFile],
    secrets: Sequence[SecretFile],
    healthcheck: docker.ServiceTaskSpecContainerSpecHealthcheckArgsDict,
    commands: Sequence[str] = (),
    variable: tuple[str, str] | None = None,
) -> docker.ServiceTaskSpecContainerSpecArgsDict:
    """A container that may do little. Of limits for processes, and of privileges that `setuid` programs give, services
    have no setting in the plugin.

    Args:
        image: pinned by its digest.
        user: by number, as `infra.containers.hardening` has it.
        hostname: may have Docker's placeholders.
        stop_signal: what tells it to finish what it has in hand.
        grace: seconds that it has for that.
        mounts, configs, secrets: what it finds in its file system, which is read-only beside them.
        commands: in the place of the image's entry point.
        variable: of its environment, and the value.
        healthcheck: what says that it is fit to work.
    """
    return docker.ServiceTaskSpecContainerSpecArgsDict(
        image=image,
        user=f"{user}:{SOCKET_GROUP}",
        commands=[*commands],
        env=dict([variable]) if variable else None,
        hostname=hostname,
        stop_signal=stop_signal,
        stop_grace_period=duration(grace),
        mounts=[*mounts],
        configs=[*configs],
        secrets=[*secrets],
        healthcheck=healthcheck,
        read_only=True,
        cap_drops=["ALL"],
        isolation="default",
        init=False,
    )


def memory_mount(path: str, size: int) -> docker.ServiceTaskSpecContainerSpecMountArgsDict:
    """A folder in memory, where everybody may write, of `size` MiB. (A mode is read back without its sticky bit.)"""
    return docker.ServiceTaskSpecContainerSpecMountArgsDict(
        type="tmpfs",
        target=path,
        source="",
        read_only=False,
        tmpfs_options=docker.ServiceTaskSpecContainerSpecMountTmpfsOptionsArgsDict(size_bytes=size * MEBIBYTE),
    )


def volume_mount(path: str) -> docker.ServiceTaskSpecContainerSpecMountArgsDict:
    """A folder on the node's disk with what the image has there, which goes with the container."""
    return docker.ServiceTaskSpecContainerSpecMountArgsDict(type="volume", target=path, source="", read_only=False)


def _last_part(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
