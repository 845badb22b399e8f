"""Finds the fields of a message that have another form inside the service: Structs, texts, typed forms.

The search is compiled once for each type, because every message of every call is searched and almost none has such
fields.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from parley.core.messages.typed_fields import typed_fields
from parley.rpc.key_order import STRUCTS

STRUCT, TEXT, TYPED = 1, 2, 4
TEXTS = ("extra_json", "extra_body_json")
"""The fields with the text of unknown fields."""

_Finder = Callable[[Any], int]


def forms_in(message: Any) -> int:
    """Returns the forms that are set anywhere in a message.

    Returns:
        The sum of `STRUCT` (a Struct with a text field beside it), `TEXT` (the text of unknown fields) and `TYPED` (a
        typed form); 0 for none.
    """
    kind = type(message)
    find = _FINDERS.get(kind)
    if find is None:
        find = _FINDERS[kind] = _finder(message.DESCRIPTOR) or _nothing
    return find(message)


def parley_type(field: FieldDescriptor) -> Descriptor | None:
    """Returns the message type of a field if it is one of Parley's and not a map."""
    kind = field.message_type
    is_own = kind is not None and kind.full_name.startswith("parley.") and not kind.GetOptions().map_entry
    return kind if is_own else None


def _finder(kind: Descriptor) -> _Finder | None:
    """Returns a function that searches a message; None if the type cannot have any of the forms."""
    flags = {struct: STRUCT for struct, _ in STRUCTS.get(kind.full_name, ())}
    flags |= {field.name: TEXT for field in kind.fields if field.name in TEXTS}
    flags |= dict.fromkeys(typed_fields(kind), TYPED)
    inner = [(field, _finder(type_of)) for field in kind.fields if (type_of := parley_type(field)) is not None]
    finders = {field.name: (find, field.is_repeated) for field, find in inner if find is not None}
    if not (flags or finders):
        return None

    def find_any(message: Any) -> int:
        found = 0
        for field, value in message.ListFields():
            name = field.name
            if name in finders:
                find, is_repeated = finders[name]
                for item in value if is_repeated else (value,):
                    found |= find(item)
            if name in flags:
                found |= flags[name]
        return found

    return find_any


def _nothing(_: Any) -> int:
    return 0


_FINDERS: dict[type, _Finder] = {}
