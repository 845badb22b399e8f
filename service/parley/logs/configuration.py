"""Sets up the log of a worker: JSON, or one short line for each event on a terminal."""

import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from parley.logs import Level
from parley.logs.characters import escape_controls
from parley.logs.output import Output
from parley.logs.plain_structlog import structlog
from parley.logs.recent import LONGEST, RecentLines
from parley.logs.secrets import strike
from parley.logs.terminal import render

_TEXTS = ("exception", "cause", "error")
"""The fields of log lines that may hold words of other programs."""


def configure(
    *,
    level: Level = "info",
    human: bool | None = None,
    output: Output | None = None,
    recent: RecentLines | None = None,
) -> None:
    """Sets up structlog for this process.

    Args:
        level: The lowest level that is written.
        human: Whether to write readable lines instead of JSON; None: readable if stdout is a terminal.
        output: Where to write; None for stdout.
        recent: Keeps the lines that name a request; None to keep none.
    """
    if human is None:
        human = sys.stdout.isatty()
    set_level(level)
    lines = _Lines(output or Output(sys.stdout.fileno()))
    structlog.configure(
        processors=[_line(render if human else None, (recent or RecentLines()).append)],
        wrapper_class=_Logger,
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=True,
    )


class _Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc] # a class made at run time
    """The logger of this process. Loggers are cached, so that only their class can change their level."""


def set_level(level: Level) -> None:
    """Sets the lowest level that is written, also for the loggers in use."""
    methods = vars(structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]))
    for name, method in methods.items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)


class _Lines:
    """The logger below structlog: writes the lines of all threads one after another."""

    def __init__(self, output: Output) -> None:
        self._write = output.write
        self._lock = threading.Lock()

    def msg(self, line: bytes) -> None:
        """Writes a line."""
        with self._lock:
            self._write(line + b"\n")

    debug = info = warning = error = critical = exception = msg


def _line(
    render_event: Callable[[structlog.typing.EventDict], bytes] | None, keep: Callable[[tuple[str, str, bytes]], object]
) -> Callable[[Any, str, structlog.typing.EventDict], bytes]:
    """Returns the only processor of structlog. A chain of processors costs a call twice as much.

    Args:
        render_event: Renders an event, which it may change; None for JSON.
        keep: Keeps the request id, the time and the JSON of an event that names a request.

    An event may have its fields as one mapping, `fields`: structlog copies every argument of an event several times.
    """

    def process(logger: Any, level: str, event: structlog.typing.EventDict) -> bytes:
        if "fields" in event:
            fields = event.pop("fields")
            fields |= event
            event = fields
        event["level"] = level
        event["timestamp"] = _timestamp()
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, level, event)
        _strike(event)
        for part in event.get("tried", ()):
            _strike(part)
        if render_event is not None and "request_id" not in event:
            return render_event(event)
        line = _json(event)
        if "request_id" in event and len(line) <= LONGEST:
            keep((event["request_id"], event["timestamp"], line))
        return line if render_event is None else render_event(event)

    return process


def _timestamp() -> str:
    """Returns the time in UTC, such as `2026-11-26T14:38:50.153802Z`."""
    now = time.time()
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1_000_000):06}Z"


@lru_cache(maxsize=1)  # formatting a time takes a fifth of a log line
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _strike(part: MutableMapping[str, Any]) -> None:
    """Strikes secrets out of texts of other programs."""
    for name in _TEXTS:
        if name in part and isinstance(part[name], str):
            part[name] = strike(part[name])


def _json(event: structlog.typing.EventDict) -> bytes:
    """Renders an event as JSON that is safe to show on a terminal."""
    return escape_controls(orjson.dumps(event, default=repr))
