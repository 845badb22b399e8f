"""Log lines: JSON, or columns where a person watches."""

import logging
import sys
from typing import Any, BinaryIO

import orjson
import structlog


def configure(*, level: str = "info", human: bool | None = None, file: BinaryIO | None = None) -> None:
    """Sets up structlog for this process.

    `human` chooses columns instead of JSON; default: where stdout is a terminal. JSON goes to `file`, default stdout.
    """
    if human is None:
        human = sys.stdout.isatty()
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if human:
        processors.append(structlog.dev.ConsoleRenderer())
        factory: Any = structlog.PrintLoggerFactory()
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(orjson.dumps)]
        factory = structlog.BytesLoggerFactory(file)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
