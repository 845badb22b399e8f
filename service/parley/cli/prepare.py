"""`python -m parley.cli.prepare DESCRIPTOR …`: prepares `parley up` or `parley serve` for their supervisor.

See `parley.supervisor.messages`.
"""

import os
import signal
import sys

from parley.cli.main import main, print_failure
from parley.cli.shared import connection
from parley.logs import plain_structlog  # noqa: F401 - before the modules that import structlog
from parley.supervisor.messages import Failure


def _fail(text: str, code: int) -> None:
    """Reports an error to the supervisor; wrong usage to the operator."""
    if code == 1:
        connection.supervisor().send(Failure(text))
    else:
        print_failure(text, code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        connection.open_channel(int(sys.argv[1]))
        main(sys.argv[2:], _fail)
    except EOFError:  # the supervisor has ended
        sys.exit(1)
    os._exit(0)  # the end of the interpreter would take a twentieth of the start
