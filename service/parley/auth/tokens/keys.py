"""The public keys of one issuer: discovery, and the JWK Set with its rotation."""

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from parley.core.ports import Document, Documents, DocumentUnavailable

PublicKey = RSAKey | ECKey | OKPKey

_MIN_REFRESH, _MAX_REFRESH, _DEFAULT_REFRESH = 60.0, 3600.0, 600.0  # seconds between two reads of the keys
_RETRY = 15.0  # seconds after a failed read
_SHARED_AGE = 1.0  # seconds: workers that meet the same unknown key share one read
_BURST, _INTERVAL = 3, 10.0  # reads for tokens of unknown keys: so many at once, and one more every so many seconds
_MAX_KEYS = 100
_MIN_RSA_BITS = 2048

_log = structlog.get_logger()


class IssuerKeys:
    """The keys of one issuer, refreshed in the background.

    Keys that were read once stay in use while the issuer cannot be reached.

    Args:
        issuer: The issuer's identifier.
        jwks_uri: The URL of the keys; None to read it from the issuer's metadata.
        documents: Fetches the metadata and the keys.
        clock: Returns Unix seconds.
    """

    def __init__(self, issuer: str, jwks_uri: str | None, documents: Documents, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._configured_uri = jwks_uri
        self._uri = jwks_uri
        self._documents = documents
        self._clock = clock
        self._keys: Sequence[PublicKey] = ()
        self._body = b""
        self._failure: str | None = "not read yet"
        self._interval, self._read_at = _MIN_REFRESH, 0.0
        self._permits, self._permitted = float(_BURST), clock()
        self._reading: asyncio.Task[None] | None = None
        self._background: asyncio.Task[None] | None = None

    @property
    def failure(self) -> str | None:
        """The cause of the failure of the latest read, for the operator; None after a success."""
        return self._failure

    def start(self) -> None:
        """Starts the refresh in the background; its first read begins at once."""
        self._background = asyncio.create_task(self._refresh_forever())

    async def stop(self) -> None:
        """Ends the refresh."""
        tasks = [task for task in (self._background, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def find(self, key_id: str | None) -> Sequence[PublicKey]:
        """Returns the known keys with this id, or all for None."""
        return self._keys if key_id is None else [key for key in self._keys if key.kid == key_id]

    async def refresh(self) -> bool:
        """Reads the keys again for a token that no known key has signed, at a limited rate.

        Returns:
            Whether there are other keys now.
        """
        before = self._keys
        if self._permit():
            await self._read(_SHARED_AGE)
        return self._keys is not before

    def has(self, key: PublicKey) -> bool:
        """Returns whether a key is still one of the issuer's."""
        return any(key is known for known in self._keys)

    def _permit(self) -> bool:
        """Takes the permit for one read, if there is one."""
        now = self._clock()
        elapsed, self._permitted = max(0.0, now - self._permitted), now
        self._permits = min(float(_BURST), self._permits + elapsed / _INTERVAL)
        if self._reading is None and self._permits < 1:
            return False
        if self._reading is None:
            self._permits -= 1
        return True

    async def _refresh_forever(self) -> None:
        while True:
            await self._read(self._interval / 2)  # what another worker has read lately is as good
            wait = self._read_at + self._interval - self._clock()
            await asyncio.sleep(_RETRY if self._failure else max(_SHARED_AGE, wait))

    async def _read(self, max_age: float) -> None:
        """Reads the keys; callers at the same time share one read. A failure is recorded and logged, not raised."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_once(max_age))
            self._reading.add_done_callback(self._end_reading)
        await asyncio.wait({self._reading})

    def _end_reading(self, _: asyncio.Task[None]) -> None:
        self._reading = None

    async def _read_once(self, max_age: float) -> None:
        try:
            if self._configured_uri is None:
                await self._discover()
            self._use(await self._documents.fetch(self._uri or "", max_age))
        except DocumentUnavailable as error:
            self._fail(str(error))
            self._use_latest()
        else:
            if self._failure is not None:
                _log.info("keys of the issuer read", issuer=self._issuer, keys=len(self._keys))
            self._failure = None

    def _fail(self, cause: str) -> None:
        if self._failure != cause:
            _log.warning("the keys of the issuer cannot be read", issuer=self._issuer, cause=cause)
        self._failure = cause

    def _use_latest(self) -> None:
        """Uses the keys that another process has read, or this one before it was restarted."""
        document = self._documents.latest(self._uri) if self._uri and not self._keys else None
        if document is not None:
            with suppress(DocumentUnavailable):
                self._use(document)

    async def _discover(self) -> None:
        """Reads the URL of the keys from the issuer's metadata. A known URL stays in use if that fails."""
        failures = []
        for url in metadata_urls(self._issuer):
            try:
                self._uri = _jwks_uri((await self._documents.fetch(url, _MIN_REFRESH)).body, self._issuer)
            except DocumentUnavailable as error:
                failures.append(str(error))
                self._uri = self._uri or self._latest_uri(url)
            else:
                return
        if self._uri is None:
            raise DocumentUnavailable("; ".join(failures))

    def _latest_uri(self, url: str) -> str | None:
        document = self._documents.latest(url)
        with suppress(DocumentUnavailable):
            return _jwks_uri(document.body, self._issuer) if document else None
        return None

    def _use(self, document: Document) -> None:
        """Replaces the keys. Equal keys stay the same objects, so that verified tokens stay valid."""
        age = _DEFAULT_REFRESH if document.max_age is None else document.max_age
        self._interval = min(max(age, _MIN_REFRESH), _MAX_REFRESH)
        self._read_at = document.fetched
        if document.body == self._body:
            return
        keys = list(_parse_keys(document.body))
        if not keys:
            raise DocumentUnavailable("the JWK Set has no key for signatures")
        self._keys = [next((old for old in self._keys if old == key), key) for key in keys]
        self._body = document.body


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Returns the URLs of an issuer's metadata: OpenID Connect Discovery 1.0, 4, and RFC 8414, 3."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
    )


def _jwks_uri(body: bytes, issuer: str) -> str:
    """Returns the URL of the keys. Raises DocumentUnavailable if the metadata is that of another issuer."""
    metadata = _object(body, "the metadata")
    if metadata.get("issuer") != issuer:
        raise DocumentUnavailable(f"the metadata names another issuer: {metadata.get('issuer')!r:.200}")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str):
        raise DocumentUnavailable("the metadata has no jwks_uri")
    return uri


def _parse_keys(body: bytes) -> Iterator[PublicKey]:
    """Yields the public keys for signatures. Others are skipped: an issuer may use new kinds of keys."""
    entries = _object(body, "the JWK Set").get("keys")
    if not isinstance(entries, list):
        raise DocumentUnavailable("the JWK Set has no list `keys`")
    for entry in entries[:_MAX_KEYS]:
        key = _public_key(entry) if isinstance(entry, dict) and entry.get("use", "sig") == "sig" else None
        if key is not None:
            yield key


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    if entry.get("kty") not in {"RSA", "EC", "OKP"}:
        return None
    try:
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # for the keys that are skipped
            key = JWKRegistry.import_key(entry)
        if isinstance(key, RSAKey):
            return key if key.raw_value.key_size >= _MIN_RSA_BITS else None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, ECKey | OKPKey) else None


def _object(body: bytes, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DocumentUnavailable(f"{what} is not a JSON object")
    return value
