"""Documents on the web: fetched over HTTPS, and shared by the workers of a machine."""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import aiohttp
import orjson
from yarl import URL

from parley.backends.http.proxies import proxy_for
from parley.config import ConfigError, is_secure_url
from parley.core.ports import Document, DocumentUnavailable

_TOTAL_SECONDS = 5.0
_MAX_SIZE = 512 * 1024  # bytes
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_POLL_SECONDS = 0.05
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,10})", re.IGNORECASE)


class HttpDocuments:
    """Fetches documents over HTTPS, or over HTTP from this machine.

    A redirect to another origin is an error, and so is a document above 512 KiB or slower than 5 seconds.

    Args:
        clock: Returns Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    async def fetch(self, url: str, max_age: float = 0) -> Document:
        """Fetches a document. Raises DocumentUnavailable."""
        try:
            async with asyncio.timeout(_TOTAL_SECONDS), aiohttp.ClientSession(auto_decompress=True) as session:
                return await self._get(session, URL(url), _MAX_REDIRECTS)
        except TimeoutError:
            raise DocumentUnavailable(f"{url}: no answer within {_TOTAL_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError, ConfigError) as error:
            raise DocumentUnavailable(f"{url}: {error!r}") from error

    async def _get(self, session: aiohttp.ClientSession, url: URL, redirects: int) -> Document:
        if not is_secure_url(str(url)):
            raise DocumentUnavailable(f"{url}: only https URLs are read, and http URLs of this machine")
        headers = {"Accept": "application/json"}
        async with session.get(url, headers=headers, proxy=proxy_for(url), allow_redirects=False) as response:
            if response.status in _REDIRECTS:
                target = url.join(URL(response.headers.get("Location", "")))
                if target.origin() != url.origin() or not redirects:
                    raise DocumentUnavailable(f"{url}: redirects to {target.origin()}, which is not followed")
                return await self._get(session, target, redirects - 1)
            if response.status != _OK:
                raise DocumentUnavailable(f"{url}: HTTP status {response.status}")
            body = await _read(response)
            return Document(body, self._clock(), _max_age(response.headers))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_SIZE:
            raise DocumentUnavailable(f"{response.url}: larger than {_MAX_SIZE // 1024} KiB")
    return bytes(body)


def _max_age(headers: Mapping[str, str]) -> float | None:
    """Returns for how many seconds a response may be cached (RFC 9111, 5.2.2); None if `Cache-Control` does not say."""
    control = headers.get("Cache-Control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return 0.0
    found = _MAX_AGE.search(control)
    return float(found[1]) if found else None


class SharedDocuments:
    """Documents that the workers of a machine share in files, so that one of them fetches for all.

    Args:
        folder: A private folder that all workers share.
        documents: Fetches a document.
        clock: Returns Unix seconds.
    """

    def __init__(self, folder: Path, documents: HttpDocuments, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._documents = documents
        self._clock = clock

    async def fetch(self, url: str, max_age: float = 0) -> Document:
        """Returns a document that a worker fetched at most `max_age` seconds ago. Raises DocumentUnavailable."""
        end = time.monotonic() + _TOTAL_SECONDS
        while (document := self._fresh(url, max_age)) is None:
            with self._lock(url) as is_locked:
                if is_locked or time.monotonic() > end:
                    document = await self._documents.fetch(url)
                    self._write(url, document)
                    return document
            await asyncio.sleep(_POLL_SECONDS)
        return document

    def latest(self, url: str) -> Document | None:
        """Returns the document as last fetched by a worker; None if there is none."""
        try:
            stored = orjson.loads(self._path(url).read_bytes())
            return Document(stored["body"].encode(), stored["fetched"], stored["max_age"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _fresh(self, url: str, max_age: float) -> Document | None:
        document = self.latest(url)
        return document if document is not None and 0 <= self._clock() - document.fetched <= max_age else None

    def _path(self, url: str) -> Path:
        return self._folder / f"document-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"

    @contextmanager
    def _lock(self, url: str) -> Iterator[bool]:
        """Holds the lock for a URL, if no other worker does."""
        file = os.open(self._path(url).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _try_lock(file)
        finally:
            os.close(file)

    def _write(self, url: str, document: Document) -> None:
        """Stores a document. A full disk is no reason to fail: this worker has the document."""
        path = self._path(url)
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError, UnicodeDecodeError):
            stored = {"body": document.body.decode(), "fetched": document.fetched, "max_age": document.max_age}
            draft.write_bytes(orjson.dumps(stored))
            draft.replace(path)


def _try_lock(file: int) -> bool:
    """Locks a file until it is closed; returns False if it is locked."""
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True
