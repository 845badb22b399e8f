"""Limits and the file mode mask that this process and its children share."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from parley.supervisor.process import print_notice

FEW_DESCRIPTORS = 4096
"""A limit of open files below which a warning is given."""
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_LEAST_HEAP, _MOST_HEAP = 160 * 2**20, 2 * 2**30
_HEAP_PART = 8
_BODIES = 20


def default_heap(max_body: int) -> int:
    """Returns the default limit of Envoy's heap in bytes.

    It is an eighth of the memory, up to 2 GiB, which is only used while many large requests are in progress; or the
    least, if that is more.
    """
    return max(least_heap(max_body), min(_MOST_HEAP, memory() // _HEAP_PART))


def least_heap(max_body: int) -> int:
    """Returns the least default: 160 MiB, or what holds twenty of the largest bodies."""
    return max(_LEAST_HEAP, _BODIES * max_body)


def memory() -> int:
    """Returns the memory of this machine or container in bytes."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # `max` is no limit
            found.append(int(file.read_text()))
    return min(found)


def restrict_new_files() -> None:
    """Denies other users access to files and sockets that this process and its children create."""
    os.umask(0o077)


def raise_descriptor_limit() -> None:
    """Raises the soft limit of open files to the hard limit; every stream needs a descriptor in two processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # some systems have a lower limit of their own
            print_notice(f"the limit of open files stays at {soft}: {error}")
            hard = soft
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        print_notice(
            f"the limit of open files is {hard}, which a few hundred streams use up; raise the hard limit"
            " (`ulimit -Hn`, systemd's LimitNOFILE=, or Docker's --ulimit nofile=)"
        )
