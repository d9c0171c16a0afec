"""A WSGI app on Docker as it should be run: replicas of one uWSGI image, NGINX in front, a gate between the two."""

import pulumi
import pulumi_docker as docker

from infra.load_balancer import LoadBalancer
from infra.release import Release
from infra.replicas import Replicas
from infra.settings import Settings

settings = Settings.load()

network = docker.Network("network")
replicas = Replicas("replicas", settings, network)
load_balancer = LoadBalancer("load-balancer", settings, network, replicas)
Release("release", settings, replicas, load_balancer)

pulumi.export("url", load_balancer.url)
pulumi.export("replicas", [member["name"] for member in replicas.members])
pulumi.export("release", replicas.stable.release)
pulumi.export("image", replicas.stable.image)
pulumi.export("containers", [container.name for container in replicas.containers])
pulumi.export("nginx", load_balancer.container.name)
