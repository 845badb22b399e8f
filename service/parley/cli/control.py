"""`parley reload` and `parley drain`: what SIGHUP and SIGTERM do, without the number of the process."""

import time
from pathlib import Path

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.options import StateDirOption
from parley.supervisor import reload_record
from parley.supervisor.errors import CommandError

_POLL_SECONDS = 0.1
_BEGIN_SECONDS = 30.0  # until a requested reload begins, if no other one runs


def reload(*, state_dir: StateDirOption = None) -> None:
    """Have the running service read its configuration again. No call fails.

    Prints what has changed when all workers have been replaced. Exits with 1 and the error if the old configuration
    stays in use.
    """
    folder = operating.folder(state_dir)
    before = reload_record.read(folder).number
    operating.call(state_dir, "Reload", messages.ReloadRequest())
    outcome = _wait(folder, before)
    if outcome.error is not None:
        raise CommandError(f"the old configuration stays in use: {outcome.error}")
    print(f"The new configuration is in use: {', '.join(outcome.changes) or 'nothing has changed'}.")


def _wait(folder: Path, before: int) -> reload_record.Outcome:
    """Waits for the end of the next reload.

    Raises:
        CommandError: The service ends meanwhile, or no reload is recorded.
    """
    latest = time.monotonic() + _BEGIN_SECONDS
    while True:
        outcome = reload_record.read(folder)
        if outcome.number > before and outcome.is_done:
            return outcome
        if not outcome.is_done:
            latest = time.monotonic() + _BEGIN_SECONDS
        elif time.monotonic() > latest:
            raise CommandError(
                f"{folder} has no record of the reload: the disk may be full; the log of the service has the outcome"
            )
        if not operating.is_running(folder):
            raise CommandError("the service has ended before the reload did; its log has the reason")
        time.sleep(_POLL_SECONDS)


def drain(*, state_dir: StateDirOption = None) -> None:
    """Stop the running service after its running calls have finished, as SIGTERM does."""
    operating.call(state_dir, "Drain", messages.DrainRequest())
    print("Requested; Parley stops when its running calls have finished.")
