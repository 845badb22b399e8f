"""Finds the fields of a message that have another form inside the service: Structs, texts, typed forms.

The search is compiled once for each type, because every message of every call is searched and almost none has such
fields.
"""

from itertools import repeat
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from parley.core.messages.typed_fields import typed_fields
from parley.rpc.key_order import STRUCTS

STRUCT, TEXT, TYPED = 1, 2, 4
TEXTS = ("extra_json", "extra_body_json")
"""The fields with the text of unknown fields."""

_Fields = dict[FieldDescriptor, tuple[int, Any, bool]]
"""By field: its form, the fields of its message, and whether it is repeated."""
_KNOWN: dict[type, _Fields] = {}


def forms_in(message: Any) -> int:
    """Returns the forms that are set anywhere in a message.

    Returns:
        The sum of `STRUCT` (a Struct with a text field beside it), `TEXT` (the text of unknown fields) and `TYPED` (a
        typed form); 0 for none.
    """
    fields = _fields_of(type(message))
    found, rest = 0, [(message, fields)]
    while rest:  # a recursive function takes twice as long
        part, fields = rest.pop()
        for field, value in part.ListFields():
            form = fields.get(field)
            if form is not None:
                flag, inner, is_repeated = form
                found |= flag
                if inner:
                    rest.extend(zip(value, repeat(inner)) if is_repeated else ((value, inner),))
    return found


def fields_with_forms(kind: type[Message]) -> frozenset[FieldDescriptor]:
    """Returns the fields of a message type that are forms, or whose messages may have some."""
    return frozenset(_fields_of(kind))


def _fields_of(kind: type[Message]) -> _Fields:
    fields = _KNOWN.get(kind)
    if fields is None:
        fields = _KNOWN[kind] = _fields(kind.DESCRIPTOR)  # type: ignore[arg-type] # its other implementation's type
    return fields


def parley_type(field: FieldDescriptor) -> Descriptor | None:
    """Returns the message type of a field if it is one of Parley's and not a map."""
    kind = field.message_type
    is_own = kind is not None and kind.full_name.startswith("parley.") and not kind.GetOptions().map_entry
    return kind if is_own else None


def _fields(kind: Descriptor) -> _Fields:
    """Returns the fields of a type that are forms, or whose messages may have some.

    By descriptor: `ListFields` makes anew, at each call, those that nothing holds.
    """
    flags = {struct: STRUCT for struct, _ in STRUCTS.get(kind.full_name, ())}
    flags |= {field.name: TEXT for field in kind.fields if field.name in TEXTS}
    flags |= dict.fromkeys(typed_fields(kind), TYPED)
    inner = {field.name: _fields(type_of) for field in kind.fields if (type_of := parley_type(field)) is not None}
    return {
        field: (flags.get(field.name, 0), inner.get(field.name), field.is_repeated)
        for field in kind.fields
        if field.name in flags or inner.get(field.name)
    }
