"""`parley log-level`: shows and sets the log level of the running service."""

import time
from typing import Annotated

from cyclopts import Parameter

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.key_output import moment, print_json
from parley.cli.shared.options import JsonOption, StateDirOption, seconds
from parley.logs import Level
from parley.supervisor.errors import CommandError


def log_level(
    level: Annotated[Level | None, Parameter(name="LEVEL", help="The new level. Default: only show it.")] = None,
    /,
    *,
    for_: Annotated[
        str | None, Parameter(name="--for", help="How long the new level holds: 10m, 1h. Default: without end.")
    ] = None,
    clear: Annotated[
        bool, Parameter(name="--clear", negative=(), help="Use the level that Parley was started with again.")
    ] = False,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
) -> None:
    """Show or set the log level of all workers."""
    if clear and level is not None:
        raise CommandError("give either LEVEL or --clear")
    if for_ is not None and level is None:
        raise CommandError("--for needs a LEVEL")
    if level is None and not clear:
        answer = operating.call(state_dir, "GetLogLevel", messages.GetLogLevelRequest())
    else:
        until = int(time.time() + seconds(for_, "--for")) if for_ is not None else None
        answer = operating.call(state_dir, "SetLogLevel", messages.SetLogLevelRequest(level=level, until=until))
    if json:
        print_json(operating.fields(answer))
        return
    end = f" until {moment(answer.until)}" if answer.HasField("until") else ""
    print(f"{answer.level}{end} (started with {answer.configured})")
