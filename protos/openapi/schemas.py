"""JSON Schemas of messages, from their types, the table of rules, and phrases such as `Required` in comments."""

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from parley.rpc import field_rules
from protos.openapi import rules
from protos.openapi.descriptor import Protos, is_grpc_only, local_name, map_value

Schema = dict[str, Any]

_PLAIN: dict[int, Schema] = {
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_DOUBLE: {"type": "number"},
    Field.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    Field.TYPE_INT64: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
}
# Client generators treat an object as empty unless it has `additionalProperties`.
_OBJECT: Schema = {"type": "object", "additionalProperties": True}
_PART = _OBJECT | {"properties": {"type": {"type": "string"}}, "required": ["type"]}
_CHOICE = _OBJECT | {"properties": {"type": {"type": "string"}}}

# The documented types of fields that are a google.protobuf.Value in the protos.
VALUES: dict[str, list[Schema]] = {
    "Message.content": [{"type": "string"}, {"type": "array", "items": _PART, "minItems": 1}],
    "CreateChatCompletionRequest.stop": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
    ],
    "CreateChatCompletionRequest.tool_choice": [
        {"type": "string", "enum": [*field_rules.TOOL_CHOICES]},
        _CHOICE,
    ],
    "CreateChatCompletionRequest.function_call": [
        {"type": "string", "enum": [*field_rules.FUNCTION_CALLS]},
        _OBJECT | {"properties": {"name": {"type": "string"}}},
    ],
    "Prediction.content": [{"type": "string"}, {"type": "array", "items": _PART}],
    "AudioOutput.voice": [{"type": "string"}, _OBJECT],
}


_CONTENT = {"anyOf": VALUES["Message.content"]}
_TEXT = {"type": "string", "minLength": 1}

# Dependencies between fields: the deciding field, and the fields that its values require.
NEEDS: dict[str, tuple[str, list[tuple[list[str], dict[str, Schema]]]]] = {
    "Message": (
        "role",
        [
            (["system", "developer", "user"], {"content": _CONTENT}),
            (["tool"], {"content": _CONTENT, "tool_call_id": _TEXT}),
            (["function"], {"content": _CONTENT, "name": _TEXT}),
        ],
    ),
    "Tool": ("type", [(["function"], {"function": {"type": "object"}}), (["custom"], {"custom": {"type": "object"}})]),
    "ResponseFormat": ("type", [(["json_schema"], {"json_schema": {"type": "object"}})]),
}


def _conditions(field: str, needs: list[tuple[list[str], dict[str, Schema]]]) -> Schema:
    """Returns nested conditions, which client generators ignore: the object stays one type."""
    if not needs:
        return {}
    (values, required), *rest = needs
    condition: Schema = {
        "if": {"properties": {field: {"enum": values}}, "required": [field]},
        "then": {"properties": required, "required": list(required)},
    }
    return condition | ({"else": _conditions(field, rest)} if rest else {})


_MORE: dict[str, Schema] = {
    "CreateChatCompletionRequest.model": {"minLength": 1},
    "CreateChatCompletionRequest.logit_bias": {"propertyNames": {"pattern": "^[0-9]+$"}},
    "CustomTool.name": {"minLength": 1},
    "ResponseFormat.type": {"minLength": 1},
    "Tool.type": {"minLength": 1},
}

_REQUIRED = re.compile(r"\bRequired(\.|, at least)|\bAlways (set|true|`)")
_OVER_GRPC = re.compile(r" Over gRPC\b[^.]*\.")  # a sentence for gRPC callers
_NULL = "over REST: null"
_MAY_BE_NULL = "or null in the `openai` dialect"
# The fields that contain unknown members; over REST, the members are in the object itself.
_CARRIERS = ("extra", "extra_json")


def reference(name: str) -> Schema:
    """Returns a reference to the schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


class Schemas:
    """The schemas of the protos' messages."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        methods = [method for service in protos.services.values() for method in service.method]
        self._requests = self._reached(local_name(method.input_type) for method in methods)
        self._responses = self._reached(local_name(method.output_type) for method in methods)

    def components(self) -> dict[str, Schema]:
        """Returns the schemas of all messages that are sent as a body, or are part of one."""
        names = sorted(self._requests | self._responses)
        # The fields of GET and DELETE requests are parameters.
        return {name: self.message(name) for name in names if name not in self._parameters()}

    def message(self, name: str) -> Schema:
        """Returns the schema of a message."""
        declared = self._protos.messages[name].field
        fields = [field for field in declared if not self._is_hidden(name, field)]
        schema: Schema = {"description": self._protos.comments[name], "type": "object"}
        required = [field.json_name for field in fields if self.is_required(name, field)]
        properties = {field.json_name: self.property(name, field) for field in fields}
        if name in self._requests:  # null is equivalent to an absent field
            properties = {key: value if key in required else _or_null(value) for key, value in properties.items()}
        schema["properties"] = properties
        schema |= {"required": required} if required else {}
        schema |= {"additionalProperties": True} if any(field.name in _CARRIERS for field in declared) else {}
        return schema | (_conditions(*NEEDS[name]) if name in NEEDS else {})

    def property(self, name: str, field: Field) -> Schema:
        """Returns the schema of a message's field, with its comment as the description."""
        comment = self.comment(name, field)
        place = f"{name}.{field.name}"
        described = {"description": _OVER_GRPC.sub("", comment) + _other_name(field), **_MORE.get(place, {})}
        value = map_value(self._protos.messages[name], field)
        if value:
            values = self._plain(place, value) | rules.of_value(place, value, comment)
            limits = rules.of_labels(place, comment) | rules.of_entries(place, comment, "maxProperties")
            return described | {"type": "object", "additionalProperties": values} | limits
        schema = self._plain(place, field) | rules.of_value(place, field, comment)
        if field.label == Field.LABEL_REPEATED:
            several = {"minItems": 1} if "at least one" in comment else {}
            schema = {"type": "array", "items": schema} | several | rules.of_entries(place, comment, "maxItems")
        if _NULL in comment or _MAY_BE_NULL in comment:
            schema = _or_null(schema)
        return described | schema

    def is_required(self, name: str, field: Field) -> bool:
        """Returns whether the field is always present: by its comment, or as a non-optional field of a response."""
        comment = self.comment(name, field)
        if _REQUIRED.search(comment) or _NULL in comment:
            return True
        single = field.label != Field.LABEL_REPEATED and not field.proto3_optional
        return single and name not in self._requests and "absent" not in comment

    def _is_hidden(self, name: str, field: Field) -> bool:
        """Returns whether the field never appears in the JSON of REST."""
        return field.name in _CARRIERS or is_grpc_only(self._protos, name, field)

    def comment(self, name: str, field: Field) -> str:
        """Returns the comment of a message's field."""
        return self._protos.comments[f"{name}.{field.name}"]

    def _plain(self, place: str, field: Field) -> Schema:
        if field.type != Field.TYPE_MESSAGE:
            return dict(_PLAIN[field.type])
        kind = local_name(field.type_name)
        if kind == "google.protobuf.Struct":
            return dict(_OBJECT)
        if kind == "google.protobuf.Value":
            return {"anyOf": VALUES[place]}
        return reference(kind)

    def _reached(self, names: Iterable[str]) -> set[str]:
        """Returns these messages and the messages of their fields."""
        found: set[str] = set()
        left = [name for name in names if name in self._protos.messages]
        while left:
            name = left.pop()
            found.add(name)
            fields = self._protos.messages[name].field
            kinds = {local_name(field.type_name) for field in fields if not self._is_hidden(name, field)}
            left += [kind for kind in kinds if kind in self._protos.messages and kind not in found]
        return found

    def _parameters(self) -> set[str]:
        methods = [method for service in self._protos.services.values() for method in service.method]
        return {local_name(method.input_type) for method in methods} - {"CreateChatCompletionRequest"}


def _or_null(schema: Schema) -> Schema:
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return schema | {"type": [*kinds, "null"] if "null" not in kinds else kinds}
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "$ref")}
    return rest | {"anyOf": [*(schema.get("anyOf") or [{"$ref": schema["$ref"]}]), {"type": "null"}]}


def _other_name(field: Field) -> str:
    return f" Also accepted as `{field.name}`." if field.name != field.json_name else ""
