"""docker:index/remoteImage:RemoteImage."""

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from airgap.docker_provider.kinds import Kind
from airgap.docker_provider.properties import Properties, bare
from airgap.docker_provider.schema import Input, shaped


class RemoteImage(Kind):
    """An image that the daemon pulls unless it has it."""

    type = "docker:index/remoteImage:RemoteImage"
    autonamed = False
    inputs: ClassVar[Mapping[str, Input]] = {
        "build": Input(replaces=False, covered=False),
        "forceRemove": Input(replaces=False),
        "keepLocally": Input(replaces=False),
        "name": Input(required=True),
        "platform": Input(),
        "pullTriggers": Input(empty=[]),
        "triggers": Input(),
    }

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        self.daemon.fetch_image(inputs["name"], inputs.get("platform"))
        state = self._state(self.api.inspect_image(inputs["name"]), inputs)
        return state["id"], state

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        image = self.daemon.found(self.api.inspect_image, known["name"])
        return None if image is None else self._state(image, known)

    def _state(self, image: Properties, inputs: Properties) -> Properties:
        folder, _, last = inputs["name"].partition("@")[0].rpartition("/")
        repository = f"{folder}/{last.partition(':')[0]}".lstrip("/")
        digests = [digest for digest in image["RepoDigests"] or [] if digest.partition("@")[0] == repository]
        return {
            **shaped(self.inputs, bare(inputs)),
            "id": image["Id"] + inputs["name"],
            "imageId": image["Id"],
            "repoDigest": digests[0] if digests else "",
        }

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        if not state.get("keepLocally"):
            self.daemon.found(lambda: self.api.remove_image(state["name"], force=bool(state.get("forceRemove"))))
