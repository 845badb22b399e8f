"""Small bodies, which the first script writes as protobuf, are the same requests as large ones for the transcoder."""

from random import Random
from typing import Any

import aiohttp
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

PADDING = 66_000
BODIES = 80
# What is not UTF-8 is left out: the transcoder rejects it at the edge, and the worker after the script.
NUMBERS = (  # noqa: SIM905 - one line for each would be longer
    "0 1 -1 -0 1.0 1e0 2e-1 1.5 4294967295 4294967296 9223372036854775807 9223372036854775808 -9223372036854775808 "
    "9007199254740993 1e400 1E-400 1e18 1e19 -0.0 01 1. .5 0.30000000000000004 5e-324 1.7976931348623157e308 1e23"
).split()
QUOTED = [f'"{text}"' for text in [*NUMBERS, "1 ", " 1", "0b11", "0x10", "NaN", "Infinity", "1e3", "1L", "\\u0031"]]
STRINGS = [
    '""',
    '"a"',
    '"\\u0000\\"\\\\\\/\\b\\f\\n\\r\\t"',
    '"\\uD83D\\ude00\\u00e9\u2028"',
    '"\\u0041\\u005cn"',
    '"\\u12"',
    '"\\u{41}"',
    '"\\a"',
    '"\\ud800"',
    f'"{"x" * 127}"',
    f'"{"x" * 16_384}"',
]
KEYS = ['"type"', '"a"', '""', '"\\u0074ype"', '"a\\"b"', '"\U0001f600"']
ODD = ["null", "true", "[]", "{}", "[null]", "[[]]", "[1]", '["a"]', '{"a":null}', "tru", "[" * 25 + "]" * 25]


class _Bodies:
    """Writes random requests as JSON: most values have the type of their field."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def message(self, descriptor: Descriptor, share: float = 0.2) -> str:
        fields = [field for field in descriptor.fields if self._random.random() < share]
        members = [(f'"{field.name}"', self._field(field)) for field in fields if not field.name.endswith("_json")]
        return self._object(members)

    def _field(self, field: FieldDescriptor) -> str:
        if self._random.random() < 0.02:
            return self._any()
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            return self._object([(f'"{key}"', self._single(value)) for key in range(self._random.randrange(3))])
        if field.is_repeated:
            return f"[{','.join(self._single(field) for _ in range(self._random.randrange(3)))}]"
        return self._single(field)

    def _single(self, field: FieldDescriptor) -> str:
        if field.message_type:
            is_known = field.message_type.file.package != "google.protobuf"
            if is_known:
                return self.message(field.message_type)
            return self._any() if field.message_type.name == "Value" else self._any_object()
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._random.choice([*STRINGS, *['"b"'] * 30])
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.choice(["true", "false"])
        return str(self._random.choice([*NUMBERS, *QUOTED, *"12345678" * 8]))

    def _any(self) -> str:
        choices = [*NUMBERS[:24], *STRINGS, *ODD, *[self._any_object()] * 20, *"0123" * 5]
        return str(self._random.choice(choices))

    def _any_object(self) -> str:
        choose = self._random.choice
        return self._object(
            [(choose(KEYS), choose(["1", "0.5", '"a"', *ODD])) for _ in range(self._random.randrange(3))]
        )

    def _object(self, members: list[tuple[str, str]]) -> str:
        space = self._random.choice(["", "", " ", "\n\t"])
        return f"{{{','.join(f'{space}{key}{space}:{value}{space}' for key, value in members)}}}"


# Bodies that the script once wrote otherwise than the transcoder.
FOUND = [
    *(f'{{"user":"{escape}"}}' for escape in ("\\u12", "\\u{41}", "\\u12g4")),
    *(f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"n":{text}}}' for text in QUOTED),
    *(f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"seed":{text}}}' for text in QUOTED),
    *(f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"top_p":{text}}}' for text in ["-0", *QUOTED]),
    *(f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"logit_bias":{{"1":{text}}}}}' for text in QUOTED),
    *(f'{{"messages":[{{"role":"user","content":"Hi","annotations":{value}}}]}}' for value in ["null", *ODD]),
    '{"messages":[{"role":"user","content":"Hi","annotations":[1,{"a":1.0}]}]}',
    '{"messages":[{"role":"user","content":"Hi","annotations":[{"type":"url_citation"},{"a":1.0}]}]}',
]


async def _observed(client: aiohttp.ClientSession, worker: Worker, text: str) -> tuple[int, str, Any]:
    worker.request = None
    headers = {"content-type": "application/json"}
    async with client.post("/v1/chat/completions", data=text.encode(), headers=headers) as response:
        return response.status, await response.text(), worker.request


async def _compare(client: aiohttp.ClientSession, worker: Worker, texts: list[str]) -> set[int]:
    """Sends each body as it is and with spaces after it; returns the statuses."""
    statuses = set()
    for text in texts:
        small = await _observed(client, worker, text)
        assert small == await _observed(client, worker, text + " " * PADDING), text[:1000]
        statuses.add(small[0])
    return statuses


async def test_random_bodies_are_the_same_requests_small_and_large(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """Status, answer and the worker's request are the same, for valid and for invalid bodies."""
    bodies = _Bodies(1)
    texts = [bodies.message(CreateChatCompletionRequest.DESCRIPTOR) for _ in range(BODIES)]
    assert {200, 400} == await _compare(client, worker, texts)


async def test_the_script_rejects_what_the_transcoder_rejects(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Half an escape, numbers in strings of other forms, and annotations that are no objects."""
    assert {200, 400} == await _compare(client, worker, FOUND)


async def test_a_large_body_that_is_no_utf_8_is_refused_like_a_small_one(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """The worker says this of a small one, whose strings the script does not check."""
    body = b'{"model":"\xff"}' + b" " * PADDING
    headers = {"content-type": "application/json"}
    async with client.post("/v1/chat/completions", data=body, headers=headers) as response:
        message = (await response.json())["error"]["message"]
    assert (400, "The request body must be JSON in UTF-8, and not nested too deeply") == (response.status, message)
    assert [] == worker.calls
