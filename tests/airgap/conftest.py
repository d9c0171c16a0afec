"""A Docker plugin behind real gRPC, and a Docker daemon that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2_grpc

from airgap import plugin
from airgap.docker_provider.server import DockerProvider
from tests.airgap.fake_docker import FakeDocker

FIXTURES = Path(__file__).with_name("fixtures")


@dataclass(frozen=True)
class Call:
    """One recorded call of the official plugin."""

    file: str
    method: str
    request: dict[str, Any]
    response: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The resource's logical name."""
        return str(self.request["urn"]).split("::", 3)[-1]


def recorded(method: str, file: str = "*") -> list[Call]:
    """The official plugin's calls of that method, in the order in which they were made."""
    calls = []
    for path in sorted(FIXTURES.glob(f"{file}.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            call = json.loads(line)
            if call["method"].endswith(f"/{method}"):
                calls.append(Call(path.stem, method, call["request"], call.get("response")))
    return calls


@pytest.fixture
def stub() -> Iterator[Any]:
    """A client of a plugin that has no daemon."""
    with serving(DockerProvider(None)) as client:
        yield client


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    """A daemon that keeps what it is told in memory."""
    with FakeDocker(tmp_path / "docker.sock") as daemon:
        yield daemon


@pytest.fixture
def provider(docker: FakeDocker) -> Iterator[Any]:
    """A client of a plugin that uses the daemon in memory."""
    servicer = DockerProvider(None)
    with serving(servicer) as client:
        client.Configure(configuration(host=docker.host))
        yield client
        servicer.close()


def configuration(**args: str) -> Any:
    """A Configure request."""
    from pulumi.runtime.proto import provider_pb2 as pb

    from airgap.docker_provider.properties import encode

    return pb.ConfigureRequest(args=encode(dict(args)))


class serving:  # noqa: N801 (used as a function)
    """Context in which a provider answers over gRPC; gives its client."""

    def __init__(self, servicer: DockerProvider) -> None:
        self._servicer = servicer

    def __enter__(self) -> Any:
        self._server, port = plugin.start(
            lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(self._servicer, server), workers=4
        )
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=plugin.CHANNEL_OPTIONS)
        return provider_pb2_grpc.ResourceProviderStub(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._server.stop(None).wait()
