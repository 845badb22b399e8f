"""The titles and labels of sessions in requests."""

from collections.abc import Iterator

from parley.core.errors import InvalidRequest, Violation
from parley.core.sessions.labels import name_fault, title_fault, value_fault
from parley.rpc.message_validation import Fault
from parley.v1.sessions_pb2 import UpdateSessionRequest

_MAX_CHANGES = 64  # labels that a request sets or removes


def read(request: UpdateSessionRequest) -> tuple[str | None, dict[str, str | None]]:
    """Returns the title (None to leave it) and the labels (None to remove one). Raises InvalidRequest."""
    faults = list(_faults(request))
    if faults:
        raise InvalidRequest.of([Violation(*fault) for fault in faults])
    labels = {name: value.string_value for name, value in request.labels.fields.items()}
    removed = {name: None for name, value in request.labels.fields.items() if value.HasField("null_value")}
    return request.title if request.HasField("title") else None, labels | removed


def _faults(request: UpdateSessionRequest) -> Iterator[Fault]:
    if fault := title_fault(request.title):
        yield "title", fault
    if not (request.HasField("title") or request.labels.fields):
        yield "title", "The request must have a `title` or `labels`", "missing"
    if len(request.labels.fields) > _MAX_CHANGES:
        yield "labels", f"`labels` may have at most {_MAX_CHANGES} entries"
    else:
        yield from _label_faults(request)


def _label_faults(request: UpdateSessionRequest) -> Iterator[Fault]:
    for name, value in request.labels.fields.items():
        if fault := name_fault(name):
            yield "labels", fault
        elif not (value.HasField("null_value") or value.HasField("string_value")):
            yield f"labels.{name}", "The values of `labels` must be strings, or null to remove a label"
        elif fault := value_fault(value.string_value):
            yield f"labels.{name}", fault
