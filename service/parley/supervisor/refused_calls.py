"""The log lines of calls and connections that Envoy has refused, from its access log, as a worker would write them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from parley.logs import Level
from parley.supervisor import envoy_admin

_BURST = 100.0  # lines that may be written at once
_LINES_PER_SECOND = 5.0
_REPORT_SECONDS = 10.0  # between two lines about those that were left out
_MAX_PATH_LENGTH = 100
_LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
_BEGIN = '{"'
_RPC = "/parley."
# The scripts add these to the path of a completion.
_OWN_SUFFIXES = (":json", ":stream")

# gRPC status and reason by the HTTP status; those of the API where it has them.
_REASONS = {
    0: ("CANCELLED", "CONNECTION_CLOSED"),
    400: ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    401: ("UNAUTHENTICATED", "INVALID_API_KEY"),
    403: ("PERMISSION_DENIED", "UPGRADE_NOT_ALLOWED"),
    404: ("UNIMPLEMENTED", "UNKNOWN_METHOD"),
    405: ("UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    408: ("DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
    413: ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE"),
    415: ("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    417: ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    429: ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
    431: ("RESOURCE_EXHAUSTED", "HEADERS_TOO_LARGE"),
}
_OK, _SERVER_ERROR = 200, 500
_UNAVAILABLE = ("UNAVAILABLE", "SERVICE_UNAVAILABLE")
_LOST = ("UNAVAILABLE", "WORKER_LOST")
# By the gRPC status of a call whose HTTP status is 200.
_RPC_REASONS = {
    3: _REASONS[400],
    4: _REASONS[408],
    8: _REASONS[413],
    12: _REASONS[404],
    16: _REASONS[401],
}


def parse(line: str) -> dict[str, Any] | None:
    """Returns the fields of a line of Envoy's access log; None for other lines of Envoy."""
    if not line.startswith(_BEGIN):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and "event" in fields else None


def event(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the event for the log, with its level and its timestamp."""
    return _connection(fields) if fields["event"] != "call" else _call(fields)


def _call(fields: Mapping[str, Any]) -> dict[str, Any]:
    status, reason = _status(fields)
    refused = fields.get("refused") or {}
    found = {
        "method": _method(fields.get("verb"), fields.get("path")),
        "status": status,
        "ms": fields.get("ms", 0),
        "request_id": fields.get("request_id"),
        "reason": fields.get("reason") or reason,
        "http_status": fields.get("http_status", 0),
        "cause": fields.get("details"),
        "client": fields.get("client"),
        **refused,
        "refused_by": "envoy",
        "event": "call",
        "level": "warning" if status == "UNAVAILABLE" else "info",
        "timestamp": fields.get("timestamp"),
    }
    if "failures" in found:
        found["failures"] = int(found["failures"])
    return {name: value for name, value in found.items() if value is not None}


def _connection(fields: Mapping[str, Any]) -> dict[str, Any]:
    tls, details = fields.get("tls"), fields.get("details")
    found = {
        "reason": "TLS_FAILED" if tls else "CONNECTION_LIMITED" if "rbac" in (details or "") else "CONNECTION_CLOSED",
        "cause": tls or details,
        "client": fields.get("client"),
        "event": "connection refused",
        "level": "info",
        "timestamp": fields.get("timestamp"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _status(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the gRPC status and the reason."""
    status, details = fields.get("http_status", 0), fields.get("details", "")
    if "connection" in details and details.startswith("upstream_reset"):
        return _LOST
    if status == _OK:
        return _RPC_REASONS.get(fields.get("grpc_status", 14), _UNAVAILABLE)
    return _REASONS.get(status, _REASONS[400] if status < _SERVER_ERROR else _UNAVAILABLE)


def _method(verb: str | None, path: str | None) -> str | None:
    """Returns the name of an RPC, else the method and path of HTTP without what looks like a secret."""
    if verb is None or path is None:
        return None
    if path.startswith(_RPC) and path.rpartition("/")[2].isalnum():
        return path.rpartition("/")[2][:_MAX_PATH_LENGTH]
    from parley.logs.secrets import strike  # its patterns take memory that most supervisors never need

    for suffix in _OWN_SUFFIXES:
        path = path.removesuffix(suffix)
    return f"{verb} {'/'.join(map(strike, path.split('/')))[:_MAX_PATH_LENGTH]}"


async def report_closed(refused: "RefusedCalls", admin: Path) -> None:
    """Logs how many connections Envoy closes because of its limits, for which it has no access log."""
    before = 0
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        with suppress(OSError):
            now = await envoy_admin.closed_connections(admin)
            refused.report_closed(now - before)
            before = now


class RefusedCalls:
    """Writes the lines of refused calls and connections, at a limited rate: callers without a key can cause them.

    A line that is left out is counted; the number is written every ten seconds while there is one.

    Args:
        write: Writes an event.
        level: The lowest level that is written.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None], level: Level) -> None:
        self._write, self._lowest = write, _LEVELS.index(level)
        self._tokens, self._at = _BURST, 0.0
        self._omitted = 0

    def write(self, line: str) -> bool:
        """Writes a line of Envoy, or leaves it out. Returns False if it is not a line of the access log."""
        if not self._take_token():
            if not line.startswith(_BEGIN):
                return False
            self._omit()
            return True
        fields = parse(line)
        if fields is None:
            self._tokens += 1
            return False
        self.write_event(event(fields))
        return True

    def write_event(self, found: dict[str, Any]) -> None:
        """Writes an event, if its level is high enough."""
        if _LEVELS.index(found["level"]) >= self._lowest:
            self._write(found)

    def report_closed(self, connections: int) -> None:
        """Writes that so many connections were closed because there were too many of them; nothing for none."""
        if connections > 0:
            found = {"event": "connections refused", "reason": "CONNECTION_LIMITED", "connections": connections}
            self.write_event(found | {"level": "warning"})

    def _take_token(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(_BURST, self._tokens + (now - self._at) * _LINES_PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _omit(self) -> None:
        if not self._omitted:
            asyncio.get_running_loop().call_later(_REPORT_SECONDS, self._report)
        self._omitted += 1

    def _report(self) -> None:
        self.write_event({"event": "refused calls not logged", "calls": self._omitted, "level": "warning"})
        self._omitted = 0
