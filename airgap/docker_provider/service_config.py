"""docker:index/serviceConfig:ServiceConfig."""

import base64
import binascii
from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from airgap.docker_provider.kinds import LABEL, Failure, Kind, Naming, label_map, labels
from airgap.docker_provider.properties import Properties, bare, has_unknown
from airgap.docker_provider.schema import Input


class ServiceConfig(Kind):
    """A file for services, kept by the managers. It never changes: other data is another config, created first."""

    type = "docker:index/serviceConfig:ServiceConfig"
    inputs: ClassVar[Mapping[str, Input]] = {
        "data": Input(empty=""),
        "dataRaw": Input(empty=""),
        "labels": Input(fields=LABEL, empty=[]),
        "name": Input(),
    }

    @override
    def check(self, old: Properties, new: Properties, naming: Naming) -> list[Failure]:
        failures = super().check(old, new, naming)
        given = [key for key in ("data", "dataRaw") if key in new]
        if not failures and len(given) != 1:
            failures.append(("data", f"data: exactly one of data and dataRaw is needed, not {given or 'none'}"))
        return failures or unreadable(new)

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        data = inputs["dataRaw"].encode() if inputs.get("dataRaw") else base64.b64decode(inputs.get("data", ""))
        config_id = str(self.api.create_config(inputs["name"], data, label_map(inputs.get("labels")))["ID"])
        return config_id, self._state(self.api.inspect_config(config_id), bare(inputs))

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        config = self.daemon.found(self.api.inspect_config, object_id)
        return None if config is None else self._state(config, known)

    @staticmethod
    def _state(config: Properties, known: Properties) -> Properties:
        spec, raw = config["Spec"], bool(known.get("dataRaw"))
        data = spec.get("Data") or ""
        return {
            "id": config["ID"],
            "name": spec["Name"],
            "labels": labels(spec.get("Labels")),
            "data": "" if raw else data,
            "dataRaw": base64.b64decode(data).decode(errors="replace") if raw else "",
        }

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        # One that a service still uses is refused, with the service's name: nothing to wait for.
        self.daemon.found(self.api.remove_config, object_id)


def unreadable(inputs: Properties) -> list[Failure]:
    """What is wrong with the input `data`, without repeating it: it may be secret."""
    data = inputs.get("data", "")
    if has_unknown(data):
        return []
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return [("data", "data: it is not base64; encode it with base64.b64encode (not the URL-safe variant)")]
    return []
