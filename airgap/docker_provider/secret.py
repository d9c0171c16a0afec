"""docker:index/secret:Secret."""

import base64
from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from airgap.docker_provider.kinds import LABEL, Failure, Kind, Naming, label_map
from airgap.docker_provider.properties import Properties, bare
from airgap.docker_provider.schema import Input, shaped
from airgap.docker_provider.service_config import unreadable


class Secret(Kind):
    """A secret file for services. The daemon never shows it again: its state is what the program wrote."""

    type = "docker:index/secret:Secret"
    inputs: ClassVar[Mapping[str, Input]] = {
        "data": Input(required=True),
        "labels": Input(fields=LABEL, empty=[]),
        "name": Input(),
    }

    @override
    def check(self, old: Properties, new: Properties, naming: Naming) -> list[Failure]:
        return super().check(old, new, naming) or unreadable(new)

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        data = base64.b64decode(inputs["data"])
        secret_id = str(self.api.create_secret(inputs["name"], data, label_map(inputs.get("labels")))["ID"])
        return secret_id, {**shaped(self.inputs, bare(inputs)), "id": secret_id}

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        secret = self.daemon.found(self.api.inspect_secret, object_id)
        if secret is None:
            return None
        return {**shaped(self.inputs, bare(known)), "id": secret["ID"], "name": secret["Spec"]["Name"]}

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        self.daemon.found(self.api.remove_secret, object_id)
