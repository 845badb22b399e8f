"""Access tokens of two real OpenID providers, used through Envoy with REST and gRPC."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from oidc_provider_mock import app
from werkzeug.serving import BaseWSGIServer, make_server

from tests.e2e import vendor
from tests.e2e.node_packages import installed
from tests.e2e.providers import OidcProvider, authorization_code, client_credentials, oidc_provider
from tests.processes import Parley, started
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]
GRPCURL = str(Path(sys.executable).with_name("grpcurl"))
USER = [{"prompt": "login", "login": "ada", "password": "x"}, {"prompt": "consent"}]
SECRET = "any"
MOCK_USER = [{"sub": "ada"}]
CONFIG = """\
backends: {{up: {{kind: openai, base_url: "{upstream}"}}}}
models:
  - {{id: scripted, targets: [{{backend: up}}], whole_answers: whole}}
  - {{id: other, targets: [{{backend: up}}]}}
auth:
  issuers:
    - issuer: {first}
      audience: parley
      scopes: [parley:chat]
      authorized_parties: [web, robot]
    - issuer: {second}
      audience: web
      id_tokens: true
      scopes: []
      claims: {{account: email, models: models}}
      account_prefix: "mail:"
"""


class Mock:
    """A running `oidc-provider-mock` (Python). Its access tokens are opaque, so its ID tokens are used."""

    def __init__(self) -> None:
        self._port = 0
        self._start()

    @property
    def issuer(self) -> str:
        """The identifier of the issuer."""
        return f"http://localhost:{self._port}"

    def rotate(self) -> None:
        """Restarts it with another key."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()

    def _start(self) -> None:
        self._server: BaseWSGIServer = make_server("localhost", self._port, app(), threaded=True)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(scope="module")
def first(installed: Path) -> Iterator[OidcProvider]:
    """The certified provider."""
    with oidc_provider(installed) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[Mock]:
    """Another provider."""
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # http on loopback
    running = Mock()
    yield running
    running.stop()
    del os.environ["AUTHLIB_INSECURE_TRANSPORT"]


@pytest.fixture(scope="module")
def parley(
    first: OidcProvider, second: Mock, the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Parley]:
    """A Parley that accepts the tokens of both providers."""
    file = tmp_path_factory.mktemp("identity") / "parley.yaml"
    file.write_text(CONFIG.format(upstream=the_upstream.url, first=first.issuer, second=second.issuer))
    with started("--config", str(file), "--workers", "2") as running:
        yield running


def ask(parley: Parley, token: str) -> str | None:
    """Sends a completion with OpenAI's package; the token is its API key."""
    with openai.OpenAI(base_url=f"{parley.http}/v1", api_key=token, max_retries=0) as client:
        answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Hi"}])
    return answer.choices[0].message.content


def grpcurl(parley: Parley, method: str, token: str) -> subprocess.CompletedProcess[str]:
    """Calls a method of gRPC."""
    command = [GRPCURL, "-plaintext", "-H", f"authorization: Bearer {token}", parley.grpc, method]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def accounts(parley: Parley) -> set[str]:
    """Returns the accounts of the calls in the log."""
    lines = [json.loads(line) for line in parley.log.splitlines() if line.startswith('{"method"')]
    return {line["account"] for line in lines if "account" in line}


def test_tokens_of_the_certified_provider(parley: Parley, first: OidcProvider, upstream: ScriptedUpstream) -> None:
    """A user's token by authorization code with PKCE, and a service's by client credentials, on both listeners."""
    user = authorization_code(first.issuer, "openid parley:chat", USER, resource="https://parley.example")[
        "access_token"
    ]
    robot = client_credentials(first.issuer, "parley:chat")
    upstream.answer(*[vendor.complete_answer()] * 2)
    for token in (user, robot):
        assert "Hello! How can I assist you today?" == ask(parley, token)
        listed = grpcurl(parley, "parley.v1.Models/ListModels", token)
        assert ["scripted", "other"] == [model["id"] for model in json.loads(listed.stdout)["data"]], listed.stderr
    assert {f"{first.issuer}#ada", f"{first.issuer}#robot"} <= accounts(parley)


def test_tokens_of_another_provider(parley: Parley, second: Mock, upstream: ScriptedUpstream) -> None:
    """ID tokens of the second provider, whose claims name the account and the models."""
    httpx.put(
        f"{second.issuer}/users/ada", json={"email": "ada@example.com", "models": ["scripted"]}
    ).raise_for_status()
    token = authorization_code(second.issuer, "openid email", MOCK_USER, SECRET)["id_token"]
    upstream.answer(vendor.complete_answer())
    assert "Hello! How can I assist you today?" == ask(parley, token)
    listed = grpcurl(parley, "parley.v1.Models/ListModels", token)
    assert ["scripted"] == [model["id"] for model in json.loads(listed.stdout)["data"]], listed.stderr
    assert "mail:ada@example.com" in accounts(parley)


def test_keys_rotate_while_serving(
    parley: Parley, first: OidcProvider, second: Mock, upstream: ScriptedUpstream
) -> None:
    """After both providers have replaced their keys, new tokens are accepted at once by every worker."""
    first.rotate()
    second.rotate()
    httpx.put(f"{second.issuer}/users/bob", json={"email": "bob@example.com"}).raise_for_status()
    tokens = [
        client_credentials(first.issuer, "parley:chat"),
        authorization_code(second.issuer, "openid email", [{"sub": "bob"}], SECRET)["id_token"],
    ]
    upstream.answer(*[vendor.complete_answer()] * 8)
    assert ["Hello! How can I assist you today?"] * 8 == [ask(parley, token) for token in tokens for _ in range(4)]


def test_what_a_rejected_caller_learns(parley: Parley, first: OidcProvider) -> None:
    """The challenge names the metadata, the metadata name the issuers, on the address that the client called."""
    resource = f"{parley.http}/.well-known/oauth-protected-resource"
    anonymous = httpx.post(f"{parley.http}/v1/chat/completions", json={})
    assert (401, f'Bearer realm="parley", resource_metadata="{resource}"') == _challenge(anonymous)
    metadata = httpx.get(resource).raise_for_status().json()
    assert (parley.http, first.issuer) == (metadata["resource"], metadata["authorization_servers"][0])
    assert ["parley:chat"] == metadata["scopes_supported"]
    narrow = client_credentials(first.issuer, "email")
    status, challenge = _challenge(httpx.get(f"{parley.http}/v1/models", headers=bearer(narrow)))
    assert (403, True) == (status, 'error="insufficient_scope"' in challenge and 'scope="parley:chat"' in challenge)
    refused = grpcurl(parley, "parley.v1.Models/ListModels", narrow)
    assert "PermissionDenied" in refused.stderr
    assert "lacks the scope parley:chat" in refused.stderr


@pytest.mark.parametrize("size", [20_000, 9_000])
def test_tokens_that_are_too_long(parley: Parley, size: int) -> None:
    """A token of 20 KB is 431 and RESOURCE_EXHAUSTED; one that fits the headers is rejected as what it is."""
    token = f"eyJhbGciOiJSUzI1NiJ9.{'A' * size}.AAAA"
    answer = httpx.get(f"{parley.http}/v1/models", headers=bearer(token))
    refused = grpcurl(parley, "parley.v1.Models/ListModels", token).stderr
    if size > 12_000:
        assert (431, "headers_too_large") == (answer.status_code, answer.json()["error"]["code"])
        assert "ResourceExhausted" in refused
    else:
        assert (401, "invalid_token") == (answer.status_code, answer.json()["error"]["code"])
        assert "Unauthenticated" in refused


def _challenge(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers["www-authenticate"]


def bearer(token: str) -> dict[str, str]:
    """Returns the headers with a token."""
    return {"authorization": f"Bearer {token}"}
