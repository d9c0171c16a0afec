"""docker:index/network:Network."""

from collections.abc import Mapping
from typing import ClassVar, Final

from typing_extensions import override

from airgap.docker_provider.kinds import LABEL, Kind, label_map, labels
from airgap.docker_provider.properties import Properties
from airgap.docker_provider.schema import Input

IPAM_CONFIG: Final = {
    "auxAddress": Input(empty={}),
    "gateway": Input(empty=""),
    "ipRange": Input(empty=""),
    "subnet": Input(empty=""),
}


ALLOCATION_TIMEOUT: Final = 10.0
"""Seconds in which a swarm gives its network a subnet."""


class Network(Kind):
    """A network of the daemon."""

    type = "docker:index/network:Network"
    inputs: ClassVar[Mapping[str, Input]] = {
        "attachable": Input(),
        "driver": Input(computed=True),
        "ingress": Input(),
        "internal": Input(computed=True),
        "ipamConfigs": Input(computed=True, fields=IPAM_CONFIG, empty=[]),
        "ipamDriver": Input(default="default"),
        "ipamOptions": Input(),
        "ipv6": Input(),
        "labels": Input(fields=LABEL, empty=[]),
        "name": Input(),
        "options": Input(computed=True),
    }

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        ipam = {
            "Driver": inputs["ipamDriver"],
            "Options": inputs.get("ipamOptions"),
            "Config": [
                {
                    "Subnet": config.get("subnet", ""),
                    "IPRange": config.get("ipRange", ""),
                    "Gateway": config.get("gateway", ""),
                    "AuxiliaryAddresses": config.get("auxAddress", {}),
                }
                for config in inputs.get("ipamConfigs", [])
            ],
        }
        created = self.api.create_network(
            inputs["name"],
            driver=inputs.get("driver", "bridge"),
            options=inputs.get("options"),
            ipam=ipam,
            check_duplicate=True,
            internal=inputs.get("internal", False),
            labels=label_map(inputs.get("labels")),
            enable_ipv6=inputs.get("ipv6", False),
            attachable=inputs.get("attachable"),
            ingress=inputs.get("ingress"),
        )
        self.daemon.wait_until(ALLOCATION_TIMEOUT, lambda: _is_allocated(self.api.inspect_network(created["Id"])))
        return created["Id"], self._state(self.api.inspect_network(created["Id"]))

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        network = self.daemon.found(self.api.inspect_network, object_id)
        return None if network is None else self._state(network)

    @staticmethod
    def _state(network: Properties) -> Properties:
        ipam = network["IPAM"]
        return {
            "id": network["Id"],
            "name": network["Name"],
            "labels": labels(network["Labels"]),
            "driver": network["Driver"],
            "internal": network["Internal"],
            "attachable": network["Attachable"],
            "ingress": network["Ingress"],
            "ipv6": network["EnableIPv6"],
            "ipamDriver": ipam["Driver"],
            "ipamOptions": ipam["Options"],
            "scope": network["Scope"],
            "options": network["Options"] or {},
            "ipamConfigs": [
                {
                    "subnet": config.get("Subnet", ""),
                    "gateway": config.get("Gateway", ""),
                    "ipRange": config.get("IPRange", ""),
                    "auxAddress": config.get("AuxiliaryAddresses") or {},
                }
                for config in ipam["Config"] or []
            ],
        }

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        # Containers that were just removed stay endpoints of the network for a moment.
        self.daemon.remove(lambda: self.api.remove_network(object_id), busy="has active endpoints")


def _is_allocated(network: Properties) -> bool:
    """A network of the swarm is there before it has its subnet; one of the daemon alone is not."""
    return network.get("Scope") != "swarm" or bool(network["IPAM"]["Config"])
