"""Opens a file on a web server, from a given byte on, or a local file."""

import base64
import hashlib
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import HTTPErrorProcessor, Request, build_opener, url2pathname

from parley.supervisor.errors import CommandError

_SECONDS = 60.0  # without a byte
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "parley"}
_NOT_SATISFIABLE, _PARTIAL = 416, 206
_SUCCESS = range(200, 300)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_SCHEMES = frozenset({"http", "https"})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is.

    Attributes:
        url: Its address with `http:` or `https:`, without a user; empty for a local file.
        path: The local file; None for an address.
        name: What errors show: the address without secrets, or the path.
        sha256: The checksum that the address has as `#sha256=…`.
        authorization: The header for the user and the password of the address; empty without them.
    """

    url: str
    path: Path | None
    name: str
    sha256: str | None = None
    authorization: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def file_name(self) -> str:
        """The name of the file, without folders."""
        return self.path.name if self.path is not None else Path(unquote(urlsplit(self.url).path)).name

    @property
    def digest(self) -> str:
        """A digest of the address."""
        return hashlib.sha256((self.url or str(self.path)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file.

    Attributes:
        stream: Its bytes, with `read` and `read1`.
        start: The position of its first byte.
        total: The size of the whole file; None if the server does not say.
        is_framed: Whether an end of the connection within the file is noticed.
        validator: Identifies this version of the file; empty where another call could get another version.
    """

    stream: Any
    start: int
    total: int | None
    validator: str
    is_framed: bool = True


class _EveryAnswer(HTTPErrorProcessor):
    """Returns redirects and errors as other answers: urllib would follow a redirect to an address without TLS."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:
        """Returns the answer."""
        return response

    https_response = http_response


def parse(text: str) -> Source:
    """Returns the source of an address or a path. Raises CommandError."""
    scheme = text.partition(":")[0].lower()
    if scheme in _SCHEMES:
        split = _split(text, "the address")
        checksum = split.fragment.removeprefix("sha256=")
        return Source(
            split._replace(netloc=_host(split), fragment="").geturl(),
            None,
            f"{split.scheme}://{_host(split)}{split.path}",
            checked_sha256(checksum) if checksum != split.fragment else None,
            _authorization(split),
        )
    if "://" in text and scheme != "file":
        raise CommandError(f"{scheme}: is not supported; name an https: address or a file")
    path = Path(url2pathname(urlsplit(text).path) if scheme == "file" else text).expanduser().absolute()
    return Source("", path, str(path))


def checked_sha256(text: str) -> str:
    """Returns a checksum in lower case. Raises CommandError."""
    lower = text.strip().lower()
    if not _SHA256.fullmatch(lower):
        raise CommandError(f'"{text}" is not a SHA-256 checksum; it has 64 hexadecimal digits')
    return lower


def _split(url: str, what: str, base: str = "") -> SplitResult:
    """Returns the parts of an address, with what a request cannot have in percent encoding. Raises CommandError."""
    try:
        split = urlsplit(urljoin(base, url))
        (split.hostname or "").encode("idna")
        is_host = bool(split.hostname) and split.port != 0 and split.netloc.isprintable() and " " not in split.netloc
        is_valid = split.scheme in _SCHEMES and is_host
    except ValueError:
        is_valid = False
    if not is_valid:
        raise CommandError(f"{what} is not valid; name one such as https://host/model.gguf")
    path, query = (quote(one, safe=string.punctuation) for one in (split.path, split.query))
    return split._replace(path=path, query=query)


def _host(split: SplitResult) -> str:
    return split.netloc.rpartition("@")[2]


def _authorization(split: SplitResult) -> Mapping[str, str]:
    if split.username is None:
        return {}
    user = f"{unquote(split.username)}:{unquote(split.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


@contextmanager
def opened(source: Source, start: int, validator: str) -> Iterator[Opened]:
    """Opens a file, from `start` on if the server still has the version of the validator; otherwise from its beginning.

    Raises:
        CommandError: The local file cannot be read, or the server redirects to an unusable address.
        OSError: The server cannot be reached, or (HTTPError) answers with an error.
    """
    if source.path is not None:
        with _local(source.path) as file:
            yield file
        return
    rest = _rest(source, start, validator) if start else None
    with rest or _requested(source, _HEADERS) as response:
        answer = _answer(response)
        if answer is None or (rest is None and answer.start):
            raise CommandError(f"{source.name}: the server sends another part of the file than requested; try later")
        yield answer


@contextmanager
def _local(path: Path) -> Iterator[Opened]:
    try:
        with path.open("rb") as file:
            yield Opened(file, 0, path.stat().st_size, "")
    except OSError as error:
        if error.filename != str(path):
            raise
        raise CommandError(f"{path} cannot be read ({error.strerror})") from error


def _rest(source: Source, start: int, validator: str) -> Any:
    """Requests a file from `start` on; returns the response, None if it is no part of the same version of the file."""
    try:
        response = _requested(source, _HEADERS | {"Range": f"bytes={start}-", "If-Range": validator})
    except HTTPError as error:
        if error.code != _NOT_SATISFIABLE:
            raise
        error.close()
        return None
    if response.status != _PARTIAL:
        return response
    answer = _answer(response)
    # RFC 9110, 15.3.7: with If-Range, the part may come without the date of the file.
    if answer is not None and answer.start == start and answer.validator in {"", validator}:
        return response
    response.close()
    return None


def _requested(source: Source, headers: Mapping[str, str]) -> Any:
    """Sends the request, and follows redirects. Only the server of the address itself gets its user and password."""
    url, opener = source.url, build_opener(_EveryAnswer)
    for _ in range(_MAX_REDIRECTS + 1):
        own = source.authorization if _origin(url) == _origin(source.url) else {}
        response = opener.open(Request(url, headers={**headers, **own}), timeout=_SECONDS)  # noqa: S310 - http or https
        location = response.headers.get("Location")
        if response.status in _REDIRECTS and location:
            response.close()
            url = _redirected(source, url, location)
        elif response.status in _SUCCESS:
            return response
        else:
            raise HTTPError(source.name, response.status, response.reason, response.headers, response)
    raise CommandError(f"{source.name} redirects more than {_MAX_REDIRECTS} times; name the address of the file itself")


def _redirected(source: Source, url: str, location: str) -> str:
    """Returns the address that a redirect leads to. Raises CommandError, without the address: it may be secret."""
    quoted = quote(location, safe=string.punctuation, encoding="latin-1")  # as headers are decoded
    target = _split(quoted, f"the address that {source.name} redirects to", url)
    if url.startswith("https:") and target.scheme != "https":
        raise CommandError(f"{source.name} redirects to an address without TLS; name another")
    return target._replace(netloc=_host(target), fragment="").geturl()


def _origin(url: str) -> tuple[str, str]:
    split = urlsplit(url)
    return split.scheme, split.netloc.lower()


def _answer(response: Any) -> Opened | None:
    """Returns what a response has; None for a part of a file that does not say which."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    if response.status != _PARTIAL:
        is_framed = response.chunked or response.length is not None
        return Opened(response, 0, response.length, strong, is_framed=is_framed)
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return Opened(response, int(found[1]), int(found[2]), strong) if found else None
