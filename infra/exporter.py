"""The exporter: figures of the stack for Prometheus, and a status page for people; see exporter/."""

from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import containers
from infra.images import BuiltImage
from infra.layout import EXPORTER_PORT, METRICS_FOLDER, NGINX_USER, REQUEST_LOG, SOCKET_FOLDER
from infra.load_balancer import TASKS, LoadBalancer, url
from infra.replicas import Replicas
from infra.settings import Settings

EXPORTER = Path("exporter")
NAME = "exporter"  # also what it is called on the stack's network
MEMORY = 64  # MiB; it takes some 30


class Exporter(pulumi.ComponentResource):
    """A container that reads what NGINX writes of each request, and asks the replicas how they are.

    Nothing waits for it, and nothing of the site depends on it: what NGINX writes while it is away waits in memory, and
    is dropped where that is used up.

    Attributes:
        url: where it answers, if a port is set; else the port of `exporter` on the stack's network.
        outputs: what the stack exports of it.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        network: docker.Network,
        replicas: Replicas,
        load_balancer: LoadBalancer,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("uwsgi-nginx:index:Exporter", name, None, opts)
        port, address = settings.metrics.port, settings.publish_address
        self.url = url(address, port, docker=settings.docker_address) if port else f"http://{NAME}:{EXPORTER_PORT}"
        self.outputs = {"status": self.url}
        image = BuiltImage(
            "exporter-image",
            settings.exporter_image_name,
            str(EXPORTER),
            EXPORTER / "Dockerfile",
            {"PYTHON_IMAGE": settings.python_image},
            settings.platform,
            pulumi.ResourceOptions(parent=self),
        )
        published = [docker.ContainerPortArgs(internal=EXPORTER_PORT, external=port, ip=address)] if port else None
        docker.Container(
            NAME,
            image=image.digest,
            hostname=NAME,
            command=[
                f"--stack={pulumi.get_stack()}",
                f"--port={EXPORTER_PORT}",
                f"--log={REQUEST_LOG}",
                f"--sockets={SOCKET_FOLDER}",
            ],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network.name, aliases=[NAME])],
            ports=published,
            volumes=[
                docker.ContainerVolumeArgs(volume_name=replicas.sockets.name, container_path=SOCKET_FOLDER),
                docker.ContainerVolumeArgs(volume_name=load_balancer.metrics.name, container_path=METRICS_FOLDER),
            ],
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD", "python", "-IS", "/srv/exporter/healthcheck.py", str(EXPORTER_PORT)],
                interval="30s",
                timeout="5s",
                retries=3,
            ),
            labels=containers.labels("exporter"),
            **containers.hardening(NGINX_USER, MEMORY, TASKS),
            # Two at once would read the same lines, each of them some.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.register_outputs({"url": self.url})
