"""`parley health`: the health of a listener, for the health checks of containers."""

import ssl
import urllib.request
from typing import Annotated
from urllib.request import HTTPSHandler, ProxyHandler

from cyclopts import Parameter

from parley.cli.shared import options
from parley.rpc.health_client import HealthCheckFailed, check
from parley.supervisor.errors import CommandError

_URLS = ("http://", "https://")


def health(
    target: Annotated[
        str,
        Parameter(
            name="TARGET",
            help="HOST:PORT of a gRPC listener without TLS, or the URL of a page, whose certificate is not verified.",
        ),
    ] = "127.0.0.1:50051",
    /,
    *,
    service: Annotated[
        str, Parameter(name="--service", help="A gRPC service, such as parley.v1.ChatCompletions. Default: the server.")
    ] = "",
    timeout: Annotated[str, Parameter(name="--timeout", help="The longest time until the answer: 500ms, 4s.")] = "4s",
) -> None:
    """Exit with 0 if a listener serves, and with 1 if it does not."""
    seconds = options.seconds(timeout, "--timeout")
    print(_page(target, seconds) if target.startswith(_URLS) else _listener(target, service, seconds))


def _listener(address: str, service: str, seconds: float) -> str:
    """Returns `SERVING`. Raises CommandError for anything else."""
    try:
        status = check(address, service, seconds)
    except HealthCheckFailed as error:
        raise CommandError(f"{address} does not serve: {error}") from error
    if status != "SERVING":
        raise CommandError(f"{address} does not serve: {status}")
    return status


def _page(url: str, seconds: float) -> str:
    """Returns the status of a page, 200 to 299. Raises CommandError for anything else."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    direct = urllib.request.build_opener(HTTPSHandler(context=unverified), ProxyHandler({}))
    try:
        with direct.open(url, timeout=seconds) as response:
            return str(response.status)
    except (OSError, ValueError) as error:
        raise CommandError(f"{url} does not serve: {error}") from error
