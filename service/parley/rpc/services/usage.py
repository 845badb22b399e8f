"""The services of usage: what the caller has used, and for administrators what all accounts have used."""

from collections.abc import Sequence
from typing import Any

from parley.admin.v1 import usage_pb2 as admin_messages
from parley.admin.v1 import usage_pb2_grpc as admin_services
from parley.core.errors import InvalidRequest
from parley.core.ports import Caller, UsageCounts, UsageQuery, UsageRow, UsageStore
from parley.core.ports.usage import COUNTS, NANOS, Dimension
from parley.core.usage.report import ALL, dimensions, iso, period
from parley.rpc.call import caller
from parley.rpc.call_handler import Context
from parley.v1 import usage_pb2 as messages
from parley.v1 import usage_pb2_grpc as services

_OWN: Sequence[Dimension] = ("day", "model", "key")
_OWN_DEFAULT: Sequence[Dimension] = ("day", "model")
_DEFAULT: Sequence[Dimension] = ("account", "model")
_MAX_ROWS = 10_000  # within the 4 MiB of a message that gRPC clients accept by default


class UsageReportsServicer(services.UsageReportsServicer):
    """Serves the caller's own usage."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    async def GetUsageReport(self, request: messages.GetUsageReportRequest, context: Context) -> messages.UsageReport:
        """Sums up the usage of the caller's key, or of its account."""
        query = _own_query(request, caller())
        rows, total = _within(await self._store.usage(query))
        data = [messages.UsageRow(**_group(query.group, row), **_numbers(row.counts)) for row in rows]
        return messages.UsageReport(object="list", data=data, total=messages.UsageRow(**_numbers(total)))


class UsageServicer(admin_services.UsageServicer):
    """Serves the usage of all accounts."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    async def QueryUsage(
        self, request: admin_messages.QueryUsageRequest, context: Context
    ) -> admin_messages.QueryUsageResponse:
        """Sums up usage."""
        query = _query(request)
        rows, total = _within(await self._store.usage(query))
        made = [admin_messages.UsageRow(**_group(query.group, row), **_counts(row.counts)) for row in rows]
        return admin_messages.QueryUsageResponse(rows=made, total=admin_messages.UsageRow(**_counts(total)))


def _own_query(request: messages.GetUsageReportRequest, caller: Caller) -> UsageQuery:
    since, until = period(request.since, request.until)
    return UsageQuery(
        dimensions(request.by, _OWN, _OWN_DEFAULT),
        since,
        until,
        caller.account,
        None if request.account else caller.key_id,
        # What a key has used itself is counted under the ids of the configuration, which it may not list.
        sorted(caller.models) if request.account else (),
        _MAX_ROWS + 1,
    )


def _query(request: admin_messages.QueryUsageRequest) -> UsageQuery:
    since, until = period(request.since, request.until)
    return UsageQuery(
        dimensions(request.by, ALL, _DEFAULT),
        since,
        until,
        request.account or None,
        request.key or None,
        request.models,
        _MAX_ROWS + 1,
    )


def _within(rows: Sequence[UsageRow]) -> tuple[Sequence[UsageRow], UsageCounts]:
    """Returns the rows and their sum. Raises InvalidRequest for too many."""
    if len(rows) > _MAX_ROWS:
        raise InvalidRequest(f"the report has more than {_MAX_ROWS} rows: choose fewer days", param="since")
    total = UsageCounts()
    for row in rows:
        total.add(row.counts)
    return rows, total


def _group(names: Sequence[Dimension], row: UsageRow) -> dict[str, Any]:
    return {name: iso(int(value)) if name == "day" else value for name, value in zip(names, row.group, strict=True)}


def _counts(counts: UsageCounts) -> dict[str, Any]:
    return {name: getattr(counts, name) for name in COUNTS}


def _numbers(counts: UsageCounts) -> dict[str, Any]:
    numbers = _counts(counts)
    cost = numbers.pop("cost_nanos") / NANOS
    return {**numbers, "cost": cost}
