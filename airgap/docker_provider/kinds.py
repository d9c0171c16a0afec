"""What the resource kinds have in common. A new kind is a module with a subclass, and a line in `server.KINDS`."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from airgap.docker_provider import differences, schema
from airgap.docker_provider.daemon import Daemon
from airgap.docker_provider.properties import Properties, bare
from airgap.docker_provider.schema import Input

LABEL: Final = {"label": Input(required=True), "value": Input(required=True)}
"""A label of any object. Both keys are required by the official plugin."""


class Log(Protocol):
    """Shows a message to the user, beside the resource."""

    def __call__(self, urn: str, text: str, *, ephemeral: bool = False) -> None: ...


@dataclass(frozen=True)
class Naming:
    """What the engine says about the name of an object that the program does not name."""

    urn: str
    """The resource, whose logical name is the last part."""
    proposed: str = ""
    disabled: bool = False
    seed: bytes = b""
    """Of the engine, so that a repeated Check proposes the same name."""

    def name(self) -> str:
        """The proposed name, else the logical name with seven random digits, as the official plugin gives it."""
        suffix = hashlib.sha256(self.seed or os.urandom(16)).hexdigest()[:7]
        return self.proposed or f"{self.urn.split('::', 3)[-1]}-{suffix}"


Failure = tuple[str, str]
"""Path of an input, and what is wrong with it."""


class Kind(ABC):
    """One resource type of the Docker plugin. Raises UserError, InitFailedError or the Docker SDK's errors."""

    type: ClassVar[str]
    """The resource type's token."""
    inputs: ClassVar[Mapping[str, Input]]
    autonamed: ClassVar[bool] = True
    """Without a `name` in the program the engine or the plugin makes one."""
    deleted_first: ClassVar[bool] = False
    """By default the old object goes before its successor is created."""

    def __init__(self, daemon: Callable[[], Daemon], log: Log) -> None:
        self._daemon = daemon
        self.log = log

    @property
    def daemon(self) -> Daemon:
        """The daemon that the plugin is configured for."""
        return self._daemon()

    @property
    def api(self) -> Any:
        """The Docker SDK's low-level client."""
        return self.daemon.api

    def check(self, old: Properties, new: Properties, naming: Naming) -> list[Failure]:
        """Complete the new inputs in place; what is wrong with them."""
        failures = list(schema.failures(self.inputs, new))
        if failures:
            return failures
        defaults = schema.fill_defaults(self.inputs, new)
        if self.autonamed and "name" not in new:
            defaults.append("name")
            if "name" in old.get("__defaults", []):
                new["name"] = old["name"]
            elif naming.disabled and not naming.proposed:
                return [("name", "name: a value is required, because automatic naming is disabled")]
            else:
                new["name"] = naming.name()
        new["__defaults"] = sorted(defaults)
        return []

    def diff(
        self, state: Properties, old: Properties, new: Properties, ignored: frozenset[str]
    ) -> differences.Difference:
        """What an update from the old inputs and the state to the new inputs changes."""
        return differences.compare(self.inputs, state, old, new, self.also_changed(state, new), ignored)

    def also_changed(self, state: Properties, new: Properties) -> differences.Changes:  # noqa: ARG002
        """Changes that the inputs alone do not show."""
        return {}

    def deletes_first(self, new: Properties) -> bool:
        """Whether a replacement cannot exist beside its predecessor: same name, or the kind is like that."""
        return self.deleted_first or (self.autonamed and "name" not in new.get("__defaults", ["name"]))

    @abstractmethod
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        """Make the object; its id and state."""

    @abstractmethod
    def read(self, object_id: str, known: Properties) -> Properties | None:
        """The object's state as the daemon has it, given its last known state and inputs; None if it is gone."""

    @abstractmethod
    def delete(self, object_id: str, state: Properties) -> None:
        """Remove the object. Not an error if it is gone already."""

    def update(
        self,
        urn: str,  # noqa: ARG002
        object_id: str,  # noqa: ARG002
        state: Properties,
        old: Properties,  # noqa: ARG002
        new: Properties,
    ) -> Properties:
        """Change what can be changed in place; the new state. By default only the record changes."""
        return {**bare(state), **bare(new)}


def labels(values: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Docker's labels as the state shows them."""
    return [{"label": label, "value": value} for label, value in sorted((values or {}).items())]


def label_map(values: list[dict[str, str]] | None) -> dict[str, str]:
    """The inputs' labels as Docker takes them."""
    return {item["label"]: item.get("value", "") for item in values or []}
