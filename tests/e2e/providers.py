"""Real OpenID providers, and the flows by which clients get tokens of them."""

import base64
import hashlib
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.e2e.node_packages import HERE
from tests.processes import environment

RESOURCE = "https://parley.example"
CALLBACK = "http://127.0.0.1/callback"
_MAX_STEPS = 20  # redirects and forms of a login


class OidcProvider:
    """A running `oidc-provider` (Node). Its access tokens are JWTs of RFC 9068, with the audience `parley`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer = self._read()

    def rotate(self) -> None:
        """Replaces its key at once, and forgets its sessions."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self.issuer == self._read()

    def _read(self) -> str:
        assert self._process.stdout
        lines = (line.strip() for line in self._process.stdout)  # notices of the package, then the URL
        return next(line for line in lines if line.startswith("http"))


@contextmanager
def oidc_provider(packages: Path) -> Iterator[OidcProvider]:
    """Runs `oidc-provider` from a folder with the npm packages."""
    command = [
        "node",
        "--no-warnings",
        "--input-type=module",
        "--eval",
        (HERE / "issuer.mjs").read_text(),
        "--",
        RESOURCE,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=packages, env=environment(), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield OidcProvider(process)
        finally:
            process.terminate()


def metadata(issuer: str) -> dict[str, str]:
    """Returns the metadata of an issuer."""
    found: dict[str, str] = httpx.get(f"{issuer}/.well-known/openid-configuration").raise_for_status().json()
    return found


def client_credentials(issuer: str, scope: str) -> str:
    """Returns an access token of a service."""
    data = {"grant_type": "client_credentials", "scope": scope, "resource": RESOURCE}
    answer = httpx.post(metadata(issuer)["token_endpoint"], data=data, auth=("robot", "robot-secret"))
    return str(answer.raise_for_status().json()["access_token"])


def authorization_code(
    issuer: str, scope: str, forms: list[dict[str, str]], secret: str = "", **more: str
) -> dict[str, Any]:
    """Logs a user in by the authorization code flow with PKCE (RFC 7636); returns the token response.

    Args:
        issuer: The issuer.
        scope: The scope to request.
        forms: What the user enters in each form.
        secret: The client's secret; empty for a public client.
        more: Further parameters of the authorization request.
    """
    verifier = secrets.token_urlsafe(48)
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    common = {"client_id": "web", "redirect_uri": CALLBACK}
    request = {"response_type": "code", "scope": scope, "state": "s", "nonce": secrets.token_hex(8)}
    pkce = {"code_challenge": digest, "code_challenge_method": "S256"}
    with httpx.Client() as browser:
        code = _log_in(browser, metadata(issuer)["authorization_endpoint"], common | request | pkce | more, forms)
        exchange = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        common |= {"client_secret": secret} if secret else {}
        answer = browser.post(metadata(issuer)["token_endpoint"], data=common | exchange)
    tokens: dict[str, Any] = answer.raise_for_status().json()
    return tokens


def _log_in(browser: httpx.Client, url: str, query: Mapping[str, str], forms: list[dict[str, str]]) -> str:
    """Follows redirects and fills in forms until the browser is sent back with a code."""
    entered = iter(forms)
    answer = browser.get(url, params=query)
    for _ in range(_MAX_STEPS):
        if answer.is_redirect:
            target = str(answer.url.join(answer.headers["location"]))
            if target.startswith(CALLBACK):
                return parse_qs(urlsplit(target).query)["code"][0]
            answer = browser.get(target)
        else:
            action = re.search(r'<form[^>]* action="([^"]+)"', answer.raise_for_status().text)
            answer = browser.post(answer.url.join(unescape(action[1]) if action else ""), data=next(entered))
    raise AssertionError(f"the login did not end: {answer.text}")
