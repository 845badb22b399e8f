"""Callers that leave and deadlines that pass: no connection stays open, and nobody else is asked."""

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
from tests.e2e.faults.misbehaving import HALF, SILENT, TEXT, breaks, late, refusal
from tests.e2e.faults.targets import Targets
from tests.processes import until
from tests.upstream import Cut, Gate, Stall

WITHIN = 1.0
"""Seconds within which a caller's leaving reaches the upstream."""

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
CODES = grpc.StatusCode


@both_ways
def test_a_deadline_ends_a_call_that_hangs(targets: Targets, is_stream: bool) -> None:
    """At about its time; the socket to the upstream is closed, and nobody else is asked."""
    targets.does("patient/one", SILENT)
    started = time.monotonic()
    outcome = targets.call("patient", GRPC, is_stream=is_stream, deadline=1.0)
    assert CODES.DEADLINE_EXCEEDED == outcome.status
    assert time.monotonic() - started >= 0.95
    assert targets.seen("patient/one")[0].closed.wait(WITHIN)
    assert "deadline" == targets.latest_turn("patient")["reason"]
    assert [] == targets.seen("patient/two")


@both_ways
def test_a_deadline_leaves_the_next_target_what_is_left_of_it(targets: Targets, is_stream: bool) -> None:
    """The first target has its own bound, the next one far more time: it is the caller's that ends it."""
    targets.does("hasty/one", SILENT)
    targets.does("calmer/one", SILENT)
    outcome = targets.call("hasty", GRPC, is_stream=is_stream, deadline=1.5)
    assert CODES.DEADLINE_EXCEEDED == outcome.status
    assert [True, True] == [targets.seen(f"{name}/one", 1)[0].closed.wait(WITHIN) for name in ("hasty", "calmer")]
    turn = targets.latest_turn("hasty")
    assert "deadline" == turn["reason"]
    first, second = turn["receipt"]["attempts"]
    assert "UPSTREAM_TIMEOUT" == first["reason"]
    assert second["outcome"] == "cancelled" or second["reason"] == "DEADLINE_EXCEEDED"


@both_ways
def test_a_deadline_that_is_long_enough_lets_the_next_target_answer(targets: Targets, is_stream: bool) -> None:
    """The first target's time is bounded by the model's own timeouts."""
    targets.does("hasty/one", SILENT)
    assert TEXT == targets.call("hasty", GRPC, is_stream=is_stream, deadline=30).texts[0]


@both_ways
def test_nobody_is_asked_for_a_caller_who_has_left(targets: Targets, is_stream: bool) -> None:
    """Who hangs up in a pause between two attempts ends the call."""
    targets.does("patient/one", refusal(429, Retry_After="2"))
    connection = targets.open("patient", is_stream=is_stream)
    targets.seen("patient/one", 1)
    connection.close()
    assert "cancelled" == targets.latest_turn("patient")["reason"]
    assert 1 == len(targets.seen("patient/one"))
    assert [] == targets.seen("patient/two")


@both_ways
def test_a_caller_who_leaves_frees_the_upstream_over_rest(targets: Targets, is_stream: bool) -> None:
    """The socket to the target that is being asked, after another has failed, is closed within a second."""
    targets.does("misled/one", refusal(401))
    targets.does("misled/two", SILENT)
    connection = targets.open("misled", is_stream=is_stream)
    [request] = targets.seen("misled/two", 1)
    connection.close()
    assert request.closed.wait(WITHIN)
    assert "cancelled" == targets.latest_turn("misled")["reason"]


@both_ways
def test_a_caller_who_cancels_frees_the_upstream_over_grpc(targets: Targets, is_stream: bool) -> None:
    """In the same way."""
    targets.does("misled/one", refusal(401))
    targets.does("misled/two", SILENT)
    with grpc.insecure_channel(targets.parley.grpc) as channel:
        call = _begin(targets, channel, "misled", is_stream=is_stream)
        [request] = targets.seen("misled/two", 1)
        call.cancel()
        assert request.closed.wait(WITHIN)


def test_a_caller_who_leaves_a_hedged_call_frees_both(targets: Targets) -> None:
    """Two are asked, and both sockets are closed."""
    targets.does("hedged/one", SILENT)
    targets.does("hedged/two", SILENT)
    connection = targets.open("hedged")
    asked = [targets.seen(f"hedged/{name}", 1)[0] for name in ("one", "two")]
    connection.close()
    assert [True, True] == [request.closed.wait(WITHIN) for request in asked]


def test_a_caller_who_leaves_a_continued_stream_frees_who_continues(targets: Targets) -> None:
    """And what was delivered stays as it was."""
    targets.does("patient/one", breaks(Cut()))
    targets.does("patient/two", breaks(Stall(), text=" t41 t42"))
    connection = targets.open("patient")
    said = b""
    while b"t42" not in said:
        said += connection.recv(65536)
    [request] = targets.seen("patient/two", 1)
    connection.close()
    assert request.closed.wait(WITHIN)
    turn = targets.latest_turn("patient")
    assert ("cancelled", f"{HALF} t41 t42") == (turn["reason"], turn["message"]["content"])


@both_ways
def test_a_caller_who_leaves_gives_its_place_back(targets: Targets, is_stream: bool) -> None:
    """Whether it has the place, or waits for one: the next caller is answered."""
    gate = Gate()
    targets.does("queued/one", late(gate))
    first = targets.open("queued", is_stream=is_stream)
    targets.seen("queued/one", 1)
    second = targets.open("queued", is_stream=is_stream)
    until(lambda: "UPSTREAM_RATE_LIMITED" == targets.call("queued", GRPC, deadline=1.0).reason, "the second waits")
    second.close()
    first.close()
    gate.set()
    for _ in range(2):
        until(lambda: TEXT == targets.call("queued", GRPC, is_stream=is_stream).texts.get(0), "a place is free")
    with ThreadPoolExecutor(2) as pool:  # one has the place, the other one waits: both places are there again
        calls = [pool.submit(targets.call, "queued", GRPC, is_stream=is_stream) for _ in range(2)]
        assert [TEXT, TEXT] == [call.result().texts[0] for call in calls]


def test_a_hundred_streams_that_are_left_leave_no_connection(targets: Targets) -> None:
    """Through the edge, each upstream socket is closed within a second, before the first token and after it."""
    for place in range(100):
        targets.does("left/one", breaks(Stall()) if place % 2 else SILENT)
        connection = targets.open("left")
        request = targets.seen("left/one", place + 1)[place]
        while place % 2 and b"t40" not in connection.recv(65536):
            pass
        connection.close()
        assert request.closed.wait(WITHIN), place


def _begin(targets: Targets, channel: grpc.Channel, model: str, *, is_stream: bool) -> Any:
    asked = calling.body(model, is_stream=False)
    stub: Any = ChatCompletionsStub(channel)
    method = stub.StreamChatCompletion if is_stream else stub.CreateChatCompletion.future
    metadata = (("authorization", f"Bearer {targets.parley.key}"),)
    return method(ParseDict(asked, CreateChatCompletionRequest()), metadata=metadata)
