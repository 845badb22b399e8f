"""Sign-in on the page at `/`, as the configuration of the issuers describes it."""

from parley.config import Auth, Issuer, PageClient
from parley.supervisor.edge_settings import SignIn


def sign_in(auth: Auth) -> tuple[SignIn, ...]:
    """Returns the issuers at which the page offers sign-in: those with a client for it."""
    return tuple(_sign_in(auth, issuer, issuer.page) for issuer in auth.issuers if issuer.page is not None)


def _sign_in(auth: Auth, issuer: Issuer, page: PageClient) -> SignIn:
    scopes = page.scopes if page.scopes is not None else ["openid", *issuer.scopes, *issuer.grants]
    defaults = {"resource": auth.resource} if auth.resource else {}
    parameters = page.parameters if page.parameters is not None else defaults
    return SignIn(
        issuer.issuer,
        page.client_id,
        tuple(dict.fromkeys(scopes)),
        issuer.id_tokens,
        tuple(parameters.items()),
        tuple(page.origins),
    )
