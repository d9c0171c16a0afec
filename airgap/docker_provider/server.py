"""The plugin's gRPC service: messages of the engine in, operations on resource kinds out."""

# ruff: noqa: N802, ARG002 (names and arguments of the methods are those of the protocol)

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2_grpc,
    status_pb2,
)
from pulumi.runtime.proto import (
    provider_pb2 as pb,
)

from airgap import plugin
from airgap.docker_provider import VERSION, differences, schema
from airgap.docker_provider.container import Container
from airgap.docker_provider.daemon import Connection, Daemon
from airgap.docker_provider.errors import InitFailedError, UserError
from airgap.docker_provider.image import Image
from airgap.docker_provider.kinds import Kind, Naming
from airgap.docker_provider.network import Network
from airgap.docker_provider.properties import bare, decode, encode
from airgap.docker_provider.remote_image import RemoteImage
from airgap.docker_provider.secret import Secret
from airgap.docker_provider.service import Service
from airgap.docker_provider.service_config import ServiceConfig
from airgap.docker_provider.volume import Volume

WORKERS: Final = 32
"""Operations at once; the engine's own default is 4 times the processors, at least 16."""

KINDS: Final[tuple[type[Kind], ...]] = (
    *(Network, Volume, Image, RemoteImage, Container),
    *(ServiceConfig, Secret, Service),
)

CONFIG_KEYS: Final = frozenset({"host", "certPath", "registryAuth", "version", "pluginDownloadURL"})

Method = TypeVar("Method", bound=Callable[..., Any])


def answering(method: Method) -> Method:
    """Turn what the method raises into an error of the call, in words for a person."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except InitFailedError as error:
            failed = pb.ErrorResourceInitFailed(
                id=error.object_id,
                properties=encode(error.properties),
                reasons=[error.reason],
                inputs=request.news if isinstance(request, pb.UpdateRequest) else request.properties,
            )
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=error.reason)
            status.details.add().Pack(failed)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNKNOWN, error.reason)
        except UserError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:
            if os.environ.get("AIRGAP_DEBUG"):
                import traceback

                traceback.print_exc(file=sys.stderr)
            context.abort(
                grpc.StatusCode.UNKNOWN, f"{method.__name__} of {_name(request)}: {self.daemon.explain(error)}"
            )

    return call  # type: ignore[return-value]


def _name(request: Any) -> str:
    urn = str(getattr(request, "urn", ""))
    return urn.split("::", 3)[-1] or "the plugin"


class DockerProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The Docker plugin. One per process, asked by many threads."""

    def __init__(self, engine: str | None) -> None:
        self._engine: Any = None
        self._channel: Any = None
        self._daemon = Daemon(Connection.of({}, os.environ))
        self._kinds = {kind.type: kind(lambda: self._daemon, self._log) for kind in KINDS}
        if engine:
            self._attach(engine)

    def _attach(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=plugin.CHANNEL_OPTIONS)
        self._engine = engine_pb2_grpc.EngineStub(self._channel)

    @property
    def daemon(self) -> Daemon:
        """The daemon that the engine configured."""
        return self._daemon

    def close(self) -> None:
        """Close the connections to daemon and engine."""
        self._daemon.close()
        if self._channel is not None:
            self._channel.close()

    def _log(self, urn: str, text: str, *, ephemeral: bool = False) -> None:
        if self._engine is not None:
            message = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text, urn=urn, ephemeral=ephemeral)
            self._engine.Log(message)

    def _kind(self, urn: str) -> Kind:
        token = urn.split("::", 3)[2].split("$")[-1]
        if token not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise UserError(
                f"this stand-in for the Docker plugin does not cover the resource type {token}, but {known}"
            )
        return self._kinds[token]

    def Handshake(self, request: pb.ProviderHandshakeRequest, context: Any) -> pb.ProviderHandshakeResponse:
        # Without accept_secrets the engine itself keeps secret inputs secret in the state.
        return pb.ProviderHandshakeResponse(supports_autonaming_configuration=True)

    def Attach(self, request: plugin_pb2.PluginAttach, context: Any) -> empty_pb2.Empty:
        self._attach(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: pb.GetSchemaRequest, context: Any) -> pb.GetSchemaResponse:
        return pb.GetSchemaResponse(schema=json.dumps({"name": "docker", "version": VERSION}))

    @answering
    def CheckConfig(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        failures = [
            pb.CheckFailure(
                property=key,
                reason=f"docker:{key}: this stand-in for the Docker plugin does not cover the key; it covers "
                "host, certPath and registryAuth",
            )
            for key in sorted(decode(request.news).keys() - CONFIG_KEYS)
        ]
        return pb.CheckResponse(inputs=request.news, failures=failures)

    @answering
    def DiffConfig(self, request: pb.DiffRequest, context: Any) -> pb.DiffResponse:
        old, new = decode(request.old_inputs or request.olds), decode(request.news)
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_SOME, diffs=changed) if changed else pb.DiffResponse()

    @answering
    def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureResponse:
        config = decode(request.args)
        if isinstance(config.get("registryAuth"), str):
            config["registryAuth"] = json.loads(config["registryAuth"])
        self._daemon = Daemon(Connection.of(config, os.environ).reachable())
        return pb.ConfigureResponse(supportsPreview=True, supports_autonaming_configuration=True)

    @answering
    def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        auto = request.autonaming
        naming = Naming(
            request.urn,
            auto.proposed_name,
            auto.mode == pb.CheckRequest.AutonamingOptions.DISABLE,
            request.randomSeed,
        )
        new = decode(request.news)
        failures = self._kind(request.urn).check(decode(request.olds), new, naming)
        return pb.CheckResponse(
            inputs=encode(new), failures=[pb.CheckFailure(property=path, reason=reason) for path, reason in failures]
        )

    @answering
    def Diff(self, request: pb.DiffRequest, context: Any) -> pb.DiffResponse:
        kind, new = self._kind(request.urn), decode(request.news)
        difference = kind.diff(decode(request.olds), decode(request.old_inputs), new, frozenset(request.ignoreChanges))
        return _diff_response(kind, difference, kind.deletes_first(new))

    @answering
    def Create(self, request: pb.CreateRequest, context: Any) -> pb.CreateResponse:
        kind, inputs = self._kind(request.urn), decode(request.properties)
        if request.preview:
            return pb.CreateResponse(properties=encode(bare(inputs)))
        object_id, state = kind.create(request.urn, inputs)
        return pb.CreateResponse(id=object_id, properties=encode(state))

    @answering
    def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        kind, inputs, old = self._kind(request.urn), decode(request.inputs), decode(request.properties)
        if isinstance(kind, Image):
            return pb.ReadResponse(id=request.id, inputs=request.inputs, properties=request.properties)
        state = kind.read(request.id, {**old, **inputs})
        if state is None:
            return pb.ReadResponse()
        brought_up = differences.drift(inputs, state, schema.Input(fields=kind.inputs))
        return pb.ReadResponse(
            id=state.get("id", request.id),
            inputs=encode(brought_up or {key: state[key] for key in ("name", "image", "driver") if state.get(key)}),
            properties=encode(state),
        )

    @answering
    def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        kind, state, new = self._kind(request.urn), decode(request.olds), decode(request.news)
        if request.preview:
            known = {} if isinstance(kind, Image) else bare(state)
            return pb.UpdateResponse(properties=encode({**known, **bare(new)}))
        updated = kind.update(request.urn, request.id, state, decode(request.old_inputs), new)
        return pb.UpdateResponse(properties=encode(updated))

    @answering
    def Delete(self, request: pb.DeleteRequest, context: Any) -> empty_pb2.Empty:
        self._kind(request.urn).delete(request.id, decode(request.properties))
        return empty_pb2.Empty()

    def Cancel(self, request: empty_pb2.Empty, context: Any) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def _diff_response(kind: Kind, difference: differences.Difference, deletes_first: bool) -> pb.DiffResponse:
    replaces = difference.replaces
    detailed = {
        path: pb.PropertyDiff(
            kind=pb.PropertyDiff.Kind.Value(f"{change}_REPLACE" if path in difference.replacing else change)
        )
        for path, change in difference.changes.items()
    }
    response = pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME if detailed else pb.DiffResponse.DIFF_NONE,
        detailedDiff=detailed,
        hasDetailedDiff=bool(detailed),
    )
    if not isinstance(kind, Image):  # the one kind that the official plugin does not take from Terraform
        response.hasDetailedDiff = True
        response.diffs.extend(difference.properties)
        response.replaces.extend(replaces)
        response.stables.extend(
            sorted(key for key, spec in kind.inputs.items() if spec.replaces and key not in replaces)
        )
        response.deleteBeforeReplace = bool(replaces) and deletes_first
    return response


def main(engine: str | None) -> NoReturn:
    """Serve the engine at that address."""
    provider = DockerProvider(engine)
    plugin.serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server), workers=WORKERS
    )
