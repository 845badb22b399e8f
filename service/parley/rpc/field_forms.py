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
    inner = {field.name: _finder(type_of) for field in kind.fields if (type_of := parley_type(field)) is not None}
    # By number: the name of a field is a new string each time.
    known = {
        field.number: (flags.get(field.name, 0), inner.get(field.name), field.is_repeated)
        for field in kind.fields
        if field.name in flags or inner.get(field.name) is not None
    }
    if not known:
        return None

    def find_any(message: Any) -> int:
        found = 0
        for field, value in message.ListFields():
            form = known.get(field.number)
            if form is not None:
                flag, find, is_repeated = form
                found |= flag
                if find is not None:
                    for item in value if is_repeated else (value,):
                        found |= find(item)
        return found

    return find_any


def _nothing(_: Any) -> int:
    return 0


_FINDERS: dict[type, _Finder] = {}
