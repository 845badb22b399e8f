"""Idempotency keys: which requests count as equal, and writes that run once per key."""

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
"""The method of the keys of all completions: unary and streamed, over gRPC and REST."""

_FORM = ("stream", "stream_options")  # the form of delivery, which does not change the answer
_JSON_TEXT = "_json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """The idempotency key of a call, valid within the caller's account.

    Attributes:
        method: The name of the RPC method that the key is used for.
        text: The value of the header `Idempotency-Key`.
    """

    method: str
    text: str


class KeyedWrites:
    """Runs writes at most once per idempotency key. A write and its reply are stored in one transaction."""

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
        """Runs the write, or returns the stored reply of an earlier call with the key.

        Cancelling the caller does not stop the write.

        Args:
            key: The call's key; None runs the write unconditionally.
            account: The caller's account.
            request: The request, which must be equal in all calls with the key.
            write: Performs the write and ends the claim with the reply, in one transaction.
            read: Parses a stored reply.

        Returns:
            The result of the write, and whether it is a stored reply.

        Raises:
            KeyInUse: Another call with the key is running.
            KeyReused: The key was used with a different request.
            ReplyDeleted: The reply was deleted with its session.
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
            with suppress(ParleyError):  # on failure the key is in use until its lease expires
                await self._store.end_claim(claimed, None)
            raise


def digest(request: Message) -> bytes:
    """Returns the SHA-256 of the normalized request.

    Ignores the form of delivery (unary or stream), and whitespace and key order in JSON texts, so that a request has
    the same digest over REST and gRPC.
    """
    same = type(request)()
    same.CopyFrom(request)
    for name in _FORM:
        if name in same.DESCRIPTOR.fields_by_name:
            same.ClearField(name)
    _normalize(same)
    return hashlib.sha256(same.SerializeToString(deterministic=True)).digest()


def _normalize(message: Message) -> None:
    """Rewrites the JSON texts of a message without whitespace and with sorted keys: maps over gRPC have no order."""
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
