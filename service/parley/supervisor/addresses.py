"""Addresses to listen on."""

import re
from typing import NamedTuple

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):(?P<port>\d{1,5})")


class Address(NamedTuple):
    """A host and a port to listen on; port 0 picks a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Returns `127.0.0.1:8080` or `[::1]:8080`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def to_call(self) -> "Address":
        """Returns the address for a client on this machine: the loopback address for a wildcard."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104 - nothing listens


def parse_address(text: str) -> Address:
    """Parses `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - the last port
        raise ValueError(f'"{text}" is not an address; write HOST:PORT, for example 127.0.0.1:8080')
    return Address(match["host"].strip("[]"), int(match["port"]))
