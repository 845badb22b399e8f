"""The floor answers the same bytes as Parley, so that their costs can be compared."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.load.canned import WrongAnswerError
from tests.load.client import RestCaller, Target, unchunk
from tests.load.grpc_client import GrpcCaller
from tests.load.scenarios import Scenario, callers_of, target
from tests.load.stack import KINDS, Stack, floor, parley, upstream

_UNIQUE = re.compile(r'(chatcmpl-|"created":|created: |@)\w+')
_EVENT_END = "\n\n"


@pytest.fixture(scope="module")
def stacks() -> Iterator[tuple[Stack, Stack]]:
    """A Parley and the floor with the same upstream."""
    with upstream() as source, parley(source.address, 1) as stack, floor(source.address, stack.key) as bare:
        yield stack, bare


def _target(stack: Stack, kind: str, protocol: str) -> Target:
    return target(stack, Scenario(kind, protocol, "off"))


async def _rest_body(stack: Stack, kind: str) -> str:
    """Returns the body of an answer without its ids and times."""
    caller = RestCaller(_target(stack, kind, "rest"))
    body = (await caller.answer()).partition(b"\r\n\r\n")[2]
    await caller.close()
    return _UNIQUE.sub(r"\1", (body if kind == "unary" else unchunk(body)).decode())


async def _messages(stack: Stack, kind: str) -> list[str]:
    """Returns the messages of an answer over gRPC without their ids, times and numbers."""
    (caller,) = callers_of("grpc", _target(stack, kind, "grpc"), 1)
    assert isinstance(caller, GrpcCaller)
    messages = await caller.messages()
    await caller.close()
    return [_UNIQUE.sub(r"\1", str(message)) for message in messages]


def _distinct(events: list[str]) -> list[str]:
    """Returns the events without those that equal their predecessor; stamps that arrived together count as one."""
    plain = [re.sub("@+", "@", re.sub(r"sequence: \d+", "", event)) for event in events]
    return [event for event, before in zip(plain, ["", *plain], strict=False) if event != before]


@pytest.mark.parametrize("kind", KINDS)
async def test_rest_answers_are_equal(kind: str, stacks: tuple[Stack, Stack]) -> None:
    """The bodies of both are equal except for ids and times; of paced streams, how many events arrive together."""
    expected, actual = await asyncio.gather(*(_rest_body(stack, kind) for stack in stacks))
    if kind == "paced":
        assert _distinct(expected.split(_EVENT_END)) == _distinct(actual.split(_EVENT_END))
    else:
        assert expected == actual


@pytest.mark.parametrize("kind", KINDS)
async def test_grpc_answers_are_equal(kind: str, stacks: tuple[Stack, Stack]) -> None:
    """The messages of both are equal except for ids and times; of paced streams, how many events arrive together."""
    expected, actual = await asyncio.gather(*(_messages(stack, kind) for stack in stacks))
    if kind == "paced":
        assert _distinct(expected) == _distinct(actual)
    else:
        assert expected == actual


async def test_the_floor_checks_the_key(stacks: tuple[Stack, Stack]) -> None:
    """A call with another key is refused."""
    wrong = replace(stacks[1], key=f"{stacks[1].key[:-1]}~")
    caller = RestCaller(_target(wrong, "unary", "rest"))
    with pytest.raises(WrongAnswerError, match="401"):
        await caller.call()
    await caller.close()
