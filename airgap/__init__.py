"""Stand-ins for the Pulumi plugins that machines cannot download when they only reach package registries.

`language_host` runs Python programs for the engine, `docker_provider` is the Docker plugin. Both speak the engine's own
protocol and behave as the official plugins do, whose state they share.
"""
