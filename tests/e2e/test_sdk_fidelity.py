"""The upstream receives exactly what a caller of OpenAI's Python package sends."""

import base64
import json
from typing import Any

import openai
import pytest

from tests.e2e import vendor
from tests.upstream import DONE, Events, Json, ScriptedUpstream

REQUEST: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}]}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()


def exact(value: Any) -> str:
    """Serializes JSON so that keys, their order and the kinds of numbers can be compared."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


EXTRA: dict[str, Any] = {
    "top_k": 40,
    "chat_template_kwargs": {"thinking": False, "budget": 9, "a": {"z": [1, 2.5], "y": None}},
    "min_p": 0.05,
    "guided_choice": ["yes", 'n"o}'],
    "größe": {},
}

PARAMETERS: dict[str, Any] = {
    "temperature": 0,
    "top_p": 0.1,
    "n": 1,
    "stop": ["\n\n", "END"],
    "max_tokens": 7,
    "max_completion_tokens": 9,
    "presence_penalty": -1.5,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100, "11": 0.5},
    "logprobs": True,
    "top_logprobs": 0,
    "seed": -(2**53) - 1,
    "user": "user-1234",
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "minimal",
    "verbosity": "low",
    "service_tier": "flex",
    "prompt_cache_key": "cache-1",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "moderation": {"model": "omni-moderation-latest", "policy": {"input": {"mode": "block"}}},
    "safety_identifier": "9f86d081",
    "prediction": {"type": "content", "content": "a = 1\n"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "pcm16"},
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {"type": "approximate", "approximate": {"city": "Zürich", "timezone": "Europe/Zurich"}},
    },
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_reaches_the_upstream(client: openai.OpenAI, upstream: ScriptedUpstream, name: str) -> None:
    """Each parameter reaches the upstream unchanged, zero and false included."""
    beside = {"tool_choice": "tools", "parallel_tool_calls": "tools", "top_logprobs": "logprobs"}.get(name)
    sent = {key: PARAMETERS[key] for key in (name, beside) if key}
    client.chat.completions.create(**REQUEST, **sent)
    got = upstream.requests[0].json
    assert sent == {key: got[key] for key in sent}
    assert {"model", "messages"} | sent.keys() == got.keys()
    assert (vendor.MODEL, REQUEST["messages"]) == (got["model"], got["messages"])


def test_the_upstreams_own_parameters_reach_it(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Keys of `extra_body` are in the upstream's body with exact integers; keys that Parley sets are rejected."""
    client.chat.completions.create(**REQUEST, extra_body={"extra_body": EXTRA})
    got = upstream.requests[0].json
    assert exact(EXTRA) == exact({key: got[key] for key in got if key not in REQUEST})
    with pytest.raises(openai.BadRequestError, match=r"`extra_body.model` repeats a field") as rejected:
        client.chat.completions.create(**REQUEST, extra_body={"extra_body": {"model": "other"}})
    assert "extra_body.model" == rejected.value.param
    assert 1 == len(upstream.requests)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_the_packages_extra_body_reaches_the_upstream(
    client: openai.OpenAI, upstream: ScriptedUpstream, is_stream: bool
) -> None:
    """Keys that the package adds to the body keep their order and the kinds of numbers."""
    answer = client.chat.completions.create(**REQUEST, stream=is_stream, extra_body=EXTRA)
    if is_stream:
        list(answer)
    got = upstream.requests[0].json
    ours = (*REQUEST, "stream", "stream_options")
    assert exact(EXTRA) == exact({key: got[key] for key in got if key not in ours})
    assert (vendor.MODEL, REQUEST["messages"]) == (got["model"], got["messages"])


def test_the_upstream_rejects_unknown_parameters(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The upstream's 400 for an unknown parameter reaches the caller with its message and the parameter's name."""
    reported = "Unrecognized request argument supplied: best_of_all"
    upstream.answer(Json({"error": {"message": reported, "type": "invalid_request_error", "param": None}}, status=400))
    with pytest.raises(openai.BadRequestError, match=reported):
        client.chat.completions.create(**REQUEST, extra_body={"best_of_all": 1})


def test_moderation_reaches_the_caller(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The result of moderation reaches the caller, unary and streaming, with usage and without."""
    found = {"type": "moderation_results", "model": "omni-moderation-latest", "results": []}
    moderation = {"input": found, "output": {"type": "error", "code": "x", "message": "y"}}
    ends = (
        {**vendor.chunk({}), "choices": [], **reported}
        for reported in ({"moderation": moderation}, {"usage": vendor.USAGE})
    )
    is_stream = Events([vendor.chunk({"content": "Hi"}, "stop"), *ends, DONE])
    upstream.answer(vendor.complete_answer() | {"moderation": moderation}, is_stream, is_stream)
    non_streaming = client.chat.completions.create(**REQUEST)
    assert moderation == (non_streaming.moderation and non_streaming.moderation.to_dict())
    for usage in (False, True):
        *_, last = client.chat.completions.create(**REQUEST, stream=True, stream_options={"include_usage": usage})
        assert ([], moderation) == (last.choices, last.moderation and last.moderation.to_dict())
        assert usage == (last.usage is not None)


CONTENTS: dict[str, Any] = {
    "text": [{"type": "text", "text": "Hello!"}],
    "a refusal of before": [{"type": "text", "text": "As before:"}, {"type": "refusal", "refusal": "No."}],
    "an image": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
    ],
    "audio": [{"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}],
    "a file": [
        {"type": "file", "file": {"filename": "a b.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}},
        {"type": "file", "file": {"file_id": "file-6F2ksmvXxt4VdoqmHRw6kL"}},
    ],
    "an emoji of several characters": "\U0001f469\U0001f3fd\u200d\U0001f680",
    "letters beyond the first plane": "\U0001d518\U0001d52b\U0001d526\U0001d520\U0001d52c\U0001d521\U0001d522",
    "combining characters, not composed": "e\u0301 and é; Z\u0351\u036b\u0343",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202e\u05e2\u05d5\u05dc\u05dd\u202c \u0645\u0631\u062d \u200f!",
    "line ends and controls": "a\r\nb\tc\u2028d\u0085e\u0001\u007f\ufeff",
    "quotes and slashes": '"\\/</script>\u2029data: [DONE]\n\n',
    "the end of the planes": "\U0010ffff\uffff\ufdd0",
    "nothing": "",
}


@pytest.mark.parametrize("what", CONTENTS)
def test_content_is_unchanged_in_both_directions(client: openai.OpenAI, upstream: ScriptedUpstream, what: str) -> None:
    """Parts and every kind of text reach the upstream unchanged; its text reaches the caller, unary and streaming."""
    content = CONTENTS[what]
    delivered = content if content and isinstance(content, str) else what
    messages: Any = [{"role": "user", "content": content}]
    upstream.answer(vendor.complete_answer(vendor.choice(delivered)), vendor.text(*delivered))
    non_streaming = client.chat.completions.create(model="scripted", messages=messages)
    stream = client.chat.completions.create(model="scripted", messages=messages, stream=True)
    assert delivered == non_streaming.choices[0].message.content
    assert delivered == "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    for request in upstream.requests:
        assert messages == request.json["messages"]


def test_a_conversation_reaches_the_upstream(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Every role, names, calls and their results, and earlier audio arrive in order."""
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
        {"role": "user", "content": "Weather?", "name": "Zoë"},
        {"role": "assistant", "content": None, "tool_calls": vendor.PARALLEL_CALLS},
        {"role": "tool", "content": "20°", "tool_call_id": vendor.PARALLEL_CALLS[0]["id"]},
        {"role": "tool", "content": [{"type": "text", "text": ""}], "tool_call_id": vendor.PARALLEL_CALLS[1]["id"]},
        {"role": "assistant", "content": None, "refusal": "Non."},
        {"role": "assistant", "content": None, "audio": {"id": vendor.AUDIO["id"]}},
        {"role": "user", "content": "Encore ?"},
    ]
    client.chat.completions.create(model="scripted", messages=messages)
    assert messages == upstream.requests[0].json["messages"]


def test_a_conversation_with_functions_reaches_the_upstream_with_tools(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Function calls get ids, and their results the same ids."""
    call = vendor.PARALLEL_CALLS[0]["function"]
    messages: Any = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": call["name"], "content": "20°"},
    ]
    functions: Any = [_tool(number)["function"] for number in range(3)]
    client.chat.completions.create(model="scripted", messages=messages, functions=functions, function_call="auto")
    got = upstream.requests[0].json
    assert exact([{"type": "function", "function": function} for function in functions]) == exact(got["tools"])
    assert ("auto", False) == (got["tool_choice"], got["parallel_tool_calls"])
    _, called, answered = got["messages"]
    assert [{"id": answered["tool_call_id"], "type": "function", "function": call}] == called["tool_calls"]
    assert ("tool", "20°") == (answered["role"], answered["content"])
    assert answered["tool_call_id"]


def test_custom_tools_and_a_choice_among_tools_reach_the_upstream(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Custom tools with a grammar and the list of allowed tools reach the upstream."""
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "a"\n'}}
    tools: Any = [{"type": "custom", "custom": {"name": "sql", "description": "SQL", "format": grammar}}]
    allowed = {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "sql"}}]}
    choice: Any = {"type": "allowed_tools", "allowed_tools": allowed}
    client.chat.completions.create(**REQUEST, tools=tools, tool_choice=choice)
    assert (tools, choice) == (upstream.requests[0].json["tools"], upstream.requests[0].json["tool_choice"])


def test_a_session_is_continued_by_the_package(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The id in the body or in a header continues a session; `store=False` stores nothing."""
    upstream.default = vendor.complete_answer()
    follow_up: Any = {"model": "scripted", "messages": [{"role": "user", "content": "And now?"}]}
    first = client.chat.completions.create(**REQUEST)
    session = str((first.model_extra or {})["chatSessionId"])
    second = client.chat.completions.create(**follow_up, extra_body={"session_id": session})
    client.chat.completions.create(**follow_up, extra_headers={"X-Chat-Session-ID": session})
    assert session == (second.model_extra or {})["chatSessionId"]
    answer = {"role": "assistant", "content": first.choices[0].message.content}
    history = [*REQUEST["messages"], answer, *follow_up["messages"]]
    assert history == upstream.requests[1].json["messages"]
    assert [*history, answer, *follow_up["messages"]] == upstream.requests[2].json["messages"]
    stateless = client.chat.completions.create(**REQUEST, store=False)
    assert "chatSessionId" not in (stateless.model_extra or {})


def _tool(number: int) -> dict[str, Any]:
    """Returns a tool whose keys have an unusual order."""
    names = sorted(
        (f"{hash((number, position)) % 997:03d}_{position}" for position in range(6)), key=lambda name: name[::-1]
    )
    kinds: list[dict[str, Any]] = [
        {"type": "integer", "minimum": 0, "maximum": 2**53, "default": -7},
        {"type": "number", "multipleOf": 0.1, "exclusiveMaximum": 1e300, "examples": [1, 2.5, -0.001]},
        {"enum": ["b", "a", None, True, False, 0], "description": "Größe 📏"},
        {"$ref": "#/$defs/Z"},
        {"type": "array", "items": {"anyOf": [{"type": "null"}, {"const": ""}, {"not": {}}]}, "maxItems": 3},
        {"type": "object", "properties": {"z": {}, "a": {"properties": {"y": {}, "b": {}}}}, "required": []},
    ]
    schema = {
        "type": "object",
        "properties": dict(zip(names, kinds, strict=True)),
        "required": names[:2],
        "$defs": {"Z": {"type": "string"}, "A": {"type": "integer"}},
        "additionalProperties": False,
    }
    function = {"name": f"tool_{number}", "description": f"№ {number}", "parameters": schema}
    return {"type": "function", "function": {**function, **({"strict": True} if number % 2 else {})}}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_forty_tools_reach_the_upstream_byte_for_byte(
    client: openai.OpenAI, upstream: ScriptedUpstream, is_stream: bool
) -> None:
    """The order of keys, integers, and every character of a large `tools` array are kept."""
    tools: Any = [_tool(number) for number in range(40)]
    answer = client.chat.completions.create(**REQUEST, tools=tools, stream=is_stream)
    if is_stream:
        list(answer)
    assert exact(tools) == exact(upstream.requests[0].json["tools"])


def test_a_response_schema_reaches_the_upstream_byte_for_byte(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """The properties of a schema keep their order, which is that of the model's answer."""
    schema = {"name": "answer", "description": "…", "schema": _tool(1)["function"]["parameters"], "strict": True}
    form: Any = {"type": "json_schema", "json_schema": schema}
    client.chat.completions.create(**REQUEST, response_format=form)
    assert exact(form) == exact(upstream.requests[0].json["response_format"])


def test_numbers_are_unchanged(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Integers beyond 2⁵³ are not rounded, and `1.0` stays `1.0`."""
    schema = {"minimum": 1.0, "maximum": 9007199254740992, "multipleOf": 1.5, "const": 2**63 - 1}
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    client.chat.completions.create(**REQUEST, tools=tools)
    got = upstream.requests[0].json["tools"][0]["function"]["parameters"]
    assert '{"minimum":1.0,"maximum":9007199254740992,"multipleOf":1.5,"const":9223372036854775807}' == exact(got)
