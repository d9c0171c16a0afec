"""The release as a resource: created and updated by passing the gate.

A create or an update that fails is never taken for done: the next `pulumi up` tries it again, and only after it has
succeeded does the engine delete the replicas of the release before.
"""

import os
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import (
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from infra import nginx_config
from infra.load_balancer import LoadBalancer
from infra.nginx_config import Upstream
from infra.replicas import Replicas, ReplicaSet
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.gate import Gate, Rollout

WATCH_INTERVAL = 0.5  # seconds between two looks for the engine
_WATCH = "watch-engine"
IDENTITY = ("nginx", "replicas", "configuration", "files", "secrets")  # what makes another release of it


class ReleaseProvider(ResourceProvider):
    """Kept importable and empty until it is configured: the engine stores it, pickled by name, with the resource."""

    def configure(self, req: ConfigureRequest) -> None:
        self._docker = {"host": req.config.get("docker:host"), "cert_path": req.config.get("docker:certPath")}
        _print_refusals_without_traceback()
        _end_with_the_engine()

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._gate().let_pass(_rollout(props))
        return CreateResult(id_="release", outs=props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=any(_olds.get(key) != _news.get(key) for key in IDENTITY), replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._gate().let_pass(_rollout(_news))
        return UpdateResult(outs=_news)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What `pulumi refresh` finds: a configuration that somebody changed by hand shows as a difference."""
        from infra.gate import Refused

        try:
            live = self._gate().live_configuration(props["nginx"])
        except Refused:  # a daemon that is away says nothing about the configuration
            live = None
        return ReadResult(id_=id_, outs=props if live is None else {**props, "configuration": live})

    def _gate(self) -> "Gate":
        # Imported only where the gate runs: a program that only previews does without the Docker SDK.
        from infra.docker_host import connect
        from infra.gate import DAEMON_ERRORS, Gate, Refused

        try:
            client = connect(**self._docker)
        except DAEMON_ERRORS as error:
            host = self._docker["host"] or os.environ.get("DOCKER_HOST") or "the local socket"
            raise Refused(f"The Docker daemon at {host} is not reached: {error}. Nothing was changed.") from error
        return Gate(client, progress=lambda text: print(text, file=sys.stderr, flush=True))


class Release(Resource, name="Release"):
    """A set of replicas that takes NGINX's traffic once it has proven itself.

    Args:
        name: its logical name.
        settings: of the stack.
        replicas: those that share the traffic.
        load_balancer: what it goes live in.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        replicas: Replicas,
        load_balancer: LoadBalancer,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        # Without the containers' ids, which a preview does not know: so it shows the configuration.
        configuration = pulumi.Output.all(*(_upstreams(replica_set) for replica_set in replicas.sets)).apply(
            lambda sets: nginx_config.render(
                *([Upstream(**upstream) for upstream in known] for known in sets),
                site=settings,
                release=replicas.stable.release,
            )
        )
        inputs = {
            "nginx": load_balancer.container.id,
            "replicas": replicas.members,
            "configuration": configuration,
            "files": nginx_config.live_files(settings, load_balancer.endpoints),
            "secrets": pulumi.Output.secret(nginx_config.secret_files(settings)),
            "healthPath": settings.health_path,
            "healthTimeout": settings.health_timeout,
            "drainTimeout": settings.drain_timeout,
        }
        super().__init__(ReleaseProvider(), name, inputs, opts)


def _upstreams(replicas: ReplicaSet) -> pulumi.Output[list[dict[str, str]]]:
    return pulumi.Output.all(*({key: member[key] for key in ("name", "socket")} for member in replicas.members))


def _rollout(props: dict[str, Any]) -> "Rollout":
    from infra.gate import Replica, Rollout

    replicas = [Replica(**replica) for replica in props["replicas"]]
    return Rollout(
        nginx=props["nginx"],
        replicas=replicas,
        configuration=props["configuration"],
        files=props["files"],
        secrets=props["secrets"],
        probe_files=nginx_config.probe_files([Upstream(replica.name, replica.socket) for replica in replicas]),
        health_path=props["healthPath"],
        health_timeout=props["healthTimeout"],
        drain_timeout=props["drainTimeout"],
    )


def _print_refusals_without_traceback() -> None:
    """Pulumi's dynamic provider reports `traceback.format_exc()` of whatever is raised: of a refusal, its words."""
    from infra.gate import Refused

    original = traceback.format_exc

    def in_words(*args: Any, **kwargs: Any) -> str:
        error = sys.exc_info()[1]
        return str(error) if isinstance(error, Refused) else original(*args, **kwargs)

    traceback.format_exc = in_words


def _end_with_the_engine() -> None:
    """Ends this process, the dynamic provider, once the engine that started it is gone.

    The engine's plugins outlive a SIGKILL of it. A gate that went on by itself would get in the way of the next one,
    whose probe has the same pid file and socket.
    """
    host, _, port = sys.argv[-1].rpartition(":")  # the engine passes its address
    if host != "127.0.0.1" or not port.isdigit() or _WATCH in {thread.name for thread in threading.enumerate()}:
        return

    def watch() -> None:
        while True:
            try:
                socket.create_connection((host, int(port)), WATCH_INTERVAL).close()
            except ConnectionRefusedError:
                os._exit(1)
            except OSError:  # a machine too busy to answer in time says nothing
                pass
            time.sleep(WATCH_INTERVAL)

    threading.Thread(target=watch, name=_WATCH, daemon=True).start()
