"""The limit of connections of one client address.

Envoy counts no connections by address. The kernel does: its list of sockets is read twice a second, once there are as
many as the limit. The addresses that have reached it are in a file that Envoy follows; it refuses their new
connections. No change of the file affects open connections, or those of other addresses.
"""

import errno
import json
import math
import os
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from parley.supervisor import ticks
from parley.supervisor.addresses import Address
from parley.supervisor.folders import write_private
from parley.supervisor.process import print_notice

Network = IPv4Network | IPv6Network
_POLL_SECONDS = 0.5
_NOTICE_SECONDS = 60.0  # the shortest time between two notices of refused addresses
_TIMEOUT_SECONDS = 1.0  # of an answer of the kernel, which comes at once
# The number of TCP sockets of this network namespace. It costs a fiftieth of the list, for which the kernel searches a
# table that is as large as the machine's memory allows.
_SOCKET_COUNTS = (Path("/proc/net/sockstat"), Path("/proc/net/sockstat6"))
_IN_USE = re.compile(rb"^TCP6?: inuse (\d+)", re.MULTILINE)
_FILTER = "address_limit"
_KIND = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
# The kernel's interface for lists of sockets, see sock_diag(7).
_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST, _DUMP = 4, 20, 0x1, 0x300
_ERROR, _DONE = 2, 3
_ESTABLISHED = 1
_MESSAGE_HEAD = struct.Struct("=IHHII")  # length, type, flags, sequence, process
_CLIENT_AT = 40  # of a message: the offset of the remote address
_RECEIVE_SIZE = 2**16


class AddressLimit:
    """Publishes to Envoy the addresses that have reached the limit.

    Args:
        most: The most connections of one address, of IPv6 of its network of 64 bits, with all listeners together.
        folder: Receives the file that Envoy reads.
        listeners: Returns the bound addresses of the listeners.
    """

    def __init__(self, most: int, folder: Path, listeners: Callable[[], Iterable[Address]]) -> None:
        self._most, self._file, self._listeners = most, _file(folder), listeners
        self._refused: set[Network] = set()
        self._noticed = -_NOTICE_SECONDS
        self._has_listed = False  # the first time in any case, so that the notice of a missing list comes at the start

    def publish(self) -> None:
        """Writes the file. Raises OSError."""
        write_private(self._file, json.dumps({"resources": [_resource(self._refused)]}))

    async def follow(self) -> None:
        """Publishes changes for ever. Ends with a notice where the kernel does not list the connections."""
        while True:
            await ticks.pause(_POLL_SECONDS)
            try:
                counts = self._count()
            except OSError as error:
                print_notice(
                    f"connections of an address have no limit: the kernel lists none ({error.strerror or error})"
                )
                return
            refused = {client for client, count in counts.items() if count >= self._most}
            if refused != self._refused:
                self._report(refused - self._refused)
                self._refused = refused
                self._publish()

    def _count(self) -> Counter[Network]:
        """Returns how many connections each client has; nothing with fewer sockets than the limit. Raises OSError."""
        if self._has_listed and count_sockets() < self._most:
            return Counter()
        found = count_connections(self._listeners())
        self._has_listed = True
        return found

    def _publish(self) -> None:
        try:
            self.publish()
        except OSError as error:
            print_notice(f"{self._file} cannot be written ({error.strerror}); Envoy keeps its refused addresses")

    def _report(self, added: set[Network]) -> None:
        now = time.monotonic()
        if added and now >= self._noticed + _NOTICE_SECONDS:
            self._noticed = now
            client = min(added, key=str)
            print_notice(
                f"{client} has {self._most} connections; further ones are refused (--max-connections-per-address)"
            )


def count_sockets() -> float:
    """Returns the number of TCP sockets of this machine or container; infinity where the kernel gives none."""
    counts = [int(count) for file in _SOCKET_COUNTS if file.exists() for count in _IN_USE.findall(file.read_bytes())]
    return sum(counts) or math.inf  # the listeners are sockets too: 0 is no count


def count_connections(listeners: Iterable[Address]) -> Counter[Network]:
    """Returns how many established connections each client has. Raises OSError."""
    packed: Counter[bytes] = Counter()
    for listener in listeners:
        packed.update(_clients(listener))
    counts: Counter[Network] = Counter()
    for client, count in packed.items():
        counts[_network(client)] += count
    return counts


def _network(packed: bytes) -> Network:
    """Returns a client: an IPv4 address, or the network of 64 bits that a provider gives to one customer."""
    address = ip_address(packed)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return ip_network((address, 64), strict=False)
        address = address.ipv4_mapped
    return ip_network(address)


def _clients(listener: Address) -> Iterator[bytes]:
    """Yields the remote address of each established connection of a listener. Raises OSError."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    family, size = (socket.AF_INET6, 16) if ":" in listener.host else (socket.AF_INET, 4)
    # inet_diag_req_v2: the family, the protocol, a mask of states, and the local port.
    request = struct.pack("=BBxxI", family, socket.IPPROTO_TCP, 1 << _ESTABLISHED)
    request += struct.pack(">H", listener.port).ljust(48, b"\0")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_TIMEOUT_SECONDS)
        kernel.send(
            _MESSAGE_HEAD.pack(_MESSAGE_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 0, 0)
            + request
        )
        while data := kernel.recv(_RECEIVE_SIZE):
            place = 0
            while place < len(data):
                length, kind, *_ = _MESSAGE_HEAD.unpack_from(data, place)
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", data, place + _MESSAGE_HEAD.size)[0], "the request failed")
                if kind == _DONE:
                    return
                yield data[place + _CLIENT_AT : place + _CLIENT_AT + size]
                place += length + -length % 4


def _file(folder: Path) -> Path:
    return folder / "refused-addresses.json"


def network_filter(folder: Path) -> dict[str, Any]:
    """Returns the filter that refuses the connections of the addresses in the file."""
    source = {"path_config_source": {"path": str(_file(folder))}, "resource_api_version": "V3"}
    return {"name": _FILTER, "config_discovery": {"config_source": source, "type_urls": [_KIND]}}


def _resource(refused: Iterable[Network]) -> dict[str, Any]:
    """Returns the configuration of the filter."""
    principals = [
        {"direct_remote_ip": {"address_prefix": str(client.network_address), "prefix_len": client.prefixlen}}
        for client in sorted(refused, key=str)
    ]
    policies = {"refused": {"permissions": [{"any": True}], "principals": principals}} if principals else {}
    config = {"@type": _KIND, "stat_prefix": _FILTER, "rules": {"action": "DENY", "policies": policies}}
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    return {"@type": kind, "name": _FILTER, "typed_config": config}
