"""The fields of requests that are typed forms of other fields, for gRPC callers (see message.proto).

They are not part of the JSON: inside the service they are not set, and an unknown field may have the name of one. A
content part is typed as a whole.
"""

from google.protobuf.descriptor import Descriptor, FieldDescriptor

TYPED_FIELDS: dict[str, frozenset[str]] = {
    "parley.v1.AudioOutput": frozenset({"voice_name", "voice_id"}),
    "parley.v1.CreateChatCompletionRequest": frozenset({"stop_sequences", "typed_tool_choice", "typed_function_call"}),
    "parley.v1.CustomTool": frozenset({"grammar"}),
    "parley.v1.Message": frozenset({"text", "parts"}),
    "parley.v1.Prediction": frozenset({"text", "parts"}),
}
"""By the full name of a message type: the names of its typed forms."""
_PART = "parley.v1.ContentPart"


def typed_fields(kind: Descriptor) -> frozenset[str]:
    """Returns the names of a message type's typed forms; most types have none."""
    if kind.full_name == _PART:
        return frozenset(field.name for field in kind.oneofs_by_name["content"].fields)
    return TYPED_FIELDS.get(kind.full_name, frozenset())


def json_fields(kind: Descriptor) -> list[FieldDescriptor]:
    """Returns the fields of a message type without its typed forms."""
    typed = typed_fields(kind)
    return [field for field in kind.fields if field.name not in typed]
