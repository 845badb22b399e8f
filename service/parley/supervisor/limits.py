"""Limits and the file mode mask that this process and its children share."""

import os
import resource

from parley.supervisor.process import print_notice

_FEW_DESCRIPTORS = 4096


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
    if hard != resource.RLIM_INFINITY and hard < _FEW_DESCRIPTORS:
        print_notice(
            f"the limit of open files is {hard}, which a few hundred streams use up; raise the hard limit"
            " (`ulimit -Hn`, systemd's LimitNOFILE=, or Docker's --ulimit nofile=)"
        )
