"""What all tests share."""

import signal

# A run in the background of a script, as some CI does it, is started with SIGINT ignored. Its children would inherit
# that, and those that are to be interrupted could not be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
