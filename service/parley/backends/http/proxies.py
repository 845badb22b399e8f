"""Selects the proxy for an address from the environment: http_proxy, https_proxy, all_proxy and no_proxy."""

import ipaddress
import os
import sys
from contextlib import suppress

from yarl import URL

from parley.config import ConfigError


def proxy_for(url: URL, setting: str | None = None) -> URL | None:
    """Returns the proxy for a URL, or None.

    Args:
        url: The URL.
        setting: The proxy of the backend, or `off` for none; None for that of the environment.

    Raises:
        ConfigError: If the scheme of the environment's proxy is not HTTP or HTTPS.
    """
    if setting is not None:
        return None if setting == "off" else URL(setting)
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies  # with the clients of HTTP that it imports, a MB

    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or url.host is None or _is_excepted(url.host, url.port, proxies):
        return None
    proxy = URL(address if "://" in address else f"http://{address}")
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        raise ConfigError(
            f"{url.scheme}_proxy: only http:// and https:// proxies are supported; set another one, or add"
            f" {url.host} to no_proxy"
        )
    return proxy


def _is_excepted(host: str, port: int | None, proxies: dict[str, str]) -> bool:
    """Returns whether no_proxy matches: a name, a domain, an address with or without port, `*`, or a CIDR network."""
    from urllib.request import proxy_bypass

    if proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return any(_contains(network.strip(), address) for network in proxies.get("no", "").split(","))
    return False


def _contains(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    with suppress(ValueError):
        return "/" in network and address in ipaddress.ip_network(network, strict=False)
    return False
