"""The number of Parleys that a call has passed through, so that Parleys that name one another do not call for ever."""

import re
from collections.abc import Mapping

from parley.core.errors import LoopDetected
from parley.core.ports import HOPS, MAX_HOPS

_NUMBER = re.compile(r"[0-9]{1,4}")


def hops(metadata: Mapping[str, str]) -> int:
    """Returns the number of Parleys before this one; 0 if the metadata has none, or no number.

    Raises:
        LoopDetected: The call has passed through `MAX_HOPS` Parleys.
    """
    text = metadata.get(HOPS)
    if text is None or not _NUMBER.fullmatch(text):
        return 0
    if int(text) >= MAX_HOPS:
        raise LoopDetected(int(text))
    return int(text)
