"""Translation of deprecated functions to tools, and back."""

from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from parley.core.messages import functions
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest

USER = {"role": "user", "content": "Weather?"}


def _translated(**fields: Any) -> Any:
    request = ParseDict({"messages": [USER], **fields}, CreateChatCompletionRequest())
    functions.to_tools(request)
    return MessageToDict(request)


def test_functions_become_tools() -> None:
    """Offer and choice are translated; parallel calls are disabled, as a message has one `function_call`."""
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    request = _translated(functions=[function], function_call={"name": "f"})
    assert [{"type": "function", "function": function}] == request["tools"]
    assert {"type": "function", "function": {"name": "f"}} == request["tool_choice"]
    assert request["parallel_tool_calls"] is False
    assert not {"functions", "function_call"} & request.keys()


def test_a_choice_that_is_a_word_is_kept() -> None:
    """`none` and `auto` are the same in both forms."""
    assert "none" == _translated(functions=[{"name": "f"}], function_call="none")["tool_choice"]


def test_the_exact_text_of_a_replaced_choice_is_removed() -> None:
    """The exact text of a translated `function_call` is not sent."""
    request = _translated(
        function_call={"name": "f", "n": 2**64}, extra_body_json='{"function_call":{"name":"f"},"n":1.0}'
    )
    assert '{"n":1.0}' == request["extra_body_json"]


def test_the_conversation_is_translated_with_matching_ids() -> None:
    """Each function message answers the call before it."""
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = {"role": "function", "name": "f", "content": "42"}
    _, first, one, second, two = _translated(messages=[USER, call, answer, call, answer])["messages"]
    assert [first["tool_calls"][0]["id"], second["tool_calls"][0]["id"]] == [one["tool_call_id"], two["tool_call_id"]]
    assert one["tool_call_id"] != two["tool_call_id"]
    assert {"role": "tool", "content": "42", "tool_call_id": one["tool_call_id"]} == one
    assert {"name": "f", "arguments": "{}"} == first["tool_calls"][0]["function"]
    assert "function_call" not in first


def test_a_request_with_tools_is_not_changed() -> None:
    """A request that uses tools is not changed."""
    fields = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    assert {"messages": [USER], **fields} == _translated(**fields)


def test_tool_calls_of_an_answer_become_a_function_call() -> None:
    """The answer to a request with functions has a `function_call`."""
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    completion = ParseDict({"choices": [{"message": message, "finish_reason": "tool_calls"}]}, ChatCompletion())
    functions.to_functions(completion)
    expected = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert [{"message": expected, "finish_reason": "function_call"}] == MessageToDict(completion)["choices"]


def test_tool_call_deltas_become_function_call_deltas() -> None:
    """A stream has the name first, then arguments in pieces, and the translated finish reason."""
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
    """A function that equals a tool is offered once, however its JSON Schema is written."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": [2]}}}
    same = {"name": "f", "parameters_json": '{"b": [2], "a": 1}'}
    request = _translated(tools=[tool], functions=[same, {"name": "g"}, {"name": "g"}])
    assert [tool, {"type": "function", "function": {"name": "g"}}] == request["tools"]


def test_conflicting_definitions_of_a_name() -> None:
    """Each function that defines a known name differently is reported by its index."""
    request = ParseDict(
        {
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
            "functions": [{"name": "f", "description": "d"}, {"name": "g"}, {"name": "g", "strict": True}],
        },
        CreateChatCompletionRequest(),
    )
    assert [0, 2] == list(functions.conflicts(request))
