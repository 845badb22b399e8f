"""Recognizes that a backend does not know a name of a wildcard, which the caller has chosen."""

import re

from parley.core.errors import (
    AddedParameterRejected,
    ModelNotFound,
    ParleyError,
    UpstreamMisconfigured,
    UpstreamRejected,
)

_STATUS = re.compile(r"HTTP (?:404|410)\b")
_NAMES_MODEL = re.compile(
    r"\b(?:model|engine|deployment)\b.{0,160}?(?:do(?:es)? ?n[o']t exist|not[ _]found|is not available|not supported"
    r"|decommissioned|deprecated|retired|discontinued|no longer)"
    r"|model_?(?:not_?found|decommissioned|deprecated|retired)|deployment_?not_?found"
    r"|not a valid model|unknown[ _]model|invalid[ _]model|model identifier is invalid|no endpoints found",
    re.IGNORECASE | re.DOTALL,
)


def as_not_found(model_id: str, error: ParleyError) -> ParleyError:
    """Replaces the failure of a target that does not know the requested name with ModelNotFound.

    For other models such a failure is a fault of the configuration. Here it shows nothing about the target.
    """
    if isinstance(error, UpstreamRejected):
        is_unknown = error.param == "model"
    elif isinstance(error, UpstreamMisconfigured) and not isinstance(error, AddedParameterRejected):
        text = f"{error.cause} {error.detail}"
        is_unknown = bool(_STATUS.search(text) or _NAMES_MODEL.search(text))
    else:
        is_unknown = False
    return ModelNotFound(model_id, cause=error.cause) if is_unknown else error
