"""The app on a swarm: one service, whose tasks are the replicas."""

import json
import math
from typing import Any

import pulumi
import pulumi_docker as docker

from infra import containers, replicas
from infra.images import app_image
from infra.layout import (
    APP_USER,
    ENVIRONMENT_FILE,
    PORT_VARIABLE,
    REPLICA_PORT,
    SOCKET_VARIABLE,
    STOP_DELAY_VARIABLE,
)
from infra.replicas import HEALTH_MARKER, HEALTH_PAUSE, HEALTH_WATCH, STOP_MARGIN
from infra.settings import Settings
from infra.swarm import services
from infra.swarm.release import ReplicaRollout

ALIAS = "app"  # the name of all replicas on the stack's network
SOCKET = f"{containers.TMPFS}/uwsgi.sock"  # for the health check
# A task gets requests only when it is healthy. A check that finds it so stays and watches it, so a short interval costs
# little. The swarm replaces a task that is not healthy any more; one that is merely busy must not look like that.
HEALTH_INTERVAL = 1  # seconds
HEALTH_CHECK_TIMEOUT = 330
HEALTH_RETRIES = 6
# Docker's DNS forgets a replica two seconds before it is told to stop, and NGINX looks each other second who there is:
# for so many seconds more a replica takes requests. One that refused would not cost an answer, were it not that NGINX
# does not ask the next one when it has just learnt of others (ngx_http_upstream_get_round_robin_peer, `busy`).
STOP_DELAY = 3
WAVES = 4  # in which a release replaces all replicas
FOREWARNING = 10  # seconds: when the plugin gives up on a new service it takes it away, and what it has said with it


class Replicas(pulumi.ComponentResource):
    """The app image and the service that runs it, spread over the nodes.

    A release starts a quarter of its replicas at a time, waits until they are healthy, and only then stops as many of
    the one before; if one fails, the swarm goes back. Each is known as `uwsgi-I`, its hostname, with the number that
    the swarm gives it.

    Attributes:
        service: of the app.
        image: its name at the registry, with the digest.
        release: fingerprint of the image and all settings of a replica; known in a preview.
        outputs: what the stack exports of it.
    """

    def __init__(
        self, name: str, settings: Settings, network: docker.Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("uwsgi-nginx:index:Replicas", name, None, opts)
        inside = pulumi.ResourceOptions(parent=self)
        self.image: pulumi.Input[str] = settings.app_image
        built_from = settings.app_image
        if not settings.app_image:
            built = app_image("app-image", settings, settings.app_folder, inside)
            self.image, built_from = built.digest, built.content
        self.release = replicas.release(settings, built_from)
        count = settings.replicas
        secret = settings.is_secret("environment")
        text = json.dumps(_environment(settings), indent=1)
        environment: dict[str, Any] = {
            "configs": [] if secret else [services.config_file(ENVIRONMENT_FILE, text, inside)],
            "secrets": [services.secret_file(ENVIRONMENT_FILE, text, APP_USER, inside)] if secret else [],
        }
        container = services.hardened(
            image=self.image,
            user=APP_USER,
            hostname="uwsgi-{{.Task.Slot}}",
            stop_signal="SIGTERM",
            grace=STOP_DELAY + settings.drain_timeout + STOP_MARGIN,
            mounts=[services.memory_mount(containers.TMPFS, 16)],
            healthcheck=_healthcheck(settings),
            **environment,
        )
        swarm, parallelism, timeout = settings.swarm, math.ceil(count / WAVES), _longest_rollout(settings)
        task = services.task(
            container,
            network,
            alias=ALIAS,
            resources=services.resources(settings.memory, settings.cpus, swarm.reserved_memory, swarm.reserved_cpus),
            placement=services.placement(settings, swarm.app_nodes, spread=True),
        )
        content = services.content(task, count)
        self.service = docker.Service(
            "app",
            mode=docker.ServiceModeArgsDict(replicated=docker.ServiceModeReplicatedArgsDict(replicas=count)),
            labels=services.labels("replica", release=self.release, content=content),
            # Without an address of its own, which takes IPVS in the kernel: its name leads to those of all replicas.
            endpoint_spec=docker.ServiceEndpointSpecArgsDict(mode="dnsrr"),
            task_spec=task,
            converge_config=docker.ServiceConvergeConfigArgsDict(
                delay=services.CONVERGE_DELAY, timeout=services.duration(timeout)
            ),
            **services.rolling("start-first", parallelism),
            opts=inside,
        )
        ReplicaRollout("rollout", content, settings, timeout - FOREWARNING, inside)
        self.outputs = {
            "replicas": count,
            "release": self.release,
            "image": self.image,
            "app": self.service.name,
        }
        self.register_outputs({"image": self.image})


def _environment(settings: Settings) -> dict[str, str]:
    return {
        SOCKET_VARIABLE: SOCKET,
        PORT_VARIABLE: str(REPLICA_PORT),
        STOP_DELAY_VARIABLE: str(STOP_DELAY),
        "UWSGI_PROCESSES": str(settings.uwsgi_processes),
        "UWSGI_THREADS": str(settings.uwsgi_threads),
        "UWSGI_WORKER_RELOAD_MERCY": str(settings.drain_timeout),
        **dict(sorted(settings.environment.items())),
    }


def _healthcheck(settings: Settings) -> docker.ServiceTaskSpecContainerSpecHealthcheckArgsDict:
    return docker.ServiceTaskSpecContainerSpecHealthcheckArgsDict(
        tests=[
            *("CMD", "healthcheck", settings.health_path, SOCKET),
            *(HEALTH_MARKER, str(HEALTH_WATCH), str(HEALTH_PAUSE)),
        ],
        interval=services.duration(HEALTH_INTERVAL),
        timeout=services.duration(HEALTH_CHECK_TIMEOUT),
        # Until then it may be as unwell as it likes.
        start_period=services.duration(settings.health_timeout),
        retries=HEALTH_RETRIES,
    )


def _longest_rollout(settings: Settings) -> int:
    """Seconds after which `pulumi up` gives up on it. The swarm says much earlier that a release fails."""
    return WAVES * (settings.health_timeout + services.MONITOR) + 60
