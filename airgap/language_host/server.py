"""The language host's gRPC service."""

# ruff: noqa: N802, ARG002 (names and arguments of the methods are those of the protocol)

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2 as pb
from pulumi.runtime.proto import language_pb2_grpc, plugin_pb2

from airgap import plugin
from airgap.language_host.run_program import REPORTED

WORKERS: Final = 4
"""Calls at once: a run, and what the engine asks meanwhile."""
CANCEL_GRACE: Final = 5.0
"""Seconds that a cancelled program has to end by itself."""

_RUNNER: Final = Path(__file__).with_name("run_program.py")
_LIST_PACKAGES: Final = (
    "import importlib.metadata as m, json;print(json.dumps(sorted({(d.name, d.version) for d in m.distributions()})))"
)


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs each program in a process of its own, with the interpreter of the project's virtual environment."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def Handshake(self, request: pb.LanguageHandshakeRequest, context: Any) -> pb.LanguageHandshakeResponse:
        return pb.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version("pulumi"))

    def GetRequiredPackages(
        self, request: pb.GetRequiredPackagesRequest, context: Any
    ) -> pb.GetRequiredPackagesResponse:
        # None: the engine finds each plugin when the first resource needs it, and nothing has to be looked for here.
        return pb.GetRequiredPackagesResponse()

    def GetRequiredPlugins(self, request: pb.GetRequiredPluginsRequest, context: Any) -> pb.GetRequiredPluginsResponse:
        return pb.GetRequiredPluginsResponse()

    def About(self, request: pb.AboutRequest, context: Any) -> pb.AboutResponse:
        python = interpreter(request.info)
        version = _output(python, "import platform; print(platform.python_version())")
        return pb.AboutResponse(executable=python, version=version)

    def GetProgramDependencies(
        self, request: pb.GetProgramDependenciesRequest, context: Any
    ) -> pb.GetProgramDependenciesResponse:
        packages = json.loads(_output(interpreter(request.info), _LIST_PACKAGES) or "[]")
        return pb.GetProgramDependenciesResponse(
            dependencies=[pb.DependencyInfo(name=name, version=version) for name, version in packages]
        )

    def InstallDependencies(
        self, request: pb.InstallDependenciesRequest, context: Any
    ) -> Iterator[pb.InstallDependenciesResponse]:
        yield pb.InstallDependenciesResponse(stderr=b"This stand-in installs nothing; the project's own set-up does.\n")

    def Run(self, request: pb.RunRequest, context: Any) -> pb.RunResponse:
        python = interpreter(request.info)
        if not os.access(python, os.X_OK):
            return pb.RunResponse(
                error=f"The virtual environment of the project has no interpreter: {python} cannot be run. "
                "Create the environment, or mend runtime.options.virtualenv in Pulumi.yaml."
            )
        with tempfile.NamedTemporaryFile() as file:
            file.write(request.SerializeToString())
            file.flush()
            code = self._run([python, "-u", str(_RUNNER), file.name, self._engine])
        if code == REPORTED:
            return pb.RunResponse(bail=True)
        if code < 0:
            return pb.RunResponse(error=f"Program ended by signal {-code}")
        return pb.RunResponse(error=f"Program exited with non-zero exit code: {code}" if code else "")

    def _run(self, command: list[str]) -> int:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        with self._lock:
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def Cancel(self, request: empty_pb2.Empty, context: Any) -> empty_pb2.Empty:
        with self._lock:
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(CANCEL_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        return empty_pb2.Empty()


def interpreter(info: pb.ProgramInfo) -> str:
    """The interpreter of the project's virtual environment, or the one that runs the language host.

    The option `virtualenv` is a path relative to the project, as with the official language host.
    """
    venv = _option(info, "virtualenv")
    if not venv:
        return sys.executable
    return str(Path(info.root_directory, venv, "bin", "python"))


def _option(info: pb.ProgramInfo, name: str) -> str:
    options: Mapping[str, Any] = info.options.fields
    return str(options[name].string_value) if name in options else ""


def _output(python: str, code: str) -> str:
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def main(engine: str) -> NoReturn:
    """Serve the engine at that address."""
    host = LanguageHost(engine)
    plugin.serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server), WORKERS)
