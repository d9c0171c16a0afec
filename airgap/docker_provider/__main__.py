"""`python -m airgap.docker_provider ENGINE_ADDRESS`, started by the engine."""

import sys

from airgap import plugin

if __name__ == "__main__":
    plugin.end_quietly()
    plugin.import_only_stubs()
    from airgap.docker_provider.server import main

    main(sys.argv[1] if len(sys.argv) > 1 else None)
