"""Recognises failures of this machine: it has no descriptors, memory, ports or disk space left."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

from parley.core.errors import LocalPortsExhausted, LocalResourcesExhausted


class _Resource(NamedTuple):
    """A resource of the machine.

    Attributes:
        text: What is missing.
        remedy: What the operator can do.
    """

    text: str
    remedy: str


_OPEN_FILES = "raise the limit of open files (LimitNOFILE of systemd, --ulimit nofile of containers, ulimit -n)"
_DISK = _Resource("no disk space is left", "free space on the disk, or enlarge it")
_MEMORY = _Resource("no memory is left", "raise the memory limit, or lower the number of workers")
_RESOURCES = {
    errno.EMFILE: _Resource("no file descriptor is left", _OPEN_FILES),
    errno.ENFILE: _Resource("no file descriptor of the system is left", "raise the sysctl fs.file-max"),
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _Resource("no buffer space is left", "raise the sysctl net.core.wmem_max, or the memory limit"),
    errno.EADDRNOTAVAIL: _Resource("no local port is left", "widen the sysctl net.ipv4.ip_local_port_range"),
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
}
_STRERRORS = {os.strerror(number).lower(): number for number in _RESOURCES}
# Connecting from a machine without IPv6 fails with EADDRNOTAVAIL too: that is no lack of ports.
_IPV6 = re.compile(r"\('?[0-9a-f]*:[0-9a-f:.]+'?,|\[[0-9a-f:]+\]", re.IGNORECASE)
_MAX_DEPTH = 8


def find(error: BaseException) -> LocalResourcesExhausted | None:
    """Returns the error for a failure whose every cause is a missing resource of this machine; None for any other."""
    leaves = list(_leaves(error, 0))
    numbers = {_number(leaf) for leaf in leaves}
    if any(isinstance(leaf, socket.gaierror) for leaf in leaves):
        numbers = {_descriptors()}  # the resolver hides that it could not open a socket
    return _error(next(iter(numbers))) if len(numbers) == 1 else None


def find_in_text(text: str) -> LocalResourcesExhausted | None:
    """Does the same for the text of an error that has no number."""
    number = next((number for words, number in _STRERRORS.items() if words in text.lower()), None)
    return None if number == errno.EADDRNOTAVAIL and _IPV6.search(text) else _error(number)


def _error(number: int | None) -> LocalResourcesExhausted | None:
    resource = _RESOURCES.get(number) if number is not None else None
    if number is None or resource is None:
        return None
    cause = f"{resource.text} ({errno.errorcode[number]}): {resource.remedy}"
    return LocalPortsExhausted(cause) if number == errno.EADDRNOTAVAIL else LocalResourcesExhausted(cause)


def _leaves(error: BaseException, depth: int) -> Iterator[BaseException]:
    """Yields the errors at the bottom of a chain of causes; `os_error` is aiohttp's."""
    inner = [getattr(error, "os_error", None) or error.__cause__]
    if isinstance(error, BaseExceptionGroup):
        inner = list(error.exceptions)
    found = [one for one in inner if isinstance(one, BaseException)]
    if not found or depth >= _MAX_DEPTH:
        yield error
    else:
        for one in found:
            yield from _leaves(one, depth + 1)


def _number(error: BaseException) -> int | None:
    """Returns the number of the missing resource; None if the error is another one."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and isinstance(error, OSError):  # several addresses failed; the texts are joined
        number = next((known for words, known in _STRERRORS.items() if words in str(error).lower()), None)
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    if number == errno.EADDRNOTAVAIL and _IPV6.search(str(error)):
        return None
    return number if number in _RESOURCES else None


def _descriptors() -> int | None:
    """Returns EMFILE or ENFILE if the process cannot open a descriptor now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno
    return None
