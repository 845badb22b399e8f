"""Administration of the running service: one worker answers for all workers of its Parley."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.core.errors import UpstreamUnavailable
from parley.core.routing.call_origin import PLAIN_ORIGIN
from parley.core.routing.failure_policy import HealthEffect
from parley.core.routing.target_breakers import Permit
from parley.logs.recent import RecentLines
from parley.rpc.admin import AdminSockets, admin_servers
from parley.rpc.call import Call
from parley.rpc.liveness import Liveness
from parley.rpc.operations import Operations
from parley.rpc.overrides import OverridesFile
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.keys import rules
from tests.rpc.calling import chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import chunks
from tests.rpc.test_admin import ACCESS, Admin, administering


@asynccontextmanager
async def _worker(
    folder: Path, number: int, levels: list[str], recent: RecentLines | None = None
) -> AsyncIterator[tuple[Worker, Admin]]:
    """Runs a worker with its admin socket in the folder."""
    running: set[Call] = set()
    (folder / f"store-{number}").mkdir()
    async with serving(folder / f"store-{number}", running=running) as worker:
        socket = folder / f"worker-{number}-admin.sock"
        overrides = OverridesFile(folder / "overrides.json")
        operations = Operations(worker.router, overrides, "info", levels.append, running, recent=recent)
        async with (
            admin_servers(
                AdminSockets(socket), worker.store, rules(["m"]), ACCESS, operations, liveness=Liveness(lambda: None)
            ),
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            yield worker, Admin(channel, worker.store)


@asynccontextmanager
async def _two_workers(folder: Path) -> AsyncIterator[list[tuple[Worker, Admin]]]:
    """Runs two workers, beside the socket of one that was killed."""
    (folder / "worker-9-admin.sock").touch()
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(_worker(folder, number, [])) for number in (1, 2)]


@asynccontextmanager
async def _stream(worker: Worker, request_id: str) -> AsyncIterator[Any]:
    """Streams an answer that stops after its first chunks. Yields the call, which has them."""
    gate = asyncio.Event()
    worker.backend.answer = lambda _: [*chunks("Hello, how are you")[:-1], gate]
    metadata = (("authorization", f"Bearer {worker.keys['ada']}"), ("x-request-id", request_id))
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub: Any = ChatCompletionsStub(channel)
        call = stub.StreamChatCompletion(chat_request(), metadata=metadata)
        while not (await call.read()).choices[0].delta.content:
            pass
        yield call
        gate.set()


async def test_one_worker_lists_the_calls_of_all(tmp_path: Path) -> None:
    """A call has its ids, its model, target and session, its age and its tokens so far, whichever worker runs it."""
    async with _two_workers(tmp_path) as workers, _stream(workers[0][0], "one"), _stream(workers[1][0], "two"):
        for _, admin in workers:
            answer = await admin.call("ListCalls")
            assert "unreachable_workers" not in answer
            one, two = answer["calls"]
            assert ("one", "worker-1", "two", "worker-2") == (
                *(one["request_id"], one["worker"]),
                *(two["request_id"], two["worker"]),
            )
            assert ("ada", "kept", "scripted/upstream") == (one["account"], one["model"], one["target"])
            assert ("StreamChatCompletion", True, True) == (one["method"], one["age"] > 0, "session_id" in one)
            assert one["tokens"] >= 4
        assert "calls" not in await admin.call("ListCalls", account="bob")
        assert 2 == len((await admin.call("ListCalls", account="ada", model="kept"))["calls"])
        assert "calls" not in await admin.call("ListCalls", model="other")
        [target] = [t for t in (await admin.call("ListTargets"))["targets"] if t["name"] == "scripted/upstream"]
        assert (2, 2, "BREAKER_STATE_CLOSED", ["kept"]) == (
            *(target["calls"], target["workers"]),
            *(target["breaker"], target["models"]),
        )


async def test_a_call_is_cancelled_at_the_worker_that_runs_it(tmp_path: Path) -> None:
    """The caller gets the reason, the upstream connection is closed, and the audit log has one event."""
    async with _two_workers(tmp_path) as [(_, admin), (other, _)], _stream(other, "two") as call:
        assert "calls" not in await admin.call("CancelCall", request_id="one")
        answer = await admin.call("CancelCall", request_id="two")
        assert ["worker-2"] == [cancelled["worker"] for cancelled in answer["calls"]]
        assert (grpc.StatusCode.PERMISSION_DENIED, "An administrator of this service has cancelled the call") == (
            await call.code(),
            await call.details(),
        )
        await asyncio.wait_for(other.backend.closed.wait(), 10)
        [event] = (await admin.call("ListAuditEvents", subject="call:two"))["events"]
        assert "CancelCall" == event["method"]
        assert "calls" not in await admin.call("ListCalls")


async def test_the_worst_breaker_of_all_workers_is_shown(tmp_path: Path) -> None:
    """A breaker that is open in one worker is shown as open, with its cause and the delay until its probe."""
    async with _two_workers(tmp_path) as [(_, admin), (other, _)]:
        target = next(one for one in other.router.targets if one.name == "scripted/upstream")
        for _ in range(5):
            permit = target.breakers.try_acquire_permit(PLAIN_ORIGIN) or Permit(0)
            target.breakers.record_failure(PLAIN_ORIGIN, permit, HealthEffect.FAILURE, UpstreamUnavailable)
        [shown] = [t for t in (await admin.call("ListTargets"))["targets"] if t["name"] == "scripted/upstream"]
        assert ("BREAKER_STATE_OPEN", 1, 2, "UPSTREAM_UNAVAILABLE", True) == (
            *(shown["breaker"], shown["workers_open"], shown["workers"]),
            *(shown["cause"], 0 < shown["admits_in"] <= 10),
        )


async def test_the_keys_that_a_worker_leaves_out_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a backend with several keys, the most that one worker leaves out are shown."""
    async with _two_workers(tmp_path) as [(one, admin), (other, _)]:
        for worker, counts in ((one, (3, 0)), (other, (1, 2))):
            monkeypatch.setattr(worker.backend, "key_counts", counts, raising=False)
        [shown] = [t for t in (await admin.call("ListTargets"))["targets"] if t["name"] == "scripted/upstream"]
        assert (3, 2) == (shown["keys"], shown["keys_left_out"])


async def test_an_outage_of_the_store_does_not_keep_an_operator_from_acting(tmp_path: Path) -> None:
    """Without the store, calls are listed and cancelled."""
    async with _two_workers(tmp_path) as [(worker, admin), _], _stream(worker, "one"):
        await worker.store.close()
        assert 1 == len((await admin.call("CancelCall", request_id="one"))["calls"])


async def _shown(admin: Admin) -> dict[str, Any]:
    """Returns the target `scripted` as an administrator sees it."""
    [shown] = [t for t in (await admin.call("ListTargets"))["targets"] if t["name"] == "scripted"]
    found: dict[str, Any] = shown
    return found


async def _answer(worker: Worker) -> grpc.StatusCode:
    """Returns the status of a call that only the target `scripted` may answer."""
    metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub: Any = ChatCompletionsStub(channel)
        call = stub.CreateChatCompletion(chat_request(model="stateless"), metadata=metadata)
        code: grpc.StatusCode = await call.code()
        return code


async def test_an_opened_target_gets_no_call_until_it_is_closed(tmp_path: Path) -> None:
    """It is open in all workers as soon as the call returns, whatever succeeds meanwhile, and in later workers."""
    ok, unavailable = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
    async with _two_workers(tmp_path) as [(one, admin), (two, other)]:
        opened = await other.call("OpenTarget", name="scripted")
        assert ("BREAKER_STATE_OPEN", True, 2) == (opened["breaker"], opened["opened"], opened["workers_open"])
        assert [unavailable] * 2 == [await _answer(one), await _answer(two)]
        for worker in (one, two):
            next(t for t in worker.router.targets if t.name == "scripted").breakers.reset()  # as after a recovery
        assert [unavailable] * 2 == [await _answer(one), await _answer(two)]
        async with _worker(tmp_path, 3, []) as (later, _):
            assert unavailable == await _answer(later)
        closed = await admin.call("CloseTarget", name="scripted")
        assert ("BREAKER_STATE_CLOSED", False) == (closed["breaker"], closed.get("opened", False))
        assert [ok] * 2 == [await _answer(one), await _answer(two)]


async def test_closing_a_target_resets_the_breakers_that_failures_have_opened(tmp_path: Path) -> None:
    """The breakers of all workers close, those of single callers included, and a hold ends; a later failure counts."""
    async with _two_workers(tmp_path) as [(_, admin), (two, _)]:
        breakers = next(t for t in two.router.targets if t.name == "scripted").breakers
        for effect in (HealthEffect.FAILURE, HealthEffect.SUSPECT):
            for _ in range(5):
                permit = breakers.try_acquire_permit(PLAIN_ORIGIN) or Permit(1)
                breakers.record_failure(PLAIN_ORIGIN, permit, effect, UpstreamUnavailable)
        breakers.hold(PLAIN_ORIGIN, 60, UpstreamUnavailable)
        before = await _shown(admin)
        assert ("BREAKER_STATE_OPEN", True) == (before["breaker"], before["admits_in"] > 30)
        closed = await admin.call("CloseTarget", name="scripted")
        assert ("BREAKER_STATE_CLOSED", None, None) == (
            *(closed["breaker"], closed.get("admits_in")),
            closed.get("callers_open"),
        )
        assert breakers.admits(PLAIN_ORIGIN)


async def test_a_weight_holds_until_it_is_cleared(tmp_path: Path) -> None:
    """A weight holds in all workers and in a later one; without it the configured one holds again."""
    async with _two_workers(tmp_path) as [(one, admin), (two, _)]:

        def weights() -> list[float]:
            return [worker.router.candidates("stateless")[0].weight for worker in (one, two)]

        assert 0.25 == (await admin.call("SetTargetWeight", name="scripted", weight=0.25))["weight_override"]
        assert [0.25, 0.25] == weights()
        async with _worker(tmp_path, 3, []) as (later, _):
            assert 0.25 == later.router.candidates("stateless")[0].weight
        assert "weight_override" not in await admin.call("SetTargetWeight", name="scripted")
        assert [1.0, 1.0] == weights()
        text = '`name`: no target is named "nothing"; use one of: scripted/upstream, scripted'
        assert ("INVALID_REQUEST", text) == await admin.fail("OpenTarget", name="nothing")
        text = "`weight` must be between 0 and 1,000,000"
        for weight in (-1, "NaN", "Infinity"):
            assert ("INVALID_REQUEST", text) == await admin.fail("SetTargetWeight", name="scripted", weight=weight)


async def test_a_log_level_holds_in_all_workers_until_its_time(tmp_path: Path) -> None:
    """The level is set in all workers, also later ones; after its time the level of the start holds again."""
    one: list[str] = []
    two: list[str] = []
    later: list[str] = []
    async with _worker(tmp_path, 1, one) as (_, admin), _worker(tmp_path, 2, two):
        assert {"level": "info", "configured": "info"} == await admin.call("GetLogLevel")
        end = int(time.time()) + 3600
        expected = {"level": "debug", "configured": "info", "until": end}
        assert expected == await admin.call("SetLogLevel", level="debug", until=end)
        assert (["debug"], ["debug"]) == (one, two)
        async with _worker(tmp_path, 3, later) as (_, third):
            assert (["debug"], expected) == (later, await third.call("GetLogLevel"))
        await admin.call("SetLogLevel", level="error", until=int(time.time()) - 1)
        assert (["debug", "info"], ["debug", "info"]) == (one, two)
        text = "`level` must be one of: debug, info, warning, error"
        assert ("INVALID_REQUEST", text) == await admin.fail("SetLogLevel", level="loud")


async def test_one_worker_lists_the_log_lines_of_all(tmp_path: Path) -> None:
    """The lines of a request, or of all, come from every worker, the latest first, and are bounded in number."""
    one, two = RecentLines(), RecentLines()
    for number in range(150):
        for recent, name in ((one, b"one"), (two, b"two")):
            recent.append(b'{"request_id":"%b-%d","timestamp":"2026-11-26T14:00:%06dZ"}\n' % (name, number, number))
    async with _worker(tmp_path, 1, [], one) as (_, admin), _worker(tmp_path, 2, [], two):
        [line] = (await admin.call("ListCallLogLines", request_id="two-7"))["lines"]
        assert {
            "request_id": "two-7",
            "time": "2026-11-26T14:00:000007Z",
            "line": '{"request_id":"two-7","timestamp":"2026-11-26T14:00:000007Z"}',
            "worker": "worker-2",
        } == line
        lines = (await admin.call("ListCallLogLines", max_lines=4))["lines"]
        assert ["one-149", "two-149", "one-148", "two-148"] == [line["request_id"] for line in lines]
        assert (100, 200) == (
            len((await admin.call("ListCallLogLines"))["lines"]),
            len((await admin.call("ListCallLogLines", max_lines=1_000))["lines"]),
        )
        assert {} == await admin.call("ListCallLogLines", request_id="three")


async def test_the_last_reload_is_shown(tmp_path: Path) -> None:
    """The outcome of the last reload is read where there can be one; `parley serve` says that there is none."""
    async with _worker(tmp_path, 1, []) as (_, admin):
        text = "`parley serve` does not read its configuration again; restart it"
        assert ("INVALID_REQUEST", text) == await admin.fail("GetLastReload")
    async with administering(tmp_path) as admin:
        expected = {"time": 1_700_000_000, "changes": ["model b added"]}
        assert expected == await admin.call("GetLastReload")
