"""Opens a file on a web server, from a given byte on, or a local file."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import Request, url2pathname, urlopen

from parley.supervisor.errors import CommandError

_SECONDS = 60.0  # without a byte
_NOT_SATISFIABLE, _PARTIAL = 416, 206
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is.

    Attributes:
        url: Its address with `http:` or `https:`; empty for a local file.
        path: The local file; None for an address.
        name: What errors show: the address without secrets, or the path.
        sha256: The checksum that the address has as `#sha256=…`.
    """

    url: str
    path: Path | None
    name: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file, without folders."""
        return self.path.name if self.path is not None else Path(unquote(urlsplit(self.url).path)).name

    @property
    def digest(self) -> str:
        """A digest of the whole address."""
        return hashlib.sha256((self.url or str(self.path)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file.

    Attributes:
        stream: Its bytes, with `read` and `read1`.
        start: The position of its first byte.
        total: The size of the whole file; None if the server does not say.
        validator: Identifies this version of the file; empty where another call could get another version.
    """

    stream: Any
    start: int
    total: int | None
    validator: str


def parse(text: str) -> Source:
    """Returns the source of an address or a path. Raises CommandError."""
    split = urlsplit(text)
    if split.scheme in {"http", "https"}:
        url, fragment = urldefrag(text)
        host = split.hostname or ""
        checksum = checked_sha256(fragment.removeprefix("sha256=")) if fragment.startswith("sha256=") else None
        return Source(
            url, None, f"{split.scheme}://{host}{f':{split.port}' if split.port else ''}{split.path}", checksum
        )
    if "://" in text and split.scheme != "file":
        raise CommandError(f"{split.scheme}: is not supported; name an https: address or a file")
    path = Path(url2pathname(split.path) if split.scheme == "file" else text).expanduser().absolute()
    return Source("", path, str(path))


def checked_sha256(text: str) -> str:
    """Returns a checksum in lower case. Raises CommandError."""
    lower = text.strip().lower()
    if not _SHA256.fullmatch(lower):
        raise CommandError(f'"{text}" is not a SHA-256 checksum; it has 64 hexadecimal digits')
    return lower


@contextmanager
def opened(source: Source, start: int, validator: str) -> Iterator[Opened]:
    """Opens a file, from `start` on if the server still has the version of the validator; otherwise from its beginning.

    Raises:
        CommandError: The local file cannot be read.
        OSError: The server cannot be reached, or (HTTPError) answers with an error.
    """
    if source.path is not None:
        with _local(source.path) as answer:
            yield answer
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "parley"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _requested(source, headers) as response:
        yield _answer(response)


@contextmanager
def _local(path: Path) -> Iterator[Opened]:
    try:
        with path.open("rb") as file:
            yield Opened(file, 0, path.stat().st_size, "")
    except OSError as error:
        if error.filename != str(path):
            raise
        raise CommandError(f"{path} cannot be read ({error.strerror})") from error


def _requested(source: Source, headers: dict[str, str]) -> Any:
    """Sends the request, again without the range if the server cannot satisfy that."""
    try:
        response = urlopen(Request(source.url, headers=headers), timeout=_SECONDS)  # noqa: S310 - parse checks the scheme
    except HTTPError as error:
        if error.code != _NOT_SATISFIABLE or "Range" not in headers:
            raise
        plain = {name: value for name, value in headers.items() if name not in {"Range", "If-Range"}}
        return _requested(source, plain)
    if source.url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise CommandError(f"{source.name} redirects to an address without TLS; name another")
    return response


def _answer(response: Any) -> Opened:
    length, etag = response.headers.get("Content-Length"), response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "")) if response.status == _PARTIAL else None
    if found:
        return Opened(response, int(found[1]), int(found[2]), strong)
    return Opened(response, 0, int(length) if length else None, strong)
