"""The API document of the dialect `upchatty`, row by row: parameters, messages, answers, errors, the curl example."""

import json
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, send, send_fields
from tests.processes import Parley
from tests.sse import chunks
from tests.upstream import ScriptedUpstream, completion

PATH = "/upchatty/api/v1/chat/completions"
TEMPERATURE = "`temperature` must be between 0 and 1"

# Row: changes of a valid request, the status, the text of the error.
ERRORS: dict[str, tuple[dict[str, Any], dict[str, str | None], int, str]] = {
    "400 model required": ({"model": ""}, {}, 400, "`model` is required and must be a string"),
    "400 messages required": ({"messages": None}, {}, 400, "`messages` must be a non-empty array"),
    "400 temperature above 1.0": ({"temperature": 1.01}, {}, 400, TEMPERATURE),
    "400 temperature below 0.0": ({"temperature": -0.01}, {}, 400, TEMPERATURE),
    "400 temperature no number": ({"temperature": "hot"}, {}, 400, TEMPERATURE),
    "401 missing key": ({}, {"Authorization": None}, 401, "Missing API key"),
    "401 invalid key": ({}, {"Authorization": "Bearer sk-no"}, 401, "Invalid API key"),
}


@pytest.mark.parametrize("row", ERRORS)
def test_error_rows(stack: Parley, upstream: ScriptedUpstream, row: str) -> None:
    """Each error has the document's status and body, and the model is not called."""
    fields, headers, status, text = ERRORS[row]
    got, answer, _ = send_fields(stack, PATH, fields, headers)
    assert (status, {"error": text}) == (got, answer)
    assert [] == upstream.requests


@pytest.mark.parametrize("temperature", [0, 0.0, 0.7, 1, 1.0])
def test_temperature_from_0_to_1_reaches_the_model(
    stack: Parley, upstream: ScriptedUpstream, temperature: float
) -> None:
    """`temperature`: values in the range, limits included, reach the model."""
    assert 200 == send_fields(stack, PATH, {"temperature": temperature})[0]
    assert temperature == upstream.requests[0].json["temperature"]


def test_stream_by_the_body(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`stream`: true selects a stream; the default is false."""
    assert "application/json" == send_fields(stack, PATH, {})[2]["content-type"]
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "stream": True})
    assert "text/event-stream" == headers["content-type"]
    assert "Hello there." == "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(data))


def test_messages_of_user_and_assistant(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`messages`: the conversation reaches the model unchanged."""
    history = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "How are you?"}]
    assert 200 == send_fields(stack, PATH, {"messages": history})[0]
    assert history == upstream.requests[0].json["messages"]


def test_the_answer_has_the_documented_fields(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The answer has every field of the response, choice, message and usage tables, with its type."""
    upstream.answer(completion("I am well."))
    status, answer, _ = send_fields(
        stack, PATH, {"messages": [{"role": "user", "content": "How are you?"}], "temperature": 0.7}
    )
    assert 200 == status
    assert {"id": str, "object": str, "created": int, "model": str, "choices": list, "usage": dict}.items() <= {
        name: type(value) for name, value in answer.items()
    }.items()
    assert "chat.completion" == answer["object"]
    message = {"role": "assistant", "content": "I am well."}
    assert [{"index": 0, "message": message, "finish_reason": "stop"}] == answer["choices"]
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= answer["usage"].keys()


def test_the_curl_example(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The body of the curl example is accepted with its exact white space."""
    body = b"""{
    "model": "scripted",
    "messages": [{"role": "user", "content": "How are you?"}],
    "temperature": 0.7
  }"""
    status, data, _ = send(stack, PATH, body)
    assert (200, "Hello there.") == (status, json.loads(data)["choices"][0]["message"]["content"])
