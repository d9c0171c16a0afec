"""NGINX's configuration, tested before any node gives up the NGINX that it has."""

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, Resource, UpdateResult

from infra.dynamic import DaemonProvider
from infra.layout import CONFIGURATION_FILE, SITE_FOLDER, TEST_PID_FILE
from infra.refusal import Refused
from infra.swarm import services

IDENTITY = ("image", "files", "secrets")


class ConfigurationTestProvider(DaemonProvider):
    """Has an NGINX that does nothing else read the configuration."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Also in a preview: whether what the program talks to is a manager of a swarm."""
        from infra.docker_host import DAEMON_ERRORS

        try:
            swarm = self.connect().info().get("Swarm") or {}
        except DAEMON_ERRORS:  # says so itself where it is asked for more
            return CheckResult(news, [])
        if swarm.get("ControlAvailable"):
            return CheckResult(news, [])
        state = "a worker" if swarm.get("NodeID") else "in no swarm"
        raise Refused(
            f"orchestrator is swarm, and the Docker daemon at {self.daemon} is {state}. Set docker:host to a manager "
            "(`docker node ls` says who is), or make it one with `docker swarm init`. Nothing was changed."
        )

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._test(props)
        return CreateResult(id_="configuration-test", outs=props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=any(_olds.get(key) != _news.get(key) for key in IDENTITY), replaces=[])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._test(_news)
        return UpdateResult(outs=_news)

    def _test(self, props: dict[str, Any]) -> None:
        from infra.docker_host import DAEMON_ERRORS
        from infra.swarm import one_off

        file, pid_file = f"{SITE_FOLDER}/{CONFIGURATION_FILE}", f"pid {TEST_PID_FILE};"
        command = ["nginx", "-e", "stderr", "-t", "-c", file, "-g", pid_file]
        files = {**props["files"], **props["secrets"]}
        try:
            code, said = one_off.run(
                self.connect(), props["image"], command, labels=props["labels"], folder=SITE_FOLDER, files=files
            )
        except DAEMON_ERRORS as error:
            reason = getattr(error, "explanation", None) or error
            raise Refused(
                f"The Docker daemon did not test NGINX's configuration: {reason}. It goes on as it is."
            ) from error
        if code:
            raise Refused(f"NGINX rejects the configuration; the one before it stays in force on all nodes.\n{said}")


class ConfigurationTest(Resource, name="ConfigurationTest"):
    """What the files of NGINX's configuration depend on.

    Args:
        name: its logical name.
        image: of NGINX.
        files, secrets: texts by name, below SITE_FOLDER.
    """

    def __init__(
        self,
        name: str,
        *,
        image: pulumi.Input[str],
        files: Mapping[str, str],
        secrets: Mapping[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        inputs = {
            "image": image,
            "files": files,
            "secrets": pulumi.Output.secret(secrets),
            "labels": services.identity("test"),
        }
        super().__init__(ConfigurationTestProvider(), name, inputs, opts)
