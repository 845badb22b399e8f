"""Log lines: JSON, or one short line for each event on a terminal."""

import logging
import sys
from typing import Any, Literal

import orjson
import structlog

from parley.logs.characters import escape_controls
from parley.logs.output import Output
from parley.logs.secrets import strike
from parley.logs.terminal import render

Level = Literal["debug", "info", "warning", "error"]


_TEXTS = ("exception", "cause", "error")
"""The fields of log lines that may hold words of other programs."""


def _strike_secrets(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Strikes secrets out of the texts of a log line."""
    for part in (fields, *fields.get("tried", ())):
        for name in _TEXTS:
            if isinstance(part.get(name), str):
                part[name] = strike(part[name])
    return fields


def configure(*, level: Level = "info", human: bool | None = None, output: Output | None = None) -> None:
    """Sets up structlog for this process.

    Args:
        level: The lowest level that is written.
        human: Whether to write readable lines instead of JSON; None: readable if stdout is a terminal.
        output: Where to write; None for stdout.
    """
    if human is None:
        human = sys.stdout.isatty()
    renderer: Any = render if human else structlog.processors.JSONRenderer(_json)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _strike_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(output or Output(sys.stdout.fileno())),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


def _json(event: Any, default: Any = None) -> bytes:
    """Renders an event as JSON that is safe to show on a terminal."""
    return escape_controls(orjson.dumps(event, default))
