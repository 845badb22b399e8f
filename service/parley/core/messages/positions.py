"""The positions of messages in the errors of targets.

A target counts all messages that it gets: also the model's instructions and the history of the session, which precede
those of the caller.
"""

import re

from parley.core.errors import ParleyError

# As in: messages[2].content[0].type; messages.2.content.
_POSITION = re.compile(r"\bmessages(\[|\.)(\d+)")


def use_caller_positions(error: ParleyError, added: int) -> None:
    """Changes an error to count the messages of the caller's request only.

    Args:
        error: The error. One about a message before those of the caller names no field of the request any more.
        added: The number of messages before those of the caller; negative if messages were joined.
    """

    def own(found: re.Match[str]) -> str:
        position = int(found[2]) - added
        return f"messages{found[1]}{position}" if position >= 0 else f"the history's {found[0]}"

    if error.param is None or (named := _POSITION.match(error.param)) is None:
        return
    error.message = _POSITION.sub(own, error.message)
    error.param = _POSITION.sub(own, error.param, count=1) if int(named[2]) >= added else None
