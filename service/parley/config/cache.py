"""The cache of a model: answers that are kept for later calls with the same request."""

from typing import Annotated, Literal

from parley.config.markers import Constraints
from parley.config.types import Duration, Size, Strict


class Cache(Strict):
    """The cache of a model's answers. A later call whose request is the same in every field gets the kept answer.

    Example:
        models:
          - id: faq
            targets: [{backend: openai, model: gpt-5-mini}]
            defaults: {temperature: 0}
            cache: {ttl: 1h}
    """

    ttl: Duration = 3600.0
    """Time for which an answer is kept."""
    scope: Literal["account", "all"] = "account"
    """Whether the answers of an account are for its own calls only (`account`), or for the calls of all accounts
    (`all`)."""
    any_temperature: bool = False
    """Whether requests of any temperature use the cache. Default: only those whose temperature is 0, in the request or
    in the model's `defaults`. Without a temperature, backends use one above 0."""
    tools: bool = False
    """Whether requests with tools, functions or a web search use the cache, and answers with calls of them are kept."""
    max_answer: Annotated[Size, Constraints(ge=1)] = 256 * 1024
    """Size of an answer above which it is not kept."""
    max_bytes: Annotated[Size, Constraints(ge=1)] = 64 * 1024 * 1024
    """Size of all answers that an account has of this model. Above it, the oldest ones are removed."""
