"""The plugins as processes: what the engine sees of them, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2_grpc, provider_pb2_grpc

ROOT = Path(__file__).parents[2]
NO_ENGINE = "127.0.0.1:1"

STUBS: dict[str, Any] = {
    "airgap.docker_provider": provider_pb2_grpc.ResourceProviderStub,
    "airgap.language_host": language_pb2_grpc.LanguageRuntimeStub,
}


@contextlib.contextmanager
def started(module: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, NO_ENGINE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", STUBS)
def test_a_plugin_prints_its_port_serves_and_ends_without_a_word(module: str, signum: signal.Signals) -> None:
    with started(module) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            info = STUBS[module](channel).GetPluginInfo(empty_pb2.Empty(), timeout=10)
        process.send_signal(signum)
        rest, errors = process.communicate(timeout=10)
    assert info.version.count(".") == 2
    assert (process.returncode, rest, errors) == (0, b"", b"")


IMPORTED = "import sys; {setup}; import {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"


@pytest.mark.parametrize("module", STUBS)
def test_a_plugin_starts_without_the_packages_that_are_slow_to_import(module: str) -> None:
    code = IMPORTED.format(setup="from airgap import plugin; plugin.import_only_stubs()", module=f"{module}.server")
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    imported = set(result.stdout.split())
    assert {"airgap", "grpc"} <= imported
    assert not imported & {"docker", "requests", "opentelemetry", "yaml", "dill"}
