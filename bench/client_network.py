"""A network namespace for clients, who so come to published ports as others do: past Docker's userland proxy.

On the loopback it is that proxy which answers for a published port; from anywhere else the kernel hands packets on.
"""

from __future__ import annotations

import secrets
import subprocess

from bench.session import Session


class ClientNetwork:
    """A namespace named after the session, and a link into it.

    Attributes:
        host: the machine's address, as clients in there see it.
        prefix: what makes a command run in there.
    """

    def __init__(self, session: Session) -> None:
        # Addresses that are set aside for benchmarks: https://www.rfc-editor.org/rfc/rfc2544#appendix-C.2.2
        block = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
        self.host = f"{block}.1"
        inside, outside = f"{block}.2", session.name.replace("bench-", "bench")
        self.prefix = ("ip", "netns", "exec", session.name)
        _ip("netns", "add", session.name)
        session.undo.callback(_ip, "netns", "delete", session.name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", session.name)
        _ip("address", "add", f"{self.host}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", session.name, "address", "add", f"{inside}/30", "dev", "eth0")
        _ip("-n", session.name, "link", "set", "eth0", "up")
        _ip("-n", session.name, "link", "set", "lo", "up")
        _ip("-n", session.name, "route", "add", "default", "via", self.host)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30, capture_output=True)
