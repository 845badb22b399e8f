"""`Idempotency-Key`: what makes a request, sent again, the same request."""

import hashlib
from dataclasses import dataclass

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a call came with: it counts within the caller's account, for the RPC `method`."""

    method: str
    text: str


def digest(request: CreateChatCompletionRequest) -> bytes:
    """Returns the SHA-256 of a request, in which two requests that ask for the same are alike."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
