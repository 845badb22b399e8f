"""The account, the plan, the models, the limits and the scopes that a token's claims give its caller."""

from typing import Any

import pytest

from parley.config import ConfigError, Limits
from parley.core.errors import (
    AccountSuspended,
    InsufficientScope,
    InvalidToken,
    PlanRequired,
    StoreUnavailable,
)
from tests.issuer import ScriptedIssuer
from tests.unit.auth.conftest import Service, configuration, settings

PLANS = "plans: {free: {api: false}, pro: {}, team: {limits: {requests_per_minute: 7, tokens_per_minute: 70}}}\n"


async def caller(service: Service, issuer: ScriptedIssuer, more: str = "", **claims: Any) -> Any:
    """Returns the caller of a token with these claims; `more` are further settings of the issuer."""
    async with service.accepting(settings(issuer, more), more=PLANS) as tokens:
        return await tokens.authenticate(issuer.token(**claims))


async def test_equal_subjects_of_two_issuers_are_two_accounts(service: Service) -> None:
    """By default the account's name begins with the issuer, and is that of no API key."""
    with ScriptedIssuer() as one, ScriptedIssuer() as two:
        async with service.accepting(settings(one), settings(two)) as tokens:
            accounts = [(await tokens.authenticate(issuer.token(sub="ada"))).account for issuer in (one, two)]
    assert [f"{one.url}#ada", f"{two.url}#ada"] == accounts
    assert set(accounts) == set(service.accounts.accounts)


@pytest.mark.parametrize(("prefix", "expected"), [('""', "acme"), ("corp-", "corp-acme")])
async def test_accounts_with_a_prefix(prefix: str, expected: str, issuer: ScriptedIssuer, service: Service) -> None:
    """The prefix and the claim select the account; the subject stays the caller's own id for limits."""
    found = await caller(service, issuer, f"account_prefix: {prefix}, claims: {{account: org.id}}", org={"id": "acme"})
    assert (expected, f"{issuer.url}#ada") == (found.account, found.key_id)


@pytest.mark.parametrize(
    ("path", "claims", "expected"),
    [
        ("org.id", {"org": {"id": 12}}, "12"),
        ("https://example.com/org", {"https://example.com/org": "acme"}, "acme"),
        ("a.b", {"a.b": "whole name first", "a": {"b": "path"}}, "whole name first"),
        ("client_id", {"sub": None}, "cli"),
    ],
)
async def test_claims_are_found_by_name_and_path(
    path: str, claims: dict[str, Any], expected: str, issuer: ScriptedIssuer, service: Service
) -> None:
    """A claim is named by its whole name, or by a path."""
    more = f'account_prefix: "", claims: {{account: "{path}"}}'
    assert expected == (await caller(service, issuer, more, **claims)).account


async def test_the_plan_of_a_token(issuer: ScriptedIssuer, service: Service) -> None:
    """A plan in the token replaces the stored one; without the claim, the stored one applies."""
    more = "claims: {plan: plan}, plan: free"
    team = await caller(service, issuer, more, plan="team")
    assert Limits(requests_per_minute=7, tokens_per_minute=70) == team.account_limits
    for refused in ("free", "unknown"):
        with pytest.raises(PlanRequired):
            await caller(service, issuer, more, plan=refused)
    with pytest.raises(PlanRequired):
        await caller(service, issuer, more, sub="bob")
    service.accounts.change(f"{issuer.url}#bob", plan="team")
    assert 7 == (await caller(service, issuer, more, sub="bob")).account_limits.requests_per_minute


async def test_a_claim_that_is_not_configured_has_no_effect(issuer: ScriptedIssuer, service: Service) -> None:
    """Claims with usual names give nothing unless the configuration names them."""
    found = await caller(service, issuer, plan="free", models=["one"], limits={"requests_per_minute": 1})
    assert (frozenset(), None) == (found.models, found.account_limits.requests_per_minute)


@pytest.mark.parametrize(
    ("value", "expected"), [(["one", "two"], {"one", "two"}), ("one two", {"one", "two"}), (None, set())]
)
async def test_the_models_of_a_token(value: Any, expected: set[str], issuer: ScriptedIssuer, service: Service) -> None:
    """Models are a list or text; a token without the claim may use all."""
    assert expected == (await caller(service, issuer, "claims: {models: models}", models=value)).models


@pytest.mark.parametrize("value", [[], "", " ", [1], {"one": True}, 7, True])
async def test_models_that_are_not_valid(value: Any, issuer: ScriptedIssuer, service: Service) -> None:
    """An empty list is not all models, and neither is a value of another type."""
    with pytest.raises(InvalidToken, match="models"):
        await caller(service, issuer, "claims: {models: models}", models=value)


async def test_the_limits_of_a_token(issuer: ScriptedIssuer, service: Service) -> None:
    """Limits of the token replace those of the plan; those that an operator stores for the account win."""
    more = "claims: {plan: plan, limits: limits}"
    claims: dict[str, Any] = {"plan": "team", "limits": {"requests_per_minute": 5}}
    assert (
        Limits(requests_per_minute=5, tokens_per_minute=70)
        == (await caller(service, issuer, more, **claims)).account_limits
    )
    service.accounts.change(f"{issuer.url}#ada", limits=Limits(requests_per_minute=2))
    assert (
        Limits(requests_per_minute=2, tokens_per_minute=70)
        == (await caller(service, issuer, more, **claims)).account_limits
    )
    for wrong in ({"requests_per_minute": 0}, {"unknown": 1}, [1], "5"):
        with pytest.raises(InvalidToken, match="limits"):
            await caller(service, issuer, more, limits=wrong)


@pytest.mark.parametrize(
    ("claims", "path"),
    [
        ({"scope": None, "scp": "a b"}, ""),
        ({"scope": None, "scp": ["a", "b"]}, ""),
        ({"scope": "c", "realm_access": {"roles": ["a", "b"]}}, "claims: {scope: realm_access.roles}, "),
    ],
)
async def test_where_scopes_are(claims: dict[str, Any], path: str, issuer: ScriptedIssuer, service: Service) -> None:
    """Scopes are in `scope`, in `scp`, or where the configuration says, as a list or as text."""
    await caller(service, issuer, f"{path}scopes: [a, b]", **claims)
    with pytest.raises(InsufficientScope):
        await caller(service, issuer, f"{path}scopes: [c]", **claims | {"scope": None})


async def test_scopes_grant_scopes_of_parley(issuer: ScriptedIssuer, service: Service) -> None:
    """The grants of all scopes of a token add up; a token without any is rejected."""
    more = 'scopes: [], grants: {read: ["sessions:read"], talk: [chat, models]}'
    assert {"sessions:read"} == (await caller(service, issuer, more, scope="read other")).scopes
    assert {"sessions:read", "chat", "models"} == (await caller(service, issuer, more, scope="talk read")).scopes
    with pytest.raises(InsufficientScope) as caught:
        await caller(service, issuer, more, scope="other")
    assert ("read", "talk") == caught.value.scopes


@pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
async def test_authorized_parties(name: str, issuer: ScriptedIssuer, service: Service) -> None:
    """Only tokens of the configured clients are accepted; a token that names no client is not one of them."""
    claims = {"client_id": None}
    await caller(service, issuer, "authorized_parties: [web, cli]", **claims | {name: "web"})
    for party in ("other", None, ["web"]):
        with pytest.raises(InvalidToken, match="client"):
            await caller(service, issuer, "authorized_parties: [web, cli]", **claims | {name: party})
    with pytest.raises(InvalidToken, match="client"):
        await caller(service, issuer, "authorized_parties: [web]", azp="web", client_id="other")


async def test_one_of_several_audiences(issuer: ScriptedIssuer, service: Service) -> None:
    """A token may name several audiences, and the configuration too: one in common is enough."""
    async with service.accepting(f'issuer: "{issuer.url}", audience: [a, b]') as tokens:
        await tokens.authenticate(issuer.token(aud=["x", "b"]))
        with pytest.raises(InvalidToken):
            await tokens.authenticate(issuer.token(aud=["x", "ab"]))


async def test_id_tokens_by_configuration(issuer: ScriptedIssuer, service: Service) -> None:
    """A provider whose access tokens are opaque is used with its ID tokens."""
    await caller(service, issuer, "id_tokens: true, scopes: []", scope=None, at_hash="x", nonce="n")


@pytest.mark.parametrize(("skew", "late"), [(60, 60), (5, 5), (600, 600)])
async def test_the_tolerance_for_clocks(skew: int, late: int, issuer: ScriptedIssuer, service: Service) -> None:
    """`exp`, `nbf` and `iat` are compared with the tolerance, from its first to its last second."""
    times = issuer.claims()
    async with service.accepting(settings(issuer, f"clock_skew: {skew}s")) as tokens:
        service.clock.now = times["exp"] + late - 1
        await tokens.authenticate(issuer.token(**times))
        service.clock.now += 1
        with pytest.raises(InvalidToken, match="expired"):
            await tokens.authenticate(issuer.token(**times, jti="another"))
        service.clock.now = times["iat"] - late
        await tokens.authenticate(issuer.token(**times, nbf=times["iat"]))
        service.clock.now -= 1
        with pytest.raises(InvalidToken, match="not valid yet"):
            await tokens.authenticate(issuer.token(**times, jti="third"))


async def test_a_verified_token_is_cached(issuer: ScriptedIssuer, service: Service) -> None:
    """A token is verified once; its account is read each half second, so that a suspension takes effect."""
    token, name = issuer.token(), f"{issuer.url}#ada"
    async with service.accepting(settings(issuer)) as tokens:
        first = await tokens.authenticate(token)
        assert first is await tokens.authenticate(token)
        assert 1 == service.accounts.reads
        service.accounts.change(name, suspended=1)
        service.clock.now += 0.6
        with pytest.raises(AccountSuspended):
            await tokens.authenticate(token)
        service.accounts.change(name, suspended=None)
        await tokens.authenticate(token)
        service.accounts.away = True
        service.clock.now += 0.6
        with pytest.raises(StoreUnavailable):
            await tokens.authenticate(token)
        service.accounts.away = False
        service.clock.now += 400
        with pytest.raises(InvalidToken, match="expired"):
            await tokens.authenticate(token)


WRONG = {
    'issuer: "http://login.example.com", audience: a': "auth.issuers[0].issuer: must begin with",
    'issuer: "https://x.example?a=1", audience: a': "auth.issuers[0].issuer: must be a URL without a query",
    'issuer: "https://x.example"': "auth.issuers[0].audience: is required",
    'issuer: "https://x.example", audience: []': "auth.issuers[0].audience: must have at least 1 entry",
    'issuer: "https://x.example", audience: a, algorithms: [HS256]': "auth.issuers[0].algorithms[0]: must be one of",
    'issuer: "https://x.example", audience: a, algorithms: [none]': "auth.issuers[0].algorithms[0]: must be one of",
    'issuer: "https://x.example", audience: a, algorithms: []': "auth.issuers[0].algorithms: must have at least 1",
    'issuer: "https://x.example", audience: a, clock_skew: 1h': "auth.issuers[0].clock_skew: must be at most 600",
    'issuer: "https://x.example", audience: a, jwks_uri: "http://10.0.0.1/"': "auth.issuers[0].jwks_uri: must begin",
    'issuer: "https://x.example", audience: a, grants: {a: [admin]}': "must be one of",
    'issuer: "https://x.example", audience: a, plan: gold': 'auth.issuers[0].plan: no plan is named "gold"',
}


@pytest.mark.parametrize("text", WRONG)
def test_configurations_that_are_rejected(text: str) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError) as caught:
        configuration(text)
    assert WRONG[text] in str(caught.value)


def test_an_issuer_is_configured_once() -> None:
    """Two entries with one identifier are an error: only one could apply."""
    issuer = 'issuer: "https://x.example", audience: a'
    with pytest.raises(ConfigError, match=r"auth\.issuers\[1\]\.issuer: .* is listed already"):
        configuration(issuer, issuer)
