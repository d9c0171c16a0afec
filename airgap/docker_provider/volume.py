"""docker:index/volume:Volume."""

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from airgap.docker_provider.kinds import LABEL, Kind, label_map, labels
from airgap.docker_provider.properties import Properties
from airgap.docker_provider.schema import Input


class Volume(Kind):
    """A named volume. Its id is its name."""

    type = "docker:index/volume:Volume"
    inputs: ClassVar[Mapping[str, Input]] = {
        "cluster": Input(replaces=False, covered=False),
        "driver": Input(computed=True),
        "driverOpts": Input(),
        "labels": Input(fields=LABEL, empty=[]),
        "name": Input(),
    }

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        volume = self.api.create_volume(
            inputs["name"], inputs.get("driver"), inputs.get("driverOpts"), label_map(inputs.get("labels"))
        )
        return volume["Name"], self._state(self.api.inspect_volume(volume["Name"]))

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        volume = self.daemon.found(self.api.inspect_volume, object_id)
        return None if volume is None else self._state(volume)

    @staticmethod
    def _state(volume: Properties) -> Properties:
        return {
            "id": volume["Name"],
            "name": volume["Name"],
            "labels": labels(volume["Labels"]),
            "driver": volume["Driver"],
            "driverOpts": volume["Options"],
            "mountpoint": volume["Mountpoint"],
            "cluster": None,
        }

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        self.daemon.remove(lambda: self.api.remove_volume(object_id, force=True), busy="volume is in use")
