"""`python3 -m tooling COMMAND`: what the Makefile calls."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before anything is imported that an older one cannot even parse
    have = ".".join(str(number) for number in sys.version_info[:2])
    sys.exit("Python 3.11 or newer is needed, and this is " + have + ": put a newer python3 first on PATH.")

from tooling.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
