"""`parley reload` and `parley drain`: what SIGHUP and SIGTERM do, without the number of the process."""

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.options import StateDirOption


def reload(*, state_dir: StateDirOption = None) -> None:
    """Have the running service read its configuration again. No call fails; the log has the outcome."""
    operating.call(state_dir, "Reload", messages.ReloadRequest())
    print("Requested; the log says whether the new configuration is in use.")


def drain(*, state_dir: StateDirOption = None) -> None:
    """Stop the running service after its running calls have finished, as SIGTERM does."""
    operating.call(state_dir, "Drain", messages.DrainRequest())
    print("Requested; Parley stops when its running calls have finished.")
