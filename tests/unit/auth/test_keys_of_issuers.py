"""Discovery and rotation of an issuer's keys, and issuers that cannot be reached."""

import asyncio
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey

from parley.auth.tokens import keys
from parley.auth.tokens.access_tokens import AccessTokens
from parley.core.errors import InvalidToken, IssuerUnavailable, ParleyError
from tests.issuer import JWKS, METADATA, OAUTH_METADATA, Answer, ScriptedIssuer, rsa_key
from tests.unit.auth.conftest import Service, settings


def document(value: Any) -> Answer:
    """Returns a response with JSON."""
    return Answer(json.dumps(value).encode())


async def results(tokens: AccessTokens, *texts: str) -> list[str]:
    """Authenticates tokens at the same time; returns `ok` or the name of the error for each."""
    ended = await asyncio.gather(*(tokens.authenticate(text) for text in texts), return_exceptions=True)
    return [type(each).__name__ if isinstance(each, BaseException) else "ok" for each in ended]


@pytest.mark.parametrize("path", ["", "/realms/one", "/tenant/"])
async def test_metadata_of_openid_connect(path: str, service: Service) -> None:
    """The well-known path follows the path of the issuer, whether or not it ends with a slash."""
    with ScriptedIssuer(path) as issuer:
        issuer.answers[path.rstrip("/") + METADATA] = document(issuer.metadata())
        async with service.accepting(settings(issuer)) as tokens:
            await tokens.authenticate(issuer.token())


async def test_metadata_of_rfc_8414(service: Service) -> None:
    """Without OpenID metadata, those of OAuth are read; their well-known path precedes that of the issuer."""
    with ScriptedIssuer("/tenant") as issuer:
        issuer.answers["/tenant" + METADATA] = Answer(b"", 404)
        issuer.answers[OAUTH_METADATA + "/tenant"] = document(issuer.metadata())
        async with service.accepting(settings(issuer)) as tokens:
            await tokens.authenticate(issuer.token())


async def test_jwks_uri_replaces_discovery(issuer: ScriptedIssuer, service: Service) -> None:
    """With `jwks_uri`, no metadata is read."""
    async with service.accepting(settings(issuer, f'jwks_uri: "{issuer.origin}{JWKS}"')) as tokens:
        await tokens.authenticate(issuer.token())
    assert {JWKS: 1} == issuer.requests


METADATA_FAULTS: dict[str, dict[str, Any] | Answer] = {
    "another issuer": {"issuer": "https://evil.example"},
    "no keys": {"jwks_uri": None},
    "keys over plain HTTP": {"jwks_uri": "http://10.255.255.1/keys"},
    "keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "redirect to another host": Answer(b"", 302, {"Location": "http://localhost:1/"}),
    "endless redirect": Answer(b"", 302, {"Location": METADATA}),
    "not JSON": Answer(b"<html>"),
    "a list": Answer(b"[]"),
    "too large": Answer(b" " * 600_000),
    "an error": Answer(b"", 500),
}


@pytest.mark.parametrize("fault", METADATA_FAULTS)
async def test_metadata_that_are_not_used(fault: str, issuer: ScriptedIssuer, service: Service) -> None:
    """A valid token is not called invalid: the caller may try again, and only the operator learns the cause."""
    found = METADATA_FAULTS[fault]
    issuer.answers[METADATA] = found if isinstance(found, Answer) else document(issuer.metadata() | found)
    async with service.accepting(settings(issuer)) as tokens:
        with pytest.raises(IssuerUnavailable) as caught:
            await tokens.authenticate(issuer.token())
    assert "127.0.0.1" not in caught.value.message
    assert caught.value.cause
    assert 4 >= issuer.requests[METADATA]


async def test_a_redirect_within_the_host_is_followed(issuer: ScriptedIssuer, service: Service) -> None:
    """A redirect to the same origin is followed."""
    issuer.answers[METADATA] = Answer(b"", 307, {"Location": "/moved"})
    issuer.answers["/moved"] = document(issuer.metadata())
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token())


async def test_keys_rotate_while_serving(issuer: ScriptedIssuer, service: Service) -> None:
    """A token of a new key is accepted at once, with one read of the keys; one of a withdrawn key is not."""
    async with service.accepting(settings(issuer)) as tokens:
        old = issuer.token()
        await tokens.authenticate(old)
        service.clock.now += 2
        issuer.rotate("second")
        assert ["ok"] * 20 == await results(tokens, *(issuer.token(sub=f"user-{number}") for number in range(20)))
        assert 2 == issuer.requests[JWKS]
        assert ["InvalidToken"] == await results(tokens, old)


async def test_a_withdrawn_key_is_noticed_in_the_background(
    issuer: ScriptedIssuer, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are read again when their `max-age` has passed; a verified token of a withdrawn key is rejected."""
    monkeypatch.setattr(keys, "_MIN_REFRESH", 0.1)
    monkeypatch.setattr(keys, "_SHARED_AGE", 0.05)
    issuer.cache_control = "max-age=0"
    service.clock.is_running = True
    async with service.accepting(settings(issuer)) as tokens:
        token = issuer.token()
        await tokens.authenticate(token)
        issuer.rotate("second")
        async with asyncio.timeout(60):
            while ["ok"] == await results(tokens, token):
                await asyncio.sleep(0.05)
        assert ["InvalidToken", "ok"] == await results(tokens, token, issuer.token())


@pytest.mark.parametrize("key_id", [None, "same"])
async def test_new_keys_without_a_new_id(key_id: str | None, issuer: ScriptedIssuer, service: Service) -> None:
    """Issuers without key ids, or with one id for every key, rotate their keys too."""
    async with service.accepting(settings(issuer)) as tokens:
        for number in (0, 1):
            issuer.rotate("same", number)
            service.clock.now += 2
            await tokens.authenticate(issuer.token(header={"kid": key_id}))
        issuer.is_down = True
        service.clock.now += 30
        expected = "InvalidToken" if key_id else "IssuerUnavailable"
        assert [expected] == await results(tokens, issuer.token(key=rsa_key(9), header={"kid": key_id}))


async def test_unknown_key_ids_do_not_flood_the_issuer(issuer: ScriptedIssuer, service: Service) -> None:
    """Of 300 tokens with unknown key ids in 30 seconds, at most three and one for each ten seconds cause a read."""
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token())
        before = issuer.requests[JWKS]
        for number in range(300):
            service.clock.now += 0.1
            with pytest.raises(InvalidToken):
                await tokens.authenticate(issuer.token(header={"kid": f"unknown-{number}"}))
        assert 1 <= issuer.requests[JWKS] - before <= 3 + 3
        assert ["ok"] == await results(tokens, issuer.token(sub="bob"))


async def test_workers_share_the_documents(issuer: ScriptedIssuer, service: Service) -> None:
    """Several workers that start at the same time read the keys once."""
    async with (
        service.accepting(settings(issuer)) as one,
        service.accepting(settings(issuer)) as two,
        service.accepting(settings(issuer)) as three,
    ):
        assert [["ok"]] * 3 == [await results(tokens, issuer.token()) for tokens in (one, two, three)]
    assert {METADATA: 1, JWKS: 1} == issuer.requests


async def test_known_keys_work_while_the_issuer_is_down(issuer: ScriptedIssuer, service: Service) -> None:
    """Tokens of known keys are accepted, also by a worker that starts; others get UNAVAILABLE, never "invalid"."""
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token())
        issuer.is_down = True
        service.clock.now += 120
        assert ["ok"] == await results(tokens, issuer.token(sub="bob"))
        assert ["IssuerUnavailable"] * 9 == await results(tokens, *[issuer.token(header={"kid": "new"})] * 9)
    async with service.accepting(settings(issuer)) as restarted:
        assert ["ok"] == await results(restarted, issuer.token())
        issuer.is_down = False
        issuer.rotate("new")
        service.clock.now += 30
        assert ["ok"] == await results(restarted, issuer.token())


async def test_an_issuer_that_was_never_reached(issuer: ScriptedIssuer, service: Service) -> None:
    """Until the issuer answers, its tokens get UNAVAILABLE; those of other issuers are served."""
    issuer.is_down = True
    with ScriptedIssuer() as other:
        async with service.accepting(settings(issuer), settings(other)) as tokens:
            assert ["IssuerUnavailable", "ok"] == await results(tokens, issuer.token(), other.token())
            issuer.is_down = False
            service.clock.now += 30
            assert ["ok"] == await results(tokens, issuer.token())


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"keys": 1}', b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}']
)
async def test_a_broken_key_set_does_not_replace_the_keys(
    body: bytes, issuer: ScriptedIssuer, service: Service
) -> None:
    """A key set without a key keeps the earlier one in use."""
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token())
        issuer.answers[JWKS] = Answer(body)
        service.clock.now += 120
        assert ["IssuerUnavailable"] == await results(tokens, issuer.token(header={"kid": "new"}))
        assert ["ok"] == await results(tokens, issuer.token(sub="bob"))


async def test_keys_that_are_not_used(issuer: ScriptedIssuer, service: Service) -> None:
    """Unknown, weak and malformed keys, and keys for encryption, do not disturb the others."""
    known = issuer.key_set()["keys"]
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}
    others = [
        {"kty": "AKP", "alg": "ML-DSA-44"},
        weak,
        {"kty": "EC", "crv": "P-256", "x": 1},
        7,
        known[0] | {"use": "enc"},
    ]
    issuer.answers[JWKS] = document({"keys": [*others, *known]})
    async with service.accepting(settings(issuer)) as tokens:
        assert ["ok", "InvalidToken"] == await results(tokens, issuer.token(), issuer.token(header={"kid": "weak"}))


async def test_equal_key_ids(issuer: ScriptedIssuer, service: Service) -> None:
    """Of several keys with the id of a token, the one that fits is used."""
    issuer.keys = {"same": rsa_key(0)}
    several: list[Any] = [rsa_key(1), ECKey.generate_key("P-256"), rsa_key(0)]
    issuer.answers[JWKS] = document({"keys": [key.as_dict(private=False, kid="same") for key in several]})
    async with service.accepting(settings(issuer)) as tokens:
        assert ["ok"] == await results(tokens, issuer.token())


async def test_a_token_without_a_key_id(issuer: ScriptedIssuer, service: Service) -> None:
    """Without `kid`, all keys of the issuer are tried."""
    issuer.keys = {"one": rsa_key(1), "two": rsa_key(0)}
    async with service.accepting(settings(issuer)) as tokens:
        await tokens.authenticate(issuer.token(header={"kid": None}))
        with pytest.raises(InvalidToken, match="signature"):
            await tokens.authenticate(issuer.token(key=rsa_key(9), header={"kid": None}))


async def test_a_key_of_one_issuer_signs_nothing_for_another(service: Service) -> None:
    """A token of one tenant that names another tenant as its issuer is rejected, even with an equal key id."""
    with ScriptedIssuer() as one, ScriptedIssuer() as two:
        two.keys = {"first": rsa_key(1)}
        async with service.accepting(settings(one), settings(two)) as tokens:
            with pytest.raises(ParleyError, match="signature is not valid"):
                await tokens.authenticate(one.token(iss=two.url))
