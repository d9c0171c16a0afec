"""Runs the real `__main__.py` under Pulumi mocks and records what it registers, so that tests are plain asserts."""

import asyncio
import contextvars
import hashlib
import json
import runpy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi.output import Unknown
from pulumi.runtime import rpc, run_in_stack, set_all_config
from pulumi.runtime.mocks import MockMonitor, MockResourceArgs, Mocks, MockSettings
from pulumi.runtime.settings import configure

UNKNOWN = rpc.UNKNOWN  # what stands for a value that a preview does not know
PROJECT_NAME = "uwsgi-nginx"
SWARM = {"orchestrator": "swarm", "registry": "registry.example:5000/team", "publishAddress": "0.0.0.0"}


@dataclass(frozen=True)
class Registration:
    """A resource as the engine would get it.

    Attributes:
        inputs: under the names of the wire, secrets unwrapped.
        secrets: paths of the inputs that are secret, such as `envs.4`.
        parent: the parent's logical name; the stack is "".
        dependencies: logical names of the resources that it waits for.
        delete_before_replace: None where the program leaves it to the provider.
    """

    type: str
    name: str
    custom: bool
    inputs: dict[str, Any]
    secrets: set[str]
    parent: str
    dependencies: set[str]
    delete_before_replace: bool | None
    retained_on_delete: bool
    ignored_changes: list[str]


@dataclass
class Program:
    """All that a run of the program registered and exported."""

    resources: dict[str, Registration] = field(default_factory=dict)
    exports: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Registration:
        return self.resources[name]

    @property
    def types(self) -> dict[str, str]:
        return {name: resource.type for name, resource in self.resources.items()}

    def of_type(self, suffix: str) -> dict[str, Registration]:
        return {name: resource for name, resource in self.resources.items() if resource.type.endswith(suffix)}

    @property
    def containers(self) -> dict[str, Registration]:
        return self.of_type(":Container")

    @property
    def replicas(self) -> dict[str, Registration]:
        return {name: resource for name, resource in self.containers.items() if not name.startswith("nginx")}


def run(
    config: Mapping[str, str] | None = None,
    secret: Collection[str] = (),
    *,
    stack: str = "test",
    preview: bool = False,
) -> Program:
    """What the program registers with `config` (values as the engine hands them over), of which `secret` are secret.

    Keys are the project's own, unless they name another namespace, as in `docker:host`.
    """
    return contextvars.copy_context().run(_run, config or {}, secret, stack, preview)


def physical_name(name: str, stack: str = "test") -> str:
    """What the engine calls the object behind the resource `name`."""
    return f"{PROJECT_NAME}-{stack}-{name}-{_identity(name, stack)[:7]}"


def _identity(name: str, stack: str) -> str:
    return hashlib.sha256(f"{stack}/{name}".encode()).hexdigest()


def strings(value: object) -> Iterator[str]:
    """All texts in inputs, also those of keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def _run(config: Mapping[str, str], secret: Collection[str], stack: str, preview: bool) -> Program:
    set_all_config({_full(key): value for key, value in config.items()}, [_full(key) for key in secret])
    monitor = _Recorder(_Engine(stack, preview), stack)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # an error is raised once, not logged by all that wait for the same
    asyncio.set_event_loop(loop)
    try:
        configure(
            MockSettings(  # type: ignore[no-untyped-call]
                monitor=monitor,
                monitor_features=set(),
                engine=_SilentEngine(),
                project=PROJECT_NAME,
                stack=stack,
                dry_run=preview,
                organization=None,
                callbacks=None,
            )
        )
        # As the language host does; an error in the program or in an `apply` ends up here.
        loop.run_until_complete(run_in_stack(_run_main))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.set_event_loop(None)
    return monitor.program


def _full(key: str) -> str:
    return key if ":" in key else f"{PROJECT_NAME}:{key}"


def _run_main() -> None:
    runpy.run_path("__main__.py", run_name="__main__")


class _Engine(Mocks):
    """Answers as the engine and the plugin do: computed fields after an update, unknown in a preview."""

    def __init__(self, stack: str, preview: bool) -> None:
        self._stack, self._preview = stack, preview

    def call(self, args: Any) -> Any:
        raise AssertionError(f"the program calls {args.token}; a preview pays for that")

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if self._preview:
            return "", args.inputs
        computed = {"name": physical_name(args.name, self._stack)}
        if args.typ.endswith(":Image"):
            computed = {"repoDigest": _digest(args.inputs["imageName"], pushed=not args.inputs["skipPush"])}
        if args.typ.endswith(":Container"):
            computed["hostname"] = _identity(args.name, self._stack)[:12]
        return f"id-of-{args.name}", {**computed, **args.inputs}


def _digest(image_name: str, *, pushed: bool) -> str:
    """Of an image: where it was pushed to it is known by its name there."""
    at = f"{image_name.rpartition(':')[0]}@" if pushed else ""
    return f"{at}sha256:{hashlib.sha256(image_name.encode()).hexdigest()}"


class _SilentEngine:
    def Log(self, request: Any) -> None:
        """Messages of the program are of no interest here."""


class _Recorder(MockMonitor):
    def __init__(self, mocks: Mocks, stack: str) -> None:
        super().__init__(mocks)
        self.program = Program()
        self._names = {"": ""}

    def RegisterResource(self, request: Any) -> Any:
        try:
            response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        finally:
            _close_event_loop_of_this_thread()
        if request.type == "pulumi:pulumi:Stack":
            self._names[response.urn] = ""
            return response
        self._names[response.urn] = request.name
        inputs, secrets = _plain(request.object)
        assert request.name not in self.program.resources, f"two resources are called {request.name}"
        self.program.resources[request.name] = Registration(
            type=request.type,
            name=request.name,
            custom=request.custom,
            inputs=inputs,
            secrets=secrets,
            parent=self._names[request.parent],
            dependencies={self._names[urn] for urn in request.dependencies},
            delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            retained_on_delete=request.retainOnDelete,
            ignored_changes=list(request.ignoreChanges),
        )
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if self._names[request.urn] == "":
            self.program.exports, _ = _plain(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


def _close_event_loop_of_this_thread() -> None:
    """The mock monitor opens one in each thread of the executor and forgets it."""
    try:
        loop = asyncio.get_event_loop()
    except RuntimeError:
        return
    loop.close()
    asyncio.set_event_loop(None)


def _plain(struct: Any) -> tuple[dict[str, Any], set[str]]:
    secrets: set[str] = set()

    def unwrap(value: Any, path: str) -> Any:
        if rpc.is_rpc_secret(value):
            secrets.add(path)
            return unwrap(rpc.unwrap_rpc_secret(value), path)
        if isinstance(value, dict):
            return {key: unwrap(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
        if isinstance(value, list):
            return [unwrap(item, f"{path}.{index}") for index, item in enumerate(value)]
        if isinstance(value, Unknown):
            return UNKNOWN
        return int(value) if isinstance(value, float) and value.is_integer() else value

    inputs = unwrap(rpc.deserialize_properties(struct, keep_unknowns=True), "")
    json.dumps(inputs)  # plain data through and through
    return inputs, secrets
