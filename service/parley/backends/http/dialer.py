"""Opens connections: name resolution, several addresses, proxies and TLS."""

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import aiohappyeyeballs
from yarl import URL

from parley.backends.http.connection import Connection
from parley.backends.http.errors import ProxyRefused
from parley.backends.http.tls import shared_context

AddressInfo = tuple[int, int, int, str, Any]
"""An address, as `getaddrinfo` returns it."""

Resolver = Callable[[str, int], Awaitable[Sequence[AddressInfo]]]
"""Resolves a host name and a port."""

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds until the next address is tried too (RFC 8305)
_NEVER = float("inf")
_OK = 200


async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
    """Resolves a host name with the system's resolver."""
    flags = socket.AI_ADDRCONFIG
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


class Dialer:
    """Opens connections to the server of a URL. TLS certificates are verified.

    Args:
        url: A URL of the server.
        proxy: The proxy, if any.
        unix_socket: Connects over this socket instead of TCP.
        resolver: Resolves host names.
        dns_seconds: Seconds for which a resolved address is cached.
        tls: The TLS settings for the server; those of every client by default, which hold for the proxy too.
    """

    def __init__(  # noqa: PLR0913 - what connections differ in
        self,
        url: URL,
        proxy: URL | None,
        unix_socket: Path | None,
        resolver: Resolver,
        dns_seconds: float,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._tls = tls
        self._proxy = proxy
        self._unix_socket = unix_socket
        self._names = _Names(resolver, dns_seconds)

    async def connect(self) -> Connection:
        """Opens a connection.

        Raises:
            OSError: If the server or the proxy cannot be reached; ssl.SSLError if TLS fails.
            HttpError: If the proxy refuses a tunnel.
        """
        if self._unix_socket is not None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_unix_connection(Connection, str(self._unix_socket))
            return connection
        connection = await self._connect_to(self._proxy or self._url)
        if self._proxy is not None and self._url.scheme == "https":
            return await self._tunnel(connection, self._proxy)
        return connection

    async def _connect_to(self, url: URL) -> Connection:
        host, port = url.raw_host or "", url.port or 80
        context = self._context(url) if url.scheme == "https" else None
        addresses = await self._names.addresses(host, port)
        loop = asyncio.get_running_loop()
        connected = await aiohappyeyeballs.start_connection(
            addresses, loop=loop, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY
        )
        try:
            _, connection = await loop.create_connection(
                Connection, sock=connected, ssl=context, server_hostname=_tls_name(url) if context else None
            )
        except BaseException:
            connected.close()
            raise
        return connection

    def _context(self, url: URL) -> ssl.SSLContext:
        own = self._tls if url is self._url else None
        return own or shared_context()

    async def _tunnel(self, connection: Connection, proxy: URL) -> Connection:
        """Makes the proxy connect to the server, and starts TLS with the server (RFC 9110, 9.3.6)."""
        authority = f"{self._url.host_subcomponent}:{self._url.port}"
        head = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *proxy_authorization(proxy)]
        try:
            connection.send(("\r\n".join(head) + "\r\n\r\n").encode(), _NEVER)
            status = await connection.wait_head()
            if status == _OK:
                return await connection.start_tls(self._context(self._url), _tls_name(self._url))
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise ProxyRefused(f"the proxy answered CONNECT with the status {status}")


class _Names:
    """The addresses of one host, cached; concurrent lookups are joined."""

    def __init__(self, resolver: Resolver, seconds: float) -> None:
        self._resolver = resolver
        self._seconds = seconds
        self._expires = 0.0  # monotonic time
        self._addresses: list[AddressInfo] = []
        self._lookup: asyncio.Task[None] | None = None

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """Returns the addresses. Each call begins with another one, so that new connections spread over all."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        if monotonic() >= self._expires:
            if self._lookup is None:
                self._lookup = asyncio.create_task(self._resolve(host, port))
                self._lookup.add_done_callback(self._end)
            await asyncio.shield(self._lookup)
        found = self._addresses
        self._addresses = found[1:] + found[:1]
        return found

    async def _resolve(self, host: str, port: int) -> None:
        self._addresses = list(await self._resolver(host, port))
        self._expires = monotonic() + self._seconds

    def _end(self, lookup: asyncio.Task[None]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # marks it as retrieved: every call that waited may be cancelled


def proxy_authorization(proxy: URL) -> list[str]:
    """Returns the header with the proxy's credentials, if it has any (RFC 9110, 11.7.2)."""
    return [f"Proxy-Authorization: {basic(proxy)}"] if proxy.user or proxy.password else []


def basic(url: URL) -> str:
    """Returns the credentials of a URL for the scheme Basic (RFC 7617)."""
    credentials = f"{url.user or ''}:{url.password or ''}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def _tls_name(url: URL) -> str:
    return (url.raw_host or "").rstrip(".")


def _literal(host: str, port: int) -> AddressInfo | None:
    """Returns the address if the host is one, which needs no resolver."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if address.version == 4:  # noqa: PLR2004
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    scope = host.partition("%")[2]
    number = int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port, 0, number)
