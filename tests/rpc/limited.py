"""A server with rate limits and a settable clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.core.ports import Charge
from parley.stores.sqlite import SqliteStore
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from tests.rpc.conftest import CONFIG, Worker, serving

NOW = 1_700_000_000.0
KEY, ACCOUNT = {"requests": 6, "tokens": 600}, {"requests": 100, "tokens": 500}
LIMITS = f"""
limits:
  key: {{requests_per_minute: {KEY["requests"]}, tokens_per_minute: {KEY["tokens"]}}}
  account: {{requests_per_minute: {ACCOUNT["requests"]}, tokens_per_minute: {ACCOUNT["tokens"]}}}
"""
HI = 1  # estimated token of the text
OF_A_MESSAGE = 4  # estimated tokens of each message in addition to its text


class Limited:
    """A server with limits and a settable clock, and the store of another worker."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.folder = folder
        self.store = SqliteStore(folder / "parley.db", lambda: self.now)
        self.worker: Worker
        self.chat: Any
        self.models: Any

    @property
    def ada(self) -> Any:
        """Returns the metadata of a caller."""
        return (("authorization", f"Bearer {self.worker.keys['ada']}"),)

    async def used(self, kind: str) -> float:
        """Returns the usage of ada's account for a kind of limit."""
        left = (await self.store.reserve([Charge("account:ada", kind, ACCOUNT[kind], 0)])).remaining
        return ACCOUNT[kind] - left[0]

    async def settles(self, tokens: int) -> None:
        """Waits until so many tokens are used."""
        async with asyncio.timeout(20):
            while tokens != await self.used("tokens"):
                await asyncio.sleep(0.01)

    async def rejection(self, request: Any, method: str = "CreateChatCompletion") -> tuple[Any, dict[str, Any]]:
        """Makes a call that fails; returns the error and its trailing metadata."""
        call = getattr(self.chat, method)(request, metadata=self.ada)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call if method == "CreateChatCompletion" else [one async for one in call]
        return caught.value, dict(caught.value.trailing_metadata())


@asynccontextmanager
async def serving_limited(folder: Path, **options: float) -> AsyncIterator[Limited]:
    """Runs the server with limits."""
    made = Limited(folder)
    async with (
        serving(folder, CONFIG + LIMITS, lambda: made.now, **options) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        made.worker, made.chat, made.models = worker, ChatCompletionsStub(channel), ModelsStub(channel)
        yield made
    await made.store.close()


def rate_limit_headers(metadata: Any) -> dict[str, str]:
    """Returns the rate-limit headers, by name without `x-ratelimit-`."""
    prefix = "x-ratelimit-"
    return {name.removeprefix(prefix): value for name, value in metadata if name.startswith(prefix)}
