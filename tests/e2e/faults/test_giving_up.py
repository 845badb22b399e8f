"""Cancelled calls and deadlines: no connection stays open, and no further target is called."""

import select
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.e2e.faults import calling
from tests.e2e.faults.calling import GRPC
from tests.e2e.faults.scripts import HALF, SILENT, TEXT, break_off, late, reject
from tests.e2e.faults.targets import Targets
from tests.processes import PATIENCE, until
from tests.upstream import Cut, Gate, Stall

WITHIN = 1.0
"""The maximum time in seconds until a disconnection reaches the upstream."""

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "unary"])
CODES = grpc.StatusCode


@both_ways
def test_a_deadline_ends_a_call_that_hangs(targets: Targets, is_stream: bool) -> None:
    """At the deadline the upstream connection is closed, and no other target is called."""
    targets.set_script("patient/one", SILENT)
    started = time.monotonic()
    outcome = targets.call("patient", GRPC, is_stream=is_stream, deadline=1.0)
    assert CODES.DEADLINE_EXCEEDED == outcome.status
    assert time.monotonic() - started >= 0.95
    assert targets.seen("patient/one")[0].closed.wait(WITHIN)
    assert "deadline" == targets.latest_turn("patient")["reason"]
    assert [] == targets.seen("patient/two")


@both_ways
def test_a_deadline_includes_all_targets(targets: Targets, is_stream: bool) -> None:
    """The first target times out, and the caller's deadline ends the attempt at the next one."""
    targets.set_script("hasty/one", SILENT)
    targets.set_script("calmer/one", SILENT)
    outcome = targets.call("hasty", GRPC, is_stream=is_stream, deadline=1.5)
    assert CODES.DEADLINE_EXCEEDED == outcome.status
    assert [True, True] == [targets.seen(f"{name}/one", 1)[0].closed.wait(WITHIN) for name in ("hasty", "calmer")]
    turn = targets.latest_turn("hasty")
    assert "deadline" == turn["reason"]
    first, second = turn["receipt"]["attempts"]
    assert "UPSTREAM_TIMEOUT" == first["reason"]
    assert second["outcome"] == "cancelled" or second["reason"] == "DEADLINE_EXCEEDED"


@both_ways
def test_a_long_deadline_lets_the_next_target_answer(targets: Targets, is_stream: bool) -> None:
    """The model's timeouts limit the first target, and the next one answers before the deadline."""
    targets.set_script("hasty/one", SILENT)
    assert TEXT == targets.call("hasty", GRPC, is_stream=is_stream, deadline=30).texts[0]


@both_ways
def test_a_disconnected_call_is_not_retried(targets: Targets, is_stream: bool) -> None:
    """A client that disconnects during the delay before a retry ends the call."""
    targets.set_script("patient/one", reject(429, Retry_After="2"))
    connection = targets.open("patient", is_stream=is_stream)
    targets.seen("patient/one", 1)
    connection.close()
    assert "cancelled" == targets.latest_turn("patient")["reason"]
    assert 1 == len(targets.seen("patient/one"))
    assert [] == targets.seen("patient/two")


@both_ways
def test_a_disconnected_rest_call_closes_the_upstream_connection(targets: Targets, is_stream: bool) -> None:
    """The connection to the second target, after the first has failed, is closed within a second."""
    targets.set_script("misled/one", reject(401))
    targets.set_script("misled/two", SILENT)
    connection = targets.open("misled", is_stream=is_stream)
    [request] = targets.seen("misled/two", 1)
    connection.close()
    assert request.closed.wait(WITHIN)
    assert "cancelled" == targets.latest_turn("misled")["reason"]


@both_ways
def test_a_cancelled_grpc_call_closes_the_upstream_connection(targets: Targets, is_stream: bool) -> None:
    """The connection to the second target is closed within a second."""
    targets.set_script("misled/one", reject(401))
    targets.set_script("misled/two", SILENT)
    with grpc.insecure_channel(targets.parley.grpc) as channel:
        call = _begin(targets, channel, "misled", is_stream=is_stream)
        [request] = targets.seen("misled/two", 1)
        call.cancel()
        assert request.closed.wait(WITHIN)


def test_a_disconnected_hedged_call_closes_both_connections(targets: Targets) -> None:
    """The connections to both targets of a hedged call are closed."""
    targets.set_script("hedged/one", SILENT)
    targets.set_script("hedged/two", SILENT)
    connection = targets.open("hedged")
    requests = [targets.seen(f"hedged/{name}", 1)[0] for name in ("one", "two")]
    connection.close()
    assert [True, True] == [request.closed.wait(WITHIN) for request in requests]


def test_a_disconnected_continued_stream_closes_its_connection(targets: Targets) -> None:
    """The connection of a continuation is closed, and the delivered text is stored."""
    targets.set_script("patient/one", break_off(Cut()))
    targets.set_script("patient/two", break_off(Stall(), text=" t41 t42"))
    connection = targets.open("patient")
    received = b""
    while b"t42" not in received:
        received += connection.recv(65536)
    [request] = targets.seen("patient/two", 1)
    connection.close()
    assert request.closed.wait(WITHIN)
    turn = targets.latest_turn("patient")
    assert ("cancelled", f"{HALF} t41 t42") == (turn["reason"], turn["message"]["content"])


@both_ways
def test_a_disconnected_call_releases_its_slot(targets: Targets, is_stream: bool) -> None:
    """A disconnected call releases its slot or its place in the queue, and the next calls are answered."""
    gate = Gate()
    targets.set_script("queued/one", late(gate))
    first = targets.open("queued", is_stream=is_stream)
    targets.seen("queued/one", 1)
    others = [targets.open("queued", is_stream=is_stream) for _ in range(2)]  # one waits, and the other is refused
    refused = select.select(others, [], [], PATIENCE)[0][0]
    assert refused.recv(65536).startswith(b"HTTP/1.1 429")
    for connection in (*others, first):
        connection.close()
    gate.set()
    for _ in range(2):
        until(lambda: TEXT == targets.call("queued", GRPC, is_stream=is_stream).texts.get(0), "a slot is free")
    with ThreadPoolExecutor(2) as pool:  # one call has the slot and the other one waits: both are available again
        calls = [pool.submit(targets.call, "queued", GRPC, is_stream=is_stream) for _ in range(2)]
        assert [TEXT, TEXT] == [call.result().texts[0] for call in calls]


def test_a_hundred_abandoned_streams_leave_no_connection(targets: Targets) -> None:
    """Each upstream connection is closed within a second, before the first token and after it."""
    for number in range(100):
        targets.set_script("left/one", break_off(Stall()) if number % 2 else SILENT)
        connection = targets.open("left")
        request = targets.seen("left/one", number + 1)[number]
        while number % 2 and b"t40" not in connection.recv(65536):
            pass
        connection.close()
        assert request.closed.wait(WITHIN), number


def _begin(targets: Targets, channel: grpc.Channel, model: str, *, is_stream: bool) -> Any:
    body = calling.body(model, is_stream=False)
    stub: Any = ChatCompletionsStub(channel)
    method = stub.StreamChatCompletion if is_stream else stub.CreateChatCompletion.future
    metadata = (("authorization", f"Bearer {targets.parley.key}"),)
    return method(ParseDict(body, CreateChatCompletionRequest()), metadata=metadata)
