"""The images that the stack builds, named after their content, so that a preview knows which release they are of."""

from collections.abc import Mapping
from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import fingerprint
from infra.settings import Registry, Settings

UWSGI = Path("uwsgi")  # relative to the project, as every path in the state
NGINX = Path("nginx")


class BuiltImage:
    """An image that the daemon builds, and pushes if there is a registry.

    Attributes:
        content: fingerprint of all that goes into the build; its tag; known in a preview.
        digest: of the image, behind its name if it was pushed; known when it is built.
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
        registry: Registry | None = None,
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
            registry: that it is pushed to; none: it stays on the daemon.
        """
        self.content = fingerprint.of_values(
            fingerprint.of_folder(Path(context)), dockerfile.read_text(), dict(arguments), platform
        )
        at = f"{registry.address}/" if registry else ""
        self.digest = docker.Image(
            name,
            image_name=f"{at}{image_name}:{self.content}",
            build=docker.DockerBuildArgs(
                context=context, dockerfile=str(dockerfile), args=dict(arguments), platform=platform
            ),
            skip_push=registry is None,
            registry=_login(registry) if registry and registry.username else None,
            opts=opts,
        ).repo_digest


def app_image(name: str, settings: Settings, folder: str, opts: pulumi.ResourceOptions) -> BuiltImage:
    """The image of a WSGI app, with uWSGI.

    Args:
        name: its logical name.
        settings: of the stack.
        folder: of the app.
        opts: of the resource.
    """
    arguments = {
        "PYTHON_IMAGE": settings.python_image,
        "UWSGI_INI": (UWSGI / "uwsgi.ini").read_text(),
        "ENTRYPOINT_PY": (UWSGI / "entrypoint.py").read_text(),
        "WSGI_PY": (UWSGI / "wsgi.py").read_text(),
        "LIVE_RELOAD_PY": (UWSGI / "live_reload.py").read_text(),
        "HEALTHCHECK_C": (UWSGI / "healthcheck.c").read_text(),
        "UWSGI_APP": settings.app_module,
        "UWSGI_CALLABLE": settings.app_callable,
        "IMPORT_CHECK": str(settings.import_check).lower(),
    }
    image_name, dockerfile = settings.app_image_name, UWSGI / "Dockerfile"
    return BuiltImage(name, image_name, folder, dockerfile, arguments, settings.platform, opts, settings.pushes_to)


def nginx_image(settings: Settings, boot_listen: str, opts: pulumi.ResourceOptions) -> BuiltImage:
    """The image of the load balancer.

    Args:
        settings: of the stack.
        boot_listen: where it listens before the first release.
        opts: of the resource.
    """
    arguments = {"NGINX_IMAGE": settings.nginx_image, "BOOT_LISTEN": boot_listen}
    image_name, dockerfile = settings.nginx_image_name, NGINX / "Dockerfile"
    context, registry = str(NGINX), settings.pushes_to
    return BuiltImage("nginx-image", image_name, context, dockerfile, arguments, settings.platform, opts, registry)


def _login(registry: Registry) -> docker.RegistryArgs:
    return docker.RegistryArgs(
        server=registry.host,
        username=registry.username,
        password=pulumi.Output.secret(registry.password),
    )
