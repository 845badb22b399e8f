"""Callers of both transports, whole and streamed, who take down everything that they get in one form."""

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
    """What a caller got: the `texts` of the choices, why they ended, the tokens of their probabilities.

    An error has its `reason` (over REST its `code`), `words` and `status`. A stream's `chunks` are as JSON has them;
    `is_ended` says that it had its proper end. `receipt` is known over gRPC, and over REST where there is a session.
    """

    texts: dict[int, str] = field(default_factory=dict)
    finishes: list[str] = field(default_factory=list)
    tokens: dict[int, str] = field(default_factory=dict)
    reason: str | None = None
    words: str = ""
    status: Any = None
    retry_after: str | None = None
    total_tokens: int = 0
    session: str | None = None
    model: str = ""
    chunks: list[dict[str, Any]] = field(default_factory=list)
    is_ended: bool = False
    receipt: Receipt | None = None


def body(model: str, *, is_stream: bool, **asks: Any) -> dict[str, Any]:
    """Returns a request's JSON."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return {"model": model, "messages": [{"role": "user", "content": "Count to sixty."}], **options, **asks}


def call(parley: Parley, transport: str, asked: dict[str, Any], deadline: float = PATIENCE) -> Outcome:
    """Makes one call and takes down what comes back."""
    return _rest(parley, asked) if transport == REST else _grpc(parley, asked, deadline)


def _rest(parley: Parley, asked: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), parley.headers())
        response = connection.getresponse()
        outcome.status, outcome.retry_after = response.status, response.headers.get("retry-after")
        text = response.read().decode()
        if not response.headers["content-type"].startswith("text/event-stream"):
            _take(outcome, json.loads(text))
        else:
            events, outcome.is_ended = sse.read(text)
            for event in events:
                _take(outcome, event)
    if outcome.reason is None and outcome.session:
        outcome.receipt = stored_receipt(parley, outcome.session)
    return outcome


def stored_receipt(parley: Parley, session: str) -> Receipt:
    """Returns the receipt that is kept with the latest turn of a session."""
    _, page = parley.request("GET", f"/api/v1/sessions/{session}/messages")
    return ParseDict(page["messages"][-1]["receipt"], Receipt())


def _grpc(parley: Parley, asked: dict[str, Any], deadline: float) -> Outcome:
    outcome = Outcome()
    request = ParseDict(asked | {"stream": False, "stream_options": {}}, CreateChatCompletionRequest())
    request.ClearField("stream")
    request.ClearField("stream_options")
    with grpc.insecure_channel(parley.grpc) as channel:
        stub: Any = ChatCompletionsStub(channel)
        known = {"metadata": (("authorization", f"Bearer {parley.key}"),), "timeout": deadline}
        try:
            if asked.get("stream"):
                running = stub.StreamChatCompletion(request, **known)
                for chunk in running:
                    _take(outcome, MessageToDict(chunk))
                outcome.is_ended = True
            else:
                answer, running = stub.CreateChatCompletion.with_call(request, **known)
                _take(outcome, MessageToDict(answer))
        except grpc.RpcError as error:
            running = error
            _take_error(outcome, error)
        outcome.status = running.code()
        trailing = dict(running.trailing_metadata() or ())
    outcome.retry_after = trailing.get("retry-after")
    if "parley-receipt-bin" in trailing:
        outcome.receipt = Receipt.FromString(trailing["parley-receipt-bin"])
    return outcome


def _take(outcome: Outcome, said: dict[str, Any]) -> None:
    """Takes down an answer, a chunk or an error, as JSON."""
    if "error" in said:
        outcome.reason, outcome.words = said["error"]["code"], said["error"]["message"]
        return
    outcome.session, outcome.model = said.get("chatSessionId"), said["model"]
    outcome.total_tokens = said.get("usage", {}).get("total_tokens", outcome.total_tokens)
    if said["object"] == "chat.completion.chunk":
        outcome.chunks.append(said)
    for choice in said.get("choices", ()):
        index = choice.get("index", 0)
        message = choice.get("message") or choice.get("delta") or {}
        outcome.texts[index] = outcome.texts.get(index, "") + (message.get("content") or "")
        tokens = (choice.get("logprobs") or {}).get("content", ())
        outcome.tokens[index] = outcome.tokens.get(index, "") + "".join(token["token"] for token in tokens)
        outcome.finishes.extend([choice["finish_reason"]] if choice.get("finish_reason") else [])


def _take_error(outcome: Outcome, error: Any) -> None:
    outcome.words = error.details()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            outcome.reason = info.reason
