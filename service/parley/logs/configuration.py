"""Sets up the log of a worker: JSON, or one short line for each event on a terminal."""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from parley.logs import Level
from parley.logs.characters import escape_controls
from parley.logs.output import Output
from parley.logs.plain_structlog import structlog
from parley.logs.secrets import strike
from parley.logs.terminal import render

_TEXTS = ("exception", "cause", "error")
"""The fields of log lines that may hold words of other programs."""


def configure(*, level: Level = "info", human: bool | None = None, output: Output | None = None) -> None:
    """Sets up structlog for this process.

    Args:
        level: The lowest level that is written.
        human: Whether to write readable lines instead of JSON; None: readable if stdout is a terminal.
        output: Where to write; None for stdout.
    """
    if human is None:
        human = sys.stdout.isatty()
    structlog.configure(
        processors=[_line(render if human else _json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(output or Output(sys.stdout.fileno())),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


def _line(
    render_event: Callable[[structlog.typing.EventDict], bytes],
) -> Callable[[Any, str, structlog.typing.EventDict], bytes]:
    """Returns the only processor of structlog. A chain of processors costs a call twice as much."""

    def process(logger: Any, level: str, event: structlog.typing.EventDict) -> bytes:
        event["level"] = level
        event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, level, event)
        for part in (event, *event.get("tried", ())):
            for name in _TEXTS:
                if isinstance(part.get(name), str):
                    part[name] = strike(part[name])
        return render_event(event)

    return process


def _json(event: structlog.typing.EventDict) -> bytes:
    """Renders an event as JSON that is safe to show on a terminal."""
    return escape_controls(orjson.dumps(event, default=repr))
