"""Assignment of streamed fragments to tool calls.

OpenAI identifies calls by `index`, and sends id and name once. Other servers send the same index for every call or
none, repeat id and name in each fragment, send a new id with each fragment, or send a name in pieces, each alone or
with the previous ones. Here a call begins with a new id beside a name, with another name, or with a second JSON object
after complete arguments.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import uuid4

import orjson

from parley.backends.errors.classifier import MalformedResponse
from parley.backends.lenient_json import Source, count, repair_surrogates, text_or_none
from parley.core.messages import extra_fields
from parley.v1.message_pb2 import ToolCallDelta

NO_ARGUMENTS = "{}"
_KNOWN = frozenset({"index", "id", "type", "function", "custom"})
_KNOWN_CALLED = {"arguments": frozenset({"name", "arguments"}), "input": frozenset({"name", "input"})}
_OPENING = ("{", "[")


def new_id() -> str:
    """Returns a new id, for a call without one."""
    return f"call_{uuid4().hex[:24]}"


class Fragment:
    """One entry of `tool_calls`.

    Args:
        data: The entry, or the message with a deprecated `function_call`.
        source: The JSON text that it comes from.
        path: The path of `data` in `source`.
        field: The member with the function: `function`, or `function_call`.
    """

    def __init__(self, data: Mapping[str, Any], source: Source, *path: str | int, field: str = "function") -> None:
        self.is_custom = isinstance(data.get("custom"), dict)
        field = "custom" if self.is_custom else field
        function, place, known = data.get(field) or {}, (*path, field), _KNOWN
        if not isinstance(function, dict):
            raise TypeError("a called function is not an object")
        name = "input" if self.is_custom else "arguments"
        if not function and "name" in data:  # name and arguments are beside the id
            function, place, known = data, path, _KNOWN | _KNOWN_CALLED[name]
        self.index = count(data.get("index"))
        self.id = text_or_none(data.get("id"))
        self.type = text_or_none(data.get("type"))
        self.has_function = bool(function)
        self.name = text_or_none(function.get("name"))
        text = function.get(name)
        self.text: str = text if isinstance(text, str) else _text(text, source, *place, name)
        self.extra = source.unknown(data, known, *path) if field != "function_call" else {}
        self.called_extra = {} if function is data else source.unknown(function, _KNOWN_CALLED[name], *place)


def _text(value: Any, source: Source, *path: str | int) -> str:
    """Returns arguments as text; some servers send a JSON object."""
    return "" if value is None else extra_fields.dumps(source.at(*path))


class _Call:
    """A call, as far as it was received."""

    def __init__(self, index: int, fragment: Fragment, call_id: str | None) -> None:
        self.index = index
        self.id = call_id
        self.given_id = fragment.id
        self.type = fragment.type or ("custom" if fragment.is_custom else "function")
        self.is_custom = fragment.is_custom
        self.has_function = fragment.has_function or self.type in {"function", "custom"}
        self.is_empty = False  # its arguments are an empty object, which may be a placeholder
        self.name = ""
        self.text: list[str] = []
        self.buffered = ""  # the first part of a split character at the end of the text
        self.is_announced = False

    def is_complete(self) -> bool:
        """Reports whether the text is a complete JSON value, so that nothing can follow it."""
        if self.is_empty:
            return True
        text = "".join(self.text)
        self.text = [text]
        if not text.rstrip().endswith(("}", "]")):
            return False
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return False
        return True


class ToolCalls:
    """The tool calls of one choice.

    Args:
        names: The names of the tools that the request offers.
    """

    def __init__(self, names: AbstractSet[str] = frozenset()) -> None:
        self._names = names
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._last: _Call | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragment: Fragment) -> list[ToolCallDelta]:
        """Returns the deltas for a fragment, after those that were buffered before it. Raises MalformedResponse."""
        out: list[ToolCallDelta] = []
        call = self._find(fragment)
        if call is None:
            out += self.close()
            call = self._begin(fragment)
        elif call is not self._last:
            out += self._announce(self._last) if self._last else []
        self._last = call
        if fragment.index is not None:
            self._by_index[fragment.index] = call
        if fragment.name:
            self._add_name(call, fragment.name)
        call.is_custom = call.is_custom or fragment.is_custom
        out += self._add_fragment(call, fragment)
        return out

    def close(self) -> list[ToolCallDelta]:
        """Ends the latest call; without arguments it gets an empty object. Raises MalformedResponse without a name."""
        call = self._last
        if call is None:
            return []
        out = self._announce(call)
        rest = "\ufffd" if call.buffered else ""
        call.buffered = ""
        if not (call.text or rest) and call.has_function and not call.is_custom:
            rest = NO_ARGUMENTS
        if rest:
            call.text.append(rest)
            out.append(_delta(call, rest))
        return out

    def end(self) -> list[ToolCallDelta]:
        """Ends every call. Raises MalformedResponse for a call without a name."""
        out: list[ToolCallDelta] = []
        for call in self._calls:
            self._last = call
            out += self.close()
        return out

    def _find(self, fragment: Fragment) -> _Call | None:
        """Returns the call that a fragment belongs to; None if it begins a call."""
        call = self._by_id.get(fragment.id) if fragment.id else None
        if call is None:
            call = self._last if fragment.index is None else self._by_index.get(fragment.index)
            if call is None and not (fragment.id or fragment.name):
                call = self._last
            if (
                call is not None
                and fragment.id
                and call.given_id
                and fragment.name
                and not _continues_call(call, fragment)
            ):
                return None
        return call if call is not None and self._belongs_to(call, fragment) else None

    def _belongs_to(self, call: _Call, fragment: Fragment) -> bool:
        """Reports whether a fragment belongs to a candidate call, by its name and its text."""
        if not fragment.name or not call.name:
            return True
        if fragment.name != call.name:
            return not call.text and not call.is_empty and self._continues_name(call, fragment)
        if fragment.text.startswith(_OPENING) and call.is_complete():
            return bool(fragment.id) and fragment.text == "".join(call.text)
        return True

    def _continues_name(self, call: _Call, fragment: Fragment) -> bool:
        """Reports whether a different name is a piece of the call's name: the next piece, or all pieces so far."""
        if fragment.name is None or fragment.name.startswith(call.name):
            return True
        joined = call.name + fragment.name
        if any(name.startswith(joined) for name in self._names):
            return True
        if call.name in self._names or fragment.name in self._names:
            return False
        return fragment.index is not None or bool(fragment.id)

    def _begin(self, fragment: Fragment) -> _Call:
        known = fragment.id in self._by_id  # a server that sends the same id for every call
        call = _Call(len(self._calls), fragment, new_id() if known or not fragment.id else fragment.id)
        self._calls.append(call)
        if fragment.id and not known:
            self._by_id[fragment.id] = call
        return call

    def _add_name(self, call: _Call, name: str) -> None:
        if name == call.name or call.is_announced:
            return
        call.name = name if name.startswith(call.name) else call.name + name

    def _add_fragment(self, call: _Call, fragment: Fragment) -> list[ToolCallDelta]:
        if fragment.id and call.given_id is None:
            call.given_id = fragment.id
            if not call.is_announced:
                call.id = fragment.id
                self._by_id[fragment.id] = call
        text = fragment.text
        call.is_empty = not call.text and text == NO_ARGUMENTS
        if call.is_empty:
            text = ""  # until the end shows that no other arguments follow
        if text and fragment.id and fragment.name and text == "".join(call.text) and call.is_complete():
            text = ""  # a repetition of the complete call
        if text:
            text, call.buffered = (
                repair_surrogates(call.buffered + text) if call.buffered or not text.isascii() else (text, "")
            )
        if text:
            call.text.append(text)
        has_more = text or fragment.extra or fragment.called_extra
        if not has_more and not self._is_named(call):
            return []
        out = self._announce(call) if call.name or not call.has_function else []
        if has_more:
            delta = out[-1] if out else _delta(call)
            _add(delta, call, text, fragment)
            out = out or [delta]
        return out

    def _is_named(self, call: _Call) -> bool:
        """Reports whether a name is an offered one, and not the beginning of another."""
        if call.name not in self._names:
            return False
        return not any(name != call.name and name.startswith(call.name) for name in self._names)

    def _announce(self, call: _Call) -> list[ToolCallDelta]:
        """Returns the first delta of a call, with id, type and name, if it was not sent. Raises MalformedResponse."""
        if call.is_announced:
            return []
        if call.has_function and not call.name:
            raise MalformedResponse("a tool call has no name")
        call.is_announced = True
        delta = ToolCallDelta(index=call.index, id=call.id, type=call.type)
        if call.is_custom:
            delta.custom.name, delta.custom.input = call.name, ""
        elif call.has_function:
            delta.function.name, delta.function.arguments = call.name, ""
        return [delta]


def _continues_call(call: _Call, fragment: Fragment) -> bool:
    """Reports whether a fragment with another id belongs to a call: same name, and text that is not complete."""
    is_same = fragment.name == call.name and fragment.index is not None
    return is_same and bool(call.text) and not fragment.text.startswith(_OPENING) and not call.is_complete()


def _delta(call: _Call, text: str = "") -> ToolCallDelta:
    delta = ToolCallDelta(index=call.index)
    if text:
        _append(delta, call, text)
    return delta


def _add(delta: ToolCallDelta, call: _Call, text: str, fragment: Fragment) -> None:
    if text:
        _append(delta, call, text)
    if fragment.extra:
        delta.extra_json = extra_fields.dumps(fragment.extra)
    if fragment.called_extra:
        function = delta.custom if call.is_custom else delta.function
        function.extra_json = extra_fields.dumps(fragment.called_extra)


def _append(delta: ToolCallDelta, call: _Call, text: str) -> None:
    if call.is_custom:
        delta.custom.input += text
    else:
        delta.function.arguments += text
