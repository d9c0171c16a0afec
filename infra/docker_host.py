"""A connection to the Docker daemon that the pulumi-docker plugin uses: `docker:host`, or DOCKER_HOST."""

from pathlib import Path

import docker
from docker.errors import DockerException
from requests import RequestException

TIMEOUT = 120  # seconds for one call
DAEMON_ERRORS = (DockerException, RequestException)  # the SDK lets the HTTP library's own through


def connect(host: str | None = None, cert_path: str | None = None) -> docker.DockerClient:
    """A client of the daemon at `host` (unix://, tcp://, ssh://), or at the one that the environment names.

    Args:
        host: as in the `docker:host` setting; None for DOCKER_HOST or the local socket.
        cert_path: as in `docker:certPath`: a folder with ca.pem, cert.pem and key.pem, for a TCP host with TLS.
    """
    if not host:
        # The plugin knows nothing of the Docker CLI's contexts, so they must not lead elsewhere here.
        return docker.DockerClient.from_env(timeout=TIMEOUT, use_ssh_client=True, use_context=False)
    tls: docker.TLSConfig | bool = False
    if cert_path:
        folder = Path(cert_path).expanduser()
        tls = docker.TLSConfig(
            ca_cert=str(folder / "ca.pem"), client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")), verify=True
        )
    return docker.DockerClient(base_url=host, tls=tls, timeout=TIMEOUT, use_ssh_client=host.startswith("ssh:"))
