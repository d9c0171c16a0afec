"""The load balancer: one NGINX container, which alone publishes a port."""

from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker

from infra import containers
from infra.images import BuiltImage
from infra.layout import BOOT_SOCKET, LIVE_FOLDER, NGINX_USER, PORT, RUNTIME_FOLDER, SOCKET_FOLDER
from infra.nginx_config import Endpoints
from infra.replicas import STOP_MARGIN, Replicas
from infra.settings import Settings

NGINX = Path("nginx")
TASKS = 4096


class LoadBalancer(pulumi.ComponentResource):
    """NGINX, which is replaced only when its image or where it listens changes; its configuration is the gate's.

    With `publish: port` Docker publishes its port, which cannot have two holders: a successor on the same port is
    created after it is gone. On another port it is another resource: created before, so that a port that is taken
    harms nothing. With `publish: host` it listens on the host's network, where a successor stands beside it until it
    has proven itself: each image has a volume of its own, whose configuration listens nowhere until the gate says so.

    Attributes:
        container: the NGINX container.
        endpoints: where it listens.
        url: where the app answers.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        network: docker.Network,
        replicas: Replicas,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("uwsgi-nginx:index:LoadBalancer", name, None, opts)
        on_host = settings.publish == "host"
        self.endpoints = endpoints(settings)
        self.url = url(settings.publish_address, settings.port)

        build_arguments = {
            "NGINX_IMAGE": settings.nginx_image,
            "BOOT_LISTEN": f"unix:{BOOT_SOCKET}" if on_host else str(PORT),
        }
        image = BuiltImage(
            "nginx-image",
            settings.nginx_image_name,
            str(NGINX),
            NGINX / "Dockerfile",
            build_arguments,
            pulumi.ResourceOptions(parent=self),
        )
        live = docker.Volume(
            f"nginx-live-{image.content}" if on_host else "nginx-live", opts=pulumi.ResourceOptions(parent=self)
        )
        self.container = docker.Container(
            "nginx-host" if on_host else f"nginx-{settings.port}",
            image=image.digest,
            volumes=[
                docker.ContainerVolumeArgs(volume_name=replicas.sockets.name, container_path=SOCKET_FOLDER),
                docker.ContainerVolumeArgs(volume_name=live.name, container_path=LIVE_FOLDER),
            ],
            tmpfs={RUNTIME_FOLDER: f"uid={NGINX_USER},size=64m"},
            labels=containers.labels("nginx"),
            stop_signal="SIGQUIT",
            destroy_grace_seconds=settings.drain_timeout + STOP_MARGIN,
            **(_on_the_host() if on_host else _published(settings, network)),
            **containers.hardening(settings.nginx_memory, TASKS),
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=not on_host,
                # So that a predecessor which still drains goes before the replicas that it asks.
                depends_on=replicas.containers,
            ),
        )
        self.register_outputs({"url": self.url})


def endpoints(settings: Settings) -> Endpoints:
    """Where NGINX listens: in its container, or on the host itself."""
    if settings.publish == "port":
        return Endpoints(http=str(PORT))
    return Endpoints(http=f"{_bracketed(settings.publish_address)}:{settings.port}", shared=True)


def _published(settings: Settings, network: docker.Network) -> dict[str, Any]:
    port = docker.ContainerPortArgs(internal=PORT, external=settings.port, ip=settings.publish_address)
    return {
        "hostname": "nginx",
        "networks_advanced": [docker.ContainerNetworksAdvancedArgs(name=network.name)],
        "ports": [port],
    }


def _on_the_host() -> dict[str, Any]:
    return {"network_mode": "host"}


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def url(address: str, port: int) -> str:
    """Where somebody on the host reaches what is published at `address`."""
    host = {
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - named, not bound
        "::": "[::1]",
    }.get(address, _bracketed(address))
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"
