"""Decoding of requests. gRPC itself would report a malformed request as INTERNAL."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from parley.core.errors import InvalidRequest, Violation
from parley.core.offload import LARGE_BYTES, offload, record_size
from parley.rpc import encoded_requests, errors, request_forms, typed_forms
from parley.rpc.call import Call
from parley.rpc.field_forms import STRUCT, forms_in
from parley.rpc.key_order import keep_key_order
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.sessions_pb2 import AddSessionMessagesRequest

_TYPED = frozenset({"CreateChatCompletion", "StreamChatCompletion"})  # the methods that the edge does not call for REST
# The violations of a body that the edge cannot forward. The edge does not authenticate: it sends the call without the
# body, so that a missing or invalid key is reported first.
_EDGE_ERROR = "parley-refusal"
_NO_MESSAGE = "The call has no message; send one"
_UNDECODABLE = (
    "The request cannot be read: it is malformed or not UTF-8, or its JSON is nested too deeply; send it less nested"
)
# For a request that the edge has encoded: its JSON was checked there, but not whether its strings are UTF-8.
# edge/lua/errors.lua has the same message for large bodies.
_NO_UTF8 = "The request body must be JSON in UTF-8, and not nested too deeply"


def decoder(read: Callable[[bytes], Any], name: str) -> Callable[[Call, Any], Awaitable[Any]]:
    """Returns the function that decodes the requests of the method `name`.

    Args:
        read: Decodes the message.
        name: The method's name.

    Returns:
        A function of the call and what `context.read` has returned. It raises InvalidRequest.
    """
    read_request = partial(_read_request, read, name)

    async def decode(call: Call, data: Any) -> Any:
        if data is grpc.aio.EOF:
            await asyncio.sleep(0)  # ends here if the caller has cancelled the call
            raise InvalidRequest(_NO_MESSAGE)
        violations = call.metadata.get(_EDGE_ERROR)
        if violations:
            raise InvalidRequest.of(errors.decode_violations(violations))
        try:
            if len(data) < LARGE_BYTES:
                return read_request(call, data)
            record_size(size=len(data))
            return await offload(read_request, call, data)
        except DecodeError as error:
            raise _undecodable(data) from error

    return decode


def _undecodable(data: bytes) -> InvalidRequest:
    if data.startswith(encoded_requests.HEAD):
        return InvalidRequest.of([Violation("", _NO_UTF8, "json_invalid")])
    return InvalidRequest(_UNDECODABLE)


def _read_request(read: Callable[[bytes], Any], name: str, call: Call, data: bytes) -> Any:
    if data.startswith(encoded_requests.HEAD):
        data = encoded_requests.decoded(data)
    request = read(data)
    if isinstance(request, CreateChatCompletionRequest):
        call.shape = request_forms.read(request, data)
        if name in _TYPED:
            typed_forms.infer_types(request, call.shape)
    elif isinstance(request, AddSessionMessagesRequest) and forms_in(request) & STRUCT:
        keep_key_order(request, data)
    return request
