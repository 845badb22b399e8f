"""The chain of interceptors of Parley's services."""

import grpc

from parley.core.usage.limits import RateLimiter
from parley.rpc.admission import AdmissionInterceptor
from parley.rpc.authentication import Authentication
from parley.rpc.call import Call
from parley.rpc.interceptors import (
    AuthInterceptor,
    ContextInterceptor,
    DecodeInterceptor,
    ErrorInterceptor,
    LogInterceptor,
)


def interceptors(
    authentication: Authentication, limits: RateLimiter, running: set[Call], *, behind_edge: bool
) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors, the outermost first.

    Args:
        authentication: Authenticates the calls.
        limits: Charges every call.
        running: Kept up to date with the running calls.
        behind_edge: Whether the metadata has the client's address; otherwise the connection has it.
    """
    return [
        ContextInterceptor(running, behind_edge=behind_edge),  # first: the ids are needed by all others
        LogInterceptor(),  # outside of everything that can fail: every call is logged
        ErrorInterceptor(authentication.challenges),  # turns every exception of the inner ones into a status
        AuthInterceptor(authentication),  # before the body is decoded: unauthenticated calls stay cheap
        AdmissionInterceptor(limits),  # needs the caller; outside of all that can reject the request
        DecodeInterceptor(),  # not in gRPC, which reports a malformed request as INTERNAL
    ]
