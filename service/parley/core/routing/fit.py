"""Decides before the first attempt which candidates a request fits.

Counts and types are known exactly: a candidate that does not accept them is never tried. Tokens are an estimate: a
candidate whose context is too short is left out only if the request fits another one.
"""

from collections.abc import Iterable, Sequence

from parley.core.errors import UnsupportedParameter
from parley.core.routing.targets import Candidate
from parley.core.usage.tokens import estimate_full_tokens, message_tokens
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_MODALITIES = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "file": "file",
    "video_url": "video",
}
"""The modality of each type of content part."""
_MOST_PER_PART = 1000
"""At least as many tokens as an estimate has for a message or a medium beside its bytes."""


class Demands:
    """What a request needs of a model.

    Args:
        request: The caller's request.
        messages: The conversation, including the messages stored in the session.
        instructions: The instructions of the requested model.

    Attributes:
        choices: The number of choices.
        stops: The number of stop sequences.
        tools: The number of tools.
        images: The number of images.
        modalities: The modalities of the content, except text.
    """

    def __init__(
        self, request: CreateChatCompletionRequest, messages: Sequence[Message], instructions: str | None = None
    ) -> None:
        self._request = request
        self._messages = messages
        self._instructions = estimate_full_tokens(len((instructions or "").encode()))
        self._tokens: int | None = None
        self.choices = request.n if request.HasField("n") else 1
        self.stops = _stops(request)
        self.tools = len(request.tools) + len(request.functions)
        parts = [_MODALITIES[kind] for kind in _part_types(messages) if kind in _MODALITIES]
        self.images = parts.count("image")
        self._media = len(parts)
        self.modalities = frozenset(parts)

    @property
    def tokens(self) -> int:
        """The tokens of the prompt, by estimate. They are counted at the first use."""
        if self._tokens is None:
            tools = sum(tool.ByteSize() for tool in (*self._request.tools, *self._request.functions))
            messages = sum(map(message_tokens, self._messages))
            self._tokens = messages + estimate_full_tokens(tools) + self._instructions
        return self._tokens

    def fits(self, tokens: int) -> bool:
        """Returns whether the prompt has at most so many tokens, by estimate.

        Most prompts are far shorter: the sizes of the messages as protobuf, which are faster to get, show it.
        """
        size = sum([message.ByteSize() for message in self._messages]) + self._request.ByteSize()
        most = estimate_full_tokens(size) + _MOST_PER_PART * (len(self._messages) + self._media) + self._instructions
        return most <= tokens or self.tokens <= tokens


def fitting(candidates: Sequence[Candidate], demands: Demands, answer_tokens: int) -> Sequence[Candidate]:
    """Returns the candidates that a request fits, in the same order.

    Args:
        candidates: The candidates of a call.
        demands: What the request needs.
        answer_tokens: The largest number of tokens of one choice; 0 if neither the request nor the model limits it.

    Raises:
        UnsupportedParameter: No candidate accepts the request.
    """
    problems = [_problem(candidate, demands) for candidate in candidates]
    accepting = [candidate for candidate, problem in zip(candidates, problems, strict=True) if problem is None]
    if not accepting:
        raise next(filter(None, problems))
    if len(candidates) == 1:
        return candidates
    roomy = [candidate for candidate in accepting if _has_room(candidate, demands, answer_tokens)]
    return roomy or accepting


def _problem(candidate: Candidate, demands: Demands) -> UnsupportedParameter | None:
    """Returns why a candidate does not accept a request; None if it does."""
    accepts, known, model = candidate.accepts, candidate.metadata, candidate.model.id
    for name, count, most in (
        ("n", demands.choices, accepts.n),
        ("stop", demands.stops, accepts.stop),
        ("tools", demands.tools, 0 if known.tools is False else accepts.tools),
        ("images", demands.images, accepts.images),
    ):
        if most is not None and count > most:
            return _too_many(name, most, model)
    if known.modalities is not None and (missing := demands.modalities.difference(known.modalities)):
        message = f'Content of the type {min(missing)} is not supported by the model "{model}"'
        return UnsupportedParameter(message, param="messages")
    return None


def _too_many(name: str, most: int, model: str) -> UnsupportedParameter:
    what, param = ("Images", "messages") if name == "images" else (f"`{name}`", name)
    if most == 0:
        return UnsupportedParameter(f'{what} cannot be used with the model "{model}"; leave them out', param=param)
    limit = f"must be at most {most}" if name == "n" else f"may have at most {most} entries"
    return UnsupportedParameter(f'{what} {limit} for the model "{model}"', param=param)


def _has_room(candidate: Candidate, demands: Demands, answer_tokens: int) -> bool:
    """Returns whether the prompt and the requested answer fit the candidate's context, by estimate."""
    known = candidate.metadata
    if known.max_output is not None and answer_tokens > known.max_output:
        return False
    return known.context_length is None or demands.fits(known.context_length - max(1, answer_tokens))


def _stops(request: CreateChatCompletionRequest) -> int:
    listed = len(request.stop.list_value.values) if request.stop.HasField("list_value") else 0
    return listed + len(request.stop_sequences) + bool(request.stop.string_value)


def _part_types(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        if message.content.HasField("list_value"):
            for part in message.content.list_value.values:
                fields = part.struct_value.fields
                if "type" in fields:
                    yield fields["type"].string_value
