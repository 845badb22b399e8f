"""Checks the addresses that `parley up` listens on."""

from collections.abc import Iterator

from parley.cli.diagnosis.finding import Finding
from parley.cli.shared.checks import check_address, require_private
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError

_CHECK = "ports"


def check(addresses: dict[str, Address], running: str | None, *, has_tls: bool) -> Iterator[Finding]:
    """Yields a finding for each address.

    Args:
        addresses: The addresses by option.
        has_tls: Whether the listeners of calls have TLS.
        running: The process id of the running service of the state folder, which uses them; None if none runs.
    """
    for option, address in addresses.items():
        if not has_tls and option != "--metrics":
            yield from _exposed(address, option)
        try:
            check_address(address, option)
        except CommandError as error:
            if running is not None:
                yield Finding(_CHECK, "ok", f"{address} ({option}) is in use while Parley runs (process {running})")
                continue
            message, _, remedy = str(error).rpartition("; ")
            # Without an address for metrics, `parley up` starts nevertheless.
            yield Finding(_CHECK, "warning" if option == "--metrics" else "failed", message, remedy)
        else:
            yield Finding(_CHECK, "ok", f"{address} ({option}) is free")


def _exposed(address: Address, option: str) -> Iterator[Finding]:
    """Yields a warning for an address that other machines reach: without TLS, `parley up` demands --insecure for it."""
    try:
        require_private(address, option, "set `tls` in the configuration")
    except CommandError as error:
        message, _, remedy = str(error).rpartition("; ")
        yield Finding(_CHECK, "warning", message, f"{remedy} to `parley up`")
