"""Which proxy the environment names for an address: http_proxy, https_proxy, all_proxy; no_proxy has the exceptions."""

import ipaddress
from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from parley.config import ConfigError


def proxy_for(url: URL) -> URL | None:
    """Returns the proxy for this address; None where there is none. Raises ConfigError for one that cannot be used."""
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or url.host is None or _is_excepted(url.host, url.port, proxies):
        return None
    proxy = URL(address if "://" in address else f"http://{address}")
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        raise ConfigError(
            f"{url.scheme}_proxy: only http:// and https:// proxies can be used; set another, or except {url.host}"
            " with no_proxy"
        )
    return proxy


def _is_excepted(host: str, port: int | None, proxies: dict[str, str]) -> bool:
    """Understands names, domains, addresses with and without a port, `*`, and networks (10.0.0.0/8)."""
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
