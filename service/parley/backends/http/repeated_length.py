"""Responses that state one length several times, as a server and a proxy before it may do together.

A recipient may accept equal values of `Content-Length`, in several fields or in a list (RFC 9110, 8.6). llhttp does
not; httpx, requests and curl do.
"""

_ERRORS = frozenset({"Duplicate Content-Length", "Invalid character in Content-Length"})
_NAME = b"content-length"


def is_cause(error: Exception) -> bool:
    """Returns whether the parser's error may come from a repeated length."""
    return str(error) in _ERRORS


def end_of_head(response: bytes) -> int:
    """Returns the position after the empty line that ends the head; 0 if it has not arrived."""
    ends = (response.find(line) + len(line) for line in (b"\n\r\n", b"\n\n") if line in response)
    return min(ends, default=0)


def with_single_length(head: bytes) -> bytes | None:
    """Returns a complete head with its length once; None if it does not repeat one, or if its lengths differ."""
    status, *lines = head.split(b"\n")
    values = [value.strip() for line in lines if _is_length(line) for value in line.partition(b":")[2].split(b",")]
    if len(values) < 2 or len({*values}) > 1 or not (value := values[0]).isdigit():  # noqa: PLR2004 - a repetition
        return None
    others = (line for line in lines if not _is_length(line))
    return b"\n".join((status, b"%s: %s\r" % (_NAME, value), *others))


def _is_length(line: bytes) -> bool:
    return line.partition(b":")[0].lower() == _NAME
