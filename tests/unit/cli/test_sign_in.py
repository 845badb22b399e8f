"""Sign-in on the page, as the configuration of an issuer describes it."""

import pytest

from parley.cli.shared.sign_in import sign_in
from parley.config import ConfigError
from parley.config.loader import parse
from parley.supervisor.edge_settings import SignIn

ISSUER = "https://login.example.com"


def configured(page: str, issuer: str = "", auth: str = "") -> tuple[SignIn, ...]:
    """Returns the sign-in of a configuration with one issuer."""
    return sign_in(
        parse(
            "backends: {up: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}\n"
            "models: [{id: m, targets: [{backend: up}]}]\n"
            f"auth: {{{auth}issuers: [{{issuer: '{ISSUER}', audience: parley, {issuer}page: {page}}}]}}\n",
            "parley.yaml",
        ).auth
    )


def test_an_issuer_without_a_client_offers_no_sign_in() -> None:
    """An issuer has no sign-in by default."""
    assert () == configured("null")


def test_the_page_requests_what_a_token_must_have() -> None:
    """By default the page requests `openid`, the required scopes and those that grant something, and the resource."""
    found = configured(
        "{client_id: p}", "scopes: [email], grants: {read: [models]}, ", "resource: 'https://a.example', "
    )
    expected = SignIn(ISSUER, "p", ("openid", "email", "read"), parameters=(("resource", "https://a.example"),))
    assert (expected,) == found


def test_scopes_and_parameters_can_be_chosen() -> None:
    """Scopes and parameters replace the defaults; ID tokens are sent where they are accepted."""
    page = "{client_id: p, scopes: [a], parameters: {audience: b}, origins: ['https://token.example.com']}"
    found = configured(page, "id_tokens: true, ", "resource: 'https://a.example', ")
    assert (SignIn(ISSUER, "p", ("a",), True, (("audience", "b"),), ("https://token.example.com",)),) == found


@pytest.mark.parametrize("origin", ["https://a.example/", "https://a.example/path", "http://a.example", "a.example"])
def test_an_origin_has_no_path_and_is_secure(origin: str) -> None:
    """An origin that a Content-Security-Policy would read otherwise is rejected by its place."""
    with pytest.raises(ConfigError, match=r"auth\.issuers\[0\]\.page\.origins"):
        configured(f"{{client_id: p, origins: ['{origin}']}}")
