"""Sign-in on the page at a real OpenID provider, with an authorization code and PKCE."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.page.conftest import Visitor
from tests.e2e.providers import RESOURCE, OidcProvider, oidc_provider
from tests.processes import Parley, started
from tests.upstream import Json, ScriptedUpstream, stream

CONFIG = """\
backends:
  one: {{kind: openai, base_url: "{upstream}"}}
  other: {{kind: openai, base_url: "{upstream}"}}
models:
  - id: scripted
    targets: [{{backend: one}}, {{backend: other}}]
    metadata: {{context_length: 131072, modalities: [text, image], tools: true, description: Answers by a script}}
  - id: "any/*"
    targets: [{{backend: one, model: "*"}}]
    guards: [numbers]
    cache: {{any_temperature: true}}
guards: {{numbers: {{patterns: ["[0-9]{{4}}"]}}}}
prices: {{one: {{prompt: 100, completion: 100}}, other: {{prompt: 100, completion: 100}}}}
auth:
  issuers:
    - issuer: {issuer}
      audience: parley
      scopes: [parley:chat]
      page: {{client_id: page, parameters: {{resource: "{resource}"}}}}
"""


@pytest.fixture(scope="module")
def provider(installed: Path) -> Iterator[OidcProvider]:
    """A running provider."""
    with oidc_provider(installed) as running:
        yield running


@pytest.fixture(scope="module")
def parley(
    provider: OidcProvider, the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Parley]:
    """A Parley whose page offers sign-in at the provider."""
    file = tmp_path_factory.mktemp("sign-in") / "parley.yaml"
    file.write_text(CONFIG.format(upstream=the_upstream.url, issuer=provider.issuer, resource=RESOURCE))
    with started("--config", str(file)) as running:
        yield running


@pytest.fixture
def visitor(chromium: Browser, parley: Parley, provider: OidcProvider) -> Iterator[Visitor]:
    """A page of this Parley, which may call the provider."""
    context = chromium.new_context()
    found = Visitor(context.new_page(), parley)
    found.may_call = (provider.issuer,)
    yield found
    context.close()
    assert [] == found.problems


def test_a_user_signs_in_and_chats(visitor: Visitor, upstream: ScriptedUpstream, provider: OidcProvider) -> None:
    """After the provider's forms the page has a token: a question is answered, and the address has no code.

    The receipt has an attempt that failed, the one that answered, and the cost.
    """
    upstream.answer(Json({"error": {"message": "busy"}}, status=503), stream("Hello there."))
    log_in(visitor, provider)
    visitor.choose("scripted")
    known = "Answers by a script · reads text, image · 131,072 tokens · tools · 100.00 / 100.00"
    expect(visitor.page.get_by_role("combobox", name="Model")).to_have_accessible_description(re.compile(known))
    visitor.ask("Hello")
    expect(visitor.page.get_by_role("article")).to_contain_text("Hello there.")
    visitor.page.get_by_role("button", name="Receipt").click()
    receipt = visitor.page.get_by_role("group", name="Receipt")
    expect(receipt.get_by_role("listitem")).to_have_text(
        [
            re.compile(r"^(one|other): failed after .*"),
            re.compile(r"^(one|other) \(\w+\): completed after .*, cost 0\.00"),
        ]
    )
    expect(receipt.locator("p")).to_have_text(re.compile("12 tokens · cost 0.0012"))
    assert visitor.page.url.startswith(f"{visitor.parley.http}/#/playground/")
    assert '"kind":"token"' in visitor.page.evaluate("sessionStorage.getItem('parley.credential')")
    assert upstream.requests


def test_a_model_of_a_wildcard_is_named(visitor: Visitor, upstream: ScriptedUpstream, provider: OidcProvider) -> None:
    """For an id with `*`, the reader types the name of the model. The receipt has what guards did, and the cache.

    A retry is not answered from the cache.
    """
    upstream.answer(stream("Hello there."), stream("Another."))
    log_in(visitor, provider)
    visitor.choose("any/*")
    visitor.page.get_by_label("Name of Model").fill("any/thing")
    for cache in ("miss", "hit"):
        visitor.ask("My number is 1234")
        expect(visitor.page.get_by_role("article", name="Answer of any/thing")).to_contain_text("Hello there.")
        visitor.page.get_by_role("button", name="Receipt").click()
        receipt = visitor.page.get_by_role("group", name="Receipt")
        expect(receipt).to_contain_text("guard numbers before the model: redacted")
        expect(receipt).to_contain_text(f"cache {cache}")
        visitor.page.get_by_role("button", name="New chat").click()
    visitor.ask("My number is 1234")
    visitor.page.get_by_role("button", name="Retry").click()
    expect(visitor.page.get_by_role("article", name="Answer of any/thing")).to_contain_text("Another.")
    request, _ = upstream.requests
    assert "thing" == request.json["model"]
    assert "My number is [redacted]" == request.json["messages"][-1]["content"]


def test_a_sign_in_that_did_not_begin_here_is_refused(visitor: Visitor) -> None:
    """A code with another state is not redeemed: an attacker could sign a user in to a foreign account."""
    visitor.page.goto(f"{visitor.parley.http}/?code=stolen&state=other")
    expect(visitor.page.get_by_role("alert")).to_contain_text("did not begin in this tab")
    assert f"{visitor.parley.http}/" == visitor.page.url


def log_in(visitor: Visitor, provider: OidcProvider) -> None:
    """Starts a sign-in and fills in the provider's forms."""
    page = visitor.page
    page.goto(visitor.parley.http)
    page.get_by_role("button", name=f"Sign in at {provider.issuer.removeprefix('http://')}").click()
    page.locator("[name=login]").fill("ada")
    page.locator("[name=password]").fill("x")
    page.locator("[type=submit]").click()
    page.locator("[type=submit]").click()
    page.wait_for_url(f"{visitor.parley.http}/")
