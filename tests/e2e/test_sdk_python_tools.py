"""Structured output, tools and functions with OpenAI's Python package."""

import json
from itertools import chain
from typing import Any

import openai
import pytest
from openai.lib._pydantic import to_strict_json_schema
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel

from tests.e2e import vendor
from tests.upstream import Events, Gate, ScriptedUpstream

REQUEST: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}]}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Today's weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["celsius", "kelvin"]}, "city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Step(BaseModel):
    """One step of a solution."""

    explanation: str
    output: str


class Solution(BaseModel):
    """A solution. The order of its fields is meant: the steps come before what follows from them."""

    steps: list[Step]
    final_answer: int


SOLUTION = '{"steps": [{"explanation": "Halve it", "output": "x = 4"}], "final_answer": 4}'


def test_parse_reads_an_answer_into_a_pydantic_model(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The model's JSON Schema reaches the upstream unchanged; the answer is parsed into an object."""
    upstream.answer(vendor.complete_answer(vendor.choice(SOLUTION)))
    got: ParsedChatCompletion[Solution] = client.chat.completions.parse(**REQUEST, response_format=Solution)
    assert Solution.model_validate_json(SOLUTION) == got.choices[0].message.parsed
    form = upstream.requests[0].json["response_format"]["json_schema"]
    assert ("Solution", True) == (form["name"], form["strict"])
    assert json.dumps(to_strict_json_schema(Solution)) == json.dumps(form["schema"])
    upstream.answer(vendor.complete_answer(vendor.choice(None, refusal="I'd rather not.")))
    rejected = client.chat.completions.parse(**REQUEST, response_format=Solution).choices[0].message
    assert (None, "I'd rather not.") == (rejected.parsed, rejected.refusal)
    upstream.answer(vendor.complete_answer(vendor.choice('{"steps": [', finish_reason="length")))
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**REQUEST, response_format=Solution)


def test_the_stream_helper(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """`chat.completions.stream` builds its events and its final answer from the chunks."""
    upstream.answer(vendor.text(SOLUTION[:30], SOLUTION[30:]))
    with client.chat.completions.stream(
        **REQUEST, response_format=Solution, stream_options={"include_usage": True}
    ) as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    assert ["content.delta", "content.done"] == [kind for kind in dict.fromkeys(kinds) if kind != "chunk"]
    assert Solution.model_validate_json(SOLUTION) == final.choices[0].message.parsed
    assert vendor.USAGE == (final.usage and final.usage.to_dict())


def test_the_stream_helper_joins_parallel_tool_calls(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Each call has its index, id and name first, then its arguments in pieces, and is complete at the end."""
    upstream.answer(vendor.calls_in_pieces(vendor.PARALLEL_CALLS))
    with client.chat.completions.stream(**REQUEST, tools=[WEATHER]) as events:
        done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        message = events.get_final_completion().choices[0]
    expected = [(index, call["function"]) for index, call in enumerate(vendor.PARALLEL_CALLS)]
    assert expected == [(event.index, {"name": event.name, "arguments": event.arguments}) for event in done]
    assert "tool_calls" == message.finish_reason
    calls = [call.to_dict() for call in message.message.tool_calls or []]
    for call in calls:
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)  # type: ignore[attr-defined]
    assert vendor.PARALLEL_CALLS == calls


def test_pieces_of_tool_calls_are_openais(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The first piece of each call has index, id, type and name; later ones only index and arguments."""
    events = list(vendor.calls_in_pieces(vendor.PARALLEL_CALLS, size=20).events)
    gates = [Gate() for _ in events[:-3]]  # one per piece, so that no two are sent together
    gates[0].set()  # after the role, which is sent with the first token only, because another target may still answer
    upstream.answer(Events([*chain.from_iterable(zip(events, gates, strict=False)), *events[-3:]]))
    pieces: list[Any] = []
    for index, chunk in enumerate(client.chat.completions.create(**REQUEST, tools=[WEATHER], stream=True)):
        pieces += [piece.to_dict() for piece in chunk.choices[0].delta.tool_calls or []]
        for gate in gates[index : index + 1]:
            gate.set()
    shapes = [(piece["index"], set(piece), set(piece["function"])) for piece in pieces]
    for index in (0, 1):
        first, *later = [shape[1:] for shape in shapes if shape[0] == index]
        assert ({"index", "id", "type", "function"}, {"name", "arguments"}) == first
        assert later
        assert all(({"index", "function"}, {"arguments"}) == shape for shape in later)
    assert len(gates) - 1 == len(pieces)


def test_a_tools_loop_ends_in_an_answer(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """Calls, results and a final answer of an agent's loop; the upstream receives the complete exchange."""
    upstream.answer(
        vendor.complete_answer(vendor.choice(None, tool_calls=vendor.PARALLEL_CALLS)), vendor.complete_answer()
    )
    messages: list[Any] = [{"role": "user", "content": "Where is it warmer?"}]
    while True:
        answer = client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
        message = answer.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            assert "function" == call.type
            city = json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": f"20° in {city}"})
    assert 2 == len(upstream.requests)
    _, called, *results = upstream.requests[1].json["messages"]
    assert {"role": "assistant", "content": None, "tool_calls": vendor.PARALLEL_CALLS} == called
    ids = [call["id"] for call in vendor.PARALLEL_CALLS]
    texts = ["20° in Paris", "20° in Bogotá"]
    assert [
        {"role": "tool", "content": text, "tool_call_id": call} for text, call in zip(texts, ids, strict=True)
    ] == results


def test_functions_are_tools_to_the_upstream_and_functions_to_the_caller(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Functions work in complete answers, streams and earlier turns; the upstream receives tools."""
    [call, _] = vendor.PARALLEL_CALLS
    upstream.answer(vendor.complete_answer(vendor.choice(None, tool_calls=[call])), vendor.calls_in_pieces([call]))
    fields: Any = {**REQUEST, "functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}}
    choice = client.chat.completions.create(**fields).choices[0]
    assert ("function_call", None) == (choice.finish_reason, choice.message.tool_calls)
    assert call["function"] == (choice.message.function_call and choice.message.function_call.to_dict())
    chunks = list(client.chat.completions.create(**fields, stream=True))
    pieces = [piece for chunk in chunks if (piece := chunk.choices[0].delta.function_call)]
    assert call["function"]["name"] == pieces[0].name
    assert call["function"]["arguments"] == "".join(piece.arguments or "" for piece in pieces)
    assert "function_call" == chunks[-1].choices[0].finish_reason
    for request in upstream.requests:
        assert [WEATHER] == request.json["tools"]
        assert {"type": "function", "function": {"name": "get_weather"}} == request.json["tool_choice"]
        assert not {"functions", "function_call"} & set(request.json)
