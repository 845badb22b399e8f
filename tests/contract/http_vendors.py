"""HTTP vendors for the contract suite of backends, on the scripted upstream."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley.backends.anthropic.backend import Anthropic
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.backends.openai.backend import OpenAI
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from parley.core.ports import Backend
from tests import upstream as openai
from tests.contract import anthropic_api as anthropic
from tests.contract.backends import KEY, Mark, Piece
from tests.upstream import Cut, Events, Json, Raw, Received, ScriptedUpstream, Stall, Step

_STATUS: dict[type[UpstreamError], int] = {
    UpstreamMisconfigured: 401,
    UpstreamRateLimited: 429,
    UpstreamUnavailable: 503,
}
_INVALID = "invalid_request_error"


@dataclass(frozen=True)
class HttpVendor:
    """A vendor whose server is the scripted upstream.

    `make` creates its backend from the server's root URL. `begins` and `ends` are the steps around the pieces of a
    stream, each created by `piece`. `fault` creates an error body with the given message; `faults` overrides it by
    kind; `event` converts such a body to an event.
    """

    name: str
    make: Callable[[str], Backend]
    answer: Callable[[str], dict[str, Any]]
    begins: Callable[[], list[Step]]
    piece: Callable[[str], Step]
    ends: Callable[[], list[Step]]
    fault: Callable[[str], dict[str, Any]]
    faults: Mapping[type[UpstreamError], Callable[[str], dict[str, Any]]]
    event: Callable[[dict[str, Any]], Step] = dict

    def __repr__(self) -> str:
        """Returns the id that pytest shows."""
        return self.name

    def serve(self) -> ScriptedUpstream:
        """Runs a server on a free port."""
        return ScriptedUpstream()

    def backend(self, address: str) -> Backend:
        """Creates the backend for a server at `host:port`."""
        return self.make(f"http://{address}")

    def requested_model(self, received: Received) -> str:
        """Returns the model that a call requested."""
        return str(received.json["model"])

    def complete_answer(self, text: str) -> Json:
        """Scripts a complete response."""
        return Json(self.answer(text))

    def stream(self, *pieces: Piece, together: bool = False) -> Events:
        """Scripts a stream; `together` as in Events."""
        return Events([*self.begins(), *(step for piece in pieces for step in self._steps(piece))], together=together)

    def rejection(self, kind: type[UpstreamError], message: str, retry_after: float | None = None) -> Json:
        """Scripts the rejection that maps to the error `kind`."""
        body = self.faults.get(kind, self.fault)(message)
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        return Json(body, _STATUS.get(kind, 400), headers)

    def answers(self, status: int, message: str = "no", **headers: str) -> Json:
        """Scripts an error with any status; `_` in a header's name stands for `-`."""
        return Json(self.fault(message), status, {name.replace("_", "-"): value for name, value in headers.items()})

    def silence(self) -> Raw:
        """Scripts a server that accepts the call and never responds."""
        return Raw([Stall()])

    def connection_closed(self) -> Raw:
        """Scripts a server that accepts the call and closes the connection."""
        return Raw([Cut()])

    def _steps(self, piece: Piece) -> list[Step]:
        match piece:
            case str():
                return [self.piece(piece)]
            case Mark.END:
                return self.ends()
            case Mark.FAULT:
                return [self.event(self.fault("the GPU is gone"))]
            case Mark.TOO_LONG:
                return [self.event(self.faults[ContextLengthExceeded]("too many tokens"))]
            case _:
                return [piece]


def _openai_fault(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "some_error", "param": None, "code": None} | more}


OPENAI = HttpVendor(
    name="openai",
    make=lambda root: OpenAI(f"{root}/v1", KEY),
    answer=openai.completion,
    begins=openai.chunks,
    piece=lambda words: openai.chunk({"content": words}),
    ends=openai.ending,
    fault=_openai_fault,
    faults={
        ContextLengthExceeded: lambda words: _openai_fault(words, code="context_length_exceeded"),
        ContentPolicy: lambda words: _openai_fault(words, code="content_policy_violation"),
        UpstreamRejected: lambda words: _openai_fault(words, type="invalid_request_error"),
    },
)

ANTHROPIC = HttpVendor(
    name="anthropic",
    make=lambda root: Anthropic(root, KEY, max_tokens=4096),
    answer=lambda words: anthropic.message(anthropic.text_block(words)),
    begins=anthropic.begins,
    piece=lambda words: anthropic.delta(text=words),
    ends=anthropic.ends,
    fault=lambda words: anthropic.error("api_error", words),
    faults={
        ContextLengthExceeded: lambda words: anthropic.error(_INVALID, f"prompt is too long: 9 > 8 maximum; {words}"),
        ContentPolicy: lambda words: anthropic.error(_INVALID, f"Output blocked by content filtering policy; {words}"),
        UpstreamRejected: lambda words: anthropic.error(_INVALID, words),
        UpstreamRateLimited: lambda words: anthropic.error("rate_limit_error", words),
        UpstreamMisconfigured: lambda words: anthropic.error("authentication_error", words),
    },
    event=lambda body: anthropic.event("error", **{name: body[name] for name in ("error", "request_id")}),
)


class _OnSocket(ScriptedUpstream):
    """The scripted upstream on a Unix socket in a temporary folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="parley-test-")
        super().__init__(Path(self._folder.name) / "llama.sock")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._folder.cleanup()


class LlamaCppVendor(HttpVendor):
    """llama.cpp's server uses OpenAI's API on a Unix socket."""

    def serve(self) -> ScriptedUpstream:
        """Runs a server on a socket."""
        return _OnSocket()

    def backend(self, address: str) -> Backend:
        """Makes the backend for a server at a path."""
        return LlamaCpp(Path(address))


LLAMA_CPP = LlamaCppVendor(**{**vars(OPENAI), "name": "llama_cpp"})
HTTP_VENDORS = [OPENAI, ANTHROPIC, LLAMA_CPP]
