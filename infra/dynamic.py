"""What the stack's dynamic resources have in common: the daemon that they ask, and how they say what went wrong.

Their providers run in a process that the engine starts; Pulumi's `dynamic` package is what runs there.
"""

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pulumi.dynamic import ConfigureRequest, ResourceProvider

from infra.refusal import Refused

if TYPE_CHECKING:
    from docker import DockerClient

WATCH_INTERVAL = 0.5  # seconds between two looks for the engine
_WATCH = "watch-engine"


class DaemonProvider(ResourceProvider):
    """Kept importable and empty until it is configured: the engine stores it, pickled by name, with the resource."""

    def configure(self, req: ConfigureRequest) -> None:
        self._docker = {"host": req.config.get("docker:host"), "cert_path": req.config.get("docker:certPath")}
        _print_refusals_without_traceback()
        _end_with_the_engine()

    def connect(self) -> "DockerClient":
        """A client of the daemon that the plugin uses.

        Raises:
            Refused: it is not reached.
        """
        # Imported only where a daemon is asked: a program that only previews does without the Docker SDK.
        from infra.docker_host import DAEMON_ERRORS, connect, in_words

        try:
            return connect(**self._docker)
        except DAEMON_ERRORS as error:
            raise Refused(
                f"The Docker daemon at {self.daemon} is not reached: {in_words(error)}. Nothing was changed."
            ) from error

    @property
    def daemon(self) -> str:
        """Where it is, in words."""
        return self._docker["host"] or os.environ.get("DOCKER_HOST") or "the local socket"


def with_previous_image(olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a release that has gone live, with the image of the one before it: `previous`, empty without one.

    Args:
        olds: the outputs of what was live before; none have an image that a program wrote which remembered none.
        news: what is live.
    """
    before = olds.get("image", news["image"])
    return {**news, "previous": olds.get("previous", "") if before == news["image"] else before}


def _print_refusals_without_traceback() -> None:
    """Pulumi's dynamic provider reports `traceback.format_exc()` of whatever is raised: of a refusal, its words."""
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
