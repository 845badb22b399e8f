"""The `Operations` service, for administrators: one worker answers for all."""

import signal
import time
from collections.abc import Callable
from typing import Any, get_args

import structlog

from parley.admin.v1 import operations_pb2 as messages
from parley.admin.v1 import operations_pb2_grpc as services
from parley.core.errors import InvalidRequest, ParleyError
from parley.core.messages.ids import uuid7
from parley.core.ports import AuditEvent, AuditStore
from parley.logs import Level
from parley.rpc import overrides
from parley.rpc.call import current, origin
from parley.rpc.call_handler import Context
from parley.rpc.operations import Operations, PastReload, merge_targets
from parley.rpc.overrides import Overrides
from parley.rpc.peers import Peers, is_from_peer

_log = structlog.get_logger()

_MAX_WEIGHT = 1_000_000
_DEFAULT_LINES = 100
_MAX_LINES = 200  # of at most 16 KiB each: within the 4 MiB of a message that gRPC clients accept by default


class OperationsServicer(services.OperationsServicer):
    """Serves the state of the running service.

    Args:
        operations: The state of this worker.
        store: Holds the audit log.
        peers: The other workers.
    """

    def __init__(self, operations: Operations, store: AuditStore, peers: Peers) -> None:
        self._operations = operations
        self._store = store
        self._peers = peers

    async def ListTargets(self, request: messages.ListTargetsRequest, context: Context) -> messages.ListTargetsResponse:
        """Lists the targets of all models."""
        _hide_read()
        if _is_from_peer():
            return self._operations.targets()
        answers, silent = await self._peers.ask("ListTargets", request, self._operations.targets)
        merged = merge_targets(answers)
        merged.unreachable_workers.extend(silent)
        return merged

    async def OpenTarget(self, request: messages.OpenTargetRequest, context: Context) -> messages.Target:
        """Opens the breaker of a target."""
        return await self._change_target(request.name, overrides.open_target(request.name), _breaker)

    async def CloseTarget(self, request: messages.CloseTargetRequest, context: Context) -> messages.Target:
        """Closes the breakers of a target."""
        return await self._change_target(request.name, overrides.close_target(request.name), _breaker)

    async def SetTargetWeight(self, request: messages.SetTargetWeightRequest, context: Context) -> messages.Target:
        """Sets the weight of a target, or clears it."""
        weight = request.weight if request.HasField("weight") else None
        if weight is not None and not 0 <= weight <= _MAX_WEIGHT:
            raise InvalidRequest(f"`weight` must be between 0 and {_MAX_WEIGHT:,}", param="weight")
        return await self._change_target(request.name, overrides.set_weight(request.name, weight), _weight)

    async def _change_target(
        self, name: str, change: Callable[[Overrides], Overrides], field: Callable[[messages.Target], dict[str, Any]]
    ) -> messages.Target:
        """Makes a change of a target in all workers, and records a field of it before and after."""
        before = await self._target(name)
        self._operations.overrides.update(change)
        after = await self._target(name)
        old, new = field(before), field(after)
        await self._record(f"target:{name}", {key: (old[key], value) for key, value in new.items()})
        return after

    async def _target(self, name: str) -> messages.Target:
        """Returns a target as all workers see it, which apply the overrides first. Raises InvalidRequest."""
        answers, _ = await self._peers.ask("ListTargets", messages.ListTargetsRequest(), self._operations.targets)
        targets = {target.name: target for target in merge_targets(answers).targets}
        if name not in targets:
            text = f'`name`: no target is named "{name}"; use one of: {", ".join(targets)}'
            raise InvalidRequest(text, param="name")
        return targets[name]

    async def ListCalls(self, request: messages.ListCallsRequest, context: Context) -> messages.ListCallsResponse:
        """Lists the running calls, the oldest first."""
        _hide_read()

        def own() -> messages.ListCallsResponse:
            return self._operations.calls(request, self._peers.name)

        if _is_from_peer():
            return own()
        answers, silent = await self._peers.ask("ListCalls", request, own)
        calls = sorted((call for answer in answers for call in answer.calls), key=lambda call: -call.age)
        return messages.ListCallsResponse(calls=calls, unreachable_workers=silent)

    async def CancelCall(self, request: messages.CancelCallRequest, context: Context) -> messages.CancelCallResponse:
        """Cancels a running call."""
        if not request.request_id:
            raise InvalidRequest("`request_id` must not be empty", param="request_id")

        def own() -> messages.CancelCallResponse:
            return self._operations.cancel(request.request_id, self._peers.name)

        if _is_from_peer():
            return own()
        answers, silent = await self._peers.ask("CancelCall", request, own)
        calls = [call for answer in answers for call in answer.calls]
        if calls:
            await self._record(f"call:{request.request_id}", {"running": (True, False)})
        return messages.CancelCallResponse(calls=calls, unreachable_workers=silent)

    async def ListCallLogLines(
        self, request: messages.ListCallLogLinesRequest, context: Context
    ) -> messages.ListCallLogLinesResponse:
        """Lists the latest log lines of calls, the latest first."""
        _hide_read()
        most = min(request.max_lines or _DEFAULT_LINES, _MAX_LINES)

        def own() -> messages.ListCallLogLinesResponse:
            return self._operations.log_lines(request.request_id, most, self._peers.name)

        if _is_from_peer():
            return own()
        answers, silent = await self._peers.ask("ListCallLogLines", request, own)
        lines = sorted((line for answer in answers for line in answer.lines), key=lambda line: line.time, reverse=True)
        return messages.ListCallLogLinesResponse(lines=lines[:most], unreachable_workers=silent)

    async def GetLogLevel(self, request: messages.GetLogLevelRequest, context: Context) -> messages.LogLevel:
        """Reads the log level."""
        _is_from_peer()
        return self._log_level()

    async def SetLogLevel(self, request: messages.SetLogLevelRequest, context: Context) -> messages.LogLevel:
        """Sets the log level of all workers."""
        if request.level not in ("", *get_args(Level)):
            raise InvalidRequest(f"`level` must be one of: {', '.join(get_args(Level))}", param="level")
        level: Any = request.level or None
        until = request.until if level is not None and request.HasField("until") else None
        before = self._log_level()
        self._operations.overrides.update(overrides.set_log_level(level, until))
        answers, silent = await self._peers.ask("GetLogLevel", messages.GetLogLevelRequest(), self._log_level)
        await self._record("service", {"log_level": (before.level, answers[0].level), "until": (None, until)})
        answers[0].unreachable_workers.extend(silent)
        return answers[0]

    async def Reload(self, request: messages.ReloadRequest, context: Context) -> messages.ReloadResponse:
        """Requests that the configuration is read again."""
        self._read_reload()
        await self._record("service", {"configuration": (None, "reload")})
        self._operations.signal_parley(signal.SIGHUP)
        return messages.ReloadResponse()

    async def GetLastReload(self, request: messages.GetLastReloadRequest, context: Context) -> messages.LastReload:
        """Reads the outcome of the last reload."""
        _hide_read()
        found = self._read_reload()
        return messages.LastReload(
            time=found.began, running=not found.is_done, error=found.error, changes=list(found.changes)
        )

    def _read_reload(self) -> PastReload:
        """Returns the last reload. Raises InvalidRequest if there can be none."""
        if self._operations.last_reload is None:
            raise InvalidRequest("`parley serve` does not read its configuration again; restart it")
        return self._operations.last_reload()

    async def Drain(self, request: messages.DrainRequest, context: Context) -> messages.DrainResponse:
        """Requests that Parley stops after the running calls."""
        await self._record("service", {"serving": (True, False)})
        self._operations.signal_parley(signal.SIGTERM)
        return messages.DrainResponse()

    def _log_level(self) -> messages.LogLevel:
        self._operations.refresh()
        until = self._operations.overrides.read().log_level_until
        has_end = until is not None and self._operations.level != self._operations.configured_level
        return messages.LogLevel(
            level=self._operations.level,
            configured=self._operations.configured_level,
            until=int(until) if until is not None and has_end else None,
        )

    async def _record(self, subject: str, changes: dict[str, tuple[object, object]]) -> None:
        """Adds the event of a change that was made. Without the store, the log has the event instead.

        An outage of the database must not keep an operator from acting.
        """
        made = origin()
        event = AuditEvent(uuid7(), int(time.time()), made.actor, made.source, current().method, subject, changes)
        try:
            await self._store.add_audit_event(event)
        except ParleyError as error:
            fields = {"actor": made.actor, "source": made.source, "subject": subject, "changes": changes}
            _log.warning("a change is missing in the audit log", method=event.method, **fields, cause=error.cause)


def _is_from_peer() -> bool:
    """Returns whether another worker asks for the state of this one, and keeps such a call out of the log."""
    call = current()
    found = is_from_peer(call)
    call.is_logged = call.is_logged and not found
    return found


def _breaker(target: messages.Target) -> dict[str, Any]:
    return {"breaker": "open" if target.workers_open else "closed", "opened": target.opened}


def _weight(target: messages.Target) -> dict[str, Any]:
    return {"weight": target.weight_override if target.HasField("weight_override") else None}


def _hide_read() -> None:
    """Keeps a call that `parley top` repeats every second out of the log."""
    current().is_logged = False
