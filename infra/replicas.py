"""The app: one built uWSGI image, and N replicas of it that listen on sockets in a shared volume."""

from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import containers, fingerprint
from infra.layout import SOCKET_FOLDER, SOCKET_VARIABLE
from infra.settings import MAX_REPLICAS, Settings

UWSGI = Path("uwsgi")  # relative to the project, as every path in the state
PLATFORM = "linux/amd64"
STOP_MARGIN = 5  # seconds beyond the drain before a stop becomes a kill

# Docker's own check is for people and monitors; the gate does not wait for it. A shorter interval for starting ones is
# known to Docker Engine 25 and newer alone: set, it would be a difference after every refresh of an older one.
HEALTH_INTERVAL = "30s"
HEALTH_CHECK_TIMEOUT = "5s"
HEALTH_RETRIES = 3


class Replicas(pulumi.ComponentResource):
    """The app image and its replicas, created before those of the release before go.

    A replica is known as `uwsgi-I`, its hostname; the name of its socket also carries the release, so that two releases
    stand side by side until the gate has made up its mind.

    Attributes:
        image: digest of the app image.
        release: fingerprint of the image and all settings of a replica; known in a preview.
        sockets: the volume in which they listen.
        containers: the replicas, in order.
        members: what the gate and NGINX need of each: `name`, `container` (id) and `socket`.
    """

    def __init__(
        self, name: str, settings: Settings, network: docker.Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("uwsgi-nginx:index:Replicas", name, None, opts)
        build_arguments = {
            "PYTHON_IMAGE": settings.python_image,
            "UWSGI_INI": (UWSGI / "uwsgi.ini").read_text(),
            "HEALTHCHECK": (UWSGI / "healthcheck.py").read_text(),
            "UWSGI_APP": settings.app_module,
            "UWSGI_CALLABLE": settings.app_callable,
            "IMPORT_CHECK": str(settings.import_check).lower(),
        }
        dockerfile = UWSGI / "Dockerfile"
        content = fingerprint.of_values(
            fingerprint.of_folder(Path(settings.app_folder)), dockerfile.read_text(), build_arguments
        )
        self.image = docker.Image(
            "app-image",
            image_name=f"{settings.app_image_name}:{content}",
            build=docker.DockerBuildArgs(
                context=settings.app_folder, dockerfile=str(dockerfile), args=build_arguments, platform=PLATFORM
            ),
            skip_push=True,
            opts=pulumi.ResourceOptions(parent=self),
        ).repo_digest
        self.sockets = docker.Volume("sockets", opts=pulumi.ResourceOptions(parent=self))
        self.release = release(settings, content)
        self.containers = [
            self._container(f"uwsgi-{number}", settings, network) for number in range(1, settings.replicas + 1)
        ]
        self.members = [
            {"name": container.hostname, "container": container.id, "socket": self._socket(container.hostname)}
            for container in self.containers
        ]
        self.register_outputs({"image": self.image, "names": [member["name"] for member in self.members]})

    def _socket(self, name: pulumi.Input[str]) -> pulumi.Output[str]:
        return pulumi.Output.concat(SOCKET_FOLDER, "/", name, "-", self.release, ".sock")

    def _container(self, name: str, settings: Settings, network: docker.Network) -> docker.Container:
        socket = f"{SOCKET_FOLDER}/{name}-{self.release}.sock"
        return docker.Container(
            name,
            image=self.image,
            hostname=name,
            envs=[
                f"{SOCKET_VARIABLE}={socket}",
                f"UWSGI_PROCESSES={settings.uwsgi_processes}",
                f"UWSGI_THREADS={settings.uwsgi_threads}",
                f"UWSGI_WORKER_RELOAD_MERCY={settings.drain_timeout}",
                *environment(settings),
            ],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network.name)],
            volumes=[docker.ContainerVolumeArgs(volume_name=self.sockets.name, container_path=SOCKET_FOLDER)],
            tmpfs={containers.TMPFS: f"size={containers.TMPFS_SIZE}"},
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD", "python", "-IS", "/usr/local/bin/healthcheck.py", settings.health_path, socket],
                interval=HEALTH_INTERVAL,
                timeout=HEALTH_CHECK_TIMEOUT,
                retries=HEALTH_RETRIES,
            ),
            labels=containers.labels("replica", replica=name, release=self.release),
            cpus=f"{settings.cpus.normalize():f}" if settings.cpus else None,
            stop_signal="SIGTERM",
            destroy_grace_seconds=settings.drain_timeout + STOP_MARGIN,
            **containers.hardening(settings.memory, tasks(settings)),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=False),
        )


def environment(settings: Settings) -> list[pulumi.Input[str]]:
    """The app's own variables; secret if any of them is."""
    variables = [f"{name}={value}" for name, value in sorted(settings.environment.items())]
    return [pulumi.Output.secret(text) if settings.is_secret("environment") else text for text in variables]


def release(settings: Settings, image_content: str) -> str:
    """Fingerprint of everything that makes a replica what it is."""
    replica = settings.model_dump(
        mode="json",
        include={"uwsgi_processes", "uwsgi_threads", "memory", "cpus", "health_path", "drain_timeout"},
    )
    if not settings.is_secret("environment"):
        return fingerprint.of_values(image_content, replica, settings.environment)
    return fingerprint.of_values(image_content, replica, fingerprint.of_secrets(settings.environment))


def tasks(settings: Settings) -> int:
    """Processes and threads that the replicas' user may have: enough for two releases of as many as a stack can have.

    Not for as many as it has: then scaling would replace those that are there.
    """
    one = 8 + settings.uwsgi_processes * (settings.uwsgi_threads + 2)
    return max(4096, 2 * MAX_REPLICAS * one)
