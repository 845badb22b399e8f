"""The configuration: one YAML file, read and checked as a whole. Errors name the path of the line at fault."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
_MOST_A_MINUTE = 10**12
_PRINTABLE = re.compile(r"[!-~]+")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """The configuration cannot be used. Its text is one line a problem: file, path, what to change."""


def _seconds(value: object) -> object:
    """Reads `500ms`, `5s`, `10m`, `2h`, `30d` or a number of seconds."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
"""A time span in seconds; in YAML a number of seconds or text like `500ms`, `5s`, `10m`."""


def _off(value: object) -> object:
    """Gives `off` back its meaning: YAML reads it as false."""
    return "off" if value is False else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timeouts(_Strict):
    """How long a target may take, in seconds. `first_token` and `stream_idle` bound streams, the others every call."""

    connect: Duration = 5.0
    first_token: Duration = 30.0
    stream_idle: Duration = 15.0
    total: Duration = 600.0


def _base_url(text: str) -> str:
    """Refuses what is no base of `…/chat/completions`. What was written may be secret, and is not repeated."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not _PRINTABLE.fullmatch(text):
        raise ValueError('must be a URL, for example "https://api.openai.com/v1"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or a password; put the key into `api_key`")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment; it ends before /chat/completions")
    return text


def _key(text: str) -> str:
    """Refuses what no header can carry."""
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("must be one word of printable ASCII, without line breaks; look where it comes from")
    return text


class OpenAIBackend(_Strict):
    """Any endpoint that speaks OpenAI's chat completions: `base_url` ends before `/chat/completions`."""

    kind: Literal["openai"]
    base_url: Annotated[str, AfterValidator(_base_url)]
    api_key: Annotated[str, AfterValidator(_key)] | None = Field(default=None, repr=False)


class LlamaCppBackend(_Strict):
    """llama.cpp's own server, started and watched by Parley. Without `model_path`: the model in the package.

    `context` is the number of tokens that each of the `slots` parallel requests may use, at most what the model was
    trained with; `threads` defaults to half of the machine's cores: more only slow each other down beside the workers.
    """

    kind: Literal["llama_cpp"]
    model_path: Path | None = None
    context: int = Field(default=4096, ge=256)
    slots: int = Field(default=4, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1)


BackendConfig = Annotated[OpenAIBackend | LlamaCppBackend, Field(discriminator="kind")]


class SqliteConfig(_Strict):
    """One file for one machine; without `path`: `parley.db` in the state folder."""

    kind: Literal["sqlite"] = "sqlite"
    path: Path | None = None


class PostgresConfig(_Strict):
    """A PostgreSQL database for any number of machines; each worker opens up to `pool` connections."""

    kind: Literal["postgres"]
    url: str = Field(pattern=r"^postgres(ql)?://", repr=False)
    pool: int = Field(default=10, ge=2, le=100)


StoreConfig = Annotated[SqliteConfig | PostgresConfig, Field(discriminator="kind")]


class Retention(_Strict):
    """How long a session is kept after its latest turn; None (in YAML `null`) is for ever."""

    ttl: Duration | None = 30 * 86400.0


class History(_Strict):
    """How much of a session's past goes with a turn: the newest whole turns that fit. System messages always go.

    Tokens are estimated: four bytes of text are one, an image is a thousand. None is no bound.
    """

    max_messages: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)


class Target(_Strict):
    """One backend that can answer a model, its own name for it, and its share of the calls."""

    backend: str
    model: str = ""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Model(_Strict):
    """What a request may name, and who answers it.

    `instructions` are sent as a system message before the conversation. `defaults` are request parameters for requests
    that leave them out. `sessions`: `auto` keeps every conversation, `on_request` those with an id or `store: true`,
    `off` none. `concurrent_turns`: whether a request to a session that is busy fails at once (`reject`), or waits for
    up to `queue_timeout` seconds (`queue`).
    """

    id: str = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    instructions: str | None = None
    defaults: dict[str, Any] = {}
    timeouts: Timeouts = Timeouts()
    sessions: Annotated[Literal["auto", "on_request", "off"], BeforeValidator(_off)] = "auto"
    history: History = History()
    concurrent_turns: Literal["reject", "queue"] = "reject"
    queue_timeout: Duration = 30.0


class Limit(_Strict):
    """How many requests and tokens a minute; what is not set is not limited."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=_MOST_A_MINUTE)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=_MOST_A_MINUTE)


class Limits(_Strict):
    """What each API key, and each account with all its keys together, may use. One count serves all workers."""

    key: Limit = Limit()
    account: Limit = Limit()


class Config(_Strict):
    """The whole configuration. Without a file: the model in the package, under the id `smollm2`."""

    backends: dict[str, BackendConfig] = Field(min_length=1)
    models: list[Model] = Field(min_length=1)
    default_model: str | None = None
    store: StoreConfig = SqliteConfig()
    sessions: Retention = Retention()
    limits: Limits | None = None

    @model_validator(mode="after")
    def _references(self) -> Self:
        """Checks that every name that is used is defined, once."""
        for name in self.backends:
            if not _NAME.fullmatch(name):
                raise ValueError(f'backends: "{name}" is not a name; use up to 32 letters, digits, ".", "_", "-"')
        ids = [model.id for model in self.models]
        for index, model in enumerate(self.models):
            if model.id in ids[:index]:
                raise ValueError(f'models[{index}].id: "{model.id}" is used twice; give each model its own id')
            for place, target in enumerate(model.targets):
                if target.backend not in self.backends:
                    known = ", ".join(self.backends)
                    where = f"models[{index}].targets[{place}].backend"
                    raise ValueError(f'{where}: no backend is named "{target.backend}"; use one of: {known}')
        if self.default_model is not None and self.default_model not in ids:
            raise ValueError(f'default_model: no model has the id "{self.default_model}"; use one of: {", ".join(ids)}')
        return self


_DEFAULT = """\
backends:
  local: {kind: llama_cpp}
models:
  - id: smollm2
    targets: [{backend: local}]
    # So small a model needs both: measured, it names Paris 10 times of 10 with them, 3 times without.
    instructions: "You are a helpful assistant. Answer in one short sentence."
    defaults: {temperature: 0, max_tokens: 512}
    history: {max_tokens: 2500}
default_model: smollm2
"""


def load(path: Path | None) -> Config:
    """Reads and checks the file, or the default configuration where `path` is None. Raises ConfigError."""
    if path is None:
        return parse(_DEFAULT, name_of(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); name a readable YAML file with --config") from error
    return parse(text, name_of(path))


def name_of(path: Path | None) -> str:
    """Returns how errors call the file."""
    return "(default configuration)" if path is None else str(path)


def parse(text: str, name: str) -> Config:
    """Reads and checks YAML text; `name` is how errors call it. Raises ConfigError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {_place(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: must be a mapping with `backends` and `models`")
    try:
        return Config.model_validate(_expand(data, "", name))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{name}: {_explain(item)}" for item in error.errors())) from error


def _place(error: yaml.YAMLError) -> str:
    """Where the YAML is wrong, and why; without the text there, which may be secret."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else " ".join(str(error).split())


def _expand(value: Any, path: str, name: str) -> Any:
    """Puts environment variables in place of `${NAME}` in every string."""
    if isinstance(value, dict):
        return {key: _expand(item, f"{path}.{key}" if path else str(key), name) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{path}[{index}]", name) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for variable in _VARIABLE.findall(value):
        if variable not in os.environ:
            raise ConfigError(f"{name}: {path}: the environment variable {variable} is not set; set it before starting")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


def _explain(item: Any) -> str:
    """Puts one of pydantic's errors into a line: `models[0].timeouts.connect: Input should be greater than 0`."""
    message = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
    place = re.sub(r"(backends\.[^.]+|^store)\.(openai|llama_cpp|sqlite|postgres)\b", r"\1", place)
    return f"{place}: {message}" if place else message
