"""Images, built from a folder and named after its content, so that a preview knows which release it is of."""

from collections.abc import Mapping
from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import fingerprint


class BuiltImage:
    """An image that the daemon builds; nothing is pushed.

    Attributes:
        content: fingerprint of all that goes into the build; its tag; known in a preview.
        digest: of the image; known when it is built.
    """

    def __init__(
        self,
        name: str,
        image_name: str,
        context: str,
        dockerfile: Path,
        arguments: Mapping[str, str],
        platform: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """Builds it.

        Args:
            name: its logical name.
            image_name: without a tag.
            context: the folder that the build sees; relative to the project, as every path in the state.
            dockerfile: also relative to the project; it may stand outside the context.
            arguments: build arguments. They are seen in the image's history: no secrets.
            platform: that it is for. The plugin would take the one of the machine that it runs on, and call another
                machine's a difference.
        """
        self.content = fingerprint.of_values(
            fingerprint.of_folder(Path(context)), dockerfile.read_text(), dict(arguments), platform
        )
        self.digest = docker.Image(
            name,
            image_name=f"{image_name}:{self.content}",
            build=docker.DockerBuildArgs(
                context=context, dockerfile=str(dockerfile), args=dict(arguments), platform=platform
            ),
            skip_push=True,
            opts=opts,
        ).repo_digest
