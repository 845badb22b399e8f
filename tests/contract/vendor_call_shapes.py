"""Shapes of tool calls in streams of compatible servers."""

from typing import Any

from tests.contract.vendor_shapes import ARGUMENTS, GENERATED, TOOL, Shape
from tests.upstream import chunk


def called(index: int | None, **fields: Any) -> dict[str, Any]:
    """Creates a chunk with a fragment of a tool call, from the given `id`, `name` and `arguments`."""
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    position = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**position, **fields, "function": function}]})


def tool(call_id: str | None, name: str = TOOL, arguments: Any = ARGUMENTS) -> dict[str, Any]:
    """Creates a tool call of a complete response."""
    identity = {} if call_id is None else {"id": call_id}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}


_CALLED: dict[str, Any] = {"content": None}
_BOTH = (("a", "f", '{"x":1}'), ("b", "g", '{"y":2}'))
_ONE = (("a", TOOL, ARGUMENTS),)
_MADE = ((GENERATED, TOOL, ARGUMENTS),)
_SPLIT = r'data: {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "%s"}}]}}]}'
CALLS: dict[str, Shape] = {
    "OpenAI": Shape(
        [
            called(0, id="a", type="function", name=TOOL, arguments=""),
            *(called(0, arguments=part) for part in ARGUMENTS),
        ],
        _CALLED,
        {"content": None, "tool_calls": [tool("a")]},
        _ONE,
    ),
    "the same index, other ids (Ollama)": Shape(
        [called(0, id="a", name="f", arguments='{"x":1}'), called(0, id="b", name="g", arguments='{"y":2}')],
        _CALLED,
        {"tool_calls": [tool("a", "f", '{"x":1}'), tool("b", "g", '{"y":2}')]},
        _BOTH,
    ),
    "the same index and name, other ids": Shape(
        [called(0, id="a", name="f", arguments='{"x":1}'), called(0, id="b", name="f", arguments='{"x":1}')],
        _CALLED,
        {"tool_calls": [tool("a", "f", '{"x":1}'), tool("b", "f", '{"x":1}')]},
        (("a", "f", '{"x":1}'), ("b", "f", '{"x":1}')),
    ),
    "neither index nor id": Shape(
        [called(None, name="f", arguments='{"x":1}'), called(None, name="g", arguments='{"y":2}')],
        _CALLED,
        {"tool_calls": [tool(None, "f", '{"x":1}'), tool(None, "g", '{"y":2}')]},
        ((GENERATED, "f", '{"x":1}'), (GENERATED, "g", '{"y":2}')),
    ),
    "neither index nor id, without arguments": Shape(
        [called(None, name="f"), called(None, name="g", arguments=None)],
        _CALLED,
        {"tool_calls": [tool(None, "f", None), tool(None, "g", "")]},
        ((GENERATED, "f", "{}"), (GENERATED, "g", "{}")),
    ),
    "the same function twice, neither index nor id": Shape(
        [called(None, name="f", arguments='{"x":1}'), called(None, name="f", arguments='{"x":2}')],
        _CALLED,
        {"tool_calls": [tool(None, "f", '{"x":1}'), tool(None, "f", '{"x":2}')]},
        ((GENERATED, "f", '{"x":1}'), (GENERATED, "f", '{"x":2}')),
    ),
    "two in one delta, without index": Shape(
        [chunk({"tool_calls": [tool("a", "f", '{"x":1}'), tool("b", "g", '{"y":2}')]})],
        _CALLED,
        {"tool_calls": [tool("a", "f", '{"x":1}'), tool("b", "g", '{"y":2}')]},
        _BOTH,
    ),
    "pieces of two calls by turns": Shape(
        [
            called(0, id="a", name="f", arguments='{"x"'),
            called(1, id="b", name="g", arguments='{"y"'),
            called(0, arguments=":1}"),
            called(1, arguments=":2}"),
        ],
        _CALLED,
        calls=_BOTH,
    ),
    "id and name in each chunk": Shape(
        [called(0, id="a", type="function", name=TOOL, arguments=part) for part in ('{"ci', 'ty":', '"Bern"}')],
        _CALLED,
        calls=_ONE,
    ),
    "the name in each chunk, no id": Shape(
        [called(0, name=TOOL, arguments=part) for part in ('{"ci', 'ty":', '"Bern"}')], _CALLED, calls=_MADE
    ),
    "the name in each chunk, neither id nor index": Shape(
        [called(None, name=TOOL, arguments=part) for part in ('{"ci', 'ty":', '"Bern"}')], _CALLED, calls=_MADE
    ),
    "another id in each chunk (Poolside, old vLLM)": Shape(
        [
            called(0, id="a", name=TOOL, arguments=""),
            *(called(0, id=f"{n}", arguments=c) for n, c in enumerate(ARGUMENTS)),
        ],
        _CALLED,
        calls=_ONE,
    ),
    "another index in each chunk": Shape(
        [called(n, id="a", **({} if n else {"name": TOOL}), arguments=c) for n, c in enumerate(ARGUMENTS)],
        _CALLED,
        calls=_ONE,
    ),
    "arguments at an index that no call has": Shape(
        [called(0, id="a", name=TOOL), called(1, arguments=ARGUMENTS)], _CALLED, calls=_ONE
    ),
    "the same id for every call": Shape(
        [called(0, id="a", name="f", arguments='{"x":1}'), called(1, id="a", name="g", arguments='{"y":2}')],
        _CALLED,
        {"tool_calls": [tool("a", "f", '{"x":1}'), tool("a", "g", '{"y":2}')]},
        (("a", "f", '{"x":1}'), (GENERATED, "g", '{"y":2}')),
    ),
    "the complete call repeated at the end": Shape(
        [called(0, id="a", name=TOOL, arguments=ARGUMENTS), called(0, id="a", name=TOOL, arguments=ARGUMENTS)],
        _CALLED,
        calls=_ONE,
    ),
    "a name bit by bit": Shape(
        [called(0, id="a", name="get_"), called(0, name="weather"), called(0, arguments=ARGUMENTS)], _CALLED, calls=_ONE
    ),
    "a name in pieces, of a tool that was not offered": Shape(
        [called(0, id="a", name="get_"), called(0, name="moon"), called(0, arguments="{}")],
        _CALLED,
        calls=(("a", "get_moon", "{}"),),
    ),
    "a growing prefix of the name": Shape(
        [
            called(0, id="a", name="get_"),
            called(0, id="a", name=TOOL),
            called(0, id="a", name=TOOL, arguments=ARGUMENTS),
        ],
        _CALLED,
        calls=_ONE,
    ),
    "id first, then the name": Shape(
        [called(0, id="a"), called(0, name=TOOL), called(0, arguments=ARGUMENTS)], _CALLED, calls=_ONE
    ),
    "name first, then the id": Shape(
        [called(0, name="get_"), called(0, id="a", name="weather", arguments=ARGUMENTS)], _CALLED, calls=_ONE
    ),
    "no id (llama.cpp)": Shape(
        [called(0, name=TOOL, arguments=ARGUMENTS)], _CALLED, {"tool_calls": [tool(None)]}, _MADE
    ),
    "an empty id": Shape(
        [called(0, id="", name=TOOL, arguments=ARGUMENTS)], _CALLED, {"tool_calls": [tool("")]}, _MADE
    ),
    "arguments as an object": Shape(
        [called(0, id="a", name=TOOL, arguments={"city": "Bern", "n": 12345678901234567890123, "x": 1.50})],
        _CALLED,
        {"tool_calls": [tool("a", arguments={"city": "Bern", "n": 12345678901234567890123, "x": 1.50})]},
        (("a", TOOL, '{"city":"Bern","n":12345678901234567890123,"x":1.5}'),),
    ),
    "arguments that are null": Shape(
        [called(0, id="a", name=TOOL, arguments=None)],
        _CALLED,
        {"tool_calls": [tool("a", arguments=None)]},
        (("a", TOOL, "{}"),),
    ),
    "an empty object before the arguments": Shape(
        [called(0, id="a", name=TOOL, arguments="{}"), called(0, arguments=ARGUMENTS)], _CALLED, calls=_ONE
    ),
    "name and arguments beside the id": Shape(
        [chunk({"tool_calls": [{"index": 0, "id": "a", "name": TOOL, "arguments": ARGUMENTS}]})],
        _CALLED,
        {"tool_calls": [{"id": "a", "name": TOOL, "arguments": ARGUMENTS}]},
        _ONE,
    ),
    "the bytes of a character in two pieces": Shape(
        [
            called(0, id="a", name=TOOL, arguments=""),
            _SPLIT % r"{\"c\":\"\ud83d" + "\n\n",
            _SPLIT % r"\ude00\"}" + "\n\n",
        ],
        _CALLED,
        calls=(("a", TOOL, '{"c":"\U0001f600"}'),),
    ),
}
