"""A WSGI app on Docker as it should be run: replicas of one uWSGI image, NGINX in front, a gate between the two."""

import pulumi

from infra import single_host, swarm
from infra.exporter import Exporter
from infra.settings import Settings

settings = Settings.load()
on = swarm if settings.orchestrator == "swarm" else single_host

network = on.network(settings)
replicas = on.Replicas("replicas", settings, network)
load_balancer = on.LoadBalancer("load-balancer", settings, network, replicas)
release = on.Release("release", settings, replicas, load_balancer)
exporter = Exporter("monitoring", settings, network, replicas, load_balancer) if settings.metrics.enabled else None

for part in (replicas, load_balancer, release, exporter):
    for name, value in part.outputs.items() if part else ():
        pulumi.export(name, value)
