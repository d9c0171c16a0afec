"""Every command of the documents, run as a newcomer would: in a clone, page by page, in the order of each page.

A block that cannot be run so names what runs it instead; tests/tooling/test_documents.py looks there.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import trustme
import yaml

from tests.live.stack import LOOPBACK, ROOT, Result, Stack, free_port
from tests.live.test_pull_request import git
from tests.tooling import documents
from tooling.stack import environment

BLOCK_TIMEOUT = 300  # seconds
COMMANDS = {page: [block.text for block in documents.commands(page) if not block.run_by] for page in documents.PAGES}


class Clone(Stack):
    """The whole repository as it is now, with a stack that clashes with no other; `make` does all the rest."""

    def __init__(self, folder: Path) -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.folder = folder / "clone"
        self.port, https, metrics = free_port(), free_port(), free_port()
        self.log: list[str] = []
        self.docker = docker.from_env(use_context=False)
        # What the pages say, and what it is here.
        self._here = {
            "8080": str(self.port),
            "8443": str(https),
            "9113": str(metrics),
            ".local/tls/dev": f".local/tls/{self.name}",
            "uwsgi-nginx/app": f"{self.name}/app",
        }
        self.newcomer = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            "STACK": self.name,
            "PULUMI_STACK": self.name,
            "PULUMI_CONFIG_PASSPHRASE": "test",
        }
        for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        images = {f"uwsgi-nginx:{image}ImageName": f"{self.name}/{image}" for image in ("app", "nginx", "exporter")}
        config = {"uwsgi-nginx:port": self.port, **images}
        (self.folder / f"Pulumi.{self.name}.yaml").write_text(yaml.safe_dump({"config": config}))
        # What a page says that its reader has.
        issued = trustme.CA().issue_cert("shop.example", LOOPBACK)
        (self.folder / "privkey.pem").write_bytes(issued.private_key_pem.bytes())
        (self.folder / "fullchain.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.sh("git init --quiet --initial-branch=main")

    def begin(self) -> None:
        """The stack as it comes with the repository, whatever a page before has set."""
        self.sh("git reset --quiet --hard && git clean --quiet --force -d && make up")

    def commit(self) -> None:
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", "All of it")

    def sh(self, script: str) -> Result:
        """Runs it as a shell does that stops at the first command which fails; that fails the test."""
        for said, here in self._here.items():
            script = script.replace(said, here)
        begin = time.monotonic()
        done = subprocess.run(
            ["timeout", "--kill-after=20", str(BLOCK_TIMEOUT), "bash", "-ec", script],
            cwd=self.folder,
            env=self.newcomer,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        result = Result(done.returncode, done.stdout, time.monotonic() - begin)
        self.log.append(f"{script}\n[{result.code}, {result.seconds:.1f} s]\n{result.output}")
        assert result.code == 0, f"{script}\nended with {result.code}:\n{result.output}"
        return result

    def remove(self) -> None:
        self.environment = {**self.newcomer, **environment(self.folder, self.name)}
        super().remove()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    fresh = Clone(tmp_path_factory.mktemp("docs"))
    try:
        fresh.sh("make up")
        fresh.commit()
        yield fresh
        fresh.sh("make destroy")
        left = fresh.leftovers()
        assert not left, f"`make destroy` left behind: {left}"
    finally:
        fresh.remove()


@pytest.mark.parametrize("page", [page for page, commands in COMMANDS.items() if commands])
def test_the_commands_of_a_page_work(clone: Clone, page: str) -> None:
    clone.begin()
    for commands in COMMANDS[page]:
        clone.sh(f'eval "$(make -s env)"\n{commands}')
