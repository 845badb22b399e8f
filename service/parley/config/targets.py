"""The targets of a model: a backend, its name of the model, and how requests to it differ from those of callers."""

from dataclasses import field
from typing import Annotated, Any

from parley.config.markers import Constraints
from parley.config.types import Strict

WILDCARD = "*"
"""Ends the id of a model that stands for many, and stands for the rest of the requested id in names of targets."""


class Accepts(Strict):
    """The most of each that a target accepts. 0: the target does not accept it at all.

    Example:
        models:
          - id: support
            targets: [{backend: local, accepts: {n: 1, stop: 4, tools: 128, images: 0}}]
    """

    n: Annotated[int | None, Constraints(ge=1)] = None
    """Largest number of choices. Default: no limit, as for the others."""
    stop: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of stop sequences."""
    tools: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of tools."""
    images: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of images in the conversation."""


class Target(Strict):
    """A backend that answers a model, with the backend's own name of that model.

    Parameters of requests are changed in this order: `drop`, `rename`, `default`, `set`. Their names are those of the
    backend's own API.

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
    drop: list[str] = field(default_factory=list)
    """Parameters that are left out, for servers that reject them."""
    rename: dict[str, str] = field(default_factory=dict)
    """Parameters that get another name, as `max_tokens: max_completion_tokens`. If a request has both, that with the
    new name stays. `developer: system` renames the role of messages."""
    default: dict[str, Any] = field(default_factory=dict)
    """Parameters for requests without them."""
    set: dict[str, Any] = field(default_factory=dict)
    """Parameters in place of those of requests."""
    accepts: Accepts = Accepts()
    """The most choices, stop sequences, tools and images that the target accepts. Other requests go to the next target
    or fallback, or are rejected."""

    @property
    def name(self) -> str:
        """The name in the log, in receipts and in `prices`: `backend/model`, or the backend alone."""
        return target_name(self.backend, self.model)


def target_name(backend: str, model: str) -> str:
    """Returns the name of a target: `openai/gpt-5-mini`, or the backend alone if `model` is empty."""
    return f"{backend}/{model}" if model else backend
