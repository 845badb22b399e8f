"""Server-sent events as a client parses them (WHATWG HTML, 9.2.6); a stream that ends within an event is an error."""

import json
from typing import Any

DONE = "[DONE]"


def events(stream: bytes | str) -> list[str]:
    """Returns the data of each event of a complete stream. Raises AssertionError for events that Parley never sends."""
    text = stream.decode() if isinstance(stream, bytes) else stream
    found: list[str] = []
    data: list[str] = []
    *lines, rest = text.split("\n")
    for line in lines:
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif data:
            assert "" == line, f"in an event: {line}"
            found.append("\n".join(data))
            data.clear()
        else:
            assert line.startswith(":"), f"between events: {line}"
    assert ([], "") == (data, rest), "the stream breaks off in an event"
    return found


def read(stream: bytes | str) -> tuple[list[Any], bool]:
    """Returns the JSON of each event, and whether the stream ends in `[DONE]`."""
    found = events(stream)
    is_done = found[-1:] == [DONE]
    return [json.loads(data) for data in (found[:-1] if is_done else found)], is_done


def chunks(stream: bytes | str) -> list[Any]:
    """Returns the JSON of each event of a stream, which must end in `[DONE]`."""
    found, is_done = read(stream)
    assert is_done, f"the stream ends with {found[-1:]}"
    return found


def text(stream: list[Any]) -> str:
    """Returns the text of a stream's chunks."""
    return "".join(choice["delta"].get("content") or "" for chunk in stream for choice in chunk["choices"])
