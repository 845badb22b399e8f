"""Converts content parts to the content blocks of Anthropic's Messages API.

Parts of OpenAI's types are translated; blocks of Anthropic's types are sent unchanged. Source: Messages API reference;
vision, PDF support, search results, citations.
"""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.struct_pb2 import Value

from parley.backends.capabilities import unsupported
from parley.core.errors import InvalidRequest
from parley.core.messages.proto_json import from_value

Block = dict[str, Any]

_IMAGES = {"image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_DETAILS = frozenset({None, "auto", "high"})  # images are always processed in the highest detail
_NATIVE = frozenset({"image", "document", "search_result", "container_upload", "tool_reference"})
_Convert = Callable[[Any, str, str], Block]
Parts = dict[str, _Convert]


def content_blocks(
    content: Value, path: str, model: str, parts: Parts, native: frozenset[str] = _NATIVE
) -> list[Block]:
    """Converts a message's content; empty texts are dropped because the API rejects them.

    Args:
        content: A string or a list of parts.
        path: Path of the message in the request, for errors.
        model: The caller's name for the model, for errors.
        parts: Converters of the accepted part types.
        native: Accepted block types of Anthropic.

    Raises:
        InvalidRequest: If a part is invalid.
        UnsupportedParameter: If a part's type or one of its fields has no equivalent.
    """
    if content.HasField("string_value"):
        return _not_empty([{"type": "text", "text": content.string_value}])
    blocks = []
    for index, part in enumerate(from_value(content) or ()):
        at = f"{path}.content[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in parts:
            blocks.append(_part(part, kind, at, model, parts[kind]))
        elif kind in native:
            blocks.append(part)
        else:
            raise unsupported(f"A content part of the type `{kind}`", model, f"{at}.type")
    return _not_empty(blocks)


def _part(part: Block, kind: str, at: str, model: str, convert: _Convert) -> Block:
    """Converts a part; `cache_control`, an Anthropic field, is copied."""
    for key in sorted(part.keys() - {"type", kind, "cache_control"}):
        raise unsupported(f"`{at}.{key}`", model, f"{at}.{key}")
    block = convert(part.get(kind), f"{at}.{kind}", model)
    return block | {"cache_control": part["cache_control"]} if "cache_control" in part else block


def _not_empty(blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def _text(text: Any, path: str, _model: str) -> Block:
    return {"type": "text", "text": _string(text, path)}


def _image(image: Any, path: str, model: str) -> Block:
    image = _object(image, path, {"url", "detail"}, model)
    if image.get("detail") not in _DETAILS:
        raise unsupported(f"`{path}.detail` other than auto and high", model, f"{path}.detail")
    url = _string(image.get("url"), f"{path}.url")
    if url[:5].lower() != "data:":
        return {"type": "image", "source": {"type": "url", "url": url}}
    media, data = _data(url, f"{path}.url")
    if media not in _IMAGES:
        raise unsupported(f"An image of the type `{media}`", model, f"{path}.url")
    return {"type": "image", "source": {"type": "base64", "media_type": media.replace("/jpg", "/jpeg"), "data": data}}


def _file(file: Any, path: str, model: str) -> Block:
    file = _object(file, path, {"file_data", "filename"}, model)
    media, data = _data(_string(file.get("file_data"), f"{path}.file_data"), f"{path}.file_data")
    if media != "application/pdf":
        raise unsupported(f"A file of the type `{media}`", model, f"{path}.file_data")
    block = {"type": "document", "source": {"type": "base64", "media_type": media, "data": data}}
    return block | {"title": file["filename"]} if file.get("filename") else block


SYSTEM_PARTS: Parts = {"text": _text}
ASSISTANT_PARTS: Parts = {"text": _text, "refusal": _text}
USER_PARTS: Parts = {"text": _text, "image_url": _image, "file": _file}


def _object(value: Any, path: str, known: set[str], model: str) -> dict[str, Any]:
    """Validates an object. Raises InvalidRequest, or UnsupportedParameter for keys without an equivalent."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"`{path}` is required and must be an object", param=path)
    for key in sorted(value.keys() - known):
        raise unsupported(f"`{path}.{key}`", model, f"{path}.{key}")
    return value


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"`{path}` is required and must be a string", param=path)
    return value


def _data(url: str, path: str) -> tuple[str, str]:
    """Returns the media type and the base64 text of a `data:` URL (RFC 2397). Raises InvalidRequest."""
    match = _DATA_URL.match(url)
    if match is None:
        raise InvalidRequest(f"`{path}` must be a URL of the form data:TYPE;base64,…", param=path)
    return (match[1] or "text/plain").lower(), url[match.end() :]
