"""`python -m airgap.language_host ENGINE_ADDRESS`, started by the engine."""

import sys

from airgap import plugin

if __name__ == "__main__":
    plugin.end_quietly()
    plugin.import_only_stubs()
    from airgap.language_host.server import main

    main(sys.argv[-1])
