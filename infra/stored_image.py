"""An image that was built before, in the place of one that is built now."""

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra.dynamic import DaemonProvider
from infra.refusal import Refused


class StoredImageProvider(DaemonProvider):
    """Looks whether the daemon has the image: it can neither build it nor find it anywhere else."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._find(props["digest"])
        return CreateResult(id_="stored-image", outs=props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=_olds.get("digest") != _news["digest"], replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._find(_news["digest"])
        return UpdateResult(outs=_news)

    def _find(self, digest: str) -> None:
        from docker.errors import ImageNotFound

        from infra.docker_host import DAEMON_ERRORS

        try:
            self.connect().images.get(digest)
        except ImageNotFound:
            raise Refused(
                f"appImage: the Docker daemon at {self.daemon} has no image {digest}. No replica was changed. "
                "`docker images --no-trunc` lists those that it has; without the setting, the image is built from "
                "appFolder."
            ) from None
        except DAEMON_ERRORS as error:
            raise Refused(f"appImage: the Docker daemon did not say whether it has {digest}: {error}.") from error


class StoredImage(Resource, name="StoredImage"):
    """What replicas depend on that run such an image: without it none is replaced.

    Args:
        name: its logical name.
        digest: the image's id, sha256:….
    """

    def __init__(self, name: str, digest: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(StoredImageProvider(), name, {"digest": digest}, opts)
