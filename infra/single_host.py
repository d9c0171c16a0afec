"""The stack on a single Docker host: the parts that `infra.swarm` has for a cluster."""

import pulumi_docker as docker

from infra.load_balancer import LoadBalancer
from infra.release import Release
from infra.replicas import Replicas
from infra.settings import Settings

__all__ = ["LoadBalancer", "Release", "Replicas", "network"]


def network(settings: Settings) -> docker.Network:
    """What the containers of the stack are on, and nothing else."""
    del settings
    return docker.Network("network")
