"""`Idempotency-Key`: what makes a request, sent again, the same request; and writes that are made once for a key."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from parley.core.errors import ParleyError
from parley.core.offload import offload
from parley.core.ports import Claim, ClaimStore

LEASE_SECONDS = 10.0

COMPLETIONS = "CreateChatCompletion"
"""The endpoint of all completions: whole and streamed, typed and as events, they answer the same request."""

_FORM = ("stream", "stream_options")  # how the answer is delivered, which changes nothing about it
_JSON_TEXT = "_json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a call came with: it counts within the caller's account, for the endpoint `method`."""

    method: str
    text: str


class KeyedWrites:
    """Makes writes that an `Idempotency-Key` may repeat. A write and its reply are stored in one transaction."""

    def __init__(self, store: ClaimStore) -> None:
        self._store = store
        self._running: set[asyncio.Task[Any]] = set()

    async def once(
        self,
        key: Key | None,
        account: str,
        request: Message,
        write: Callable[[Claim | None], Awaitable[T]],
        read: Callable[[bytes], T],
    ) -> tuple[T, bool]:
        """Makes the write, or returns what it returned the first time.

        A caller that leaves does not stop the write.

        Args:
            key: The call's key; None makes the write as it is.
            account: The account that the key counts in.
            request: What the key stands for.
            write: Makes the write, and ends the claim with the reply in the same transaction.
            read: Parses a stored reply.

        Returns:
            What the write returned, and whether that was stored before.

        Raises:
            KeyInUse: Another call with the key is running.
            KeyReused: The key came with another request.
            ReplyDeleted: The key was answered, and the reply was deleted with its session.
            StoreUnavailable: The store cannot be reached.
        """
        if key is None:
            return await write(None), False
        task = asyncio.create_task(self._once(key, account, request, write, read))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _once(
        self,
        key: Key,
        account: str,
        request: Message,
        write: Callable[[Claim | None], Awaitable[T]],
        read: Callable[[bytes], T],
    ) -> tuple[T, bool]:
        hashed = await offload(digest, request)
        claimed = await self._store.claim(account, key.method, key.text, hashed, LEASE_SECONDS)
        if isinstance(claimed, bytes):
            return read(claimed), True
        try:
            return await write(claimed), False
        except BaseException:
            with suppress(ParleyError):  # at worst the key is in use until its lease runs out
                await self._store.end_claim(claimed, None)
            raise


def digest(request: Message) -> bytes:
    """Returns the SHA-256 of a request, in which two requests that ask for the same are alike.

    The same request may come over REST and gRPC, whole and as a stream: neither the form of the answer nor spaces and
    the order of keys in JSON texts count.
    """
    same = type(request)()
    same.CopyFrom(request)
    for name in _FORM:
        if name in same.DESCRIPTOR.fields_by_name:
            same.ClearField(name)
    _normalize(same)
    return hashlib.sha256(same.SerializeToString(deterministic=True)).digest()


def _normalize(message: Message) -> None:
    """Writes each JSON text in a message without spaces and with sorted keys: maps of gRPC callers have no order."""
    for field, value in message.ListFields():
        if field.message_type is None:
            if field.name.endswith(_JSON_TEXT):
                setattr(message, field.name, _compact(value))
        elif field.message_type.full_name.startswith("parley.") and not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else (value,):
                _normalize(one)


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, RecursionError):
        return text
