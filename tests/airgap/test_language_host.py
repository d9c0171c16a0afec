"""A program runs as the official language host runs it: in a process of its own, here towards an engine in memory."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from airgap import plugin
from airgap.language_host.run_program import is_machinery
from airgap.language_host.server import LanguageHost


class Engine(engine_pb2_grpc.EngineServicer, resource_pb2_grpc.ResourceMonitorServicer):
    """Engine and monitor in one, which remember what they are told."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.outputs: dict[str, Any] = {}
        self.logged = threading.Event()
        self.root = ""

    def Log(self, request: engine_pb2.LogRequest, context: Any) -> empty_pb2.Empty:
        if request.severity == engine_pb2.ERROR:
            self.errors.append(request.message)
        self.logged.set()
        return empty_pb2.Empty()

    def SetRootResource(self, request: Any, context: Any) -> Any:
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def GetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in ("secrets", "resourceReferences"))

    def RegisterResource(self, request: Any, context: Any) -> Any:
        return resource_pb2.RegisterResourceResponse(urn=f"urn:pulumi:dev::p::{request.type}::{request.name}")

    def RegisterResourceOutputs(self, request: Any, context: Any) -> empty_pb2.Empty:
        self.outputs = {key: value.string_value for key, value in request.outputs.fields.items()}
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> empty_pb2.Empty:
        return empty_pb2.Empty()


class Project:
    """A project folder, and a language host that runs what is in it."""

    def __init__(self, folder: Path, engine: Engine, address: str, host: Any) -> None:
        self.folder, self.engine, self.address, self.host = folder, engine, address, host

    def info(self, **options: str) -> language_pb2.ProgramInfo:
        """Where the program is."""
        folder, values = str(self.folder), struct_pb2.Struct()
        values.update(options)
        return language_pb2.ProgramInfo(
            root_directory=folder, program_directory=folder, entry_point=".", options=values
        )

    def run(self, program: str, config: dict[str, str] | None = None, **options: str) -> language_pb2.RunResponse:
        """Run a program of that text; the answer to the engine."""
        (self.folder / "__main__.py").write_text(program, encoding="utf-8")
        response: language_pb2.RunResponse = self.host.Run(
            language_pb2.RunRequest(
                project="p",
                stack="dev",
                pwd=str(self.folder),
                config=config or {},
                monitor_address=self.address,
                parallel=4,
                dryRun=True,
                organization="organization",
                info=self.info(**options),
            )
        )
        return response


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without program."""
    engine = Engine()

    def register_engine(server: Any) -> None:
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(engine, server)

    engine_server, engine_port = plugin.start(register_engine, workers=4)
    address = f"127.0.0.1:{engine_port}"
    server, port = plugin.start(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(address), server), workers=4
    )
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Project(tmp_path, engine, address, language_pb2_grpc.LanguageRuntimeStub(channel))
    for running in (server, engine_server):
        running.stop(None).wait()


def test_a_program_gets_its_configuration_and_exports_its_outputs(project: Project) -> None:
    response = project.run(
        "import pulumi\npulumi.export('greeting', pulumi.Config().require('greeting') + ' ' + pulumi.get_stack())\n",
        {"p:greeting": "hello"},
    )
    assert (response.error, response.bail) == ("", False)
    assert project.engine.errors == []
    assert project.engine.outputs == {"greeting": "hello dev"}


def test_a_program_finds_its_own_modules_and_not_those_of_the_host(project: Project) -> None:
    (project.folder / "server.py").write_text("MINE = 'yes'\n", encoding="utf-8")
    program = "import importlib.util, pulumi, server\npulumi.export('mine', server.MINE)\n"
    project.run(program + "pulumi.export('host', str(importlib.util.find_spec('run_program')))\n")
    assert (project.engine.errors, project.engine.outputs) == ([], {"mine": "yes", "host": "None"})


def test_a_run_error_shows_its_message_and_nothing_else(project: Project) -> None:
    response = project.run("import pulumi\nraise pulumi.RunError('replicas: 0 is not accepted')\n")
    assert response.bail
    assert project.engine.errors == ["replicas: 0 is not accepted"]


def test_another_exception_shows_the_frames_of_the_program_alone(project: Project) -> None:
    (project.folder / "settings.py").write_text("def load():\n    raise ValueError('boom')\n", encoding="utf-8")
    response = project.run("import settings\nsettings.load()\n")
    assert response.bail
    [error] = project.engine.errors
    lines = error.splitlines()
    assert lines[0] == "Program failed with an unhandled exception:"
    assert [line.split('"')[1] for line in lines if line.startswith("  File ")] == [
        str(project.folder / "__main__.py"),
        str(project.folder / "settings.py"),
    ]
    assert lines[-1] == "ValueError: boom"


def test_an_exception_inside_apply_shows_the_program_s_frames_too(project: Project) -> None:
    project.run("import pulumi\npulumi.Output.from_input(0).apply(lambda n: 1 / n)\n")
    [error] = project.engine.errors
    assert [line.split('"')[1] for line in error.splitlines() if line.startswith("  File ")] == [
        str(project.folder / "__main__.py")
    ]
    assert error.endswith("ZeroDivisionError: division by zero\n")


def test_a_syntax_error_shows_its_place_and_no_machinery(project: Project) -> None:
    project.run("x = (\n")
    [error] = project.engine.errors
    assert f'File "{project.folder / "__main__.py"}", line 1' in error
    assert "runpy" not in error


def test_a_program_that_exits_by_itself_is_reported_with_its_code(project: Project) -> None:
    response = project.run("import sys\nsys.exit(3)\n")
    assert (response.error, response.bail) == ("Program exited with non-zero exit code: 3", False)


def test_the_project_s_virtual_environment_runs_the_program(project: Project) -> None:
    python = project.folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nFROM_VENV=yes exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    project.run("import os, pulumi\npulumi.export('venv', os.environ['FROM_VENV'])\n", virtualenv="venv")
    assert (project.engine.errors, project.engine.outputs) == ([], {"venv": "yes"})


def test_a_virtual_environment_that_is_not_there_is_named(project: Project) -> None:
    response = project.run("", virtualenv="nowhere")
    assert f"{project.folder}/nowhere/bin/python cannot be run" in response.error
    assert "mend runtime.options.virtualenv in Pulumi.yaml" in response.error


def test_an_interrupted_program_prints_no_traceback(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os, pulumi, signal, time\n"
        "pulumi.log.info('running')\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(30)\n"
    )
    response = project.run(program)
    assert response.bail
    assert project.engine.errors == []
    assert capfd.readouterr() == ("", "")


def test_a_cancelled_run_ends_its_program(project: Project) -> None:
    with futures.ThreadPoolExecutor() as pool:
        run = pool.submit(project.run, "import pulumi, time\npulumi.log.info('running')\ntime.sleep(30)\n")
        assert project.engine.logged.wait(timeout=10)
        begin = time.monotonic()
        project.host.Cancel(empty_pb2.Empty())
        assert run.result(timeout=5).bail
        assert time.monotonic() - begin < 5


def test_the_host_tells_about_itself_and_the_program(project: Project) -> None:
    host = project.host
    assert host.GetPluginInfo(empty_pb2.Empty()).version.startswith("3.")
    about = host.About(language_pb2.AboutRequest(info=project.info()))
    assert about.executable == sys.executable
    assert about.version == ".".join(map(str, sys.version_info[:3]))
    assert not host.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest()).packages
    assert not host.GetRequiredPlugins(language_pb2.GetRequiredPluginsRequest()).plugins
    listed = host.GetProgramDependencies(language_pb2.GetProgramDependenciesRequest(info=project.info()))
    assert "pulumi" in {package.name for package in listed.dependencies}
    installed = list(host.InstallDependencies(language_pb2.InstallDependenciesRequest(info=project.info())))
    assert b"installs nothing" in installed[0].stderr


@pytest.mark.parametrize(
    ("filename", "machinery"),
    [
        ("/venv/lib/python3.11/site-packages/pulumi/output.py", True),
        ("/venv/lib/python3.11/site-packages/pulumi_docker/container.py", False),
        ("<frozen runpy>", True),
        ("/home/me/pulumi/__main__.py", False),
    ],
)
def test_only_what_runs_programs_is_machinery(filename: str, machinery: bool) -> None:
    assert is_machinery(filename) is machinery
