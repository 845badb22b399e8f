"""The models: what a request may name, and who answers it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError

from parley.config.types import Duration, Size, Strict, off

_MAX_PER_MINUTE = 10**12


class Timeouts(Strict):
    """How long a target may take, in seconds. The defaults fit models that reason before they answer.

    `connect` and `total` bound every call. `first_token`, `stream_idle` and `stall` bound what is asked for as a
    stream: the time to the first token, then the time without a byte (comments and blank lines are bytes), and the
    time without a token. A server that buffers the arguments of a tool call sends bytes and no tokens: from the start
    of a tool call to the next token `stall` does not count. Between the bytes of a whole answer `stream_idle` counts.
    """

    connect: Duration = 5.0
    first_token: Duration = 120.0
    stream_idle: Duration = 120.0
    stall: Duration = 120.0
    total: Duration = 600.0


class History(Strict):
    """How much of a session's past goes with a turn: the newest whole turns that fit. System messages always go.

    Tokens are estimated: four bytes of text are one, an image is a thousand. None is no bound. A turn for which more
    than `load_messages` messages or `load_bytes` bytes would go is refused: no caller may fill a worker's memory.
    """

    max_messages: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    load_messages: int = Field(default=10_000, ge=1)
    load_bytes: Size = Field(default=32 * 1024 * 1024, ge=1)


class Target(Strict):
    """One backend that can answer a model, its own name for it, and its share of the calls.

    `max_concurrent` bounds the calls that one worker has there at a time, `max_queued` those that wait for a place: for
    up to `timeouts.connect`, then the next target is asked. The same backend and model have the same bounds everywhere.
    """

    backend: str
    model: str = ""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    max_concurrent: int | None = Field(default=None, ge=1)
    max_queued: int = Field(default=0, ge=0)

    @property
    def name(self) -> str:
        """What the log, the receipts and the price table call it: `backend/model`, or the backend alone."""
        return target_name(self.backend, self.model)


def target_name(backend: str, model: str) -> str:
    """Names a target: `openai/gpt-5-mini`, or the backend alone where it has no name of its own for the model."""
    return f"{backend}/{model}" if model else backend


class Retries(Strict):
    """What failures may cost.

    `attempts` bounds what one call asks of all its targets and fallbacks together, continuations of broken streams
    included. `share` bounds how many calls of a worker may be repeated at the same target, or hedged: so many to one
    first attempt, beside a few a second that are always free; a backend that is down is not buried under them.
    """

    attempts: int = Field(default=6, ge=1, le=32)
    share: float = Field(default=0.2, ge=0, le=10, allow_inf_nan=False)


_DURATION: TypeAdapter[float] = TypeAdapter(Duration)


def _hedge(value: object) -> object:
    """Reads `auto`, `off` or a time span, in seconds; null is `off`."""
    if isinstance(value, str) and value in {"auto", "off"}:
        return value
    if value is None or value is False:
        return "off"
    try:
        return _DURATION.validate_python(value)
    except ValidationError:
        raise ValueError("must be `auto`, `off` or a time span above 0, for example `2s`") from None


class Model(Strict):
    """What a request may name, and who answers it.

    `instructions` go before the conversation. `instructions_mode`: whether they and the conversation's system and
    developer messages are sent as one system message (`join`), which every chat template takes, or as a system message
    of their own (`separate`). `defaults` are request parameters for requests
    that leave them out. `sessions`: `auto` keeps every conversation, `on_request` those with an id or `store: true`,
    `off` none. `concurrent_turns`: whether a request to a session that is busy fails at once (`reject`), or waits for
    up to `queue_timeout` seconds (`queue`). `fallbacks` are ids of models that answer when no target can, in order; one
    without `instructions` gets this model's. `on_stream_failure`: whether a stream that breaks off goes on at the next
    target (`continue`), or ends with an error (`fail`). `hedge`: after so many seconds without a first token a stream
    is asked of the next target too, and the faster one answers; `auto` does so when the first token is late: after 10
    s, and once five first tokens of the target are known, after 1.5 times what nearly all of its latest twenty took, at
    least 2 s. Models that take longer than 10 s for every first token, and have a faster fallback, need a longer time
    here, or `off`. `whole_answers`: how an answer that the caller wants
    whole is asked for upstream: as a stream that is joined (`stream`), so that what protects streams protects it too
    (`first_token`, `stream_idle`, `stall`, `hedge`, continuation), or as it is (`whole`); `auto` asks for a stream
    where the model has another target or a fallback. A target that cannot stream is asked for the whole answer.
    """

    id: str = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    instructions: str | None = None
    instructions_mode: Literal["join", "separate"] = "join"
    defaults: dict[str, Any] = Field(default={})
    timeouts: Timeouts = Timeouts()
    sessions: Annotated[Literal["auto", "on_request", "off"], BeforeValidator(off)] = "auto"
    history: History = History()
    concurrent_turns: Literal["reject", "queue"] = "reject"
    queue_timeout: Duration = 30.0
    fallbacks: list[str] = Field(default=[])
    retries: Retries = Retries()
    on_stream_failure: Literal["continue", "fail"] = "continue"
    hedge: Annotated[Literal["auto", "off"] | float, PlainValidator(_hedge)] = "auto"
    whole_answers: Literal["auto", "stream", "whole"] = "auto"


class RateLimit(Strict):
    """How many requests and tokens a minute; what is not set is not limited."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=_MAX_PER_MINUTE)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=_MAX_PER_MINUTE)


class RateLimits(Strict):
    """What each API key, and each account with all its keys together, may use. One count serves all workers."""

    key: RateLimit = RateLimit()
    account: RateLimit = RateLimit()


class Price(Strict):
    """What a million tokens cost, in the currency that all prices share. Without `cached_prompt` it is `prompt`."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
    cached_prompt: float | None = Field(default=None, ge=0, allow_inf_nan=False)
