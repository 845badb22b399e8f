"""Queries of usage by text: dates, and what to sum up by."""

import re
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import cast, get_args

from parley.core.errors import InvalidRequest
from parley.core.ports.usage import Dimension
from parley.core.usage.recorder import day

DAYS = 30
"""How many days before today a report begins by default."""
_EPOCH = date(1970, 1, 1)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def period(since: str, until: str, clock: Callable[[], float] = time.time) -> tuple[int, int]:
    """Returns the first and the last day, as days since 1970-01-01.

    Args:
        since: The first day, as YYYY-MM-DD; empty for 30 days before today.
        until: The last day, as YYYY-MM-DD; empty for today.
        clock: Returns Unix seconds.

    Raises:
        InvalidRequest: A text is not a date.
    """
    today = day(clock())
    return (_day("since", since) if since else today - DAYS), (_day("until", until) if until else today)


def dimensions(names: Sequence[str], allowed: Sequence[Dimension], default: Sequence[Dimension]) -> Sequence[Dimension]:
    """Returns what to sum up by, without repetitions. Raises InvalidRequest for a name that is not allowed."""
    for name in names:
        if name not in allowed:
            listed = ", ".join(f"`{each}`" for each in allowed)
            raise InvalidRequest(f"`by` must consist of {listed}", param="by")
    return cast("list[Dimension]", list(dict.fromkeys(names))) or default


ALL: Sequence[Dimension] = get_args(Dimension)
"""Everything that usage is counted by."""


def iso(days: int) -> str:
    """Returns the date of a day, as YYYY-MM-DD."""
    return (_EPOCH + timedelta(days)).isoformat()


def parse_date(text: str) -> int | None:
    """Returns the day of a date as YYYY-MM-DD; None for another text."""
    if not _DATE.fullmatch(text):
        return None
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        return None


def _day(param: str, text: str) -> int:
    found = parse_date(text)
    if found is None:
        raise InvalidRequest(f"`{param}` must be a date as YYYY-MM-DD", param=param)
    return found
