"""The cache of a worker: reads kept answers, and keeps new ones in the background.

The cache never fails a call and delays it only briefly: a store that is down or slow is a miss.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from parley.config import Model
from parley.core.cache.control import cache_control
from parley.core.cache.key import CachedCall, ModelIdentity, digest
from parley.core.cache.policy import bypass_reason, rejection_reason
from parley.core.errors import ParleyError
from parley.core.offload import offload
from parley.core.ports.cache import CacheStore, KeptAnswer
from parley.core.usage.attempts import AttemptRecord
from parley.v1.chat_completions_pb2 import ChatCompletion

HIT, MISS, BYPASS = "hit", "miss", "bypass"
_READ_SECONDS = 0.25
_PAUSE_SECONDS = 1.0  # without reads, after one that failed: a slow store would otherwise delay every call
_MAX_WRITES = 64  # at a time; further answers are not kept
_CLOSE_SECONDS = 2.0
_TRIM_SHARE = 16  # answers are trimmed after each sixteenth of their limit: the sum of all is not read at each write
_TRIM_ROWS = 100  # of one transaction, so that other transactions wait only briefly
_MAX_ACCOUNTS = 10_000
_STAMP = ("id", "object", "created", "session_id")  # each call has its own

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class CacheUse:
    """How a call uses the cache.

    Attributes:
        result: `hit`, `miss` or `bypass`.
        reason: Why it is a bypass: `tools`, `temperature`, `no_cache` or `no_store`; `store` for a miss whose read
            failed; empty otherwise.
        answer: The kept answer, without the stamp of a call; None if there is none.
        digest: The key under which the new answer is kept; None if it is not kept.
    """

    result: str
    reason: str = ""
    answer: ChatCompletion | None = None
    digest: bytes | None = None

    @property
    def is_hit(self) -> bool:
        """Whether the call gets a kept answer."""
        return self.answer is not None


class AnswerCache:
    """The cache of a worker.

    Args:
        store: Has the answers.
        identities: What the configuration says about each model with a cache, by its id; see `key.identities`.
        temperature: Returns the temperature that a model sets for requests without one; None without.

    Attributes:
        writes: The answers of misses by model and by what became of them: `kept`, or why they were not.
        kept_bytes: The bytes of the answers that were kept, by model.
        read_failures: Reads that failed or took too long.
    """

    def __init__(
        self,
        store: CacheStore,
        identities: Mapping[str, ModelIdentity],
        temperature: Callable[[Model], float | None],
    ) -> None:
        self._store = store
        self._identities = identities
        self._temperature = temperature
        self._paused_until = 0.0
        self._writing: set[asyncio.Task[None]] = set()
        self._untrimmed: dict[tuple[str, str], int] = {}
        self.writes: Counter[tuple[str, str]] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        self.read_failures = 0

    async def find(self, call: CachedCall) -> CacheUse:
        """Returns the kept answer of a call, or how the call uses the cache."""
        reason = bypass_reason(call.cache, call.request, self._temperature(call.model))
        control = cache_control(call.control)
        if reason or not control.may_keep:
            return CacheUse(BYPASS, reason or control.directive)
        key = await offload(digest, self._identities[call.model.label], call)
        if control.directive:
            return CacheUse(BYPASS, control.directive, digest=key)
        return await self._read(key, min(call.cache.ttl, control.max_age))

    def keep(self, key: bytes, call: CachedCall, answer: ChatCompletion, attempts: Sequence[AttemptRecord]) -> None:
        """Keeps the answer of a miss, in a task.

        Args:
            key: The key of the call.
            call: The call.
            answer: The answer as the caller gets it; not kept by reference.
            attempts: The attempts of the call.
        """
        cache, model_id = call.cache, call.model.label
        reason = rejection_reason(cache, model_id, answer, attempts)
        if not reason and len(self._writing) >= _MAX_WRITES:
            reason = "busy"
        if reason:
            self.writes[model_id, reason] += 1
            return
        kept = KeptAnswer(key, call.account, model_id, call.session_key, _without_stamp(answer), cache.ttl)
        task = asyncio.get_running_loop().create_task(self._write(kept, cache.max_bytes))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Waits for the writes, but not for long."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=_CLOSE_SECONDS)

    async def _read(self, key: bytes, max_age: float) -> CacheUse:
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return CacheUse(MISS, "store", digest=key)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                found = await self._store.find_answer(key, max_age)
            answer = None if found is None else ChatCompletion.FromString(found)
        except (ParleyError, TimeoutError, DecodeError):
            self.read_failures += 1
            self._paused_until = loop.time() + _PAUSE_SECONDS
            return CacheUse(MISS, "store", digest=key)
        return CacheUse(MISS, digest=key) if answer is None else CacheUse(HIT, answer=answer)

    async def _write(self, kept: KeptAnswer, max_bytes: int) -> None:
        try:
            is_kept = await self._store.keep_answer(kept)
            self.writes[kept.model, "kept" if is_kept else "deleted"] += 1
            if is_kept:
                self.kept_bytes[kept.model] += len(kept.answer)
                await self._trim(kept, max_bytes)
        except ParleyError:
            self.writes[kept.model, "store"] += 1
        except Exception as error:  # noqa: BLE001 - the call has its answer
            self.writes[kept.model, "store"] += 1
            _log.error("answer not kept: the store rejects it", model=kept.model, exc_info=error)

    async def _trim(self, kept: KeptAnswer, max_bytes: int) -> None:
        """Removes the oldest answers of the account beyond the limit. A new worker does so after its first write."""
        owner = kept.account, kept.model
        written = self._untrimmed.get(owner, max_bytes) + kept.size
        if written * _TRIM_SHARE >= max_bytes:
            written = 0
            while await self._store.trim_answers(*owner, max_bytes, _TRIM_ROWS) == _TRIM_ROWS:
                pass
        if len(self._untrimmed) >= _MAX_ACCOUNTS:
            self._untrimmed.clear()
        self._untrimmed[owner] = written


def _without_stamp(answer: ChatCompletion) -> bytes:
    kept = ChatCompletion()
    kept.CopyFrom(answer)
    for name in _STAMP:
        kept.ClearField(name)  # type: ignore[arg-type] # names of fields
    return kept.SerializeToString()
