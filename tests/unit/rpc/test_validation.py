"""Validation of completion requests."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from parley.core.errors import InvalidRequest, Violation
from parley.rpc import validation
from parley.rpc.field_rules import ENTRIES, MAX_ENTRIES
from parley.rpc.validation import validate
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def _request(body: dict[str, Any]) -> CreateChatCompletionRequest:
    return ParseDict(body, CreateChatCompletionRequest())


def _violations(body: dict[str, Any], *, is_stream: bool = True) -> list[tuple[str, str]]:
    try:
        validate(_request(body), is_stream=is_stream)
    except InvalidRequest as error:
        return [(violation.field, violation.message) for violation in error.violations]
    return []


GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "top_p": 1, "n": 128, "presence_penalty": -2, "frequency_penalty": 2},
    {"stop": "END"},
    {"stop": ["a", "b", "c", "d"]},
    {"stop": None, "tool_choice": None, "function_call": None},
    {"logprobs": True, "top_logprobs": 20},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [{"type": "custom", "custom": {"name": "c"}}]},
    {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "grammar"}},
    {"stop": list("abcdefgh")},
    {"tools": [{"type": "web_search"}, {"type": "builtin_function", "function": {"name": "$web_search"}}]},
    {"tools": [{"type": "function", "function": {"name": "files.read:v1"}}]},
    {"logit_bias": {"50256": -100}, "metadata": {"k": "v"}},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\\u0000"}]}]},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
    {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
    {"messages": [{"role": "assistant", "content": None}]},
    {"messages": [{"role": "assistant", "content": ""}]},
    {"messages": [{"role": "assistant", "content": None, "refusal": "rather not"}]},
    {"tools": [TOOL], "functions": [TOOL["function"]]},
    {"messages": [{"role": "assistant", "content": None, "reasoning_content": "cut short while thinking"}]},
    {
        "messages": [
            {"role": "tool", "content": "1", "tool_call_id": "1"},
            {"role": "function", "content": "", "name": "f"},
        ]
    },
    {"messages": [{"role": "user", "content": "a\\u0000 \U0001f600 e\u0301 \u202e"}]},
    {"messages": [{"role": "developer", "content": ""}, {"role": "system", "content": "x"}]},
    {"audio": {"voice": "alloy", "format": "wav"}, "prediction": {"type": "content", "content": ""}},
    {"audio": {"voice": {"id": "v"}, "format": "pcm16"}},
    {"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
    {"web_search_options": {}},
    {"web_search_options": {"user_location": {"type": "approximate", "approximate": {}}}},
    {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"country": "CH"}}}},
    {"moderation": {"model": "m"}},
    {"moderation": {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "block"}}}},
    {"extra_body_json": '{"top_k": 5}'},
    # Words that are the backend's to know, and what goes with them.
    {"tools": [TOOL], "tool_choice": "any"},
    {"functions": [{"name": "f"}], "function_call": "any"},
    {"audio": {"voice": "alloy", "format": "ogg"}, "modalities": ["text", "video"]},
    {"reasoning_effort": "ultra", "verbosity": "terse", "service_tier": "batch"},
    {"prediction": {"type": "diff", "extra_json": '{"diff": "x"}'}},
    {"prediction": {"type": "content", "content": [{"type": "file", "file": {}}]}},
    {"web_search_options": {"user_location": {"extra_json": '{"country": "US", "latitude": 37.7}'}}},
    {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"country": "Swiss"}}}},
    {"web_search_options": {"user_location": {"type": "exact"}}},
    {"moderation": {"model": "m", "policy": {"output": {"mode": "mask"}}}},
    {"logit_bias": {" Hello": -100}},
    {"messages": [USER, {"role": "assistant", "content": "Hel"}], "continue_final_message": True},
    {"continue_final_message": False},
]

_HERE = "web_search_options.user_location"
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [TOOL], "functions": [{"name": "f", "strict": True}]}, "functions[0].name", "already the name of"),
    ({"audio": {"format": "wav"}}, "audio.voice", "`audio.voice` is required and must be a string, or an object"),
    ({"audio": {"voice": "", "format": "wav"}}, "audio.voice", "is required"),
    ({"audio": {"voice": {"name": "v"}, "format": "wav"}}, "audio.voice", "an object with an `id`"),
    ({"audio": {"voice": 3, "format": "wav"}}, "audio.voice", "must be a string"),
    ({"audio": {"voice": "alloy"}}, "audio.format", "must be wav, aac, mp3, flac, opus, pcm16 or a word of the"),
    ({"prediction": {"content": "x"}}, "prediction.type", "must be content or a word of the backend's own"),
    ({"prediction": {"type": "content"}}, "prediction.content", "`prediction.content` is required"),
    ({"prediction": {"type": "content", "content": []}}, "prediction.content", "an array of content parts"),
    ({"prediction": {"type": "content", "content": ["x"]}}, "prediction.content", "an array of content parts"),
    ({"prediction": {"type": "content", "content": {"type": "text"}}}, "prediction.content", "must be a string or"),
    ({"web_search_options": {"user_location": {"type": "approximate"}}}, f"{_HERE}.approximate", "is required"),
    ({"moderation": {}}, "moderation.model", "`moderation.model` is required"),
    (
        {"moderation": {"model": "m", "policy": {"output": {}}}},
        "moderation.policy.output.mode",
        "must be score, block or a word of the backend's own",
    ),
    ({"extra_body_json": "[]"}, "extra_body_json", "`extra_body_json` must be the text of a JSON object"),
    ({"extra_body_json": "{"}, "extra_body_json", "must be the text of a JSON object"),
    ({"model": ""}, "model", "`model` is required and must be a string"),
    ({"messages": []}, "messages", "`messages` must be a non-empty array"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "must be one of system, developer"),
    ({"messages": [USER, {"role": "king"}]}, "messages[1].role", "must be one of system, developer"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "is required"),
    (
        {"messages": [{"role": "user", "content": 5}]},
        "messages[0].content",
        "must be a string or an array of",
    ),
    ({"messages": [{"role": "assistant", "content": 5}]}, "messages[0].content", "content parts or null"),
    (
        {"messages": [{"role": "user", "content": {"type": "text"}}]},
        "messages[0].content",
        "must be a string or an array",
    ),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "must not be an empty array"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "must be an object with a `type`"),
    ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0]", "must be an object"),
    (
        {"messages": [{"role": "user", "content": "a\0b"}]},
        "messages[0].content",
        "must not contain the character U+0000",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\0"}]}]},
        "messages[0].content",
        "must not contain the character U+0000",
    ),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content", "may be null only beside"),
    ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].tool_call_id", "is required where `role` is tool"),
    ({"messages": [{"role": "function", "content": "1"}]}, "messages[0].name", "is required where `role` is function"),
    ({"continue_final_message": True}, "messages[0]", "must be an assistant message with text alone"),
    (
        {"messages": [USER, {"role": "assistant", "content": ""}], "continue_final_message": True},
        "messages[1]",
        "must be an assistant message with text alone",
    ),
    (
        {
            "messages": [{"role": "assistant", "content": "Hel", "tool_calls": [{"id": "1"}]}],
            "continue_final_message": True,
        },
        "messages[0]",
        "must be an assistant message with text alone",
    ),
    ({"temperature": 2.1}, "temperature", "must be between 0 and 2"),
    ({"temperature": -0.1}, "temperature", "must be between 0 and 2"),
    ({"temperature": "NaN"}, "temperature", "must be between 0 and 2"),
    ({"top_p": 1.1}, "top_p", "must be between 0 and 1"),
    ({"n": 0}, "n", "must be between 1 and 128"),
    ({"presence_penalty": 3}, "presence_penalty", "must be between -2 and 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "must be between -2 and 2"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "must be between 0 and 20"),
    ({"top_logprobs": 1}, "top_logprobs", "needs `logprobs` to be true"),
    ({"stop": 5}, "stop", "must be a string or an array"),
    ({"stop": ["a", 5]}, "stop", "must be a string or an array"),
    ({"tools": [{}]}, "tools[0].type", "must be function or custom"),
    ({"tools": [{"type": "function"}]}, "tools[0].function.name", "is required"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "letters, digits"),
    ({"tools": [{"type": "custom"}]}, "tools[0].custom.name", "is required"),
    ({"tools": [TOOL], "tool_choice": ""}, "tool_choice", "must be none, auto, required, a word of the backend's own"),
    ({"tools": [TOOL], "tool_choice": 1}, "tool_choice", "must be a string or an object"),
    ({"tool_choice": "required"}, "tool_choice", "nothing is offered"),
    ({"functions": [{}]}, "functions[0].name", "is required"),
    ({"functions": [{"name": "f", "parameters_json": "[]"}]}, "functions[0].parameters_json", "text of a JSON object"),
    (
        {"functions": [{"name": "f", "parameters_json": '{"type": "object", "type": "array"}'}]},
        "functions[0].parameters_json",
        "has the key `type` twice",
    ),
    ({"function_call": {"name": "f"}}, "function_call", "nothing is offered"),
    ({"response_format": {}}, "response_format.type", "must be text, json_object or json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name", "is required"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "between -100 and 100"),
    ({"logit_bias": {"1": "NaN"}}, "logit_bias", "between -100 and 100"),
    ({"metadata": {"k" * 65: "v"}}, "metadata", "at most 16 labels"),
    ({"metadata": {str(number): "v" for number in range(17)}}, "metadata", "at most 16 labels"),
]


@pytest.mark.parametrize("body", GOOD, ids=str)
def test_every_documented_form_is_accepted(body: dict[str, Any]) -> None:
    """Every documented form of a request is accepted."""
    assert [] == _violations({"messages": [USER], **body})


@pytest.mark.parametrize(("body", "field", "text"), BAD, ids=lambda value: str(value)[:60])
def test_a_violation_names_its_field(body: dict[str, Any], field: str, text: str) -> None:
    """Each fault is exactly one violation, whose message also names the field."""
    [(found, message)] = _violations({"messages": [USER], **body})
    assert field == found
    assert message.startswith(f"`{field}` ")
    assert text in message


def test_every_violation_is_returned_and_the_first_is_the_message() -> None:
    """One error has all violations; the first one is its message."""
    with pytest.raises(InvalidRequest, match=r"^`messages` must be a non-empty array$") as caught:
        validate(_request({"messages": [], "temperature": 9, "n": 0}), is_stream=True)
    assert ["messages", "temperature", "n"] == [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("body", [{"stream": True}, {"stream_options": {"include_usage": True}}])
def test_streaming_parameters_are_rejected_without_streaming(body: dict[str, Any]) -> None:
    """A streaming parameter of a non-streaming request is rejected instead of ignored."""
    assert ["stream" if "stream" in body else "stream_options"] == [
        field for field, _ in _violations({"messages": [USER], **body}, is_stream=False)
    ]


KINDS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"model": "", "messages": []}, {"model": "string_too_short", "messages": "too_short"}),
    ({"messages": [{"content": "x"}]}, {"messages[0].role": "missing"}),
    ({"messages": [{"role": "king", "content": "x"}]}, {"messages[0].role": "literal_error"}),
    ({"messages": [{"role": "user"}]}, {"messages[0].content": "missing"}),
    ({"messages": [{"role": "user", "content": None}]}, {"messages[0].content": "string_type"}),
    ({"messages": [{"role": "user", "content": 5}]}, {"messages[0].content": "string_type"}),
    ({"messages": [{"role": "user", "content": []}]}, {"messages[0].content": "too_short"}),
    ({"messages": [{"role": "user", "content": ["x"]}]}, {"messages[0].content[0]": "dict_type"}),
    ({"messages": [{"role": "tool", "content": "x"}]}, {"messages[0].tool_call_id": "missing"}),
    ({"messages": [USER], "n": 0, "top_p": 2}, {"top_p": "less_than_equal", "n": "greater_than_equal"}),
    ({"messages": [USER], "stop": 5}, {"stop": "value_error"}),
]


@pytest.mark.parametrize(("body", "kinds"), KINDS)
def test_each_violation_has_its_kind(body: dict[str, Any], kinds: dict[str, str]) -> None:
    """Each violation has the type that FastAPI uses."""
    with pytest.raises(InvalidRequest) as caught:
        validate(_request(body), is_stream=True)
    assert kinds == {violation.field: violation.kind for violation in caught.value.violations}


def test_a_model_may_be_required() -> None:
    """A required model that is absent is the first violation."""
    with pytest.raises(InvalidRequest, match=r"^`model` is required and must be a string$") as caught:
        validate(_request({"messages": []}), is_stream=True, model_required=True)
    found = [(violation.field, violation.kind) for violation in caught.value.violations]
    assert [("model", "missing"), ("messages", "too_short")] == found
    validate(_request({"messages": [USER], "model": "m"}), is_stream=True, model_required=True)


def test_violations_of_the_edge_are_merged() -> None:
    """Violations that the edge has found replace those of the same fields, in the documents' order."""
    found = [Violation("n", "`n` must be a number", "int_type"), Violation("messages", "no array", "list_type")]
    with pytest.raises(InvalidRequest, match=r"^no array$") as caught:
        validate(_request({"temperature": 3}), is_stream=True, found=found)
    assert [("messages", "list_type"), ("n", "int_type"), ("temperature", "less_than_equal")] == [
        (violation.field, violation.kind) for violation in caught.value.violations
    ]


def test_the_checks_stop_after_a_hundred_violations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks stop after a hundred violations: a body has room for a million, and the caller sees eight."""
    looked: list[str] = []

    def check(_message: Any, path: str) -> Iterator[tuple[str, str]]:
        looked.append(path)
        yield path, "is wrong"

    monkeypatch.setattr(validation, "message_faults", check)
    request_ = CreateChatCompletionRequest()
    for _ in range(300):
        request_.messages.add()
    with pytest.raises(InvalidRequest):
        validate(request_, is_stream=True)
    assert 100 == len(looked)


@pytest.mark.parametrize("field", [*ENTRIES, "stop"])
def test_the_entries_of_an_array_are_limited(field: str) -> None:
    """The largest number of entries is accepted, and one more is a violation of the field."""

    def filled(count: int) -> CreateChatCompletionRequest:
        made = _request({"messages": [USER]})
        for number in range(count):
            match field:
                case "tools":
                    made.tools.add(type="function").function.name = f"f{number}"
                case "functions":
                    made.functions.add(name=f"f{number}")
                case "logit_bias":
                    made.logit_bias[str(number)] = 1
                case "stop":
                    made.stop.list_value.values.add(string_value="x")
                case _:
                    getattr(made, field).append("x")
        return made

    validate(filled(MAX_ENTRIES), is_stream=True)
    with pytest.raises(InvalidRequest, match=f"`{field}` may have at most 2048 entries, not 2049"):
        validate(filled(MAX_ENTRIES + 1), is_stream=True)
