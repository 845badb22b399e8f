"""Fetches large files: over HTTP with resume, or from a local file; with progress and a checksum."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import IO, Any
from urllib.error import HTTPError, URLError

from parley.cli.shared import http_source
from parley.cli.shared.http_source import Opened, Source
from parley.supervisor.errors import CommandError

Show = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, which is None while it is unknown."""

_BLOCK = 1 << 20
_TRIES = 5  # attempts in a row that bring nothing
_DELAY = 0.5  # seconds, once more with each of them
_SERVER_ERROR = 500
_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file.

    Attributes:
        path: Its path.
        sha256: Its checksum, in hexadecimal digits.
        size: Its size in bytes.
        is_new: Whether it was fetched now.
    """

    path: Path
    sha256: str
    size: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Record:
    """What is known of a file, in a JSON file beside it.

    Attributes:
        source: The digest of the source: an address may contain a secret.
        validator: The ETag or date of the server's file.
        sha256: The checksum of the complete file; empty for an incomplete one.
    """

    source: str = ""
    validator: str = ""
    sha256: str = ""


def fetch(source: Source, target: Path, sha256: str | None, show: Show) -> Fetched:
    """Fetches a GGUF file into `target`, which appears when it is complete and its checksum is right.

    An interrupted download is continued by the next call, unless the server's file has changed.

    Args:
        source: Where the file is.
        target: Its path here.
        sha256: The checksum that it must have, in hexadecimal digits; None for any.
        show: Called with the progress.

    Raises:
        CommandError: The file cannot be fetched, or is not the right one.
    """
    part, record_file = target.with_name(f"{target.name}.part"), _record_path(target)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(part) as file:
            record = _read_record(record_file)
            if target.exists():
                return _existing(source, target, sha256, record)
            checksum = _Part(source, file, record, record_file, show, may_be_cut=sha256 is None).complete()
            _check(part, target, checksum, sha256)
            _write_record(record_file, _Record(source.digest, sha256=checksum))
            part.replace(target)
    except OSError as error:
        raise CommandError(f"{error.filename or target} cannot be written ({error.strerror or error})") from error
    return Fetched(target, checksum, target.stat().st_size, is_new=True)


def recorded_sha256(target: Path) -> str:
    """Returns the checksum that a file had when it was fetched; empty if it was not fetched."""
    return _read_record(_record_path(target)).sha256


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """Opens the incomplete file, for this process alone. Removes it afterwards if it is empty. Raises CommandError."""
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"another process fetches {part.stem}; wait for its end") from None
        try:
            yield file
        finally:
            file.flush()
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _existing(source: Source, target: Path, sha256: str | None, record: _Record) -> Fetched:
    """Returns the file that is there already, if it is the wanted one. Raises CommandError."""
    remedy = f"remove it, or give the new one another --name (it is {target})"
    if sha256 is None and (not record.sha256 or record.source != source.digest):
        raise CommandError(f"{target.name} is there already, from elsewhere; {remedy}")
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != (sha256 or record.sha256):
        raise CommandError(f"{target.name} is there already, with the checksum {found}; {remedy}")
    return Fetched(target, found, target.stat().st_size, is_new=False)


class _Part:
    """An incomplete file.

    Args:
        source: Where the file is.
        file: What is here of it, open to read and append.
        record: What is known of it.
        record_file: Where that is kept.
        show: Called with the progress.
        may_be_cut: Whether no checksum would show that the end of the file is missing.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each thing that is known of it
        self, source: Source, file: IO[bytes], record: _Record, record_file: Path, show: Show, *, may_be_cut: bool
    ) -> None:
        self._source, self._file, self._show, self._may_be_cut = source, file, show, may_be_cut
        self._record, self._record_file = record, record_file
        self._digest = hashlib.sha256()
        self._size = 0

    def complete(self) -> str:
        """Fetches what is missing; returns the checksum. Raises CommandError."""
        self._restore()
        tries = 0
        while True:
            before = self._size
            try:
                with http_source.opened(self._source, self._size, self._record.validator) as answer:
                    self._append(answer)
            except (HTTPException, URLError, ConnectionError, TimeoutError, SSLError) as error:
                tries = tries + 1 if self._size == before else 0
                if tries >= _TRIES or (isinstance(error, HTTPError) and error.code < _SERVER_ERROR):
                    raise CommandError(self._explain(error)) from error
                time.sleep(_DELAY * tries)
            else:
                return self._digest.hexdigest()

    def _explain(self, error: Exception) -> str:
        if isinstance(error, HTTPError):
            return f"{self._source.name}: the server answers {error.code} {error.reason}; check the address"
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        return f"{self._source.name} cannot be fetched ({reason}); run the command again to go on"

    def _restore(self) -> None:
        """Keeps what is here if it is known to be of the same file; otherwise removes it."""
        if self._record.source != self._source.digest or not self._record.validator:
            self._clear()
            return
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._digest.update(block)
            self._size += len(block)

    def _clear(self) -> None:
        self._file.truncate(0)
        self._digest, self._size = hashlib.sha256(), 0

    def _append(self, answer: Opened) -> None:
        """Appends what the server sends. Raises CommandError, and HTTPException for a body that ends early."""
        if self._may_be_cut and not answer.is_framed:
            raise CommandError(f"{self._source.name}: the server does not say how long the file is; give --sha256")
        head = b"" if answer.start else self._checked_head(answer.stream.read(len(_MAGIC)))
        if answer.start != self._size:
            self._clear()
        self._record = _Record(self._source.digest, answer.validator)
        _write_record(self._record_file, self._record)
        _require_space(self._record_file.parent, (answer.total or 0) - self._size)
        self._show(self._size, answer.total)
        self._write(head, answer.total)
        while block := answer.stream.read1(_BLOCK):
            self._write(block, answer.total)
        self._file.flush()
        os.fsync(self._file.fileno())
        if answer.total is None or self._size == answer.total:
            return
        size = self._size
        if size > answer.total:
            self._clear()
        raise HTTPException(f"it ended after {size} of {answer.total} bytes")

    def _checked_head(self, head: bytes) -> bytes:
        """Returns the first bytes. Raises CommandError for those of another format."""
        if head != _MAGIC:
            raise CommandError(f"{self._source.name} is not a GGUF file; name the address of the file itself")
        return head

    def _write(self, block: bytes, total: int | None) -> None:
        self._file.write(block)
        self._digest.update(block)
        self._size += len(block)
        self._show(self._size, total)


def _check(part: Path, target: Path, checksum: str, wanted: str | None) -> None:
    """Removes a file with a wrong checksum. Raises CommandError."""
    if wanted is not None and checksum != wanted:
        part.unlink()
        message = f"{target.name} has the checksum {checksum}, not {wanted}; it was removed"
        raise CommandError(message)


def _require_space(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise CommandError(f"{folder} has {free >> 20} MiB left, and {missing >> 20} MiB are needed; make room")


def _read_record(file: Path) -> _Record:
    """Reads a record; returns an empty one if there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return _Record(**{name: str(found.get(name, "")) for name in asdict(_Record())})
    except (OSError, ValueError, AttributeError):
        return _Record()


def _write_record(file: Path, record: _Record) -> None:
    file.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
