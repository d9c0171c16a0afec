"""One-off containers on the daemon that the program talks to: they do one thing, say how it went, and are gone."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from docker import DockerClient
from docker.errors import ImageNotFound
from docker.models.containers import Container

from infra.docker_host import DAEMON_ERRORS
from infra.layout import NGINX_USER, RUNTIME_FOLDER, SOCKET_GROUP

TIMEOUT = 60  # seconds


def run(
    client: DockerClient,
    image: str,
    command: Sequence[str],
    *,
    labels: Mapping[str, str],
    folder: str = "",
    files: Mapping[str, str] | None = None,
    network: str = "bridge",
) -> tuple[int, str]:
    """Runs `command` in a container of its own; returns its exit code and what it said.

    Args:
        client: of the daemon.
        image: of NGINX, that the daemon has or can pull.
        command: in the place of the image's entry point.
        labels: so that one which outlives a killed `up` is found again.
        folder: where the files are put.
        files: texts by name, read by NGINX's user alone.
        network: as in `docker run --network`.
    """
    options: dict[str, Any] = {
        "entrypoint": [*command],
        "labels": dict(labels),
        "network_mode": network,
        "tmpfs": {RUNTIME_FOLDER: f"uid={NGINX_USER}"},
    }
    try:
        container: Container = client.containers.create(image, **options)
    except ImageNotFound:  # built when the program talked to another manager
        client.images.pull(image)
        container = client.containers.create(image, **options)
    try:
        if files:
            container.put_archive("/", _archive(folder.strip("/"), files))
        container.start()
        code = int(container.wait(timeout=TIMEOUT)["StatusCode"])
        return code, container.logs().decode(errors="replace").strip()
    finally:
        with suppress(*DAEMON_ERRORS):
            container.remove(force=True, v=True)


def _archive(folder: str, files: Mapping[str, str]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in sorted(files.items()):
            data = text.encode()
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.uid, member.gid = len(data), 0o400, NGINX_USER, SOCKET_GROUP
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()
