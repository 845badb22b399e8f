"""The canonical log line of a call."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog

from parley.core.errors import ParleyError
from parley.core.usage.attempts import AttemptRecord
from parley.rpc import errors
from parley.rpc.call import Call
from parley.rpc.metadata import receipts

if TYPE_CHECKING:  # loaded only where a cache is configured
    from parley.core.cache.answers import CacheUse

_log = structlog.get_logger("parley")
# REST has methods of its own for some operations, named after the operation with one of these suffixes.
_OPERATION = re.compile(r"(?P<name>\w+?)(?P<form>Json|(?<=Completion)Events)?")
# The level of a failed call by its gRPC status; `info` for what the caller can correct (docs/logs.md).
_LEVELS = {
    "INTERNAL": "error",
    "UNKNOWN": "error",
    "DATA_LOSS": "error",
    "UNAVAILABLE": "warning",
    "DEADLINE_EXCEEDED": "warning",
}
_TARGET_FAILURE = "UPSTREAM_"  # with the status of a caller's limit, it is that of a target


def write(call: Call, milliseconds: float) -> None:
    """Writes one line for a finished call that took so many milliseconds, unless it is not logged."""
    if not call.is_logged:
        return
    name, form = _operation(call.method)
    fields = {
        "method": name,
        "status": call.status,
        "ms": int(10 * milliseconds + 0.5) / 10,  # `round` takes ten times as long
        "request_id": call.request_id,
    }
    if form is not None:
        fields["form"] = form
    if call.correlation_id != call.request_id:
        fields["correlation_id"] = call.correlation_id
    if call.caller is not None:
        fields["account"] = call.caller.account
        fields["key"] = call.caller.key_id
    fields.update(call.log_fields)
    if call.outcome.replayed:
        fields["replayed"] = True
    if call.outcome.cache is not None:
        _add_cache(fields, call.outcome.cache)
    receipts.add_fields(fields, call.outcome)
    if call.status != "OK" and call.outcome.attempts:
        _add_usage(fields, call.outcome.attempts)
    if call.failure is not None:
        _add_failure(fields, call.failure)
    logger = _log.bind()  # the proxy itself looks methods up with an exception
    level = "info" if call.status == "OK" else _level(call)
    getattr(logger, level)("call", fields=fields)


def _add_usage(fields: dict[str, Any], attempts: Sequence[AttemptRecord]) -> None:
    """Adds the tokens of a call without a complete answer, if there are any."""
    usages = [attempt.usage for attempt in attempts if attempt.usage is not None]
    if usages:
        fields["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        fields["completion_tokens"] = sum(usage.completion_tokens for usage in usages)


def _add_failure(fields: dict[str, Any], failure: ParleyError) -> None:
    fields["reason"] = errors.name(failure)
    if not failure.is_quoted:
        fields["error"] = failure.message
    if failure.cause:
        fields["cause"] = failure.cause


def _add_cache(fields: dict[str, Any], use: "CacheUse") -> None:
    fields["cache"] = use.result
    if use.reason:
        fields["cache_reason"] = use.reason


def _level(call: Call) -> str:
    """Returns the level of a call's line."""
    if call.status == "RESOURCE_EXHAUSTED" and call.failure and errors.name(call.failure).startswith(_TARGET_FAILURE):
        return "warning"
    return _LEVELS.get(call.status, "info")


@cache  # the methods of the protos: no other call gets here
def _operation(method: str) -> tuple[str, str | None]:
    """Returns the operation of a method, and the form of its answer if REST has a method of its own for it."""
    found = _OPERATION.fullmatch(method)
    name, form = found.groups() if found else (method, None)
    return name, form.lower() if form else None
