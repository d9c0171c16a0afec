"""The load balancer: one NGINX container, which alone publishes a port."""

from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import containers, fingerprint, nginx_config
from infra.replicas import PLATFORM, SOCKET_FOLDER, STOP_MARGIN
from infra.settings import Settings

NGINX = Path("nginx")
LIVE_FOLDER = "/etc/nginx/live"
USER = 101  # as in the official image
TASKS = 4096


class LoadBalancer(pulumi.ComponentResource):
    """NGINX, which is replaced only when its image or what it publishes changes; its configuration is the gate's.

    A published port cannot have two holders, so its predecessor goes first.

    Attributes:
        container: the NGINX container.
        url: where the app answers.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        network: docker.Network,
        sockets: docker.Volume,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("uwsgi-nginx:index:LoadBalancer", name, None, opts)
        build_arguments = {"NGINX_IMAGE": settings.nginx_image}
        dockerfile = NGINX / "Dockerfile"
        content = fingerprint.of_values(fingerprint.of_folder(NGINX), dockerfile.read_text(), build_arguments)
        image = docker.Image(
            "nginx-image",
            image_name=f"{settings.nginx_image_name}:{content}",
            build=docker.DockerBuildArgs(
                context=str(NGINX), dockerfile=str(dockerfile), args=build_arguments, platform=PLATFORM
            ),
            skip_push=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        live = docker.Volume("nginx-live", opts=pulumi.ResourceOptions(parent=self))
        self.container = docker.Container(
            "nginx",
            image=image.repo_digest,
            hostname="nginx",
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network.name)],
            ports=[
                docker.ContainerPortArgs(
                    internal=nginx_config.PORT, external=settings.port, ip=settings.publish_address
                )
            ],
            volumes=[
                docker.ContainerVolumeArgs(volume_name=sockets.name, container_path=SOCKET_FOLDER),
                docker.ContainerVolumeArgs(volume_name=live.name, container_path=LIVE_FOLDER),
            ],
            tmpfs={nginx_config.RUNTIME_FOLDER: f"uid={USER},size=64m"},
            labels=containers.labels("nginx"),
            stop_signal="SIGQUIT",
            destroy_grace_seconds=settings.drain_timeout + STOP_MARGIN,
            **containers.hardening(settings.nginx_memory, TASKS),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.url = url(settings.publish_address, settings.port)
        self.register_outputs({"url": self.url})


def url(address: str, port: int) -> str:
    """Where somebody on the host reaches what is published at `address`."""
    host = {
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - named, not bound
        "::": "[::1]",
    }.get(address, f"[{address}]" if ":" in address else address)
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"
