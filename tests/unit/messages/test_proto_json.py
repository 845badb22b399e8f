"""Conversion of messages to JSON data."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from parley.core.messages.proto_json import dumps, from_message
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_struct_converts_to_its_source(value: dict[str, Any]) -> None:
    """JSON that was converted to a Struct converts back to an equal value."""
    struct = Struct()
    json_format.ParseDict(value, struct)
    assert value == from_message(struct)


def test_whole_numbers_become_integers() -> None:
    """A whole double within the range of 64 bits becomes an integer."""
    struct = Struct()
    struct.update({"a": 5, "b": [2.5, 1e300], "c": [2**63 - 1, -(2**63), 2.0**64, -(2.0**64)]})
    converted = from_message(struct)
    assert "5" == repr(converted["a"])
    assert [2.5, 1e300] == converted["b"]
    rounded = "[9223372036854775808, -9223372036854775808, 1.8446744073709552e+19, -1.8446744073709552e+19]"
    assert rounded == repr(converted["c"])


def test_an_answer_has_the_fields_of_openai() -> None:
    """Names and set zeros equal those of protobuf; with nulls, the required fields of OpenAI are included."""
    completion = ChatCompletion(session_id="s", id="i", created=1)
    completion.choices.add(index=0, finish_reason="stop").message.content.string_value = ""
    completion.usage.prompt_tokens = 0
    completion.choices[0].message.role = "assistant"
    expected = json_format.MessageToDict(completion)
    assert expected == from_message(completion)
    expected["choices"][0] |= {"logprobs": None, "message": {"role": "assistant", "content": "", "refusal": None}}
    made = from_message(completion, nulls=True)
    assert expected == made
    assert ["index", "message", "logprobs", "finish_reason"] == list(made["choices"][0])


def test_unknown_fields_are_among_the_others() -> None:
    """Unknown fields keep every digit, and replace only fields of any JSON type."""
    text = '{"content": [{"n": 18446744073709551617}], "cache_control": {"x": 0.10000000000000000001}, "role": "r"}'
    message = Message(role="user", extra_json=text)
    message.content.string_value = "rounded"
    expected = '{"role":"user","content":[{"n":18446744073709551617}],"cache_control":{"x":0.10000000000000000001}}'
    assert expected == dumps(from_message(message)).decode()


def test_maps_become_objects() -> None:
    """A map field is a JSON object."""
    request = CreateChatCompletionRequest(logit_bias={"5": 1.0}, metadata={"k": "v"})
    assert {"logit_bias": {"5": 1.0}, "metadata": {"k": "v"}} == from_message(request)
