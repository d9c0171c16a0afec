"""The load balancer: one NGINX container, which alone publishes a port."""

from typing import Any

import pulumi
import pulumi_docker as docker

from infra import containers
from infra.images import nginx_image
from infra.layout import (
    BOOT_SOCKET,
    HTTPS_PORT,
    LIVE_FOLDER,
    METRICS_FOLDER,
    NGINX_USER,
    PORT,
    RUNTIME_FOLDER,
    SOCKET_FOLDER,
    SOCKET_GROUP,
)
from infra.nginx_config import Endpoints
from infra.published_port import PublishedPort
from infra.replicas import STOP_MARGIN, Replicas
from infra.settings import LOOPBACK, Settings
from infra.site import in_url

TASKS = 4096
# What NGINX may write before the exporter has read it, some 60,000 requests. It counts as memory of NGINX.
METRICS_SIZE = "8m"


class LoadBalancer(pulumi.ComponentResource):
    """NGINX, which is replaced only when its image or where it listens changes; its configuration is the gate's.

    With `publish: port` Docker publishes its port, which cannot have two holders: a successor on the same port is
    created after it is gone. On another port it is another resource: created before, so that a port that is taken
    harms nothing. With `publish: host` it listens on the host's network, where a successor stands beside it until it
    has proven itself: each image has a volume of its own, whose configuration listens nowhere until the gate says so.

    HTTPS has a port of its own. With `publish: port` it cannot be added to what runs: to turn `tls` on or off, or to
    change `tls.port`, replaces NGINX, with a gap of a second or two. With `publish: host` there is no gap. Another
    certificate is a change of the configuration alone.

    Attributes:
        container: the NGINX container.
        metrics: the volume, in memory, through which it talks to the exporter. It is there also without one: another
            volume would be another NGINX, and so a gap.
        endpoints: where it listens.
        url: where the app answers.
        outputs: what the stack exports of it.
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
        self.url = site_url(settings, settings.publish_address)

        boot_listen = f"unix:{BOOT_SOCKET}" if on_host else str(PORT)
        image = nginx_image(settings, boot_listen, pulumi.ResourceOptions(parent=self))
        live = docker.Volume(
            f"nginx-live-{image.content}" if on_host else "nginx-live", opts=pulumi.ResourceOptions(parent=self)
        )
        self.metrics = docker.Volume(
            "metrics",
            driver="local",
            driver_opts={
                "type": "tmpfs",
                "device": "tmpfs",
                "o": f"size={METRICS_SIZE},uid={NGINX_USER},gid={SOCKET_GROUP},mode=0770,noexec,nosuid,nodev",
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        dependencies: list[pulumi.Resource] = [*replicas.containers]
        if settings.tls.enabled and not on_host:
            dependencies.append(
                PublishedPort(
                    "https-port",
                    image=image.digest,
                    address=settings.publish_address,
                    http=settings.port,
                    https=settings.tls.port,
                    opts=pulumi.ResourceOptions(parent=self),
                )
            )
        self.container = docker.Container(
            "nginx-host" if on_host else f"nginx-{settings.port}",
            image=image.digest,
            volumes=[
                docker.ContainerVolumeArgs(volume_name=replicas.sockets.name, container_path=SOCKET_FOLDER),
                docker.ContainerVolumeArgs(volume_name=live.name, container_path=LIVE_FOLDER),
                docker.ContainerVolumeArgs(volume_name=self.metrics.name, container_path=METRICS_FOLDER),
            ],
            tmpfs={RUNTIME_FOLDER: f"uid={NGINX_USER},size=64m"},
            labels=containers.labels("nginx"),
            stop_signal="SIGQUIT",
            destroy_grace_seconds=settings.drain_timeout + STOP_MARGIN,
            **(_on_the_host() if on_host else _published(settings, network)),
            **containers.hardening(NGINX_USER, settings.nginx_memory, TASKS),
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=not on_host,
                # So that a predecessor which still drains goes before the replicas that it asks.
                depends_on=dependencies,
            ),
        )
        self.outputs = {"url": self.url, "nginx": self.container.name}
        self.register_outputs({"url": self.url})


def endpoints(settings: Settings) -> Endpoints:
    """Where NGINX listens: in its container, or on the host itself."""
    if settings.publish == "port":
        return Endpoints(http=str(PORT), https=str(HTTPS_PORT) if settings.tls.enabled else "")
    address = in_url(settings.publish_address)
    https = f"{address}:{settings.tls.port}" if settings.tls.enabled else ""
    return Endpoints(http=f"{address}:{settings.port}", https=https, shared=True)


def _published(settings: Settings, network: docker.Network) -> dict[str, Any]:
    ports = {PORT: settings.port}
    if settings.tls.enabled:
        ports[HTTPS_PORT] = settings.tls.port
    return {
        "hostname": "nginx",
        "networks_advanced": [docker.ContainerNetworksAdvancedArgs(name=network.name)],
        "ports": [
            docker.ContainerPortArgs(internal=internal, external=external, ip=settings.publish_address)
            for internal, external in ports.items()
        ],
    }


def _on_the_host() -> dict[str, Any]:
    return {"network_mode": "host"}


def site_url(settings: Settings, address: str) -> str:
    """Where the app answers that is published at `address`: by HTTPS under the first of its names, if it has any."""
    if not settings.tls.enabled:
        return url(address, settings.port, docker=settings.docker_address)
    name = settings.tls.hosts[0] if settings.tls.hosts else address
    return url(name, settings.tls.port, "https", settings.docker_address)


def url(address: str, port: int, scheme: str = "http", docker: str = LOOPBACK) -> str:
    """Where somebody reaches what is published at `address`; `docker`: the address of the Docker host."""
    host = {
        "0.0.0.0": in_url(docker),  # noqa: S104 - named, not bound
        "::": "[::1]" if docker == LOOPBACK else in_url(docker),
    }.get(address, in_url(address))
    return f"{scheme}://{host}" if port == {"http": 80, "https": 443}[scheme] else f"{scheme}://{host}:{port}"
