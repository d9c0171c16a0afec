"""The port for HTTPS that Docker is to publish, tried before NGINX gives up the one that it has for HTTP.

A container gets its ports when it is created, and the one for HTTP has no two holders. So NGINX goes before its
successor comes; and if the successor then found the port for HTTPS taken, nothing would answer any more.
"""

from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra.dynamic import DaemonProvider
from infra.layout import HTTPS_PORT, LABEL_PREFIX, PORT
from infra.refusal import Refused

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

IDENTITY = ("address", "http", "https")


class PublishedPortProvider(DaemonProvider):
    """Lets a container that does nothing have the port for a moment."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._try(props)
        return CreateResult(id_="published-port", outs=props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=any(_olds.get(key) != _news[key] for key in IDENTITY), replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._try(_news)
        return UpdateResult(outs=_news)

    def _try(self, props: dict[str, Any]) -> None:
        from infra.docker_host import DAEMON_ERRORS

        client, port = self.connect(), int(props["https"])
        try:
            holder = _holder(client, props["labels"], port)
            if holder is None:
                _publish(client, props, port)
        except DAEMON_ERRORS as error:
            reason = getattr(error, "explanation", None) or error
            raise Refused(
                f"tls.port: Docker does not publish {port}: {reason}. Nothing was changed: NGINX goes on as it is."
            ) from error
        if holder is not None and _published(holder, PORT) != int(props["http"]):
            raise Refused(
                f"tls.port: NGINX on port {_published(holder, PORT)} keeps {port} until the one on port "
                f"{props['http']} stands beside it. Change both ports at once. Nothing was changed."
            )


class PublishedPort(Resource, name="PublishedPort"):
    """What NGINX depends on where it is to have a port for HTTPS.

    Args:
        name: its logical name.
        image: any image on the daemon that has `true`.
        address: of the host.
        http, https: the host's ports.
    """

    def __init__(
        self,
        name: str,
        *,
        image: pulumi.Input[str],
        address: str,
        http: int,
        https: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        labels = {LABEL_PREFIX + "project": pulumi.get_project(), LABEL_PREFIX + "stack": pulumi.get_stack()}
        inputs = {"image": image, "address": address, "http": http, "https": https, "labels": labels}
        super().__init__(PublishedPortProvider(), name, inputs, opts)


def _holder(client: "DockerClient", labels: dict[str, str], port: int) -> "Container | None":
    """This stack's own NGINX, if that is who has the port."""
    wanted = [*(f"{name}={value}" for name, value in labels.items()), f"{LABEL_PREFIX}role=nginx"]
    found = client.containers.list(filters={"label": wanted}, ignore_removed=True)
    return next((container for container in found if _published(container, HTTPS_PORT) == port), None)


def _published(container: "Container", port: int) -> int | None:
    """The host's port for that one of the container."""
    bindings = container.attrs["HostConfig"]["PortBindings"] or {}
    return next((int(binding["HostPort"]) for binding in bindings.get(f"{port}/tcp") or []), None)


def _publish(client: "DockerClient", props: dict[str, Any], port: int) -> None:
    container = client.containers.create(
        props["image"],
        entrypoint=["true"],
        ports={f"{HTTPS_PORT}/tcp": (props["address"], port)},
        labels={**props["labels"], f"{LABEL_PREFIX}role": "port"},
    )
    try:
        container.start()
    finally:
        container.remove(force=True)
