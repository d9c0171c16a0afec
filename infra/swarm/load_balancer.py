"""The load balancer on a swarm: NGINX on each node, or on those with a label."""

import pulumi
import pulumi_docker as docker

from infra import load_balancer, nginx_config
from infra.images import nginx_image
from infra.layout import (
    CONFIGURATION_FILE,
    HTTPS_PORT,
    LIVE_FOLDER,
    NGINX_USER,
    PID_FILE,
    PORT,
    REPLICA_PORT,
    RUNTIME_FOLDER,
    SITE_FOLDER,
)
from infra.nginx_config import Endpoints, ServiceUpstream
from infra.replicas import STOP_MARGIN
from infra.settings import Settings
from infra.swarm import replicas, services
from infra.swarm.configuration_test import ConfigurationTest
from infra.swarm.replicas import Replicas

PAUSE = 2  # seconds between the NGINX of one node and that of the next


class LoadBalancer(pulumi.ComponentResource):
    """NGINX as a service with a task on each node, and its configuration.

    A release of the app changes nothing of it: Docker's DNS tells it who the replicas are. Another configuration,
    another certificate or another image replaces it, node by node, and the swarm goes back if one does not start. With
    `swarm.publish: host` a node refuses connections while its NGINX is replaced: the port has no two holders. With the
    routing mesh it has.

    Attributes:
        service: of NGINX.
        image: its name at the registry, with the digest.
        content: fingerprint of its tasks: what makes them others.
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
        inside = pulumi.ResourceOptions(parent=self)
        image = nginx_image(settings, str(PORT), inside)
        files, secrets = _files(settings), _secrets(settings)
        tested = ConfigurationTest("configuration-test", image=image.digest, files=files, secrets=secrets, opts=inside)
        after_test = pulumi.ResourceOptions(parent=self, depends_on=[tested])
        mesh = settings.swarm.publish == "mesh"
        ports = {PORT: settings.port, **({HTTPS_PORT: settings.tls.port} if settings.tls.enabled else {})}
        container = services.hardened(
            image=image.digest,
            user=NGINX_USER,
            hostname="nginx-{{.Node.Hostname}}",
            commands=_command(),
            # Otherwise its tasks would not tell which of them have the new ports.
            variable=("PUBLISHED_PORTS", " ".join(str(port) for port in ports.values())),
            # Its configuration was tested, and what is wrong with it later shows in how it answers.
            healthcheck=docker.ServiceTaskSpecContainerSpecHealthcheckArgsDict(
                tests=["NONE"], interval="0s", timeout="0s", start_period="0s", retries=0
            ),
            stop_signal="SIGQUIT",
            grace=settings.drain_timeout + STOP_MARGIN,
            mounts=[services.memory_mount(RUNTIME_FOLDER, 64), services.volume_mount(LIVE_FOLDER)],
            configs=[services.config_file(f"{SITE_FOLDER}/{file}", text, after_test) for file, text in files.items()],
            secrets=[
                services.secret_file(f"{SITE_FOLDER}/{file}", text, NGINX_USER, after_test)
                for file, text in secrets.items()
            ],
        )
        task = services.task(
            container,
            network,
            alias="nginx",
            resources=services.resources(settings.nginx_memory),
            placement=services.placement(settings, settings.swarm.nginx_nodes, spread=False),
        )
        endpoint = docker.ServiceEndpointSpecArgsDict(
            mode="vip" if mesh else "dnsrr",
            ports=[
                docker.ServiceEndpointSpecPortArgsDict(
                    name="",
                    protocol="tcp",
                    target_port=internal,
                    published_port=external,
                    publish_mode="ingress" if mesh else "host",
                )
                for internal, external in ports.items()
            ],
        )
        self.content = services.content(task, endpoint)
        self.service = docker.Service(
            # The mode of its ports is one of the service's beginning.
            "nginx-mesh" if mesh else "nginx",
            mode=docker.ServiceModeArgsDict(global_=True),
            labels=services.labels("nginx", content=self.content),
            endpoint_spec=endpoint,
            task_spec=task,
            # A successor on the same host port would wait for ever for its predecessor to go.
            **services.rolling("start-first" if mesh else "stop-first", 1, PAUSE),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[replicas.service]),
        )
        self.image = image.digest
        self.url = load_balancer.site_url(settings, settings.docker_address)
        self.outputs = {"url": self.url, "nginx": self.service.name}
        self.register_outputs({"url": self.url})


def _files(settings: Settings) -> dict[str, str]:
    """What NGINX reads: texts by name. Nothing in them is of one release: the next would replace all NGINX."""
    app = ServiceUpstream(replicas.ALIAS, REPLICA_PORT)
    endpoints = Endpoints(http=str(PORT), https=str(HTTPS_PORT) if settings.tls.enabled else "")
    return {
        CONFIGURATION_FILE: nginx_config.render([app], site=settings, release="any", folder=SITE_FOLDER),
        **nginx_config.live_files(settings, endpoints),
    }


def _secrets(settings: Settings) -> dict[str, str]:
    return nginx_config.secret_files(settings, f"{pulumi.get_project()}/{pulumi.get_stack()}")


def _command() -> list[str]:
    """As in nginx/Dockerfile, with the configuration where it stands here."""
    return [
        *("chrt", "-b", "0", "nginx", "-e", "stderr", "-c", f"{SITE_FOLDER}/{CONFIGURATION_FILE}"),
        *("-g", f"daemon off; pid {PID_FILE};"),
    ]
