"""Functions, the older form of tools, there and back."""

from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from parley.core.messages import functions
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest

USER = {"role": "user", "content": "Weather?"}


def _asked(**fields: Any) -> Any:
    request = ParseDict({"messages": [USER], **fields}, CreateChatCompletionRequest())
    functions.to_tools(request)
    return MessageToDict(request)


def test_functions_become_tools() -> None:
    """The offer and the choice mean the same; one call at a time, because the older form has room for one."""
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    asked = _asked(functions=[function], function_call={"name": "f"})
    assert [{"type": "function", "function": function}] == asked["tools"]
    assert {"type": "function", "function": {"name": "f"}} == asked["tool_choice"]
    assert asked["parallel_tool_calls"] is False
    assert not {"functions", "function_call"} & asked.keys()


def test_a_choice_in_a_word_stays_a_word() -> None:
    """`none` and `auto` are the same in both forms."""
    assert "none" == _asked(functions=[{"name": "f"}], function_call="none")["tool_choice"]


def test_the_exact_text_of_a_choice_goes_with_it() -> None:
    """What a tool takes the place of is sent in no form."""
    asked = _asked(function_call={"name": "f", "n": 2**64}, extra_body_json='{"function_call":{"name":"f"},"n":1.0}')
    assert '{"n":1.0}' == asked["extra_body_json"]


def test_the_conversation_is_translated_with_ids_that_match() -> None:
    """Each function message answers the call before it."""
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = {"role": "function", "name": "f", "content": "42"}
    _, first, one, second, two = _asked(messages=[USER, call, answer, call, answer])["messages"]
    assert [first["tool_calls"][0]["id"], second["tool_calls"][0]["id"]] == [one["tool_call_id"], two["tool_call_id"]]
    assert one["tool_call_id"] != two["tool_call_id"]
    assert {"role": "tool", "content": "42", "tool_call_id": one["tool_call_id"]} == one
    assert {"name": "f", "arguments": "{}"} == first["tool_calls"][0]["function"]
    assert "function_call" not in first


def test_a_request_with_tools_stays_as_it_is() -> None:
    """Nothing of the newer form is touched."""
    fields = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    assert {"messages": [USER], **fields} == _asked(**fields)


def test_tool_calls_of_an_answer_become_a_function_call() -> None:
    """The caller who offered functions gets what the older documents show."""
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    completion = ParseDict({"choices": [{"message": message, "finish_reason": "tool_calls"}]}, ChatCompletion())
    functions.to_functions(completion)
    expected = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert [{"message": expected, "finish_reason": "function_call"}] == MessageToDict(completion)["choices"]


def test_pieces_of_tool_calls_become_pieces_of_a_function_call() -> None:
    """In a stream too: name first, arguments in pieces, the finish reason renamed."""
    deltas: list[dict[str, Any]] = [
        {"delta": {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}},
        {"delta": {"content": "x"}, "finish_reason": "tool_calls"},
    ]
    seen = []
    for delta in deltas:
        chunk = ParseDict({"choices": [delta]}, ChatCompletionChunk())
        functions.to_function_deltas(chunk)
        seen.append(MessageToDict(chunk)["choices"][0])
    assert [
        {"delta": {"function_call": {"name": "f"}}},
        {"delta": {"function_call": {"arguments": "{}"}}},
        {"delta": {"content": "x"}, "finish_reason": "function_call"},
    ] == seen


def test_a_function_that_is_a_tool_already_is_offered_once() -> None:
    """However its JSON Schema is written."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": [2]}}}
    same = {"name": "f", "parameters_json": '{"b": [2], "a": 1}'}
    asked = _asked(tools=[tool], functions=[same, {"name": "g"}, {"name": "g"}])
    assert [tool, {"type": "function", "function": {"name": "g"}}] == asked["tools"]


def test_a_name_with_two_meanings() -> None:
    """Each function that defines a name differently is found, with its place."""
    request = ParseDict(
        {
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
            "functions": [{"name": "f", "description": "d"}, {"name": "g"}, {"name": "g", "strict": True}],
        },
        CreateChatCompletionRequest(),
    )
    assert [0, 2] == list(functions.conflicts(request))
