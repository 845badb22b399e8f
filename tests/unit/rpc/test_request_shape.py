"""The shape of a request: its plain texts are exactly what its messages have."""

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from parley.backends.openai.request import body
from parley.config import Timeouts
from parley.core.ports import UpstreamCall
from parley.rpc import request_forms
from parley.rpc.request_shape import shape_of
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_USER = {"role": "user", "content": "Hi"}


def _request(*messages: dict[str, Any], **fields: Any) -> CreateChatCompletionRequest:
    return ParseDict({"model": "m", "messages": messages, **fields}, CreateChatCompletionRequest())


def test_plain_texts_are_the_roles_and_contents() -> None:
    """Messages with a role and a text are plain, whatever parameters the request has."""
    request = _request({"role": "system", "content": "Be kind."}, _USER, temperature=1, seed=2)
    assert [("system", "Be kind."), ("user", "Hi")] == shape_of(request).texts


@pytest.mark.parametrize(
    "message",
    [
        _USER | {"name": "ada"},
        _USER | {"extra_json": '{"cache":true}'},
        _USER | {"text": "Hi"},
        _USER | {"content": [{"type": "text", "text": "Hi"}]},
        _USER | {"content": "a\0b"},
        _USER | {"content": ""},
        _USER | {"role": "tool"},
        _USER | {"role": "robot"},
        {"role": "user"},
        {"role": "assistant", "reasoning_content": "Well"},
        {"content": "Hi", "name": "ada"},
    ],
)
def test_any_other_message_is_not_plain(message: dict[str, Any]) -> None:
    """A message with another field, content or role makes the request one that needs every check."""
    assert shape_of(_request(_USER, message)).texts is None


def test_a_request_without_messages_has_no_texts() -> None:
    """Without messages there are no texts, so that the validation looks for them."""
    assert shape_of(_request()).texts is None


def test_typed_texts_become_plain() -> None:
    """The shape after the typed forms are replaced has the texts of the typed fields."""
    request = _request({"role": "user", "text": "Hi"})
    assert [("user", "Hi")] == request_forms.read(request, request.SerializeToString()).texts


def test_a_body_from_plain_texts_is_that_from_the_messages() -> None:
    """The body for the backend is the same with and without the texts."""
    request = _request(_USER, {"role": "assistant", "content": "Hello"}, _USER, temperature=0.5, stop=["x"], user="u")
    plain = UpstreamCall(request, "t", Timeouts(), shape=shape_of(request))
    assert body(UpstreamCall(request, "t", Timeouts()), stream=False) == body(plain, stream=False)
    assert "t" == body(plain, stream=False)["model"]
