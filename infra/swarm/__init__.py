"""The stack on a Docker Swarm: the same parts as on a single host, made of services.

A swarm does here what the release gate does there: it starts new replicas before it stops old ones, waits until they
are healthy, spreads them, heals, and goes back to the release before when the new one fails.
"""

from infra.swarm.load_balancer import LoadBalancer
from infra.swarm.network import network
from infra.swarm.release import Release
from infra.swarm.replicas import Replicas

__all__ = ["LoadBalancer", "Release", "Replicas", "network"]
