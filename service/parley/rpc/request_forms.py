"""Brings a request into the one form that the core reads, whatever forms the caller has chosen."""

from parley.core.errors import InvalidRequest, Violation
from parley.rpc import typed_forms, unknown_fields
from parley.rpc.field_forms import STRUCT, TYPED, forms_in
from parley.rpc.key_order import keep_key_order
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


def read(request: CreateChatCompletionRequest, data: bytes) -> None:
    """Replaces Structs by the texts beside them, and typed forms by their fields; sets fields that are sent as text.

    Args:
        request: The request, which is changed.
        data: The bytes that the request was decoded from.

    Raises:
        InvalidRequest: With all violations.
        google.protobuf.message.DecodeError: The bytes cannot be decoded.
    """
    found = forms_in(request)
    if not found:
        return
    if found & STRUCT:
        keep_key_order(request, data)
    faults = [*unknown_fields.read(request)]
    if found & TYPED and not faults:
        faults = [*typed_forms.read(request)]
    if faults:
        raise InvalidRequest.of([Violation(*fault) for fault in faults])
