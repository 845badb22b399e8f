"""Receipts over gRPC: in the trailing metadata, in the log line and in the session."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.core.errors import ContextLengthExceeded, StreamBroken, UpstreamTimeout
from parley.core.ports import UpstreamCall
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.calling import Log, chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import chunks, completion

MOST = 32
BACKUPS = [f"backup-{number}-{'x' * 60}" for number in range(MOST)]
CONFIG = json.dumps(
    {
        "backends": {"scripted": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
        "models": [
            {"id": "m", "targets": [{"backend": "scripted", "model": "one"}], "fallbacks": ["backup"]},
            {"id": "unstored", "targets": [{"backend": "scripted", "model": "two"}], "sessions": "off"},
            {"id": "backup", "targets": [{"backend": "scripted", "model": "two"}]},
            {
                "id": "stubborn",
                "targets": [{"backend": "scripted", "model": "one"}],
                "fallbacks": BACKUPS,
                "retries": {"attempts": MOST},
            },
            *({"id": name, "targets": [{"backend": "scripted", "model": name}]} for name in BACKUPS),
        ],
        "prices": {"scripted/two": {"prompt": 10, "completion": 40}},
        "limits": {kind: {"requests_per_minute": 10**6, "tokens_per_minute": 10**9} for kind in ("key", "account")},
    }
)
COST = (3 * 10 + 2 * 40) / 1e6
SLOW = UpstreamTimeout("The model is slow", cause="10.0.0.5 sent nothing")


class Caller:
    """A caller of a server of the test."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel) -> None:
        self.backend = worker.backend
        self._key = ("authorization", f"Bearer {worker.keys['ada']}")
        self._chat: Any = ChatCompletionsStub(channel)
        self._sessions: Any = SessionsStub(channel)

    async def call(self, method: str, *more: tuple[str, str], model: str = "m") -> tuple[dict[str, Any], str]:
        """Calls a method to its end; returns its trailing metadata and the session id, if any."""
        call = getattr(self._chat, method)(chat_request(model=model), metadata=(self._key, *more))
        try:
            if method == "CreateChatCompletion":
                await call
            else:
                [_ async for _ in call]
        except grpc.aio.AioRpcError as error:
            return dict(error.trailing_metadata()), ""
        return dict(await call.trailing_metadata()), dict(await call.initial_metadata()).get("x-chat-session-id", "")

    async def kept(self, session: str) -> list[messages.SessionMessage]:
        """Reads a session."""
        request = messages.ListSessionMessagesRequest(session_id=session)
        listed: messages.ListSessionMessagesResponse = await self._sessions.ListSessionMessages(
            request, metadata=(self._key,)
        )
        return list(listed.messages)


@pytest.fixture
async def caller(tmp_path: Path, log_file: Path) -> AsyncIterator[Caller]:
    """A caller of a server whose model has a fallback with a price."""
    async with (
        serving(tmp_path, CONFIG) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        yield Caller(worker, channel)


def read(trailing: dict[str, Any]) -> Receipt:
    """Decodes the receipt as callers do."""
    return Receipt.FromString(trailing["parley-receipt-bin"])


def second_answers(call: UpstreamCall, answer: Any) -> Any:
    """The first target times out, the second one answers."""
    return SLOW if call.model == "one" else answer


METHODS = pytest.mark.parametrize(
    "method", ["CreateChatCompletion", "StreamChatCompletion", "StreamChatCompletionEvents"]
)


@METHODS
async def test_the_receipt_of_a_fallback(caller: Caller, log: Log, method: str) -> None:
    """The metadata, the session and the log have the attempts, their cost and their duration."""
    answer = completion("Hi") if method == "CreateChatCompletion" else chunks("Hi")
    caller.backend.answer = lambda call: second_answers(call, answer)
    trailing, session = await caller.call(method, ("x-request-id", f"r-{method}"))
    receipt = read(trailing)
    expected = [("m", "one", "first", "failed"), ("backup", "two", "fallback", "completed")]
    assert expected == [(one.model, one.target_model, one.kind, one.outcome) for one in receipt.attempts]
    assert (COST, 5) == (receipt.cost, receipt.usage.total_tokens)
    assert "10.0.0.5" not in str(receipt)
    assert [None, receipt] == [one.receipt if one.HasField("receipt") else None for one in await caller.kept(session)]
    [line] = await asyncio.to_thread(log, f"r-{method}", 1)
    assert ("scripted/two", COST, 2) == (line["target"], line["cost"], line["attempts"])
    assert receipt.duration_ms == line["upstream_ms"]
    [tried] = line["tried"]
    assert ("scripted/one", "UPSTREAM_TIMEOUT") == (tried["target"], tried["reason"])
    assert "10.0.0.5 sent nothing" == tried["cause"]


@METHODS
async def test_a_first_attempt_that_answers_has_a_short_line(caller: Caller, log: Log, method: str) -> None:
    """If the first attempt answers, the log line has only its target; the ids are in the metadata."""
    caller.backend.answer = lambda _: completion("Hi") if method == "CreateChatCompletion" else chunks("Hi")
    trailing, _ = await caller.call(method, ("x-request-id", f"p-{method}"))
    assert (f"p-{method}", 1) == (trailing["x-request-id"], len(read(trailing).attempts))
    [line] = await asyncio.to_thread(log, f"p-{method}", 1)
    assert "scripted/one" == line["target"]
    assert not {"attempts", "tried", "cost"} & line.keys()


@METHODS
async def test_the_receipt_of_a_failed_call(caller: Caller, log: Log, method: str) -> None:
    """A failed call has its receipt beside its error, and every attempt in its log line."""
    caller.backend.answer = lambda _: SLOW
    trailing, _ = await caller.call(method, ("x-request-id", f"n-{method}"))
    assert "UPSTREAM_TIMEOUT" == trailing["parley-error-reason"]
    assert ["UPSTREAM_TIMEOUT"] * 2 == [one.reason for one in read(trailing).attempts]
    [line] = await asyncio.to_thread(log, f"n-{method}", 1)
    assert ("target" in line, 2, 2) == (False, line["attempts"], len(line["tried"]))


async def test_the_line_of_a_failed_stream_has_its_tokens(caller: Caller, log: Log) -> None:
    """The text that was delivered before the failure has cost something: the line has the tokens and their cost."""
    caller.backend.answer = lambda _: [chunks("Hello")[0], StreamBroken("it broke")]
    trailing, _ = await caller.call("StreamChatCompletion", ("x-request-id", "broken"), model="unstored")
    used = read(trailing).usage
    assert used.completion_tokens
    [line] = await asyncio.to_thread(log, "broken", 1)
    assert (used.prompt_tokens, used.completion_tokens) == (line["prompt_tokens"], line["completion_tokens"])
    assert line["cost"] == pytest.approx((used.prompt_tokens * 10 + used.completion_tokens * 40) / 1e6)


@METHODS
@pytest.mark.parametrize("fails", [False, True])
async def test_a_receipt_is_readable_on_request(caller: Caller, method: str, fails: bool) -> None:
    """With `parley-receipt: json` the receipt is JSON in ASCII instead of bytes, in answers and in failures."""
    answer = completion("Hi") if method == "CreateChatCompletion" else chunks("Hi")
    caller.backend.answer = lambda call: second_answers(call, SLOW if fails else answer)
    trailing, _ = await caller.call(method, ("parley-receipt", "json"))
    assert "parley-receipt-bin" not in trailing
    receipt = ParseDict(json.loads(trailing["parley-receipt"]), Receipt())
    assert ["failed", "failed" if fails else "completed"] == [one.outcome for one in receipt.attempts]
    assert [not fails, not fails] == [receipt.HasField("usage"), receipt.HasField("cost")]


@pytest.mark.parametrize("method", ["CreateChatCompletion", "StreamChatCompletionEvents"])
async def test_a_call_of_rest_has_no_ids_and_receipt(caller: Caller, log: Log, method: str) -> None:
    """The edge has the ids, and would not pass the receipt on; the log line is like any other."""
    caller.backend.answer = lambda call: second_answers(call, completion("Hi") if "Create" in method else chunks("Hi"))
    rest = (("x-request-id", f"rest-{method}"), ("parley-dialect", "openai"))
    trailing, _ = await caller.call(method, *rest)
    assert not trailing
    [line] = await asyncio.to_thread(log, f"rest-{method}", 1)
    assert ("scripted/two", COST, 2) == (line["target"], line["cost"], line["attempts"])


async def test_a_failed_call_of_rest_has_only_its_error(caller: Caller) -> None:
    """The edge makes the answer of what the trailing metadata say of the error."""
    caller.backend.answer = lambda _: SLOW
    trailing, _ = await caller.call("CreateChatCompletion", ("parley-dialect", "openai"))
    assert "UPSTREAM_TIMEOUT" == trailing["parley-error-reason"]
    assert not {"x-request-id", "x-correlation-id", "parley-receipt-bin", "parley-receipt"} & trailing.keys()


@pytest.mark.parametrize("model", ["unstored", "backup"])
@pytest.mark.parametrize("count", [2, 600])
async def test_unknown_fields_of_the_usage_leave_no_attempt_out(caller: Caller, model: str, count: int) -> None:
    """The receipt has its attempt, even with more unknown fields than metadata may have, and none of them twice."""
    answer = completion("Hi")
    answer.usage.extra_json = json.dumps({f"field_{number}": "v" * 20 for number in range(count)})
    caller.backend.answer = lambda _: answer
    trailing, _ = await caller.call("CreateChatCompletion", model=model)
    receipt = read(trailing)
    assert (1, 0, False) == (len(receipt.attempts), receipt.left_out, receipt.usage.HasField("extra"))


async def test_a_stream_that_ends_with_an_error_event(caller: Caller) -> None:
    """A stream that ends with an error event has its receipt."""
    caller.backend.answer = lambda call: [chunks("Hi")[0], StreamBroken("broke off")] if call.model == "one" else SLOW
    trailing, _ = await caller.call("StreamChatCompletionEvents")
    assert "STREAM_BROKEN" == read(trailing).attempts[0].reason


async def test_a_replayed_answer_has_no_receipt(caller: Caller, log: Log) -> None:
    """A replayed answer has no receipt, and no target in the log."""
    for request_id, expected in (("first", True), ("again", False)):
        headers = (("idempotency-key", "k"), ("x-request-id", request_id))
        trailing, _ = await caller.call("CreateChatCompletion", *headers)
        assert expected == ("parley-receipt-bin" in trailing)
        assert expected == ("target" in (await asyncio.to_thread(log, request_id, 1))[0])


async def test_a_rejected_call_has_no_receipt(caller: Caller) -> None:
    """A call that is rejected before its first attempt has no receipt."""
    trailing, _ = await caller.call("CreateChatCompletion", model="unknown")
    assert "parley-receipt-bin" not in trailing


@METHODS
async def test_the_longest_receipt_fits_into_8_kib(caller: Caller, method: str) -> None:
    """With the most attempts and the longest error all metadata stays under gRPC's 8 KiB."""
    caller.backend.answer = lambda _: ContextLengthExceeded("\u00e9" * 999, param="p" * 999, code="c" * 999)
    trailing, _ = await caller.call(method, model="stubborn")
    receipt = read(trailing)
    assert (MOST, True) == (len(receipt.attempts) + receipt.left_out, receipt.left_out > 0)
    # As on the wire: bytes in base64, messages in percent-encoding, 32 bytes for each entry.
    size = sum(len(name) + 4 * len(value) // 3 + 32 for name, value in trailing.items())
    assert size + 3 * 512 < 8192
