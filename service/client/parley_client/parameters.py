"""The parameters of a completion, for type checkers."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class LoopParameters(TypedDict, total=False):
    """Parameters of a tool loop: fields of `CreateChatCompletionRequest`, under the names of OpenAI's API.

    The proto describes each. A backend's own parameters go into `extra_body`.
    """

    model: str | None
    temperature: float
    top_p: float
    n: int
    stop: str | Sequence[str]
    max_tokens: int
    max_completion_tokens: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float] | Mapping[int, float]
    logprobs: bool
    top_logprobs: int
    seed: int
    user: str
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    functions: Sequence[Any]
    function_call: str | Mapping[str, Any]
    response_format: Any
    reasoning_effort: str
    verbosity: str
    service_tier: str
    prompt_cache_key: str
    safety_identifier: str
    store: bool
    metadata: Mapping[str, str]
    prediction: Any
    modalities: Sequence[str]
    audio: Any
    web_search_options: Any
    extra_body: Mapping[str, Any]
    prompt_cache_retention: str
    prompt_cache_options: Any
    moderation: Any
    continue_final_message: bool


class Parameters(LoopParameters, total=False):
    """Parameters of a completion."""

    tools: Sequence[Any]
