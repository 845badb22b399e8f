"""The key of a kept answer: everything that decides the answer, as one hash.

The key is exact: a request that differs in any field has another key. Only the form of delivery and the id of the
session do not belong to it; the messages of the session do.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from parley.config import Cache, Config, Model
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_VERSION = b"parley-cache-1"
"""Changes with the form of the key or of the kept answers, so that workers of different versions share neither."""
_DELIVERY = ("stream", "stream_options", "session_id")
_NOT_OF_THE_ANSWER = frozenset(
    {
        *(
            "aliases",
            "metadata",
            "timeouts",
            "sessions",
            "history",
            "concurrent_turns",
            "queue_timeout",
            "fallbacks",
            "retries",
        ),
        *("on_stream_failure", "hedge", "coalesce", "whole_answers", "cache"),
        *("weight", "max_concurrent", "max_queued"),
        *("connections", "health", "trace_context", "slots", "threads"),
        *("api_key", "api_keys", "key_header", "key_parameter"),
        *("proxy", "tls", "ca", "client_certificate", "client_key"),
    }
)
"""The settings of a model, its targets and its backends that change how it answers, and not what."""


class CachedCall(NamedTuple):
    """A call, as far as the cache needs it.

    Attributes:
        model: The model, which has a cache.
        request: The request.
        messages: The conversation, with the messages of the session.
        account: The caller's account.
        control: The header `Cache-Control`; None without one.
        forwarded: The caller's headers that some backend may receive.
        session_key: The store's id of the session; None without one.
    """

    model: Model
    request: CreateChatCompletionRequest
    messages: Sequence[Message]
    account: str
    control: str | None = None
    forwarded: Sequence[tuple[str, str]] = ()
    session_key: str | None = None

    @property
    def cache(self) -> Cache:
        """The configuration of the cache."""
        assert self.model.cache is not None  # noqa: S101 - only calls of models with a cache get here
        return self.model.cache


class ModelIdentity(NamedTuple):
    """What the configuration says about the answers of a model.

    Attributes:
        digest: The hash of what decides the answers: the model, its guards, its targets and their backends.
        forwarded: The names of the callers' headers that the backends receive.
    """

    digest: bytes
    forwarded: frozenset[str]


def identities(config: Config) -> dict[str, ModelIdentity]:
    """Returns the identity of each model that has a cache, by its id."""
    return {model.id: _identity(config, model) for model in config.models if model.cache is not None}


def digest(identity: ModelIdentity, call: CachedCall) -> bytes:
    """Returns the SHA-256 of all that decides the answer of a call."""
    request = CreateChatCompletionRequest()
    request.CopyFrom(call.request)
    for name in (*_DELIVERY, "messages"):
        request.ClearField(name)  # type: ignore[arg-type] # names of fields
    request.model = request.model or call.model.id
    scope = b"all" if call.cache.scope == "all" else b"account:" + call.account.encode()
    headers = [f"{name}: {value}" for name, value in call.forwarded if name in identity.forwarded]
    return _hash(
        _VERSION,
        identity.digest,
        scope,
        len(headers).to_bytes(8, "big"),  # so that a header is no message
        *(header.encode() for header in headers),
        _bytes(request),
        *map(_bytes, call.messages),
    )


def _identity(config: Config, model: Model) -> ModelIdentity:
    """Returns the identity of a model.

    A setting that is not known to be irrelevant is included, so that a new one never has an old answer returned.
    """
    backends = {target.backend: config.backends[target.backend] for target in model.targets}
    names = config.default_guards if model.guards is None else model.guards
    guards = [config.guards[name] for name in names]
    text = json.dumps([_relevant(model), _relevant(backends), _relevant(guards)], default=str)
    forwarded = (name for backend in backends.values() for name in getattr(backend, "forward_headers", ()))
    return ModelIdentity(_hash(text.encode()), frozenset(forwarded))


def _hash(*parts: bytes) -> bytes:
    """Returns the SHA-256 of the parts, each with its length: no two lists of parts are the same text."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


def _bytes(message: Message | CreateChatCompletionRequest) -> bytes:
    return message.SerializeToString(deterministic=True)


def _relevant(value: Any) -> Any:
    """Returns a setting as JSON, without what does not decide answers."""
    if is_dataclass(value):
        known = [one.name for one in fields(value) if one.name not in _NOT_OF_THE_ANSWER]
        return {name: _relevant(getattr(value, name)) for name in known}
    if isinstance(value, Mapping):
        return {str(name): _relevant(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_relevant(one) for one in value]
    return value
