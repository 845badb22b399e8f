"""Decompresses bodies in pieces of bounded size."""

import sys
import zlib
from functools import cache
from importlib.util import find_spec
from typing import Any

from parley.backends.http.errors import MalformedBody


def encodings() -> str:
    """Returns the encodings of this Python: since 3.14 it has zstd itself, unless it was built without."""
    has_zstd = sys.version_info < (3, 14) or find_spec("_zstd") is not None
    return "gzip, deflate, zstd" if has_zstd else "gzip, deflate"


ENCODINGS = encodings()
"""The supported encodings, as the value of `Accept-Encoding`."""

PIECE = 128 * 1024
"""Maximum size of a decompressed piece, in bytes."""

_MAX_WINDOW_LOG = 23  # of zstd: windows above 8 MiB must not be used for HTTP (RFC 9659)
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ZLIB_METHOD = 8  # the low half of the first byte of zlib's format; some servers send raw deflate instead


class Decoder:
    """Decompresses one body.

    Args:
        encoding: One of ENCODINGS.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._error = _zstd().ZstdError if encoding == "zstd" else zlib.error
        self._decompressor: Any = None
        self._input = b""
        self._may_hold_more = False  # the decompressor may have output that needs no further input

    @property
    def has_more(self) -> bool:
        """Whether `read` may return a piece without further input."""
        return bool(self._input) or self._may_hold_more

    def feed(self, data: bytes) -> None:
        """Adds compressed bytes."""
        self._input += data

    def read(self) -> bytes:
        """Returns the next piece, or b"" if more input is needed. Raises MalformedBody."""
        while self.has_more:
            if self._decompressor is None:
                self._decompressor = self._new(self._input[0])
            try:
                piece = self._decompress()
            except self._error as error:
                raise self._malformed(str(error)) from None
            if piece:
                return piece
        return b""

    def end(self) -> None:
        """Checks that the compressed data is complete. Raises MalformedBody."""
        if self._decompressor is not None:
            raise self._malformed("truncated")

    def _decompress(self) -> bytes:
        decompressor = self._decompressor
        piece: bytes = decompressor.decompress(self._input, PIECE)
        if decompressor.eof:  # another member or frame may follow, or padding
            rest = decompressor.unused_data
            self._input = rest.lstrip(b"\0") if self._encoding == "gzip" else rest
            self._may_hold_more, self._decompressor = False, None
        elif self._encoding == "zstd":  # it keeps its unused input
            self._input, self._may_hold_more = b"", not decompressor.needs_input
        else:
            self._input, self._may_hold_more = decompressor.unconsumed_tail, len(piece) >= PIECE
        return piece

    def _new(self, first: int) -> Any:
        if self._encoding == "zstd":
            zstd = _zstd()
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
        if self._encoding == "gzip":
            return zlib.decompressobj(_GZIP)
        return zlib.decompressobj(_ZLIB if first & 0xF == _ZLIB_METHOD else _RAW)

    def _malformed(self, reason: str) -> MalformedBody:
        return MalformedBody(f"the body does not match its content-encoding, {self._encoding}: {reason}")


@cache
def _zstd() -> Any:
    """Imports the library of zstd, which takes 0.6 MB and which few servers use."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
