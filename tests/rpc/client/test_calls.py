"""parley-client against the real server: unary calls."""

import json
import math
import pickle
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value

import parley_client
from parley.core.errors import UpstreamRejected, UpstreamUnavailable
from parley.v1 import message_pb2
from parley_client import Client
from parley_client.parameters import Parameters
from parley_client.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.processes import until
from tests.rpc.client.conftest import Connect, Events
from tests.rpc.conftest import Worker


def test_an_answer_has_what_the_service_returns(worker: Worker, client: Any, events: Events) -> None:
    """A completion has text, usage, finish reason, session and receipt; the call is logged with them."""
    answer = client.chat.create("Hi", model="kept", temperature=0.5)
    assert ("Hello", "stop", 5, False) == (
        answer.text,
        answer.finish_reason,
        answer.usage.total_tokens,
        answer.replayed,
    )
    assert answer.receipt is not None
    assert ["completed"] == [attempt.outcome for attempt in answer.receipt.attempts]
    [(event, fields)] = events
    assert "parley call" == event
    assert ("OK", "kept", answer.session_id, 1) == tuple(
        fields[name] for name in ("code", "model", "session_id", "attempts")
    )
    assert 0.5 == worker.backend.calls[0].request.temperature


def test_messages_are_dicts_or_messages_of_any_stubs(worker: Worker, client: Any) -> None:
    """Dicts, the client's messages and messages of the service's stubs are sent alike; unknown fields are kept."""
    first = client.chat.create("One", store=False)
    question = {"role": "user", "content": [{"type": "text", "text": "Two"}], "cache_control": {"type": "ephemeral"}}
    third = message_pb2.Message(role="user", content=Value(string_value="Three"))
    client.chat.create(
        [{"role": "user", "content": "One"}, first.message, question, third], store=False, extra_body={"top_k": 7}
    )
    sent = worker.backend.calls[1].request
    assert ["One", "Hello", "", "Three"] == [one.content.string_value for one in sent.messages]
    assert '"cache_control":{"type":"ephemeral"}' in sent.messages[2].extra_json
    assert "Two" == sent.messages[2].content.list_value.values[0].struct_value.fields["text"].string_value
    assert '{"top_k":7}' == sent.extra_body_json


def test_unknown_fields_are_added_to_those_given_as_text(worker: Worker, client: Any) -> None:
    """Unknown fields, and content that is sent among them, stand behind the caller's own text of unknown fields."""
    message = {"role": "user", "content": [{"type": "text", "text": "Hi"}], "extra_json": ' {"a": 1.0} '}
    client.chat.create([message], store=False, extra_body_json="{}", top_k=7)
    sent = worker.backend.calls[0].request
    assert '{"a": 1.0,"content":[{"type":"text","text":"Hi"}]}' == sent.messages[0].extra_json
    assert '{"top_k":7}' == sent.extra_body_json


def test_ids_of_tokens_are_numbers_or_texts(worker: Worker, client: Any) -> None:
    """The keys of `logit_bias`, which JSON writes as text, may be numbers."""
    client.chat.create("Hi", logit_bias={5: -1, "7": 0})
    assert {"5": -1.0, "7": 0.0} == dict(worker.backend.calls[0].request.logit_bias)


def test_schemas_keep_the_order_of_their_keys(worker: Worker, client: Any) -> None:
    """The JSON Schema of a tool arrives with its keys in the order of the dict."""
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in "zyxabc"}}
    client.chat.create("Hi", tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
    text = worker.backend.calls[0].request.tools[0].function.parameters_json
    assert list("zyxabc") == list(json.loads(text)["properties"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": [{"role": 3}]}, "`messages[0].role`: "),
        ({"messages": ["Hi"]}, "`messages[0]` is 'Hi'; it must be a dict or a message"),
        ({"messages": "Hi", "temperature": "warm"}, "`temperature`: "),
        ({"messages": "Hi", "extra_body": {"x": {1, 2}}}, "`extra_body` cannot be written as JSON: "),
        ({"messages": "Hi", "extra_body": {"x": float("nan")}}, "`extra_body` cannot be written as JSON: "),
        ({"messages": "Hi", "stop": 5}, "`stop`: 5 is neither text, a list nor an object"),
        ({"messages": "Hi", "tool_choice": {"x": {1, 2}}}, "`tool_choice`: "),
    ],
)
def test_a_value_that_does_not_fit_is_named(client: Any, fields: dict[str, Any], message: str) -> None:
    """A value of the wrong type fails before the call; the error names the field."""
    with pytest.raises(TypeError) as caught:
        client.chat.create(**fields)
    assert str(caught.value).startswith(message)


def test_the_same_key_returns_the_same_answer(worker: Worker, client: Any) -> None:
    """A call with the key of an earlier one is replayed; a new key is a new call."""
    key = uuid.uuid4().hex
    first, again = (client.chat.create("Hi", idempotency_key=key) for _ in range(2))
    assert (first.raw.id, False, True) == (again.raw.id, first.replayed, again.replayed)
    assert not client.chat.create("Hi").replayed
    assert 2 == len(worker.backend.calls)


def test_errors_are_typed(worker: Worker, client: Any, events: Events) -> None:
    """An error has its reason, its field and its violations, and is not retried if it is the caller's."""
    with pytest.raises(parley_client.NotFoundError, match="Unknown model") as unknown:
        client.chat.create("Hi", model="nope")
    assert ("MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND) == (unknown.value.reason, unknown.value.code)
    with pytest.raises(parley_client.InvalidRequestError) as invalid:
        client.chat.create("Hi", temperature=3, top_p=2)
    assert ["temperature", "top_p"] == sorted(one.field for one in invalid.value.violations)
    worker.backend.answer = lambda _: UpstreamRejected("no", param="seed")
    with pytest.raises(parley_client.InvalidRequestError) as rejected:
        client.chat.create("Hi")
    assert ("seed", "failed") == (rejected.value.param, (rejected.value.receipt or _none()).attempts[0].outcome)
    assert ["parley call"] * 3 == [event for event, _ in events]


def _none() -> Any:
    raise AssertionError("there is no receipt")


def test_a_wrong_key_does_not_reach_the_error(worker: Worker) -> None:
    """The error of a wrong key does not contain it, nor does the client's text."""
    with (
        Client(worker.address, key="sk-nonsense") as client,
        pytest.raises(parley_client.AuthenticationError) as caught,
    ):
        client.chat.create("Hi")
    assert "nonsense" not in str(caught.value) + repr(caught.value) + repr(client) + repr(vars(client.chat))


def test_errors_and_answers_can_be_pickled(client: Any) -> None:
    """Errors and answers pass between processes, for example of a task queue."""
    answer = client.chat.create("Hi", model="kept")
    copy = pickle.loads(pickle.dumps(answer))
    assert ("Hello", answer.receipt) == (copy.text, copy.receipt)
    with pytest.raises(parley_client.NotFoundError) as caught:
        client.chat.create("Hi", model="nope")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(caught.value), "MODEL_NOT_FOUND") == (str(error), error.reason)


def test_malformed_metadata_is_named_without_the_key(worker: Worker, client: Any) -> None:
    """A key that was read with its line break, and other malformed metadata, fail without the key in the error."""
    secret = worker.keys["ada"]
    with pytest.raises(ValueError, match="the key must be printable") as malformed_key:
        Client(worker.address, key=f"{secret}\n")
    with pytest.raises(ValueError, match="the metadata `x-correlation-id` must be") as malformed_metadata:
        Client(worker.address, key=secret, metadata=[("x-correlation-id", "ä")])
    with pytest.raises(ValueError, match="the name of the metadata `X-Id` may have lower-case"):
        Client(worker.address, key=secret, metadata=[("X-Id", "a")])
    with pytest.raises(ValueError, match="the idempotency_key must be") as malformed_idempotency_key:
        client.chat.create("Hi", idempotency_key="a\nb")
    assert not [
        one for one in (malformed_key, malformed_metadata, malformed_idempotency_key) if secret in str(one.value)
    ]


def test_a_deadline_bounds_all_attempts(worker: Worker, client: Any) -> None:
    """A retry that would start after the deadline does not start: the failure itself is raised."""
    worker.backend.answer = lambda _: UpstreamUnavailable("down", retry_after=5)
    with pytest.raises(parley_client.UnavailableError):
        client.chat.create("Hi", model="once", timeout=4)
    assert 1 == len(worker.backend.calls)


def test_an_infinite_timeout_is_none(client: Any) -> None:
    """A timeout of infinity, which gRPC would take for one that has passed, is no limit."""
    assert "Hello" == client.chat.create("Hi", timeout=math.inf).text


def test_models(client: Any) -> None:
    """Models are listed and read."""
    assert "kept" in [model.id for model in client.models.list()]
    assert "scripted" == client.models.get("kept").owned_by
    assert "kept" == client.models.get("").id, "the default model"


def test_usage(worker: Worker, connect: Connect) -> None:
    """The report has the calls of the key since a day, summed up as requested; a wrong date is named."""
    client = connect(worker.address, worker.keys["bob"])  # no other test of this server makes calls with this key
    today = datetime.now(UTC).date()
    before = client.usage(since=today).total.calls
    client.chat.create("Hi", model="stateless")
    until(lambda: client.usage(since=today).total.calls == before + 1, "the call is counted")
    report = client.usage(since=today - timedelta(days=1), until=str(today), by=["model", "key"], account=True)
    assert "stateless" in [row.model for row in report.data]
    assert all(row.key.startswith("key_") and not row.HasField("day") for row in report.data)
    with pytest.raises(parley_client.InvalidRequestError, match="`since` must be a date"):
        client.usage(since="yesterday")


def test_type_checkers_know_every_parameter() -> None:
    """The typed parameters are the fields of the request that have no other argument and no typed form."""
    own = {"messages", "session_id", "stream", "stream_options", "extra_body_json"}
    typed_forms = {"stop_sequences", "typed_tool_choice", "typed_function_call"}
    fields = set(CreateChatCompletionRequest.DESCRIPTOR.fields_by_name)
    assert fields - own - typed_forms == set(Parameters.__annotations__)
