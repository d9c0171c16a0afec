"""Stand-in for pulumi-language-python: runs the user's program for the engine."""
