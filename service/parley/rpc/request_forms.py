"""Brings a request into the one form that the core reads, whatever forms the caller has chosen."""

from parley.core.errors import InvalidRequest, Violation
from parley.core.ports import RequestShape
from parley.rpc import typed_forms, unknown_fields
from parley.rpc.field_forms import STRUCT, TYPED, fields_with_forms, forms_in
from parley.rpc.key_order import keep_key_order
from parley.rpc.request_shape import MESSAGES, shape_of
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_OTHERS = fields_with_forms(CreateChatCompletionRequest) - {MESSAGES}
"""The fields besides the messages that are other forms, or whose messages may have some."""


def read(request: CreateChatCompletionRequest, data: bytes) -> RequestShape:
    """Replaces Structs by the texts beside them, and typed forms by their fields; sets fields that are sent as text.

    Args:
        request: The request, which is changed.
        data: The bytes that the request was decoded from.

    Returns:
        The shape of the changed request.

    Raises:
        InvalidRequest: With all violations.
        google.protobuf.message.DecodeError: The bytes cannot be decoded.
    """
    shape = shape_of(request)
    if shape.texts is not None and _OTHERS.isdisjoint(shape.fields):
        return shape
    found = forms_in(request)
    if not found:
        return shape
    if found & STRUCT:
        keep_key_order(request, data)
    faults = [*unknown_fields.read(request)]
    if found & TYPED and not faults:
        faults = [*typed_forms.read(request)]
    if faults:
        raise InvalidRequest.of([Violation(*fault) for fault in faults])
    return shape_of(request)
