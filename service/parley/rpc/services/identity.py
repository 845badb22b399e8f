"""The `Identity` service: how callers get credentials."""

from parley.config import Auth
from parley.rpc.call import current
from parley.rpc.call_handler import Context
from parley.v1 import identity_pb2 as messages
from parley.v1 import identity_pb2_grpc as services

_ORIGIN = "parley-origin"  # the edge's header with the scheme and host of a REST request


class IdentityServicer(services.IdentityServicer):
    """Serves the metadata of the protected resource (RFC 9728)."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def GetProtectedResource(
        self,
        request: messages.GetProtectedResourceRequest,
        context: Context,
    ) -> messages.ProtectedResource:
        """Reads the metadata."""
        issuers = self._auth.issuers
        return messages.ProtectedResource(
            resource=self._auth.resource or _resource(current().metadata.get(_ORIGIN), request.path),
            authorization_servers=[issuer.issuer for issuer in issuers],
            scopes_supported=dict.fromkeys(scope for issuer in issuers for scope in (*issuer.scopes, *issuer.grants)),
            bearer_methods_supported=["header"],
            resource_name="Parley",
        )


def _resource(origin: str | None, path: str) -> str:
    """Returns the identifier of a resource at this origin; empty without an origin."""
    return f"{origin}/{path}".rstrip("/") if origin else ""
