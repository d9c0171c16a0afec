"""What all containers of a stack have in common: labels by which they are found again, and hardening."""

from typing import Any

import pulumi
import pulumi_docker as docker

from infra.layout import LABEL_PREFIX, SOCKET_GROUP

TMPFS = "/tmp"  # noqa: S108 - the container's own
TMPFS_SIZE = "16m"


def labels(role: str, **more: pulumi.Input[str]) -> list[docker.ContainerLabelArgs]:
    """Labels that say which project and stack a container belongs to, and what it is there."""
    values = {"project": pulumi.get_project(), "stack": pulumi.get_stack(), "role": role, **more}
    return [docker.ContainerLabelArgs(label=LABEL_PREFIX + name, value=value) for name, value in values.items()]


def hardening(user: int, memory: int, tasks: int) -> dict[str, Any]:
    """Arguments of a container that may do little and break little.

    Args:
        user: by number. The image says so too; what is declared here holds for any image, and shows in a preview.
        memory: in MiB. Without as much `memory_swap` every update would show a difference.
        tasks: how many processes and threads its user may have. Docker's own limit of pids is no input of the plugin;
            this one counts the user's tasks on the whole host, so it is a ceiling, not a share.
    """
    return {
        "user": f"{user}:{SOCKET_GROUP}",
        "read_only": True,
        "capabilities": docker.ContainerCapabilitiesArgs(drops=["ALL"]),
        "security_opts": ["no-new-privileges:true"],
        "memory": memory,
        "memory_swap": memory,
        "ulimits": [docker.ContainerUlimitArgs(name="nproc", soft=tasks, hard=tasks)],
        "log_driver": "json-file",
        "log_opts": {"max-size": "10m", "max-file": "3"},
        # `unless-stopped` does not survive a SIGKILL of the daemon.
        "restart": "always",
    }
