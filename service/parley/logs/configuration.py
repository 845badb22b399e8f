"""Sets up the log of a worker: JSON, or one short line for each event on a terminal."""

import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, get_args

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
        processors=[_renderer(render if human else None, (recent or RecentLines()).append)],
        wrapper_class=_Logger,
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=True,
    )


class _Logger(structlog.BoundLoggerBase):
    """The logger of this process, with a method for each level. Loggers are cached: only their class can be changed.

    A line is rendered and written in one step. structlog's own methods copy the fields of an event several times, which
    takes as long as the rest.
    """


def set_level(level: Level) -> None:
    """Sets the lowest level that is written, also for the loggers in use."""
    numbers = logging.getLevelNamesMapping()
    for name in get_args(Level):
        is_written = numbers[name.upper()] >= numbers[level.upper()]
        setattr(_Logger, name, _writer(name) if is_written else _ignore)


def _writer(level: Level) -> Callable[..., None]:
    """Returns the method of a level."""

    def write(self: Any, event: str, *, fields: dict[str, Any] | None = None, **more: Any) -> None:
        """Writes an event. `fields` are further fields, a mapping that belongs to the line from now on."""
        if fields is None:
            fields = self._context | more
        elif more:
            fields |= more
        fields["event"] = event
        try:  # noqa: SIM105 - `suppress` is three functions
            self._logger.write(self._processors[0](self._logger, level, fields))
        except structlog.DropEvent:  # of `structlog.testing`
            pass

    return write


def _ignore(_logger: Any, _event: str, **_fields: Any) -> None:
    """Is the method of the levels that are not written."""


class _Lines:
    """The logger below structlog: writes the lines of all threads one after another."""

    def __init__(self, output: Output) -> None:
        self._write = output.write
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Writes a line with its line feed."""
        with self._lock:
            self._write(line)


def _renderer(
    render_event: Callable[[structlog.typing.EventDict], bytes] | None, keep: Callable[[bytes], object]
) -> Callable[[Any, str, structlog.typing.EventDict], bytes]:
    """Returns the only processor of structlog. A chain of processors costs a call twice as much.

    Args:
        render_event: Renders an event, which it may change; None for JSON.
        keep: Keeps the JSON line of an event that names a request.
    """

    def process(logger: Any, level: str, event: structlog.typing.EventDict) -> bytes:
        event["level"] = level
        now = str(time.time_ns())
        event["timestamp"] = f"{_second(now[:-9])}.{now[-9:-3]}Z"
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, level, event)
        if "error" in event or "cause" in event or "exception" in event:
            _strike(event)
        for part in event.get("tried", ()):
            _strike(part)
        if render_event is not None and "request_id" not in event:
            return render_event(event) + b"\n"
        line = escape_controls(orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE))
        if "request_id" in event and len(line) <= LONGEST:
            keep(line)
        return line if render_event is None else render_event(event) + b"\n"

    return process


@lru_cache(maxsize=1)  # formatting a time takes a fifth of a log line
def _second(seconds: str) -> str:
    """Returns a Unix time in UTC, such as `2026-11-26T14:38:50`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _strike(part: MutableMapping[str, Any]) -> None:
    """Strikes secrets out of texts of other programs."""
    for name in _TEXTS:
        if name in part and isinstance(part[name], str):
            part[name] = strike(part[name])
