"""Stand-in for pulumi-resource-docker: the resource kinds of this project, over the Docker SDK."""

from typing import Final

VERSION: Final = "5.2.0"
"""The version of the official plugin whose behaviour and state this one shares."""
