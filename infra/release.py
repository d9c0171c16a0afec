"""The release as a resource: created and updated by passing the gate.

A create or an update that fails is never taken for done: the next `pulumi up` tries it again, and only after it has
succeeded does the engine delete the replicas of the release before.

The engine runs the provider in a process of its own, at each `up`: what it needs no more than to see that nothing has
changed is imported above, all else where it is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from infra.dynamic import DaemonProvider, with_previous_image
from infra.refusal import Refused

if TYPE_CHECKING:
    from infra.gate import Gate, Rollout
    from infra.load_balancer import LoadBalancer
    from infra.replicas import Replicas, ReplicaSet
    from infra.settings import Settings

IDENTITY = ("nginx", "replicas", "configuration", "files", "secrets")  # what makes another release of it


class ReleaseProvider(DaemonProvider):
    """Passes the gate."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._gate().let_pass(_rollout(props))
        return CreateResult(id_="release", outs=with_previous_image({}, props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=any(_olds.get(key) != _news.get(key) for key in IDENTITY), replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._gate().let_pass(_rollout(_news))
        return UpdateResult(outs=with_previous_image(_olds, _news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What `pulumi refresh` finds: a configuration that somebody changed by hand shows as a difference."""
        try:
            live = self._gate().live_configuration(props["nginx"])
        except Refused:  # a daemon that is away says nothing about the configuration
            live = None
        return ReadResult(id_=id_, outs=props if live is None else {**props, "configuration": live})

    def _gate(self) -> Gate:
        from infra.gate import Gate

        return Gate(self.connect(), progress=lambda text: print(text, file=sys.stderr, flush=True))


class Release(Resource, name="Release"):
    """A set of replicas that takes NGINX's traffic once it has proven itself.

    Args:
        name: its logical name.
        settings: of the stack.
        replicas: those that share the traffic.
        load_balancer: what it goes live in.

    Attributes:
        previous: the image of the release before it; None or empty where there is none.
        outputs: what the stack exports of it.
    """

    previous: pulumi.Output[str | None]

    def __init__(
        self,
        name: str,
        settings: Settings,
        replicas: Replicas,
        load_balancer: LoadBalancer,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        from infra import nginx_config
        from infra.nginx_config import Upstream

        # Without the containers' ids, which a preview does not know: so it shows the configuration.
        configuration = pulumi.Output.all(*(_upstreams(replica_set) for replica_set in replicas.sets)).apply(
            lambda sets: nginx_config.render(
                *([Upstream(**upstream) for upstream in known] for known in sets),
                site=settings,
                release=replicas.stable.release,
                canary_release=replicas.canary.release if replicas.canary else "",
            )
        )
        stack = f"{pulumi.get_project()}/{pulumi.get_stack()}"
        inputs = {
            "nginx": load_balancer.container.id,
            "replicas": replicas.members,
            "drained": sorted(set(settings.balancing.drain)),
            "image": replicas.stable.image,
            "previous": None,  # an output
            "configuration": configuration,
            "files": nginx_config.live_files(settings, load_balancer.endpoints),
            "secrets": pulumi.Output.secret(nginx_config.secret_files(settings, stack)),
            "clientHeaders": nginx_config.canary_headers(settings),
            "static": [
                {
                    "name": nginx_config.static_name(settings, replica_set.release),
                    "container": _serving(replica_set, settings)["container"],
                    "folders": settings.served_files,
                }
                for replica_set in replicas.sets
                if settings.served_files
            ],
            "healthPath": settings.health_path,
            "healthTimeout": settings.health_timeout,
            "drainTimeout": settings.drain_timeout,
        }
        super().__init__(ReleaseProvider(), name, inputs, opts)
        self.outputs = {"previousImage": self.previous.apply(lambda image: image or "")}


def _serving(replicas: ReplicaSet, settings: Settings) -> dict[str, pulumi.Input[str]]:
    """One that is not drained: of a container that is sick, not even its files can be counted on."""
    drained = settings.balancing.drain
    return next(member for name, member in zip(replicas.names, replicas.members, strict=True) if name not in drained)


def _upstreams(replicas: ReplicaSet) -> pulumi.Output[list[dict[str, str]]]:
    return pulumi.Output.all(*({key: member[key] for key in ("name", "socket")} for member in replicas.members))


def _rollout(props: dict[str, Any]) -> Rollout:
    from infra import nginx_config
    from infra.gate import Replica, Rollout
    from infra.nginx_config import Upstream
    from infra.static_files import StaticFiles

    replicas = [Replica(**replica) for replica in props["replicas"]]
    return Rollout(
        nginx=props["nginx"],
        replicas=replicas,
        configuration=props["configuration"],
        files=props["files"],
        secrets=props["secrets"],
        probe_files=nginx_config.probe_files([Upstream(replica.name, replica.socket) for replica in replicas]),
        client_headers=props["clientHeaders"],
        static=[StaticFiles(**files) for files in props["static"]],
        health_path=props["healthPath"],
        health_timeout=props["healthTimeout"],
        drain_timeout=props["drainTimeout"],
        drained=props["drained"],
    )
