"""What a dynamic resource says when it does not do what it was asked. On its own, as no look for changes needs more."""


class Refused(Exception):
    """The release stays out of the traffic. The message says which replica, which check, and what it said last."""
