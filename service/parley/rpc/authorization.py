"""The check of a credential before Envoy reads a large body: Envoy's service `envoy.service.auth.v3.Authorization`.

Only Envoy makes the check; none of its routes leads here. A rejection is the response that the call would get: its
headers are the metadata of the error.
"""

import asyncio
import base64
import time
from typing import Any

import grpc

from parley.core.errors import ParleyError
from parley.rpc import call_log, errors
from parley.rpc.authentication import Authentication
from parley.rpc.authorization_messages import CheckRequest, CheckResponse
from parley.rpc.call import Call
from parley.rpc.error_catalogue import SERVICE

_SERVICE = "envoy.service.auth.v3.Authorization"
_ALLOWED = CheckResponse()
_UNKNOWN_ID = "-"


def add_authorization(authentication: Authentication, server: grpc.aio.Server) -> None:
    """Adds the service.

    Args:
        authentication: Authenticates the calls.
        server: The server, which only Envoy reaches.
    """

    async def check(request: Any, _context: Any) -> Any:
        return await _check(authentication, request)

    handler = grpc.unary_unary_rpc_method_handler(check, CheckRequest.FromString, CheckResponse.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Check": handler}),))


async def _check(authentication: Authentication, request: Any) -> Any:
    started = time.perf_counter()
    call = _call(request)
    try:
        await authentication.authenticate(call)
    except Exception as error:  # noqa: BLE001 - every failure is a response for the caller
        call.failure = errors.as_parley_error(error, call.request_id)
        call.status = errors.status(call.failure).name
        call_log.write(call, (time.perf_counter() - started) * 1000)
        return _denied(call.failure, authentication.challenges.metadata(call.failure))
    return _ALLOWED


def _call(request: Any) -> Call:
    attributes = request.attributes
    metadata = {header.key: header.value for header in attributes.request.http.headers}
    metadata["parley-client-address"] = attributes.source.address.socket_address.address
    request_id = metadata.get("x-request-id", _UNKNOWN_ID)
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in a task
    return Call("Check", request_id, metadata.get("x-correlation-id", request_id), metadata, task)


def _denied(error: ParleyError, challenge: tuple[tuple[str, str], ...]) -> Any:
    """Returns a response with the HTTP status of the error for REST, and with the gRPC status for gRPC."""
    status = errors.status(error).value[0]
    response = CheckResponse(status={"code": status})
    response.denied_response.status.code = SERVICE[error.reason].http_status
    headers = [("grpc-status", str(status)), ("grpc-message", errors.percent_encoded(error.message))]
    for name, value in [*headers, *errors.trailing_metadata(error), *challenge]:
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        response.denied_response.headers.add(header={"key": name, "value": text})
    return response
