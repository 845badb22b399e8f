"""The targets of a model: a backend, its name of the model, and how requests to it differ from those of callers."""

from functools import lru_cache
from typing import Annotated

from parley.config.markers import Constraints
from parley.config.parameter_changes import ParameterChanges

WILDCARD = "*"
"""Ends the id of a model that stands for many, and stands for the rest of the requested id in names of targets."""


class Target(ParameterChanges):
    """A backend that answers a model, with the backend's own name of that model.

    Parameters of requests are changed in this order: `drop`, `rename`, `default`, `set`. Their names are those of the
    backend's own API. The changes of the backend hold beside those of the target, which win.

    Example:
        models:
          - id: support
            targets:
              - {backend: vllm, model: qwen3-8b, weight: 3, max_concurrent: 32, max_queued: 8}
              - {backend: openai, model: gpt-5-mini, rename: {max_tokens: max_completion_tokens}, drop: [seed]}
    """

    backend: str
    """Name of the backend, a key of `backends`."""
    model: str = ""
    """Name of the model at the backend. Default: none is sent. `*` is the rest of the requested id, if the id of the
    model ends with `*`."""
    weight: Annotated[float, Constraints(gt=0, allow_inf_nan=False)] = 1.0
    """Share of the calls, relative to the other targets of the model."""
    max_concurrent: Annotated[int | None, Constraints(ge=1)] = None
    """Largest number of calls of one worker at a time. Default: no limit. The same in every place that names the same
    backend and model."""
    max_queued: Annotated[int, Constraints(ge=0)] = 0
    """Largest number of calls of one worker that wait for a free slot, for up to `timeouts.connect`. The same in every
    place that names the same backend and model."""

    @property
    def name(self) -> str:
        """The name in the log, in receipts and in `prices`: `backend/model`, or the backend alone."""
        return target_name(self.backend, self.model)


@lru_cache(maxsize=1024)  # every call names its target
def target_name(backend: str, model: str) -> str:
    """Returns the name of a target: `openai/gpt-5-mini`, or the backend alone if `model` is empty."""
    return f"{backend}/{model}" if model else backend
