"""LangChain's `ChatOpenAI` with another base URL, as agents and chains use it."""

import json
from collections.abc import Iterable
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.e2e import vendor
from tests.processes import Parley
from tests.upstream import Json, ScriptedUpstream

PAIR = [SystemMessage("Be brief."), HumanMessage("Hello!")]


@tool
def get_weather(unit: str, city: str) -> str:
    """Today's weather."""
    return f"20° {unit} in {city}"


class Joke(BaseModel):
    """A joke. The order of its fields is the order of telling it."""

    setup: str = Field(description="The question")
    punchline: str = Field(description="The answer")
    rating: int = Field(description="From 1 to 10")


JOKE: dict[str, Any] = {"setup": "Why?", "punchline": "Because. 😀", "rating": 7}


@pytest.fixture
def chat(stack: Parley, upstream: ScriptedUpstream) -> ChatOpenAI:
    """The model, with another address, key and name."""
    return ChatOpenAI(base_url=f"{stack.http}/v1", api_key=SecretStr(stack.key), model="scripted", max_retries=0)


def test_invoke_answers(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """Text, usage and finish reason are where chains read them."""
    upstream.answer(vendor.complete_answer())
    answer = chat.invoke(PAIR)
    assert "Hello! How can I assist you today?" == answer.content
    assert ("stop", "scripted") == (answer.response_metadata["finish_reason"], answer.response_metadata["model_name"])
    assert vendor.TAGS == {name: answer.response_metadata[name] for name in vendor.TAGS}
    assert answer.usage_metadata is not None
    assert (1117, 46, 1163) == tuple(
        answer.usage_metadata[name] for name in ("input_tokens", "output_tokens", "total_tokens")
    )
    assert 1024 == answer.usage_metadata["input_token_details"]["cache_read"]
    assert 32 == answer.usage_metadata["output_token_details"]["reasoning"]
    sent = [(message["role"], message["content"]) for message in upstream.requests[0].json["messages"]]
    assert [("system", "Be brief."), ("user", "Hello!")] == sent


def test_stream_streams(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """Chunks add up to the answer, with its usage at the end."""
    upstream.answer(vendor.text("Hel", "lo", "!"))
    chunks = list(chat.stream(PAIR, stream_usage=True))
    non_streaming = _sum(chunks)
    assert len(chunks) > 3
    assert "Hello!" == non_streaming.content
    assert non_streaming.usage_metadata is not None
    assert 1163 == non_streaming.usage_metadata["total_tokens"]
    assert "stop" == non_streaming.response_metadata["finish_reason"]


async def test_the_async_side_answers_and_streams(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """`ainvoke`, `abatch` and `astream` return the same."""
    upstream.default = vendor.complete_answer()
    answers = [await chat.ainvoke(PAIR), *await chat.abatch([PAIR, PAIR])]
    assert {"Hello! How can I assist you today?"} == {str(answer.content) for answer in answers}
    upstream.default = vendor.text("Hel", "lo!")
    assert "Hello!" == "".join([str(chunk.content) async for chunk in chat.astream(PAIR)])


def test_bound_tools_are_called_and_answered(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """An agent's turn has two parallel calls, their results, and a final answer."""
    cities = {"call_1": "Paris", "call_2": "Bogotá"}
    calls = [
        {**vendor.PARALLEL_CALLS[0], "id": call, "function": {"name": "get_weather", "arguments": _arguments(city)}}
        for call, city in cities.items()
    ]
    upstream.answer(
        vendor.complete_answer(vendor.choice(None, tool_calls=calls)),
        vendor.complete_answer(vendor.choice("In Bogotá.")),
    )
    agent = chat.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage("Where is it warmer?")]
    messages.append(agent.invoke(messages))
    assert isinstance(messages[-1], AIMessage)
    for call in messages[-1].tool_calls:
        messages.append(get_weather.invoke(call))
        assert isinstance(messages[-1], ToolMessage)
    assert "In Bogotá." == agent.invoke(messages).content
    _, called, *results = upstream.requests[1].json["messages"]
    assert calls == called["tool_calls"]
    answered = {result["tool_call_id"]: result["content"] for result in results}
    assert {call: f"20° C in {city}" for call, city in cities.items()} == answered
    function = upstream.requests[0].json["tools"][0]["function"]
    assert ["unit", "city"] == list(function["parameters"]["properties"])


def test_bound_tools_are_called_in_a_stream(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """The pieces of parallel calls are merged by index."""
    upstream.answer(vendor.calls_in_pieces(vendor.PARALLEL_CALLS))
    non_streaming = _sum(chat.bind_tools([get_weather]).stream(PAIR))
    expected = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in vendor.PARALLEL_CALLS
    ]
    assert expected == [(call["id"], call["name"], call["args"]) for call in non_streaming.tool_calls]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_is_an_object(chat: ChatOpenAI, upstream: ScriptedUpstream, method: Any) -> None:
    """Structured output works by schema, by tool call and by JSON mode; field order reaches the upstream."""
    text = json.dumps(JOKE)
    call = {"id": "call_1", "type": "function", "function": {"name": "Joke", "arguments": text}}
    choice = vendor.choice(None, tool_calls=[call]) if method == "function_calling" else vendor.choice(text)
    upstream.answer(vendor.complete_answer(choice))
    assert Joke(**JOKE) == chat.with_structured_output(Joke, method=method).invoke(PAIR)
    sent = upstream.requests[0].json
    if method == "json_mode":
        assert {"type": "json_object"} == sent["response_format"]
    elif method == "json_schema":
        assert list(JOKE) == list(sent["response_format"]["json_schema"]["schema"]["properties"])
    else:
        assert list(JOKE) == list(sent["tools"][0]["function"]["parameters"]["properties"])
        assert {"type": "function", "function": {"name": "Joke"}} == sent["tool_choice"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's own, at the object that it has made
def test_structured_output_streams(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """The object is at the end of a stream of its JSON."""
    text = json.dumps(JOKE)
    upstream.answer(vendor.text(text[:9], text[9:]))
    *_, last = chat.with_structured_output(Joke).stream(PAIR)
    assert Joke(**JOKE) == last


def test_parameters_and_failures_are_openais(chat: ChatOpenAI, upstream: ScriptedUpstream) -> None:
    """Bound parameters reach the upstream, and failures raise OpenAI's errors."""
    chat.bind(temperature=0, stop=["END"], seed=7, max_tokens=9).invoke(PAIR)
    sent = upstream.requests[0].json
    assert (0, ["END"], 7) == (sent["temperature"], sent["stop"], sent["seed"])
    assert 9 in {sent.get("max_tokens"), sent.get("max_completion_tokens")}
    upstream.answer(Json(vendor.error("Slow down", "requests"), 429, {"Retry-After": "1"}))
    with pytest.raises(openai.RateLimitError):
        chat.invoke(PAIR)


def _arguments(city: str) -> str:
    """Serializes arguments as LangChain does."""
    return json.dumps({"unit": "C", "city": city}, ensure_ascii=False)


def _sum(chunks: Iterable[AIMessage]) -> AIMessageChunk:
    """Adds up chunks as chains do."""
    non_streaming: Any = None
    for chunk in chunks:
        non_streaming = chunk if non_streaming is None else non_streaming + chunk
    assert isinstance(non_streaming, AIMessageChunk)
    return non_streaming
