"""The app: one built uWSGI image, N replicas of it that listen on sockets in a shared volume, a canary beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import containers, fingerprint
from infra.images import app_image
from infra.layout import APP_FOLDER, APP_USER, SOCKET_FOLDER, SOCKET_VARIABLE
from infra.settings import MAX_REPLICAS, Settings
from infra.stored_image import StoredImage

STOP_MARGIN = 5  # seconds beyond the drain before a stop becomes a kill

# Docker's own check is for people and monitors; the gate does not wait for it. A shorter interval for starting ones is
# known to Docker Engine 25 and newer alone: set, it would be a difference after every refresh of an older one. So it is
# short for all, and a check that finds a replica as well as the one before stays and watches it.
HEALTH_INTERVAL = "10s"
HEALTH_WATCH = 300  # seconds
HEALTH_PAUSE = 10  # seconds between two questions of one check
HEALTH_CHECK_TIMEOUT = "5m30s"  # as a refresh reads it
HEALTH_RETRIES = 6
HEALTH_MARKER = f"{containers.TMPFS}/.healthy"


@dataclass(frozen=True)
class ReplicaSet:
    """Replicas that are all alike.

    Attributes:
        image: digest of their image.
        release: fingerprint of the image and all settings of a replica; known in a preview.
        containers: the replicas, in order.
        names: what they are known as, in the same order.
        members: what the gate and NGINX need of each: `name`, `container` (id) and `socket`.
    """

    image: pulumi.Input[str]
    release: str
    containers: list[docker.Container]
    names: list[str]

    @property
    def members(self) -> list[dict[str, pulumi.Input[str]]]:
        return [
            {
                "name": container.hostname,
                "container": container.id,
                "socket": pulumi.Output.concat(SOCKET_FOLDER, "/", container.hostname, "-", self.release, ".sock"),
            }
            for container in self.containers
        ]


class Replicas(pulumi.ComponentResource):
    """The app image and its replicas, created before those of the release before go.

    A replica is known as `uwsgi-I`, its hostname, one of the canary as `uwsgi-canary-I`; the name of its socket also
    carries the release, so that two releases stand side by side until the gate has made up its mind.

    Attributes:
        sockets: the volume in which they listen.
        stable: those that serve.
        canary: those of a second release, which take a share; None without one.
        outputs: what the stack exports of them.
    """

    def __init__(
        self, name: str, settings: Settings, network: docker.Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("uwsgi-nginx:index:Replicas", name, None, opts)
        self._settings, self._network = settings, network
        self.sockets = docker.Volume("sockets", opts=pulumi.ResourceOptions(parent=self))
        self.stable = self._stable()
        self.canary = None if settings.canary.share is None else self._canary()
        self.outputs = {
            "replicas": [member["name"] for member in self.members],
            "release": self.stable.release,
            "image": self.stable.image,
            "containers": [container.name for container in self.containers],
            **({"canary": {"release": self.canary.release, "image": self.canary.image}} if self.canary else {}),
        }
        self.register_outputs({"image": self.stable.image, "names": [member["name"] for member in self.members]})

    @property
    def sets(self) -> list[ReplicaSet]:
        """All of them, the stable one first."""
        return [self.stable, *([self.canary] if self.canary else [])]

    @property
    def containers(self) -> list[docker.Container]:
        """Those of all sets."""
        return [container for replicas in self.sets for container in replicas.containers]

    @property
    def members(self) -> list[dict[str, pulumi.Input[str]]]:
        """Those of all sets, see `ReplicaSet.members`."""
        return [member for replicas in self.sets for member in replicas.members]

    def _stable(self) -> ReplicaSet:
        settings = self._settings
        if settings.app_image:
            stored = StoredImage("app-image", settings.app_image, pulumi.ResourceOptions(parent=self))
            return self._set("uwsgi", settings.replicas, settings.app_image, settings.app_image, stored)
        built = app_image("app-image", settings, settings.app_folder, pulumi.ResourceOptions(parent=self))
        return self._set("uwsgi", settings.replicas, built.digest, built.content)

    def _canary(self) -> ReplicaSet:
        settings, canary = self._settings, self._settings.canary
        folder = canary.app_folder or settings.app_folder
        built = app_image("canary-image", settings, folder, pulumi.ResourceOptions(parent=self))
        return self._set("uwsgi-canary", canary.replicas, built.digest, built.content)

    def _set(
        self, prefix: str, count: int, image: pulumi.Input[str], content: str, *depends_on: pulumi.Resource
    ) -> ReplicaSet:
        known_as = release(self._settings, content)
        names = [f"{prefix}-{number}" for number in range(1, count + 1)]
        made = [self._container(name, image, known_as, depends_on) for name in names]
        return ReplicaSet(image, known_as, made, names)

    def _container(
        self, name: str, image: pulumi.Input[str], release: str, depends_on: Sequence[pulumi.Resource]
    ) -> docker.Container:
        settings = self._settings
        socket = f"{SOCKET_FOLDER}/{name}-{release}.sock"
        return docker.Container(
            name,
            image=image,
            hostname=name,
            envs=[
                f"{SOCKET_VARIABLE}={socket}",
                f"UWSGI_PROCESSES={settings.uwsgi_processes}",
                f"UWSGI_THREADS={settings.uwsgi_threads}",
                f"UWSGI_WORKER_RELOAD_MERCY={settings.drain_timeout}",
                *(["LIVE_RELOAD=1"] if settings.live_reload else []),
                *environment(settings),
            ],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=self._network.name)],
            volumes=[
                docker.ContainerVolumeArgs(volume_name=self.sockets.name, container_path=SOCKET_FOLDER),
                *([_mounted(settings.app_folder)] if settings.live_reload else []),
            ],
            tmpfs={containers.TMPFS: f"size={containers.TMPFS_SIZE}"},
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=[
                    *("CMD", "healthcheck", settings.health_path, socket),
                    *(HEALTH_MARKER, str(HEALTH_WATCH), str(HEALTH_PAUSE)),
                ],
                interval=HEALTH_INTERVAL,
                timeout=HEALTH_CHECK_TIMEOUT,
                retries=HEALTH_RETRIES,
            ),
            labels=containers.labels("replica", replica=name, release=release),
            cpus=f"{settings.cpus.normalize():f}" if settings.cpus else None,
            stop_signal="SIGTERM",
            destroy_grace_seconds=settings.drain_timeout + STOP_MARGIN,
            **containers.hardening(APP_USER, settings.memory, tasks(settings)),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=False, depends_on=[*depends_on]),
        )


def _mounted(folder: str) -> docker.ContainerVolumeArgs:
    """The app's folder of this machine, over the one in the image."""
    return docker.ContainerVolumeArgs(host_path=str(Path(folder).resolve()), container_path=APP_FOLDER, read_only=True)


def environment(settings: Settings) -> list[pulumi.Input[str]]:
    """The app's own variables; secret if any of them is."""
    variables = [f"{name}={value}" for name, value in sorted(settings.environment.items())]
    return [pulumi.Output.secret(text) if settings.is_secret("environment") else text for text in variables]


def release(settings: Settings, image_content: str) -> str:
    """Fingerprint of everything that makes a replica what it is."""
    replica = settings.model_dump(
        mode="json",
        include={
            *("uwsgi_processes", "uwsgi_threads", "memory", "cpus", "health_path", "drain_timeout", "live_reload"),
        },
    )
    if not settings.is_secret("environment"):
        return fingerprint.of_values(image_content, replica, settings.environment)
    return fingerprint.of_values(image_content, replica, fingerprint.of_secrets(settings.environment))


def tasks(settings: Settings) -> int:
    """Processes and threads that the replicas' user may have: enough for two releases of as many as a stack can have.

    Not for as many as it has: then scaling, or a canary, would replace those that are there.
    """
    one = 8 + settings.uwsgi_processes * (settings.uwsgi_threads + 2)
    most = 2 * MAX_REPLICAS  # with those of a canary
    return max(4096, 2 * most * one)
