"""Tokens that are forged, stolen, of others, or not for this service. Each is rejected, and no account is made."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey

from parley.core.errors import InsufficientScope, InvalidToken
from tests.issuer import ScriptedIssuer, rsa_key, signed
from tests.unit.auth.conftest import Service, settings

Forge = Callable[[ScriptedIssuer], str]
STRANGER = rsa_key(9)
SIGNED = {"alg": "RS256", "kid": "first"}

NOT_SIGNED, NO_TIME = "is not a signed JSON Web Token", "`exp` is not a time"
ISSUER, AUDIENCE = "issuer is not accepted", "another audience"
ALGORITHM, SIGNATURE, KEY = "algorithm is not accepted", "signature is not valid", "that its issuer does not publish"


def from_now(seconds: int) -> int:
    """Returns a time in Unix seconds."""
    return int(time.time()) + seconds


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://evil.example"}, ISSUER),
    "list of issuers": ({"iss": ["https://evil.example"]}, ISSUER),
    "no issuer": ({"iss": None}, ISSUER),
    "another audience": ({"aud": "billing"}, AUDIENCE),
    "another tenant's audience": ({"aud": ["parley-2", "Parley"]}, AUDIENCE),
    "audience as an object": ({"aud": {"parley": True}}, AUDIENCE),
    "no audience": ({"aud": None}, AUDIENCE),
    "expired": ({"exp": from_now(-61)}, "has expired"),
    "no exp": ({"exp": None}, "no `exp`"),
    "exp as text": ({"exp": "9999999999"}, NO_TIME),
    "exp is true": ({"exp": True}, NO_TIME),
    "endless exp": ({"exp": float("inf")}, NO_TIME),
    "exp is not a number": ({"exp": float("nan")}, NO_TIME),
    "huge exp": ({"exp": 10**400}, NO_TIME),
    "not valid yet": ({"nbf": from_now(100_000)}, "not valid yet"),
    "issued in the future": ({"iat": from_now(100_000)}, "not valid yet"),
    "ID token": ({"at_hash": "x"}, "ID token"),
    "ID token of a code flow": ({"nonce": "n", "scope": None}, "ID token"),
    "ID token of Keycloak": ({"typ": "ID"}, "ID token"),
    "no subject": ({"sub": None}, "no account"),
    "blank subject": ({"sub": " "}, "no account"),
    "subject as an object": ({"sub": {"a": 1}}, "no account"),
    "subject with an escape sequence": ({"sub": "a\x1b[2J"}, "not printable"),
    "long subject": ({"sub": "a" * 300}, "too long"),
    "20 KB": ({"note": "x" * 20_000}, "longer than 12 KiB"),
}
HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "key of another": ({}, SIGNATURE),
    "embedded jwk": ({"jwk": STRANGER.as_dict(private=False)}, SIGNATURE),
    "jku": ({"jku": "https://evil.example/keys"}, SIGNATURE),
    "x5u": ({"x5u": "https://evil.example/keys"}, SIGNATURE),
    "unknown kid": ({"kid": "other"}, KEY),
    "kid with a path": ({"kid": "../../dev/null"}, KEY),
    "unknown kid, embedded jwk": ({"kid": "mine", "jwk": STRANGER.as_dict(private=False)}, KEY),
    "logout token": ({"typ": "logout+jwt"}, "not an access token"),
    "proof of possession": ({"typ": "dpop+jwt"}, "not an access token"),
}


def encoded(value: Any) -> str:
    """Returns base64url of bytes, or of the JSON of a value."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_header(header: Any, issuer: ScriptedIssuer) -> str:
    """Returns a token with another header and the signature of the original one."""
    return ".".join([encoded(header), *issuer.token().split(".")[1:]])


def unsigned(alg: str) -> Forge:
    """Makes tokens without a signature."""
    return lambda issuer: f"{encoded(SIGNED | {'alg': alg})}.{encoded(issuer.claims())}."


def with_payload(payload: bytes) -> Forge:
    """Makes tokens that are signed correctly, with a payload that is not an object."""
    return lambda _: signed(payload, rsa_key(0), SIGNED)


def hmac_of_public_key(issuer: ScriptedIssuer) -> str:
    """Returns a token with the HMAC of the public key, which a confused verifier takes for a secret."""
    text = f"{encoded(SIGNED | {'alg': 'HS256'})}.{encoded(issuer.claims())}"
    return f"{text}.{encoded(hmac.digest(rsa_key(0).as_pem(private=False), text.encode(), 'sha256'))}"


def other_claims(issuer: ScriptedIssuer) -> str:
    """Returns a valid token whose claims were replaced."""
    head, _, signature = issuer.token().split(".")
    return f"{head}.{encoded(issuer.claims() | {'sub': 'root'})}.{signature}"


FORGERIES: dict[str, tuple[Forge, str]] = {
    "none": (unsigned("none"), ALGORITHM),
    "None": (unsigned("None"), ALGORITHM),
    "no signature": (unsigned("RS256"), SIGNATURE),
    "HS256 with the public key": (hmac_of_public_key, ALGORITHM),
    "EC algorithm for an RSA key": (lambda issuer: with_header(SIGNED | {"alg": "ES256"}, issuer), SIGNATURE),
    "other claims": (other_claims, SIGNATURE),
    "issuer with a slash": (lambda issuer: issuer.token(iss=f"{issuer.url}/"), ISSUER),
    "encrypted": (lambda _: f"{encoded({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d", NOT_SIGNED),
    "text": (with_payload(b"hello"), NOT_SIGNED),
    "list": (with_payload(b"[1]"), NOT_SIGNED),
    "nested too deeply": (with_payload(b"[" * 8000), NOT_SIGNED),
    "header nested too deeply": (lambda issuer: with_header(b'{"alg":' + b"[" * 6000, issuer), NOT_SIGNED),
    "kid as a number": (lambda issuer: with_header(SIGNED | {"kid": 1}, issuer), NOT_SIGNED),
    "crit": (lambda issuer: with_header(SIGNED | {"crit": ["exp"], "exp": 1}, issuer), "`crit`"),
    "empty crit": (lambda issuer: with_header(SIGNED | {"crit": []}, issuer), "`crit`"),
    "payload that is not encoded": (lambda issuer: with_header(SIGNED | {"b64": False}, issuer), NOT_SIGNED),
    "nothing but dots": (lambda _: "..", NOT_SIGNED),
    "not base64": (lambda _: "eyJ!.eyJ?.€", NOT_SIGNED),
}


async def reject(token: str, message: str, issuer: ScriptedIssuer, service: Service) -> None:
    """Checks that a token is rejected with this message, and that no account is made."""
    async with service.accepting(settings(issuer)) as tokens:
        with pytest.raises(InvalidToken) as caught:
            await tokens.authenticate(token)
    assert message in caught.value.message
    assert {} == service.accounts.accounts


@pytest.mark.parametrize("case", CLAIMS)
async def test_claims_that_are_not_for_this_service(case: str, issuer: ScriptedIssuer, service: Service) -> None:
    """A token that the issuer has signed is rejected for its claims."""
    claims, message = CLAIMS[case]
    await reject(issuer.token(**claims), message, issuer, service)


@pytest.mark.parametrize("case", HEADERS)
async def test_headers_do_not_select_a_key(case: str, issuer: ScriptedIssuer, service: Service) -> None:
    """A token that was signed with another key is rejected, whatever its header says about keys."""
    header, message = HEADERS[case]
    await reject(issuer.token(key=STRANGER, header=header), message, issuer, service)


@pytest.mark.parametrize("case", FORGERIES)
async def test_forgeries(case: str, issuer: ScriptedIssuer, service: Service) -> None:
    """A token that the issuer has not signed, or that is not a token, is rejected."""
    forge, message = FORGERIES[case]
    await reject(forge(issuer), message, issuer, service)


async def test_a_valid_token_is_accepted(issuer: ScriptedIssuer, service: Service) -> None:
    """The same token without an attack has a caller, so that each rejection above has one cause."""
    async with service.accepting(settings(issuer)) as tokens:
        caller = await tokens.authenticate(issuer.token())
    assert (f"{issuer.url}#ada", f"{issuer.url}#ada") == (caller.account, caller.key_id)


@pytest.mark.parametrize(
    ("alg", "key"),
    [
        *((alg, rsa_key(0)) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("ES256", ECKey.generate_key("P-256")),
        ("ES384", ECKey.generate_key("P-384")),
        ("ES512", ECKey.generate_key("P-521")),
        ("EdDSA", OKPKey.generate_key("Ed25519")),
        ("Ed25519", OKPKey.generate_key("Ed25519")),
    ],
)
async def test_every_asymmetric_algorithm_is_verified(
    alg: str, key: Any, issuer: ScriptedIssuer, service: Service
) -> None:
    """Each algorithm is accepted by default, and one that is not configured is rejected."""
    issuer.keys = {"only": key}
    token = issuer.token(header={"alg": alg})
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(token)
    other = "RS512" if alg == "RS256" else "RS256"
    async with service.accepting(settings(issuer, f"algorithms: [{other}]")) as tokens:
        with pytest.raises(InvalidToken, match="algorithm"):
            await tokens.authenticate(token)


async def test_a_key_is_used_for_its_own_algorithm_only(issuer: ScriptedIssuer, service: Service) -> None:
    """A key that names an algorithm, or encryption as its use, verifies nothing else."""
    published = rsa_key(0).as_dict(private=False, kid="first")
    for limit in ({"alg": "PS256"}, {"use": "enc"}, {"key_ops": ["encrypt"]}):
        issuer.key_set = lambda limit=limit: {"keys": [published | limit, rsa_key(1).as_dict(private=False)]}  # type: ignore[method-assign,misc]
        async with service.accepting(settings(issuer)) as tokens:
            with pytest.raises(InvalidToken):
                await tokens.authenticate(issuer.token())
        service.clock.now += 3600


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "JWT", None])
async def test_accepted_types(typ: str | None, issuer: ScriptedIssuer, service: Service) -> None:
    """RFC 9068 requires `at+jwt`; many providers write `JWT` or nothing."""
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token(header={"typ": typ}))


@pytest.mark.parametrize("scope", [None, "", "openid", "openid email", "openid emailprofile", "OPENID email profile"])
async def test_every_required_scope_is_required(scope: str | None, issuer: ScriptedIssuer, service: Service) -> None:
    """A token without one of the scopes is rejected with the list of all."""
    async with service.accepting(settings(issuer)) as tokens:
        with pytest.raises(InsufficientScope) as caught:
            await tokens.authenticate(issuer.token(scope=scope))
    assert ("openid", "email", "profile") == caught.value.scopes
