"""parley-client against the real server: tool loops, and the schemas of functions."""

import enum
import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import pytest

from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley_client import ToolError, TooManyRoundsError
from parley_client.tools import schema
from tests.rpc.conftest import Worker
from tests.rpc.scripted import completion


class Unit(enum.Enum):
    """A unit of temperature."""

    CELSIUS = "C"
    KELVIN = "K"


class Place(TypedDict):
    """A place."""

    city: str


def get_weather(city: str, unit: Unit = Unit.CELSIUS) -> dict[str, Any]:
    """Returns the weather of a city.

    Args:
        city: The city's name.
        unit: The unit of the temperature.

    Returns:
        The weather.
    """
    if city == "Atlantis":
        raise ToolError("there is no such city")
    return {"city": city, "temperature": 21, "unit": unit.value}


def calling(*calls: tuple[str, str]) -> ChatCompletion:
    """Returns an answer that calls functions: names and arguments."""
    answer = completion("")
    answer.choices[0].finish_reason = "tool_calls"
    for place, (name, arguments) in enumerate(calls):
        call = answer.choices[0].message.tool_calls.add(id=f"call-{place}", type="function")
        call.function.name, call.function.arguments = name, arguments
    return answer


def results(call: UpstreamCall) -> list[Any]:
    """Returns the results of tools that a model has received."""
    tools = [one for one in call.request.messages if one.role == "tool"]
    return [json.loads(one.content.string_value) for one in tools]


@pytest.mark.parametrize("model", ["kept", "stateless"])
def test_functions_are_called_until_the_model_answers(worker: Worker, client: Any, model: str) -> None:
    """Each round sends the results of all calls; the last answer is returned, with sessions and without."""
    cities = ('{"city":"Paris","unit":"K"}', '{"city":"Rome"}')
    answers = [
        calling(*(("get_weather", city) for city in cities)),
        calling(("get_weather", cities[0])),
        completion("21"),
    ]
    worker.backend.answer = lambda _: answers.pop(0)
    assert "21" == client.chat.run("How warm?", [get_weather], model=model).text
    last = worker.backend.calls[-1]
    assert ["Paris", "Rome", "Paris"] == [result["city"] for result in results(last)]
    assert ["K", "C", "K"] == [result["unit"] for result in results(last)]
    assert ["user", "assistant", "tool", "tool", "assistant", "tool"] == [one.role for one in last.request.messages]
    assert "get_weather" == last.request.tools[0].function.name


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("get_weather", '{"city":"Atlantis"}', "there is no such city"),
        ("get_weather", '{"town":"Paris"}', "the arguments are invalid: missing a required argument: 'city'"),
        ("get_weather", '{"city":', "the arguments are invalid: Expecting value"),
        ("get_weather", '{"city":"Paris","unit":"F"}', "'F' is not a valid Unit"),
        ("get_time", "{}", "there is no tool get_time"),
    ],
)
def test_the_model_is_sent_its_mistakes(worker: Worker, client: Any, name: str, arguments: str, error: str) -> None:
    """Wrong arguments, unknown tools and ToolErrors are results, which the model may correct."""
    answers = [calling((name, arguments)), completion("Sorry")]
    worker.backend.answer = lambda _: answers.pop(0)
    assert "Sorry" == client.chat.run("How warm?", [get_weather], model="stateless").text
    assert results(worker.backend.calls[-1])[0]["error"].startswith(error)


def test_rounds_are_bounded(worker: Worker, client: Any) -> None:
    """A model that calls tools without end is stopped after the most rounds."""
    worker.backend.answer = lambda _: calling(("get_weather", '{"city":"Paris"}'))
    with pytest.raises(TooManyRoundsError, match="get_weather"):
        client.chat.run("How warm?", [get_weather], model="stateless", max_rounds=2)
    assert 3 == len(worker.backend.calls)


def test_errors_of_the_program_propagate(worker: Worker, client: Any) -> None:
    """Any other exception of a function is raised to the caller of the loop."""

    def get_weather(city: str) -> str:
        raise LookupError(city)

    worker.backend.answer = lambda _: calling(("get_weather", '{"city":"Paris"}'))
    with pytest.raises(LookupError, match="Paris"):
        client.chat.run("How warm?", [get_weather], model="stateless")


def test_a_schema_is_that_of_the_type_hints() -> None:
    """The schema has types, descriptions and required parameters."""
    assert {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Returns the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name."},
                    "unit": {"enum": ["C", "K"], "description": "The unit of the temperature."},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    } == schema(get_weather)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (dict[str, Any], {"type": "object"}),
        (Mapping[str, int], {"type": "object"}),
        (Place, {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
        (Any, {}),
    ],
)
def test_type_hints_have_schemas(hint: Any, expected: dict[str, Any]) -> None:
    """Each supported type hint has a schema."""

    def tool(value: Any) -> None: ...

    tool.__annotations__["value"] = hint
    assert expected == schema(tool)["function"]["parameters"]["properties"]["value"]


def test_a_parameter_without_a_schema_is_named() -> None:
    """A parameter without a type hint, or with one that has no schema, is an error that names it."""

    def untyped(value): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202

    def strange(value: object) -> None: ...

    with pytest.raises(TypeError, match="`value` of untyped"):
        schema(untyped)
    with pytest.raises(TypeError, match=r"strange\(value\)"):
        schema(strange)
