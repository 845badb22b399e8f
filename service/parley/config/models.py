"""The models: the ids that requests name, and the targets that answer them."""

from dataclasses import field, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal

from parley.config.cache import Cache
from parley.config.markers import After, Before, Constraints, Instead
from parley.config.metadata import Metadata
from parley.config.targets import WILDCARD, Target
from parley.config.types import Duration, Size, Strict, restore_off, session_policy


class Timeouts(Strict):
    """Time limits of a call to a target. The defaults suit models that reason before they answer.

    Example:
        models:
          - id: support
            targets: [{backend: local}]
            timeouts: {connect: 2s, first_token: 30s, total: 5m}
    """

    connect: Duration = 5.0
    """Time to connect, and to wait for a free slot of the target (`max_queued`)."""
    first_token: Duration = 120.0
    """Time to the first token of a stream."""
    stream_idle: Duration = 120.0
    """Time without a byte, in a stream after its first token or within a non-streaming answer. Comments and blank lines
    count as bytes."""
    stall: Duration = 120.0
    """Time without a token, in a stream after its first token. Does not apply between the start of a tool call and the
    next token: some servers buffer the arguments and send only comments."""
    total: Duration = 600.0
    """Time of one attempt, from its start to the end of the answer."""


class History(Strict):
    """The part of a session's history that is sent: the newest complete turns that fit, and all system messages.

    Example:
        models:
          - id: support
            targets: [{backend: local}]
            history: {max_messages: 40, max_tokens: 20000}
    """

    max_messages: Annotated[int | None, Constraints(ge=1)] = None
    """Largest number of messages. Default: no limit."""
    max_tokens: Annotated[int | None, Constraints(ge=1)] = 1_000_000
    """Largest number of tokens, by estimate: four bytes of text are a token, an image is a thousand. The default is the
    largest context window of current models; null: no limit."""
    load_messages: Annotated[int, Constraints(ge=1)] = 10_000
    """Messages above which a turn is rejected, so that no caller fills a worker's memory."""
    load_bytes: Annotated[Size, Constraints(ge=1)] = 32 * 1024 * 1024
    """Bytes above which a turn is rejected."""


class SessionPolicy(Strict):
    """Which conversations are kept, and which ids sessions have. `sessions: on_request` is short for the mode alone.

    Example:
        models:
          - id: support
            targets: [{backend: local}]
            sessions: {mode: auto, ids: caller}
    """

    mode: Annotated[Literal["auto", "on_request", "off"], Before(restore_off)] = "auto"
    """Which conversations are kept: all (`auto`), those with a session id or `"store": true` (`on_request`), or none
    (`off`)."""
    ids: Literal["generated", "caller"] = "generated"
    """Whether an id that the account does not have is an error (`generated`), or creates a session with that id
    (`caller`): 1 to 128 printable ASCII characters. The same id of two accounts is two sessions."""


class Retries(Strict):
    """Limits on retries and hedges.

    Example:
        models:
          - id: support
            targets: [{backend: local}]
            retries: {attempts: 3, share: 0.1}
    """

    attempts: Annotated[int, Constraints(ge=1, le=32)] = 6
    """Largest number of attempts of a call, at all targets and fallbacks together, with continuations."""
    share: Annotated[float, Constraints(ge=0, le=10, allow_inf_nan=False)] = 0.2
    """Retries at the same target and hedges of a worker, in proportion to first attempts. A few a second are allowed in
    addition."""


_MAX_COALESCE = 1.0  # seconds; far below the shortest useful `stream_idle`


def _duration(value: object) -> float:
    """Parses a duration; returns seconds. Raises ValueError."""
    from parley.config.validation import validated

    seconds: float = validated(Duration, value)
    return seconds


def _hedge(value: object) -> object:
    """Parses `auto`, `off` or a duration in seconds; null is `off`."""
    if isinstance(value, str) and value in {"auto", "off"}:
        return value
    if value is None or value is False:
        return "off"
    try:
        return _duration(value)
    except ValueError:
        raise ValueError("must be `auto`, `off` or a duration above 0, for example `2s`") from None


def _coalesce(value: object) -> object:
    """Parses `off` or a duration in seconds."""
    if value is False or value == "off":
        return "off"
    try:
        seconds = _duration(value)
    except ValueError:
        seconds = _MAX_COALESCE + 1
    if seconds > _MAX_COALESCE:
        raise ValueError("must be `off` or a duration above 0 and up to 1s, for example `50ms`")
    return seconds


def _model_id(text: str) -> str:
    """Rejects `*` anywhere but at the end, and twice."""
    if WILDCARD in text[:-1]:
        raise ValueError('may have one "*", at its end, for example "groq/*"')
    return text


def _day(value: object) -> object:
    """Rejects what is no day. Unquoted, YAML has a type for days."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("must be a day, for example 2027-01-31") from None


class Alias(Strict):
    """Another id of a model, for example an earlier one.

    Example:
        models:
          - id: support
            targets: [{backend: local}]
            aliases: [{id: support-2025, retires: 2027-01-31}, {id: helpdesk}]
    """

    id: Annotated[str, Constraints(min_length=1)]
    """The id, which requests, keys and sessions may name. Answers name the model's own id."""
    retires: Annotated[date | None, Before(_day)] = None
    """Last day in UTC on which requests may name it; later ones get 404. Until then answers have the header
    `x-parley-deprecated`. Default: no end."""

    @property
    def is_retired(self) -> bool:
        """Whether the last day has passed."""
        return self.retires is not None and datetime.now(UTC).date() > self.retires


class Model(Strict):
    """A model that requests can name.

    Example:
        models:
          - id: support
            targets: [{backend: vllm, model: qwen3-8b}]
            fallbacks: [backup]
            instructions: "You are the support assistant of Example Ltd."
            defaults: {temperature: 0.7, max_tokens: 512}
            hedge: 2s
          - {id: backup, targets: [{backend: local}]}
          - {id: "vllm/*", targets: [{backend: vllm, model: "*"}]}
    """

    id: Annotated[str, Constraints(min_length=1), After(_model_id)]
    """Id of the model, as in a request's `model`. With `*` at its end it stands for all ids that begin with what
    precedes; an exact id goes first, then the longest such one. `*` in the `model` of a target, and in `fallbacks`, is
    the rest of the requested id."""
    targets: Annotated[list[Target], Constraints(min_length=1)]
    """Targets that answer; one is chosen by weight among the healthy ones."""
    aliases: list[Alias] = field(default_factory=list)
    """Other ids of the model."""
    metadata: Metadata = Metadata()
    """What the model can do. `/v1/models` shows it, and calls that cannot fit go to a fallback."""
    instructions: str | None = None
    """System prompt before every conversation. Default: none; as a fallback, that of the requested model."""
    instructions_mode: Literal["join", "separate"] = "join"
    """Whether the instructions and the conversation's system and developer messages become one system message (`join`,
    which every chat template accepts), or the instructions are a system message of their own (`separate`)."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Request parameters for requests that leave them out."""
    timeouts: Timeouts = Timeouts()
    """Time limits of a call to a target."""
    sessions: Annotated[SessionPolicy, Before(session_policy)] = SessionPolicy()
    """Which conversations are kept (`auto`, `on_request` or `off`), or an object that also says which ids they have."""
    history: History = History()
    """The part of a session's history that is sent with a turn."""
    concurrent_turns: Literal["reject", "queue"] = "reject"
    """Whether a turn in a busy session fails at once with 409 (`reject`) or waits (`queue`)."""
    queue_timeout: Duration = 30.0
    """Longest wait with `concurrent_turns: queue`."""
    fallbacks: list[str] = field(default_factory=list)
    """Ids of models that answer if no target can, in order."""
    retries: Retries = Retries()
    """Limits on retries and hedges."""
    on_stream_failure: Literal["continue", "fail"] = "continue"
    """Whether a stream that breaks is continued at the next target (`continue`) or ends with an error (`fail`)."""
    hedge: Annotated[Literal["auto", "off"] | float, Instead(_hedge)] = "auto"
    """Time without a first token after which the next target is called in parallel; the faster one answers. `auto`: 10
    s, and once five first tokens of the target are known, 1.5 times what nearly all of its latest twenty took, at least
    2 s. `off`: never. Models whose every first token takes more than 10 s, and whose fallback is faster, need a longer
    time or `off`."""
    coalesce: Annotated[Literal["off"] | float, Instead(_coalesce)] = "off"
    """Longest time for which the tokens of a stream are collected, after the first one, so that they leave together,
    with those of other streams: less work for each token, for those who carry thousands of streams. The first token and
    the end of the answer never wait. At most 1 s. Not for backends of kind `any_llm` and `parley`, where the other
    Parley can do it. `off`: every token leaves as it arrives."""
    guards: list[str] | None = None
    """Names of the guards that check its requests and answers, in order; `[]` for none. Default: `default_guards`."""
    whole_answers: Literal["auto", "stream", "whole"] = "auto"
    """How a non-streaming answer is requested from the backend: as a stream that Parley joins, so that `first_token`,
    `stream_idle`, `stall`, `hedge` and continuation apply (`stream`), or as it is (`whole`). `auto`: as a stream if the
    model has another target or a fallback. A target that cannot stream always gets a non-streaming request."""
    cache: Cache | None = None
    """The cache of the model's answers. Default: no answer is kept."""

    label: ClassVar[str]
    """The id in the configuration, also of a model that is returned under another id. Metrics and usage have it,
    because callers choose the other one."""

    def __post_init__(self) -> None:
        """Sets the label. It is an attribute, because every call reads it."""
        object.__setattr__(self, "label", self.id)

    @property
    def is_wildcard(self) -> bool:
        """Whether the configured id ends with `*`."""
        return self.label.endswith(WILDCARD)

    @property
    def rest(self) -> str:
        """What a request has named in place of the `*` of a wildcard; empty for other models."""
        return self.id[len(self.label) - 1 :] if self.is_wildcard and self.id != self.label else ""

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids of the model: its own, then its aliases."""
        return (self.id, *(alias.id for alias in self.aliases))

    def named(self, model_id: str) -> "Model":
        """Returns this model under another id: one that a wildcard stands for, or an alias."""
        named = replace(self, id=model_id)
        object.__setattr__(named, "label", self.label)
        return named
