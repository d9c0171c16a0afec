"""The parts that `__main__.py` puts together: settings, app image and replicas, load balancer, release gate."""

import atexit
import gc

# The program, and the process that the engine starts for dynamic resources, end with all that they have made. To look
# for what of it is garbage takes a tenth of an `up`, and the engine waits for it.
atexit.register(gc.freeze)
