"""parley-client against the real server: tool loops, and the schemas of functions."""

import enum
import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import pytest

from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley_client import Client, ToolError, TooManyRoundsError
from parley_client.tools import Loop, schema
from parley_client.v1.message_pb2 import FunctionCall, ToolCall
from tests.rpc.conftest import Worker
from tests.rpc.scripted import completion


class Unit(enum.Enum):
    """A unit of temperature."""

    CELSIUS = "C"
    KELVIN = "K"


class Measure(TypedDict):
    """A measure."""

    unit: Unit


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
        ("get_weather", "[" * 100_000, "the arguments are invalid: they are nested too deeply"),
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
    """A model that calls tools without end is stopped after the most rounds; its last calls have no effects."""
    cities = []

    def get_weather(city: str) -> None:
        cities.append(city)

    worker.backend.answer = lambda _: calling(("get_weather", '{"city":"Paris"}'))
    with pytest.raises(TooManyRoundsError, match="get_weather"):
        client.chat.run("How warm?", [get_weather], model="stateless", max_rounds=2)
    assert (3, ["Paris", "Paris"]) == (len(worker.backend.calls), cities)


def test_errors_of_the_program_propagate(worker: Worker, client: Any) -> None:
    """Any other exception of a function is raised to the caller of the loop; a session has its id then."""

    def get_weather(city: str) -> str:
        raise LookupError(city)

    worker.backend.answer = lambda _: calling(("get_weather", '{"city":"Paris"}'))
    with pytest.raises(LookupError, match="Paris"):
        client.chat.run("How warm?", [get_weather], model="stateless")
    session = client.sessions.open(model="kept")
    with pytest.raises(LookupError, match="Paris"):
        session.run("How warm?", [get_weather])
    assert 1 == client.sessions.get(session.id).turn_count


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

    def unnamed(**value: int) -> None: ...

    with pytest.raises(TypeError, match="`value` of untyped"):
        schema(untyped)
    with pytest.raises(TypeError, match=r"strange\(value\)"):
        schema(strange)
    with pytest.raises(TypeError, match="`value` of unnamed cannot be passed by name"):
        schema(unnamed)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Unit | None, "K", Unit.KELVIN),
        (Unit | None, None, None),
        (Unit | str, "F", "F"),
        (list[Unit] | None, ["K", "C"], [Unit.KELVIN, Unit.CELSIUS]),
        (Measure, {"unit": "K"}, {"unit": Unit.KELVIN}),
        (Unit | None, "F", {"error": "'F' is not a valid Unit"}),
    ],
)
def test_enums_are_converted_wherever_the_type_hint_has_them(hint: Any, value: Any, expected: Any) -> None:
    """A value of an enum is its member, also in unions, lists and objects; another value is an error for the model."""

    def tool(value: Any) -> Any:
        return value

    tool.__annotations__["value"] = hint
    call = ToolCall(function=FunctionCall(name="tool", arguments=json.dumps({"value": value})))
    assert expected == Loop("Hi", [tool], None, 1).call(call)


def test_unsuitable_functions_are_rejected_before_the_call() -> None:
    """A coroutine function, which nothing would await, and two functions of one name are errors."""

    async def tool() -> None: ...

    with Client("127.0.0.1:1", key="sk-key") as client:
        with pytest.raises(TypeError, match="tool is a coroutine function"):
            client.chat.run("Hi", [tool])
        with pytest.raises(TypeError, match="two tools have the same name"):
            client.chat.run("Hi", [get_weather, get_weather])
