"""Calls over both transports, unary and streaming, with results in one form."""

import json
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.receipt_pb2 import Receipt
from tests import sse
from tests.processes import Parley

REST, GRPC = "REST", "gRPC"
PATIENCE = 60.0


@dataclass
class Outcome:
    """The result of a call: the `texts` of the choices, their finish reasons, and the tokens of their logprobs.

    An error has its `reason` (over REST its `code`), `message` and `status`. `chunks` are those of a stream as JSON;
    `is_ended` is true after a regular end. `receipt` is set over gRPC, and over REST for calls with a session.
    """

    texts: dict[int, str] = field(default_factory=dict)
    finishes: list[str] = field(default_factory=list)
    tokens: dict[int, str] = field(default_factory=dict)
    reason: str | None = None
    message: str = ""
    status: Any = None
    retry_after: str | None = None
    total_tokens: int = 0
    session: str | None = None
    model: str = ""
    chunks: list[dict[str, Any]] = field(default_factory=list)
    is_ended: bool = False
    receipt: Receipt | None = None


def body(model: str, *, is_stream: bool, **fields: Any) -> dict[str, Any]:
    """Returns a request as JSON."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return {"model": model, "messages": [{"role": "user", "content": "Count to sixty."}], **options, **fields}


def call(parley: Parley, transport: str, request_body: dict[str, Any], deadline: float = PATIENCE) -> Outcome:
    """Makes one call; returns its result."""
    return _rest(parley, request_body) if transport == REST else _grpc(parley, request_body, deadline)


def _rest(parley: Parley, request_body: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(request_body), parley.headers())
        response = connection.getresponse()
        outcome.status, outcome.retry_after = response.status, response.headers.get("retry-after")
        text = response.read().decode()
        if not response.headers["content-type"].startswith("text/event-stream"):
            _record(outcome, json.loads(text))
        else:
            events, outcome.is_ended = sse.read(text)
            for event in events:
                _record(outcome, event)
    if outcome.reason is None and outcome.session:
        outcome.receipt = stored_receipt(parley, outcome.session)
    return outcome


def stored_receipt(parley: Parley, session: str) -> Receipt:
    """Returns the receipt that is stored with the latest turn of a session."""
    _, page = parley.request("GET", f"/api/v1/sessions/{session}/messages")
    return ParseDict(page["messages"][-1]["receipt"], Receipt())


def _grpc(parley: Parley, request_body: dict[str, Any], deadline: float) -> Outcome:
    outcome = Outcome()
    request = ParseDict(request_body | {"stream": False, "stream_options": {}}, CreateChatCompletionRequest())
    request.ClearField("stream")
    request.ClearField("stream_options")
    with grpc.insecure_channel(parley.grpc) as channel:
        stub: Any = ChatCompletionsStub(channel)
        options = {"metadata": (("authorization", f"Bearer {parley.key}"),), "timeout": deadline}
        try:
            if request_body.get("stream"):
                running = stub.StreamChatCompletion(request, **options)
                for chunk in running:
                    _record(outcome, MessageToDict(chunk))
                outcome.is_ended = True
            else:
                answer, running = stub.CreateChatCompletion.with_call(request, **options)
                _record(outcome, MessageToDict(answer))
        except grpc.RpcError as error:
            running = error
            _record_error(outcome, error)
        outcome.status = running.code()
        trailing = dict(running.trailing_metadata() or ())
    outcome.retry_after = trailing.get("retry-after")
    if "parley-receipt-bin" in trailing:
        outcome.receipt = Receipt.FromString(trailing["parley-receipt-bin"])
    return outcome


def _record(outcome: Outcome, data: dict[str, Any]) -> None:
    """Records an answer, a chunk or an error, as JSON."""
    if "error" in data:
        outcome.reason, outcome.message = data["error"]["code"], data["error"]["message"]
        return
    outcome.session, outcome.model = data.get("chatSessionId"), data["model"]
    outcome.total_tokens = data.get("usage", {}).get("total_tokens", outcome.total_tokens)
    if data["object"] == "chat.completion.chunk":
        outcome.chunks.append(data)
    for choice in data.get("choices", ()):
        index = choice.get("index", 0)
        message = choice.get("message") or choice.get("delta") or {}
        outcome.texts[index] = outcome.texts.get(index, "") + (message.get("content") or "")
        tokens = (choice.get("logprobs") or {}).get("content", ())
        outcome.tokens[index] = outcome.tokens.get(index, "") + "".join(token["token"] for token in tokens)
        outcome.finishes.extend([choice["finish_reason"]] if choice.get("finish_reason") else [])


def _record_error(outcome: Outcome, error: Any) -> None:
    outcome.message = error.details()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            outcome.reason = info.reason
