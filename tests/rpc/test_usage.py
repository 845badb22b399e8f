"""Usage over gRPC: what a caller reads of its own calls, and an administrator of all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from parley.admin.v1.usage_pb2 import QueryUsageRequest, QueryUsageResponse
from parley.core.errors import InvalidRequest
from parley.core.usage.report import iso
from parley.rpc.services import usage
from parley.rpc.services.usage import UsageServicer
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.usage_pb2 import GetUsageReportRequest, UsageReport
from parley.v1.usage_pb2_grpc import UsageReportsStub
from tests.keys import create_key
from tests.rpc.calling import chat_request
from tests.rpc.conftest import CONFIG, Worker, serving
from tests.rpc.scripted import completion

DAY = 20_000
PERIOD = {"since": iso(DAY), "until": iso(DAY)}
ZERO = {"errors": 0, "cached_tokens": 0, "reasoning_tokens": 0, "cost": 0}


class Callers:
    """The callers of a server."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel) -> None:
        self.worker = worker
        self.secrets = dict(worker.keys)
        self._chat: Any = ChatCompletionsStub(channel)
        self._usage: Any = UsageReportsStub(channel)

    def _key(self, name: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.secrets[name]}"),)

    async def call(self, name: str, model: str, *, fails: bool = False) -> None:
        """Makes one completion."""
        self.worker.backend.answer = lambda _: InvalidRequest("no") if fails else completion("Hi")
        with pytest.raises(grpc.aio.AioRpcError) if fails else nullcontext():
            await self._chat.CreateChatCompletion(chat_request(model=model), metadata=self._key(name))

    async def report(self, name: str, **request: Any) -> list[dict[str, Any]]:
        """Returns the rows of a report, and the total."""
        report: UsageReport = await self._usage.GetUsageReport(
            GetUsageReportRequest(**request), metadata=self._key(name)
        )
        assert "list" == report.object
        return [MessageToDict(row, preserving_proto_field_name=True) for row in (*report.data, report.total)]

    async def query(self, **request: Any) -> QueryUsageResponse:
        """Returns the usage as an administrator reads it."""
        context: Any = None  # is not used
        return await UsageServicer(self.worker.store).QueryUsage(QueryUsageRequest(**request, **PERIOD), context)

    async def counted(self, calls: int) -> None:
        """Waits until so many calls are counted."""
        async with asyncio.timeout(30):
            while calls != (await self.query()).total.calls:
                await asyncio.sleep(0.02)


@pytest.fixture
async def callers(tmp_path: Path, log_file: Path) -> AsyncIterator[Callers]:
    """Three keys of two accounts, after their calls; one key may use only one model."""
    async with (
        serving(tmp_path, CONFIG, lambda: DAY * 86400.0) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        made = Callers(worker, channel)
        _, made.secrets["tim, all"] = await create_key(worker.store, "all", "tim")
        for name, model in (("tim", "kept"), ("tim, all", "kept"), ("tim, all", "stateless"), ("bob", "kept")):
            await made.call(name, model)
        await made.call("tim, all", "stateless", fails=True)
        await made.counted(5)
        yield made


def used(calls: int, errors: int = 0, **group: str) -> dict[str, Any]:
    """Returns a row."""
    good = calls - errors
    tokens = {"prompt_tokens": 3 * good, "completion_tokens": 2 * good}
    return group | ZERO | {"calls": calls, "attempts": calls, "errors": errors} | tokens


async def test_own_usage(callers: Callers) -> None:
    """A key reads its own usage, by day and model, also failed calls, and its sum."""
    rows = [used(1, day=iso(DAY), model="kept"), used(2, 1, day=iso(DAY), model="stateless"), used(3, 1)]
    assert rows == await callers.report("tim, all", **PERIOD)
    assert [used(1, day=iso(DAY), model="kept"), used(1)] == await callers.report("bob", **PERIOD)


async def test_usage_of_the_account(callers: Callers) -> None:
    """A key reads the usage of its account by key, never that of another account."""
    rows = await callers.report("tim, all", account=True, by=["key"], **PERIOD)
    assert sorted([1, 3]) == sorted(row["calls"] for row in rows[:-1])
    assert used(4, 1) == rows[-1]
    assert all(row["key"].startswith("key_") for row in rows[:-1])


async def test_a_restricted_key_reads_the_usage_of_its_models(callers: Callers) -> None:
    """A key that may use one model reads that model's usage of the account."""
    assert [used(2, model="kept"), used(2)] == await callers.report("tim", account=True, by=["model"], **PERIOD)


async def test_a_period_without_usage(callers: Callers) -> None:
    """Days without usage have no rows and a sum of zeros; by default a report is about the last 30 days."""
    assert [used(0)] == await callers.report("bob", until=iso(DAY - 1), since=iso(DAY - 9))
    assert [used(0)] == await callers.report("bob")
    assert [used(1, model="kept"), used(1)] == await callers.report("bob", by=["model"], since=iso(DAY))


async def test_a_wrong_value(callers: Callers) -> None:
    """A wrong value is named."""
    for request, message in (
        ({"since": "yesterday"}, "`since` must be a date as YYYY-MM-DD"),
        ({"until": "2026-02-30"}, "`until` must be a date as YYYY-MM-DD"),
        ({"until": "2026-W01-1"}, "`until` must be a date as YYYY-MM-DD"),
        ({"by": ["target"]}, "`by` must consist of `day`, `model`, `key`"),
        ({"by": ["day; DROP TABLE usage"]}, "`by` must consist of `day`, `model`, `key`"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as rejected:
            await callers.report("bob", **request)
        assert (grpc.StatusCode.INVALID_ARGUMENT, message) == (rejected.value.code(), rejected.value.details())


async def test_too_many_rows(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that is too large for one message is rejected, and one of the largest size is not."""
    monkeypatch.setattr(usage, "_MAX_ROWS", 2)
    assert 3 == len(await callers.report("tim, all", **PERIOD))
    monkeypatch.setattr(usage, "_MAX_ROWS", 1)
    with pytest.raises(grpc.aio.AioRpcError, match="more than 1 rows: choose fewer days"):
        await callers.report("tim, all", **PERIOD)


async def test_every_scope(callers: Callers) -> None:
    """A key of any scope reads usage."""
    _, callers.secrets["reader"] = await create_key(callers.worker.store, "r", "bob", scopes=("sessions:read",))
    assert [used(1, model="kept"), used(1)] == await callers.report("reader", account=True, by=["model"], **PERIOD)


async def test_without_a_key(callers: Callers) -> None:
    """A report needs a valid key."""
    callers.secrets["bob"] = "sk-wrong"
    with pytest.raises(grpc.aio.AioRpcError) as rejected:
        await callers.report("bob")
    assert grpc.StatusCode.UNAUTHENTICATED == rejected.value.code()


async def test_usage_for_administrators(callers: Callers) -> None:
    """Administrators read the usage of all accounts, by any dimension."""
    answer = await callers.query(by=["account", "target"], models=["kept", "stateless"])
    assert [("bob", "scripted/upstream", 1), ("tim", "scripted", 2), ("tim", "scripted/upstream", 2)] == [
        (row.account, row.target, row.calls) for row in answer.rows
    ]
    assert (5, 12) == (answer.total.calls, answer.total.prompt_tokens)
    one = await callers.query(account="bob")
    assert [("bob", "kept")] == [(row.account, row.model) for row in one.rows]
