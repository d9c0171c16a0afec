"""Failures that a person reads."""

from airgap.docker_provider.properties import Properties


class UserError(Exception):
    """Something that the user can act on; the text is the whole message."""


class InitFailedError(Exception):
    """The object exists, but did not come up as asked.

    The engine keeps it in the state as failed, with `properties`. They have to be the inputs alone: with computed
    outputs among them the next update of a program that is still broken passes for an update in place, succeeds, and
    the engine goes on to delete what worked.
    """

    def __init__(self, object_id: str, properties: Properties, reason: str) -> None:
        super().__init__(reason)
        self.object_id = object_id
        self.properties = properties
        self.reason = reason
