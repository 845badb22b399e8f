"""From a conversation to the messages of Anthropic's Messages API.

System messages become the one system prompt. Everyone else's words become blocks of `user` and `assistant` messages in
turn: what neighbours of one side say is one message, so all results of one round of tool calls stand in one. Empty
texts are left out, as the API refuses them. Reasoning of earlier turns is left out: the API takes none without its
signature. (Messages API reference: messages, tool use, vision, PDF support.)
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

from google.protobuf.struct_pb2 import Value

from parley.backends.json_text import exact
from parley.backends.limits import unsupported
from parley.core.errors import InvalidRequest, UnsupportedParameter
from parley.core.plain import from_value
from parley.core.ports import UpstreamCall
from parley.v1.message_pb2 import Message, ToolCall

Block = dict[str, Any]

_IMAGES = {"image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_DETAILS = frozenset({None, "auto", "high"})  # an image is always read as finely as the model can


def conversation(call: UpstreamCall) -> tuple[list[Block], list[Block]]:
    """Returns the system prompt's blocks, and the messages. Raises InvalidRequest, UnsupportedParameter."""
    writer = _Writer(call.request.model)
    for index, message in enumerate(call.request.messages):
        writer.add(message, f"messages[{index}]")
    if not call.continues and writer.messages and writer.messages[-1]["role"] == "assistant":
        raise _goes_on(call.request.model, len(call.request.messages) - 1)
    return writer.system, writer.messages


def _goes_on(model: str, index: int) -> UnsupportedParameter:
    text = (
        f'The model "{model}" goes on from an assistant message at the end, and cannot answer it;'
        " set `continue_final_message`, or end with a message of the user"
    )
    return UnsupportedParameter(text, param=f"messages[{index}].role")


class _Writer:
    """Writes one conversation down, message by message. `model` is the caller's name for the model."""

    def __init__(self, model: str) -> None:
        self.system: list[Block] = []
        self.messages: list[Block] = []
        self._model = model

    def add(self, message: Message, place: str) -> None:
        """Adds a message; `place` is where it stands in the request."""
        self._refuse(message, place)
        if message.role in ("system", "developer"):
            self.system += self._content(message.content, place, {"text": _text})
        elif message.role == "tool":
            self._say("user", [self._result(message, place)])
        elif message.role == "user":
            self._say("user", self._content(message.content, place, _PARTS))
        else:
            self._say("assistant", self._assistant(message, place))

    def _say(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _refuse(self, message: Message, place: str) -> None:
        """Raises UnsupportedParameter for what has no counterpart. A tool's name is known from its call."""
        fields: tuple[Literal["name", "audio", "function_call"], ...] = ("name", "audio", "function_call")
        for name in fields:
            if message.HasField(name) and not (name == "name" and message.role == "tool"):
                raise unsupported(f"`{place}.{name}`", self._model, f"{place}.{name}")
        if message.role == "function":
            raise unsupported("A message of the role `function`", self._model, f"{place}.role")

    def _assistant(self, message: Message, place: str) -> list[Block]:
        blocks = self._content(message.content, place, {"text": _text, "refusal": _text})
        if message.refusal.strip():
            blocks.append({"type": "text", "text": message.refusal})
        calls = enumerate(message.tool_calls)
        return blocks + [self._call(call, f"{place}.tool_calls[{index}]") for index, call in calls]

    def _call(self, call: ToolCall, place: str) -> Block:
        if call.type == "custom":
            raise unsupported("A tool call of the type `custom`", self._model, f"{place}.type")
        text = call.function.arguments
        arguments = exact(text, f"{place}.function.arguments") if text.strip() else {}
        return {"type": "tool_use", "id": _call_id(call.id), "name": call.function.name, "input": arguments}

    def _result(self, message: Message, place: str) -> Block:
        result = {"type": "tool_result", "tool_use_id": _call_id(message.tool_call_id)}
        blocks = self._content(message.content, place, _PARTS)
        return result | {"content": blocks} if blocks else result

    def _content(self, content: Value, place: str, parts: "_Parts") -> list[Block]:
        """Returns the blocks of a message's content, where these types of parts may stand."""
        if content.HasField("string_value"):
            return _not_empty([{"type": "text", "text": content.string_value}])
        blocks = []
        for index, part in enumerate(from_value(content) or ()):
            at = f"{place}.content[{index}]"
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in parts:
                raise unsupported(f"A content part of the type `{kind}`", self._model, f"{at}.type")
            blocks.append(self._part(part, kind, at, parts[kind]))
        return _not_empty(blocks)

    def _part(self, part: Block, kind: str, at: str, convert: "_Convert") -> Block:
        """Returns a part's block. `cache_control` is Anthropic's own, and goes along where a caller sets it."""
        for key in sorted(part.keys() - {"type", kind, "cache_control"}):
            raise unsupported(f"`{at}.{key}`", self._model, f"{at}.{key}")
        block = convert(part.get(kind), f"{at}.{kind}", self._model)
        return block | {"cache_control": part["cache_control"]} if "cache_control" in part else block


_Convert = Callable[[Any, str, str], Block]
_Parts = dict[str, _Convert]


def _not_empty(blocks: Iterable[Block]) -> list[Block]:
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def _call_id(name: str) -> str:
    """Returns the id of a tool call in the letters that the API takes; another vendor may have made it."""
    return _NOT_IN_AN_ID.sub("_", name)


def _text(text: Any, place: str, _model: str) -> Block:
    return {"type": "text", "text": _string(text, place)}


def _image(image: Any, place: str, model: str) -> Block:
    image = _object(image, place, {"url", "detail"}, model)
    if image.get("detail") not in _DETAILS:
        raise unsupported(f"`{place}.detail` other than auto and high", model, f"{place}.detail")
    url = _string(image.get("url"), f"{place}.url")
    if url[:5].lower() != "data:":
        return {"type": "image", "source": {"type": "url", "url": url}}
    media, data = _data(url, f"{place}.url")
    if media not in _IMAGES:
        raise unsupported(f"An image of the type `{media}`", model, f"{place}.url")
    return {"type": "image", "source": {"type": "base64", "media_type": media.replace("/jpg", "/jpeg"), "data": data}}


def _file(file: Any, place: str, model: str) -> Block:
    file = _object(file, place, {"file_data", "filename"}, model)
    media, data = _data(_string(file.get("file_data"), f"{place}.file_data"), f"{place}.file_data")
    if media != "application/pdf":
        raise unsupported(f"A file of the type `{media}`", model, f"{place}.file_data")
    block = {"type": "document", "source": {"type": "base64", "media_type": media, "data": data}}
    return block | {"title": file["filename"]} if file.get("filename") else block


_PARTS: _Parts = {"text": _text, "image_url": _image, "file": _file}


def _object(value: Any, place: str, known: set[str], model: str) -> dict[str, Any]:
    """Returns an object. Raises UnsupportedParameter for keys that have no counterpart."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"`{place}` is required and must be an object", param=place)
    for key in sorted(value.keys() - known):
        raise unsupported(f"`{place}.{key}`", model, f"{place}.{key}")
    return value


def _string(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"`{place}` is required and must be a string", param=place)
    return value


def _data(url: str, place: str) -> tuple[str, str]:
    """Returns the media type and the base64 of a `data:` URL."""
    match = _DATA_URL.match(url)
    if match is None:
        raise InvalidRequest(f"`{place}` must be a URL of the form data:TYPE;base64,…", param=place)
    return (match[1] or "text/plain").lower(), url[match.end() :]
