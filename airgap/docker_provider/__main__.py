"""`python -m airgap.docker_provider ENGINE_ADDRESS`, started by the engine."""

import sys
from pathlib import Path

from airgap import plugin

if __name__ == "__main__":
    # In the place of the working directory, the program's: none of its modules is for the plugin to import.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    plugin.end_quietly()
    plugin.import_only_stubs()
    from airgap.docker_provider.server import main

    main(sys.argv[1] if len(sys.argv) > 1 else None)
