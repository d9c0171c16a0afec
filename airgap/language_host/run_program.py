"""Runs one Pulumi program: `python run_program.py REQUEST_FILE ENGINE_ADDRESS`.

A script of its own, because the interpreter is that of the user's virtual environment, which knows no package of this
repository. It does what the official `pulumi-language-python-exec` does.
"""

import asyncio
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent import futures
from pathlib import Path
from types import TracebackType

REPORTED = 32
"""Exit code of a failure that the user has been told about."""
_HERE = Path(__file__).resolve()


def main(request_file: str, engine: str) -> int:
    """Run the program that the request names; the exit code."""
    # The engine interrupts a program whose resources failed. A traceback of that would hide the real error.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: os._exit(REPORTED))
    # The script's own folder: nothing in it is for the program to import.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != _HERE.parent]

    import pulumi
    import pulumi.runtime
    from pulumi.runtime.proto import language_pb2

    request = language_pb2.RunRequest.FromString(Path(request_file).read_bytes())
    pulumi.runtime.set_all_config(dict(request.config), list(request.configSecretKeys))
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            project=request.project,
            stack=request.stack,
            organization=request.organization or "organization",
            monitor=request.monitor_address,
            engine=engine,
            parallel=request.parallel,
            dry_run=request.dryRun,
            root_directory=request.info.root_directory,
        )
    )
    folder = request.info.program_directory or request.pwd
    program = os.path.normpath(Path(folder, request.info.entry_point or request.program))
    sys.argv = [program, *request.args]
    os.chdir(request.pwd or folder)

    # A graph that fails half-way leaves futures that nobody looks at, and asyncio complains about each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(futures.ThreadPoolExecutor(max(request.parallel, 1) * 4))
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: run(program)))
        return 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return REPORTED
    except Exception as error:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{describe(error)}")
        return REPORTED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run(program: str) -> None:
    """Run the program as Python runs a file or a folder with a `__main__.py`."""
    runpy.run_path(program, run_name="__main__")


def describe(error: Exception) -> str:
    """The traceback as the official host shows it: without the frames that lead to the user's program."""
    frames = users_frames(error.__traceback__)
    if frames is None and not isinstance(error, SyntaxError):  # which names file and line itself
        frames = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, frames))


def users_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not of this script, of the Pulumi SDK or of Python itself."""
    while tb is not None and is_machinery(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def is_machinery(filename: str) -> bool:
    """Whether the file runs programs rather than being part of one."""
    sdk = f"{os.sep}site-packages{os.sep}pulumi{os.sep}"
    machinery = (str(_HERE), str(Path(asyncio.__file__).parent), runpy.__file__)
    return filename.startswith(("<frozen", *machinery)) or sdk in filename


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
