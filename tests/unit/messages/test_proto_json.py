"""Messages as plain JSON data."""

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
def test_a_struct_is_what_it_was_made_from(value: dict[str, Any]) -> None:
    """JSON goes into a Struct and comes out equal, whole numbers as integers."""
    struct = Struct()
    json_format.ParseDict(value, struct)
    assert value == from_message(struct)


def test_whole_numbers_come_out_as_integers() -> None:
    """`5`, which a Struct holds as 5.0, is 5 again."""
    struct = Struct()
    struct.update({"a": 5, "b": [2.5, 1e300], "c": [2**63 - 1, -(2**63), 2.0**64, -(2.0**64)]})
    plain_text = from_message(struct)
    assert "5" == repr(plain_text["a"])
    assert [2.5, 1e300] == plain_text["b"]
    rounded = "[9223372036854775808, -9223372036854775808, 1.8446744073709552e+19, -1.8446744073709552e+19]"
    assert rounded == repr(plain_text["c"])


def test_an_answer_is_printed_as_openai_prints_it() -> None:
    """Names and set zeros are those of protobuf's own JSON; with nulls, there is what OpenAI's API always has."""
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


def test_unknown_fields_stand_among_the_others() -> None:
    """With every digit, and in place of a field of any JSON type; never in place of another one."""
    text = '{"content": [{"n": 18446744073709551617}], "cache_control": {"x": 0.10000000000000000001}, "role": "r"}'
    message = Message(role="user", extra_json=text)
    message.content.string_value = "rounded"
    expected = '{"role":"user","content":[{"n":18446744073709551617}],"cache_control":{"x":0.10000000000000000001}}'
    assert expected == dumps(from_message(message)).decode()


def test_maps_become_objects() -> None:
    """A map field is a JSON object."""
    request = CreateChatCompletionRequest(logit_bias={"5": 1.0}, metadata={"k": "v"})
    assert {"logit_bias": {"5": 1.0}, "metadata": {"k": "v"}} == from_message(request)
