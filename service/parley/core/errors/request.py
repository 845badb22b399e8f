"""Faults of the request itself."""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple, Self

from parley.core.errors.base import MAX_PARAM, ParleyError, cut
from parley.core.session_ids import public_id
from parley.v1 import error_reason_pb2 as reasons

_MAX_VIOLATION = 140
_MAX_VIOLATIONS = 8


class Violation(NamedTuple):
    """A fault of a request.

    Attributes:
        field: The path of the field at fault, as `messages[0].role`; empty for the body itself.
        message: What is wrong, for people.
        kind: What is wrong, for programs: pydantic's type of the error, as FastAPI sends it.
    """

    field: str
    message: str
    kind: str = "value_error"


class InvalidRequest(ParleyError):
    """A field is missing, of the wrong type or out of range.

    `violations` has the first eight faults; the first one is also the error's `message` and `param`.
    """

    reason = reasons.ERROR_REASON_INVALID_REQUEST

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        kind: str = "value_error",
        violations: Sequence[Violation] | None = None,
    ) -> None:
        super().__init__(message, param=param)
        found = violations or ([Violation(param, message, kind)] if param else [])
        self.violations = [
            Violation(cut(field, MAX_PARAM), cut(text, _MAX_VIOLATION), kind)
            for field, text, kind in found[:_MAX_VIOLATIONS]
        ]

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> Self:
        """Returns the error of at least one violation."""
        first = violations[0]
        return cls(first.message, param=first.field, violations=violations)


class SessionOfOtherModel(InvalidRequest):
    """The request names, or defaults to, another model than the one that its session belongs to.

    Args:
        session_id: The id of the session.
        model: The model that the session belongs to.
    """

    def __init__(self, session_id: str, model: str) -> None:
        self.session_model = model
        message = (
            f'Session "{public_id(session_id)}" belongs to the model "{model}"; name that model, or begin a new session'
        )
        super().__init__(message, param="model")


class UnsupportedParameter(ParleyError):
    """The selected backend does not support a parameter of the request."""

    reason = reasons.ERROR_REASON_UNSUPPORTED_PARAMETER


class ModelNotFound(ParleyError):
    """The model is not configured, or the caller's key may not use it."""

    reason = reasons.ERROR_REASON_MODEL_NOT_FOUND

    def __init__(self, model: str, *, cause: str | None = None) -> None:
        super().__init__(f'Unknown model "{model}"', param="model", cause=cause)


class ModelRetired(ModelNotFound):
    """The id is an alias that has retired.

    Args:
        alias: The id.
        day: The last day on which requests could name it.
        model: The id to use.
    """

    def __init__(self, alias: str, day: date, model: str) -> None:
        super(ModelNotFound, self).__init__(f'The model "{alias}" has retired on {day}; use "{model}"', param="model")
