"""The release on a swarm: `pulumi up` ends when it is there, or says why it is not.

The plugin waits for the app's service, but when the swarm goes back it does not know why; and it does not wait at all
for a service that runs on each node, as NGINX does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from infra.dynamic import DaemonProvider, with_previous_image
from infra.refusal import Refused
from infra.swarm import services

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.swarm.load_balancer import LoadBalancer
    from infra.swarm.replicas import Replicas
    from infra.swarm.rollout import Rollout

APPEARS_WITHIN = 20  # seconds
START_TIMEOUT = 60  # seconds that a node may take to start NGINX, beside the drain of the one before


class RolloutProvider(DaemonProvider):
    """Waits for a rollout."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_="rollout", outs=self._wait({}, props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        changes = any(_olds.get(key) != _news.get(key) for key in ("service", "content", "release"))
        return DiffResult(changes=changes, replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._wait(_olds, _news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What `pulumi refresh` finds: what somebody has changed by hand is put right, and that is a rollout again."""
        from infra.docker_host import DAEMON_ERRORS
        from infra.swarm.rollout import Watch

        try:
            now = Watch(self.connect()).specification(_rollout(props))
        except (Refused, *DAEMON_ERRORS):  # a manager that is away says nothing about it
            now = props["specification"]
        return ReadResult(id_=id_, outs=props if now == props["specification"] else {**props, "content": ""})

    def _wait(self, olds: dict[str, Any], props: dict[str, Any]) -> dict[str, Any]:
        from infra.swarm import reach
        from infra.swarm.rollout import Watch

        client = self.connect()
        watch = Watch(client, progress=lambda text: print(text, file=sys.stderr, flush=True))
        specification = watch.until_live(_rollout(props))
        if props.get("ask"):
            reach.ask(client, reach.Site(**{**props["ask"], "port": int(props["ask"]["port"])}))
        outputs = {**props, "specification": specification}
        return with_previous_image(olds, outputs) if "image" in props else outputs


def _rollout(props: dict[str, Any]) -> Rollout:
    from infra.swarm.rollout import Rollout

    return Rollout(
        name=props["name"],
        labels=props["labels"],
        content=props["content"],
        replicas=int(props["replicas"]),
        nodes=props["nodes"],
        platform=props["platform"],
        timeout=props["timeout"],
        appears_within=props["appearsWithin"],
        decides=props["decides"],
    )


class ReplicaRollout(Resource, name="ReplicaRollout"):
    """Watches the app's service while the plugin waits for it, to say what it sees: the plugin does not say why.

    Args:
        name: its logical name.
        content: fingerprint of what the service is to be.
        settings: of the stack.
        timeout: seconds until all replicas must run.
    """

    def __init__(
        self,
        name: str,
        content: pulumi.Input[str],
        settings: Settings,
        timeout: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        inputs = {
            "name": "uwsgi",
            "labels": services.identity("replica"),
            "content": content,
            "replicas": settings.replicas,
            "nodes": settings.swarm.app_nodes,
            "platform": settings.platform,
            "timeout": timeout,
            # It starts when the plugin is told to change the service, not when it has been changed.
            "appearsWithin": APPEARS_WITHIN,
            "decides": False,
        }
        super().__init__(RolloutProvider(), name, inputs, opts)


class Release(Resource, name="SwarmRelease"):
    """What is there when NGINX runs on all nodes that are to answer, and answers.

    Args:
        name: its logical name.
        settings: of the stack.
        replicas: those that share the traffic.
        load_balancer: what they are reached through.

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
        mesh = settings.swarm.publish == "mesh"
        inputs = {
            "name": "NGINX",
            "labels": services.identity("nginx"),
            "service": load_balancer.service.id,
            "content": load_balancer.content,
            "release": replicas.release,
            "image": replicas.image,
            "previous": None,  # an output
            "replicas": 0,
            "nodes": settings.swarm.nginx_nodes,
            "platform": settings.platform,
            "timeout": settings.drain_timeout + START_TIMEOUT,
            "appearsWithin": 5,
            "decides": True,
            "ask": {
                "image": load_balancer.image,
                "port": settings.port,
                "path": settings.health_path,
                "nodes": "" if mesh else settings.swarm.nginx_nodes,
                "labels": services.identity("test"),
            },
        }
        opts = pulumi.ResourceOptions.merge(
            pulumi.ResourceOptions(depends_on=[load_balancer.service, replicas.service]), opts
        )
        super().__init__(RolloutProvider(), name, inputs, opts)
        self.outputs = {"previousImage": self.previous.apply(lambda image: image or "")}
