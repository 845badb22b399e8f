"""Compares this machine's clock with those of the store and of the backends."""

import asyncio
import time
import urllib.error
import urllib.request
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from parley.cli.diagnosis.finding import Finding
from parley.config import Config, PostgresConfig
from parley.core.errors import StoreUnavailable

_CHECK = "clocks"
_MAX_DIFFERENCE = 5.0  # seconds; tokens and retention tolerate less than a minute
_TIMEOUT = 5.0
_REMEDY = "synchronize the clocks by NTP, for example with `timedatectl set-ntp true`"


async def check(config: Config, folder: Path, *, calls: bool) -> list[Finding]:
    """Returns the findings; `calls` allows requests to the backends."""
    findings = []
    if isinstance(config.store, PostgresConfig) and (ahead := await _ahead_of_store(config, folder)) is not None:
        findings.append(compare("the database", ahead))
    origins = dict.fromkeys(_origin(url) for one in config.backends.values() if (url := getattr(one, "base_url", None)))
    if not calls or not origins:
        return findings or [Finding(_CHECK, "skipped", "there is no other clock to compare with")]
    found = await asyncio.gather(*(asyncio.to_thread(_ahead_of, origin) for origin in origins))
    known = [(abs(ahead), ahead, origin) for origin, ahead in zip(origins, found, strict=True) if ahead is not None]
    if not known:
        return findings or [Finding(_CHECK, "skipped", "no backend sent its time")]
    # A wrong clock of this machine differs from all others; one that differs alone is the backend's.
    _, ahead, origin = min(known)
    return [*findings, compare(urlsplit(origin).netloc, ahead)]


def compare(other: str, ahead: float) -> Finding:
    """Returns the finding for a clock.

    Args:
        other: The owner of the other clock.
        ahead: By how many seconds this machine's clock is ahead of it.
    """
    if abs(ahead) <= _MAX_DIFFERENCE:
        return Finding(_CHECK, "ok", f"this machine's clock agrees with that of {other} within {_MAX_DIFFERENCE:g} s")
    word = "ahead of" if ahead > 0 else "behind"
    return Finding(_CHECK, "failed", f"this machine's clock is {abs(ahead):.0f} s {word} that of {other}", _REMEDY)


async def _ahead_of_store(config: Config, folder: Path) -> float | None:
    from parley.stores.open import open_known_store
    from parley.stores.postgres import PostgresStore

    with suppress(StoreUnavailable):  # a finding of its own
        async with open_known_store(config.store, folder) as store:
            if isinstance(store, PostgresStore):
                return await store.clock_difference()
    return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


def _ahead_of(origin: str) -> float | None:
    """Returns by how many seconds this clock is ahead of the server's, by its header `Date`; None without one."""
    request = urllib.request.Request(origin, method="HEAD", headers={"User-Agent": "parley"})  # noqa: S310 - http or https
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - as above
            date = response.headers.get("Date")
    except urllib.error.HTTPError as error:  # every status has the header
        date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
