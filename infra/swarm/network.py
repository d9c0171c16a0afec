"""The network of a stack on a swarm."""

import pulumi_docker as docker

from infra.settings import Settings


def network(settings: Settings) -> docker.Network:
    """What the services of the stack are on, and nothing else: uWSGI believes whoever can reach it.

    Any of the driver's options would be a difference at each `up`: the daemon adds one of its own.
    """
    subnet = settings.swarm.subnet
    return docker.Network(
        "overlay",
        driver="overlay",
        attachable=False,
        ipam_configs=[docker.NetworkIpamConfigArgs(subnet=subnet)] if subnet else None,
    )
