"""The command line: the choice of the process, and the format of errors."""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

gc.set_threshold(50_000, 50, 50)  # what imports make stays alive: collections of it would take a sixth of the start

_SUPERVISED = ("up", "serve")
_HELP = {"--help", "-h", "--version"}


def main(arguments: Sequence[str] | None = None, fail: Callable[[str, int], None] | None = None) -> None:
    """Runs `parley`.

    Exit codes: 0 for success, 1 for an error, 2 for wrong usage, 130 after Ctrl-C, 141 if the reader of stdout exits.
    An error is one line on stderr.

    Args:
        arguments: The arguments; None for those of the process, which then becomes a supervisor for `up` and `serve`.
        fail: Called with the text of an error and the exit code; None for a line on stderr.
    """
    _open_streams()
    try:
        if arguments is None and sys.argv[1:2] and sys.argv[1] in _SUPERVISED and not _HELP & set(sys.argv[2:]):
            _supervise(sys.argv[1:])
            return
        from parley.cli.app import app

        app(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _end_output()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - unexpected errors are raised again
        (fail or print_failure)(*_explain(error))


def _open_streams() -> None:
    """Opens /dev/null in place of standard streams that are closed: files would take their descriptors."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _supervise(arguments: Sequence[str]) -> None:
    """Runs the supervisor, which imports neither the command line nor the configuration: it keeps what it imports."""
    asyncio = importlib.import_module("parley.supervisor.plain_asyncio").asyncio  # before other imports of asyncio
    from parley.supervisor.errors import CommandError
    from parley.supervisor.main import supervise
    from parley.supervisor.preparation import PreparationEnded

    try:
        asyncio.run(supervise(arguments))
    except PreparationEnded as ended:
        sys.exit(ended.code)
    except CommandError as error:
        print_failure(str(error), 1)


def _explain(error: Exception) -> tuple[str, int]:
    """Returns the text of an expected error and its exit code. Raises any other error."""
    from cyclopts import CycloptsError

    from parley.config import ConfigError
    from parley.supervisor.errors import CommandError

    if isinstance(error, CycloptsError):
        return f"{' '.join(str(error).split())} See `parley --help`.", 2
    if not isinstance(error, CommandError | ConfigError):
        raise error
    return str(error), 1


def _end_output() -> None:
    """Exits like a program that SIGPIPE terminates, as in `parley … | head -1`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushing the buffer at exit would fail
    sys.exit(128 + signal.SIGPIPE)


def print_failure(text: str, code: int) -> None:
    """Prints each line of the text to stderr and exits."""
    from parley.cli.shared.prose import print_error

    print_error(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
