"""A WSGI app on Docker as it should be run: replicas of one uWSGI image, NGINX in front, a gate between the two."""

import pulumi
import pulumi_docker as docker

from infra.exporter import Exporter
from infra.load_balancer import LoadBalancer
from infra.release import Release
from infra.replicas import Replicas
from infra.settings import Settings

settings = Settings.load()

network = docker.Network("network")
replicas = Replicas("replicas", settings, network)
load_balancer = LoadBalancer("load-balancer", settings, network, replicas)
Release("release", settings, replicas, load_balancer)
exporter = Exporter("monitoring", settings, network, replicas, load_balancer) if settings.metrics.enabled else None

pulumi.export("url", load_balancer.url)
pulumi.export("replicas", [member["name"] for member in replicas.members])
pulumi.export("release", replicas.stable.release)
pulumi.export("image", replicas.stable.image)
if replicas.canary:
    pulumi.export("canary", {"release": replicas.canary.release, "image": replicas.canary.image})
pulumi.export("containers", [container.name for container in replicas.containers])
pulumi.export("nginx", load_balancer.container.name)
if exporter:
    pulumi.export("status", exporter.url)
