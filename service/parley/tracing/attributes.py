"""The attributes of spans. Names are those of OpenTelemetry's conventions for RPC, databases and generative AI.

Names that start with `parley.` are Parley's own. No attribute has a key or a credential.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson
from google.rpc import code_pb2

from parley.config import (
    VENDORS,
    AnthropicBackend,
    AnyLLMBackend,
    BackendConfig,
    Config,
    OpenAIBackend,
    ParleyBackend,
    vendor_of,
)
from parley.core.errors import ParleyError
from parley.core.messages.proto_json import from_message
from parley.core.ports import CallFacts
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord
from parley.v1.error_reason_pb2 import ErrorReason
from parley.v1.message_pb2 import Message

if TYPE_CHECKING:  # loaded only where guards are configured
    from parley.core.guards.records import GuardRecord

Context = Literal["full", "traceparent", "off"]
_INTERNAL_DOMAINS = (".internal", ".local", ".localhost", ".lan", ".svc")
_PARAMETERS = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What spans say of a backend.

    Attributes:
        provider: The value of `gen_ai.provider.name`.
        host: The host; empty if it has none.
        port: The port; 0 if it has none.
        context: Which trace context the backend receives.
    """

    provider: str
    host: str = ""
    port: int = 0
    context: Context = "traceparent"


def backends(config: Config) -> dict[str, BackendFacts]:
    """Returns what spans say of each backend."""
    return {name: _backend(backend) for name, backend in config.backends.items()}


def _backend(config: BackendConfig) -> BackendFacts:
    match config:
        case OpenAIBackend() | AnthropicBackend():
            facts = _of_url(config.base_url, config.kind, config.trace_context)
            # The vendor is known wherever `base_url` leads.
            return replace(facts, provider=VENDORS[config.vendor].provider or config.kind) if config.vendor else facts
        case ParleyBackend():
            return _of_url(f"//{config.target.rpartition('/')[2]}", "parley", config.trace_context)
        case AnyLLMBackend():
            return BackendFacts(config.provider, context="off")
        case _:
            return BackendFacts("llama_cpp", context="off")


def _of_url(url: str, default: str, setting: str) -> BackendFacts:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    vendor = vendor_of(url)
    provider = (vendor.provider if vendor is not None else "") or default
    context: Context = "full" if setting == "full" or (setting == "auto" and _is_internal(host)) else "traceparent"
    return BackendFacts(provider, host, port, "off" if setting == "off" else context)


def _is_internal(host: str) -> bool:
    """Returns whether a host is one of the operator's own network, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(_INTERNAL_DOMAINS) or ".svc." in host


def of_call(service: str, facts: CallFacts) -> dict[str, Any]:
    """Returns the attributes of a call."""
    found: dict[str, Any] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": facts.method,
        "rpc.grpc.status_code": code_pb2.Code.Value(facts.status),
        "parley.request_id": facts.request_id,
    }
    if facts.account:
        found["parley.account"] = facts.account
    if facts.attempts or "model" in facts.fields:
        found |= _of_completion(facts)
    return found


def of_guard(record: "GuardRecord") -> dict[str, Any]:
    """Returns the attributes of the checks of a guard."""
    found: dict[str, Any] = {
        "parley.guard.name": record.guard,
        "parley.guard.phase": record.phase,
        "parley.guard.outcome": record.outcome.value,
        "parley.guard.checks": len(record.checks),
    }
    if record.reason:
        found["parley.guard.reason"] = record.reason
    return found


def _of_completion(facts: CallFacts) -> dict[str, Any]:
    """Returns the attributes of a call that generates an answer."""
    log = facts.fields
    found = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "parley",
        "gen_ai.request.model": log.get("model"),
        "gen_ai.response.model": log.get("model") if "completion_tokens" in log else None,
        "gen_ai.conversation.id": log.get("session"),
        "gen_ai.usage.input_tokens": log.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": log.get("completion_tokens"),
        "parley.attempts": len(facts.attempts),
    }
    return {name: value for name, value in found.items() if value is not None}


def of_attempt(attempt: AttemptRecord, number: int, backend: BackendFacts) -> dict[str, Any]:
    """Returns the attributes of an attempt."""
    model = attempt.target_model or attempt.model_id
    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": backend.provider,
        "gen_ai.request.model": model,
        "parley.attempt.number": number,
        "parley.attempt.kind": str(attempt.kind),
        "parley.attempt.outcome": str(attempt.outcome or AttemptOutcome.CANCELLED),
        "parley.target": f"{attempt.backend}/{model}",
    }
    if backend.host:
        found["server.address"] = backend.host
        if backend.port:
            found["server.port"] = backend.port
    request = attempt.call.request
    found |= {f"gen_ai.request.{name}": getattr(request, name) for name in _PARAMETERS if request.HasField(name)}  # type: ignore[arg-type]
    if limit := request.max_completion_tokens or request.max_tokens:
        found["gen_ai.request.max_tokens"] = limit
    if attempt.outcome is AttemptOutcome.COMPLETED:
        found["gen_ai.response.model"] = model
    if attempt.usage is not None:
        found["gen_ai.usage.input_tokens"] = attempt.usage.prompt_tokens
        found["gen_ai.usage.output_tokens"] = attempt.usage.completion_tokens
    if attempt.first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = attempt.first_token - attempt.started
    return found


def reason(error: ParleyError | None) -> str:
    """Returns the reason of an error; empty without one."""
    return "" if error is None else ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def error_of(attempt: AttemptRecord) -> str:
    """Returns the reason of an attempt that has failed; empty for others."""
    if attempt.error is not None:
        return reason(attempt.error)
    return str(attempt.outcome) if attempt.outcome is AttemptOutcome.PREFIX_MISMATCH else ""


def of_content(facts: CallFacts) -> dict[str, Any]:
    """Returns the messages of a call: those of its last request to a target, and the answer."""
    found: dict[str, Any] = {}
    if facts.attempts:
        found["gen_ai.input.messages"] = _messages(facts.attempts[-1].call.request.messages)
    if facts.answer is not None:
        found["gen_ai.output.messages"] = _messages([choice.message for choice in facts.answer.choices])
    return found


def _messages(messages: Sequence[Message]) -> str:
    """Returns messages in the form of the conventions: a role and parts, as JSON."""
    return orjson.dumps([_message(from_message(message)) for message in messages]).decode()


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = [{"type": "text", "content": content}] if isinstance(content, str) else list(content or ())
    parts += [{"type": "tool_call", **call} for call in message.get("tool_calls") or ()]
    return {"role": message.get("role"), "parts": parts}
