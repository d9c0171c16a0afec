"""sshd on the machine of a daemon of a test's own, and a client that knows the way there and no other."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.live.own_daemon import PATH, OwnDaemon, child_of
from tests.live.stack import eventually

PORT = 2222
SETTINGS = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
SetEnv DOCKER_HOST={docker_host}
"""
# Not by HOME: OpenSSH takes the home directory from the user database.
CLIENT = """\
#!/bin/sh
exec {ssh} -F none -i {folder}/user -o UserKnownHostsFile={folder}/known_hosts "$@"
"""


class Sshd:
    """It lets root in, with one key. `docker_host` is where Docker's client finds the daemon there.

    Attributes:
        url: the daemon's address by ssh.
        path: the folder with the `ssh` that has the key and knows the host.
    """

    def __init__(self, folder: Path, daemon: OwnDaemon, address: str, docker_host: str) -> None:
        sshd, ssh = shutil.which("sshd", path=PATH), shutil.which("ssh")
        if not sshd or not ssh:
            pytest.skip("a remote host takes sshd and ssh: apt-get install openssh-server openssh-client")
        self.url = f"ssh://root@{address}:{PORT}"
        self.path = folder / "bin"
        self._folder, self._address = folder, address
        for name in ("host", "user", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        self.know("host")
        settings, self._log = folder / "sshd_config", folder / "sshd.log"
        settings.write_text(SETTINGS.format(port=PORT, address=address, folder=folder, docker_host=docker_host))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*daemon.inside, "sh", "-c", f"mkdir -p /run/sshd; exec {sshd} -D -e -f {settings}"],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.path.mkdir()
        client = self.path / "ssh"
        client.write_text(CLIENT.format(ssh=ssh, folder=folder))
        client.chmod(0o755)
        eventually(lambda: "Server listening" in self._log.read_text(), 10, "sshd listens")

    def know(self, key: str) -> None:
        """The client takes that key for the host's."""
        public = (self._folder / f"{key}.pub").read_text().rsplit(" ", 1)[0]
        (self._folder / "known_hosts").write_text(f"[{self._address}]:{PORT} {public}\n")

    def logins(self) -> int:
        """How often somebody has logged in."""
        return self._log.read_text().count("Accepted publickey")

    def remove(self) -> None:
        """Before its machine goes."""
        os.kill(child_of(self._process.pid), signal.SIGTERM)
        self._process.wait(10)
