"""The titles and labels of sessions in requests."""

from collections.abc import Iterator

from parley.core.errors import InvalidRequest, Violation
from parley.core.sessions.labels import is_name
from parley.rpc.field_rules import LABELS
from parley.rpc.message_validation import Fault
from parley.v1.sessions_pb2 import UpdateSessionRequest

MAX_TITLE_LENGTH = 512
"""The characters of a title."""


def read(request: UpdateSessionRequest) -> tuple[str | None, dict[str, str | None]]:
    """Returns the title (None to leave it) and the labels (None to remove one). Raises InvalidRequest."""
    title = request.title if request.HasField("title") else None
    faults = [*_title_faults(title or ""), *_label_faults(request)]
    if title is None and not request.labels.fields:
        faults.append(("title", "The request must have a `title` or `labels`", "missing"))
    if faults:
        raise InvalidRequest.of([Violation(*fault) for fault in faults])
    labels = {name: value.string_value for name, value in request.labels.fields.items()}
    removed = {name: None for name, value in request.labels.fields.items() if value.HasField("null_value")}
    return title, labels | removed


def _title_faults(title: str) -> Iterator[Fault]:
    if len(title) > MAX_TITLE_LENGTH or "\0" in title:
        yield "title", f"`title` may have at most {MAX_TITLE_LENGTH} characters, and no NUL"


def _label_faults(request: UpdateSessionRequest) -> Iterator[Fault]:
    for name, value in request.labels.fields.items():
        if not is_name(name, LABELS.key_length):
            yield "labels", f"The names of `labels` must have 1 to {LABELS.key_length} characters, without = and NUL"
        elif not (value.HasField("null_value") or value.HasField("string_value")):
            yield f"labels.{name}", "The values of `labels` must be strings, or null to remove a label"
        elif len(value.string_value) > LABELS.value_length or "\0" in value.string_value:
            yield f"labels.{name}", f"The values of `labels` may have at most {LABELS.value_length} characters, no NUL"
